"""The data seam of the whole project: two tensors and their class names."""

from __future__ import annotations

import hashlib
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


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images, all of one size.

    Attributes:
        images: uint8 ``[N, C, H, W]``; may be a view of a memory-mapped file, and is never modified.
        labels: int64 ``[N]``, values in ``0..len(classes)-1``.
        classes: one name per class.
        name: what results are labelled with, e.g. ``cifar10/train``.
        mirror: whether a mirrored image still belongs to its class (false for digits); augmentation obeys it.
        digest: content hash when the loader knows it already (a cache does), else computed on first use.
        notes: conversions that the loader made ("12 grey images became RGB"), for people to read.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    mirror: bool = True
    digest: str | None = None
    notes: tuple[str, ...] = field(default=())

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
        """Hash of pixels, labels and class names: what a selection made here is checked against when it is loaded."""
        return self.digest or content_digest(self.images, self.labels, self.classes)

    @cached_property
    def channel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, float32 ``[C]`` in 0..1, over at most 10,000 evenly spaced images."""
        sample = self.images[:: max(1, -(-len(self) // _STATISTICS_SAMPLE))]
        # Whole numbers, in chunks: exact, and a sample of large images is never held as floats.
        total = torch.zeros(self.images.shape[1], dtype=torch.int64)
        squares = torch.zeros_like(total)
        for start in range(0, len(sample), _STATISTICS_CHUNK):
            pixels = sample[start : start + _STATISTICS_CHUNK].to(torch.int32)
            total += pixels.sum(dim=(0, 2, 3))
            squares += pixels.square_().sum(dim=(0, 2, 3))
        count = max(1, sample[:, 0].numel())
        mean = total.double() / count
        deviation = (squares.double() / count - mean.square()).clamp_min(0).sqrt()
        return mean.div(255).float(), deviation.div(255).clamp_min(1e-3).float()

    def subset(self, indices: npt.ArrayLike | Tensor, name: str | None = None) -> ImageDataset:
        """The images at ``indices`` (copied) with the same classes; the digest is that of the subset."""
        chosen = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return replace(self, images=self.images[chosen], labels=self.labels[chosen], name=name or self.name, digest=None)


def content_digest(images: Tensor, labels: Tensor, classes: Sequence[str]) -> str:
    """Hex BLAKE2b-128 of class names, shapes, labels and pixels, read in chunks so that a memory map stays one."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\x1f".join(classes).encode())
    digest.update(repr(tuple(images.shape)).encode())
    digest.update(labels.contiguous().numpy().astype("<i8").tobytes())
    for start in range(0, len(images), _CHUNK):
        digest.update(images[start : start + _CHUNK].contiguous().numpy().data)
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
