"""Craig's way by float32 against the definition in float64, where float32 alone would go wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_plugin.gradients import LastLayerGradients, residuals_of
from dqas_plugin.methods import coverage, distance_cover
from dqas_plugin.methods.coverage import craig, dense_bytes
from dqas_plugin.methods.distance_cover import Covered, cover_distances
from dqas_plugin.signals import MAX_MEMORY, Signals, View

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)
FLOOR = 1e-6


def chance(draws: np.random.Generator, rows: Array, share: float) -> Array:
    """True for so many of the rows, ``[n, 1]``."""
    return np.asarray(draws.random((len(rows), 1)) < share)


def alike(rows: Array, groups: int) -> Array:
    """Rows of which only so many differ."""
    return np.asarray(rows[np.arange(len(rows)) % groups])


def paired(rows: Array) -> Array:
    """Every row twice."""
    return np.asarray(rows[np.arange(len(rows)) // 2])


OWN = np.array([[1.0, 0.0, 0.0]])
KINDS: dict[str, Callable[[np.random.Generator, Array, Array], tuple[Array, Array]]] = {
    "plain": lambda draws, features, logits: (features, logits),
    "far from the origin": lambda draws, features, logits: (features + 100, logits),
    "farther": lambda draws, features, logits: (features * 0.1 + 3000, logits),
    "well trained": lambda draws, features, logits: (features, logits + 12 * draws.random((len(logits), 1)) * OWN),
    "some fitted": lambda draws, features, logits: (features, logits + 2000 * chance(draws, logits, 0.3) * OWN),
    "all fitted": lambda draws, features, logits: (features, logits + 40 * OWN),
    "some without features": lambda draws, features, logits: (features * chance(draws, features, 0.6), logits),
    "same logits": lambda draws, features, logits: (features, alike(logits, 1)),
    "some are long": lambda draws, features, logits: (features * np.where(chance(draws, features, 0.1), 1e4, 1.0), logits),
    "all lengths": lambda draws, features, logits: (features * np.exp(3 * draws.normal(size=(len(features), 1))), logits),
    "copies": lambda draws, features, logits: (alike(features, 7), alike(logits, 7)),
    "nearly copies": lambda draws, features, logits: (
        paired(features) * (1 + 1e-6 * draws.normal(size=features.shape)),
        paired(logits),
    ),
    "huge": lambda draws, features, logits: (features * 1e30, logits),
    "tiny": lambda draws, features, logits: (features * 1e-30, logits),
}


def made(kind: str, seed: int, count: int, width: int) -> LastLayerGradients:
    """Gradients of one class, of samples that are hard for float32 in one way or another."""
    draws = np.random.default_rng(seed)
    features, logits = KINDS[kind](
        draws, np.maximum(draws.normal(size=(count, width)) + 1, 0), 2 * draws.normal(size=(count, 3))
    )
    residuals = residuals_of(torch.from_numpy(logits), torch.zeros(count, dtype=torch.int64))
    return LastLayerGradients(residuals, torch.from_numpy(features.astype(np.float32)))


def distances(gradients: LastLayerGradients, floor: float = FLOOR) -> Array:
    """Of all pairs in float64, gradients written out, from their differences."""
    inputs = np.c_[gradients.features.double().numpy(), np.ones(len(gradients))]
    rows = (gradients.residuals.numpy()[:, :, None] * inputs[:, None]).reshape(len(gradients), -1)
    return np.array([np.maximum(np.sqrt(np.square(rows - one).sum(axis=1)), floor) for one in rows])


def check(found: Covered, apart: Array) -> None:
    """Every pick is the first of those of the highest gain, up to the rounding of float64, and stands for its nearest."""
    similarity = apart.max() - apart
    tie = 1e-13 * apart.max() * len(apart)
    current, left = np.zeros(len(apart)), np.ones(len(apart), dtype=np.bool_)
    for pick in found.picks.tolist():
        gains = np.where(left, np.maximum(0.0, similarity - current).sum(axis=1), -1.0)
        assert gains[pick] >= gains.max() - tie
        if gains.max() > tie:
            assert not (gains[:pick] >= gains.max() - tie / 1000).any()
        left[pick] = False
        current = np.maximum(current, similarity[pick])
    order = np.sort(found.picks)
    closest = apart[:, order]
    first = (closest <= closest.min(axis=1, keepdims=True) * (1 + 1e-13)).argmax(axis=1)
    assert found.shares.tolist() == np.bincount(first, minlength=len(order))[np.searchsorted(order, found.picks)].tolist()


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), width=st.sampled_from([1, 3, 40]), data=st.data())
@settings(deadline=None, max_examples=15)
def test_every_pick_is_that_of_float64(kind: str, seed: int, count: int, width: int, data: st.DataObject) -> None:
    budget = data.draw(st.integers(1, count))
    gradients = made(kind, seed, count, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance_cover, "_MOST", 1e9)  # whatever it takes
        found = cover_distances(gradients, FLOOR, budget)
    assert found is not None
    assert len(set(found.picks.tolist())) == budget
    check(found, distances(gradients))


@pytest.mark.parametrize("kind", ["plain", "far from the origin", "nearly copies", "well trained", "some fitted"])
def test_many_samples(kind: str) -> None:
    gradients = made(kind, 1, 400, 40)
    found = cover_distances(gradients, FLOOR, 190)
    assert found is not None
    check(found, distances(gradients))


def test_float64_decides_between_gains_that_float32_cannot_tell_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every sample twice but for a millionth: gains of two that belong together differ by less than float32 shows.
    gradients = made("nearly copies", 2, 300, 40)
    apart = distances(gradients)
    found = cover_distances(gradients, FLOOR, 150)
    assert found is not None
    check(found, apart)
    start = distance_cover._start
    monkeypatch.setattr(distance_cover, "_start", lambda *given: sure(start(*given)))
    blind = cover_distances(gradients, FLOOR, 150)
    assert blind is not None
    with pytest.raises(AssertionError):
        check(blind, apart)


def sure(state: Any) -> Any:
    """As if distances in float32 were exact."""
    state.bound[:], state.part[:] = 0.0, 0.0
    return state


@pytest.mark.parametrize("kind", ["plain", "far from the origin", "farther", "nearly copies", "all lengths"])
def test_distances_are_off_by_the_last_digits_and_within_what_is_allowed_for(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    gradients = made(kind, 3, 300, 40)
    kept: dict[str, Any] = {}
    pairs, start = distance_cover._all_pairs, distance_cover._start
    monkeypatch.setattr(distance_cover, "_all_pairs", lambda *given: kept.setdefault("pairs", pairs(*given)))
    monkeypatch.setattr(distance_cover, "_start", lambda *given: kept.setdefault("state", start(*given)))
    assert cover_distances(gradients, FLOOR, 5) is not None
    unit = float(gradients.norms.max())
    right, found, part = distances(gradients) / unit, kept["pairs"][0].astype(np.float64), kept["state"].part
    others = ~np.eye(300, dtype=np.bool_)
    assert (found == found.T).all()
    assert (np.abs(found / right - 1)[others]).max() < 1e-5  # all of them near and far
    assert (np.abs(found - right) <= part[0] + part[1] * right)[others].all()
    assert np.abs(found - right)[others].max() > 1e-12  # it is float32


def test_plain_float32_would_not_do() -> None:
    gradients = made("far from the origin", 3, 300, 40)
    rows = (
        (gradients.residuals[:, :, None] * torch.cat([gradients.features, torch.ones(300, 1)], 1)[:, None]).flatten(1).float()
    )
    squares = rows.square().sum(dim=1)
    plain = (squares[:, None] + squares - 2 * rows @ rows.T).clamp(min=1e-12).sqrt().numpy()
    assert np.abs(plain / distances(gradients) - 1)[~np.eye(300, dtype=np.bool_)].max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("length", [0.0, 1e-9, 1.0])
def test_samples_that_are_all_the_same_come_in_their_order(count: int, length: float) -> None:
    residuals = torch.tensor([[-1.0, 1.0]], dtype=torch.float64).expand(count, 2) * length
    gradients = LastLayerGradients(residuals, torch.ones(count, 3))
    for floor in (0.0, FLOOR):
        for budget in (0, 1, count):
            found = cover_distances(gradients, floor, budget)
            assert found is not None
            assert found.picks.tolist() == list(range(budget))
            assert found.shares.tolist() == [count, *[0] * (budget - 1)][:budget]


def test_gradients_of_length_zero_are_copies_whatever_their_features() -> None:
    gradients = made("plain", 4, 90, 6)
    gradients.residuals[10:80] = 0.0
    found = cover_distances(gradients, FLOOR, 90)
    assert found is not None
    assert found.picks[21:].tolist() == list(range(11, 80))
    check(found, distances(gradients))


@pytest.mark.parametrize("kind", ["plain", "copies"])
@pytest.mark.parametrize("step", [1, 7, 64])
def test_the_size_of_the_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch, kind: str, step: int) -> None:
    gradients = made(kind, 5, 150, 12)
    expected = cover_distances(gradients, FLOOR, 100)
    monkeypatch.setattr(distance_cover, "block_rows", lambda _: step)
    found = cover_distances(gradients, FLOOR, 100)
    assert expected is not None
    assert found is not None
    assert (found.picks.tolist(), found.shares.tolist()) == (expected.picks.tolist(), expected.shares.tolist())


def tight_clusters() -> tuple[Array, Array]:
    draws = np.random.default_rng(6)
    group = draws.integers(0, 20, 800)
    features = draws.normal(size=(20, 16))[group] + 1e-5 * draws.normal(size=(800, 16))
    return features.astype(np.float32), draws.normal(size=(20, 3)).astype(np.float32)[group]


def view_of(features: Array, logits: Array, max_memory: int = MAX_MEMORY) -> View:
    return Signals.from_arrays(features, logits, np.zeros(len(features), np.int64)).view(0, max_memory=max_memory)


def test_what_float32_cannot_tell_apart_is_left_to_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Covered | None] = []
    view = view_of(*tight_clusters())
    monkeypatch.setattr(distance_cover, "cover_distances", lambda *given: answers.append(cover_distances(*given)))
    found = craig(view, 400, RNG, batch=1)  # the first answer is lost above, whatever it was
    assert answers == [None]
    monkeypatch.setattr(coverage, "MANY", 10**6)
    expected = craig(view, 400, RNG, batch=1)
    assert found.positions.tolist() == expected.positions.tolist()
    assert found.weights.tolist() == expected.weights.tolist()


def test_craig_goes_this_way_where_there_are_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = made("plain", 7, 600, 24)
    draws = np.random.default_rng(7)
    features, logits = gradients.features.numpy(), draws.normal(size=(600, 3)).astype(np.float32)
    given: list[int] = []

    def spy(some: LastLayerGradients, floor: float, budget: int) -> Covered | None:
        given.append(len(some))
        return cover_distances(some, floor, budget)

    monkeypatch.setattr(distance_cover, "cover_distances", spy)
    answers = [craig(view_of(features, logits), 200, RNG, compat=compat) for compat in ("deepcore", "paper")]
    assert given == [600, 600]
    craig(view_of(features[:100], logits[:100]), 20, RNG)
    craig(view_of(features, logits, dense_bytes(600) - 1), 20, RNG, neighbours=5)
    assert given == [600, 600]
    monkeypatch.setattr(coverage, "MANY", 10**6)
    for compat, answer in zip(("deepcore", "paper"), answers, strict=True):
        expected = craig(view_of(features, logits), 200, RNG, compat=compat)
        assert answer.positions.tolist() == expected.positions.tolist()
        assert answer.weights.tolist() == expected.weights.tolist()


def test_memory_is_half_of_that_of_float64() -> None:
    gradients = made("plain", 8, 2000, 8)
    cover_distances(gradients, FLOOR, 2)
    tracemalloc.start()
    cover_distances(gradients, FLOOR, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 * 2000**2 < peak < 4 * 2000**2 + 20 * 2**20 < dense_bytes(2000)
