"""Sets of trajectory matching: MTT (GeorgeCazenavette/mtt-distillation) and DATM (NUS-HPC-AI-Lab/DATM).

Cazenavette et al., CVPR 2022; Guo et al., ICLR 2024. One tensor a file: ``images_best.pt``, ``labels_best.pt`` (classes; DATM:
logits of soft labels, whose softmax its loss takes) and, from DATM, ``lr_best.pt`` (the learning rate learned with the images).
Images are stored as their networks saw them: with ``--zca`` whitened, else normalised; the files do not say which.
``images_zca_*.pt`` are copies of the former with the whitening taken back.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dqas_adapters.distilled.family import DistilledSet, joined, named_file, paths_in
from dqas_adapters.distilled.labels import SoftLabels, class_order, read_labels
from dqas_adapters.distilled.normalisation import TRAJECTORIES, UNMIRRORED, NormalisationName
from dqas_adapters.distilled.pixels import Scale, checked_values, normalised_scale, plain_scale, stored_images, to_pixels
from dqas_adapters.distilled.whitening import Whitening, whitening_of
from dqas_adapters.foreign import read_torch
from dqas_plugin.data import DatasetSplits
from dqas_plugin.errors import UserError
from dqas_plugin.lookup import load_dataset

_FASTEST = 1e6  # no learning rate is higher; a whole number may be longer than any float
_WHAT = "a set of MTT or DATM"
_REMEDY = "zca_from=NAME (whitened: their usual choice for CIFAR) or normalisation=NAME"


class _Storage(NamedTuple):
    """What the user says about the values: a normalisation, or the whitening and the name of what it was fitted on."""

    normalisation: str
    whitening: Whitening | None = None
    fitted_on: str = ""


def load(
    path: str,
    *,
    normalisation: NormalisationName = "auto",
    zca_from: str | None = None,
    soft_labels: SoftLabels = "auto",
    classes_from: str | None = None,
    data_root: str | None = None,
    mirror: bool = True,
    in_order: bool = True,
    check: bool = True,
) -> DatasetSplits:
    """Distilled images as a dataset without a test split; soft labels become its targets.

    Args:
        path: a file of images, a folder with ``images_best.pt``, or several joined by ``+``; labels and learning rate are
            found by the name (``labels_best.pt``, ``lr_best.pt``).
        normalisation: of the stored values; ``auto``: none for ``images_zca_*.pt``, and to be named for others.
        zca_from: the dataset whose training images the whitening was fitted on, if they are whitened; it is taken back.
        soft_labels: what two-dimensional labels are; ``auto``: probabilities if every row is, else logits.
        classes_from: dataset whose class names they take (needed for a test on it); None: those of ``zca_from``, else numbers.
        data_root: folder with the files of these two datasets.
        mirror: whether a mirrored image still belongs to its class.
        in_order: refuse labels that are not in class order; false: sort them.
        check: refuse values that contradict what is assumed about them.

    Raises:
        UserError: a file that is something else, damaged, or holds wrong data; it is named, and the field in it.
    """
    if zca_from is not None and normalisation not in ("auto", "none"):
        raise UserError(f"{path}: images were whitened or normalised, not both: give zca_from or normalisation")
    files = paths_in(path, lambda one: [_images_in(one)] if one.is_dir() else [one])
    storage = _Storage(normalisation)
    if zca_from is not None:
        storage = _Storage(normalisation, whitening_of(load_dataset(zca_from, data_root).train), zca_from)
    sets = [_read(one, storage, soft_labels, in_order, check) for one in files]
    return joined(sets, classes_from or zca_from, data_root, mirror and normalisation not in UNMIRRORED)


def _images_in(folder: Path) -> Path:
    if (folder / "images.pt").is_file() and not (folder / "images_best.pt").is_file():
        return folder / "images.pt"
    return named_file(folder, "images_best.pt", "images_*.pt", _WHAT)


def _read(path: Path, storage: _Storage, soft: SoftLabels, in_order: bool, check: bool) -> DistilledSet:
    images = stored_images(read_torch(path, _WHAT), path, "the tensor")
    label_path = _beside(path, "labels")
    if not label_path.is_file():
        raise UserError(f"{path}: its labels {label_path.name} are not beside it: put them there")
    found = read_labels(read_torch(label_path, f"labels of {_WHAT}"), label_path, "the tensor", len(images), soft)
    classes, targets = found.classes, found.targets
    order = class_order(classes, label_path, "the tensor", in_order)
    scale = _scale(path, images, storage)
    notes = checked_values(images, scale, path, check)
    if order is not None:
        places = torch.from_numpy(order)
        images, classes, targets = images[places], classes[order], None if targets is None else targets[places]
    notes = (*notes, *found.notes, *_learning_rate(_beside(path, "lr")))
    return DistilledSet(path, _name(path), to_pixels(images, scale), classes, targets, notes)


def _beside(path: Path, kind: str) -> Path:
    """The file of that kind for a file of images: ``images_best.pt`` to ``labels_best.pt``."""
    for start in ("images_zca", "images"):
        if path.name.startswith(start):
            return path.with_name(kind + path.name.removeprefix(start))
    return path.with_name(f"{kind}.pt")


def _name(path: Path) -> str:
    """Its folder's name; DATM has a folder ``Normal`` in that of every run."""
    folder = path.resolve().parent
    return (folder.parent if folder.name == "Normal" else folder).name or path.stem


def _scale(path: Path, images: Tensor, storage: _Storage) -> Scale:
    if storage.whitening is not None:
        return _whitened(path, images, storage.whitening, storage.fitted_on)
    taken_back = path.name.startswith("images_zca")
    if storage.normalisation == "auto" and not taken_back:
        raise UserError(f"{path} does not say whether its images are whitened or normalised: give {_REMEDY}")
    if storage.normalisation in ("auto", "none"):
        return plain_scale(_REMEDY)
    return normalised_scale(TRAJECTORIES[storage.normalisation], images, path, _REMEDY)


def _whitened(path: Path, images: Tensor, whitening: Whitening, fitted_on: str) -> Scale:
    if tuple(images.shape[1:]) != whitening.shape:
        raise UserError(
            f"{path} has images of {tuple(images.shape[1:])} and {fitted_on} of {whitening.shape}: "
            "zca_from must name the dataset that it was distilled from"
        )
    told = f"whitened (ZCA, eps {whitening.eps:g}, fitted on the {whitening.count:,} training images of {fitted_on})"
    return Scale(whitening.undo, told, _REMEDY)


def _learning_rate(path: Path) -> tuple[str, ...]:
    """The learning rate in a file, if there is one, as a note."""
    if not path.is_file():
        return ()
    value = read_torch(path, "a learning rate")
    number = value.detach().item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf or number > _FASTEST:
        raise UserError(f"{path} must hold one positive number, the learning rate: mend it, or take it away")
    return (f"the learning rate learned for these images is {number:.4g} ({path.name})",)
