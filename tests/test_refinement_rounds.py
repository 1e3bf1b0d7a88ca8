"""Samples added in rounds, the refiner, and the paper read literally."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.models import Network
from dqas_plugin.plugins import plugins
from dqas_plugin.recipes import recipe
from dqas_plugin.refinement import (
    error_reduction,
    error_reduction_refiner,
    expected_error_change,
    retrained_error_change,
    retraining_years,
)
from dqas_plugin.refinement.rounds import diverse
from dqas_plugin.seeding import derive
from dqas_plugin.signals import Signals
from dqas_plugin.trainer import Trainer
from dqas_plugin.training import outputs, train
from refits import clusters, inputs_of, newton

Array = npt.NDArray[Any]


def pool_loss(features: Array, labels: Array, first: Array, chosen: Array, among: Array) -> float:
    """Mean loss ``among`` all that was there to choose from, of a last layer fitted to ``chosen``."""
    inputs, truth = inputs_of(features, first), torch.from_numpy(labels)
    classes = int(truth.max()) + 1
    weights = newton(inputs[chosen], truth[chosen], classes, 1.0, torch.zeros(classes, dtype=torch.float64))
    return float(functional.cross_entropy(inputs[among] @ weights, truth[among]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ten_rounds_beat_drawing(seed: int) -> None:
    features, labels = clusters(1500, 12, 4, seed)
    draws = np.random.default_rng(seed)
    order = draws.permutation(1500)
    first, others, unseen = order[:80], order[80:1100], order[1100:]
    seen = np.sort(order[:1100])  # what nobody chooses from says whether it holds beyond the pool
    start = np.searchsorted(seen, np.sort(first))
    added = seen[error_reduction(features[seen], labels[seen], start, 100)]
    assert len(np.unique(added)) == 100
    assert not np.isin(added, first).any()
    drawn = [np.r_[first, draws.choice(others, 100, replace=False)] for _ in range(5)]
    for among in (others, unseen):
        ours = pool_loss(features, labels, first, np.r_[first, added], among)
        assert ours < min(pool_loss(features, labels, first, one, among) for one in drawn)


def test_rounds_and_diversity_beat_all_at_once() -> None:
    once, rounds, diverse_ = [], [], []
    for seed in (0, 1, 2):
        features, labels = clusters(1500, 12, 4, seed)
        order = np.random.default_rng(seed).permutation(1500)
        first, rest = order[:80], order[80:]

        def loss(
            features: Array = features, labels: Array = labels, first: Array = first, rest: Array = rest, **how: Any
        ) -> float:
            added = error_reduction(features, labels, first, 100, **how)
            return pool_loss(features, labels, first, np.r_[first, added], rest)

        once.append(loss(rounds=1, diversity=False))
        rounds.append(loss(rounds=10, diversity=False))
        diverse_.append(loss(rounds=10))
    assert np.mean(rounds) < np.mean(once)
    assert np.mean(diverse_) < np.mean(once)


def test_one_round_without_diversity_is_the_papers() -> None:
    features, labels = clusters(300, 8, 3, 0)
    changes = expected_error_change(features, labels, range(40), l2=0.5)
    expected = np.argsort(changes, kind="stable")[:15]
    assert changes[expected[-1]] < 0
    found = error_reduction(features, labels, range(40), 15, l2=0.5, rounds=1, diversity=None)
    assert found.dtype == np.int64
    assert found.tolist() == expected.tolist()


def test_stops_where_nothing_lowers_the_error() -> None:
    features, labels = clusters(200, 8, 3, 0)
    helps = int((expected_error_change(features, labels, range(100)) < 0).sum())
    assert 0 < helps < 100
    found = error_reduction(features, labels, range(100), 100, rounds=1, diversity=False)
    assert len(found) == helps
    rest = np.where(np.isin(np.arange(200), [150, 120, 199]), -1.0, 1.0)
    assert sorted(error_reduction(features, labels, range(100), 50, scorer=lambda _: rest)) == [120, 150, 199]
    everything = error_reduction(features, labels, range(100), 100, stop=False)
    assert sorted(everything) == list(range(100, 200))
    assert len(error_reduction(features, labels, range(100), 500, stop=False)) == 100


def test_nothing_to_add() -> None:
    features, labels = clusters(50, 4, 3, 0)
    assert error_reduction(features, labels, range(20), 0).tolist() == []
    assert error_reduction(features, labels, range(50), 5).tolist() == []


def test_default_rounds_and_what_is_told() -> None:
    features, labels = clusters(1500, 4, 3, 0)
    told: list[str] = []
    error_reduction(features, labels, range(20), 30, stop=False, report=told.append)
    assert len(told) == 10
    assert told[-1].startswith("round 10 of 10: expected error ")
    assert told[-1].endswith("30 of 30 samples added")
    told.clear()
    error_reduction(features, labels, range(20), 1101, stop=False, diversity=False, report=told.append)
    assert len(told) == 12
    told.clear()
    error_reduction(features, labels, range(20), 3, stop=False, report=told.append)
    assert len(told) == 3


def literal_diverse(inputs: Array, residuals: Array, changes: Array, count: int) -> list[int]:
    gradients = np.einsum("nd,nc->ndc", inputs, residuals).reshape(len(inputs), -1)
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    picks: list[int] = []
    for _ in range(count):
        worth = []
        for one in range(len(inputs)):
            near = max(((gradients[one] @ gradients[other]) ** 2 for other in picks), default=0.0)
            worth.append(-np.inf if one in picks else -changes[one] - abs(changes[one]) * near)
        picks.append(int(np.argmax(worth)))
    return picks


@pytest.mark.parametrize("seed", range(5))
def test_diversity_is_its_definition(seed: int) -> None:
    draws = np.random.default_rng(seed)
    inputs, residuals, changes = draws.normal(size=(40, 3)), draws.normal(size=(40, 3)), draws.normal(-0.5, 0.5, 40)
    assert (changes > 0).any()
    arrays = (torch.from_numpy(one) for one in (inputs, residuals, changes))
    assert diverse(*arrays, 25).tolist() == literal_diverse(inputs, residuals, changes, 25)


def test_copies_come_last() -> None:
    inputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    residuals = torch.tensor([[1.0, -1.0]]).repeat(3, 1)
    assert diverse(inputs, residuals, torch.tensor([-3.0, -3.0, -0.1]), 3).tolist() == [0, 2, 1]
    nothing = torch.zeros(3, 2)
    assert diverse(nothing, nothing, torch.zeros(3), 3).tolist() == [0, 1, 2]


def test_a_scorer_of_ones_own() -> None:
    features, labels = clusters(60, 4, 3, 0)
    seen: list[int] = []

    def mine(selected: Array) -> Array:
        seen.append(len(selected))
        return np.where(np.arange(60) < 30, 1.0, -np.arange(60.0))

    found = error_reduction(features, labels, range(10), 6, scorer=mine, rounds=3, diversity=False)
    assert found.tolist() == [59, 58, 57, 56, 55, 54]
    assert seen == [10, 12, 14]


@pytest.mark.parametrize(
    ("options", "said"), [({"rounds": 0}, "rounds"), ({"scorer": "x"}, "unknown scorer"), ({"l2": -1.0}, "l2")]
)
def test_bad_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        error_reduction(np.eye(9), np.arange(9) % 3, [0, 1, 2], 3, **options)
    with pytest.raises(UserError, match="budget"):
        error_reduction(np.eye(9), np.arange(9) % 3, [0, 1, 2], -1)


def test_the_refiner_reads_signals() -> None:
    features, labels = clusters(400, 8, 4, 0)
    signals = Signals.from_arrays(features, np.zeros((400, 4)), labels)
    assert plugins().refiners["error-reduction"] is error_reduction_refiner
    assert {"scorer", "rounds", "diversity", "prior", "l2"} <= set(error_reduction_refiner.options)
    rng, before = np.random.default_rng(0), np.random.default_rng(0)
    start = np.arange(40)
    found = error_reduction_refiner(signals, start, 20, rng)
    single = features.astype(np.float32)
    assert found.tolist() == error_reduction(single, labels, start, 20, prior="balanced").tolist()
    assert rng.random() == before.random()
    elsewhere = Signals.from_arrays(
        np.random.default_rng(1).normal(size=(400, 3)), np.zeros((400, 4)), labels, head_inputs=features
    )
    assert error_reduction_refiner(elsewhere, start, 20, rng).tolist() == found.tolist()
    with pytest.raises(UserError, match="retrained_error_change"):
        error_reduction_refiner(signals, start, 20, rng, scorer="retrain")
    with pytest.raises(UserError, match="unknown scorer"):
        error_reduction_refiner(signals, start, 20, rng, scorer="kap3nd")  # type: ignore[call-overload]


def tiny(count: int) -> ImageDataset:
    draws = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = draws.integers(0, 100, (count, 1, 4, 4)) + 120 * labels[:, None, None, None] * (
        draws.random((count, 1, 4, 4)) < 0.4
    )
    return ImageDataset(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels), ("dark", "light"), "tiny")


class Flat(Network):
    """A last layer on the pixels."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(image_shape[0], torch.nn.Linear(int(np.prod(image_shape)), num_classes))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


BRIEF = recipe("quick").with_(iterations=20, batch=8, crop=False, flip=False, precision="fp32")


def test_retrained_is_a_training_with_each() -> None:
    data, told = tiny(24), []
    found = retrained_error_change(data, Flat, BRIEF, range(8), [9, 20, 15], 5, report=told.append)
    assert told[-1] == "trained with 3 of 3 candidates"

    def losses(indices: list[int]) -> torch.Tensor:
        network = train(Flat, data.subset(np.array(indices)), BRIEF, 5).network
        logits = torch.cat([one for _, one in outputs(network, data.subset(np.arange(8, 24)))])
        return functional.cross_entropy(logits.double(), data.labels[8:], reduction="none")

    change = losses([*range(8), 20]) - losses(list(range(8)))
    assert found[1] == pytest.approx(float(change.mean()))
    assert found[1] != 0
    without = retrained_error_change(data, Flat, BRIEF, range(8), [20], 5, exclude_self=True)
    assert without[0] == pytest.approx(float((change.sum() - change[12]) / 15))


def test_retrained_is_a_scorer() -> None:
    data = tiny(16)

    def changes(selected: Array) -> Array:
        free = np.setdiff1d(np.arange(16), selected)
        found = np.full(16, np.nan)
        found[free] = retrained_error_change(data, Flat, BRIEF, selected, free, 5)
        return found

    pixels = data.images.flatten(1).double()
    found = error_reduction(pixels, data.labels, range(8), 1, scorer=changes, rounds=1, diversity=False, stop=False)
    assert found.tolist() == [int(np.nanargmin(changes(np.arange(8))))]


def pixel_signals(data: ImageDataset, said: list[str] | None = None) -> Signals:
    trainer = Trainer(data, Flat, BRIEF, 5, report=None if said is None else said.append)
    pixels = data.images.flatten(1).float()
    return replace(Signals.from_arrays(pixels, np.zeros((len(data), 2)), data.labels), trainer=trainer)


def refined(signals: Signals, selected: Array, budget: int, **options: Any) -> list[int]:
    found = error_reduction_refiner(signals, selected, budget, np.random.default_rng(0), **options)
    return [int(one) for one in found]


def changes_by_training(data: ImageDataset, selected: list[int]) -> Array:
    """One training after the other, written out."""
    seed = derive(5, "retrain")
    rest = np.setdiff1d(np.arange(len(data)), selected)

    def loss(indices: list[int]) -> float:
        network = train(Flat, data.subset(indices), BRIEF, seed).network
        logits = torch.cat([one for _, one in outputs(network, data.subset(rest))])
        return float(functional.cross_entropy(logits.double(), data.labels[rest]))

    before = loss(selected)
    found = np.full(len(data), np.inf)
    for one in rest:
        found[one] = loss([*selected, int(one)]) - before
    return found


def test_the_scorer_retrain_takes_what_training_with_it_shows_to_be_best() -> None:
    data = tiny(18)
    changes = changes_by_training(data, list(range(8)))
    expected = np.argsort(changes)[:3]
    assert refined(pixel_signals(data), np.arange(8), 3, scorer="retrain", diversity=None, stop=False) == expected.tolist()
    # the second round sees the first one's pick
    later = int(np.argmin(changes_by_training(data, [*range(8), int(expected[0])])))
    twice = refined(pixel_signals(data), np.arange(8), 2, scorer="retrain", diversity=None, stop=False, rounds=2)
    assert twice == [int(expected[0]), later]


@pytest.mark.parametrize(("rounds", "budget"), [(None, 3), (2, 3), (3, 3), (7, 3)])
def test_as_many_trainings_as_foretold(rounds: int | None, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def counting(*arguments: Any, **options: Any) -> Any:
        trained.append(len(arguments[1]))
        return train(*arguments, **options)

    monkeypatch.setattr("dqas_plugin.refinement.retrained.train", counting)
    options = {"scorer": "retrain", "rounds": rounds, "stop": False}
    refined(pixel_signals(tiny(18)), np.arange(8), budget, **options)
    assert error_reduction_refiner.trainings is not None
    settings = error_reduction_refiner.settings(options)
    assert error_reduction_refiner.trainings(8, 10, budget, settings) == len(trained)
    assert error_reduction_refiner.trainings(8, 10, budget, error_reduction_refiner.settings({"rounds": rounds})) == 0


def test_a_part_of_the_signals_is_trained_on_alone() -> None:
    data = tiny(24)
    rows = np.arange(0, 24, 2)
    part = pixel_signals(data).subset(rows)
    assert part.trainer is not None
    assert torch.equal(part.trainer.data.images, data.images[rows])
    alone = pixel_signals(data.subset(rows))
    options = {"scorer": "retrain", "stop": False}
    assert refined(part, np.arange(6), 2, **options) == refined(alone, np.arange(6), 2, **options)


def test_bad_candidates() -> None:
    run = partial(retrained_error_change, tiny(8), Flat, BRIEF)
    with pytest.raises(UserError, match="selected already"):
        run([0, 1], [1, 2], 0)
    with pytest.raises(UserError, match="0 images"):
        run([], [1, 2], 0)
    with pytest.raises(UserError, match="leaves nothing to estimate"):
        retraining_years(tiny(8), Flat, BRIEF, 8)


def test_years_grow_with_the_trainings() -> None:
    data = tiny(2000)
    brief = retraining_years(data, Flat, BRIEF, 100)
    long = retraining_years(data, Flat, BRIEF.with_(iterations=20000), 100)
    assert 0 < brief < long < 1
    assert long > 20 * brief
