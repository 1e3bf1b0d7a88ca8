"""Expected error change against what truly happens: fits with every candidate, to the last digits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from dqas_plugin.errors import UserError
from dqas_plugin.losses import log_prior
from dqas_plugin.refinement import SCORERS, expected_error_change
from dqas_plugin.refinement.last_layer import Problem
from dqas_plugin.refinement.scorers import PENALTIES, damped
from refits import clusters, inputs_of, newton

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Case:
    """A problem and what each of some candidates does to it, with or without leaving the pool."""

    features: Array
    labels: Array
    selected: Array
    tried: Array
    true: Array
    true_without: Array
    losses: Array
    l2: float
    prior: str

    def found(self, scorer: str, **options: Any) -> Array:
        return expected_error_change(
            self.features, self.labels, self.selected, l2=self.l2, scorer=scorer, prior=self.prior, **options
        )[self.tried]

    def rank(self, found: Array, exclude_self: bool = False) -> float:
        return float(spearmanr(found, self.true_without if exclude_self else self.true)[0])

    def efficiency(self, found: Array) -> float:
        """What the best tenth truly gains, as a part of what could be gained."""
        tenth = len(found) // 10
        return float(self.true[np.argsort(found)[:tenth]].mean() / np.sort(self.true)[:tenth].mean())


@cache
def case(seed: int, l2: float = 1.0, prior: str = "empirical", uneven: bool = False, tried: int = 200) -> Case:
    count, width, classes, size = 1500, 14, 4, 200
    features, labels = clusters(count, width, classes, seed)
    draws = np.random.default_rng(seed)
    order = draws.permutation(count)
    if uneven:
        order = np.concatenate([order[labels[order] < 2], order[labels[order] >= 2]])
        order[: 2 * size] = draws.permutation(np.r_[order[: size + 80], order[-(size - 80) :]])
    selected = np.unique(order[:size]).astype(np.int64)
    pool = np.setdiff1d(np.arange(count), selected)
    chosen = draws.choice(pool, tried, replace=False)
    inputs, truth = inputs_of(features, selected), torch.from_numpy(labels)

    def offset(indices: Array) -> Tensor:
        return log_prior(truth[indices], classes).double() if prior == "balanced" else torch.zeros(classes).double()

    weights = newton(inputs[selected], truth[selected], classes, l2, offset(selected))
    before = functional.cross_entropy(inputs[pool] @ weights, truth[pool], reduction="none")
    changes = []
    for one in chosen:
        grown = np.append(selected, one)
        fitted = newton(inputs[grown], truth[grown], classes, l2, offset(grown), weights)
        changes.append(functional.cross_entropy(inputs[pool] @ fitted, truth[pool], reduction="none") - before)
    every = torch.stack(changes)
    places = torch.from_numpy(np.searchsorted(pool, chosen))
    own = every[torch.arange(tried), places]
    without = (every.sum(1) - own) / (len(pool) - 1)
    return Case(features, labels, selected, chosen, every.mean(1).numpy(), without.numpy(), before[places].numpy(), l2, prior)


@pytest.mark.parametrize("seed", [0, 1])
def test_foresees_a_fit_with_every_candidate(seed: int) -> None:
    this = case(seed, l2=0.1)
    found = this.found("kap2nd")
    assert this.rank(found) >= 0.95
    assert this.efficiency(found) >= 0.95
    assert 0.8 < np.polyfit(found, this.true, 1)[0] < 1.2  # its size means something too
    assert this.rank(this.found("kap2nd", exclude_self=True), exclude_self=True) >= 0.95
    assert this.rank(found) >= this.rank(this.found("influence")) - 0.02
    assert 0.2 < (this.true < 0).mean() < 0.9  # else it would be no test of the sign


@pytest.mark.parametrize("seed", [0, 1])
def test_what_knows_less_is_visibly_worse(seed: int) -> None:
    this = case(seed, l2=0.1)
    best, good = this.rank(this.found("kap2nd")), this.efficiency(this.found("kap2nd"))
    drawn = np.random.default_rng(seed).normal(size=len(this.tried))
    for other in (this.found("gradient"), -this.losses, drawn):
        assert this.rank(other) < best - 0.2
        assert this.efficiency(other) < good - 0.1
    assert abs(this.rank(drawn)) < 0.2
    assert this.rank(this.found("ridge")) < best - 0.05  # exact for its own loss alone


@pytest.mark.parametrize("prior", ["empirical", "balanced"])
def test_uneven_selections(prior: str) -> None:
    this = case(3, prior=prior, uneven=True, tried=60)
    counts = np.bincount(this.labels[this.selected], minlength=4)
    assert counts.max() > 2 * counts.min()
    found = this.found("kap2nd")
    assert this.rank(found) >= 0.95
    assert 0.8 < np.polyfit(found, this.true, 1)[0] < 1.2
    other = expected_error_change(
        this.features, this.labels, this.selected, prior="balanced" if prior == "empirical" else "empirical"
    )[this.tried]
    assert this.rank(other) < this.rank(found)


@pytest.mark.parametrize("prior", ["empirical", "balanced"])
def test_influence_is_the_derivative_by_the_weight(prior: str) -> None:
    this = case(3, prior=prior, uneven=True, tried=60)
    classes, little = 4, 1e-4
    inputs, truth = inputs_of(this.features, this.selected), torch.from_numpy(this.labels)
    pool = np.setdiff1d(np.arange(len(truth)), this.selected)
    found = expected_error_change(
        this.features, this.labels, this.selected, l2=this.l2, scorer="influence", prior=prior, num_classes=classes
    )

    def error(indices: Array, last: float, start: Tensor | None = None) -> tuple[float, Tensor]:
        each = torch.ones(len(indices), dtype=torch.float64)
        each[-1] = last
        none = torch.zeros(classes, dtype=torch.float64)
        counts = torch.bincount(truth[indices], each, minlength=classes)
        offset = counts.log() if prior == "balanced" else none
        fitted = newton(inputs[indices], truth[indices], classes, this.l2, offset, start, last)
        return float(functional.cross_entropy(inputs[pool] @ fitted, truth[pool])), fitted

    _, weights = error(this.selected, 1.0)
    slopes = []
    for one in this.tried[:20]:
        grown = np.append(this.selected, one)
        slopes.append((error(grown, little, weights)[0] - error(grown, -little, weights)[0]) / (2 * little))
    largest = np.abs(slopes).max()
    assert np.allclose(found[this.tried[:20]], slopes, rtol=1e-3, atol=1e-3 * largest)


def literal_newton(this: Case, exclude_self: bool) -> Array:
    """One whole Newton step with each candidate, and the pool's losses to second order (exclude_self: the own one exactly)."""
    inputs, truth = inputs_of(this.features, this.selected), torch.from_numpy(this.labels)
    classes, size = int(truth.max()) + 1, inputs.shape[1]
    counts = torch.bincount(truth[this.selected], minlength=classes).double()
    offset = counts.log() if this.prior == "balanced" else torch.zeros_like(counts)
    weights = newton(inputs[this.selected], truth[this.selected], classes, this.l2, offset)
    targets = torch.eye(classes, dtype=torch.float64)[truth]

    def hessian(x: Tensor, p: Tensor) -> Tensor:
        blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        return torch.einsum("nab,nd,ne->daeb", blocks, x, x).reshape(size * classes, size * classes)

    pool = np.setdiff1d(np.arange(len(truth)), this.selected)
    chosen, p = inputs[this.selected], (inputs @ weights + offset).softmax(1)
    tested = (inputs[pool] @ weights).softmax(1)
    slope = (inputs[pool].T @ (tested - targets[pool])).flatten() / len(pool)
    bend = hessian(inputs[pool], tested) / len(pool)
    curvature = hessian(chosen, p[this.selected]) + this.l2 * torch.eye(size * classes, dtype=torch.float64)
    found = []
    for one in this.tried:
        x, label = inputs[one][None], truth[one]
        step = -torch.linalg.solve(curvature + hessian(x, p[one][None]), (x.T @ (p[one] - targets[one])[None]).flatten())
        change = slope @ step + step @ bend @ step / 2
        if this.prior == "balanced":  # the logits of the class rise in training, to first order
            risen = p[this.selected][:, label, None] * (targets[one] - p[this.selected])
            change -= slope @ torch.linalg.solve(curvature, (chosen.T @ risen).flatten()) * torch.log1p(1 / counts[label])
        if exclude_self:
            after, before = (functional.cross_entropy(x @ at, label[None]) for at in (weights + step.view_as(weights), weights))
            change = (len(pool) * change - (after - before)) / (len(pool) - 1)
        found.append(float(change))
    return np.array(found)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("prior", ["empirical", "balanced"])
def test_kap2nd_is_newtons_step_where_the_classes_are_two(prior: str, exclude_self: bool) -> None:
    features, labels = clusters(300, 6, 2, 0)
    order = np.argsort(labels, kind="stable")
    selected, tried = np.sort(np.r_[order[:25], order[-10:]]), order[30:230:10]
    none = np.empty(0)
    this = Case(features, labels, selected, tried, none, none, none, 0.3, prior)
    expected = literal_newton(this, exclude_self)
    assert np.allclose(this.found("kap2nd", exclude_self=exclude_self), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def brute_ridge(inputs: Array, labels: Array, selected: Array, l2: float, exclude_self: bool) -> Array:
    pool = np.setdiff1d(np.arange(len(labels)), selected)
    targets = np.eye(labels.max() + 1)[labels]

    def losses(indices: Array) -> Array:
        x = inputs[indices]
        weights = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets[indices])
        return np.square(targets[pool] - inputs[pool] @ weights).sum(1)

    before, found = losses(selected), np.full(len(labels), np.nan)
    for place, one in enumerate(pool):
        changes = losses(np.append(selected, one)) - before
        found[one] = np.delete(changes, place).mean() if exclude_self else changes.mean()
    return found


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("l2", [0.1, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ridge_is_exact(dtype: type, l2: float, exclude_self: bool) -> None:
    features, labels = clusters(90, 6, 3, 0)
    features = features.astype(dtype)
    selected = np.arange(0, 90, 5)
    expected = brute_ridge(inputs_of(features.astype(float), selected).numpy(), labels, selected, l2, exclude_self)
    found = expected_error_change(features, labels, selected, l2=l2, scorer="ridge", exclude_self=exclude_self)
    assert np.array_equal(np.isnan(found), np.isin(np.arange(90), selected))
    assert np.nanmax(np.abs(found - expected)) < 1e-9


@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(2, 8),
    leverage=st.sampled_from([0.0, 1e-3, 1.0, 50.0, 1e6]),
    sharpness=st.sampled_from([0.0, 1.0, 30.0, 2000.0]),
    seed=st.integers(0, 99),
)
def test_damping_solves_its_equation(classes: int, leverage: float, sharpness: float, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    p = (sharpness * torch.randn(6, classes, dtype=torch.float64, generator=draws)).softmax(1)
    r = p - functional.one_hot(torch.randint(0, classes, (6,), generator=draws), classes)
    found = damped(p, r, torch.full((6,), leverage, dtype=torch.float64))
    assert found.isfinite().all()
    systems = torch.eye(classes, dtype=torch.float64) + leverage * (torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    remainder = (systems @ found[:, :, None])[:, :, 0] - r
    assert remainder.abs().max() < 1e-12 * max(1.0, leverage)
    if leverage < 100:
        assert torch.allclose(found, torch.linalg.solve(systems, r), atol=1e-10)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("exclude_self", [False, True])
def test_sure_of_everything_is_no_nan(scorer: str, exclude_self: bool) -> None:
    labels = np.arange(60) % 3
    features = 1e4 * np.eye(3)[labels] + np.random.default_rng(0).normal(size=(60, 3))
    labels[50:] = (labels[50:] + 1) % 3  # sure, and wrong
    found = expected_error_change(
        features.astype(np.float32), labels, np.arange(30), l2=1e-6, scorer=scorer, exclude_self=exclude_self
    )
    assert np.isfinite(found[30:]).all()
    assert np.isnan(found[:30]).all()


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("prior", ["empirical", "balanced"])
def test_degenerate_input_gives_numbers(scorer: str, prior: str) -> None:
    many = np.random.default_rng(0).normal(size=(12, 3))
    for features, selected in (
        (np.zeros((12, 3)), [0, 1]),  # nothing to tell them apart
        (many, [4]),  # one sample, of one class
        (many, [0, 3, 6, 9]),  # classes that are not in it
        (many, list(range(11))),  # a pool of one
        (np.random.default_rng(0).normal(size=(12, 40)), [0, 1, 2]),  # more features than samples
    ):
        for exclude_self in (False, True):
            found = expected_error_change(
                features, np.arange(12) % 3, selected, scorer=scorer, prior=prior, exclude_self=exclude_self
            )
            assert np.array_equal(np.isnan(found), np.isin(np.arange(12), selected))
    assert np.isnan(expected_error_change(many, np.arange(12) % 3, range(12), scorer=scorer)).all()


def test_lists_masks_types_and_units_do_not_matter() -> None:
    features, labels = clusters(80, 5, 3, 1)
    selected = np.arange(0, 80, 4)
    found = expected_error_change(features, labels, selected)
    assert found.dtype == np.float64
    mask = np.isin(np.arange(80), selected)
    for other in (
        expected_error_change(torch.from_numpy(features), torch.from_numpy(labels), selected),
        expected_error_change(features, labels.tolist(), mask),
        expected_error_change(7 * features - 100, labels, selected[::-1]),
    ):
        assert np.allclose(found, other, equal_nan=True, atol=1e-8)
    single = expected_error_change(features.astype(np.float32), labels, selected)
    assert np.nanmax(np.abs(found - single)) < 1e-3 * np.nanmax(np.abs(found))


def test_parts_of_the_pool_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters(80, 5, 3, 1)
    for scorer in SCORERS:
        whole = expected_error_change(features, labels, range(20), scorer=scorer)
        with monkeypatch.context() as patched:
            patched.setattr("dqas_plugin.refinement.last_layer._CHUNK", 7)
            parts = expected_error_change(features, labels, range(20), scorer=scorer)
        assert np.allclose(whole, parts, equal_nan=True, rtol=1e-6)


def test_the_penalty_is_chosen_by_the_pool() -> None:
    features, labels = clusters(300, 20, 3, 2)
    selected = np.arange(40)
    problem = Problem.of(features, labels, selected)
    losses = {l2: problem.fitted(selected, l2).pool_loss for l2 in PENALTIES}
    best = min(losses, key=lambda one: losses[one])
    expected = expected_error_change(features, labels, selected, l2=best)
    found = expected_error_change(features, labels, selected, l2=None)
    assert np.allclose(found, expected, equal_nan=True, atol=1e-5)
    assert min(abs(losses[one] - losses[best]) for one in PENALTIES if one != best) > 1e-3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scorer": "kap2"}, "unknown scorer 'kap2': did you mean 'kap2nd'"),
        ({"prior": "balance"}, "unknown prior 'balance': did you mean 'balanced'"),
        ({"l2": 0.0}, "l2 must be above 0"),
        ({"selected": []}, "nothing is selected"),
        ({"selected": [1, 1]}, "different indices"),
        ({"selected": [9]}, "indices in 0..8"),
        ({"selected": [0.5]}, "whole numbers"),
        ({"labels": [0, 1]}, r"must be \[N, d\] and \[N\]"),
        ({"num_classes": 2}, r"labels must lie in 0\.\.1, not 0\.\.2"),
        ({"features": np.full((9, 2), np.nan)}, "not finite"),
    ],
)
def test_bad_input_is_one_sentence(changed: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"features": np.eye(9), "labels": np.arange(9) % 3, "selected": [0, 1, 2]}
    with pytest.raises(UserError, match=said):
        expected_error_change(**{**given, **changed})
