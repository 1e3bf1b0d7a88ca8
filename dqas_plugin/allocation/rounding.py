"""From real-valued class shares to whole class counts: one rule for every allocator.

Shares are met in proportion between a floor and a cap (water-filling: what a full class cannot take goes to the others
in proportion), then rounded by largest remainder (Hamilton's method) with ties to the lowest class.
"""

from __future__ import annotations

import numpy as np

from dqas_plugin.data import FloatArray, IntArray

_NEGLIGIBLE = 1e-12  # share of a class that was given none: it takes samples only when all others are full
_DECIMALS = 9  # remainders closer than this are ties, or the last bit of a sum would decide


def water_fill(shares: FloatArray, budget: float, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Find ``clip(s * shares, lower, upper)`` with the one scale ``s`` at which it sums to the budget.

    Args:
        shares: float ``[C]``, not negative; all zero means equal shares.
        budget: between ``lower.sum()`` and ``upper.sum()``.
        lower: float ``[C]``.
        upper: float ``[C]``, at least ``lower``.

    Returns:
        float64 ``[C]``.
    """
    top = float(shares.max())
    shares = np.maximum(shares / top, _NEGLIGIBLE) if top > 0 else np.ones(len(shares))
    knots = np.unique(np.concatenate([lower / shares, upper / shares]))  # the sum is linear in s between two of these
    low, high = 0, len(knots) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if np.clip(knots[middle] * shares, lower, upper).sum() <= budget:
            low = middle
        else:
            high = middle
    start, end = (np.clip(knots[one] * shares, lower, upper) for one in (low, high))
    rise = float(end.sum() - start.sum())
    filled: FloatArray = start + (end - start) * (min(max((budget - start.sum()) / rise, 0.0), 1.0) if rise > 0 else 0.0)
    return filled


def round_counts(shares: FloatArray, budget: int, capacity: IntArray, floor: int = 1) -> IntArray:
    """Whole class counts in proportion to ``shares``.

    Args:
        shares: float ``[C]``, not negative, of any scale.
        budget: samples in all; from ``minimum(floor, capacity).sum()`` to ``capacity.sum()``.
        capacity: int64 ``[C]``, samples available.
        floor: least count of a class (its capacity where that is smaller).

    Returns:
        int64 ``[C]``, summing to ``budget``.

    Raises:
        ValueError: shares that are negative or not finite, or a budget that cannot be met.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if shares.shape != capacity.shape or not np.isfinite(shares).all() or (shares < 0).any():
        raise ValueError(f"shares must be {len(capacity)} finite numbers, none negative: {shares}")
    lower = np.minimum(floor, capacity)
    if not lower.sum() <= budget <= capacity.sum():
        raise ValueError(f"a budget of {budget} lies outside {lower.sum()}..{capacity.sum()}")
    ideal = np.round(water_fill(shares, budget, lower.astype(np.float64), capacity.astype(np.float64)), _DECIMALS)
    counts = np.floor(ideal).astype(np.int64)
    largest = np.lexsort((np.arange(len(counts)), -np.round(ideal - counts, _DECIMALS)))
    counts[largest[: budget - counts.sum()]] += 1
    return counts
