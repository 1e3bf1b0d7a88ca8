"""Whether numbers can be relied on: they are finite, tell samples apart, and come of a network that has learnt something."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.data import BoolArray, IntArray
from dqas_plugin.errors import NotFiniteError

LARGEST_FEATURE = 1e16
"""Above it, squares summed over features and samples leave the range of float32."""

_SAME = 1e-6  # of the largest number of a row: some roundings of float32
_LEAST = 1e-18  # differences whose squares float32 still holds
_CHUNK = 4096
_FEW = 16
_ERRORS = 3.0  # standard errors above chance that are no chance
_ENOUGH = 100  # samples; fewer show nothing
_EARLY_EPOCHS, _EARLY_STEPS = 3, 30


def check_finite(what: str, unsound: BoolArray, labels: IntArray, remedy: str, classes: Sequence[str] = ()) -> None:
    """Refuse numbers of which some samples have unsound ones.

    Args:
        what: the numbers and what is wrong with some: ``the features are not finite``.
        unsound: bool ``[N]``.
        labels: int64 ``[N]``.
        remedy: what to do.
        classes: their names; default: their numbers.

    Raises:
        NotFiniteError: it says how many samples, and how many of the first class among them.
    """
    if not unsound.any():
        return
    label = int(labels[unsound].min())
    ours, size = int(unsound[labels == label].sum()), int((labels == label).sum())
    name = f"'{classes[label]}'" if classes else str(label)
    raise NotFiniteError(
        f"{what} for {unsound.sum():,} of {len(labels):,} samples ({ours:,} of the {size:,} of class {name} among them): "
        f"{remedy}"
    )


def unsound_rows(values: Tensor, largest: float = math.inf) -> BoolArray:
    """Which rows of ``[N, ...]`` have a number that is not finite, or one beyond ``largest``; bool ``[N]``."""
    found = np.zeros(len(values), dtype=np.bool_)
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK].flatten(1) if values.ndim > 1 else values[start : start + _CHUNK, None]
        low, high = part.aminmax()  # their extremes tell of all, at a fraction of the time
        if not (torch.isfinite(low) and torch.isfinite(high) and max(-float(low), float(high)) <= largest):
            found[start : start + len(part)] = ~((part.abs() <= largest) & part.isfinite()).all(dim=1).cpu().numpy()
    return found


def flat(values: Tensor, rows: Tensor) -> bool:
    """Whether these rows of ``[N, ...]`` are the same, but for rounding: then they say nothing of which sample to take.

    Args:
        values: ``[N, ...]``.
        rows: int64 ``[n]``, n at least 1.
    """
    first = values[rows[:1]].double()
    allowed = max(_LEAST, _SAME * float(first.abs().max()))
    parts = [rows[:_FEW], *torch.split(rows[_FEW:], _CHUNK)]  # most often a few tell
    return all(bool(((values[part].double() - first).abs() <= allowed).all()) for part in parts)


@dataclass(frozen=True)
class Chance:
    """Class-mean accuracy of a network, beside that of one that does not look.

    Attributes:
        accuracy: in 0..1.
        chance: one over the number of classes, in 0..1.
        error: standard error of an accuracy at chance.
        samples: of which it is taken.
    """

    accuracy: float
    chance: float
    error: float
    samples: int

    @staticmethod
    def of(right: Iterable[float] | Tensor, labels: IntArray, num_classes: int) -> Chance:
        """Of shares ``[n]`` of how often each sample was answered rightly; classes without samples do not count."""
        sizes = np.bincount(labels, minlength=num_classes)
        there = sizes > 0
        shares = np.bincount(labels, np.asarray(right, dtype=np.float64), minlength=num_classes)[there] / sizes[there]
        chance = 1.0 / num_classes
        error = float(np.sqrt((chance * (1 - chance) / sizes[there]).sum())) / max(1, int(there.sum()))
        return Chance(float(shares.mean()) if there.any() else math.nan, chance, error, len(labels))

    @property
    def blind(self) -> bool:
        """Whether it is no better than chance, with enough samples to tell."""
        return self.samples >= _ENOUGH and self.chance < 1 and self.accuracy <= self.chance + _ERRORS * self.error

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.1f} %, chance is {100 * self.chance:.1f} %, {self.samples:,} images"


def early_answers(margins: Tensor, steps: int) -> Tensor:
    """How often each sample was answered rightly in the first epochs, when it was (nearly) new; float64 ``[N]``.

    A margin is taken before the step that learns from the sample: in the first epoch the network has never seen it, and in the
    next ones hardly. Three epochs, or as many as make 30 steps, before which no network can know anything.

    Args:
        margins: ``[N, E]``, above 0 means right.
        steps: of all epochs.
    """
    epochs = margins.shape[1]
    few = max(_EARLY_EPOCHS, math.ceil(_EARLY_STEPS * epochs / max(1, steps)))
    return (margins[:, :few] > 0).double().mean(dim=1)
