"""Facility location and Craig against their definitions in float64 over all pairs, and against picks of the real DeepCore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_plugin.contracts import Selector, Weighted
from dqas_plugin.errors import UserError
from dqas_plugin.gradients import LastLayerGradients, residuals_of
from dqas_plugin.methods import coverage, distance_cover, greedy_coverage
from dqas_plugin.methods.coverage import angles, craig, dense_bytes, distances, facility_location, sparse_bytes
from dqas_plugin.methods.greedy_coverage import cover, cover_by_neighbours, cover_on_device
from dqas_plugin.methods.ordering import batch_scale
from dqas_plugin.ranking import rank
from dqas_plugin.signals import MAX_MEMORY, Signals, View

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", params=[1, 10**6], ids=["compiled", "numpy"])
def route(request: pytest.FixtureRequest) -> Iterator[None]:
    """Many samples are worth compiled loops, and float32 first for craig: here from the first one on, or never."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (coverage, greedy_coverage):
            patch.setattr(module, "MANY", request.param)
        yield


both_ways = pytest.mark.usefixtures("route")


def problem(seed: int, count: int, width: int = 7, classes: int = 4) -> tuple[Array, Array]:
    draws = np.random.default_rng(seed)
    features = draws.normal(size=(count, width)).astype(np.float32) + 2
    return features, draws.normal(size=(count, classes)).astype(np.float32) * 3


def view_of(features: Array, logits: Array, max_memory: int = MAX_MEMORY) -> View:
    return Signals.from_arrays(features, logits, np.ones(len(features), np.int64)).view(1, max_memory=max_memory)


def implicit(features: Array, logits: Array) -> LastLayerGradients:
    labels = torch.ones(len(logits), dtype=torch.int64)
    return LastLayerGradients(residuals_of(torch.from_numpy(logits), labels), torch.from_numpy(features))


def residuals(logits: Array) -> Array:
    """``p - y`` in float64, all labels 1."""
    wide = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return wide / wide.sum(axis=1, keepdims=True) - np.eye(logits.shape[1])[1]


def gradients(features: Array, logits: Array) -> Array:
    """Last-layer gradients written out, float64 ``[n, C (d + 1)]``."""
    outer = residuals(logits)[:, :, None] * np.c_[features.astype(np.float64), np.ones(len(features))][:, None]
    return outer.reshape(len(features), -1)


def cosines(rows: Array) -> Array:
    lengths = np.linalg.norm(rows, axis=1)
    unit = rows / np.where(lengths > 0, lengths, 1)[:, None]
    return 0.5 + 0.5 * unit @ unit.T


def closeness(rows: Array, floor: float = 1e-12, above: float = 1e-3) -> Array:
    """How much nearer than the farthest pair, plus ``above``."""
    apart = np.sqrt(np.maximum(np.square(rows[:, None] - rows[None]).sum(axis=2), floor))
    return apart.max() - apart + above


def gains_of(similarity: Array, picks: list[int]) -> Array:
    """The gain of every sample after the picks."""
    current = similarity[picks].max(axis=0, initial=0.0)
    return np.maximum(0.0, similarity - current).sum(axis=1)


def literal(similarity: Array, budget: int, near: float = 1e-9) -> list[int]:
    """Naive greedy; gains less than ``near`` apart are equal and go to the lowest position."""
    picks: list[int] = []
    for _ in range(budget):
        gains = gains_of(similarity, picks)
        gains[picks] = -np.inf
        picks.append(int((gains >= gains.max() - near).argmax()))
    return picks


def shares(similarity: Array, picks: list[int]) -> list[int]:
    """How many samples each pick is the closest to; between two, the lower position."""
    order = sorted(picks)
    closest = [max(order, key=lambda one: (similarity[one, sample], -one)) for sample in range(len(similarity))]
    return [closest.count(one) for one in picks]


@both_ways
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), data=st.data())
@settings(deadline=None, max_examples=60)
def test_facility_location_follows_its_definition(seed: int, count: int, data: st.DataObject) -> None:
    features, logits = problem(seed, count)
    budget = data.draw(st.integers(0, count))
    expected = literal(cosines(gradients(features, logits)), budget)
    assert facility_location(view_of(features, logits), budget, RNG).tolist() == expected
    assert facility_location(view_of(features, logits), budget, RNG, compat="paper").tolist() == expected


@both_ways
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), data=st.data())
@settings(deadline=None, max_examples=60)
def test_craig_follows_its_definition(seed: int, count: int, data: st.DataObject) -> None:
    features, logits = problem(seed, count)
    budget = data.draw(st.integers(1, count))
    batch = data.draw(st.none() | st.integers(1, 20))
    sizes = [len(part) for part in np.split(np.arange(count), range(batch or count, count, batch or count)) for _ in part]
    similarity = closeness(gradients(features, logits) / np.array(sizes)[:, None])
    found = craig(view_of(features, logits), budget, RNG, batch=batch)
    assert found.positions.tolist() == literal(similarity, budget)
    assert found.weights.tolist() == [1 + one for one in shares(similarity, found.positions.tolist())]


@both_ways
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), data=st.data())
@settings(deadline=None, max_examples=60)
def test_craig_as_published_follows_its_definition(seed: int, count: int, data: st.DataObject) -> None:
    features, logits = problem(seed, count)
    budget = data.draw(st.integers(1, count))
    similarity = closeness(residuals(logits), floor=0.0, above=0.0)
    found = craig(view_of(features, logits), budget, RNG, compat="paper")
    assert found.positions.tolist() == literal(similarity, budget)
    assert found.weights.tolist() == shares(similarity, found.positions.tolist())
    assert found.weights.sum() == count


def test_craig_of_the_paper_is_not_that_of_deepcore() -> None:
    view = view_of(*problem(1, 60))
    ours, published = craig(view, 20, RNG), craig(view, 20, RNG, compat="paper")
    assert set(ours.positions) != set(published.positions)
    assert (ours.weights.sum(), published.weights.sum()) == (80, 60)


@both_ways
def test_the_last_batch_of_craig_is_longer() -> None:
    features, logits = problem(2, 300)
    view = view_of(features, logits)
    longer = np.where(np.arange(300) < 256, 1 / 256, 1 / 44)[:, None]
    found = craig(view, 30, RNG).positions.tolist()
    assert found == literal(closeness(gradients(features, logits) * longer), 30)
    assert found != craig(view, 30, RNG, batch=None).positions.tolist()


@both_ways
@given(data=st.data())
@settings(deadline=None, max_examples=80)
def test_copies_are_picked_lowest_position_first(data: st.DataObject) -> None:
    features, logits = problem(data.draw(st.integers(0, 1000)), 5)
    copies = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=14)))
    features, logits = features[copies], logits[copies]
    size = len(copies)
    assert facility_location(view_of(features, logits), size, RNG).tolist() == literal(
        cosines(gradients(features, logits)), size
    )
    similarity = closeness(gradients(features, logits) / size)
    found = craig(view_of(features, logits), size, RNG)
    assert found.positions.tolist() == literal(similarity, size)
    assert found.weights.tolist() == [1 + one for one in shares(similarity, found.positions.tolist())]


@both_ways
@pytest.mark.parametrize("seed", range(5))
def test_copies_far_from_the_origin_add_nothing_to_craig(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    features, logits = problem(seed, 30, width=64)
    twice = np.r_[np.arange(30), np.arange(30)]
    view = view_of((features + 3000)[twice], np.zeros_like(logits)[twice])  # distances of 1e-3 of the lengths and less
    for module in (coverage, distance_cover):  # products of the same rows differ in the last digits by block
        monkeypatch.setattr(module, "block_rows", lambda _: 7)
    picks = craig(view, 60, RNG).positions.tolist()
    assert set(picks[:30]) == set(range(30))
    assert picks[30:] == list(range(30, 60))


@both_ways
def test_craig_knows_no_distances_below_a_millionth_as_deepcore() -> None:
    features, logits = problem(4, 20)
    logits[:, 1] += 32
    rows = gradients(features, logits)
    assert np.ptp(rows, axis=0).max() < 1e-7
    found = craig(view_of(features, logits), 20, RNG)
    assert found.positions.tolist() == list(range(20))
    assert found.weights.tolist() == [21] + [1] * 19
    assert craig(view_of(features, logits), 20, RNG, compat="paper").positions.tolist() != list(range(20))


@both_ways
@pytest.mark.parametrize("count", [1, 2, 9])
def test_samples_that_are_all_the_same_come_in_their_order(count: int) -> None:
    view = view_of(np.ones((count, 3), np.float32), np.zeros((count, 2), np.float32))
    assert facility_location(view, count, RNG).tolist() == list(range(count))
    for compat in ("deepcore", "paper"):
        found = craig(view, count, RNG, compat=compat)
        assert found.positions.tolist() == list(range(count))
        assert found.weights.sum() == (2 * count if compat == "deepcore" else count)


@both_ways
def test_a_gradient_of_length_zero_is_like_nothing() -> None:
    features, logits = problem(6, 12)
    logits[[2, 7]] = [-np.float32(3e38), 3e38, -3e38, -3e38]  # fitted without any residual
    assert not residuals(logits)[[2, 7]].any()
    view = view_of(features, logits)
    assert facility_location(view, 12, RNG).tolist() == literal(cosines(gradients(features, logits)), 12)
    assert craig(view, 12, RNG).positions.tolist() == literal(closeness(gradients(features, logits) / 12), 12)


@both_ways
@given(seed=st.integers(0, 10_000), count=st.integers(2, 60))
@settings(deadline=None, max_examples=30)
def test_gains_do_not_increase(seed: int, count: int) -> None:
    features, logits = problem(seed, count)
    for similarity, picks in (
        (cosines(gradients(features, logits)), facility_location(view_of(features, logits), count, RNG)),
        (closeness(gradients(features, logits) / count), craig(view_of(features, logits), count, RNG).positions),
    ):
        order = picks.tolist()
        gains = [gains_of(similarity, order[:turn])[one] for turn, one in enumerate(order)]
        assert (np.diff(gains) <= 1e-10 * count).all()


@both_ways
def test_many_picks_are_those_of_float64() -> None:
    features, logits = problem(11, 700, width=48, classes=6)
    view = view_of(features, logits)
    assert facility_location(view, 500, RNG).tolist() == literal(cosines(gradients(features, logits)), 500, near=7e-12)
    similarity = closeness_of_many(gradients(features, logits) * batch_scale(700, 256).numpy()[:, None])
    assert craig(view, 500, RNG).positions.tolist() == literal(similarity, 500, near=7e-12)


def closeness_of_many(rows: Array) -> Array:
    apart = np.array([np.sqrt(np.maximum(np.square(rows - one).sum(axis=1), 1e-12)) for one in rows])
    return apart.max() - apart + 1e-3


@pytest.mark.parametrize("kind", ["random", "copies", "same"])
def test_the_loop_for_devices_picks_the_same(kind: str) -> None:
    features, logits = problem(12, 50)
    order = {"random": np.arange(50), "copies": np.arange(50) % 17, "same": np.zeros(50, np.int64)}[kind]
    both = implicit(features[order], logits[order])
    for closer in (angles(both), distances(both.scaled(batch_scale(50, 32)))):
        matrix = closer.matrix()
        for budget in (0, 1, 20, 50):
            assert cover_on_device(matrix, budget).tolist() == cover(matrix.numpy(), budget).tolist()


@both_ways
@pytest.mark.parametrize("step", [1, 7])
def test_the_size_of_the_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    view = view_of(*problem(13, 40))
    expected = (facility_location(view, 40, RNG).tolist(), craig(view, 40, RNG).weights.tolist())
    monkeypatch.setattr(coverage, "block_rows", lambda _: step)
    monkeypatch.setattr(distance_cover, "block_rows", lambda _: step)
    monkeypatch.setattr("dqas_plugin.methods.greedy_coverage.block_rows", lambda _: step)
    monkeypatch.setattr("dqas_plugin.methods.neighbours.block_rows", lambda _: step)
    assert (facility_location(view, 40, RNG).tolist(), craig(view, 40, RNG).weights.tolist()) == expected


def test_all_neighbours_are_all_pairs() -> None:
    both = implicit(*problem(14, 80))
    for closer in (angles(both), distances(both.scaled(batch_scale(80, 30)))):
        positions, values = closer.nearest(80)
        assert (
            cover_by_neighbours(positions.numpy(), values.numpy(), 80).tolist() == cover(closer.matrix().numpy(), 80).tolist()
        )


def test_neighbours_follow_the_definition_where_the_rest_counts_as_nothing() -> None:
    features, logits = problem(15, 60)
    similarity = cosines(gradients(features, logits))
    positions, values = angles(implicit(features, logits)).nearest(9)
    kept = np.zeros_like(similarity)  # kept[p, i]: what p does for i
    for sample, row in enumerate(similarity):
        kept[np.argsort(-row)[:9], sample] = np.sort(row)[:-10:-1]
    assert cover_by_neighbours(positions.numpy(), values.numpy(), 60).tolist() == literal(kept, 60)


def enough_for_neighbours(count: int, kept: int) -> int:
    assert sparse_bytes(count, kept) < dense_bytes(count)
    return (sparse_bytes(count, kept) + dense_bytes(count)) // 2


@pytest.mark.parametrize("selector", [facility_location, craig])
def test_little_memory_means_neighbours_and_a_note(selector: Selector) -> None:
    features, logits = problem(16, 600, width=16)
    tight = view_of(features, logits, enough_for_neighbours(600, 40))
    found, best = selector(tight, 60, RNG, neighbours=40), selector(view_of(features, logits), 60, RNG)
    assert len(tight.notes) == 1
    assert "600 images with its 40 nearest" in tight.notes[0]
    rows = gradients(features, logits) * (batch_scale(600, 256).numpy()[:, None] if selector is craig else 1)
    similarity = closeness_of_many(rows) if selector is craig else cosines(rows)
    if isinstance(found, Weighted):
        assert found.weights.tolist() == [1 + one for one in shares(similarity, found.positions.tolist())]
        found, best = found.positions, best.positions
    assert set(found) != set(best)
    value = [similarity[picks].max(axis=0).sum() for picks in (found, best, np.arange(60))]
    assert value[0] > value[1] - 0.25 * (value[1] - value[2])  # beside the first sixty
    assert value[0] > 0.97 * value[1]


@pytest.mark.parametrize("selector", [facility_location, craig])
def test_too_little_memory_is_refused_beforehand(selector: Selector) -> None:
    features, logits = problem(17, 400)
    whole = Signals.from_arrays(features, logits, np.ones(400, np.int64))
    with pytest.raises(UserError, match=f"'{selector.name}' needs .* raise --max-memory"):
        rank(whole, selector, counts=[0, 5, 0, 0], max_memory=100_000)
    with pytest.raises(UserError, match="399 neighbours of each of 400 images"):
        selector(view_of(features, logits, 100_000), 5, RNG, neighbours=399)


def test_rank_takes_the_neighbours_where_the_memory_is_small() -> None:
    features, logits = problem(18, 1000)
    whole = Signals.from_arrays(features, logits, np.ones(1000, np.int64))
    found = rank(whole, facility_location, counts=[0, 5, 0, 0], max_memory=enough_for_neighbours(1000, 100))
    assert "its 100 nearest" in found.provenance["notes"][0]
    assert not rank(whole, facility_location, counts=[0, 5, 0, 0]).provenance["notes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"neighbours": 0}, "neighbours must be at least 1"), ({"compat": "papr"}, "paper"), ({"batch": 0}, "batch must be")],
)
def test_mistakes_are_answered(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        craig(view_of(*problem(0, 5)), 2, RNG, **options)


@both_ways
@pytest.mark.parametrize("fraction", [0.1, 0.3])
@pytest.mark.parametrize("name", ["facility-location", "craig"])
def test_picks_of_the_real_deepcore(shared: Path, name: str, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    signals = Signals.from_arrays(golden["features"], logits, golden["labels"])
    counts = [round(fraction * len(signals.members(label))) for label in range(4)]
    found = rank(signals, {"facility-location": facility_location, "craig": craig}[name], counts=counts, seed=7)
    expected = golden[f"{name}@{fraction}"]
    for label, order in enumerate(found.order):
        theirs = set(expected[golden["labels"][expected] == label].tolist())
        missing = theirs - set(order.tolist())
        assert len(missing) <= 1
        if missing:  # the two gains are equal, as float32 cannot see: two samples that are nearest to each other
            members = signals.members(label).tolist()
            similarity = golden_similarity(name, golden["features"][members], logits[members], label)
            turn = next(turn for turn, one in enumerate(order.tolist()) if one not in theirs)
            gains = gains_of(similarity, [members.index(one) for one in order[:turn]])
            assert abs(gains[members.index(order[turn])] - gains[members.index(missing.pop())]) < 1e-12
        if found.weights is not None:
            weights = dict(zip(expected.tolist(), golden[f"{name}@{fraction}.weights"].tolist(), strict=True))
            given = dict(zip(order.tolist(), found.weights[label].tolist(), strict=True))
            assert {one: given[one] for one in theirs & set(given)} == {one: weights[one] for one in theirs & set(given)}
            assert sum(given.values()) == sum(weights[one] for one in theirs)


def golden_similarity(name: str, features: Array, logits: Array, label: int) -> Array:
    swapped = logits.copy()
    swapped[:, [1, label]] = logits[:, [label, 1]]  # the helpers above take label 1
    rows = gradients(features, swapped)
    return cosines(rows) if name == "facility-location" else closeness(rows / len(rows))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("selector", [facility_location, craig])
def test_on_a_gpu(selector: Selector) -> None:
    features, logits = problem(19, 200)
    whole = Signals.from_arrays(features, logits, np.ones(200, np.int64))
    here, there = (rank(one, selector, counts=[0, 90, 0, 0]) for one in (whole, whole.to("cuda")))
    assert here.order[1].tolist() == there.order[1].tolist()
    assert str(here.weights) == str(there.weights)
