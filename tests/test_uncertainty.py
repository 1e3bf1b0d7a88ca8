"""The rules of uncertainty against their definitions, the picks of the real DeepCore, and where rounding would tie them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_plugin.contracts import Selector
from dqas_plugin.errors import UserError
from dqas_plugin.methods.uncertainty import SELECTORS, deepfool, entropy, least_confidence, margin, odds_against
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals, View

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)
with_logits = pytest.mark.parametrize("selector", [least_confidence, entropy, margin], ids=lambda one: one.name)


def view_of(logits: Array, perturbations: Array | None = None) -> View:
    count = len(logits)
    return Signals.from_arrays(None, logits, np.zeros(count, np.int64), perturbations=perturbations).view(0)


def order(selector: Selector, logits: Array, **options: Any) -> list[int]:
    found: list[int] = selector(view_of(np.asarray(logits, np.float32)), 1, RNG, **options).tolist()
    return found


def random_logits(seed: int, count: int, classes: int = 5) -> Array:
    return (np.random.default_rng(seed).normal(size=(count, classes)) * 3).astype(np.float32)


@pytest.mark.parametrize("fraction", [0.1, 0.3])
@with_logits
def test_picks_of_the_real_deepcore(shared: Path, selector: Selector, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    counts = [round(fraction * size) for size in np.bincount(golden["labels"])]
    ranking = rank(Signals.from_arrays(None, logits, golden["labels"]), selector, counts=counts, seed=7)
    expected = golden[f"{selector.name}@{fraction}"]
    for label, picks in enumerate(ranking.order):
        assert set(picks) == set(expected[golden["labels"][expected] == label])


@given(seed=st.integers(0, 10_000), count=st.integers(1, 30), classes=st.integers(2, 9))
@settings(deadline=None, max_examples=60)
def test_all_follow_their_definitions(seed: int, count: int, classes: int) -> None:
    logits = random_logits(seed, count, classes)
    wide = logits.astype(np.float64)
    chances = scipy.special.softmax(wide, axis=1)
    ordered = np.sort(chances, axis=1)
    assert order(least_confidence, logits) == np.argsort(wide.max(axis=1)).tolist()
    assert order(least_confidence, logits, compat="paper") == np.argsort(ordered[:, -1]).tolist()
    assert order(margin, logits) == np.argsort(ordered[:, -1] - ordered[:, -2]).tolist()
    assert order(entropy, logits, compat="paper") == np.argsort(-scipy.stats.entropy(chances, axis=1)).tolist()
    assert order(entropy, logits) == np.argsort((chances * np.log(chances + 1e-6)).sum(axis=1)).tolist()


def test_a_high_logit_among_high_ones_is_no_confidence() -> None:
    logits = [[9.0, 8.9, 8.8], [1.0, -9.0, -9.0]]
    assert order(least_confidence, logits) == [1, 0]  # the lower logit
    assert order(least_confidence, logits, compat="paper") == [0, 1]  # the lower probability


def test_many_tiny_probabilities_have_more_entropy_than_deepcore_sees() -> None:
    classes = 1000
    many = np.full(classes, np.log(1e-8))
    one = np.full(classes, -200.0)
    many[0], one[0], one[1] = 0.0, 0.0, np.log(1.4e-5)
    assert order(entropy, [many, one]) == [1, 0]
    assert order(entropy, [many, one], compat="paper") == [0, 1]


@pytest.mark.parametrize(("selector", "compat"), [(least_confidence, "paper"), (margin, "deepcore"), (entropy, "paper")])
def test_samples_the_network_is_very_sure_of_have_an_order(selector: Selector, compat: str) -> None:
    gaps = np.array([60, 45, 300, 52, 41, 700], dtype=np.float32)  # 1 - p rounds to 0 in float64 for all of them
    logits = np.stack([gaps, np.zeros(6), -np.arange(6)], axis=1)
    assert order(selector, logits, compat=compat) == np.argsort(gaps).tolist()


def test_odds_are_those_of_the_probabilities() -> None:
    logits = random_logits(3, 40)
    highest = scipy.special.softmax(logits.astype(np.float64), axis=1).max(axis=1)
    np.testing.assert_allclose(odds_against(torch.from_numpy(logits)), np.log((1 - highest) / highest), rtol=1e-9)


@with_logits
@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_equal_answers_keep_their_order(selector: Selector, compat: str) -> None:
    logits = random_logits(8, 300, 10)[np.arange(900) % 300]
    found = order(selector, logits, compat=compat)
    first = [one for one in found if one < 300]
    assert found == [one + shift for one in first for shift in (0, 300, 600)]
    assert order(selector, np.zeros((7, 3)), compat=compat) == list(range(7))


@with_logits
@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_a_network_of_one_class_is_always_sure(selector: Selector, compat: str) -> None:
    logits = [[3.0], [3.0], [3.0]]
    assert order(selector, logits, compat=compat) == [0, 1, 2]


def test_deepfool_takes_the_shortest_way_to_the_boundary_first() -> None:
    view = view_of(np.zeros((5, 2), np.float32), np.array([0.3, 0.1, 0.0, 0.1, 2.0], np.float32))
    for compat in ("deepcore", "paper"):
        assert deepfool(view, 2, RNG, compat=compat).tolist() == [2, 1, 3, 0, 4]


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda one: one.name)
def test_an_unknown_compat_is_answered_with_the_valid_ones(selector: Selector) -> None:
    view = view_of(random_logits(0, 4), np.ones(4, np.float32))
    with pytest.raises(UserError, match=rf"compat of {selector.name}.*paper"):
        selector(view, 2, RNG, compat="papre")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@with_logits
@pytest.mark.parametrize("compat", ["deepcore", "paper"])
def test_a_gpu_gives_the_same_order(selector: Selector, compat: str) -> None:
    signals = Signals.from_arrays(None, random_logits(5, 500), np.zeros(500, np.int64))
    expected = selector(signals.view(0), 500, RNG, compat=compat)
    assert selector(signals.to("cuda").view(0), 500, RNG, compat=compat).tolist() == expected.tolist()
