"""GraphCut against its two definitions, written out in float64 over all pairs, and against the picks of the real DeepCore."""

from __future__ import annotations

import itertools
import tracemalloc
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
from torch.nn import functional

from dqas_plugin.errors import UserError
from dqas_plugin.gradients import LastLayerGradients, residuals_of
from dqas_plugin.methods.graphcut import graphcut, graphcut_deepcore, graphcut_eq7
from dqas_plugin.signals import Signals

Array = npt.NDArray[Any]


def bins_of(budget: int, bin_sizes: Sequence[int]) -> list[int]:
    """The bin of every pick."""
    ends = list(itertools.accumulate(bin_sizes))
    return [sum(pick >= end for end in ends) for pick in range(budget)]


def literal_eq7(features: Array, budget: int, bin_sizes: Sequence[int] = (), near: float = 0.0) -> list[int]:
    """Equation 7 as printed, one sum after the other; gains less than ``near`` apart are equal."""
    points = features.astype(np.float64)
    distances = np.square(points[:, None] - points[None]).sum(axis=2)
    picks: list[int] = []
    bins = bins_of(budget, bin_sizes)
    for turn in range(budget):
        current = [one for one, where in zip(picks, bins, strict=False) if where == bins[turn]]
        rest = [one for one in range(len(points)) if one not in picks]
        gains = [distances[x, current].sum() - distances[x, rest].sum() for x in rest]
        picks.append(next(x for x, gain in zip(rest, gains, strict=True) if gain >= max(gains) - near))
    return picks


def materialised(features: Array, logits: Array, labels: Array) -> Array:
    """Last-layer gradients by automatic differentiation, one sample at a time: float64 ``[n, C (d + 1)]``."""
    rows = []
    for one, scores, label in zip(features, logits, labels, strict=True):
        weight = torch.zeros(logits.shape[1], features.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.tensor(scores, dtype=torch.float64, requires_grad=True)  # these logits, whatever head gave them
        outputs = weight @ torch.tensor(one, dtype=torch.float64) + bias
        functional.cross_entropy(outputs[None], torch.tensor([int(label)])).backward()
        assert weight.grad is not None
        assert bias.grad is not None
        rows.append(torch.cat([weight.grad.flatten(), bias.grad]).numpy())
    return np.array(rows)


def literal_deepcore(gradients: Array, budget: int, bin_sizes: Sequence[int] = ()) -> list[int]:
    """DeepCore's gain over the matrix of similarities; with bins, GraphCut again on what is left over."""
    lengths = np.linalg.norm(gradients, axis=1)
    unit = gradients / np.where(lengths > 0, lengths, 1)[:, None]
    similarity = 0.5 + 0.5 * unit @ unit.T
    left = list(range(len(gradients)))
    picks: list[int] = []
    for _, turns in itertools.groupby(bins_of(budget, bin_sizes)):
        current: list[int] = []
        for _ in turns:
            gains = -2 * similarity[np.ix_(left, current)].sum(axis=1) + similarity[np.ix_(left, left)].sum(axis=1)
            open_ = [place for place, one in enumerate(left) if one not in current]
            best = max(gains[place] for place in open_)
            current.append(next(left[place] for place in open_ if gains[place] >= best - 1e-9))
        left = [one for one in left if one not in current]
        picks += current
    return picks


def gradients(features: Array, logits: Array, labels: Array) -> LastLayerGradients:
    as_logits, as_labels = torch.from_numpy(logits), torch.from_numpy(labels)
    return LastLayerGradients(residuals_of(as_logits, as_labels), torch.from_numpy(features))


def problem(seed: int, count: int, width: int = 7, classes: int = 4) -> tuple[Array, Array, Array]:
    draws = np.random.default_rng(seed)
    features = draws.normal(size=(count, width)).astype(np.float32) + 2
    logits = draws.normal(size=(count, classes)).astype(np.float32) * 3
    return features, logits, np.full(count, 1)


whole_numbers = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 4)),
    elements=st.integers(-3, 3).map(float),
)


@given(features=whole_numbers, data=st.data())
@settings(deadline=None, max_examples=150)
def test_eq7_follows_the_definition_exactly_ties_included(features: Array, data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, len(features)))
    sizes = data.draw(st.lists(st.integers(1, 5), max_size=3))
    # Whole numbers: the definition is computed without rounding, so ties are ties.
    assert graphcut_eq7(torch.from_numpy(features), budget, sizes).tolist() == literal_eq7(features, budget, sizes)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), data=st.data())
@settings(deadline=None, max_examples=60)
def test_both_follow_their_definitions_on_random_numbers(seed: int, count: int, data: st.DataObject) -> None:
    features, logits, labels = problem(seed, count)
    budget = data.draw(st.integers(0, count))
    sizes = data.draw(st.lists(st.integers(1, 15), max_size=3))
    assert graphcut_eq7(torch.from_numpy(features), budget, sizes).tolist() == literal_eq7(features, budget, sizes, 1e-9)
    expected = literal_deepcore(materialised(features, logits, labels), budget, sizes)
    assert graphcut_deepcore(gradients(features, logits, labels), budget, sizes).tolist() == expected


@given(data=st.data())
@settings(deadline=None, max_examples=80)
def test_copies_are_picked_lowest_position_first(data: st.DataObject) -> None:
    features, logits, labels = problem(data.draw(st.integers(0, 1000)), 5)
    copies = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=14)))
    features, logits, labels = features[copies], logits[copies], labels[copies]
    size = len(copies)
    picks = graphcut_deepcore(gradients(features, logits, labels), size).tolist()
    assert picks == literal_deepcore(materialised(features, logits, labels), size)
    assert graphcut_eq7(torch.from_numpy(features), size).tolist() == literal_eq7(features, size, near=1e-9)


def test_near_copies_are_told_apart_as_in_float64() -> None:
    draws = np.random.default_rng(5)
    points = draws.normal(size=(20, 16))[np.repeat(np.arange(20), 15)]
    features = (points * (1 + 3e-7 * draws.integers(-2, 3, points.shape))).astype(np.float32)  # some last bits differ
    assert len(np.unique(features, axis=0)) > 250
    assert graphcut_eq7(torch.from_numpy(features), 300).tolist() == literal_eq7(features, 300)


def test_large_offsets_cost_no_precision() -> None:
    draws = np.random.default_rng(1)
    features = (draws.integers(-512, 512, (60, 8)) / 64).astype(np.float32)  # exact, also after the shift
    shifted = features + np.float32(2048)
    assert graphcut_eq7(torch.from_numpy(shifted), 60).tolist() == literal_eq7(features, 60)


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e18])
def test_eq7_does_not_depend_on_the_unit(scale: float) -> None:
    features, _, _ = problem(2, 50)
    scaled = features * np.float32(scale)
    assert graphcut_eq7(torch.from_numpy(scaled), 50).tolist() == literal_eq7(scaled.astype(np.float64) / scale, 50)


def test_order_of_the_samples_and_of_the_columns_does_not_matter() -> None:
    features, logits, labels = problem(3, 80)
    draws = np.random.default_rng(0)
    rows, columns = draws.permutation(80), draws.permutation(features.shape[1])
    mixed = features[rows][:, columns]
    assert rows[graphcut_eq7(torch.from_numpy(mixed), 40)].tolist() == graphcut_eq7(torch.from_numpy(features), 40).tolist()
    plain = graphcut_deepcore(gradients(features, logits, labels), 40)
    assert rows[graphcut_deepcore(gradients(mixed, logits[rows], labels[rows]), 40)].tolist() == plain.tolist()


def test_a_shift_of_all_logits_does_not_matter() -> None:
    features, logits, labels = problem(4, 60)
    shifted = logits.astype(np.float64).round(2).astype(np.float32) + np.arange(60, dtype=np.float32)[:, None]
    expected = literal_deepcore(materialised(features, shifted - np.arange(60, dtype=np.float32)[:, None], labels), 60)
    assert graphcut_deepcore(gradients(features, shifted, labels), 60).tolist() == expected


def test_well_fitted_samples_keep_their_direction() -> None:
    features, logits, labels = problem(5, 40)
    logits[:, 1] += 30  # p - 1 is 0 in float32 and has 3 digits in float64
    wide = logits.astype(np.float64)
    ratios = np.exp(wide - wide[:, 1:2])
    logarithms = wide - wide[:, 1:2] - np.log1p(np.delete(ratios, 1, axis=1).sum(axis=1, keepdims=True))
    residuals = np.where(np.arange(4) == 1, np.expm1(logarithms), np.exp(logarithms))
    outer = residuals[:, :, None] * np.c_[features.astype(np.float64), np.ones(40)][:, None]
    assert graphcut_deepcore(gradients(features, logits, labels), 40).tolist() == literal_deepcore(outer.reshape(40, -1), 40)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_samples_that_are_all_the_same_come_in_their_order(count: int) -> None:
    features, logits, labels = np.ones((count, 3), np.float32), np.zeros((count, 2), np.float32), np.zeros(count, np.int64)
    assert graphcut_eq7(torch.from_numpy(features), count).tolist() == list(range(count))
    assert graphcut_deepcore(gradients(features, logits, labels), count).tolist() == list(range(count))


def test_a_gradient_of_length_zero_is_like_nothing() -> None:
    features, logits, labels = problem(6, 12)
    logits[[2, 7]] = [-np.float32(3e38), 3e38, -3e38, -3e38]  # fitted without any residual
    found = gradients(features, logits, labels)
    assert found.norms[[2, 7]].tolist() == [0, 0]
    assert graphcut_deepcore(found, 12).tolist() == literal_deepcore(materialised(features, logits, labels), 12)


def test_nothing_to_pick() -> None:
    features, logits, labels = problem(0, 5)
    assert graphcut_eq7(torch.from_numpy(features[:0]), 0).tolist() == []
    assert graphcut_eq7(torch.from_numpy(features), 0).tolist() == []
    assert graphcut_deepcore(gradients(features[:0], logits[:0], labels[:0]), 0).tolist() == []


def dense_picks(start: Array, change: Array, budget: int) -> list[int]:
    """Greedy over matrices in float64: ``change[x, p]`` is what a pick p adds to the gain of x."""
    gain = start.copy()
    picks: list[int] = []
    for _ in range(budget):
        picks.append(int(gain.argmax()))
        gain += change[:, picks[-1]]
        gain[picks] = -np.inf
    return picks


def test_many_picks_are_those_of_float64() -> None:
    features, logits, labels = problem(11, 1500, width=64, classes=10)
    wide = features.astype(np.float64)
    squares = np.square(wide).sum(axis=1)
    distances = squares[:, None] + squares - 2 * wide @ wide.T
    expected = dense_picks(-distances.sum(axis=1), 2 * distances, 1500)
    assert graphcut_eq7(torch.from_numpy(features), 1500).tolist() == expected
    both = gradients(features, logits, labels)
    outer = both.residuals.numpy()[:, :, None] * np.c_[wide, np.ones(1500)][:, None]
    unit = outer.reshape(1500, -1)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similarity = 0.5 + 0.5 * unit @ unit.T
    assert graphcut_deepcore(both, 1500).tolist() == dense_picks(similarity.sum(axis=1), -2 * similarity, 1500)


def test_gains_do_not_increase() -> None:
    features, logits, labels = problem(9, 120)
    rows = materialised(features, logits, labels)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = 0.5 + 0.5 * unit @ unit.T
    picks = graphcut_deepcore(gradients(features, logits, labels), 120)
    gains = [similarity[one].sum() - 2 * similarity[one, picks[:turn]].sum() for turn, one in enumerate(picks)]
    assert all(later <= before + 1e-9 for before, later in itertools.pairwise(gains))


def test_memory_grows_with_the_features_not_with_the_pairs() -> None:
    features, logits, labels = problem(0, 6000, width=16)
    both = gradients(features, logits, labels)
    tracemalloc.start()
    try:
        graphcut_deepcore(both, 50)
        graphcut_eq7(both.features, 50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6000 * 6000 / 4  # bytes; one matrix of all pairs would be 16 times that


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_picks_of_the_real_deepcore(shared: Path, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    signals = Signals.from_arrays(golden["features"], logits, golden["labels"])
    expected = golden[f"graphcut@{fraction}"]
    for label in range(signals.num_classes):
        view = signals.view(label)
        picks = graphcut(view, round(fraction * len(view)), np.random.default_rng(0))
        assert set(view.indices[picks]) == set(expected[golden["labels"][expected] == label])


def test_an_unknown_objective_is_answered_with_the_valid_ones() -> None:
    features, logits, labels = problem(0, 5)
    view = Signals.from_arrays(features, logits, labels).view(1)
    with pytest.raises(UserError, match="deepcore"):
        graphcut(view, 2, np.random.default_rng(0), objective="deepcor")


def test_the_variants_are_the_objectives() -> None:
    features, logits, labels = problem(8, 30)
    view = Signals.from_arrays(features, logits, labels).view(1)
    rng = np.random.default_rng(0)
    first = {name: graphcut(view, 9, rng, **options).tolist() for name, options in graphcut.variants.items()}
    assert first["eq7"] == literal_eq7(features, 9)
    assert first["deepcore"] == literal_deepcore(materialised(features, logits, labels), 9) == graphcut(view, 9, rng).tolist()
