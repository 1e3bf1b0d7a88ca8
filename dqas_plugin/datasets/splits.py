"""Splitting by seed, and the checks on options that several loaders share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dqas_plugin.data import BoolArray, IntArray, by_class
from dqas_plugin.errors import UserError
from dqas_plugin.seeding import generator


def stratified_test_mask(labels: IntArray, classes: Sequence[str], share: float, seed: int, name: str) -> BoolArray:
    """Which samples are kept for testing, the same share of every class.

    Args:
        labels: int64 ``[N]``.
        classes: one name per class.
        share: part of each class that goes to the test split, below 1; at least one image of every class goes to either
            side. 0: there is no test split.
        seed: same seed, same split.
        name: the dataset, for error messages.

    Returns:
        bool ``[N]``, true for the test split.

    Raises:
        UserError: the share is not inside [0, 1), or a class has fewer than two images.
    """
    if not 0.0 <= share < 1.0:
        raise UserError(f"{name}: test_share must be at least 0 and below 1, not {share}")
    mask = np.zeros(len(labels), dtype=bool)
    if share == 0.0:
        return mask
    for index, (class_name, members) in enumerate(zip(classes, by_class(labels, len(classes)), strict=True)):
        if len(members) < 2:
            raise UserError(f"{name}: class '{class_name}' has {len(members)} images, too few to split; it needs at least 2")
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        mask[generator(seed, "test-split", index).choice(members, count, replace=False)] = True
    return mask


def check_size(size: int | None, name: str) -> None:
    """Refuse a ``size`` option that is not a sensible side length in pixels."""
    if size is not None and not 1 <= size <= 4096:
        raise UserError(f"{name}: size must be between 1 and 4096 pixels, not {size}")


def require_every_class(labels: IntArray, classes: Sequence[str], name: str) -> None:
    """Refuse a class without images before any decoding is done."""
    for class_name, count in zip(classes, np.bincount(labels, minlength=len(classes)), strict=True):
        if count == 0:
            raise UserError(f"{name}: class '{class_name}' has no images; add some or remove the class")
