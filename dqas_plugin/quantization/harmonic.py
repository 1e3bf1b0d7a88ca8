"""Harmonic inpainting: dropped patches become the smoothest surface that meets the visible pixels around them.

Every missing pixel is the mean of its neighbours (Laplace's equation with the five-point stencil), where pixels beyond the edge
of the image do not count (zero slope across it). It needs no training. The equations of an image are solved exactly, by a
Cholesky factor within the envelope of the matrix (George and Liu, *Computer Solution of Large Sparse Positive Definite
Systems*, 1981, chapter 4): its unknowns in order of rows reach back at most one row of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.compiled import compiled
from dqas_plugin.data import BoolArray
from dqas_plugin.errors import UserError
from dqas_plugin.quantization.patches import pixel_mask
from dqas_plugin.threads import available, in_parallel

_TIE = 1e-6  # grey levels: halves are common where pixels are few, and rounding errors must not decide them
_PIXELS = 2**18  # per task of a thread


def harmonic(images: Tensor, keep: Tensor) -> Tensor:
    """The images with their dropped patches filled in, uint8 ``[N, C, H, W]``; kept patches are copied as they are.

    Args:
        images: uint8 ``[N, C, H, W]``; pixels of dropped patches are not read.
        keep: bool ``[N, P]``, the patches that are kept, at least one an image.

    Raises:
        UserError: an image keeps no patch, or images of this size do not consist of P square patches.
    """
    channels, height, width = images.shape[1:]
    return fill(images, pixel_mask(keep, (channels, height, width)))


def fill(images: Tensor, known: Tensor) -> Tensor:
    """As :func:`harmonic`, with single pixels.

    Exact halves are rounded up. Time grows with the missing pixels of an image and the square of how many of them lie in a row.

    Args:
        images: uint8 ``[N, C, H, W]``; pixels that are not known are not read.
        known: bool ``[N, H, W]``, at least one pixel an image.

    Raises:
        UserError: an image has no known pixel, or the shapes do not belong together.
    """
    if known.shape != (len(images), *images.shape[2:]):
        raise UserError(f"the mask of images {tuple(images.shape)} cannot be {tuple(known.shape)}")
    if len(images) == 0:
        return images.clone()
    mask: BoolArray = np.ascontiguousarray(known.cpu().numpy())
    if not mask.any(axis=(1, 2)).all():
        raise UserError("an image without any kept pixel cannot be filled in: lower the drop rate")
    pixels = np.array(images.cpu().numpy(), order="C")  # a copy, filled in place
    step = max(1, _PIXELS // mask[0].size)

    def work(start: int) -> None:
        _solve(pixels[start : start + step], mask[start : start + step])

    in_parallel(work, range(0, len(pixels), step), available())
    return torch.from_numpy(pixels).to(images.device)


@compiled(fastmath=True)
def _numbered(known: Any) -> Any:
    """The number of every missing pixel in order of rows, else -1, ``[H, W]``; and the row and column of each, ``[U, 2]``."""
    height, width = known.shape
    number = np.full((height, width), -1, dtype=np.int64)
    places = np.empty((known.size - known.sum(), 2), dtype=np.int64)
    count = 0
    for row in range(height):
        for column in range(width):
            if not known[row, column]:
                number[row, column] = count
                places[count] = (row, column)
                count += 1
    return number, places


@compiled(fastmath=True)
def _envelope(number: Any, places: Any) -> Any:
    """How far back the row of each unknown in the matrix reaches, ``[U]``, and where that row is kept, ``[U + 1]``."""
    first = np.empty(len(places), dtype=np.int64)
    start = np.zeros(len(places) + 1, dtype=np.int64)
    for unknown in range(len(places)):
        row, column = places[unknown]
        first[unknown] = unknown
        if column > 0 and number[row, column - 1] >= 0:
            first[unknown] = unknown - 1
        if row > 0 and number[row - 1, column] >= 0:
            first[unknown] = number[row - 1, column]
        start[unknown + 1] = start[unknown] + unknown - first[unknown] + 1
    return first, start


@compiled(fastmath=True)
def _factor(number: Any, places: Any, first: Any, start: Any) -> Any:
    """The Cholesky factor, row after row within the envelope: the diagonal counts neighbours, a missing one is a -1."""
    height, width = number.shape
    factor = np.zeros(start[-1], dtype=np.float64)
    for i in range(len(places)):
        row, column = places[i]
        here = start[i] - first[i]  # of column 0
        if column > 0 and number[row, column - 1] >= 0:
            factor[here + i - 1] = -1.0
        if row > 0 and number[row - 1, column] >= 0:
            factor[here + number[row - 1, column]] = -1.0
        diagonal = float((row > 0) + (row < height - 1) + (column > 0) + (column < width - 1))
        for j in range(first[i], i):
            there = start[j] - first[j]
            value = factor[here + j]
            both = max(first[i], first[j])
            left, above = factor[here + both : here + j], factor[there + both : there + j]
            for k in range(len(left)):  # of slices, so that it becomes vector instructions
                value -= left[k] * above[k]
            value /= factor[there + j]
            factor[here + j] = value
            diagonal -= value * value
        factor[here + i] = np.sqrt(diagonal)
    return factor


@compiled(fastmath=True)
def _around(pixels: Any, number: Any, row: int, column: int) -> float:
    """Sum of the known neighbours of a pixel."""
    height, width = pixels.shape
    total = 0.0
    if row > 0 and number[row - 1, column] < 0:
        total += pixels[row - 1, column]
    if row < height - 1 and number[row + 1, column] < 0:
        total += pixels[row + 1, column]
    if column > 0 and number[row, column - 1] < 0:
        total += pixels[row, column - 1]
    if column < width - 1 and number[row, column + 1] < 0:
        total += pixels[row, column + 1]
    return total


@compiled(fastmath=True)
def _substitute(pixels: Any, number: Any, places: Any, first: Any, start: Any, factor: Any) -> None:
    """Solve with the factor and write the missing pixels of one channel, ``[H, W]``."""
    values = np.empty(len(places), dtype=np.float64)
    for i in range(len(places)):
        here = start[i] - first[i]
        value = _around(pixels, number, places[i, 0], places[i, 1])
        for k in range(first[i], i):
            value -= factor[here + k] * values[k]
        values[i] = value / factor[here + i]
    for i in range(len(places) - 1, -1, -1):
        here = start[i] - first[i]
        values[i] /= factor[here + i]
        for k in range(first[i], i):
            values[k] -= factor[here + k] * values[i]
    for i in range(len(places)):
        pixels[places[i, 0], places[i, 1]] = np.uint8(min(255.0, max(0.0, values[i] + 0.5 + _TIE)))


@compiled(fastmath=True)
def _solve(pixels: Any, known: Any) -> None:
    """Fill in images, uint8 ``[N, C, H, W]``, where ``known`` is false, bool ``[N, H, W]``."""
    for image in range(len(pixels)):
        number, places = _numbered(known[image])
        if len(places) > 0:
            first, start = _envelope(number, places)
            factor = _factor(number, places, first, start)
            for channel in range(pixels.shape[1]):
                _substitute(pixels[image, channel], number, places, first, start, factor)
