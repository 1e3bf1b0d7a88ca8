"""The two greedy loops, in main memory and on a device, against gains taken from all pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_plugin.errors import UserError
from dqas_plugin.gradients import LastLayerGradients, residuals_of
from dqas_plugin.methods import greedy
from dqas_plugin.methods.graphcut import _deepcore_on_device, directions, graphcut, graphcut_deepcore, graphcut_eq7
from dqas_plugin.methods.greedy import Factors, best_gains
from dqas_plugin.methods.greedy_on_device import best_gains_on_device, first_highest
from dqas_plugin.methods.points import Points
from dqas_plugin.signals import Signals

Array = npt.NDArray[Any]


def unit_rows(draws: np.random.Generator, count: int, width: int) -> Array:
    rows = draws.normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Problem:
    """Factors, start and step, of some samples that may be copies."""

    def __init__(self, seed: int, copies: Array, width: int = 5, outer: bool = True) -> None:
        draws = np.random.default_rng(seed)
        count = int(copies.max()) + 1
        self.left = unit_rows(draws, count, 3).astype(np.float64)[copies] if outer else np.ones((len(copies), 1))
        self.right = unit_rows(draws, count, width)[copies]
        self.start, self.step = (draws.normal(size=count)[copies] for _ in range(2))

    @property
    def kernel(self) -> Array:
        wide = self.right.astype(np.float64)
        return (self.left @ self.left.T) * (wide @ wide.T)

    def picks(self, weight: float, budget: int, bins: list[int]) -> list[int]:
        factors = Factors(self.left, lambda rows: self.right[rows].astype(np.float64), torch.from_numpy(self.right))
        return best_gains(factors, self.start, self.step, weight, budget, bin_sizes=bins).tolist()

    def on_device(self, weight: float, budget: int, bins: list[int], device: str = "cpu") -> list[int]:
        left = None if self.left.shape[1] == 1 else torch.from_numpy(self.left).to(device)
        right, start, step = (torch.from_numpy(one).double().to(device) for one in (self.right, self.start, self.step))
        found = best_gains_on_device(left, right, start, step, weight, budget, bins)
        assert found.device.type == device
        return found.tolist()

    def literal(self, weight: float, budget: int, bins: list[int]) -> list[int]:
        """Gains from all pairs; what the picks of an earlier bin change counts half."""
        ends = np.cumsum(bins)
        bin_of = np.searchsorted(ends, np.arange(budget), side="right")
        picks: list[int] = []
        for turn in range(budget):
            worth = np.where(bin_of[:turn] == bin_of[turn], 1.0, 0.5)
            gain = self.start + worth.sum() * self.step - weight * self.kernel[:, picks] @ worth
            gain[picks] = -np.inf
            picks.append(int((gain >= gain.max() - 1e-10).argmax()))
        return picks


copies_of_few = st.lists(st.integers(0, 5), min_size=1, max_size=16).map(np.array)


@given(
    seed=st.integers(0, 10_000),
    copies=copies_of_few,
    weight=st.sampled_from([-2.0, -0.3, 0.7, 4.0]),
    outer=st.booleans(),
    data=st.data(),
)
@settings(deadline=None, max_examples=120)
def test_both_loops_follow_the_gains(seed: int, copies: Array, weight: float, outer: bool, data: st.DataObject) -> None:
    problem = Problem(seed, copies, outer=outer)
    budget = data.draw(st.integers(0, len(copies)))
    bins = data.draw(st.lists(st.integers(1, 8), max_size=3))
    expected = problem.literal(weight, budget, bins)
    assert problem.picks(weight, budget, bins) == expected
    assert problem.on_device(weight, budget, bins) == expected


@pytest.mark.parametrize("weight", [-2.0, 2.0])
def test_gains_that_rounding_has_blurred_are_those_of_float64(weight: float) -> None:
    draws = np.random.default_rng(3)
    problem = Problem(0, np.arange(600) % 20, width=16, outer=False)
    problem.right = (0.9 * problem.right * (1 + 3e-6 * draws.normal(size=problem.right.shape))).astype(np.float32)
    gain, kernel = problem.start.copy(), problem.kernel
    expected: list[int] = []
    for _ in range(600):
        expected.append(int((gain >= gain.max() - greedy.TIE * abs(weight) * 600).argmax()))
        gain += problem.step - weight * kernel[expected[-1]]
        gain[expected] = -np.inf
    assert problem.picks(weight, 600, []) == expected


def test_the_first_of_the_highest() -> None:
    values = torch.tensor([1.0, 3.0, 2.999, 3.0, -torch.inf])
    assert first_highest(values).tolist() == [1]
    assert first_highest(values[1:], absolute=0.1).tolist() == [0]
    assert first_highest(values.flip(0), absolute=0.01).tolist() == [1]
    assert first_highest(torch.tensor([9.0, 10.0, 10.0]), relative=0.2).tolist() == [0]
    assert first_highest(torch.tensor([-torch.inf, 0.0, 0.0]), relative=1e-3).tolist() == [1]


def test_points_have_norm_one_at_most_and_their_mean_in_the_middle() -> None:
    features = np.random.default_rng(0).normal(5, 2, (3000, 4)).astype(np.float32)
    points = Points.of(torch.from_numpy(features))
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1)
    np.testing.assert_allclose(points.rows().numpy(), centred / lengths.max(), atol=1e-12)
    np.testing.assert_allclose(points.squares.numpy(), np.square(lengths / lengths.max()), rtol=1e-9)
    some = np.array([5, 2, 2999])
    np.testing.assert_allclose(points.factors().right(some), centred[some] / lengths.max(), atol=1e-12)
    assert Points.of(torch.ones(4, 2)).rows().tolist() == [[0, 0]] * 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_picks_the_same() -> None:
    problem = Problem(1, np.arange(300) % 250)
    assert problem.on_device(1.5, 300, [40, 40], "cuda") == problem.picks(1.5, 300, [40, 40])


def gradients(count: int) -> LastLayerGradients:
    draws = np.random.default_rng(2)
    features = torch.from_numpy(draws.normal(size=(count, 6)).astype(np.float32))
    logits = torch.from_numpy(draws.normal(size=(count, 4)).astype(np.float32))
    logits[3] = torch.tensor([-3e38, 3e38, -3e38, -3e38])  # a gradient of length 0
    return LastLayerGradients(residuals_of(logits, torch.ones(count, dtype=torch.int64)), features)


def test_graphcut_on_a_device_is_graphcut() -> None:
    both, bins = gradients(90), [30, 20]
    left = directions(both.residuals)
    found = _deepcore_on_device(left, both.features, 90, bins)
    assert found.tolist() == graphcut_deepcore(both, 90, bins).tolist()
    points = Points.of(both.features)
    found = best_gains_on_device(None, points.rows(), -90 * points.squares, 2 * points.squares, 4.0, 90, bins)
    assert found.tolist() == graphcut_eq7(both.features, 90, bins).tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphcut_on_a_gpu() -> None:
    both = gradients(90)
    moved = LastLayerGradients(both.residuals.cuda(), both.features.cuda())
    assert graphcut_deepcore(moved, 60).tolist() == graphcut_deepcore(both, 60).tolist()
    assert graphcut_eq7(moved.features, 60).tolist() == graphcut_eq7(both.features, 60).tolist()


def test_the_objective_of_graphcut_follows_compat_unless_it_is_named() -> None:
    both = gradients(40)
    logits = torch.from_numpy(np.random.default_rng(5).normal(size=(40, 4)).astype(np.float32))
    view = Signals.from_arrays(both.features, logits, np.ones(40, np.int64)).view(1)
    rng = np.random.default_rng(0)
    first = {name: graphcut(view, 9, rng, **options).tolist() for name, options in graphcut.variants.items()}
    assert first["paper"] == first["eq7"] == graphcut_eq7(view.features, 9).tolist()
    assert first["deepcore"] == graphcut(view, 9, rng).tolist() == graphcut_deepcore(view.gradients, 9).tolist()
    assert first["paper"] != first["deepcore"]
    assert graphcut(view, 9, rng, compat="paper", objective="deepcore").tolist() == first["deepcore"]
    with pytest.raises(UserError, match="compat of graphcut"):
        graphcut(view, 9, rng, compat="papier")
