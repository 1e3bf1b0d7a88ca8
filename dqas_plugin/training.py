"""The one training loop of the project, and the one evaluation.

What makes it fast: images stay uint8, are cropped and mirrored once per epoch in whole blocks, and reach the network with
channels last, in bf16 where that pays; on a GPU they stay in its memory, and steps are recorded and replayed. What makes it
fair: every method is trained by it, and class frequencies are taken out of the loss (``Recipe.prior``), so that uneven class
counts are not punished on a balanced test set: Ren et al., NeurIPS 2020 (balanced softmax); Menon et al., ICLR 2021 (logit
adjustment).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dqas_plugin.augment import draw_shifts, shift
from dqas_plugin.data import ImageDataset, at_once
from dqas_plugin.errors import NotFiniteError, UserError
from dqas_plugin.losses import log_prior, sample_weights, training_loss
from dqas_plugin.models import Network
from dqas_plugin.precision import Build, autocast, resolve, resolve_device
from dqas_plugin.recipes import Recipe
from dqas_plugin.recorded_steps import RecordedSteps, Step
from dqas_plugin.scores import ClassScores, class_scores
from dqas_plugin.seeding import derive, torch_generator
from dqas_plugin.soundness import check_finite, unsound_rows

_BLOCK, _BLOCK_NUMBERS = 8192, 2**28  # images augmented at once: 25 MB at 32 px, 256 MB from 105 px on
_EVALUATED, _EVALUATED_PIXELS = 1000, 2**22  # images evaluated at once; from 65 px on fewer, since a network keeps more of each
_REPORTS = 100  # at most so many reports a training, besides the evaluations
_RECORD_STEPS = 50  # recording a step takes as long as some tens of them
_RESIDENT = 0.25  # of the free memory of a GPU: training images that need no more stay there

Record = Callable[[Tensor, Tensor], None]
"""Told of every batch of a training: positions in the dataset, and logits; see :func:`train`."""


@dataclass(frozen=True)
class EpochReport:
    """Where a training stands.

    Attributes:
        step: optimiser steps made.
        steps: optimiser steps of the whole training.
        loss: mean training loss since the last report (of the adjusted logits with ``prior="balanced"``).
        learning_rate: of the last step.
        seconds: since the training began, evaluations included.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a training gave.

    Attributes:
        network: the trained network, in evaluation mode, on the device it was trained on.
        last: scores on the test set after the last step; None without a test set.
        best: those of the evaluation with the highest class-mean accuracy. It is chosen by test labels, as other projects
            do: for comparison with their figures only.
        history: one dict per report: the fields of :class:`EpochReport`, and ``accuracy`` (class mean) where evaluated.
        seconds: wall time, evaluations included.
        precision: ``fp32`` or ``bf16``.
        steps: optimiser steps made.
        images_per_second: training images per second, evaluations not counted.
    """

    network: Network
    last: ClassScores | None
    best: ClassScores | None
    history: list[dict[str, Any]]
    seconds: float
    precision: str
    steps: int
    images_per_second: float


def train(
    build: Build,
    data: ImageDataset,
    recipe: Recipe,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    weights: Tensor | None = None,
    test: ImageDataset | None = None,
    evaluations: int = 5,
    on_epoch: Callable[[EpochReport], None] | None = None,
    record: Record | None = None,
) -> TrainingResult:
    """Train a fresh network. The same arguments give the same network, bit for bit, on the same CPU and thread count.

    (On a GPU the convolutions are deterministic too; a few layers of torch are not.)

    Args:
        build: ``build(image_shape, num_classes)`` makes the network; its random numbers come from ``seed``.
        data: the training images, whose soft labels are learnt if they have any (``data.targets``), else their labels.
        recipe: everything else.
        seed: of initial weights, order of the images and augmentation.
        device: ``cpu``, ``cuda:0`` …
        weights: float ``[N]``, loss weight of each sample; brought to mean 1.
        test: evaluated along the way and after the last step.
        evaluations: how many times; the first ones are spread evenly, the last is after the last step.
        on_epoch: called after every epoch (every few, when they are short) and every evaluation.
        record: called at every step with the batch's positions in ``data``, int64 ``[B]`` on the CPU, and what the network
            said of it before the update, in training mode and augmented: plain logits (no prior added), float32 ``[B, C]``
            on the device. It changes nothing in the training.

    Raises:
        UserError: for an empty training set, weights that do not fit, a device that is not there.
        NotFiniteError: if the loss, or what the network makes of the test images, is not finite.
    """
    place = resolve_device(device)
    steps = recipe.steps(len(data))
    if evaluations < 1:
        raise UserError(f"a training is evaluated at least once, not {evaluations} times: set evaluations to 1 or more")
    precision = resolve(recipe.precision, build, data.image_shape, place)
    with _own_random_numbers(seed, place), repeatable(place):
        network = build(data.image_shape, data.num_classes)
        network.set_normalisation(*data.channel_statistics)
        network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = _Run(network, data, recipe, seed, place, precision, steps, sample_weights(weights, len(data)), record)
        return run.finish(test, _milestones(steps, evaluations), on_epoch)


def evaluate(
    network: Network,
    data: ImageDataset,
    *,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    batch: int | None = None,
) -> ClassScores:
    """Accuracy and mean negative log-likelihood of the plain logits, per class; NaN for a class without images.

    Args:
        network: it is moved to ``device`` if one is given.
        data: labelled images; soft labels are not looked at.
        device: where to compute; default: where the network is.
        precision: ``fp32`` or ``bf16``.
        batch: images at a time; default: 1,000, fewer of large ones.

    Raises:
        NotFiniteError: if the network makes numbers of some images that are not finite.
    """
    place = _place(network, device)
    logits = [one for _, one in outputs(network, data, device=place, precision=precision, batch=batch)]
    every = torch.cat(logits) if logits else torch.empty(0, data.num_classes)
    remedy = "lower the learning rate that it is trained with"
    what = f"what the network makes of {data.name} is not finite"
    check_finite(what, unsound_rows(every), data.labels.numpy(), remedy, data.classes)
    return class_scores(every, data.labels, data.num_classes)


def outputs(
    network: Network,
    data: ImageDataset | Tensor,
    *,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    batch: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and logits of every image, in order, in chunks: ``([b, d], [b, num_classes])``, float32 on the CPU.

    The network computes in evaluation mode and without gradients (its mode is restored at the end). The head is always
    applied in fp32, so that ``head(features)`` is exactly the logits.

    Args:
        network: it is moved to ``device`` if one is given.
        data: a dataset, or uint8 images ``[N, C, H, W]``.
        device: where to compute; default: where the network is.
        precision: ``fp32`` or ``bf16``.
        batch: images at a time; default: 1,000, fewer of large ones.
    """
    place = _place(network, device)
    images = data.images if isinstance(data, ImageDataset) else data
    batch = batch or at_once(images.shape[2:], _EVALUATED, _EVALUATED_PIXELS)
    training = network.training
    network.eval()
    try:
        for start in range(0, len(images), batch):
            with torch.no_grad():
                pixels = network.normalise(images[start : start + batch].to(place))
                with autocast(precision, place):
                    features = network.features(pixels)
                features = features.float()
                logits = network.head(features)
            yield features.cpu(), logits.cpu()
    finally:
        network.train(training)


class _Batch(NamedTuple):
    """One batch on the device."""

    positions: Tensor  # in the dataset; on the CPU
    images: Tensor  # uint8, augmented
    labels: Tensor  # or soft ones
    weights: Tensor | None
    ends_epoch: bool


@dataclass(eq=False)
class _Run:
    """One training in progress."""

    network: Network
    data: ImageDataset
    recipe: Recipe
    seed: int
    device: torch.device
    precision: str
    steps: int
    weights: Tensor | None
    record: Record | None = None
    step: int = 0
    seen: int = 0  # images
    seconds: float = 0.0  # in training steps, evaluations not counted
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        recipe, parameters = self.recipe, self.network.parameters()
        self.labels = self.data.labels if self.data.targets is None else self.data.targets
        self.prior = None
        if recipe.prior == "balanced":
            prior = log_prior(self.labels, self.data.num_classes, self.weights)
            self.prior = prior.to(self.device) if prior.any() else None
        on_gpu = self.device.type == "cuda"
        self.images = _resident(self.data.images, self.device) if on_gpu else self.data.images
        self.optimizer = torch.optim.SGD(
            parameters,
            lr=torch.tensor(recipe.lr, device=self.device) if on_gpu else recipe.lr,  # recorded steps read it from there
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            fused=self.device.type in ("cpu", "cuda"),
        )
        recorded = on_gpu and self.network.recordable and self.steps >= _RECORD_STEPS
        self.make_step: Step = RecordedSteps(self._step, self.device) if recorded else self._step

    def finish(
        self, test: ImageDataset | None, milestones: set[int], on_epoch: Callable[[EpochReport], None] | None
    ) -> TrainingResult:
        """Make all steps, with a report at the end of epochs and an evaluation at ``milestones``."""
        started = resumed = time.perf_counter()
        last = best = None
        losses: list[Tensor] = []
        self.network.train()
        for batch in self._batches():
            losses.append(self._update(batch))
            evaluated = test is not None and self.step in milestones
            if not (evaluated or self._reports(batch.ends_epoch)):
                continue
            loss = self._checked_loss(losses)
            losses.clear()
            self.seconds += time.perf_counter() - resumed
            if evaluated and test is not None:
                last = evaluate(self.network, test, precision=self.precision)
                best = last if best is None or last.mean > best.mean else best
            report = EpochReport(self.step, self.steps, loss, self._rate(self.step - 1), time.perf_counter() - started)
            self._report(report, last if evaluated else None, on_epoch)
            resumed = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.network.eval()
        return TrainingResult(
            network=self.network,
            last=last,
            best=best,
            history=self.history,
            seconds=time.perf_counter() - started,
            precision=self.precision,
            steps=self.step,
            images_per_second=self.seen / self.seconds,
        )

    def _batches(self) -> Iterator[_Batch]:
        """Epoch after epoch until the steps are made."""
        draws = torch_generator(self.seed, "train")
        count = len(self.data)
        batches = self.recipe.batches(count)
        edges = [count * one // batches for one in range(batches + 1)]  # sizes differ by one at most
        group = max(1, at_once(self.data.image_shape, _BLOCK, _BLOCK_NUMBERS) // self.recipe.batch)
        while True:
            order = torch.randperm(count, generator=draws)
            for first in range(0, batches, group):
                inside = edges[first : first + group + 1]
                chosen = order[inside[0] : inside[-1]]
                images, labels, weights = self._block(chosen, draws)
                for start, stop in pairwise(inside):
                    part = slice(start - inside[0], stop - inside[0])
                    weighed = None if weights is None else weights[part]
                    yield _Batch(chosen[part], images[part], labels[part], weighed, stop == count)
                    if self.step == self.steps:
                        return

    def _block(self, chosen: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        """Augmented uint8 images at ``chosen``, their labels (soft ones if there are any) and weights, on the device."""
        images = self.images[chosen.to(self.images.device)].to(self.device)
        flip = self.recipe.flip and self.data.mirror
        if self.recipe.crop or flip:
            _, height, width = self.data.image_shape
            shifts = draw_shifts(len(chosen), height, width, crop=self.recipe.crop, flip=flip, generator=draws)
            images = shift(images, shifts)
        weights = None if self.weights is None else self.weights[chosen].to(self.device)
        return images, self.labels[chosen].to(self.device), weights

    def _update(self, batch: _Batch) -> Tensor:
        """The next step of the training; the loss, still on the device."""
        rate = self._rate(self.step)
        for settings in self.optimizer.param_groups:
            if isinstance(settings["lr"], Tensor):
                settings["lr"].fill_(rate)
            else:
                settings["lr"] = rate
        loss, logits = self.make_step(batch.images, batch.labels, batch.weights)
        if self.record is not None:
            self.record(batch.positions, logits)
        self.step += 1
        self.seen += len(batch.labels)
        return loss

    def _step(self, images: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """One optimiser step; loss and logits, still on the device."""
        pixels = self.network.normalise(images)
        with autocast(self.precision, self.device):
            logits = self.network(pixels).float()
        loss = training_loss(logits, labels, self.prior, weights, self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach(), logits.detach()

    def _rate(self, step: int) -> float:
        return self.recipe.learning_rate(step, self.steps)

    def _reports(self, ends_epoch: bool) -> bool:
        """Whether this step is reported: the last one, and ends of epochs unless the last report is too recent."""
        before = self.history[-1]["step"] if self.history else 0
        return self.step == self.steps or (ends_epoch and (self.step - before) * _REPORTS >= self.steps)

    def _checked_loss(self, losses: list[Tensor]) -> float:
        """Mean of the losses since the last report; waits for the device."""
        loss = float(torch.stack(losses).double().mean())
        if not math.isfinite(loss):
            raise NotFiniteError(
                f"training with recipe '{self.recipe.name}' diverged by step {self.step} of {self.steps} (the loss is {loss}): "
                f"lower its learning rate, {self.recipe.lr:g}"
            )
        return loss

    def _report(self, report: EpochReport, scores: ClassScores | None, on_epoch: Callable[[EpochReport], None] | None) -> None:
        entry: dict[str, Any] = dict(vars(report))
        if scores is not None:
            entry["accuracy"] = scores.mean
        self.history.append(entry)
        if on_epoch is not None:
            on_epoch(report)


def _milestones(steps: int, evaluations: int) -> set[int]:
    """The steps after which the test set is evaluated: evenly spread, the last step among them."""
    return {max(1, round(steps * one / evaluations)) for one in range(1, evaluations + 1)}


def _resident(images: Tensor, device: torch.device) -> Tensor:
    """The images in the memory of the GPU, if they take but a part of it."""
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if images.nbytes <= _RESIDENT * free else images


def _place(network: Network, device: torch.device | str | None) -> torch.device:
    """The device the network is on, after moving it there if one is named."""
    if device is None:
        return network.head.weight.device
    place = resolve_device(device)
    network.to(place)
    return place


@contextmanager
def _own_random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Initial weights and dropout draw from torch's default generators: seed them, and put them back afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(derive(seed, "weights"))
        yield


def repeatable(device: torch.device) -> AbstractContextManager[object]:
    """On a GPU: convolution algorithms that give the same bits every time."""
    if device.type != "cuda":
        return nullcontext()
    flags: AbstractContextManager[object] = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    return flags
