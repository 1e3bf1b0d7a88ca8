"""From the floating-point images that an optimiser left to uint8, with every assumption checked on the values and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dqas_adapters.distilled.normalisation import Normalisation
from dqas_plugin.errors import UserError

CHUNK = 256
"""Images that are held as floats at once."""

_ROUNDING = 0.5 / 255  # half a step: what rounding undoes was not clipped
_FAR, _FAR_SHARE = 0.5, 0.05  # values further than this outside 0..1, and how many of them an optimiser may leave
_OUTSIDE_SHARE = 1 / 3  # values outside 0..1: whitened images have half of theirs below 0
_LEAST_DEVIATION = 0.5  # normalised images deviate by about 1; values in 0..1 cannot deviate by more than .5


@dataclass(frozen=True)
class Scale:
    """How stored values become pixels in 0..1.

    Attributes:
        undo: float32 ``[B, C, H, W]`` to the same in 0..1, apart from what the optimiser overdid.
        told: the assumption, for people: ``normalised as cifar10 (…)``.
        remedy: which options say otherwise: ``normalisation=NAME``.
        normalised: whether stored values should deviate by about 1.
    """

    undo: Callable[[Tensor], Tensor]
    told: str
    remedy: str
    normalised: bool = False


def plain_scale(remedy: str) -> Scale:
    """Values that are pixels in 0..1 already."""
    return Scale(lambda values: values, "taken as pixels in 0..1, not normalised", remedy)


def normalised_scale(constants: Normalisation, images: Tensor, path: Path, remedy: str, source: str = "") -> Scale:
    """Values that were normalised.

    Args:
        constants: with which.
        images: the stored images.
        path: their file.
        remedy: see :class:`Scale`.
        source: who says so, such as ``, as the file's name says``.

    Raises:
        UserError: if the constants are those of images with another number of channels.
    """
    if constants.channels != images.shape[1]:
        raise UserError(
            f"{path}: images of {images.shape[1]} channels cannot have been normalised as {constants.name}, "
            f"which has {constants.channels}: give {remedy}"
        )
    return Scale(constants.undo, f"normalised as {constants}{source}", remedy, normalised=True)


def stored_images(value: Any, path: Path, field: str) -> Tensor:
    """The images in a file: floating point ``[N, C, H, W]``, all numbers.

    Args:
        value: what stands where they should.
        path: the file, for messages.
        field: where in it.

    Raises:
        UserError: for anything else, or NaN or infinite values.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = f"{value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{path}: {field} must be a tensor of floating-point images, not {kind}")
    if value.ndim != 4 or value.shape[1] not in (1, 3) or 0 in value.shape:
        raise UserError(f"{path}: {field} must be images [N, C, H, W], grey (C = 1) or RGB (C = 3), not {tuple(value.shape)}")
    images = value.detach()
    for start, chunk in _chunks(images):
        if not (whole := torch.isfinite(chunk).flatten(1).all(dim=1)).all():
            place = start + int((~whole).nonzero()[0])
            raise UserError(f"{path}: image {place} of {field} has NaN or infinite values: leave it out or get it again")
    return images


class _Shares(NamedTuple):
    """Parts of all values, and the standard deviation of those stored."""

    far: float
    outside: float
    deviation: float


def checked_values(images: Tensor, scale: Scale, path: Path, check: bool = True) -> tuple[str, ...]:
    """What to tell about stored images: how they are read, and how many values are clipped.

    Args:
        images: ``[N, C, H, W]`` as stored.
        scale: how they are assumed to be stored.
        path: their file.
        check: refuse values that contradict the assumption.

    Raises:
        UserError: if they do.
    """
    found = _measured(images, scale)
    if check and (reason := _contradiction(found, scale)):
        raise UserError(f"{path}: its values are {scale.told}, but {reason}: give {scale.remedy}, or check=false if they are")
    clipped = f"{100 * found.outside:.1f} % of the values lay outside 0..1 and were clipped"
    return f"values {scale.told}", clipped if found.outside else "all values lay in 0..1"


def as_bytes(values: Tensor) -> Tensor:
    """Values in 0..1 as uint8: clipped, and rounded to the nearest of 256 steps."""
    return values.clamp(0, 1).mul(255).round().to(torch.uint8)


def to_pixels(images: Tensor, scale: Scale) -> Tensor:
    """Stored images as uint8 ``[N, C, H, W]``."""
    pixels = torch.empty(images.shape, dtype=torch.uint8)
    for start, chunk in _chunks(images):
        pixels[start : start + len(chunk)] = as_bytes(scale.undo(chunk))
    return pixels


def _chunks(images: Tensor) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(images), CHUNK):
        yield start, images[start : start + CHUNK].float()


def _measured(images: Tensor, scale: Scale) -> _Shares:
    far = outside = 0
    total = squares = 0.0
    for _, chunk in _chunks(images):
        values = scale.undo(chunk)
        beyond = torch.maximum(-values, values - 1)
        far += int((beyond > _FAR).sum())
        outside += int((beyond > _ROUNDING).sum())
        stored = chunk.double()
        total += float(stored.sum())
        squares += float(stored.square().sum())
    count = images.numel()
    variance = squares / count - (total / count) ** 2
    return _Shares(far / count, outside / count, max(variance, 0.0) ** 0.5)


def _contradiction(found: _Shares, scale: Scale) -> str:
    """Why the values cannot be what they are taken for; empty if they can."""
    if found.far > _FAR_SHARE:
        return f"{100 * found.far:.1f} % of the pixels would lie outside -0.5..1.5"
    if found.outside > _OUTSIDE_SHARE:
        return f"{100 * found.outside:.1f} % of the pixels would lie outside 0..1"
    if scale.normalised and found.deviation < _LEAST_DEVIATION:
        return f"they deviate by {found.deviation:.2f}, and normalised ones by about 1"
    return ""
