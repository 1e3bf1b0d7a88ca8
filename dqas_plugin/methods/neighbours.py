"""The nearest samples of every sample, exactly, without a matrix of all pairs.

Products of whole blocks narrow the choice down; the distances of those that are left are computed again from the differences,
so that order and ties are those of float64 (differences of float32 numbers lose next to nothing there).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.data import IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.methods.copies import first_copies
from dqas_plugin.methods.points import mean_of

BLOCK = 16 * 2**20
"""Bytes of one block of pairs; a handful of them are alive at a time."""

_SPARE = 6  # candidates more than asked for, so that rounding seldom leaves it open who belongs to the nearest
_ROUNDING = 1e-14  # of a squared distance from products, as a share of the squared lengths


class Nearest(NamedTuple):
    """The nearest rows of every row, nearest first.

    Attributes:
        positions: int64 ``[n, k]``.
        squares: squared euclidean distances, float64 ``[n, k]``.
    """

    positions: Tensor
    squares: Tensor


def at_least_one(name: str, value: int) -> int:
    """The value of an option that counts something.

    Raises:
        UserError: if it is below 1.
    """
    if value < 1:
        raise UserError(f"{name} must be at least 1, not {value}")
    return value


def block_rows(count: int) -> int:
    """How many rows of ``count`` numbers in float64 make one block."""
    return max(1, BLOCK // (8 * max(1, count)))


def row_blocks(rows: IntArray, width: int) -> Iterator[IntArray]:
    """The rows in parts that make one block, with ``width`` numbers each."""
    step = block_rows(width)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def nearest(points: Tensor, count: int) -> Nearest:
    """The ``count`` nearest rows of every row, itself among them; equally near ones in the order of their positions.

    A row is the first of its own list unless an equal row comes before it.

    Args:
        points: float32 ``[n, d]`` on any device; the answer is there too.
        count: how many; all n if it is more.
    """
    size = len(points)
    count = min(count, size)
    if not count:
        return Nearest(points.new_zeros((size, 0), dtype=torch.int64), points.new_zeros((size, 0), dtype=torch.float64))
    search = _Search(points, count)
    step = block_rows(max(size, (count + _SPARE) * points.shape[1]))
    squares = torch.empty(size, count, dtype=torch.float64, device=points.device)
    positions = torch.empty_like(squares, dtype=torch.int64)
    for start in range(0, size, step):
        end = min(start + step, size)
        positions[start:end], squares[start:end] = search.block(start, end)
    return Nearest(positions, squares)


def nearest_others(points: Tensor, count: int) -> Nearest:
    """As :func:`nearest`, but no row is in its own list, also where equal rows come before it."""
    positions, squares = nearest(points, count + 1)
    if not len(positions):
        return Nearest(positions, squares)
    own = positions == torch.arange(len(positions), device=positions.device)[:, None]
    # More equal rows before it than the list has places: then it is not there, and the last one goes.
    own[:, -1] |= ~own.any(dim=1)
    shape = (len(positions), max(0, positions.shape[1] - 1))
    return Nearest(positions[~own].view(shape), squares[~own].view(shape))


class _Search:
    """Blocks of one search."""

    def __init__(self, points: Tensor, count: int) -> None:
        self.points, self.count = points, count
        # Around the mean less cancels in |x|² + |y|² - 2 x·y.
        centre = mean_of(points)
        self.centred = points.double() - centre
        self.lengths = self.centred.square().sum(dim=1)  # (n,)
        self.rounding = _ROUNDING * (self.lengths + self.lengths.max())
        self.firsts: IntArray | None = None

    def block(self, start: int, end: int) -> Nearest:
        """The nearest of the rows ``start..end``."""
        lengths = self.lengths[start:end, None] + self.lengths
        about = lengths.addmm_(self.centred[start:end], self.centred.T, alpha=-2.0)  # (b, n)
        near, positions = about.topk(min(self.count + _SPARE, len(self.points)), largest=False)
        found = self._ordered(self.points[start:end], positions.sort(dim=1).values)
        if positions.shape[1] < len(self.points):
            limit = near[:, self.count - 1] + 2 * self.rounding[start:end]
            for row in (near[:, -1] <= limit).nonzero()[:, 0].tolist():
                exact = self._settled(start + row, (about[row] <= limit[row]).nonzero()[:, 0])
                found.positions[row], found.squares[row] = exact.positions[0], exact.squares[0]
        return found

    def _ordered(self, rows: Tensor, positions: Tensor) -> Nearest:
        """The nearest of the candidates ``[b, m]``, given by rising position."""
        differences = self.points[positions].double() - rows[:, None].double()
        squares = differences.square_().sum(dim=2)
        return self._sorted(squares, positions)

    def _settled(self, row: int, positions: Tensor) -> Nearest:
        """The same for one row of which there are many candidates, mostly copies."""
        if self.firsts is None:
            self.firsts = first_copies(self.points)
        distinct, place = np.unique(self.firsts[positions.cpu().numpy()], return_inverse=True)
        squares = (self.points[torch.from_numpy(distinct)].double() - self.points[row].double()).square_().sum(dim=1)
        return self._sorted(squares[torch.from_numpy(place)][None], positions[None])

    def _sorted(self, squares: Tensor, positions: Tensor) -> Nearest:
        squares, order = squares.sort(dim=1, stable=True)
        return Nearest(positions.gather(1, order)[:, : self.count], squares[:, : self.count])
