"""What an allocator asks: "train on these class counts and score every class", answered from training data alone.

Two answers. The *probe* fits only a last layer, on features of a network that was trained once on an even random draw of the
same budget. A linear layer alone would miss much of what more samples do: the features were made without them. So it also
gets random Fourier features (Rahimi and Recht, NIPS 2007), which make it a kernel machine that must have seen something near
a sample to know it, as a network must. *Training* is the real thing. In both, each seed holds out other training images,
scores them, and leaves them out of what is trained on; the test split is never seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.allocation.problem import Evaluate
from dqas_plugin.data import BoolArray, ImageDataset, IntArray, by_class
from dqas_plugin.errors import UserError
from dqas_plugin.logistic import Standardiser, fit, row_parts
from dqas_plugin.losses import log_prior
from dqas_plugin.plugins import announce_epoch
from dqas_plugin.precision import Build
from dqas_plugin.recipes import Prior, Recipe
from dqas_plugin.scores import ClassScores, scores_of_parts
from dqas_plugin.seeding import derive, generator, torch_generator
from dqas_plugin.training import train

Pick = Callable[[IntArray, BoolArray], IntArray]
"""``pick(counts, without)``: dataset indices of ``counts[c]`` samples of every class, none of them in the mask ``without``."""

_HELD_OUT = 1000  # images a class at most: a standard error of about one point in a class, .3 in the mean of ten
_MOST_OVERLAP = 0.9  # where all free images are held out every time, no number of seeds tells anything new
_DIMENSIONS = 64  # of the features, at most
_FOURIER = 256  # random Fourier features, at most
_FOURIER_WORK = 1e7  # fewer of them where budget x classes x features exceeds this: a fit stays within seconds
_FOURIER_SCALE = 2.0  # against the linear features, whose mean square is 1
LARGE = 2e7
"""Budget x classes from which on a fit takes as long as a short training: fewer of them are made."""

ON_DEVICE = 1e5
"""Budget x classes from which on a fit is faster on a GPU than on one thread of a processor: it is many small operations."""

_TOLERANCE = 1e-4  # of the fit, in gradient per sample: a tighter one changes 6 predictions in 10,000 at most
_PENALTIES = (0.01, 0.1, 1.0, 10.0)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Draws the images that an evaluation is scored on.

    Attributes:
        labels: int64 ``[N]``.
        sizes: int64 ``[C]``, how many of each class are held out.
        never: bool ``[N]``, images that may not be held out (the probe's network was trained on them).
    """

    labels: IntArray
    sizes: IntArray
    never: BoolArray

    @staticmethod
    def of(labels: IntArray, even: IntArray, never: BoolArray) -> HeldOut:
        """A fifth of each class, at most 1,000 images and at most half of what an even split leaves of it.

        More would leave too few to choose from, so that seeds differed by what is trained on rather than by what is scored,
        and would overlap more from seed to seed.

        Raises:
            UserError: if a class has too few images to hold any out.
        """
        members = np.bincount(labels, minlength=len(even))
        free = np.bincount(labels[~never], minlength=len(even))
        wanted = np.minimum(most_held_out(members), (members - even) // 2).clip(1)
        sizes = np.minimum(wanted, free).astype(np.int64)
        if (sizes < 1).any():
            label = int(np.argmin(sizes))
            remedy = "lower the budget" if members[label] > 1 else "add images to it"
            raise UserError(
                f"class {label} has {members[label]} images, too few to hold some out and measure class counts on: "
                f"{remedy}, or use the allocator 'uniform'"
            )
        return HeldOut(labels, sizes, never)

    @cached_property
    def _free(self) -> list[IntArray]:
        """The images of every class that may be held out."""
        return [one[~self.never[one]] for one in by_class(self.labels, len(self.sizes))]

    @property
    def overlap(self) -> float:
        """Share of the held-out images that two seeds have in common, on average."""
        free = np.array([len(one) for one in self._free])
        return min(float(np.mean(self.sizes / free)), _MOST_OVERLAP)

    def draw(self, seed: int) -> BoolArray:
        """The images held out for ``seed``, bool ``[N]``."""
        mask = np.zeros(len(self.labels), dtype=bool)
        for label, (free, size) in enumerate(zip(self._free, self.sizes, strict=True)):
            mask[generator(seed, "held-out", label).choice(free, size, replace=False)] = True
        return mask


def most_held_out(sizes: IntArray) -> IntArray:
    """How many images of classes of these sizes are held out at most: a fifth, and no more than 1,000."""
    return (sizes // 5).clip(1, _HELD_OUT)


def even_draw(labels: IntArray, counts: IntArray, seed: int) -> IntArray:
    """``counts[c]`` random samples of every class (at most half of it): what the network of the probe is trained on."""
    parts = []
    for label, (count, members) in enumerate(zip(counts, by_class(labels, len(counts)), strict=True)):
        taken = max(1, min(int(count), len(members) // 2))
        parts.append(generator(seed, "probe-set", label).choice(members, taken, replace=False))
    return np.sort(np.concatenate(parts))


def probe_evaluator(
    features: Tensor,
    labels: IntArray,
    pick: Pick,
    held_out: HeldOut,
    even: IntArray,
    prior: Prior,
    *,
    fourier: bool = True,
) -> Evaluate:
    """Fit a last layer on frozen features, and on random Fourier features of them, for every question.

    The strength of its penalty is chosen once, at even counts: weaker ones are tried until the held-out log-loss rises.

    Args:
        features: float32 ``[N, d]`` of all training images, from a network trained on :func:`even_draw`. The fits are made
            on their device.
        labels: int64 ``[N]``.
        pick: chooses the samples.
        held_out: chooses what is scored.
        even: int64 ``[C]``, even counts.
        prior: as in training; ``balanced`` takes the class frequencies out of the probe's loss too.
        fourier: whether to add the random Fourier features; a linear probe without them.
    """
    device = features.device
    truth = torch.from_numpy(labels).to(device)
    first = np.flatnonzero(held_out.never) if held_out.never.any() else np.arange(len(labels))
    num_classes = len(even)
    standardise = Standardiser.of(features[torch.from_numpy(first).to(device)], _DIMENSIONS)
    count = int(np.clip(_FOURIER_WORK / (even.sum() * num_classes), 32, _FOURIER)) if fourier else 0

    def expanded(rows: Tensor) -> Tensor:
        linear = standardise(rows)
        return torch.cat([linear, _FOURIER_SCALE * fourier_features(linear[:, :-1], count)], dim=1).float()  # half the memory

    inputs = torch.cat([expanded(features[part]) for part in row_parts(*features.shape)])

    def fitted(counts: IntArray, held: BoolArray, l2: float, start: Tensor | None) -> Tensor:
        chosen = torch.from_numpy(pick(counts, held)).to(device)
        offset = log_prior(truth[chosen], num_classes).double() if prior == "balanced" else None
        tolerance = _TOLERANCE * len(chosen)
        return fit(
            inputs[chosen].double(), truth[chosen], num_classes, l2=l2, log_prior=offset, start=start, tolerance=tolerance
        )

    def scores(weights: Tensor, held: BoolArray) -> ClassScores:
        scored, layer = torch.from_numpy(np.flatnonzero(held)).to(device), weights.float()
        rows = [scored[part] for part in row_parts(len(scored), num_classes)]
        return scores_of_parts((((inputs[one] @ layer).cpu(), truth[one].cpu()) for one in rows), num_classes)

    held = held_out.draw(0)
    best, least = 0.0, np.inf
    start: Tensor | None = None
    for l2 in sorted(_PENALTIES, reverse=True):  # the weaker, the longer it takes
        weights = fitted(even, held, l2, None)
        loss = float(np.mean(scores(weights, held).loss))
        if start is not None and loss >= least:
            break
        best, start, least = l2, weights, loss

    def evaluate(counts: IntArray, seed: int) -> ClassScores:
        held = held_out.draw(seed)
        return scores(fitted(counts, held, best, start), held)

    return evaluate


def fourier_features(inputs: Tensor, count: int) -> Tensor:
    """``sqrt(2 / count) cos(x W + b)``, whose inner products approximate the kernel ``exp(-|x - y|^2 / 2)``.

    Args:
        inputs: float64 ``[n, d]``.
        count: how many, the same ones for the same d at every call.

    Returns:
        float64 ``[n, count]``.
    """
    draws = torch_generator(0, "fourier")
    frequencies = torch.randn(inputs.shape[1], count, generator=draws, dtype=torch.float64)
    phases = torch.rand(count, generator=draws, dtype=torch.float64) * (2 * torch.pi)
    return (inputs @ frequencies.to(inputs.device)).add_(phases.to(inputs.device)).cos_().mul_((2 / max(1, count)) ** 0.5)


def training_evaluator(
    data: ImageDataset, build: Build, recipe: Recipe, pick: Pick, held_out: HeldOut, device: torch.device | str
) -> Evaluate:
    """Train a fresh network for every question, and score it on the images held out (``--proxy train``).

    Args:
        data: the training images.
        build: makes the network.
        recipe: how it is trained, the same as the final network.
        pick: chooses the samples.
        held_out: chooses what is scored.
        device: where to train.
    """

    def evaluate(counts: IntArray, seed: int) -> ClassScores:
        held = held_out.draw(seed)
        chosen, scored = data.subset(pick(counts, held)), data.subset(np.flatnonzero(held))
        result = train(
            build, chosen, recipe, derive(seed, "proxy"), device=device, test=scored, evaluations=1, on_epoch=announce_epoch
        )
        assert result.last is not None
        return result.last

    return evaluate
