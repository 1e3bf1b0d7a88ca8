"""Means, paired intervals and verdicts, against scipy's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dqas_plugin.bench.statistics import Difference, holm, paired_difference, summarise, told_p, verdict


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
    test = stats.ttest_rel(ours, theirs)
    expected = test.confidence_interval(0.95)
    found = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert found is not None
    assert found.n == n
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.p == pytest.approx(test.pvalue, rel=1e-9)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


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
    assert (alike.low, alike.high, alike.p, alike.n) == (None, None, None, 2)


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


def test_small_p_values_keep_their_digits() -> None:
    ours, theirs = {seed: 1.0 + 1e-6 * seed for seed in range(9)}, dict.fromkeys(range(9), 0.0)
    found = paired_difference(ours, theirs)
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_rel([*ours.values()], [*theirs.values()]).pvalue, rel=1e-6)
    assert 0 < found.p < 1e-30


def test_holm_by_hand() -> None:
    """The smallest times 4, the next times 3 …, none below one before it, none above 1; comparisons without a test stay out."""
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == [pytest.approx(0.03), 0.06, None, pytest.approx(0.06), 0.02]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == holm([None])[1:] == []


def test_holm_keeps_its_promise() -> None:
    """Of ten comparisons without a difference some are claimed in 5 % of repetitions, and in 40 % without correction."""
    rng = np.random.default_rng(1)
    claimed = [0, 0]
    for _ in range(600):
        found = [paired_difference(dict(enumerate(rng.normal(size=4))), dict.fromkeys(range(4), 0.0)) for _ in range(10)]
        values = [one.p for one in found if one is not None]
        for place, corrected in enumerate((values, holm(values))):
            claimed[place] += any(one is not None and one < 0.05 for one in corrected)
    assert claimed[0] / 600 > 0.3
    assert 0.02 < claimed[1] / 600 < 0.085


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (Difference(0.1, 0.05, 0.15, 3, 0.01), 0.012, "better than random (p = 0.012)"),
        (Difference(-0.1, -0.15, -0.05, 3, 0.01), 0.0123, "worse than random (p = 0.012)"),
        (Difference(0.1, 0.05, 0.15, 3, 0.03), 0.234, "not better than random (p = 0.23)"),  # beyond chance, were it alone
        (Difference(0.1, 0.05, 0.15, 3, 0.0001), 0.0004, "better than random (p < 0.001)"),
        (Difference(0.1, 0.05, 0.15, 3, 0.03), None, "better than random"),
        (Difference(0.1, None, None, 1), None, "one seed, no verdict"),
        (Difference(0.1, None, None, 2), None, "no spread, no verdict"),
    ],
)
def test_verdicts_with_p_values(difference: Difference, p: float | None, words: str) -> None:
    assert verdict(difference, "random", p) == words


def test_p_values_are_told_with_two_digits() -> None:
    assert [told_p(one) for one in (1.0, 0.234, 0.0512, 0.0049, 0.00099)] == [
        "p = 1.00",
        "p = 0.23",
        "p = 0.051",
        "p = 0.0049",
        "p < 0.001",
    ]
