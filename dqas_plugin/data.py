"""The data seam of the whole project: images, their labels, and class names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.errors import UserError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_CHUNK = 4096
_STATISTICS_SAMPLE = 10_000
_STATISTICS_CHUNK = 256
_TARGETS_SUM = 1e-4  # how far the sum of a row of soft labels may be from 1


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images, all of one size.

    Attributes:
        images: uint8 ``[N, C, H, W]``; may be a view of a memory-mapped file, and is never modified.
        labels: int64 ``[N]``, values in ``0..len(classes)-1``: what an image counts as, wherever images are counted, ranked or
            scored.
        classes: one name per class.
        name: what results are labelled with, e.g. ``cifar10/train``.
        mirror: whether a mirrored image still belongs to its class (false for digits); augmentation obeys it.
        digest: content hash when the loader knows it already (a cache does), else computed on first use.
        notes: conversions that the loader made ("12 grey images became RGB"), for people to read.
        targets: soft labels, float32 ``[N, C]``, each row the probabilities of the classes: what networks are trained on
            instead of ``labels`` (usually their arg max, which nothing relies on). None: the labels.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    mirror: bool = True
    digest: str | None = None
    notes: tuple[str, ...] = field(default=())
    targets: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise UserError(
                f"{self.name}: images must be uint8 [N, C, H, W], not {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise UserError(
                f"{self.name}: labels must be int64 [{len(self.images)}], not {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if len(self.labels) and (int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.classes)):
            raise UserError(f"{self.name}: labels lie outside 0..{len(self.classes) - 1}, the {len(self.classes)} classes")
        check_class_names(self.classes, self.name)
        if self.targets is not None:
            _check_targets(self.targets, len(self), self.num_classes, self.name)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """C, the number of classes, those without images among them."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @cached_property
    def class_sizes(self) -> IntArray:
        """Images of each class, int64 ``[C]``."""
        return np.bincount(self.labels.numpy(), minlength=self.num_classes).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of pixels, labels (soft ones too) and class names: what a selection made here is checked against later."""
        return self.digest or content_digest(self.images, self.labels, self.classes, self.targets)

    @cached_property
    def channel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, float32 ``[C]`` in 0..1, over at most 10,000 evenly spaced images."""
        sample = self.images[:: max(1, -(-len(self) // _STATISTICS_SAMPLE))]
        # How often every value is there: exact, and a sample of large images is never held as wider numbers.
        counts = torch.zeros(self.images.shape[1], 256, dtype=torch.int64)
        for start in range(0, len(sample), _STATISTICS_CHUNK):
            channels = sample[start : start + _STATISTICS_CHUNK].transpose(0, 1)
            counts += torch.stack([torch.bincount(one.flatten(), minlength=256) for one in channels])
        values = torch.arange(256)
        total, squares = (counts * values).sum(dim=1), (counts * values.square()).sum(dim=1)
        count = max(1, sample[:, 0].numel())
        mean = total.double() / count
        deviation = (squares.double() / count - mean.square()).clamp_min(0).sqrt()
        return mean.div(255).float(), deviation.div(255).clamp_min(1e-3).float()

    def subset(self, indices: npt.ArrayLike | Tensor, name: str | None = None) -> ImageDataset:
        """The images at ``indices``, or of a mask ``[N]``, copied, with the same classes; the digest is that of the subset."""
        chosen = torch.from_numpy(as_indices("indices", indices, len(self)))
        targets = None if self.targets is None else self.targets[chosen]
        images, labels = self.images[chosen], self.labels[chosen]
        return replace(self, images=images, labels=labels, targets=targets, name=name or self.name, digest=None)


def as_indices(name: str, values: npt.ArrayLike, count: int) -> IntArray:
    """Dataset indices, int64, of indices (in their order) or of a mask ``[count]``.

    Raises:
        UserError: for anything else, or for indices out of range.
    """
    given = np.asarray(values)
    if given.dtype == bool and given.shape == (count,):
        return np.flatnonzero(given).astype(np.int64)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise UserError(f"{name} must be whole numbers, or one yes or no for each of the {count} samples")
    if given.size and (given.min() < 0 or given.max() >= count):
        raise UserError(f"{name} must be indices in 0..{count - 1}: leave out what is not there")
    return given.astype(np.int64)


def check_class_names(classes: Sequence[str], name: str) -> None:
    """Refuse names, that of the dataset too, that no text can hold: folders may have any bytes in theirs, JSON half characters.

    Raises:
        UserError: naming the first one.
    """
    for one in (name, *classes):
        try:
            one.encode()
        except UnicodeEncodeError as error:
            what = "the name of the dataset" if one is name else f"{name}: the class name"
            raise UserError(f"{what} {one!a} is no text in UTF-8: rename it") from error


def by_class(labels: IntArray, num_classes: int) -> list[IntArray]:
    """Where each class is in ``labels`` ``[N]``, ascending, int64; one sort, however many classes there are."""
    order = np.argsort(labels, kind="stable").astype(np.int64)
    return np.split(order, np.cumsum(np.bincount(labels, minlength=num_classes))[:-1])


def at_once(shape: Sequence[int], most: int, numbers: int) -> int:
    """How many images of a shape to handle together: ``most`` of usual ones, fewer where they would be more numbers."""
    return max(1, min(most, numbers // max(1, math.prod(shape))))


def _check_targets(targets: Tensor, count: int, classes: int, name: str) -> None:
    """Refuse soft labels that are not a row of probabilities for every image."""
    if targets.dtype != torch.float32 or targets.shape != (count, classes):
        raise UserError(
            f"{name}: targets must be float32 [{count}, {classes}], one row an image and one column a class, "
            f"not {targets.dtype} {tuple(targets.shape)}"
        )
    wrong = ~((targets >= 0).all(dim=1) & ((targets.sum(dim=1, dtype=torch.float64) - 1).abs() <= _TARGETS_SUM))
    if wrong.any():  # NaN is wrong, too: no comparison with it holds
        raise UserError(
            f"{name}: targets must be probabilities, at least 0 and of sum 1 in every row, and those of image "
            f"{int(wrong.nonzero()[0])} are not: take the softmax of logits first"
        )


def content_digest(images: Tensor, labels: Tensor, classes: Sequence[str], targets: Tensor | None = None) -> str:
    """Hex BLAKE2b-128 of class names, shapes, labels, pixels and soft labels, in chunks so that a memory map stays one."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\x1f".join(classes).encode())
    digest.update(repr(tuple(images.shape)).encode())
    digest.update(labels.contiguous().numpy().astype("<i8").tobytes())
    for start in range(0, len(images), _CHUNK):
        digest.update(images[start : start + _CHUNK].contiguous().numpy().data)
    if targets is not None:
        digest.update(targets.contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class DatasetSplits:
    """A training split to choose from and a test split to report on. Nothing but the final report reads ``test``."""

    train: ImageDataset
    test: ImageDataset

    def __post_init__(self) -> None:
        if self.train.classes != self.test.classes:
            raise UserError(
                f"{self.train.name} and {self.test.name} have different classes; both splits must name the same ones"
            )
        if self.train.image_shape != self.test.image_shape:
            raise UserError(
                f"{self.train.name} has images of {self.train.image_shape} and {self.test.name} of {self.test.image_shape}; "
                "resize them to one size first"
            )
        for split in (self.train, self.test):
            for name, size in zip(split.classes, split.class_sizes, strict=True):
                if size == 0:
                    raise UserError(f"{split.name}: class '{name}' has no images; add some or remove the class")


class TrainOnly(DatasetSplits):
    """A training split that comes without a test split, as distilled sets do: ``test`` is an error that says what to do."""

    def __init__(self, train: ImageDataset) -> None:
        object.__setattr__(self, "train", train)

    @property
    def test(self) -> ImageDataset:
        """There is none.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.train.name} has no test split: name the dataset to test on with --test-from (test_from=…)")
