"""The labels of distilled images: one class each, or one number for every class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dqas_adapters.foreign import whole_numbers
from dqas_plugin.data import IntArray
from dqas_plugin.errors import UserError

SoftLabels = Literal["auto", "logits", "probabilities"]

_SUM = 1e-3  # how far rows of probabilities may be from a sum of 1 in somebody's float16


class Labels(NamedTuple):
    """Class of every image ``[N]``, soft labels ``[N, C]`` if there are any, and what was found out about them."""

    classes: IntArray
    targets: Tensor | None = None
    notes: tuple[str, ...] = ()


def read_labels(value: Any, path: Path, field: str, count: int, soft: SoftLabels = "auto") -> Labels:
    """The labels in a file.

    Args:
        value: whole numbers ``[N]``, or floating-point numbers ``[N, C]``.
        path: the file, for messages.
        field: where in it.
        count: N, how many images there are.
        soft: what the latter are; ``auto``: probabilities if every row is, else logits.

    Raises:
        UserError: other shapes, another number of them than of images, classes that are not 0..C-1, NaN.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        if value.ndim == 2:
            return _soft_labels(value, path, field, count, soft)
    classes = whole_numbers(value, path, field)
    _check_count(len(classes), path, field, count)
    _check_complete(classes, path, field)
    return Labels(classes)


def class_order(labels: IntArray, path: Path, field: str, in_order: bool) -> IntArray | None:
    """The order that puts images into class order; None if they are in it already.

    Args:
        labels: int64 ``[N]``.
        path: the file, for messages.
        field: where in it.
        in_order: refuse labels that are not in class order, which is how their program writes them.

    Raises:
        UserError: if so.
    """
    falls = np.flatnonzero(np.diff(labels) < 0)
    if not len(falls):
        return None
    if in_order:
        place = int(falls[0]) + 1
        raise UserError(
            f"{path}: {field} should be in class order, and image {place} is of class {labels[place]} after one of class "
            f"{labels[place - 1]}: give in_order=false to sort them, if labels and images belong together"
        )
    return np.argsort(labels, kind="stable").astype(np.int64)


def _check_count(found: int, path: Path, field: str, count: int) -> None:
    if found != count:
        raise UserError(f"{path}: {field} has {found:,} labels for {count:,} images: name files that belong together")


def _check_complete(labels: IntArray, path: Path, field: str) -> None:
    """Every class from 0 to the highest must be there."""
    present = np.unique(labels)
    if present[0] < 0:
        raise UserError(f"{path}: {field} holds the class {present[0]}: classes are numbered from 0")
    missing = np.flatnonzero(present != np.arange(len(present)))
    if len(missing):
        raise UserError(
            f"{path}: {field} must hold all classes 0..{present[-1]}, and class {missing[0]} has no image: name the whole set"
        )


def _soft_labels(value: Tensor, path: Path, field: str, count: int, soft: SoftLabels) -> Labels:
    if not value.is_floating_point() or value.shape[1] < 2:
        raise UserError(f"{path}: {field} must be labels [N] or soft labels [N, C], not {value.dtype} {tuple(value.shape)}")
    _check_count(len(value), path, field, count)
    values = value.double()
    if not torch.isfinite(values).all():
        place = int((~torch.isfinite(values).all(dim=1)).nonzero()[0])
        raise UserError(f"{path}: the soft label of image {place} in {field} has values that are NaN or infinite")
    likely = bool((values >= 0).all() and ((values.sum(dim=1) - 1).abs() <= _SUM).all())
    if soft == "probabilities" and not likely:
        raise UserError(f"{path}: {field} has rows that are no probabilities (at least 0, of sum 1): give soft_labels=logits")
    if soft == "logits" or not likely:
        targets, kind = torch.softmax(values, dim=1), "logits; their softmax is used"
    else:
        targets, kind = values / values.sum(dim=1, keepdim=True), "probabilities"
    classes, note = _class_of_each(targets.argmax(dim=1).numpy().astype(np.int64), value.shape[1], path, field)
    return Labels(classes, targets.float(), (f"soft labels, taken as {kind}", *note))


def _class_of_each(favourites: IntArray, num_classes: int, path: Path, field: str) -> tuple[IntArray, tuple[str, ...]]:
    """Which class an image with a soft label counts as.

    Sets start from an equal number of images of each class in class order, and soft labels drift while they are optimised, so
    the place in the file says what an image was made for; where that does not fit, the highest value does.
    """
    if len(favourites) % num_classes == 0:
        places = np.repeat(np.arange(num_classes, dtype=np.int64), len(favourites) // num_classes)
        other = int((places != favourites).sum())
        if 2 * other <= len(places):
            note = (f"{other:,} soft labels favour another class than that of their place, which is what they count as",)
            return places, note if other else ()
    _check_complete(favourites, path, f"{field} (the highest value of each row)")
    if favourites.max() != num_classes - 1:
        raise UserError(f"{path}: {field} has {num_classes} columns, and no row favours class {num_classes - 1}")
    return favourites, ("images count as the class that their soft label favours",)
