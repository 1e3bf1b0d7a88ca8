"""How DQ's program names its files, and in which order its evaluation sees images."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

import numpy as np

from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.datasets.files import existing_folder
from dqas_plugin.errors import UserError

BINS = "bins"
"""Folder of the bins in what is written: DQ's sampler reads every file of the folder that it gets, so nothing else is there."""

IMAGES = "images"
"""Folder of the images."""

IMAGE_FOLDER = "imagefolder"
"""Folder of the selection by position in an image folder."""

_BIN = re.compile(r"select_indices_(.+)_exp(0|[1-9][0-9]{0,8})\.npy", re.ASCII)
_SELECTION = re.compile(r"select_indices_(.+)_([0-9][0-9.e-]*)\.npy", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_THEIRS = {"cifar10": "CIFAR10", "imagenet": "ImageNet"}


def bin_file(dataset: str, number: int) -> str:
    """Name of a bin, the first being number 0."""
    return f"select_indices_{dataset}_exp{number}.npy"


def selection_file(dataset: str, fraction: float) -> str:
    """Name of a selection; the fraction as Python prints it, in at most 6 digits."""
    return f"select_indices_{dataset}_{float(f'{fraction:.6g}')}.npy"


def named_fraction(path: Path) -> tuple[str, float] | None:
    """Dataset and fraction that the name of a selection says; None for another name."""
    found = _SELECTION.fullmatch(path.name)
    try:
        return (found[1], float(found[2])) if found else None
    except ValueError:
        return None


def bin_files(folder: Path) -> list[Path]:
    """The files of the bins in ``folder``, first bin first; other files are passed over.

    Raises:
        UserError: if it is no folder, has none, or those of two datasets, or one is missing in between.
    """
    found: dict[str, dict[int, Path]] = {}
    for one in sorted(existing_folder(folder, "bins of DQ").iterdir()):
        if match := _BIN.fullmatch(one.name):
            found.setdefault(match[1], {})[int(match[2])] = one
    if not found:
        raise UserError(f"{folder} holds no bins of DQ: they are files named {bin_file('DATASET', 0)} and so on")
    if len(found) > 1:
        first, second, *_ = found
        raise UserError(f"{folder} holds bins of '{first}' and of '{second}': put those of each into a folder of their own")
    ((dataset, numbered),) = found.items()
    missing = next(number for number in count() if number not in numbered)
    if missing < len(numbered):
        raise UserError(f"{folder} has {len(numbered)} bins but lacks {bin_file(dataset, missing)}: add that bin")
    return [numbered[number] for number in range(missing)]


def dataset_label(data: ImageDataset, wanted: str) -> str:
    """What stands for the dataset in names of files: ``wanted``, or else its own name, as DQ's program writes it.

    Raises:
        UserError: if ``wanted`` cannot be part of the name of a file.
    """
    own = data.name.removesuffix("/train")
    label = wanted or _THEIRS.get(own, re.sub(r"[^A-Za-z0-9_.-]+", "-", own).strip("-._") or "dataset")
    if not _NAME.fullmatch(label):
        raise UserError(f"dataset='{label}' cannot be part of the name of a file: use letters, digits and hyphens")
    return label


def image_name(index: int) -> str:
    """Name of an image in the folder of its label."""
    return f"{index}.png"


def imagefolder_positions(labels: IntArray) -> IntArray:
    """Where torchvision's ``ImageFolder`` has each of the images ``{label}/{index}.png`` of a whole dataset, int64 ``[N]``.

    It sorts folders and files as text, so 10 comes before 2. DQ's evaluation (``validate_cifar.py --data_dir``) reads images
    so, and then takes positions in the order of the dataset: other images than those meant.

    Args:
        labels: int64 ``[N]``.
    """
    order = sorted(range(len(labels)), key=lambda index: (str(labels[index]), image_name(index)))
    positions = np.empty(len(labels), dtype=np.int64)
    positions[order] = np.arange(len(labels))
    return positions
