"""Sets of DC, DSA and DM (VICO-UoE/DatasetCondensation): ``res_{METHOD}_{DATASET}_{MODEL}_{IPC}ipc.pt``.

Zhao, Mopuri, Bilen, ICLR 2021 (DC); Zhao, Bilen, ICML 2021 (DSA) and WACV 2023 (DM). A file holds ``data``, a list with
``[images, labels]`` of every run, and ``accs_all_exps``, what their evaluation gave. Images are stored as their networks saw
them, normalised.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from dqas_adapters.distilled.family import DistilledSet, joined, paths_in
from dqas_adapters.distilled.labels import class_order, read_labels
from dqas_adapters.distilled.normalisation import CONDENSATION, UNMIRRORED, NormalisationName
from dqas_adapters.distilled.pixels import checked_values, normalised_scale, plain_scale, stored_images, to_pixels
from dqas_adapters.foreign import read_torch
from dqas_plugin.data import DatasetSplits
from dqas_plugin.errors import UserError

_WHAT = "a set of DatasetCondensation"
_REMEDY = "normalisation=NAME (or none)"
_NAME = re.compile(r"res_[^_]+_([^_]+)_[^_]+_\d+ipc$")
_DATASETS = {"mnist": "mnist", "fashionmnist": "fashion-mnist", "svhn": "svhn", "cifar10": "cifar10", "cifar100": "cifar100"}
_DATASETS |= {"tinyimagenet": "tiny-imagenet"}


def load(
    path: str,
    *,
    run: int = 0,
    normalisation: NormalisationName = "auto",
    classes_from: str | None = None,
    data_root: str | None = None,
    mirror: bool = True,
    in_order: bool = True,
    check: bool = True,
) -> DatasetSplits:
    """Distilled images as a dataset without a test split.

    Args:
        path: a file, a folder with files ``res_*.pt`` of different images per class, or paths joined by ``+``.
        run: which of the runs in a file, from 0; -1: the last, which their own readers take.
        normalisation: of the stored values; ``auto``: as the file's name says.
        classes_from: dataset whose class names they take (needed for a test on it); None: numbers.
        data_root: folder with that dataset's files.
        mirror: whether a mirrored image still belongs to its class; never for digits.
        in_order: refuse labels that are not in class order; false: sort them.
        check: refuse values that contradict what is assumed about them.

    Raises:
        UserError: a file that is something else, damaged, or holds wrong data; it is named, and the field in it.
    """
    files = paths_in(path, _files_of)
    names = [_normalisation_of(one, normalisation) for one in files]
    sets = [_read(one, run, *name, in_order, check) for one, name in zip(files, names, strict=True)]
    return joined(sets, classes_from, data_root, mirror and not any(name in UNMIRRORED for name, _ in names))


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if not (found := sorted(path.glob("res_*.pt"))):
        raise UserError(f"{path} has no files res_*.pt: name the file of {_WHAT}")
    return found


def _normalisation_of(path: Path, asked: str) -> tuple[str, str]:
    """How a file's values are normalised, and who says so if it is not the user."""
    if asked != "auto":
        return asked, ""
    found = _NAME.match(path.stem)
    name = _DATASETS.get(found[1].lower()) if found else None
    if name is None:
        raise UserError(f"{path}: its name does not say which dataset it was distilled from: give {_REMEDY}")
    return name, ", as the file's name says"


def _read(path: Path, run: int, name: str, source: str, in_order: bool, check: bool) -> DistilledSet:
    stored, labels, runs = _run(read_torch(path, _WHAT), path, run)
    where = f"data[{run}]"
    images = stored_images(stored, path, f"{where}[0]")
    classes = read_labels(labels, path, f"{where}[1]", len(images)).classes
    order = class_order(classes, path, f"{where}[1]", in_order)
    constants = CONDENSATION.get(name)
    scale = normalised_scale(constants, images, path, _REMEDY, source) if constants else plain_scale(_REMEDY)
    notes = checked_values(images, scale, path, check)
    if order is not None:
        images, classes = images[torch.from_numpy(order)], classes[order]
    told = (f"run {run % runs} of {runs} (0..{runs - 1})",) if runs > 1 else ()
    return DistilledSet(path, path.stem, to_pixels(images, scale), classes, None, (*told, *notes))


def _run(content: Any, path: Path, run: int) -> tuple[Any, Any, int]:
    """Images and labels of one run, and how many there are."""
    runs = content.get("data") if isinstance(content, dict) else None
    if not isinstance(runs, list | tuple) or not runs:
        raise UserError(f"{path} is not {_WHAT}: it has no 'data', a list of runs; name another file")
    if not -len(runs) <= run < len(runs):
        raise UserError(f"{path} has runs 0..{len(runs) - 1}, so not {run}: give run=0 or another of them")
    pair = runs[run]
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise UserError(f"{path} is not {_WHAT}: data[{run}] is not a pair of images and labels")
    return pair[0], pair[1], len(runs)
