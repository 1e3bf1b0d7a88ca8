"""The last layer fitted by Newton's method against SciPy and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.nn import functional

from dqas_plugin.logistic import Standardiser, fit, hessian_product


def problem(n: int, d: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, classes, n)
    features = draws.normal(size=(classes, d))[labels] + draws.normal(size=(n, d))
    return torch.from_numpy(np.c_[features, np.ones(n)]), torch.from_numpy(labels)


def objective(
    weights: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, l2: float, prior: torch.Tensor
) -> torch.Tensor:
    return functional.cross_entropy(inputs @ weights + prior, labels, reduction="sum") + l2 / 2 * weights.square().sum()


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(3, 60),
    d=st.integers(1, 6),
    classes=st.integers(2, 5),
    l2=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_the_gradient_vanishes(n: int, d: int, classes: int, l2: float, seed: int) -> None:
    inputs, labels = problem(n, d, classes, seed)
    prior = torch.linspace(-1, 1, classes, dtype=torch.float64)
    weights = fit(inputs, labels, classes, l2=l2, log_prior=prior, tolerance=1e-8).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(weights, inputs, labels, l2, prior), weights)
    assert gradient.abs().max() < 1e-6


def test_scipy_finds_the_same() -> None:
    inputs, labels = problem(80, 4, 3, 0)
    none = torch.zeros(3, dtype=torch.float64)

    def loss(flat: np.ndarray) -> float:
        return float(objective(torch.from_numpy(flat).view(5, 3), inputs, labels, 0.5, none))

    found = minimize(loss, np.zeros(15), method="BFGS", options={"gtol": 1e-5})
    ours = fit(inputs, labels, 3, l2=0.5, tolerance=1e-9)
    assert np.allclose(found.x.reshape(5, 3), ours.numpy(), atol=1e-4)


def test_where_it_starts_does_not_matter() -> None:
    inputs, labels = problem(100, 5, 4, 1)
    start = torch.full((6, 4), 3.0, dtype=torch.float64)
    first = fit(inputs, labels, 4, l2=0.1, tolerance=1e-9)
    assert torch.allclose(first, fit(inputs, labels, 4, l2=0.1, start=start, tolerance=1e-9), atol=1e-7)
    assert (start == 3.0).all()


def test_hessian_product_is_autograds() -> None:
    inputs, labels = problem(20, 3, 4, 2)
    weights = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vector = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    none = torch.zeros(4, dtype=torch.float64)
    _, expected = torch.autograd.functional.hvp(lambda w: objective(w, inputs, labels, 0.3, none), weights, vector)
    product = hessian_product(inputs, (inputs @ weights).softmax(1), 0.3, vector)
    assert torch.allclose(product, expected)


def test_separable_data_stay_finite() -> None:
    inputs = torch.tensor([[-50.0, 1.0], [50.0, 1.0]], dtype=torch.float64)
    weights = fit(inputs, torch.tensor([0, 1]), 2, l2=1e-6)
    assert weights.isfinite().all()
    assert (inputs @ weights).argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize(("n", "d", "kept"), [(50, 8, 3), (50, 8, 20), (4, 8, 3), (1, 5, 5)])
def test_standardiser_keeps_the_main_directions(n: int, d: int, kept: int) -> None:
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(n, d)) * np.arange(1, d + 1)).float()
    mapped = Standardiser.of(features, kept)(features)
    width = min(n, d, kept)
    assert mapped.shape == (n, width + 1)
    assert (mapped[:, -1] == 1).all()
    assert mapped[:, :-1].mean(0).abs().max() < 1e-6
    if n > 1:
        assert float(mapped[:, :-1].square().sum(1).mean()) == pytest.approx(1.0)
        centred = features.double() - features.double().mean(0)
        largest = torch.linalg.svdvals(centred)[:width].square().sum()
        scale = torch.linalg.svdvals(mapped[:, :-1]).square().sum()
        assert float(scale) == pytest.approx(n)
        spread = torch.linalg.svdvals(mapped[:, :-1]).square() / scale
        assert torch.allclose(
            spread.sort().values[-width:], (torch.linalg.svdvals(centred)[:width].square() / largest).sort().values, atol=1e-6
        )
