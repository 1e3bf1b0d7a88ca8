"""One distilled set, or several of different size, as one dataset without a test split.

Sets of different images per class form a family: their images in one row, smaller sets first, each set in class order. Whatever
reads the dataset can tell them apart: **a new set begins where the label decreases**.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.data import ImageDataset, IntArray, TrainOnly
from dqas_plugin.errors import UserError
from dqas_plugin.lookup import load_dataset


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """One set, in class order.

    Attributes:
        path: its file, for messages.
        name: what results are labelled with.
        images: uint8 ``[N, C, H, W]``.
        labels: int64 ``[N]``, all of 0..C-1, never decreasing.
        targets: soft labels, float32 ``[N, C]``, or None.
        notes: what was assumed.
    """

    path: Path
    name: str
    images: Tensor
    labels: IntArray
    targets: Tensor | None
    notes: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.labels[-1]) + 1

    @property
    def per_class(self) -> str:
        """Images of a class."""
        return per_class(self.labels)


def per_class(labels: npt.ArrayLike) -> str:
    """Images of a class, for people: ``10``, or ``8 to 12``."""
    counts = np.bincount(labels)
    return f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"


def told_sizes(sizes: Sequence[str], num_classes: int) -> str:
    """What there is, for people.

    Args:
        sizes: images of a class in every set, see :func:`per_class`.
        num_classes: C.
    """
    if len(sizes) == 1:
        return f"{sizes[0]} images of each of {num_classes} classes"
    return f"{len(sizes)} sets of {', '.join(sizes)} images a class, each of which begins where the label decreases"


def paths_in(text: str | Path, files_of: Callable[[Path], list[Path]]) -> list[Path]:
    """The files that ``PATH`` or ``PATH+PATH`` means.

    Args:
        text: what the user wrote; a path that exists as a whole is one path, whatever it contains.
        files_of: the files that one path means, which exists.

    Raises:
        UserError: for a path that does not exist; and from ``files_of``.
    """
    whole = Path(text).expanduser()
    found: list[Path] = []
    for one in [str(text)] if whole.exists() else str(text).split("+"):
        part = Path(one).expanduser()
        if not one or not part.exists():
            raise UserError(f"'{one}' does not exist: name a file or folder (several sets: PATH+PATH)")
        found += files_of(part)
    return found


def named_file(folder: Path, name: str, others: str, what: str) -> Path:
    """``name`` in a folder, or the only file there that looks like ``others``.

    Args:
        folder: where to look.
        name: the usual name.
        others: pattern of less usual ones.
        what: what it should be, for messages.

    Raises:
        UserError: if there is none, or several.
    """
    if (folder / name).is_file():
        return folder / name
    found = sorted(one for one in folder.glob(others) if os.path.isfile(one))  # no error, wherever a link may lead
    if len(found) != 1:
        there = f"several ({', '.join(one.name for one in found[:4])} …)" if found else "none"
        raise UserError(f"{folder}: {what} is a file {name} or {others}, and there is {there}: name the file")
    return found[0]


def joined(sets: Sequence[DistilledSet], classes_from: str | None, data_root: str | None, mirror: bool) -> TrainOnly:
    """The sets as one dataset, smaller ones first.

    Args:
        sets: at least one.
        classes_from: dataset whose class names they take; None: the names are numbers.
        data_root: folder with that dataset's files.
        mirror: whether a mirrored image still belongs to its class, unless that dataset says that it does not.

    Raises:
        UserError: sets that do not go together, or class names of other classes.
    """
    ordered = sorted(sets, key=lambda one: len(one.labels))
    for one, other in pairwise(ordered):
        _check_pair(one, other)
    first = ordered[0]
    if first.num_classes < 2:
        raise UserError(f"{first.path} has images of one class only: name a set of at least two")
    classes = tuple(str(one) for one in range(first.num_classes))
    if classes_from is not None:
        original = load_dataset(classes_from, data_root).train
        if original.num_classes != first.num_classes:
            raise UserError(
                f"{first.path} has {first.num_classes} classes and {classes_from} has {original.num_classes}: "
                "classes_from must name the dataset that it was distilled from"
            )
        classes, mirror = original.classes, mirror and original.mirror
    return TrainOnly(
        ImageDataset(
            torch.cat([one.images for one in ordered]),
            torch.from_numpy(np.concatenate([one.labels for one in ordered])),
            classes,
            f"{'+'.join(one.name for one in ordered)}/train",
            mirror=mirror,
            notes=_notes(ordered),
            targets=None if first.targets is None else torch.cat([one.targets for one in ordered if one.targets is not None]),
        )
    )


def _check_pair(one: DistilledSet, other: DistilledSet) -> None:
    """Refuse two sets that are no family."""
    if one.num_classes != other.num_classes:
        raise UserError(
            f"{one.path} has {one.num_classes} classes and {other.path} has {other.num_classes}: name sets of the same dataset"
        )
    if one.images.shape[1:] != other.images.shape[1:]:
        shapes = [tuple(each.images.shape[1:]) for each in (one, other)]
        raise UserError(f"{one.path} has images of {shapes[0]} and {other.path} of {shapes[1]}: name sets of the same dataset")
    if (one.targets is None) != (other.targets is None):
        soft, hard = (other, one) if one.targets is None else (one, other)
        raise UserError(f"{soft.path} has soft labels and {hard.path} has none: name sets of one method")
    if len(one.labels) == len(other.labels):
        raise UserError(f"{one.path} and {other.path} both hold {one.per_class} images of a class: name one set of each size")


def _notes(ordered: Sequence[DistilledSet]) -> tuple[str, ...]:
    """What was assumed, and of which set where they are several."""
    held = told_sizes([one.per_class for one in ordered], ordered[0].num_classes)
    named = len(ordered) > 1
    return (held, *(f"{one.name}: {note}" if named else note for one in ordered for note in one.notes))
