"""Training dynamics: events counted one by one, and CCS as published, stratum by stratum."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dqas_plugin.contracts import Selector
from dqas_plugin.errors import UserError
from dqas_plugin.methods.dynamics import area_under_margin, aum, ccs, early_error, el2n, forgetting, forgetting_events
from dqas_plugin.signals import Signals, View

Array = npt.NDArray[Any]

few_margins = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 9)), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0])
)


def view_of(margins: Array, errors: Array | None = None) -> View:
    labels = np.zeros(len(margins), np.int64)
    return Signals.from_arrays(None, None, labels, margins=margins, errors=errors).view(0)


def random_view(seed: int, count: int, epochs: int = 12) -> View:
    draws = np.random.default_rng(seed)
    margins = draws.normal(size=(count, 1)) * 2 + draws.normal(size=(count, epochs))
    return view_of(margins.astype(np.float32), draws.uniform(0, 1.4, (count, epochs)).astype(np.float32))


def order(selector: Selector, view: View, seed: int = 0, **options: Any) -> list[int]:
    found: list[int] = selector(view, len(view), np.random.default_rng(seed), **options).tolist()
    return found


def counted(margins: Array) -> list[int]:
    """Forgetting events, one epoch after the other."""
    result = []
    for row in margins:
        events, was_right, ever = 0, False, False
        for value in row:
            right = value > 0
            events += was_right and not right
            was_right, ever = right, ever or right
        result.append(events if ever else len(row))
    return result


@given(margins=few_margins)
@settings(deadline=None, max_examples=200)
def test_forgetting_is_going_from_right_to_wrong(margins: Array) -> None:
    found = forgetting_events(torch.from_numpy(margins))
    assert found.dtype == torch.float64
    assert found.tolist() == counted(margins)


def test_never_learned_is_more_forgotten_than_any_other() -> None:
    epochs = 9
    alternating = np.where(np.arange(epochs) % 2 == 0, 1.0, -1.0)
    events = forgetting_events(torch.tensor(np.stack([alternating, np.full(epochs, -1.0), np.zeros(epochs)])))
    assert events.tolist() == [4, 9, 9]  # a margin of 0 is not right


@given(margins=few_margins)
@settings(deadline=None, max_examples=100)
def test_forgetting_orders_by_events_then_margin_then_position(margins: Array) -> None:
    events, means = counted(margins), margins.astype(np.float64).mean(axis=1)
    expected = sorted(range(len(margins)), key=lambda one: (-events[one], means[one], one))
    assert order(forgetting, view_of(margins)) == expected


@given(margins=few_margins)
@settings(deadline=None, max_examples=100)
def test_aum_takes_the_lowest_or_the_highest_mean_margin(margins: Array) -> None:
    means = [float(np.sum(row, dtype=np.float64)) / len(row) for row in margins]
    assert area_under_margin(torch.from_numpy(margins)).tolist() == pytest.approx(means, abs=1e-15)
    assert order(aum, view_of(margins)) == sorted(range(len(margins)), key=lambda one: (means[one], one))
    assert order(aum, view_of(margins), keep="easy") == sorted(range(len(margins)), key=lambda one: (-means[one], one))


def test_el2n_looks_at_the_first_epochs_only() -> None:
    view = random_view(1, 30)
    errors = view.errors.numpy()
    assert order(el2n, view) == np.argsort(-errors[:, :10].astype(np.float64).mean(axis=1), kind="stable").tolist()
    assert order(el2n, view, epochs=1) == np.argsort(-errors[:, 0], kind="stable").tolist()
    assert order(el2n, view, epochs=99) == order(el2n, view, epochs=12)
    changed = errors.copy()
    changed[:, 3:] = 0
    assert order(el2n, view_of(view.margins.numpy(), changed), epochs=3) == order(el2n, view, epochs=3)
    assert early_error(torch.from_numpy(errors), 4).dtype == torch.float64


def dealt(sizes: Array, budget: int) -> list[tuple[int, int]]:
    """As published: from the smallest stratum to the largest, an even share of what is left; (size, taken), sorted."""
    result, left = [], budget
    for turn, size in enumerate(sorted(sizes)):
        taken = min(int(size), left // (len(sizes) - turn))
        result.append((int(size), taken))
        left -= taken
    return sorted(result)


def scores_of(view: View, score: str) -> Array:
    if score == "aum":
        return view.margins.numpy().astype(np.float64).mean(axis=1)
    if score == "el2n":
        return view.errors.numpy()[:, :10].astype(np.float64).mean(axis=1)
    return np.array(counted(view.margins.numpy()), dtype=np.float64)


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(2, 80),
    strata=st.integers(1, 60),
    prune=st.sampled_from([0.0, 0.1, 0.3, 0.55]),
    score=st.sampled_from(["aum", "el2n"]),
)
@settings(deadline=None, max_examples=100)
def test_ccs_deals_the_budget_as_published(seed: int, count: int, strata: int, prune: float, score: str) -> None:
    view = random_view(seed, count)
    picks = order(ccs, view, strata=strata, prune=prune, score=score)
    hardest = np.argsort(scores_of(view, "aum"), kind="stable")[: int(prune * count)]
    kept = np.setdiff1d(np.arange(count), hardest)
    scores = scores_of(view, score)
    sizes, edges = np.histogram(scores[kept], bins=strata)
    for budget in range(len(kept) + 1):
        chosen = picks[:budget]
        assert not set(chosen) & set(hardest)
        taken = np.histogram(scores[chosen], bins=edges)[0]
        assert sorted(zip(sizes.tolist(), taken.tolist(), strict=True)) == dealt(sizes, budget)
    # A budget above what is left prunes fewer: the easiest of the hardest come next.
    assert picks[len(kept) :] == hardest[::-1].tolist()


def test_ccs_of_forgetting_events() -> None:
    view = random_view(3, 200)
    picks = order(ccs, view, score="forgetting", strata=7, prune=0.0)
    scores = scores_of(view, "forgetting")
    sizes, edges = np.histogram(scores, bins=7)
    assert (sizes > 0).sum() > 3
    for budget in (9, 60, 111):
        taken = np.histogram(scores[picks[:budget]], bins=edges)[0]
        assert sorted(zip(sizes.tolist(), taken.tolist(), strict=True)) == dealt(sizes, budget)


def test_ccs_draws_within_a_stratum_evenly() -> None:
    view = random_view(5, 40)
    times = np.zeros(40)
    for seed in range(600):
        times[order(ccs, view, seed, strata=1, prune=0.25)[:10]] += 1
    hardest = np.argsort(scores_of(view, "aum"))[:10]
    assert times[hardest].sum() == 0
    share = np.delete(times, hardest) / 600
    assert abs(share - 10 / 30).max() < 0.09  # 4.7 standard deviations


def test_ccs_does_not_favour_one_of_equally_large_strata() -> None:
    view = view_of(np.arange(20, dtype=np.float32)[:, None], np.zeros((20, 1), np.float32))
    firsts = np.bincount([order(ccs, view, seed, strata=20, prune=0.0)[0] for seed in range(400)], minlength=20)
    assert firsts.min() > 3  # 20 expected, standard deviation 4.4
    assert firsts.max() < 42


@pytest.mark.parametrize("prune", [0.0, 0.3, 1.0])
def test_ccs_of_equal_samples(prune: float) -> None:
    view = view_of(np.ones((9, 3), np.float32), np.ones((9, 3), np.float32))
    assert sorted(order(ccs, view, prune=prune)) == list(range(9))


@pytest.mark.parametrize(
    ("selector", "options", "message"),
    [
        (aum, {"keep": "hrd"}, "keep of aum.*hard"),
        (ccs, {"score": "amu"}, "score of ccs.*aum"),
        (ccs, {"prune": 1.2}, "prune of ccs"),
        (ccs, {"prune": float("nan")}, "prune of ccs"),
        (ccs, {"strata": 0}, "strata must be at least 1"),
        (ccs, {"score": "el2n", "epochs": 0}, "epochs must be at least 1"),
        (el2n, {"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_options_that_mean_nothing(selector: Selector, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        order(selector, random_view(0, 5), **options)
