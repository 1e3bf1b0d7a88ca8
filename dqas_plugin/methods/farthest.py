"""Farthest-first traversal: again and again the sample that is farthest from its nearest pick (Gonzalez 1985).

Each pick costs at most one matrix-vector product over the samples that are left, and far less where the picks lie in few
directions: once there are some, every sample has coordinates along them and a length of the rest, from which follows that most
samples are not nearer to a new pick than to their nearest one (Cauchy-Schwarz); only the others are multiplied in full.

The picks are still those of distances computed one by one from the differences in float64: the products give bounds, which
mostly leave a single sample; of those they do not tell apart the distances are computed again, to the picks that can be their
nearest only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.methods.greedy import UNUSED_LANES, product_rounding
from dqas_plugin.methods.greedy_on_device import first_highest
from dqas_plugin.methods.neighbours import row_blocks

Distances = Callable[[Tensor], Tensor]
"""From the sample at a position, int64 ``[1]``, to all n: float64 ``[n]``."""

_TIE = 1e-13  # distances that differ by less than this share are equal: sums of the same terms in another order
_TINY = 1e-34  # what is lost where float32 has no smaller numbers
_DIRECTIONS = 32  # picks whose directions make the coordinates
_WIDE = 8 * _DIRECTIONS  # narrower rows, and fewer samples, are multiplied as fast
_FEW = 0.4  # share of the samples up to which taking them out of the whole pays


@dataclass(frozen=True, eq=False)
class Metric:
    """A distance of n samples that is a sum less an inner product: ``D(x, p) = own_x + own_p - weight <rows_x, turned_p>``.

    Attributes:
        own: float64 ``[n]``.
        rows: float32 ``[n, k]`` for wide rows, which bounds by sample make up for; float64 for narrow ones.
        turn: ``turned`` is ``rows`` with the columns moved on by so many: 0, or with float64 also k/2.
        weight: see above; a power of 2, so that multiplying by it rounds nothing.
        norms: two arrays float64 ``[n]``: the terms of an inner product sum to ``½ (a_x b_p + b_x a_p)`` at most.
        exact: ``exact(some, others)`` gives D of pairs, from their differences, float64 ``[len(some)]``.
        copies: for every sample the first one that is equal to it, int64 ``[n]``.
    """

    own: FloatArray
    rows: npt.NDArray[Any]
    turn: int
    weight: float
    norms: tuple[FloatArray, FloatArray]
    exact: Callable[[IntArray, IntArray], FloatArray]
    copies: IntArray

    def turned(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """One row ``[k]`` or several ``[m, k]`` with their columns moved on."""
        return np.concatenate([rows[..., -self.turn :], rows[..., : -self.turn]], axis=-1) if self.turn else rows


@UNUSED_LANES
def farthest_first(metric: Metric, first: int, budget: int) -> IntArray:
    """Positions in the order of picking, int64 ``[budget]``; equal distances go to the lowest position.

    Copies of what is picked have distance 0 and come last, in the order of their positions.

    Args:
        metric: of n samples.
        first: position of the first pick.
        budget: how many; n at most.
    """
    if metric.rows.dtype == np.float64:
        picks = _scanned(metric, first, budget)
    else:
        traversal = _Traversal(metric, first)
        picks = [traversal.pick() for _ in range(min(budget, len(traversal.position)))]
    rest = np.setdiff1d(np.arange(len(metric.own)), picks)
    return np.concatenate([np.array(picks, dtype=np.int64), rest])[:budget]


def _scanned(metric: Metric, first: int, budget: int) -> list[int]:
    """The picks among distinct samples, of products in float64: one bound for the rounding of all leaves hardly two of them."""
    position = _distinct(metric.copies, first)
    rows, own = metric.rows[position], metric.own[position]
    # D(x, p) = <[rows_x, own_x, 1], [-weight turned_p, 1, own_p]>; columns lie together, they are what a product walks along.
    table = np.asfortranarray(np.column_stack([rows, own, np.ones(len(own))]))
    queries = np.column_stack([-metric.weight * metric.turned(rows), np.ones(len(own)), own])
    one, other = (norms[position] for norms in metric.norms)
    slack = product_rounding(table.shape[1]) * 2.0**-52 * (metric.weight * one.max() * other.max() + 4 * abs(own).max()) + _TINY
    near, distance = np.full(len(own), np.inf), np.empty(len(own))
    exact = _Exact(metric, position)
    row, picks = int(np.flatnonzero(position == first)[0]), list[int]()
    while True:
        picks.append(row)
        if len(picks) >= min(budget, len(own)):
            return [int(one) for one in position[picks]]
        np.dot(table, queries[row], out=distance)
        np.minimum(near, distance, out=near)
        near[row] = -np.inf
        best = near.max()
        found = np.flatnonzero(near >= best - 2 * (slack + _TIE * abs(best)))
        row = int(found[0]) if len(found) == 1 else exact.farthest(found, picks)


def _distinct(copies: IntArray, first: int) -> IntArray:
    """The first sample of every set of equal ones, ascending, but ``first`` in the place of those equal to it."""
    position = np.unique(copies)
    position[np.searchsorted(position, copies[first])] = first
    return position


class _Exact:
    """Exact distances to the nearest pick, of the rows that were asked about."""

    def __init__(self, metric: Metric, position: IntArray) -> None:
        self.metric, self.position = metric, position
        self.distance = np.full(len(position), np.inf)
        self.seen = np.zeros(len(position), dtype=np.int64)

    def farthest(self, rows: IntArray, picks: list[int]) -> int:
        """Of these rows the one that is the farthest from its nearest pick, of the lowest position among equals."""
        taken = np.array(picks)
        for count in np.unique(self.seen[rows]):
            new = taken[count:]
            for part in row_blocks(rows[self.seen[rows] == count], len(new)):
                pairs = self.metric.exact(np.repeat(self.position[part], len(new)), np.tile(self.position[new], len(part)))
                self.distance[part] = np.minimum(self.distance[part], pairs.reshape(len(part), len(new)).min(axis=1))
        self.seen[rows] = len(picks)
        equal = rows[self.distance[rows] >= self.distance[rows].max() * (1 - _TIE)]
        return int(equal[self.position[equal].argmin()])


class _Traversal:
    """Distinct samples: those that are left in the first ``size`` rows of every array, then the picks, the latest first."""

    def __init__(self, metric: Metric, first: int) -> None:
        self.metric = metric
        position = _distinct(metric.copies, first)
        self.position, self.start = position, int(np.flatnonzero(position == first)[0])
        self.size = len(position)
        self.rows = metric.rows[position]
        # All numbers of float64 in one array, so that one assignment moves those of a sample.
        self.state = np.full((11, self.size), np.inf)
        self.own, self.floor, self.low, self.high, self.exact = self.state[:5]
        self.spread, self.reach = self.state[5:8], self.state[8:]
        self.own[:] = metric.own[position]
        # How far D is from exact: <spread_x, reach_p> + floor_p.
        unit = float(np.finfo(self.rows.dtype).eps) / 2
        rounding = product_rounding(self.rows.shape[1])
        one, other = (norms[position] for norms in metric.norms)
        self.spread[:] = one, other, abs(self.own)
        self.spread *= rounding * np.array([[metric.weight * unit / 2], [metric.weight * unit / 2], [2.0**-53]])
        self.reach[:] = other, one, np.ones(self.size)
        self.floor[:] = rounding * 2.0**-53 * abs(self.own) + _TINY
        # ``low`` and ``high`` bound the distance to the nearest pick; ``exact`` is that to the first ``seen`` picks.
        self.seen = np.zeros(self.size, dtype=np.int64)
        # How far a coordinate, and a product of coordinates, may be off, as a share of the lengths.
        self.blur = 4 * rounding * unit
        self.slack = self.blur * metric.weight * float(one.max() * other.max())
        self.coarse: npt.NDArray[np.float32] | None = None  # coordinates along some picks, and the length of the rest
        self.useful = self.rows.shape[1] >= _WIDE and self.size >= _WIDE

    @property
    def taken(self) -> int:
        """How many are picked."""
        return len(self.position) - self.size

    def pick(self) -> int:
        """Take the farthest sample out; its position."""
        row = self._farthest() if self.taken else self.start
        self._put_last(row)
        self._update()
        return int(self.position[self.size])

    def _farthest(self) -> int:
        """Row of the greatest distance to its nearest pick, of the lowest position among equals."""
        near = np.flatnonzero(self.high[: self.size] >= self.low[: self.size].max())
        if len(near) == 1:
            return int(near[0])
        self._look(near)
        exact = self.exact[near]
        equal = near[exact >= exact.max() * (1 - _TIE)]
        return int(equal[self.position[equal].argmin()])

    def _put_last(self, row: int) -> None:
        """Let this row and the last of those that are left change places, and count it to the picks."""
        self.size -= 1
        pair, other = [row, self.size], [self.size, row]
        self.state[:, pair] = self.state[:, other]
        for array in (self.position, self.seen, self.rows, self.coarse):
            if array is not None:
                array[pair] = array[other]

    def _update(self) -> None:
        """The bounds after the pick that is the first behind those that are left."""
        if self.useful and self.taken == _DIRECTIONS:
            self.coarse = self._coordinates()
        if self.coarse is None:
            self._bound(slice(0, self.size))
            return
        nearer = self._perhaps_nearer(self.coarse)
        if len(nearer) <= _FEW * self.size:
            self._bound(nearer)
            return
        self._bound(slice(0, self.size))
        self.coarse = None  # the directions of the picks say too little of these samples

    def _bound(self, rows: IntArray | slice) -> None:
        """The bounds of these rows."""
        pick = self.size
        distance = self.own[rows] + self.own[pick]
        distance -= self.rows[rows] @ (self.rows[pick] * self.rows.dtype.type(self.metric.weight))
        error = self.reach[:, pick] @ self.spread[:, rows]
        error += self.floor[pick]
        self.low[rows] = np.minimum(self.low[rows], distance - error)
        distance += error
        self.high[rows] = np.minimum(self.high[rows], distance)

    def _coordinates(self) -> npt.NDArray[np.float32]:
        """Coordinates of all rows along the picks so far, and the length of what is left of them, ``[m, k + 1]``."""
        basis, _ = np.linalg.qr(self.rows[self.size :].T.astype(np.float64))
        result = np.empty((len(self.rows), basis.shape[1] + 1), dtype=np.float32)
        np.matmul(self.rows, basis.astype(np.float32), out=result[:, :-1])
        squares = np.einsum("nk,nk->n", result[:, :-1], result[:, :-1], dtype=np.float64)
        # Never too short, else what is left of two samples could have more in common than their lengths allow.
        result[:, -1] = np.sqrt(np.maximum(self.own - squares, 0.0) + self.blur * self.own)
        return result

    def _perhaps_nearer(self, coarse: npt.NDArray[np.float32]) -> IntArray:
        """Rows that the latest pick may be nearer to than all before."""
        product = coarse[: self.size] @ coarse[self.size]
        product *= self.metric.weight
        least = self.own[: self.size] + (self.own[self.size] - self.slack)
        least -= product
        return np.flatnonzero(least < self.high[: self.size])

    def _look(self, rows: IntArray) -> None:
        """Bring the exact distances of these rows up to date, and so their bounds."""
        seen = self.seen[rows]
        for count in np.unique(seen):
            new = slice(self.size, len(self.position) - int(count))
            for part in row_blocks(rows[seen == count], new.stop - new.start):
                self._look_at(part, new)
        self.seen[rows] = self.taken
        self.low[rows] = self.exact[rows] * (1 - _TIE)
        self.high[rows] = self.exact[rows] * (1 + _TIE)

    def _look_at(self, rows: IntArray, picks: slice) -> None:
        """The exact distances of these rows to those of the picks that may be nearer than all before."""
        distance = self.own[rows, None] + self.own[picks]
        distance -= self.metric.weight * (self.rows[rows] @ self.rows[picks].T)
        distance -= self.spread[:, rows].T @ self.reach[:, picks] + self.floor[picks]
        row, pick = np.nonzero(distance <= self.high[rows, None])
        exact = self.metric.exact(self.position[rows[row]], self.position[picks][pick])
        np.minimum.at(self.exact, rows[row], exact)


def farthest_on_device(distances: Distances, first: int, count: int, budget: int) -> Tensor:
    """As :func:`farthest_first`, on the device of the distances and without waiting for it.

    Args:
        distances: 0 to the copies of a sample.
        first: position of the first pick.
        count: n.
        budget: how many; n at most.

    Returns:
        int64 ``[budget]`` on the device.
    """
    nearest = torch.full_like(distances(torch.tensor([first])), torch.inf)
    picks = torch.zeros(min(budget, count), dtype=torch.int64, device=nearest.device)
    picks[:1] = first
    for turn in range(len(picks)):
        if turn:
            picks[turn : turn + 1] = first_highest(nearest, relative=_TIE)
        pick = picks[turn : turn + 1]
        nearest = torch.minimum(nearest, distances(pick)).index_fill_(0, pick, -torch.inf)
    return picks
