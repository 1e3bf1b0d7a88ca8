"""Random crops and mirroring of whole uint8 tensors: one table look-up per pixel, no copy of the padded images.

The pass is made once per epoch over blocks of images (airbench's habit, Jordan 2024, arXiv 2404.00498) rather than once per
image and batch, which is most of what makes a data loader slow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dqas_plugin.data import at_once

_CHUNK = 1024  # images handled at once: the index table is int64, eight times the size of one channel
_PIXELS = 2**24  # of all of them: 128 MB of indices


@dataclass(frozen=True, eq=False)
class Shifts:
    """What happens to each of B images.

    Attributes:
        down: int64 ``[B]``, rows by which the crop lies below the image, ``-pad..pad``.
        right: int64 ``[B]``, columns by which it lies to the right.
        mirrored: bool ``[B]``, whether the crop is mirrored left to right.
    """

    down: Tensor
    right: Tensor
    mirrored: Tensor

    def to(self, device: torch.device) -> Shifts:
        """The same on a device."""
        return Shifts(self.down.to(device), self.right.to(device), self.mirrored.to(device))


def padding(side: int) -> int:
    """Pixels by which a crop may move on an image of ``side`` pixels: an eighth, at least 1 (4 at 32 px)."""
    return max(1, round(side / 8))


def draw_shifts(count: int, height: int, width: int, *, crop: bool, flip: bool, generator: torch.Generator) -> Shifts:
    """Uniform offsets and fair coins for ``count`` images of ``height x width``; zeros where ``crop`` or ``flip`` is false."""

    def offsets(side: int) -> Tensor:
        reach = padding(side) if crop else 0
        return torch.randint(-reach, reach + 1, (count,), generator=generator)

    down, right = offsets(height), offsets(width)
    coins = torch.randint(0, 2, (count,), generator=generator).bool() if flip else torch.zeros(count, dtype=torch.bool)
    return Shifts(down, right, coins)


def shift(images: Tensor, shifts: Shifts) -> Tensor:
    """Crop and mirror each image, with what lies outside filled by reflection (the border pixel is not repeated).

    Args:
        images: ``[B, C, H, W]``, any dtype, on any device.
        shifts: one offset and one coin per image.

    Returns:
        ``[B, C, H, W]``, a new tensor on the same device.
    """
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    shifts = shifts.to(images.device)
    count, channels, height, width = images.shape
    step = at_once((height, width), _CHUNK, _PIXELS)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        pixels = _source_pixels(shifts, part, height, width)  # (b, H * W)
        index = pixels[:, None, :].expand(-1, channels, -1)  # (b, C, H * W), channels share it
        moved = images[part].reshape(-1, channels, height * width).gather(2, index)
        result[part] = moved.view(-1, channels, height, width)
    return result


def _source_pixels(shifts: Shifts, part: slice, height: int, width: int) -> Tensor:
    """For every pixel of every result the position in its image that it is copied from: int64 ``[b, H * W]``."""
    device = shifts.down.device
    rows = _reflected(shifts.down[part, None] + torch.arange(height, device=device), height)  # (b, H)
    columns = _reflected(shifts.right[part, None] + torch.arange(width, device=device), width)  # (b, W)
    columns = torch.where(shifts.mirrored[part, None], columns.flip(1), columns)
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)


def _reflected(position: Tensor, size: int) -> Tensor:
    """Positions outside ``0..size-1`` folded back at the border pixels, however far outside they lie."""
    if size == 1:
        return torch.zeros_like(position)
    period = 2 * (size - 1)
    folded = position.remainder(period)
    return torch.minimum(folded, period - folded)
