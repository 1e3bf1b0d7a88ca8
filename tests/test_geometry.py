"""Herding and moderate against their definitions in float64, and herding against the picks of the real DeepCore."""

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
from torch import Tensor

from dqas_plugin.errors import UserError
from dqas_plugin.methods.geometry import herded, herding, moderate
from dqas_plugin.methods.greedy_on_device import best_gains_on_device
from dqas_plugin.methods.points import Points
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals, View

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def view(features: Array) -> View:
    return Signals.from_arrays(features, None, np.zeros(len(features), np.int64)).view(0)


def literal_herding(features: Array, budget: int, farthest: bool, near: float = 1e-9) -> list[int]:
    """Distances to (k + 1) mean - Σ picked, as they are written."""
    points = features.astype(np.float64)
    picks: list[int] = []
    for turn in range(budget):
        target = (turn + 1) * points.mean(axis=0) - points[picks].sum(axis=0)
        worth = np.square(points - target).sum(axis=1) * (1 if farthest else -1)
        worth[picks] = -np.inf
        picks.append(int((worth >= worth.max() - near * max(1, np.square(points).max())).argmax()))
    return picks


def on_device(features: Tensor, budget: int, farthest: bool) -> list[int]:
    """What is picked where features are not in main memory."""
    points, sign = Points.of(features), 1.0 if farthest else -1.0
    start, step = sign * points.squares, torch.zeros_like(points.squares)
    return best_gains_on_device(None, points.rows(), start, step, -2 * sign, budget).tolist()


def random(seed: int, count: int, width: int = 7) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32) + 2


either = pytest.mark.parametrize("farthest", [True, False])
whole_numbers = hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.integers(-3, 3).map(float))


@either
@given(features=whole_numbers, data=st.data())
@settings(deadline=None, max_examples=100)
def test_herding_follows_its_definition_ties_included(farthest: bool, features: Array, data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, len(features)))
    expected = literal_herding(features, budget, farthest)
    assert herded(torch.from_numpy(features), budget, farthest=farthest).tolist() == expected
    assert on_device(torch.from_numpy(features), budget, farthest) == expected


@either
@given(seed=st.integers(0, 10_000), copies=st.lists(st.integers(0, 9), min_size=1, max_size=30))
@settings(deadline=None, max_examples=60)
def test_herding_follows_its_definition_copies_included(farthest: bool, seed: int, copies: list[int]) -> None:
    features = random(seed, 10)[copies]
    found = herded(torch.from_numpy(features), len(copies), farthest=farthest)
    assert found.tolist() == literal_herding(features, len(copies), farthest)


@either
@pytest.mark.parametrize("budget", [0, 1, 9])
def test_samples_that_are_all_the_same_come_in_their_order(farthest: bool, budget: int) -> None:
    for features in (np.ones((9, 3), np.float32), np.zeros((9, 3), np.float32)):
        assert herded(torch.from_numpy(features), budget, farthest=farthest).tolist() == list(range(budget))


@either
def test_order_and_columns_and_units_and_origin_do_not_matter(farthest: bool) -> None:
    features = (np.random.default_rng(1).integers(-512, 512, (80, 8)) / 64).astype(np.float32)  # exact, also shifted
    rows, columns = np.random.default_rng(2).permutation(80), np.random.default_rng(3).permutation(8)
    plain = herded(torch.from_numpy(features), 80, farthest=farthest).tolist()
    assert plain == literal_herding(features, 80, farthest)
    assert rows[herded(torch.from_numpy(features[rows][:, columns]), 80, farthest=farthest)].tolist() == plain
    for other in (features * np.float32(2.0**60), features * np.float32(2.0**-60), features + np.float32(2048)):
        assert herded(torch.from_numpy(other), 80, farthest=farthest).tolist() == plain


@either
def test_many_picks_are_those_of_float64(farthest: bool) -> None:
    features = random(11, 1500, 64)
    points = features.astype(np.float64)
    points -= points.mean(axis=0)
    kernel, sign = points @ points.T, 1 if farthest else -1
    gain = sign * kernel.diagonal()
    expected: list[int] = []
    for _ in range(1500):
        expected.append(int(gain.argmax()))
        gain = gain + 2 * sign * kernel[expected[-1]]
        gain[expected] = -np.inf
    assert herded(torch.from_numpy(features), 1500, farthest=farthest).tolist() == expected


@either
def test_the_loop_for_a_device_picks_the_same(farthest: bool) -> None:
    features = torch.from_numpy(random(4, 200, 5)[np.arange(200) % 190])
    assert on_device(features, 200, farthest) == herded(features, 200, farthest=farthest).tolist()


@either
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_picks_the_same(farthest: bool) -> None:
    features = torch.from_numpy(random(4, 200, 5))
    assert herded(features.cuda(), 200, farthest=farthest).tolist() == herded(features, 200, farthest=farthest).tolist()


def test_the_paper_takes_the_nearest_and_keeps_the_mean() -> None:
    features = random(5, 60, 4)
    picks = {name: herding(view(features), 12, RNG, **options) for name, options in herding.variants.items()}
    assert picks["deepcore"].tolist() == literal_herding(features, 12, True) == herding(view(features), 12, RNG).tolist()
    assert picks["paper"].tolist() == literal_herding(features, 12, False)
    assert len(set(picks["deepcore"]) & set(picks["paper"])) < 4
    away = {name: np.linalg.norm(features[one].mean(axis=0) - features.mean(axis=0)) for name, one in picks.items()}
    assert away["paper"] < 0.1
    assert away["deepcore"] > 1
    with pytest.raises(UserError, match="compat of herding"):
        herding(view(features), 2, RNG, compat="papier")


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_picks_of_the_real_deepcore(shared: Path, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    signals = Signals.from_arrays(golden["features"], None, golden["labels"])
    expected = golden[f"herding@{fraction}"]
    counts = [round(fraction * len(signals.members(label))) for label in range(signals.num_classes)]
    for label, picks in enumerate(rank(signals, "herding", counts=counts, seed=7).order):
        assert set(picks) == set(expected[golden["labels"][expected] == label])


def literal_moderate(features: Array) -> list[int]:
    points = features.astype(np.float64)
    distances = np.linalg.norm(points - points.mean(axis=0), axis=1)
    apart = np.abs(distances - np.median(distances)).round(9)
    return sorted(range(len(points)), key=lambda one: (apart[one], distances[one].round(9), one))


@given(seed=st.integers(0, 10_000), copies=st.lists(st.integers(0, 20), min_size=1, max_size=40))
@settings(deadline=None, max_examples=100)
def test_moderate_follows_its_definition(seed: int, copies: list[int]) -> None:
    features = random(seed, 21)[copies]
    assert moderate(view(features), 1, RNG).tolist() == literal_moderate(features)


def test_moderate_takes_both_sides_of_the_median() -> None:
    lengths = np.array([0, 1, 2, 4, 7, 11], np.float32)  # median 3
    features = np.concatenate([lengths, -lengths])[:, None] * np.array([[0.6, 0.8]], np.float32)
    assert moderate(view(features), 12, RNG).tolist() == [2, 8, 3, 9, 1, 7, 0, 6, 4, 10, 5, 11]


def test_moderate_on_degenerate_samples() -> None:
    for features in (np.ones((5, 3), np.float32), np.zeros((5, 3), np.float32)):
        assert moderate(view(features), 5, RNG).tolist() == [0, 1, 2, 3, 4]
    assert moderate(view(np.ones((1, 2), np.float32)), 1, RNG).tolist() == [0]
