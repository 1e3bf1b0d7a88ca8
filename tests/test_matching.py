"""GradMatch against orthogonal matching pursuit as it is written, on gradients that are written out."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_plugin.contracts import Size, Weighted
from dqas_plugin.errors import UserError
from dqas_plugin.methods.matching import gradmatch, least_bytes, nonnegative_least_squares, pursue, pursue_on_device
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals
from last_layer import CLASS, Array, problem, view_of, written_out

RNG = np.random.default_rng(0)


def literal_pursuit(atoms: Array, target: Array, budget: int, ridge: float, *, first_plain: bool) -> list[int]:
    """Every coefficient fitted anew after every pick."""
    picks: list[int] = []
    missing = target
    for turn in range(budget):
        gains = atoms @ missing
        gains[picks] = -np.inf
        picks.append(int(gains.argmax()))
        some = atoms[picks]
        plain = first_plain and turn == 0
        fitted = np.linalg.solve(some @ some.T + (0 if plain else ridge) * np.eye(turn + 1), some @ target)
        missing = target - some.T @ fitted
    return picks


def literal_deepcore(features: Array, logits: Array, budget: int, batch: int, ridge: float) -> tuple[list[int], Array]:
    atoms = written_out(features, logits, batch).reshape(len(features), -1)
    target = atoms.mean(axis=0)
    picks = literal_pursuit(atoms, target, budget, ridge, first_plain=True)
    if budget == 1:
        return picks, np.ones(1)
    some = atoms[picks]
    return picks, scipy.optimize.nnls(some @ some.T + ridge * np.eye(budget), some @ target)[0]


def literal_paper(features: Array, logits: Array, budget: int, ridge: float) -> tuple[list[int], Array]:
    atoms = written_out(features, logits, 1)[:, CLASS]
    target = atoms.sum(axis=0)
    picks = literal_pursuit(atoms, target, budget, ridge, first_plain=False)
    # |Σ w g - target|² + ridge |w|² as least squares.
    stacked = np.concatenate([atoms[picks].T, np.sqrt(ridge) * np.eye(budget)])
    return picks, scipy.optimize.nnls(stacked, np.concatenate([target, np.zeros(budget)]))[0]


def compare(found: Weighted, expected: tuple[list[int], Array]) -> None:
    assert found.positions.tolist() == expected[0]
    np.testing.assert_allclose(found.weights, expected[1], rtol=1e-6, atol=1e-6 * expected[1].max(initial=0))


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_picks_and_weights_of_the_real_deepcore(shared: Path, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    signals = Signals.from_arrays(golden["features"], logits, golden["labels"])
    counts = [round(fraction * size) for size in np.bincount(golden["labels"])]
    ranking = rank(signals, gradmatch, counts=counts, seed=7)
    expected = golden[f"gradmatch@{fraction}"]
    for label, picks in enumerate(ranking.order):
        assert set(picks) == set(expected[golden["labels"][expected] == label])
    assert ranking.weights is not None
    ours = dict(zip(np.concatenate(ranking.order).tolist(), np.concatenate(ranking.weights).tolist(), strict=True))
    theirs = dict(zip(expected.tolist(), golden[f"gradmatch@{fraction}.weights"].tolist(), strict=True))
    assert ours == pytest.approx(theirs, rel=2e-6)  # theirs are float32


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    batch=st.sampled_from([None, 1, 7, 16]),
    ridge=st.sampled_from([1.0, 0.01]),
    data=st.data(),
)
@settings(deadline=None, max_examples=80)
def test_deepcore_follows_its_definition(seed: int, count: int, batch: int | None, ridge: float, data: st.DataObject) -> None:
    features, logits = problem(seed, count)
    budget = data.draw(st.integers(1, count))
    found = gradmatch(view_of(features, logits), budget, RNG, batch=batch, ridge=ridge)
    compare(found, literal_deepcore(features, logits, budget, batch or count, ridge))


@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), ridge=st.sampled_from([None, 5.0, 0.02]), data=st.data())
@settings(deadline=None, max_examples=80)
def test_paper_follows_its_definition(seed: int, count: int, ridge: float | None, data: st.DataObject) -> None:
    features, logits = problem(seed, count)
    budget = data.draw(st.integers(1, count))
    found = gradmatch(view_of(features, logits), budget, RNG, ridge=ridge, compat="paper")
    compare(found, literal_paper(features, logits, budget, 0.5 if ridge is None else ridge))


def test_many_picks_are_those_of_the_definition() -> None:
    features, logits = problem(1, 300, width=24, classes=6)
    compare(gradmatch(view_of(features, logits), 200, RNG), literal_deepcore(features, logits, 200, 256, 1.0))
    compare(gradmatch(view_of(features, logits), 200, RNG, compat="paper"), literal_paper(features, logits, 200, 0.5))


def test_deepcore_and_paper_differ() -> None:
    view = view_of(*problem(2, 60))
    plain, paper = gradmatch(view, 12, RNG), gradmatch(view, 12, RNG, compat="paper")
    assert set(plain.positions) != set(paper.positions)
    assert gradmatch(view, 1, RNG).weights.tolist() == [1.0]
    assert gradmatch(view, 1, RNG, compat="paper").weights[0] > 10  # one for 60


@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_picks_do_not_depend_on_the_budget_and_weights_do(compat: str) -> None:
    view = view_of(*problem(3, 40))
    longest = gradmatch(view, 40, RNG, compat=compat)
    for budget in range(1, 41):
        assert gradmatch(view, budget, RNG, compat=compat).positions.tolist() == longest.positions[:budget].tolist()
    assert gradmatch(view, 20, RNG, compat=compat).weights.tolist() != longest.weights[:20].tolist()


def test_the_more_picks_the_better_the_match() -> None:
    features, logits = problem(4, 50)
    atoms = written_out(features, logits, 1)[:, CLASS]

    def error(budget: int) -> float:
        found = gradmatch(view_of(features, logits), budget, RNG, compat="paper")
        apart = found.weights @ atoms[found.positions] - atoms.sum(axis=0)
        return float(apart @ apart + 0.5 * found.weights @ found.weights)

    errors = [error(budget) for budget in range(1, 51)]
    assert all(later <= before * (1 + 1e-9) for before, later in itertools.pairwise(errors))
    assert errors[9] < errors[0] / 5


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), tilt=st.sampled_from([-1.0, -0.2, 0.0, 0.5, 2.0]))
@settings(deadline=None, max_examples=150)
def test_nonnegative_least_squares_as_scipy(seed: int, count: int, tilt: float) -> None:
    draws = np.random.default_rng(seed)
    atoms = draws.normal(size=(count, max(2, count // 2))) + 0.3
    matrix = atoms @ atoms.T + 0.1 * np.eye(count)
    target = draws.normal(size=count) + tilt
    expected = scipy.optimize.nnls(matrix, target)[0]
    found = nonnegative_least_squares(matrix, target)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * expected.max(initial=1e-12))


@pytest.mark.parametrize(("compat", "width", "budget"), [("deepcore", 40, 150), ("paper", 64, 60)])
def test_weights_seldom_need_the_slow_way(monkeypatch: pytest.MonkeyPatch, compat: str, width: int, budget: int) -> None:
    features, logits = problem(1, 300, width=width, classes=6)
    if compat == "deepcore":
        expected = literal_deepcore(features, logits, budget, 1, 0.01)
    else:
        expected = literal_paper(features, logits, budget, 0.01)
    assert (expected[1] == 0).sum() > 1

    def slow(*given: Any) -> Any:
        raise AssertionError(given)

    monkeypatch.setattr(scipy.optimize, "nnls", slow)
    compare(gradmatch(view_of(features, logits), budget, RNG, batch=1, ridge=0.01, compat=compat), expected)


@pytest.mark.parametrize("ridge", [0.5, 1e-3])
def test_nonnegative_least_squares_where_float64_has_few_digits_to_spare(ridge: float) -> None:
    draws = np.random.default_rng(0)
    atoms = np.abs(draws.normal(size=(200, 66)))
    matrix = atoms @ atoms.T + ridge * np.eye(200)
    target = matrix @ (draws.normal(size=200) + 1)

    def error(weights: Array) -> float:
        return float(np.linalg.norm(matrix @ weights - target))

    found = nonnegative_least_squares(matrix, target)
    assert (found >= 0).all()
    assert error(found) <= error(scipy.optimize.nnls(matrix, target)[0]) * (1 + 1e-7)  # that of SciPy 1.14 is the coarser one


def test_nonnegative_least_squares_of_nothing_to_gain() -> None:
    assert nonnegative_least_squares(np.eye(3), np.array([-1.0, -2.0, -0.5])).tolist() == [0, 0, 0]
    assert nonnegative_least_squares(np.eye(2), np.zeros(2)).tolist() == [0, 0]


@pytest.mark.parametrize("first_plain", [True, False])
@pytest.mark.parametrize("copies", [1, 3])
def test_the_loop_for_devices_picks_the_same(first_plain: bool, copies: int) -> None:
    features, logits = problem(5, 80)
    gradients = view_of(np.tile(features, (copies, 1)), np.tile(logits, (copies, 1))).gradients
    products = gradients.along(gradients.total())
    for budget in (0, 1, 2, 30, 80 * copies):
        plain = pursue(gradients, products, 0.7, budget, first_plain=first_plain)
        found = pursue_on_device(gradients, products, 0.7, budget, first_plain=first_plain)
        assert found.tolist() == plain.tolist()


def test_of_equal_samples_the_lowest_position_comes_first() -> None:
    features, logits = problem(6, 20, width=33)
    view = view_of(np.tile(features, (5, 1)), np.tile(logits, (5, 1)))
    for compat in ("deepcore", "paper"):
        picks = gradmatch(view, 100, RNG, compat=compat).positions
        for one in range(20):
            assert picks[picks % 20 == one].tolist() == [one, one + 20, one + 40, one + 60, one + 80]


@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_gradients_of_length_zero_are_no_help(compat: str) -> None:
    features, logits = problem(7, 12)
    logits[[2, 7]] = [-3e38, 3e38, -3e38, -3e38]
    found = gradmatch(view_of(features, logits), 12, RNG, compat=compat)
    assert sorted(found.positions) == list(range(12))
    assert np.isfinite(found.weights).all()
    assert found.weights[np.isin(found.positions, [2, 7])].tolist() == [0, 0]
    nothing = gradmatch(view_of(features[:3], np.tile(logits[2], (3, 1))), 3, RNG, compat=compat)
    assert nothing.positions.tolist() == [0, 1, 2]
    assert nothing.weights.tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", [1e8, 1e15])
@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_gradients_that_dwarf_the_ridge(compat: str, scale: float) -> None:
    features, logits = problem(8, 60)
    found = gradmatch(view_of(features * np.float32(scale), logits), 60, RNG, compat=compat)
    assert sorted(found.positions) == list(range(60))
    assert np.isfinite(found.weights).all()
    assert (found.weights >= 0).all()
    assert found.weights.max() > 0


def test_memory_is_what_it_says() -> None:
    view = view_of(*problem(9, 1500, width=64, classes=10))
    assert view.gradients.features.shape == (1500, 64)
    tracemalloc.start()
    try:
        gradmatch(view, 300, RNG)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * least_bytes(Size(1500, 64, 10, 300))
    assert peak < 8 * 1500 * 10 * 65  # the gradients written out


def test_too_little_memory_is_refused_beforehand() -> None:
    features, logits = problem(0, 50)
    signals = Signals.from_arrays(features, logits, np.full(50, CLASS), num_classes=4)
    with pytest.raises(UserError, match="the method 'gradmatch' needs"):
        rank(signals, gradmatch, counts=[0, 30, 0, 0], max_memory=8 * 50 * 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1"),
        ({"ridge": 0.0}, "ridge of gradmatch"),
        ({"ridge": float("inf")}, "ridge of gradmatch"),
        ({"compat": "cords"}, "compat of gradmatch"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gradmatch(view_of(*problem(0, 9)), 3, RNG, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_a_gpu_picks_the_same(compat: str) -> None:
    signals = Signals.from_arrays(*problem(10, 300), np.full(300, CLASS))
    expected = gradmatch(signals.view(CLASS), 40, RNG, compat=compat)
    found = gradmatch(signals.to("cuda").view(CLASS), 40, RNG, compat=compat)
    assert found.positions.tolist() == expected.positions.tolist()
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-6)
