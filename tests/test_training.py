"""The training loop and the evaluation against literal definitions."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dqas_plugin import training
from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.losses import log_prior
from dqas_plugin.models import Network, Shape, convnet3, convnet3_small
from dqas_plugin.recipes import Recipe, recipe
from dqas_plugin.scores import ClassScores
from dqas_plugin.training import EpochReport, TrainingResult, evaluate, outputs, train

SHORT = Recipe("short", iterations=12, batch=16, lr=0.05, precision="fp32")
LEARN = Recipe("learn", iterations=60, batch=32, lr=0.05, nesterov=True, warmup=0.1, precision="fp32")


def toy(counts: list[int], seed: int = 0, side: int = 8, channels: int = 1) -> ImageDataset:
    """Noisy copies of one random picture per class (the same pictures for every seed), in mixed order."""
    pictures = np.random.default_rng(99).integers(40, 216, (len(counts), channels, side, side))
    draws = np.random.default_rng(seed)
    labels = draws.permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.clip(pictures[labels] + draws.normal(0, 45, (len(labels), channels, side, side)), 0, 255)
    names = tuple(f"class {one}" for one in range(len(counts)))
    return ImageDataset(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels), names, "toy", mirror=False)


class Linear(Network):
    """The smallest network: pixels, then the head."""

    def __init__(self, image_shape: Shape, num_classes: int) -> None:
        super().__init__(image_shape[0], nn.Linear(math.prod(image_shape), num_classes))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Dropping(Linear):
    """Draws from torch's default generator at every step."""

    def features(self, x: Tensor) -> Tensor:
        return functional.dropout(x.flatten(1), 0.3, self.training)


def states(result: TrainingResult) -> list[Tensor]:
    return list(result.network.state_dict().values())


def same(first: TrainingResult, second: TrainingResult) -> bool:
    return all(torch.equal(a, b) for a, b in zip(states(first), states(second), strict=True))


# The loop


def test_it_learns() -> None:
    result = train(convnet3_small, toy([30] * 10), LEARN, 0, test=toy([20] * 10, seed=1))
    assert result.last is not None
    assert result.best is not None
    assert result.last.mean > 0.9
    assert result.best.mean >= result.last.mean
    assert (result.steps, result.precision) == (60, "fp32")
    assert result.seconds > 0
    assert result.images_per_second > 0
    assert not result.network.training
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 2


@pytest.mark.parametrize("build", [convnet3_small, Dropping])
def test_same_seed_same_bits_whatever_the_global_generator(build: Any) -> None:
    data = toy([9, 5, 13])
    first = train(build, data, SHORT, 5)
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    second = train(build, data, SHORT, 5)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, second)
    assert [one["loss"] for one in first.history] == [one["loss"] for one in second.history]
    assert not same(first, train(build, data, SHORT, 6))


def test_evaluating_changes_nothing() -> None:
    data = toy([9, 5, 13])
    assert same(train(convnet3_small, data, SHORT, 0), train(convnet3_small, data, SHORT, 0, test=data, evaluations=7))


def test_images_are_left_alone() -> None:
    data = toy([8, 8])
    before = data.images.clone()
    train(Linear, data, SHORT, 0)
    assert torch.equal(data.images, before)


def test_the_loop_is_sgd_on_the_mean_loss() -> None:
    """Whole-set batches of a linear network, stepped by hand."""
    data = toy([4, 9, 3])
    plain = Recipe("plain", epochs=7, lr=0.02, momentum=0.8, weight_decay=0.01, nesterov=True, crop=False, precision="fp32")
    result = train(Linear, data, plain, 3)
    start = train(Linear, data, dataclasses.replace(plain, lr=1e-30), 3).network.head
    mean, std = data.channel_statistics
    pixels = ((data.images / 255 - mean[:, None, None]) / std[:, None, None]).flatten(1)
    counts = torch.tensor([4.0, 9.0, 3.0])
    values = [start.weight.detach().clone().requires_grad_(), start.bias.detach().clone().requires_grad_()]
    speeds = [torch.zeros_like(one) for one in values]
    for step in range(7):
        logits = pixels @ values[0].T + values[1] + (counts / 16).log()
        loss = functional.cross_entropy(logits, data.labels)
        rate = 0.02 * (1 + math.cos(math.pi * step / 7)) / 2
        with torch.no_grad():
            for value, speed, slope in zip(values, speeds, torch.autograd.grad(loss, values), strict=True):
                decayed = slope + 0.01 * value
                speed.mul_(0.8).add_(decayed)
                value.sub_(rate * (decayed + 0.8 * speed))
    torch.testing.assert_close(result.network.head.weight.detach(), values[0].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.network.head.bias.detach(), values[1].detach(), rtol=1e-4, atol=1e-5)


class Recorder(Linear):
    """Keeps the first pixel of every training image it is given."""

    seen: list[list[int]]

    def __init__(self, image_shape: Shape, num_classes: int) -> None:
        super().__init__(image_shape, num_classes)
        self.seen = []

    def features(self, x: Tensor) -> Tensor:
        first = (x[:, 0, 0, 0] * self.std + self.mean) * 255
        self.seen.append(first.round().int().tolist())
        return super().features(x)


@pytest.mark.parametrize("crop", [True, False])
def test_every_image_once_an_epoch_in_even_batches(monkeypatch: pytest.MonkeyPatch, crop: bool) -> None:
    monkeypatch.setattr(training, "_BLOCK", 64)  # blocks smaller than the data
    images = torch.arange(150, dtype=torch.uint8).view(150, 1, 1, 1).expand(150, 1, 4, 4).contiguous()
    data = ImageDataset(images, torch.arange(150) % 2, ("a", "b"), "numbered")
    once = dataclasses.replace(SHORT, epochs=3, iterations=None, batch=32, crop=crop)
    network = train(Recorder, data, once, 0).network
    assert isinstance(network, Recorder)
    assert [len(one) for one in network.seen] == [30] * 15
    epochs = [list(chain(*network.seen[5 * one : 5 * one + 5])) for one in range(3)]
    assert all(sorted(one) == list(range(150)) for one in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(range(150))


def test_mirroring_obeys_dataset_and_recipe() -> None:
    """Class 1 is the mirrored class 0: nothing can tell them apart once images are mirrored."""
    pattern = torch.zeros(1, 8, 8, dtype=torch.uint8)
    pattern[:, :, :4] = 200
    labels = torch.arange(60) % 2
    images = torch.where(labels.bool()[:, None, None, None], pattern.flip(2), pattern)
    data = ImageDataset(images, labels, ("left", "right"), "halves", mirror=False)
    for mirror, flip, told in ((False, True, True), (True, False, True), (True, True, False)):
        chosen = dataclasses.replace(LEARN, flip=flip)
        result = train(convnet3_small, dataclasses.replace(data, mirror=mirror), chosen, 0, test=data)
        assert result.last is not None
        loss = result.last.loss.mean()
        assert loss < 0.1 if told else loss > 0.6  # log 2 = 0.69 is not knowing


# The record


@pytest.mark.parametrize("iterations", [15, 7])
def test_the_record_is_what_the_network_said_of_each_batch(monkeypatch: pytest.MonkeyPatch, iterations: int) -> None:
    monkeypatch.setattr(training, "_BLOCK", 64)
    images = torch.arange(150, dtype=torch.uint8).view(150, 1, 1, 1).expand(150, 1, 4, 4).contiguous()
    data = ImageDataset(images, (torch.arange(150) >= 120).long(), ("a", "b"), "numbered")
    said: list[Tensor] = []

    class Speaking(Recorder):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            said.append(logits.detach().clone())
            return logits

    noted: list[tuple[list[int], Tensor]] = []

    def record(positions: Tensor, logits: Tensor) -> None:
        assert (positions.dtype, logits.dtype, logits.requires_grad) == (torch.int64, torch.float32, False)
        noted.append((positions.tolist(), logits.clone()))

    short = dataclasses.replace(SHORT, iterations=iterations, batch=32)
    network = train(Speaking, data, short, 0, record=record).network
    assert isinstance(network, Speaking)
    assert len(noted) == iterations  # seven of them stop within the second epoch
    assert [positions for positions, _ in noted] == network.seen
    assert all(torch.equal(logits, whole) for (_, logits), whole in zip(noted, said, strict=True))  # without the prior


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_recording_changes_nothing(kind: str) -> None:
    data = toy([9, 5, 13])
    chosen = dataclasses.replace(SHORT, precision=kind)
    noted: list[Tensor] = []
    recorded = train(convnet3_small, data, chosen, 0, record=lambda _, logits: noted.append(logits))
    assert same(train(convnet3_small, data, chosen, 0), recorded)
    assert all(one.dtype == torch.float32 for one in noted)


# Class prior and weights


def test_even_counts_make_the_priors_one() -> None:
    data = toy([10] * 4)
    empirical = dataclasses.replace(SHORT, prior="empirical")
    assert same(train(convnet3_small, data, SHORT, 1), train(convnet3_small, data, empirical, 1))
    uneven = toy([4, 9, 20, 7])
    assert not same(train(convnet3_small, uneven, SHORT, 1), train(convnet3_small, uneven, empirical, 1))


def test_taking_the_prior_out_helps_the_rare_class() -> None:
    """Two classes that overlap, 10 to 1: the plain loss prefers the common one, the balanced one neither."""
    draws = np.random.default_rng(0)

    def overlapping(counts: tuple[int, int]) -> ImageDataset:
        labels = np.repeat([0, 1], counts)
        values = draws.normal(110 + 36 * labels, 30).clip(0, 255)
        images = torch.from_numpy(values.astype(np.uint8)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
        return ImageDataset(images, torch.from_numpy(labels), ("common", "rare"), "overlap")

    data, test = overlapping((600, 60)), overlapping((1000, 1000))
    fit = dataclasses.replace(LEARN, iterations=300, weight_decay=0.0)
    scores = [train(Linear, data, dataclasses.replace(fit, prior=one), 0, test=test).last for one in ("balanced", "empirical")]
    balanced, empirical = (one.accuracy for one in scores if one is not None)
    assert abs(balanced[0] - balanced[1]) < 0.15
    assert empirical[0] - empirical[1] > 0.4


def test_an_absent_class_is_pushed_down_and_finite() -> None:
    labels = torch.tensor([0, 0, 2, 2])
    prior = log_prior(labels, 3)
    torch.testing.assert_close(prior.exp() * 4 / 3, torch.tensor([2.0, 0.5, 2.0]))
    missing = toy([10, 10, 10]).subset(np.flatnonzero(toy([10, 10, 10]).labels.numpy() != 1))
    result = train(Linear, missing, dataclasses.replace(SHORT, label_smoothing=0.1), 0, test=missing)
    assert result.last is not None
    assert math.isnan(result.last.accuracy[1])
    assert np.isfinite(result.last.accuracy[[0, 2]]).all()
    assert result.last.mean == result.last.accuracy[[0, 2]].mean()
    assert result.last.worst == result.last.accuracy[[0, 2]].min()


def test_the_best_evaluation_without_a_class() -> None:
    data = toy([30, 30, 30])
    missing = data.subset(np.flatnonzero(data.labels.numpy() != 1))
    result = train(Linear, data, dataclasses.replace(LEARN, iterations=5), 0, test=missing, evaluations=5)
    means = [entry["accuracy"] for entry in result.history]
    assert result.best is not None
    assert result.best.mean == max(means) > min(means)


def test_equal_weights_are_no_weights() -> None:
    data = toy([6, 9, 12])
    assert same(train(Linear, data, SHORT, 0), train(Linear, data, SHORT, 0, weights=torch.full((27,), 3.0)))


def test_weights_follow_their_samples() -> None:
    """Half of the labels are wrong, and have weight 0."""
    data = toy([40] * 5)
    longer = dataclasses.replace(LEARN, iterations=150)
    wrong = torch.arange(200) % 2 == 0
    labels = torch.where(wrong, (data.labels + 1) % 5, data.labels)
    damaged = dataclasses.replace(data, labels=labels)
    test = toy([20] * 5, seed=1)
    weighed = train(convnet3_small, damaged, longer, 0, weights=(~wrong).float(), test=test).last
    plain = train(convnet3_small, damaged, longer, 0, test=test).last
    assert weighed is not None
    assert plain is not None
    assert weighed.mean > 0.9
    assert plain.mean < 0.75


# Reports


def test_reports_and_evaluations() -> None:
    reports: list[EpochReport] = []
    data = toy([16, 16])  # two batches an epoch, six epochs
    result = train(Linear, data, SHORT, 0, test=data, evaluations=3, on_epoch=reports.append)
    assert [one.step for one in reports] == [2, 4, 6, 8, 10, 12]
    assert [one.steps for one in reports] == [12] * 6
    assert [one["step"] for one in result.history if "accuracy" in one] == [4, 8, 12]
    assert reports[-1].learning_rate == pytest.approx(SHORT.learning_rate(11, 12))
    assert all(one.seconds <= two.seconds for one, two in pairwise(reports))
    assert result.last is not None
    assert result.history[-1]["accuracy"] == result.last.mean
    assert json.loads(json.dumps(result.history)) == result.history


def test_tiny_epochs_are_reported_together() -> None:
    reports: list[EpochReport] = []
    train(Linear, toy([2, 2]), dataclasses.replace(SHORT, iterations=450), 0, on_epoch=reports.append)
    assert len(reports) == 90
    assert reports[-1].step == 450


def test_best_is_the_highest_of_the_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = iter([0.3, 0.8, 0.5])

    def pretend(*_: object, **__: object) -> ClassScores:
        return ClassScores(np.full(2, next(scripted)), np.zeros(2))

    monkeypatch.setattr(training, "evaluate", pretend)
    result = train(Linear, toy([8, 8]), SHORT, 0, test=toy([2, 2]), evaluations=3)
    assert result.last is not None
    assert result.best is not None
    assert (result.last.mean, result.best.mean) == (0.5, 0.8)


def test_last_and_best_are_per_class() -> None:
    data, test = toy([20, 20, 20]), toy([5, 10, 15], seed=1)
    result = train(convnet3_small, data, LEARN, 0, test=test)
    assert result.last is not None
    assert result.best is not None
    assert result.best.accuracy.shape == result.best.loss.shape == (3,)
    again = evaluate(result.network, test)
    assert result.last.accuracy.tolist() == again.accuracy.tolist()
    assert result.last.loss.tolist() == again.loss.tolist()
    assert result.last.mean == pytest.approx(again.accuracy.mean())
    assert result.last.worst == again.accuracy.min()


# Evaluation


def test_evaluate_is_one_image_at_a_time() -> None:
    data = toy([7, 3, 12], side=9)
    network = train(convnet3_small, data, SHORT, 0).network
    hits: list[list[float]] = [[], [], []]
    losses: list[list[float]] = [[], [], []]
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        with torch.no_grad():
            logits = network((image[None] / 255 - network.mean[:, None, None]) / network.std[:, None, None])[0]
        hits[label].append(float(int(logits.argmax()) == label))
        losses[label].append(-float(logits.log_softmax(0)[label]))
    network.train()
    scores = evaluate(network, data, batch=5)
    assert network.training
    assert scores.accuracy == pytest.approx([np.mean(one) for one in hits])
    assert scores.loss == pytest.approx([np.mean(one) for one in losses], rel=1e-4)


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_outputs(kind: str) -> None:
    data = toy([20, 30], channels=3)
    network = train(convnet3_small, data, SHORT, 0).network
    chunks = list(outputs(network, data, precision=kind, batch=16))
    assert [len(features) for features, _ in chunks] == [16, 16, 16, 2]
    features, logits = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    assert features.dtype == logits.dtype == torch.float32
    assert not features.requires_grad
    assert not logits.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(network.head(features), logits)
        exact = network(network.normalise(data.images))
    torch.testing.assert_close(logits, exact, rtol=0.05, atol=0.05 if kind == "bf16" else 1e-4)
    again = torch.cat([logits for _, logits in outputs(network, data.images, precision=kind, batch=16)])
    assert torch.equal(again, logits)


# Errors


def test_divergence_names_recipe_and_step() -> None:
    wild = dataclasses.replace(SHORT, name="wild", lr=1e30)
    with pytest.raises(DqasError, match=r"recipe 'wild' diverged by step \d+ of 12 .*lower its learning rate"):
        train(Linear, toy([10, 10]), wild, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:99"}, "device 'cuda:99' is not available here: choose one of cpu"),
        ({"device": "toaster"}, "device 'toaster' is not available here"),
        ({"device": "meta"}, "computes nothing"),
        ({"weights": torch.ones(3)}, "one number for each of the 20"),
        ({"weights": torch.full((20,), math.nan)}, "finite"),
        ({"weights": torch.zeros(20)}, "not all 0"),
        ({"evaluations": 0}, "set evaluations"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(Linear, toy([10, 10]), SHORT, 0, **options)


def test_nothing_to_train_on() -> None:
    with pytest.raises(UserError, match="0 images"):
        train(Linear, toy([10, 10]).subset([]), SHORT, 0)


# Recipes and precision at work


@pytest.mark.parametrize(("name", "iterations", "batch"), [("fast", 1000, 128), ("quick", 300, 64)])
def test_short_recipes_count_iterations(name: str, iterations: int, batch: int) -> None:
    short = recipe(name)
    assert (short.epochs, short.iterations, short.batch) == (None, iterations, batch)
    assert short.steps(10) == short.steps(50_000) == iterations
    result = train(Linear, toy([9, 5]), short.with_(precision="fp32"), 0)
    assert result.steps == iterations


def test_equal_epochs_and_equal_iterations_are_two_protocols() -> None:
    few, many = toy([20, 20]), toy([200, 200])
    by_epochs, by_iterations = (
        recipe("quick").with_(epochs=2, precision="fp32"),
        recipe("quick").with_(iterations=14, precision="fp32"),
    )
    assert [train(Linear, one, by_epochs, 0).steps for one in (few, many)] == [2, 14]
    assert [train(Linear, one, by_iterations, 0).steps for one in (few, many)] == [14, 14]


@pytest.mark.parametrize("build", [convnet3, convnet3_small])
@pytest.mark.parametrize("kind", ["auto", "bf16"])
def test_same_seed_same_bits_in_the_chosen_precision_too(build: Any, kind: str) -> None:
    data = toy([20, 9, 13], channels=3, side=16)
    chosen = dataclasses.replace(SHORT, precision=kind)
    assert same(train(build, data, chosen, 5), train(build, data, chosen, 5))


def test_training_in_bf16_learns_too() -> None:
    data = toy([30] * 5)
    half = train(convnet3_small, data, dataclasses.replace(LEARN, precision="bf16"), 0, test=toy([20] * 5, seed=1))
    assert half.precision == "bf16"
    assert half.last is not None
    assert half.last.mean > 0.9
    assert all(one.dtype in (torch.float32, torch.int64) for one in states(half))
