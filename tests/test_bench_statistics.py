"""Means, paired intervals and verdicts, against scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dqas_plugin.bench.statistics import Difference, paired_difference, summarise, verdict


def test_summary_is_the_sample_deviation() -> None:
    found = summarise([0.8, 0.9, 0.7])
    assert found is not None
    assert found.mean == pytest.approx(0.8)
    assert found.std == pytest.approx(0.1)
    assert found.n == 3


def test_summary_of_few() -> None:
    assert summarise([]) is None
    one = summarise([0.5])
    assert one is not None
    assert (one.mean, one.std, one.n) == (0.5, None, 1)


@pytest.mark.parametrize("n", [2, 3, 8, 20])
def test_interval_is_that_of_a_paired_t_test(n: int) -> None:
    rng = np.random.default_rng(n)
    ours, theirs = rng.random((2, n))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert found is not None
    assert found.n == n
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_only_common_seeds_are_compared() -> None:
    found = paired_difference({0: 0.5, 1: 0.7, 2: 0.9}, {1: 0.6, 2: 0.6, 3: 0.1})
    assert found is not None
    assert found.n == 2
    assert found.mean == pytest.approx(0.2)
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


def test_no_interval_without_spread() -> None:
    assert paired_difference({0: 0.5}, {0: 0.4}) == Difference(pytest.approx(0.1), None, None, 1)
    alike = paired_difference({0: 0.5, 1: 0.7}, {0: 0.4, 1: 0.6})
    assert alike is not None
    assert (alike.low, alike.high, alike.n) == (None, None, 2)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Difference(0.1, 0.05, 0.15, 3), "better than uniform"),
        (Difference(-0.1, -0.15, -0.05, 3), "worse than uniform"),
        (Difference(0.1, -0.05, 0.25, 3), "not better than uniform"),
        (Difference(-0.1, -0.25, 0.05, 3), "not better than uniform"),
        (Difference(0.1, 0.0, 0.2, 3), "not better than uniform"),
        (Difference(0.1, None, None, 1), "one seed, no verdict"),
        (Difference(0.1, None, None, 2), "no spread, no verdict"),
    ],
)
def test_verdicts(difference: Difference, words: str) -> None:
    assert verdict(difference) == words


def test_the_interval_holds_what_it_promises() -> None:
    """In 95 % of repetitions the true difference lies inside; 2,000 repetitions have a standard error of .5 %."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        ours = dict(enumerate(rng.normal(0.3, 1.0, 4)))
        found = paired_difference(ours, dict.fromkeys(range(4), 0.0))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low < 0.3 < found.high
    assert 0.93 < inside / 2000 < 0.97
