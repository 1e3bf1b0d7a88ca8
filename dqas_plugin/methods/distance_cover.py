"""Facility location on distances between gradients, for what float32 costs and with the picks of float64.

Picks S shall make ``Σ_i min_{p in S} |g_p - g_i|`` small. A gradient is ``a (left ⊗ right)`` with unit vectors ``left`` (from
the residual) and ``right`` (from the features), and

    |g_i - g_j|² = (a_i - a_j)² + 2 a_i a_j (h + k - h k),  h = |left_i - left_j|² / 2,  k = |right_i - right_j|² / 2.

Only the products in h and k are taken in float32, and of factors around their means, so that they are wrong by the last digit
of how far samples lie apart, not of how far they are from the origin. Distances of near pairs, where even that would show, are
computed in float64. The greedy algorithm reads this matrix; gains that the rounding in it cannot tell apart are computed again
in float64. Data where that would concern too many pairs are left to the way in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.gradients import LastLayerGradients
from dqas_plugin.methods.copies import first_copies
from dqas_plugin.methods.cover_kernels import (
    Samples,
    SingleArray,
    Spread,
    State,
    approach,
    centred,
    cover,
    fill,
    mirror,
    work_of,
)
from dqas_plugin.methods.greedy import UNUSED_LANES
from dqas_plugin.methods.greedy_coverage import TIE
from dqas_plugin.methods.neighbours import block_rows

_NEAR = 1 / 16  # share of the product of the distances from the mean below which a squared distance makes a pair near
_MOST = 8  # terms of float64 that may be spent for every pair of all, before all are computed in it
_FEW = 2000  # samples below which more of them may be: what it takes does not matter there


class Covered(NamedTuple):
    """What was picked.

    Attributes:
        picks: positions in the order of picking, int64.
        shares: how many samples each pick is the nearest to, float64; between two, the lower position.
    """

    picks: IntArray
    shares: FloatArray


@UNUSED_LANES
def cover_distances(gradients: LastLayerGradients, floor: float, budget: int) -> Covered | None:
    """Pick the sample that shortens the distances to the nearest pick most, again and again.

    Takes 4 n² bytes. Equal gains go to the lowest position; what nobody gains from comes last, in its order.

    Args:
        gradients: of n samples, at least one, on the processor.
        floor: the least distance.
        budget: how many to pick; n at most.

    Returns:
        None if float32 cannot tell the samples apart.
    """
    count, lengths = len(gradients), gradients.norms.numpy()
    unit, budget = float(lengths.max()), min(budget, count)
    if 2 * unit <= floor or not budget:  # all are equally near
        return Covered(np.arange(budget), np.where(np.arange(budget) > 0, 0.0, float(count)))
    copies = first_copies(gradients.residuals, gradients.features)
    if not lengths.all():
        copies[lengths == 0] = lengths.argmin()  # whatever their features are
    distinct, group, counts = np.unique(copies, return_inverse=True, return_counts=True)
    samples, spread, factors = _prepared(gradients, lengths / unit, floor / unit, distinct, counts)
    most = float(_MOST * len(distinct) * max(len(distinct), _FEW))
    pairs = _all_pairs(samples, spread, factors, most)
    if pairs is None:
        return None
    matrix, total, highest = pairs
    state = _start(samples, spread, total, highest, sum(one.shape[1] for one in factors))
    chosen = np.empty(min(budget, len(distinct)), dtype=np.int64)
    found = cover(matrix, samples, state, chosen, TIE * count * highest, most)
    if found < 0:
        return None
    picks = _with_others(distinct[chosen[:found]], count, budget)
    for turn in range(found, budget):
        if copies[picks[turn]] == picks[turn]:
            approach(matrix, samples, state, group[picks[turn]], turn == 0)
    shares = np.bincount(distinct[state.nearest], weights=samples.counts, minlength=count)
    return Covered(picks, np.asarray(shares[picks], dtype=np.float64))


def _with_others(picks: IntArray, count: int, budget: int) -> IntArray:
    """The picks, and what is missing from the budget in the order of its positions."""
    rest = np.ones(count, dtype=np.bool_)
    rest[picks] = False
    return np.concatenate([picks, np.flatnonzero(rest)[: budget - len(picks)]])


def _prepared(
    gradients: LastLayerGradients, lengths: FloatArray, floor: float, distinct: IntArray, counts: IntArray
) -> tuple[Samples, Spread, tuple[SingleArray, SingleArray]]:
    """The distinct samples, how their factors spread, and the factors around their means."""
    residuals, features = gradients.residuals.numpy(), gradients.features.numpy()
    if len(distinct) < len(lengths):
        residuals, features, lengths = residuals[distinct], features[distinct], lengths[distinct]
    norms = np.linalg.norm(residuals, axis=1, keepdims=True)
    left = residuals / np.where(norms > 0, norms, 1.0)
    features, inverse = np.ascontiguousarray(features), np.empty(len(lengths))
    right, half_right = np.empty((len(lengths), features.shape[1] + 1), dtype=np.float32), np.empty(len(lengths))
    centred(features, inverse, right, half_right)
    around = (left - left.mean(axis=0)).astype(np.float32)
    half_left = np.einsum("nc,nc->n", around, around, dtype=np.float64) / 2
    near = [math.sqrt(_NEAR) * lengths * np.sqrt(2 * half) for half in (half_left, half_right)]
    samples = Samples(lengths, left, features, inverse, counts.astype(np.float64), floor)
    return samples, Spread(half_left, half_right, *near), (around, right)


def _all_pairs(
    samples: Samples, spread: Spread, factors: tuple[SingleArray, SingleArray], most: float
) -> tuple[SingleArray, FloatArray, float] | None:
    """Distances of all pairs, the sum of each sample's, and the longest; None if near pairs take more work than ``most``."""
    count = len(samples.lengths)
    result, total = np.empty((count, count), dtype=np.float32), np.zeros(count)
    step = min(count, block_rows(count))
    room = np.empty((2, step * count), dtype=np.float32)
    near, highest = 0, samples.floor
    for start in range(0, count, step):
        end = min(start + step, count)
        shape = end - start, count - start
        left, right = (
            np.matmul(one[start:end], one[start:].T, out=place[: math.prod(shape)].reshape(shape))
            for one, place in zip(factors, room, strict=True)
        )
        found, longest = fill(result, start, left, right, samples, spread, total)
        near, highest = near + found, max(highest, float(longest))
        if work_of(samples, near) > most:
            return None
        mirror(result, start, end)
    return result, total, highest


def _start(samples: Samples, spread: Spread, total: FloatArray, highest: float, terms: int) -> State:
    """Before the first pick, where all are as far from one as the farthest two are from each other."""
    count = len(samples.lengths)
    # A distance comes out of products of rounding error r with |error| <= r a_i a_j spread_i spread_j, and neither a pair
    # that is near nor, for a sample nearer than ``reach``, an a_i above a_j + reach counts.
    unit = 2.0**-24
    spreads = [np.sqrt(2 * half) for half in (spread.left, spread.right)]
    wide = np.sqrt(sum(one * one.max() for one in spreads))
    rounding = unit * (8 + math.sqrt(terms) / 2) * wide
    part = np.stack([rounding * samples.lengths, rounding / 2 + 4 * unit])
    reach = np.full(count, highest, dtype=np.float32)
    return State(
        gain=samples.counts.sum() * float(reach[0]) - total,
        reach=reach,
        nearest=np.zeros(count, dtype=np.int64),
        known=np.full(count, -1.0),
        bound=part[0] + part[1] * highest,
        part=part,
        limit=np.full(count, np.inf, dtype=np.float32),
        exact=np.empty(count),
        turn=np.full(count, -1),
        close=np.empty(count, dtype=np.int64),
        rows=np.empty(count, dtype=np.int64),
        old=np.empty(count, dtype=np.float32),
        new=np.empty(count, dtype=np.float32),
    )
