"""Greedy maximisation of gains that change with the similarity to the picks, at the price of half a matrix product a pick.

The similarity is the inner product of outer products, ``K(x, p) = <left_x, left_p> <right_x, right_p>``: features (left is 1)
and implicit gradients alike, so nothing of size n² or C·d per sample is ever built.

Each pick costs one matrix-vector product in float32 over the samples that are left (a picked row's place is taken by the last
row, so that the matrix shrinks). The picks are still those of float64: float32 only narrows the choice down to the samples
whose gains its rounding cannot tell apart, mostly a single one, and those are computed again in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.methods.copies import first_copies

SingleArray = npt.NDArray[np.float32]

_CHUNK = 1024  # rows in float64 at once
_REFRESH = 512  # picks after which gains are brought back to float64
TIE = 1e-12
"""Gains that differ by less than this share of their range are equal: rounding of float64."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Rows ``left ⊗ right`` of norm at most 1.

    Attributes:
        left: float64 ``[n, a]``.
        right: ``right(rows)`` gives float64 ``[len(rows), b]``; a function, so that the whole is not kept in float64.
        source: ``[n, …]``, what ``right`` is made of: rows are equal if these and ``left`` are equal.
    """

    left: FloatArray
    right: Callable[[IntArray], FloatArray]
    source: Tensor

    def total(self, rows: IntArray) -> FloatArray:
        """``Σ left ⊗ right`` over rows, float64 ``[a, b]``."""
        parts = [self.left[part].T @ self.right(part) for part in _chunks(rows)]
        result: FloatArray = np.sum(parts, axis=0)
        return result

    def sums(self, total: FloatArray, rows: IntArray) -> FloatArray:
        """Inner products of each row with such a sum, float64 ``[len(rows)]``."""
        return np.concatenate([np.einsum("nb,nb->n", self.left[part] @ total, self.right(part)) for part in _chunks(rows)])

    def distinct(self) -> tuple[IntArray, dict[int, list[int]]]:
        """The first row of every set of equal rows; and for each that has equals, the other rows of its set, last first."""
        copies = first_copies(self.left, self.source)
        twins: dict[int, list[int]] = {}
        for row in np.flatnonzero(copies != np.arange(len(copies))).tolist():
            twins.setdefault(int(copies[row]), []).insert(0, row)
        return np.unique(copies), twins


# OpenBLAS computes with lanes that it then throws away; what lies in them may raise the flag of an invalid operation.
UNUSED_LANES = np.errstate(invalid="ignore")


@UNUSED_LANES
def best_gains(
    factors: Factors, start: FloatArray, step: FloatArray, weight: float, budget: int, *, bin_sizes: Sequence[int] = ()
) -> IntArray:
    """Pick the sample of the highest gain, again and again; equal gains go to the lowest position.

    The gain of x after the picks S is ``start(x) + Σ_{p in S} (step(x) - weight * K(x, p))``. A new bin keeps half of what the
    picks of the last one changed: for a gain that moves a pick from one sum to another with the opposite sign, the pick is
    then in neither.

    Args:
        factors: of K.
        start: float64 ``[n]``.
        step: float64 ``[n]``.
        weight: factor of K; negative for gains that rise with the similarity to the picks.
        budget: how many to pick; n at most.
        bin_sizes: picks of each bin; what follows the last one is one more bin.

    Returns:
        positions in the order of picking, int64.
    """
    pool = _Pool(factors, start, step, weight)
    ends = set(np.cumsum(bin_sizes).tolist())
    picks: list[int] = []
    while len(picks) < min(budget, len(start)):
        if len(picks) in ends:
            pool.begin_bin()
        picks.append(pool.pick())
    return np.array(picks, dtype=np.int64)


class _Pool:
    """The distinct samples that are left, in the first ``size`` rows of every working array."""

    def __init__(self, factors: Factors, start: FloatArray, step: FloatArray, weight: float) -> None:
        self.factors, self.start, self.all_steps, self.weight = factors, start, step, weight
        self.position, self.twins = factors.distinct()
        self.size = len(self.position)
        self.right = np.concatenate([factors.right(part).astype(np.float32) for part in _chunks(self.position)])  # (m, b)
        # A left side of ones, as that of plain features, need not be multiplied.
        ones = bool((factors.left == 1.0).all())
        self.left = None if ones else factors.left[self.position].astype(np.float32)  # (m, a)
        self.gain, self.step = start[self.position], step[self.position]
        # The sums that gains follow from exactly: Σ left ⊗ right over the picks, and their number; at the start of the bin too.
        total = np.zeros((factors.left.shape[1], self.right.shape[1]))
        self.exact, self.exact_base = (total, 0.0), (total, 0.0)
        self.pending: list[int] = []
        length = self.right.shape[1] + (0 if self.left is None else self.left.shape[1])
        self.rounding = abs(weight) * product_rounding(length) * 2.0**-24
        self.tie = TIE * abs(weight) * len(start)
        self.slack, self.stale = self.tie, 0  # how far from exact the gains are, after how many picks

    def pick(self) -> int:
        """Take the best sample out; its position."""
        best = self._best()
        position = int(self.position[best])
        right = self.right[best].copy()
        left = None if self.left is None else self.left[best].copy()
        if twins := self.twins.get(position):
            self.position[best] = twins.pop()
            self.twins[int(self.position[best])] = twins
        else:
            self._remove(best)
        self._update(left, right)
        self.pending.append(position)
        self.stale += 1
        if self.stale == _REFRESH:
            self._refresh()
        return position

    def begin_bin(self) -> None:
        """Halve what the picks of this bin changed."""
        self._settle()
        (total, count), (total_before, count_before) = self.exact, self.exact_base
        self.exact = self.exact_base = (total + total_before) / 2, (count + count_before) / 2
        self._refresh()

    def _best(self) -> int:
        """Row of the highest gain, in float64, of the lowest position among equals."""
        gain = self.gain[: self.size]
        best = int(gain.argmax())
        near = np.flatnonzero(gain >= gain[best] - 2 * self.slack)
        if len(near) == 1:
            return best
        self._settle()
        rows = self.position[near]
        exact = self._exact_gains(rows)
        equal = exact >= exact.max() - self.tie
        return int(near[equal][rows[equal].argmin()])

    def _settle(self) -> None:
        """Bring the exact sums up to date."""
        if self.pending:
            total, count = self.exact
            self.exact = total + self.factors.total(np.array(self.pending)), count + len(self.pending)
            self.pending.clear()

    def _exact_gains(self, rows: IntArray) -> FloatArray:
        """Gains of these positions in float64."""
        total, count = self.exact
        return self.start[rows] + count * self.all_steps[rows] - self.weight * self.factors.sums(total, rows)

    def _refresh(self) -> None:
        """Get rid of the rounding that all gains have gathered: the less it is, the fewer of them must be looked at twice."""
        self._settle()
        self.gain[: self.size] = self._exact_gains(self.position[: self.size])
        self.slack, self.stale = self.tie, 0

    def _remove(self, row: int) -> None:
        """Put the last row in the place of this one."""
        self.size -= 1
        for working in (self.position, self.gain, self.step):
            working[row] = working[self.size]
        self.right[row] = self.right[self.size]
        if self.left is not None:
            self.left[row] = self.left[self.size]

    def _update(self, left: SingleArray | None, right: SingleArray) -> None:
        """The gains after a pick of these factors."""
        size = self.size
        product = self.right[:size] @ right
        if left is not None and self.left is not None:
            product *= self.left[:size] @ left
        product *= self.weight
        self.gain[:size] += self.step[:size]
        self.gain[:size] -= product
        self.slack += self.rounding


def product_rounding(length: int) -> float:
    """Rounding of an inner product of so many terms, in units of the last place of the product of the norms.

    Libraries sum at least four lanes side by side (Higham 2002, section 3.1).
    """
    return 16 + length / 4


def _chunks(rows: IntArray) -> Iterator[IntArray]:
    """The rows in parts, at least one."""
    for start in range(0, max(1, len(rows)), _CHUNK):
        yield rows[start : start + _CHUNK]
