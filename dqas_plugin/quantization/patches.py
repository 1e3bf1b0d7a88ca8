"""Images as square patches, of which the least informative are dropped (Zhou et al., ICCV 2023, section 3.3).

Patches are counted from the top left, row after row. Every image of a set keeps equally many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dqas_plugin.errors import UserError
from dqas_plugin.models import Shape

_LARGEST = 16  # pixels a side, the patch of the published masked autoencoders
_ACROSS = 7  # patches a side at least, where the image is large enough


def default_patch_size(height: int, width: int | None = None) -> int:
    """Pixels a side of a patch of images of this size: 2 for 8, 4 for 28 and 32, 8 for 64, 16 for 224.

    The largest power of two up to 16 that divides both sides and leaves at least 7 patches along the shorter one, but no less
    than 2. Where the sides are odd: their smallest common divisor, or 1.
    """
    sides = math.gcd(height, height if width is None else width)
    shorter = min(height, height if width is None else width)
    powers = [one for one in (2, 4, 8, 16) if sides % one == 0 and one <= min(_LARGEST, max(2, shorter // _ACROSS))]
    if powers:
        return powers[-1]
    return next((one for one in range(3, shorter // 2 + 1, 2) if sides % one == 0), 1)


def patch_count(shape: Shape, size: int) -> int:
    """P, patches of an image of ``shape`` (channels, height, width).

    Raises:
        UserError: ``size`` is below 1 or does not divide height and width.
    """
    _, height, width = shape
    if size < 1:
        raise UserError(f"a patch must be at least 1 pixel wide, not {size}")
    if height % size or width % size:
        fit = [one for one in range(1, min(height, width) + 1) if height % one == 0 and width % one == 0]
        raise UserError(
            f"patches of {size} pixels do not divide images of {height}x{width}: choose one of {', '.join(map(str, fit))}"
        )
    return (height // size) * (width // size)


def patch_size(shape: Shape, patches: int) -> int:
    """Pixels a side of a patch, of which ``patches`` make up an image of ``shape``: the inverse of :func:`patch_count`.

    Raises:
        UserError: there is no such size.
    """
    _, height, width = shape
    size = math.isqrt(height * width // patches) if patches > 0 else 0
    if size < 1 or height % size or width % size or (height // size) * (width // size) != patches:
        raise UserError(f"images of {height}x{width} do not consist of {patches} square patches: give another patch size")
    return size


def to_patches(images: Tensor, size: int) -> Tensor:
    """The patches ``[N, P, C, size, size]`` (a copy) of ``images``, ``[N, C, H, W]`` of any type.

    Raises:
        UserError: ``size`` does not divide height and width.
    """
    count, channels, height, width = images.shape
    patches = patch_count((channels, height, width), size)
    grid = images.reshape(count, channels, height // size, size, width // size, size)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(count, patches, channels, size, size)


def from_patches(patches: Tensor, shape: Shape) -> Tensor:
    """The images ``[N, *shape]`` (a copy) of all their patches, ``[N, P, C, size, size]``.

    Raises:
        UserError: these are not the patches of images of ``shape``.
    """
    channels, height, width = shape
    count, positions, found, size, _ = patches.shape
    if found != channels or patch_count(shape, size) != positions:
        raise UserError(f"{positions} patches of {found}x{size}x{size} do not make an image of {channels}x{height}x{width}")
    grid = patches.reshape(count, height // size, width // size, channels, size, size)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, height, width)


def pixel_mask(keep: Tensor, shape: Shape) -> Tensor:
    """Which pixels lie in kept patches, bool ``[N, H, W]`` of ``keep``, bool ``[N, P]``.

    Raises:
        UserError: images of ``shape`` do not consist of so many patches.
    """
    _, height, width = shape
    size = patch_size(shape, keep.shape[1])
    grid = keep.reshape(len(keep), height // size, 1, width // size, 1)
    return grid.expand(-1, -1, size, -1, size).reshape(len(keep), height, width)


def dropped_patches(patches: int, drop_rate: float) -> int:
    """How many of so many patches are dropped: ``round(patches * drop_rate)``, with Python's rounding.

    Raises:
        UserError: the rate is not in 0..1 (1 excluded), or no patch would be left.
    """
    if not 0 <= drop_rate < 1:
        raise UserError(f"the drop rate must be at least 0 and below 1, not {drop_rate:g}")
    count = round(patches * drop_rate)
    if count >= patches:
        raise UserError(f"a drop rate of {drop_rate:g} leaves none of {patches} patches: choose a lower one or smaller patches")
    return count


def keep_ratio(patches: int, drop_rate: float) -> float:
    """The share of so many patches that is kept, 0..1.

    Raises:
        UserError: see :func:`dropped_patches`.
    """
    return (patches - dropped_patches(patches, drop_rate)) / patches


def describe_ratio(sample_ratio: float, patches: int, drop_rate: float) -> str:
    """The line ``sample ratio 12.5 % × patch keep ratio 75 % = data keep ratio 9.375 %``.

    Args:
        sample_ratio: share of the images that is kept, 0..1.
        patches: of an image.
        drop_rate: of patches, 0..1.

    Raises:
        UserError: see :func:`dropped_patches`.
    """
    kept_share = keep_ratio(patches, drop_rate)
    shares = [f"{100 * one:.6g} %" for one in (sample_ratio, kept_share, sample_ratio * kept_share)]
    return f"sample ratio {shares[0]} × patch keep ratio {shares[1]} = data keep ratio {shares[2]}"


def kept(scores: Tensor, drop_rate: float) -> Tensor:
    """Which patches stay when the lowest scores are dropped, bool ``[N, P]`` where ``scores`` are.

    Every image drops equally many, :func:`dropped_patches`. Of equal scores the lowest positions go; NaN is the lowest score.

    Args:
        scores: ``[N, P]``, higher is more informative.
        drop_rate: 0..1.

    Raises:
        UserError: see :func:`dropped_patches`.
    """
    count = dropped_patches(scores.shape[1], drop_rate)
    lowest = torch.where(scores.isnan(), -torch.inf, scores).argsort(dim=1, stable=True)[:, :count]
    return torch.ones(scores.shape, dtype=torch.bool, device=scores.device).scatter_(1, lowest, value=False)


@dataclass(frozen=True, eq=False)
class PatchedImages:
    """The kept patches of images, and where they belong.

    Attributes:
        patches: uint8 ``[N, K, C, size, size]``, in the order of their positions.
        mask: bool ``[N, P]``, K true a row: which positions they are.
        shape: (channels, height, width) of the images.
    """

    patches: Tensor
    mask: Tensor
    shape: Shape

    def __post_init__(self) -> None:
        count, held, channels, size, _ = self.patches.shape
        if channels != self.shape[0] or self.mask.shape != (count, patch_count(self.shape, size)):
            raise UserError(
                f"patches {tuple(self.patches.shape)} and mask {tuple(self.mask.shape)} do not belong to images of {self.shape}"
            )
        if held < 1 or bool((self.mask.sum(dim=1) != held).any()):
            raise UserError(f"the mask of every image must name its {held} patches, and at least one")

    @classmethod
    def of(cls, images: Tensor, keep: Tensor) -> PatchedImages:
        """The patches of ``images`` (uint8 ``[N, C, H, W]``) that ``keep`` (bool ``[N, P]``) names, equally many an image.

        Raises:
            UserError: not equally many, none, or images of this size do not consist of P patches.
        """
        channels, height, width = images.shape[1:]
        shape = (channels, height, width)
        size = patch_size(shape, keep.shape[1])
        counts = keep.sum(dim=1)
        held = int(counts[0]) if len(counts) else keep.shape[1]
        if bool((counts != held).any()):
            raise UserError("every image must keep equally many patches")
        patches = to_patches(images, size)[keep].reshape(len(images), held, channels, size, size)
        return cls(patches, keep, shape)

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def size(self) -> int:
        """Pixels a side of a patch."""
        return int(self.patches.shape[3])

    @property
    def nbytes(self) -> int:
        """Bytes of the kept pixels and of the mask at one bit a patch."""
        return self.patches.numel() + len(self.mask) * -(-self.mask.shape[1] // 8)

    def visible(self) -> tuple[Tensor, Tensor]:
        """The images with holes of 0, uint8 ``[N, C, H, W]``, and which pixels are there, bool ``[N, H, W]``."""
        whole = self.patches.new_zeros(*self.mask.shape, *self.patches.shape[2:])
        whole[self.mask] = self.patches.flatten(0, 1)
        return from_patches(whole, self.shape), pixel_mask(self.mask, self.shape)
