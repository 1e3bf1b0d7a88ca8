"""Bins against the definitions, written out in float64 over all pairs, and draws from them against what chance should give."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from torch.nn import functional

from dqas_plugin.errors import UserError
from dqas_plugin.gradients import LastLayerGradients, residuals_of
from dqas_plugin.methods.graphcut import graphcut, graphcut_deepcore, graphcut_eq7
from dqas_plugin.quantization.bins import Objective, bin_sizes, bins_in_turn, draw_in_turn, graphcut_bins, softmax_twice
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals, View

Array = npt.NDArray[Any]
LABEL = 1
NEAR = 1e-9
OBJECTIVES: tuple[Objective, ...] = ("eq7", "deepcore", "dq")
SOFTMAX_TWICE: dict[Objective, bool] = {"deepcore": False, "dq": True}
objectives = pytest.mark.parametrize("objective", OBJECTIVES)


def literal_bins(points: Array, sizes: Sequence[int], near: float = NEAR) -> list[list[int]]:
    """Equation 7 as printed, gain by gain; those less than ``near`` apart are equal."""
    distances = np.square(points[:, None].astype(np.float64) - points[None]).sum(axis=2)
    found: list[list[int]] = []
    for size in sizes:
        current: list[int] = []
        earlier = set(itertools.chain(*found))
        for _ in range(size):
            rest = [one for one in range(len(points)) if one not in earlier | set(current)]
            gains = {x: sum(distances[p, x] for p in current) - sum(distances[p, x] for p in rest) for x in rest}
            current.append(next(x for x in rest if gains[x] >= max(gains.values()) - near))
        found.append(current)
    return found


def literal_deepcore_bins(gradients: Array, sizes: Sequence[int]) -> list[list[int]]:
    """DeepCore's GraphCut over the matrix of similarities of what is left, once for every bin."""
    lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
    unit = gradients / np.where(lengths > 0, lengths, 1)
    left = np.arange(len(gradients))
    found: list[list[int]] = []
    for size in sizes:
        similarity = 0.5 + 0.5 * unit[left] @ unit[left].T
        current: list[int] = []
        for _ in range(size):
            gains = -2 * similarity[:, current].sum(axis=1) + similarity.sum(axis=1)
            gains[current] = -np.inf
            current.append(int(np.flatnonzero(gains >= gains.max() - NEAR)[0]))
        found.append(left[current].tolist())
        left = np.delete(left, current)
    return found


def written_out(features: Array, logits: Array, *, twice: bool) -> Array:
    """Last-layer gradients by automatic differentiation; ``twice``: of a loss that has another softmax in front of it."""
    outputs = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    labels = torch.full((len(logits),), LABEL)
    loss = functional.cross_entropy(outputs.softmax(dim=1) if twice else outputs, labels, reduction="sum")
    residuals = torch.autograd.grad(loss, outputs)[0].numpy()
    wide = np.c_[features.astype(np.float64), np.ones(len(features))]
    result: Array = np.einsum("nc,nd->ncd", residuals, wide).reshape(len(features), -1)
    return result


def problem(seed: int, count: int, width: int = 5, classes: int = 4) -> tuple[Array, Array]:
    draws = np.random.default_rng(seed)
    features = draws.normal(size=(count, width)).astype(np.float32) + 2
    return features, 2 * draws.normal(size=(count, classes)).astype(np.float32)


def view_of(features: Array, logits: Array | None = None) -> View:
    return Signals.from_arrays(features, logits, np.full(len(features), LABEL)).view(LABEL)


def lists(bins: Sequence[Array]) -> list[list[int]]:
    return [one.tolist() for one in bins]


@given(
    features=hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(-3, 3).map(float)),
    data=st.data(),
)
@settings(deadline=None, max_examples=100)
def test_eq7_follows_the_definition_exactly_ties_included(features: Array, data: st.DataObject) -> None:
    bins = data.draw(st.integers(1, len(features)))
    expected = literal_bins(features, bin_sizes(len(features), bins), near=0.0)  # whole numbers: nothing is rounded
    assert lists(graphcut_bins(view_of(features), bins)) == expected


@given(seed=st.integers(0, 10_000), count=st.integers(1, 30), data=st.data())
@settings(deadline=None, max_examples=50)
def test_every_pick_of_every_bin_is_that_of_the_definition(seed: int, count: int, data: st.DataObject) -> None:
    features, logits = problem(seed, count)
    view, bins = view_of(features, logits), data.draw(st.integers(1, count))
    sizes = bin_sizes(count, bins)
    assert lists(graphcut_bins(view, bins, objective="eq7")) == literal_bins(features, sizes)
    for objective, twice in SOFTMAX_TWICE.items():
        expected = literal_deepcore_bins(written_out(features, logits, twice=twice), sizes)
        assert lists(graphcut_bins(view, bins, objective=objective)) == expected


def test_many_picks_are_those_of_float64() -> None:
    features, logits = problem(11, 1200, width=48, classes=10)
    view, sizes = view_of(features, logits), bin_sizes(1200)
    wide = features.astype(np.float64)
    squares = np.square(wide).sum(axis=1)
    distances = squares[:, None] + squares - 2 * wide @ wide.T
    gain, expected = -distances.sum(axis=1), []
    for size in sizes:
        current: list[int] = []
        for _ in range(size):
            current.append(int(gain.argmax()))
            gain += 2 * distances[current[-1]]
            gain[current[-1]] = -np.inf
        gain -= distances[current].sum(axis=0)  # they are in neither sum from now on
        expected.append(current)
    assert lists(graphcut_bins(view)) == expected
    for objective, twice in SOFTMAX_TWICE.items():
        gradients = written_out(features, logits, twice=twice)
        assert lists(graphcut_bins(view, objective=objective)) == literal_deepcore_bins(gradients, sizes)


@objectives
@pytest.mark.parametrize(("count", "bins"), [(47, 10), (10, 10), (30, 7), (13, 1)])
def test_bins_hold_every_sample_once_and_their_sizes_differ_by_one_at_most(objective: Objective, count: int, bins: int) -> None:
    found = graphcut_bins(view_of(*problem(1, count)), bins, objective=objective)
    assert sorted(np.concatenate(found)) == list(range(count))
    sizes = [len(one) for one in found]
    assert len(sizes) == bins
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@objectives
def test_each_bin_is_graphcut_of_what_the_ones_before_left(objective: Objective) -> None:
    features, logits = problem(2, 61)
    left = np.arange(61)
    for held in graphcut_bins(view_of(features, logits), 6, objective=objective):
        view = view_of(features[left], logits[left])
        if objective == "eq7":
            again = graphcut_eq7(view.features, len(held))
        else:
            gradients = view.gradients if objective == "deepcore" else softmax_twice(view.gradients, LABEL)
            again = graphcut_deepcore(gradients, len(held))
        assert left[again].tolist() == held.tolist()
        left = np.setdiff1d(left, held)
    assert not len(left)


@pytest.mark.parametrize("objective", ["eq7", "deepcore"])
def test_one_bin_is_graphcut_and_more_begin_like_it(objective: Any) -> None:
    view, rng = view_of(*problem(3, 80)), np.random.default_rng(0)
    whole = graphcut(view, 80, rng, objective=objective).tolist()
    assert lists(graphcut_bins(view, 1, objective=objective)) == [whole]
    unions: list[set[int]] = []
    for bins in (10, 5, 2, 1):  # the first bin grows
        first = graphcut_bins(view, bins, objective=objective)[0].tolist()
        assert first == whole[: 80 // bins]
        unions.append(set(first))
    assert all(small < large for small, large in itertools.pairwise(unions))


def test_early_bins_are_central_and_late_ones_diverse() -> None:
    features, logits = problem(4, 400)
    found = graphcut_bins(view_of(features, logits))
    far = [float(np.linalg.norm(features[one] - features.mean(axis=0), axis=1).mean()) for one in found]
    assert far == sorted(far)
    assert far[-1] > 2 * far[0]


def test_gradients_of_the_second_softmax_keep_their_direction_for_well_fitted_samples() -> None:
    features, logits = problem(5, 40)
    logits[:, LABEL] += 30  # p - 1 is 0 in float32
    plain = LastLayerGradients(residuals_of(torch.from_numpy(logits), torch.full((40,), LABEL)), torch.from_numpy(features))
    found = softmax_twice(plain, LABEL).residuals.numpy()
    wide = logits.astype(np.longdouble)
    p = np.exp(wide - wide.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    q = np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
    others = np.arange(4) != LABEL
    u = q - ~others
    expected = np.zeros_like(p)
    expected[:, others] = (p * (u - (p * u).sum(axis=1, keepdims=True)))[:, others]
    expected[:, LABEL] = -expected.sum(axis=1)
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=1e-6)
    assert (found[:, LABEL] < 0).all()


def test_the_second_softmax_changes_the_bins() -> None:
    view = view_of(*problem(6, 100))
    assert lists(graphcut_bins(view, objective="dq")) != lists(graphcut_bins(view, objective="deepcore"))


@given(sizes=st.lists(st.integers(0, 9), max_size=7), seed=st.integers(0, 1000))
def test_bins_take_turns_as_long_as_they_last(sizes: list[int], seed: int) -> None:
    ends = np.cumsum([0, *sizes])
    bins = [np.arange(start, end) for start, end in itertools.pairwise(ends)]
    order = draw_in_turn(bins, np.random.default_rng(seed))
    assert order.dtype == np.int64
    assert sorted(order) == list(range(ends[-1]))
    for count in range(len(order) + 1):
        taken = np.array([np.isin(order[:count], one).sum() for one in bins])
        assert taken.max(initial=0) - min(taken[taken < sizes], default=0) <= 1 or (taken == sizes).all()


def test_what_makes_up_no_round_favours_no_bin_and_within_a_bin_all_are_alike() -> None:
    bins = [np.arange(6 * one, 6 * one + 6) for one in range(5)]
    times, count = 3000, 13  # two of each bin, and of three bins a third
    drawn = np.array([draw_in_turn(bins, np.random.default_rng(seed))[:count] for seed in range(times)])
    of_bin = np.bincount((drawn[:, 10:] // 6).ravel(), minlength=5)
    assert abs(of_bin / times - 3 / 5).max() < 4.5 * np.sqrt(3 / 5 * 2 / 5 / times)
    each = np.bincount(drawn.ravel(), minlength=30)
    assert abs(each / times - count / 30).max() < 4.5 * np.sqrt(count / 30 * (1 - count / 30) / times)
    pairs = np.sort(drawn[:, :10].reshape(times, 10), axis=1)[:, :2] % 6  # the two of bin 0
    codes = np.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36)
    assert (codes > 0).sum() == 15  # every pair of six comes up
    assert stats.chisquare(codes[codes > 0]).pvalue > 1e-4
    third = np.sort(drawn[:, 10:] // 6, axis=1)  # every triple of bins too
    assert stats.chisquare(np.unique(third, axis=0, return_counts=True)[1]).pvalue > 1e-4


def test_rounds_are_in_orders_of_their_own() -> None:
    bins = [np.arange(4 * one, 4 * one + 4) for one in range(6)]
    rounds = draw_in_turn(bins, np.random.default_rng(1)).reshape(4, 6) // 4
    assert [sorted(one) for one in rounds.tolist()] == [list(range(6))] * 4
    assert len(np.unique(rounds, axis=0)) == 4


@objectives
def test_the_order_holds_a_prefix_of_each_count(objective: Objective) -> None:
    view = view_of(*problem(7, 53))
    order = bins_in_turn(view, 5, np.random.default_rng(8), objective=objective)
    assert sorted(order) == list(range(53))
    assert order.tolist() == bins_in_turn(view, 53, np.random.default_rng(8), objective=objective).tolist()
    found = graphcut_bins(view, objective=objective)
    for count in range(51):
        taken = [np.isin(order[:count], one).sum() for one in found]
        assert max(taken) - min(taken) <= 1
    other = bins_in_turn(view, 5, np.random.default_rng(9), objective=objective)
    assert other.tolist() != order.tolist()


def test_rank_knows_the_variants_and_the_options() -> None:
    signals = Signals.from_arrays(*problem(9, 90, classes=3), np.arange(90) % 3)
    found = rank(signals, "bins:dq", counts=[8, 30, 3], seed=2, bins=4)
    assert [len(one) for one in found.order] == [8, 30, 3]
    assert found.nested
    held = [signals.view(0).indices[one] for one in graphcut_bins(signals.view(0), 4, objective="dq")]
    assert [np.isin(found.order[0], one).sum() for one in held] == [2, 2, 2, 2]


def test_features_of_rebuilt_images_are_read_where_gradients_are_not() -> None:
    features, _ = problem(10, 24)
    assert lists(graphcut_bins(view_of(features), 3)) == literal_bins(features, [8, 8, 8])


def test_sizes() -> None:
    assert bin_sizes(47) == [5] * 7 + [4] * 3
    assert bin_sizes(3, 3) == [1, 1, 1]
    assert bin_sizes(5003, 10, fraction=0.1) == [500] * 9 + [503]  # as DQ's program: the last bin takes the rest
    assert bin_sizes(5000, 3, fraction=1 / 3) == [1667, 1667, 1666]
    assert bin_sizes(50, 4, fraction=0.1) == [5] * 4
    assert sum(bin_sizes(59, 10, fraction=0.1)) == 59


def test_samples_in_no_bin_come_last() -> None:
    view = view_of(*problem(12, 50))
    found = graphcut_bins(view, 4, fraction=0.1)
    assert [len(one) for one in found] == [5] * 4
    order = bins_in_turn(view, 1, np.random.default_rng(0), bins=4, fraction=0.1)
    assert set(order[:20]) == set(np.concatenate(found))
    assert sorted(order) == list(range(50))
    assert order[20:].tolist() != sorted(order[20:])


def test_as_many_as_the_published_selection_holds(shared: Path) -> None:
    published = np.load(shared / "data/dq/select_indices_CIFAR10_0.125.npy")
    assert len(np.unique(published)) == 10 * sum(round(0.125 * size) for size in bin_sizes(5000, 10, fraction=0.1)) == 6200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 0}, r"the number of bins must be at least 1, not 0"),
        ({"bins": -3}, r"at least 1, not -3"),
        ({"bins": 13}, r"class 1 has 12 samples, too few for 13 bins: choose 12 bins or fewer"),
        ({"bins": 5, "fraction": 0.8}, r"5 bins of 0.8 of a class each are 4 times what there is: .* at most 0.2"),
        ({"bins": 11, "fraction": 0.1}, r"11 bins of 0.1 of a class each are 1.1 times"),
        ({"bins": 2, "fraction": 0.0}, r"above 0 and at most 1, not 0.0"),
        ({"bins": 2, "fraction": float("nan")}, r"at most 1, not nan"),
        ({"bins": 1, "fraction": 1.5}, r"at most 1, not 1.5"),
        ({"bins": 10, "fraction": 0.01}, r"class 1 has 12 samples, too few for 10 bins of 0.01 of it each"),
        ({"bins": 8, "fraction": 0.125}, r"too few for 8 bins of 0.125"),  # 1.5 each are rounded to 2: eight are too many
        ({"objective": "eq8"}, r"eq7"),
    ],
)
def test_mistakes_are_a_sentence(options: dict[str, Any], message: str) -> None:
    view = view_of(*problem(0, 12))
    with pytest.raises(UserError, match=message):
        bins_in_turn(view, 3, np.random.default_rng(0), **options)


def test_an_empty_class_has_no_bins() -> None:
    with pytest.raises(UserError, match="the class has 0 samples, too few for 10 bins: leave it out"):
        bin_sizes(0)
