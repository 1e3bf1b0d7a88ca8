"""k-center and contextual diversity against farthest-first in float64, and against the picks of the real DeepCore."""

from __future__ import annotations

from pathlib import Path
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
from dqas_plugin.methods import farthest
from dqas_plugin.methods.centres import (
    _divergences,
    _squares,
    contextual_diversity,
    euclidean,
    k_center,
    symmetric_divergence,
)
from dqas_plugin.methods.farthest import farthest_first, farthest_on_device
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals, View

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def squares(features: Array) -> Array:
    points = features.astype(np.float64)
    return np.array([np.square(points - one).sum(axis=1) for one in points])


def log_softmax(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    result: Array = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return result


def divergences(logits: Array) -> Array:
    """½ Σ (p log(p/q) + q log(q/p)), in the form that does not cancel."""
    logs = log_softmax(logits)
    return np.array([0.5 * ((np.exp(logs) - np.exp(one)) * (logs - one)).sum(axis=1) for one in logs])


def literal(distances: Array, first: int, budget: int) -> list[int]:
    """Farthest-first over the matrix of all distances; those that differ by rounding are equal."""
    picks = [first][:budget]
    while len(picks) < budget:
        nearest = distances[picks].min(axis=0)
        nearest[picks] = -np.inf
        picks.append(int((nearest >= nearest.max() * (1 - 1e-12)).argmax()))
    return picks


def by_distance(features: Array, first: int, budget: int) -> list[int]:
    return farthest_first(euclidean(torch.from_numpy(features)), first, budget).tolist()


def by_divergence(logits: Array, first: int, budget: int) -> list[int]:
    return farthest_first(symmetric_divergence(torch.from_numpy(log_softmax(logits))), first, budget).tolist()


def normal(seed: int, count: int, width: int = 7) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32) * 2


whole_numbers = hnp.arrays(np.float32, st.tuples(st.integers(1, 14), st.integers(1, 4)), elements=st.integers(-3, 3).map(float))


@given(features=whole_numbers, data=st.data())
@settings(deadline=None, max_examples=200)
def test_distances_follow_the_definition_exactly_ties_included(features: Array, data: st.DataObject) -> None:
    first, budget = data.draw(st.integers(0, len(features) - 1)), data.draw(st.integers(0, len(features)))
    expected = literal(squares(features), first, budget)
    assert by_distance(features, first, budget) == expected
    assert farthest_on_device(_squares(torch.from_numpy(features)), first, len(features), budget).tolist() == expected


@given(seed=st.integers(0, 10_000), copies=st.lists(st.integers(0, 9), min_size=1, max_size=30), data=st.data())
@settings(deadline=None, max_examples=100)
def test_both_follow_their_definitions_copies_included(seed: int, copies: list[int], data: st.DataObject) -> None:
    values, count = normal(seed, 10)[copies], len(copies)
    first = data.draw(st.integers(0, count - 1))
    assert by_distance(values, first, count) == literal(squares(values), first, count)
    expected = literal(divergences(values), first, count)
    assert by_divergence(values, first, count) == expected
    device = _divergences(torch.from_numpy(log_softmax(values)))
    assert farthest_on_device(device, first, count, count).tolist() == expected


def near_copies(draws: np.random.Generator) -> Array:
    points = draws.normal(size=(20, 16))[np.arange(300) % 20]
    return (points * (1 + 3e-7 * draws.integers(-2, 3, points.shape))).astype(np.float32)  # some last bits differ


def far_away(draws: np.random.Generator) -> Array:
    points = draws.normal(size=(300, 16)).astype(np.float32)
    points[[7, 90]] = [[1e6], [-3e12]]
    return points


def shifted(draws: np.random.Generator) -> Array:
    return (draws.integers(-512, 512, (300, 16)) / 64).astype(np.float32) + np.float32(4096)


def of_all_sizes(draws: np.random.Generator) -> Array:
    return (draws.normal(size=(300, 16)) * 10.0 ** draws.integers(-18, 18, (300, 1))).astype(np.float32)


@pytest.mark.parametrize("make", [near_copies, far_away, shifted, of_all_sizes])
def test_distances_that_float32_cannot_tell_apart(make: Any) -> None:
    features = make(np.random.default_rng(5))
    expected = literal(squares(features), 3, 300)
    assert by_distance(features, 3, 300) == expected
    assert farthest_on_device(_squares(torch.from_numpy(features)), 3, 300, 300).tolist() == expected


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs of a sample and a pick are looked at again, each time."""
    looked: list[int] = []
    look = farthest._Traversal._look_at

    def counted(self: farthest._Traversal, rows: Array, picks: slice) -> None:
        looked.append(len(rows) * (picks.stop - picks.start))
        look(self, rows, picks)

    monkeypatch.setattr(farthest._Traversal, "_look_at", counted)
    return looked


def test_many_picks_are_those_of_float64_and_few_distances_are_taken_twice(looked: list[int]) -> None:
    features = normal(11, 1500, 64)
    wide = features.astype(np.float64)
    norms = np.square(wide).sum(axis=1)
    assert by_distance(features, 9, 1500) == literal_fast(norms[:, None] + norms - 2 * wide @ wide.T, 9, 1500)
    assert 0 < sum(looked) < 1500 * 1500 / 20
    logits = normal(12, 1500, 10)
    assert by_divergence(logits, 9, 1500) == literal_fast(divergences(logits), 9, 1500)


def few_directions(draws: np.random.Generator, rest: float) -> Array:
    """900 samples of 300 features: 12 groups, within them 20 directions, and a ``rest`` in all others."""
    groups = 3 * draws.normal(size=(12, 300))[draws.integers(0, 12, 900)]
    within = draws.normal(size=(900, 20)) @ draws.normal(size=(20, 300))
    return (groups + 0.2 * within + rest * draws.normal(size=(900, 300))).astype(np.float32)


@pytest.mark.parametrize("rest", [0.0, 1e-6, 0.1])
def test_coordinates_spare_products_and_change_no_pick(rest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied: list[int] = []
    bound = farthest._Traversal._bound

    def counted(self: farthest._Traversal, rows: Any) -> None:
        multiplied.append(self.size if isinstance(rows, slice) else len(rows))
        bound(self, rows)

    monkeypatch.setattr(farthest._Traversal, "_bound", counted)
    features = few_directions(np.random.default_rng(7), rest)
    assert by_distance(features, 2, 900) == literal(squares(features), 2, 900)
    assert sum(multiplied) < 0.3 * 900 * 900 / 2


def test_coordinates_that_say_nothing_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    perhaps = farthest._Traversal._perhaps_nearer

    def counted(self: farthest._Traversal, coarse: Any) -> Any:
        found = perhaps(self, coarse)
        asked.append(len(found))
        return found

    monkeypatch.setattr(farthest._Traversal, "_perhaps_nearer", counted)
    features = normal(3, 700, 300)  # the same in all directions
    assert by_distance(features, 2, 300) == literal(squares(features), 2, 300)
    assert 1 <= len(asked) < 10


def test_a_few_samples_far_away_do_not_blur_the_others(looked: list[int]) -> None:
    features = normal(13, 600, 64)
    features[[5, 300]] = [[1e5], [-3e5]]
    assert by_distance(features, 9, 600) == literal(squares(features), 9, 600)
    assert 0 < sum(looked) < 600 * 600 / 20


def test_no_distance_is_taken_twice(looked: list[int]) -> None:
    by_distance(near_copies(np.random.default_rng(5)), 3, 300)
    assert 300 * 300 / 10 < sum(looked) <= 300 * 299 / 2


def literal_fast(distances: Array, first: int, budget: int) -> list[int]:
    nearest, picks = distances[first].copy(), [first]
    while len(picks) < budget:
        nearest[picks[-1]] = -np.inf
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[picks[-1]])
    return picks


def test_no_pick_is_farther_from_those_before_than_the_last_was() -> None:
    features, logits = normal(1, 200, 5), normal(2, 200, 6)
    for distances, picks in (
        (squares(features), by_distance(features, 0, 200)),
        (divergences(logits), by_divergence(logits, 0, 200)),
    ):
        gains = [distances[pick, picks[:turn]].min() for turn, pick in enumerate(picks) if turn]
        assert (np.diff(gains) <= 0).all()
        assert gains[0] > 2 * gains[-1] > 0


def test_samples_that_are_all_the_same_come_in_their_order_after_the_first() -> None:
    for values in (np.ones((6, 3), np.float32), np.zeros((6, 3), np.float32), np.float32([[0.0, -0.0, 1.0]] * 6)):
        assert by_distance(values, 2, 6) == by_divergence(values, 2, 6) == [2, 0, 1, 3, 4, 5]
    signed = np.zeros((5, 2), np.float32)
    signed[[2, 4]] *= -1  # -0 is no other number than 0
    assert by_distance(signed, 0, 5) == [0, 1, 2, 3, 4]


def test_distances_that_differ_by_rounding_are_equal() -> None:
    draws = np.random.default_rng(0)
    values = draws.normal(size=40).astype(np.float32)
    features = np.stack([np.zeros(40, np.float32), *(draws.permutation(values) for _ in range(30))])
    expected = literal(squares(features), 0, 2)
    assert expected == [0, 1] == by_distance(features, 0, 2)
    assert squares(features)[0, 1:].argmax() > 0  # rounding would have another one
    assert farthest_on_device(_squares(torch.from_numpy(features)), 0, 31, 2).tolist() == expected


def test_order_and_columns_and_units_do_not_matter() -> None:
    features = normal(3, 120)
    rows, columns = np.random.default_rng(0).permutation(120), np.random.default_rng(1).permutation(7)
    mixed, first = features[rows][:, columns], int(np.flatnonzero(rows == 4)[0])
    assert rows[by_distance(mixed, first, 120)].tolist() == by_distance(features, 4, 120)
    assert rows[by_divergence(mixed, first, 120)].tolist() == by_divergence(features, 4, 120)
    for unit in (2.0**-60, 2.0**60):
        assert by_distance(features * np.float32(unit), 4, 120) == by_distance(features, 4, 120)
    assert by_divergence(features + np.float32(8), 4, 120) == by_divergence(features, 4, 120)


def test_answers_that_are_certain_have_a_finite_divergence() -> None:
    logits = normal(4, 60, 5)
    logits[::3] *= 1e4  # probabilities of 0, also in float64
    logits[1::3, 2] += 60
    expected = divergences(logits)
    assert np.isfinite(expected).all()
    assert by_divergence(logits, 0, 60) == literal(expected, 0, 60)


def view(seed: int = 0, count: int = 50) -> View:
    features, logits = normal(seed, count), normal(seed + 1, count, 4)
    return Signals.from_arrays(features, logits, np.zeros(count, np.int64)).view(0, seed=7)


both = pytest.mark.parametrize("selector", [k_center, contextual_diversity])


@both
def test_the_first_centre_counts_and_is_chosen_by_compat(selector: Selector) -> None:
    drawn = np.random.RandomState(7).randint(0, 50)
    assert selector(view(), 1, RNG).tolist() == [drawn]
    assert selector(view(), 9, RNG, first=4)[0] == 4
    assert selector(view(), 9, RNG, first=0)[0] == 0
    firsts = {int(selector(view(), 3, np.random.default_rng(one), compat="paper")[0]) for one in range(40)}
    assert len(firsts) > 20
    start = int(np.random.default_rng(8).integers(50))
    paper = selector(view(), 9, np.random.default_rng(8), compat="paper").tolist()
    assert paper == selector(view(), 9, RNG, first=start).tolist() != selector(view(), 9, RNG).tolist()
    negative = view()
    negative.seed = -3
    assert selector(negative, 1, RNG).tolist() == [np.random.RandomState(2**32 - 3).randint(0, 50)]


@both
@pytest.mark.parametrize("options", [{"first": 50}, {"first": -1}, {"compat": "papier"}])
def test_mistakes_are_answered(selector: Selector, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"of {selector.name}"):
        selector(view(), 2, RNG, **options)


def test_the_two_read_what_they_say() -> None:
    assert k_center(view(), 50, RNG).tolist() == literal(squares(normal(0, 50)), int(k_center(view(), 1, RNG)[0]), 50)
    start = int(contextual_diversity(view(), 1, RNG)[0])
    assert contextual_diversity(view(), 50, RNG).tolist() == literal(divergences(normal(1, 50, 4)), start, 50)


@pytest.mark.parametrize("name", ["k-center", "contextual-diversity"])
@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_picks_of_the_real_deepcore(shared: Path, name: str, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    signals = Signals.from_arrays(golden["features"], logits, golden["labels"])
    expected = golden[f"{name.replace('k-center', 'kcenter')}@{fraction}"]
    counts = [round(fraction * len(signals.members(label))) for label in range(signals.num_classes)]
    order = rank(signals, name, counts=counts, seed=7).order
    assert [one[0] for one in order] == golden["kcenter.first"].tolist()
    for label, picks in enumerate(order):
        assert set(picks) == set(expected[golden["labels"][expected] == label])


@both
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_picks_the_same(selector: Selector) -> None:
    features, logits = torch.from_numpy(normal(0, 80)), torch.from_numpy(normal(1, 80, 4))
    labels = np.zeros(80, np.int64)
    here = Signals.from_arrays(features, logits, labels).view(0)
    there = Signals.from_arrays(features.cuda(), logits.cuda(), labels).view(0)
    assert selector(there, 80, RNG).tolist() == selector(here, 80, RNG).tolist()
