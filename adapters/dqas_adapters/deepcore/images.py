"""The training images of DeepCore's benchmark as ours: 8-bit pixels again, whatever its transform made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dqas_plugin.contracts import memory_text
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import UserError

_BATCH = 256
_MOST = 16 * 2**30  # bytes of pixels that are held in memory
_OUTSIDE = 1e-3  # how far outside 0..1 rounding may bring a pixel


def image_dataset(theirs: Any, name: str, *, mirror: bool, workers: int = 0) -> ImageDataset:
    """A training set of torchvision's kind as an ``ImageDataset``.

    Its own 8-bit array (``data``) is taken if its images are those that the transform ends in; else every image is read through
    the transform, of which ``Normalize`` is undone.

    Args:
        theirs: has ``__len__``, ``__getitem__ -> (float [C, H, W], label)``, ``classes``, ``targets`` and ``transform``.
        name: what results are labelled with.
        mirror: whether a mirrored image still belongs to its class.
        workers: processes that read images.

    Raises:
        UserError: if labels or pixels are not what they should be, or the images do not fit in memory.
    """
    labels = class_labels(theirs, name)
    probes = {place: _item(theirs, place, name) for place in sorted({0, len(labels) // 2, len(labels) - 1})}
    for place, (_, label) in probes.items():
        if label != labels[place]:
            raise UserError(
                f"{name}: image {place} has the label {label}, but 'targets' says {labels[place]}: mend the dataset"
            )
    shown = {place: pixels for place, (pixels, _) in probes.items()}
    images = _own_pixels(theirs, shown)
    if images is None:
        images = _read_pixels(theirs, name, shown[0], len(labels), workers)
    return ImageDataset(images, torch.from_numpy(labels), tuple(map(str, theirs.classes)), name, mirror=mirror)


def class_labels(theirs: Any, name: str) -> IntArray:
    """The labels, int64 ``[N]``.

    Raises:
        UserError: if they are not one whole number of 0..C-1 for every image, or there are no images.
    """
    found = np.asarray(theirs.targets)
    if found.shape != (len(theirs),) or found.dtype.kind not in "iu":
        raise UserError(
            f"{name}: 'targets' must be one whole number for each of the {len(theirs)} images, not {found.dtype} {found.shape}"
        )
    if not len(found):
        raise UserError(f"{name} has no images: name another dataset")
    classes = len(theirs.classes)
    if found.min() < 0 or found.max() >= classes:
        raise UserError(f"{name}: 'targets' lie outside 0..{classes - 1}, the {classes} classes")
    return found.astype(np.int64)


def _item(theirs: Any, place: int, name: str) -> tuple[Tensor, int]:
    """One image as uint8 ``[C, H, W]``, and its label."""
    image, label = theirs[place]
    if not isinstance(image, Tensor) or image.ndim != 3:
        raise UserError(f"{name}: its images must be tensors [C, H, W], not {type(image).__name__}: end its transform in one")
    return _eight_bits(image[None], theirs, name)[0], int(label)


def _own_pixels(theirs: Any, shown: dict[int, Tensor]) -> Tensor | None:
    """The array ``data`` as uint8 ``[N, C, H, W]``, if these images of it are those that the transform ends in."""
    try:
        data = torch.as_tensor(theirs.data)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    if data.dtype != torch.uint8 or len(data) != len(theirs):
        return None
    if data.ndim == 3:
        layouts = [data[:, None]]
    elif data.ndim == 4:
        layouts = [data, data.permute(0, 3, 1, 2)]
    else:
        return None
    same = (one for one in layouts if all(torch.equal(one[place], pixels) for place, pixels in shown.items()))
    found = next(same, None)
    return None if found is None else found.contiguous()


def _read_pixels(theirs: Any, name: str, first: Tensor, count: int, workers: int) -> Tensor:
    """Every image through the transform, uint8 ``[N, C, H, W]``."""
    needed = count * first.numel()
    if needed > _MOST:
        raise UserError(
            f"{name}: its images take {memory_text(needed)} as 8-bit pixels, more than the {memory_text(_MOST)} that an "
            "adaptive selection holds in memory: resize them in the transform"
        )
    images = torch.empty(count, *first.shape, dtype=torch.uint8)
    start = 0
    for batch, _ in DataLoader(theirs, batch_size=_BATCH, num_workers=workers):
        images[start : start + len(batch)] = _eight_bits(batch, theirs, name)
        start += len(batch)
    return images


def _eight_bits(images: Tensor, theirs: Any, name: str) -> Tensor:
    """Transformed images ``[B, C, H, W]`` as uint8."""
    if images.dtype == torch.uint8:
        return images
    pixels = images.double()
    for mean, deviation in reversed([*_normalisations(getattr(theirs, "transform", None))]):
        pixels = pixels * deviation[:, None, None] + mean[:, None, None]
    low, high = float(pixels.min()), float(pixels.max())
    if not (-_OUTSIDE <= low and high <= 1 + _OUTSIDE):
        raise UserError(
            f"{name}: its pixels lie in {low:.3g}..{high:.3g} once the Normalize of its transform is undone, not in 0..1: "
            "leave only transforms that keep pixels in that range, and Normalize last"
        )
    return pixels.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def _normalisations(transform: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Mean and deviation, float64 ``[C]``, of every ``Normalize`` in a transform, in the order of their use."""
    if type(transform).__name__ == "Normalize":
        yield torch.as_tensor(transform.mean).double(), torch.as_tensor(transform.std).double()
    for one in getattr(transform, "transforms", ()):
        yield from _normalisations(one)
