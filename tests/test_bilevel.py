"""Glister against its two definitions: products of written-out gradients, and a network that takes the steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dqas_plugin.errors import UserError
from dqas_plugin.methods.bilevel import glister, own_products, proportional_residuals
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals
from last_layer import CLASS, Array, problem, view_of, written_out

RNG = np.random.default_rng(0)


def literal_deepcore(features: Array, logits: Array, batch: int) -> list[int]:
    """Greedy without any update."""
    rows = written_out(features, logits, batch).reshape(len(features), -1)
    return [int(one) for one in np.argsort(-(rows @ rows.mean(axis=0)), kind="stable")]


def literal_paper(features: Array, logits: Array, budget: int, eta: float, block: int) -> list[int]:
    """A linear layer on top that takes the step of the picked; its validation loss differentiated anew after each block."""
    inputs = torch.from_numpy(features).double()
    labels = torch.full((len(features),), CLASS)
    own = written_out(features, logits, 1).reshape(len(features), -1)
    picks: list[int] = []
    while len(picks) < budget:
        layer = torch.nn.Linear(features.shape[1], logits.shape[1], dtype=torch.float64)
        moved = -eta * torch.from_numpy(own[picks].sum(axis=0)).view(logits.shape[1], -1)  # θ - η Σ g
        with torch.no_grad():
            layer.weight.copy_(moved[:, :-1])
            layer.bias.copy_(moved[:, -1])
        loss = functional.cross_entropy(torch.from_numpy(logits).double() + layer(inputs), labels)
        weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
        gains = own @ torch.cat([weight, bias[:, None]], dim=1).flatten().numpy()
        gains[picks] = -np.inf
        picks += np.argsort(-gains, kind="stable")[: min(block, budget - len(picks))].tolist()
    return picks


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_picks_of_the_real_deepcore(shared: Path, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    signals = Signals.from_arrays(golden["features"], logits, golden["labels"])
    counts = [round(fraction * size) for size in np.bincount(golden["labels"])]
    expected = golden[f"glister@{fraction}"]
    for label, picks in enumerate(rank(signals, glister, counts=counts, seed=7).order):
        assert set(picks) == set(expected[golden["labels"][expected] == label])


@given(seed=st.integers(0, 10_000), count=st.integers(1, 50), batch=st.sampled_from([None, 1, 7, 16, 50]))
@settings(deadline=None, max_examples=60)
def test_deepcore_follows_its_definition(seed: int, count: int, batch: int | None) -> None:
    features, logits = problem(seed, count)
    assert glister(view_of(features, logits), 1, RNG, batch=batch).tolist() == literal_deepcore(
        features, logits, batch or count
    )


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 30),
    eta=st.sampled_from([0.0, 0.001, 0.01]),
    block=st.sampled_from([1, 4, 20]),
)
@settings(deadline=None, max_examples=60)
def test_paper_follows_its_definition(seed: int, count: int, eta: float, block: int) -> None:
    features, logits = problem(seed, count)
    found = glister(view_of(features, logits), count, RNG, eta=eta, block=block, compat="paper").tolist()
    # Longer steps soon fit the class so well that p - 1 leaves the definition no digits.
    assert found == literal_paper(features, logits, count, eta, block)


def test_the_update_makes_the_difference() -> None:
    features, logits = problem(2, 60)
    view = view_of(features, logits)
    plain = glister(view, 60, RNG, batch=None).tolist()
    found = glister(view, 60, RNG, compat="paper", block=5).tolist()
    assert found[:5] == plain[:5]
    assert set(found[:20]) != set(plain[:20])
    assert glister(view, 60, RNG, compat="paper", eta=0.0).tolist() == plain
    assert glister(view, 60, RNG).tolist() == plain  # one batch
    assert glister(view, 60, RNG, batch=16).tolist() != plain


@pytest.mark.parametrize("block", [1, 7, 20])
def test_fewer_are_the_first_of_more(block: int) -> None:
    view = view_of(*problem(3, 40))
    longest = glister(view, 40, RNG, compat="paper", block=block).tolist()
    for budget in range(1, 41):
        assert glister(view, budget, RNG, compat="paper", block=block).tolist() == longest[:budget]


def test_residuals_keep_their_proportions() -> None:
    _, logits = problem(4, 30)
    labels = torch.full((30,), CLASS)
    outputs = torch.from_numpy(logits).double()
    plain = outputs.softmax(dim=1) - functional.one_hot(labels, 4)
    found = proportional_residuals(outputs, labels)
    np.testing.assert_allclose(found / found[0, 0], plain / plain[0, 0], rtol=1e-9)
    assert float(found[:, [0, 2, 3]].max()) == 1.0


def test_residuals_of_a_class_that_fits_beyond_float64() -> None:
    _, logits = problem(5, 30)
    labels = torch.full((30,), CLASS)
    outputs = torch.from_numpy(logits).double()
    outputs[:, CLASS] += 2000  # every wrong probability is 0 in float64
    assert not (outputs.softmax(dim=1) - functional.one_hot(labels, 4)).any()
    odds = (outputs - outputs[:, CLASS : CLASS + 1] + 2000).exp()
    odds[:, CLASS] = 0
    odds[:, CLASS] = -odds.sum(dim=1)
    found = proportional_residuals(outputs, labels)
    np.testing.assert_allclose(found, odds / odds[:, [0, 2, 3]].max(), rtol=1e-9)


@pytest.mark.parametrize("compat", ["deepcore", "paper"])
@pytest.mark.parametrize("seed", [3, 4])
def test_equal_samples_keep_their_order(compat: str, seed: int) -> None:
    features, logits = problem(seed, 31, width=57, classes=10)
    view = view_of(np.tile(features, (67, 1)), np.tile(logits, (67, 1)))  # so many rows that products treat some otherwise
    found = glister(view, 2077, RNG, compat=compat, eta=0.0, batch=None, block=2077)
    assert (found.reshape(31, 67) == found.reshape(31, 67)[:, :1] + 31 * np.arange(67)).all()


@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_samples_that_are_all_the_same_come_in_their_order(compat: str) -> None:
    view = view_of(np.ones((5, 2), np.float32), np.zeros((5, 2), np.float32))
    assert glister(view, 5, RNG, compat=compat, block=2).tolist() == list(range(5))


def test_products_are_those_of_the_matrix_of_pairs() -> None:
    features, logits = problem(7, 25)
    rows = written_out(features, logits, 1).reshape(len(features), -1)
    np.testing.assert_allclose(
        own_products(view_of(features, logits).gradients), (rows @ rows.T).sum(axis=1), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1"),
        ({"compat": "paper", "block": 0}, "block must be at least 1"),
        ({"compat": "paper", "eta": -0.1}, "eta of glister"),
        ({"compat": "paper", "eta": float("nan")}, "eta of glister"),
        ({"compat": "papers"}, "compat of glister"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        glister(view_of(*problem(0, 9)), 3, RNG, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_a_gpu_gives_the_same_order(compat: str) -> None:
    features, logits = problem(8, 300)
    signals = Signals.from_arrays(features, logits, np.full(300, CLASS))
    expected = glister(signals.view(CLASS), 40, RNG, compat=compat)[:40]
    assert glister(signals.to("cuda").view(CLASS), 40, RNG, compat=compat)[:40].tolist() == expected.tolist()
