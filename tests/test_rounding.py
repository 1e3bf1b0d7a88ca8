"""Rounding shares to counts: exact sum, bounds, order, nearness; checked on random cases and on a few by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_plugin.allocation.rounding import round_counts, water_fill
from dqas_plugin.data import FloatArray, IntArray

Case = tuple[FloatArray, int, IntArray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Shares, a budget that can be met, capacities."""
    size = draw(st.integers(1, 12))
    capacity = np.array(draw(st.lists(st.integers(1, 60), min_size=size, max_size=size)))
    share = st.one_of(st.just(0.0), st.floats(1e-3, 1e3), st.sampled_from([1.0, 2.0]))
    shares = np.array(draw(st.lists(share, min_size=size, max_size=size)))
    return shares, draw(st.integers(size, int(capacity.sum()))), capacity


@settings(deadline=None)
@given(cases())
def test_sum_cap_floor(case: Case) -> None:
    shares, budget, capacity = case
    counts = round_counts(shares, budget, capacity)
    assert counts.dtype == np.int64
    assert counts.sum() == budget
    assert (counts >= 1).all()
    assert (counts <= capacity).all()


@settings(deadline=None)
@given(cases())
def test_order_is_kept(case: Case) -> None:
    """A larger share never gets less, unless its own capacity is full."""
    shares, budget, capacity = case
    counts = round_counts(shares, budget, capacity)
    for i, j in combinations(range(len(shares)), 2):
        low, high = (i, j) if shares[i] < shares[j] else (j, i)
        if shares[low] < shares[high]:
            assert counts[high] >= counts[low] or counts[high] == capacity[high]


@settings(deadline=None)
@given(cases())
def test_within_one_of_the_ideal(case: Case) -> None:
    shares, budget, _ = case
    shares = shares + 1.0
    counts = round_counts(shares, budget, np.full(len(shares), budget))
    ideal = shares / shares.sum() * budget
    if (ideal >= 1).all():  # the floor does not bind, and no cap
        assert np.abs(counts - ideal).max() < 1


@settings(deadline=None)
@given(cases())
def test_whole_numbers_stay(case: Case) -> None:
    shares, budget, capacity = case
    counts = round_counts(shares, budget, capacity)
    np.testing.assert_array_equal(round_counts(counts.astype(np.float64), budget, capacity), counts)
    np.testing.assert_array_equal(round_counts(counts.astype(np.float64) / 1000, budget, capacity), counts)


@settings(deadline=None)
@given(cases())
def test_water_filling_is_one_scale_between_the_bounds(case: Case) -> None:
    shares, budget, capacity = case
    shares = shares + 0.1
    filled = water_fill(shares, budget, np.ones(len(shares)), capacity.astype(np.float64))
    assert filled.sum() == pytest.approx(budget)
    free = (filled > 1 + 1e-9) & (filled < capacity - 1e-9)
    if free.any():
        scale = filled[free] / shares[free]
        assert scale == pytest.approx(np.full(len(scale), scale[0]))
        np.testing.assert_allclose(filled, np.clip(scale[0] * shares, 1, capacity))


@pytest.mark.parametrize(
    ("shares", "budget", "capacity", "expected"),
    [
        ([1, 1, 1], 10, [9, 9, 9], [4, 3, 3]),  # ties go to the lowest class
        ([1, 1, 1], 11, [9, 9, 9], [4, 4, 3]),
        ([0.3, 0.3, 0.1 + 0.2], 10, [9, 9, 9], [4, 3, 3]),  # ... also if the last bit of a share says otherwise
        ([0.5, 0.3, 0.2], 10, [9, 9, 9], [5, 3, 2]),
        ([8, 1, 1], 10, [4, 9, 9], [4, 3, 3]),  # what the full class cannot take goes to the others
        ([8, 3, 1], 12, [4, 9, 9], [4, 6, 2]),  # ... in proportion
        ([1, 0, 0], 10, [9, 9, 9], [8, 1, 1]),  # nobody gets less than one
        ([1, 0, 0], 10, [4, 9, 9], [4, 3, 3]),  # a share of nothing still takes what nobody else can
        ([0, 0, 0], 6, [9, 9, 9], [2, 2, 2]),
        ([1, 2, 3], 6, [2, 2, 2], [2, 2, 2]),
        ([1e-30, 1.0], 5, [9, 9], [1, 4]),
    ],
)
def test_by_hand(shares: list[float], budget: int, capacity: list[int], expected: list[int]) -> None:
    assert round_counts(np.array(shares, float), budget, np.array(capacity)).tolist() == expected


def test_floor_of_another_height() -> None:
    assert round_counts(np.array([10.0, 1.0, 1.0]), 20, np.array([30, 30, 2]), floor=4).tolist() == [14, 4, 2]


def test_many_classes_are_fast_and_exact() -> None:
    rng = np.random.default_rng(0)
    counts = round_counts(rng.random(10_000), 300_000, np.full(10_000, 50))
    assert counts.sum() == 300_000


@pytest.mark.parametrize("shares", [[1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [1.0, 1.0, 1.0]])
def test_shares_that_are_none(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="2 finite numbers"):
        round_counts(np.array(shares), 4, np.array([5, 5]))


@pytest.mark.parametrize("budget", [1, 11])
def test_budgets_that_cannot_be_met(budget: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        round_counts(np.ones(2), budget, np.array([5, 5]))
