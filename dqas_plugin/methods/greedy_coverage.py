"""Greedy maximisation of facility location, ``F(S) = Σ_i max_{p in S} s(p, i)`` with ``s >= 0``.

The gain of x is ``Σ_i max(0, s(x, i) - c_i)``, c being the highest similarity to a pick so far. A pick raises c only of those
samples that it is nearer to than all before it, and only their terms change. So all gains stay up to date at the price of a
few rows a pick (measured: a sample finds a nearer pick six times in 2,500), and no bound is ever stale as in lazy greedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.methods.neighbours import block_rows, row_blocks

TIE = 1e-14
"""Gains closer than this share of what n samples can give at most are equal: rounding of float64."""

MANY = 512
"""Samples from which on machine code is worth compiling for; below, NumPy takes milliseconds."""


def cover(similarity: FloatArray, budget: int) -> IntArray:
    """Pick the sample of the highest gain, again and again; equal gains go to the lowest position.

    Args:
        similarity: of all pairs, float64 ``[n, n]``, symmetric, not negative.
        budget: how many to pick; n at most.

    Returns:
        positions in the order of picking, int64. What nobody gains from comes last, in its order.
    """
    count = len(similarity)
    gain = np.zeros(count)
    for rows in row_blocks(np.arange(count), count):
        gain += similarity[rows[0] : rows[-1] + 1].sum(axis=0)
    current = np.zeros(count)
    lower = _compiled() if count >= MANY else _lower
    picker = _Picker(gain, float(similarity.max(initial=0.0)), budget)
    for pick in picker:
        row = similarity[pick]
        nearer = np.flatnonzero(row > current)
        lower(gain, similarity, nearer, current[nearer], row[nearer])
        current[nearer] = row[nearer]
    return picker.order()


def _lower(gain: FloatArray, similarity: FloatArray, rows: IntArray, old: FloatArray, new: FloatArray) -> None:
    """Take from all gains what samples at some rows no longer give, which were ``old`` and are ``new`` similar to a pick."""
    # max(0, s - old) - max(0, s - new) = clip(s, old, new) - old
    gain -= np.clip(similarity[rows], old[:, None], new[:, None]).sum(axis=0) - old.sum()


def _compiled() -> Callable[[FloatArray, FloatArray, IntArray, FloatArray, FloatArray], None]:
    from dqas_plugin.methods import cover_kernels  # compiles

    def lower(gain: FloatArray, similarity: FloatArray, rows: IntArray, old: FloatArray, new: FloatArray) -> None:
        cover_kernels.lower(gain, similarity, np.broadcast_to(-1.0, len(gain)), rows, old, new)

    return lower


def cover_by_neighbours(positions: npt.NDArray[np.int32], similarity: FloatArray, budget: int) -> IntArray:
    """As :func:`cover`, where only the similarities of every sample to some others are known and the rest counts as 0.

    Args:
        positions: for every sample those others, int32 ``[n, k]``, each at most once.
        similarity: to them, float64 ``[n, k]``, not negative.
        budget: how many to pick; n at most.
    """
    count, width = positions.shape
    listed = positions.ravel()
    entries = np.argsort(listed, kind="stable")  # where each sample is listed, one sample after the other
    starts = np.searchsorted(listed, np.arange(count + 1), sorter=entries)
    values = similarity.ravel()
    gain = np.asarray(np.bincount(listed, weights=values, minlength=count), dtype=np.float64)
    current = np.zeros(count)
    picker = _Picker(gain, float(similarity.max(initial=0.0)), budget)
    for pick in picker:
        where = entries[starts[pick] : starts[pick + 1]]
        where = where[values[where] > current[where // width]]
        rows, high = where // width, values[where]
        low = current[rows, None]
        np.subtract.at(gain, positions[rows], np.clip(similarity[rows], low, high[:, None]) - low)
        current[rows] = high
    return picker.order()


class _Picker:
    """Yields the position of the highest gain and takes it out, until nobody gains from anything."""

    def __init__(self, gain: FloatArray, highest: float, budget: int) -> None:
        self.gain, self.budget = gain, min(budget, len(gain))
        self.tie = TIE * highest * len(gain)
        self.picks: list[int] = []

    def __iter__(self) -> Iterator[int]:
        while len(self.picks) < self.budget:
            best = self.gain.max()
            if best <= self.tie:
                break
            pick = int((self.gain >= best - self.tie).argmax())
            self.picks.append(pick)
            self.gain[pick] = -np.inf
            yield pick

    def order(self) -> IntArray:
        """The picks, and what is missing from the budget in the order of its positions."""
        rest = np.flatnonzero(self.gain > -np.inf)[: self.budget - len(self.picks)]
        return np.concatenate([np.array(self.picks, dtype=np.int64), rest])


def cover_on_device(similarity: Tensor, budget: int) -> Tensor:
    """As :func:`cover`, on the device of the matrix and without waiting for it: every gain anew for every pick.

    Args:
        similarity: float64 ``[n, n]``.
        budget: how many to pick; n at most.

    Returns:
        int64 ``[budget]`` on the device.
    """
    count = len(similarity)
    places = torch.arange(count, device=similarity.device)
    picks = places.new_zeros(min(budget, count))
    if not len(picks):
        return picks
    tie = similarity.max() * (TIE * count)
    current, gain = similarity.new_zeros(count), similarity.new_zeros(count)
    taken = torch.zeros_like(places, dtype=torch.bool)
    step = block_rows(count)
    for turn in range(len(picks)):
        for start in range(0, count, step):
            gain[start : start + step] = (similarity[start : start + step] - current).clamp_(min=0.0).sum(dim=1)
        gain.masked_fill_(taken, -torch.inf)
        pick = torch.where(gain >= gain.max() - tie, places, count).min().view(1)  # argmax promises no order on ties
        picks[turn : turn + 1] = pick
        taken.index_fill_(0, pick, True)
        current = torch.maximum(current, similarity.index_select(0, pick)[0])
    return picks
