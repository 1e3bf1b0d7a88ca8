"""GraNd against gradients from automatic differentiation, written out, batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from dqas_plugin.errors import UserError
from dqas_plugin.methods.gradient_norm import grand
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def signals_of(seed: int, count: int, runs: int = 1, classes: int = 3) -> Signals:
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, classes, count)

    def one() -> Signals:
        features = draws.normal(size=(count, 5)).astype(np.float32) + 1
        return Signals.from_arrays(features, draws.normal(size=(count, classes)).astype(np.float32) * 3, labels)

    first, *others = [one() for _ in range(runs)]
    return Signals.from_arrays(first.features, first.logits, labels, runs=others)


def lengths(signals: Signals, batch: int) -> Array:
    """Norms of the gradients of the mean loss of a batch in each sample's logits and the last layer's weights, ``[N]``."""
    assert signals.features is not None
    assert signals.logits is not None
    result = []
    for start in range(0, len(signals), batch):
        rows = slice(start, start + batch)
        outputs = signals.logits[rows].double().requires_grad_()
        functional.cross_entropy(outputs, signals.labels[rows]).backward()
        assert outputs.grad is not None
        weights = outputs.grad[:, :, None] * signals.features[rows].double()[:, None]
        result += torch.cat([outputs.grad, weights.flatten(1)], dim=1).norm(dim=1).tolist()
    return np.array(result)


def falling(scores: Array) -> list[int]:
    return [int(one) for one in np.argsort(-scores, kind="stable")]


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_picks_of_the_real_deepcore(shared: Path, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    signals = Signals.from_arrays(golden["features"], logits, golden["labels"])
    counts = [round(fraction * size) for size in np.bincount(golden["labels"])]
    expected = golden[f"grand@{fraction}"]
    for label, picks in enumerate(rank(signals, grand, counts=counts, seed=7, repeat=1).order):
        assert set(picks) == set(expected[golden["labels"][expected] == label])


def test_the_longest_mean_gradient_comes_first() -> None:
    whole = signals_of(1, 60, runs=3)
    mean = np.mean([lengths(one, 60) for one in (whole, *whole.runs)], axis=0)
    for label in range(3):
        members = whole.members(label)
        assert grand(whole.view(label), 5, RNG, repeat=3).tolist() == falling(mean[members])
    first = lengths(whole, 60)
    assert grand(whole.view(0), 5, RNG, repeat=1).tolist() == falling(first[whole.members(0)])
    assert falling(first[whole.members(0)]) != falling(mean[whole.members(0)])


def test_it_says_that_trainings_are_missing() -> None:
    view = signals_of(2, 30, runs=3).view(1)
    grand(view, 5, RNG, repeat=3)
    assert view.notes == []
    grand(view, 5, RNG)
    assert view.notes == ["grand averaged over 3 of the 10 trainings asked for (repeat): there are no more"]


def test_samples_of_the_last_batch_of_the_dataset_come_first_in_deepcore_only() -> None:
    whole = signals_of(3, 62)
    assert falling(lengths(whole, 20)) != falling(lengths(whole, 62))
    for label in range(3):
        view, members = whole.view(label), whole.members(label)
        assert grand(view, 5, RNG, repeat=1, batch=20).tolist() == falling(lengths(whole, 20)[members])
        assert grand(view, 5, RNG, repeat=1, batch=20, compat="paper").tolist() == falling(lengths(whole, 62)[members])
    label = int(whole.labels[61])  # it is in a batch of two, and ten times as long as in one of 20
    view = whole.view(label)
    first, alone = (view.indices[grand(view, 1, RNG, repeat=1, batch=size)].tolist().index(61) for size in (20, None))
    assert first < alone


def test_batches_are_those_of_the_candidates() -> None:
    whole = signals_of(4, 60)
    candidates = np.sort(np.random.default_rng(0).permutation(60)[:33])
    alone = whole.subset(candidates)
    for label in range(3):
        found = grand(whole.view(label, candidates), 5, RNG, repeat=1, batch=16).tolist()
        assert found == falling(lengths(alone, 16)[alone.members(label)])


def test_equal_samples_keep_their_order() -> None:
    whole = signals_of(5, 40, classes=1)
    copies = whole.subset(np.arange(40)).to("cpu")
    assert copies.features is not None
    assert copies.logits is not None
    twice = Signals.from_arrays(copies.features.repeat(7, 1), copies.logits.repeat(7, 1), np.zeros(280, np.int64))
    assert grand(twice.view(0), 5, RNG).tolist() == list(range(280))  # one class: no gradient at all
    draws = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    twice = Signals.from_arrays(copies.features.repeat(7, 1), np.tile(draws, (7, 1)), np.zeros(280, np.int64))
    found = grand(twice.view(0), 5, RNG)
    assert (found.reshape(40, 7) == found.reshape(40, 7)[:, :1] + 40 * np.arange(7)).all()


@pytest.mark.parametrize(
    ("options", "message"), [({"repeat": 0}, "repeat"), ({"batch": 0}, "batch"), ({"compat": "x"}, "grand")]
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        grand(signals_of(0, 20).view(0), 2, RNG, **options)
