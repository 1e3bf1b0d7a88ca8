"""What the benchmarks of selection share: made-up data, time and memory."""

from __future__ import annotations

import ctypes
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from dqas_plugin.signals import Signals

BATCH = 256  # samples that DeepCore's network sees at a time, by default
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, eq=False)
class Problem:
    """Features, labels, a fixed last layer, and what a training with it might have recorded.

    Attributes:
        features: float32 ``[n, d]``.
        labels: int64 ``[n]``.
        weight: float32 ``[C, d]``.
        bias: float32 ``[C]``.
        margins: float32 ``[n, E]``.
        errors: float32 ``[n, E]``.
        perturbations: float32 ``[n]``.
    """

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor
    margins: Tensor
    errors: Tensor
    perturbations: Tensor

    @functools.cached_property
    def logits(self) -> Tensor:
        """What the last layer makes of the features, in batches as in DeepCore, whose sums it repeats."""
        return torch.cat([functional.linear(part, self.weight, self.bias) for part in torch.split(self.features, BATCH)])

    def signals(self) -> Signals:
        """All of it, as the methods read it."""
        recorded: dict[str, Any] = {name: getattr(self, name) for name in ("margins", "errors", "perturbations")}
        classes = len(self.weight)
        return Signals.from_arrays(self.features, self.logits, self.labels, num_classes=classes, **recorded)


def head(width: int, classes: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weights ``[C, d]`` and biases ``[C]`` of a last layer that mostly knows class 0."""
    draws = np.random.default_rng(1)
    weight = draws.normal(size=(classes, width)) / math.sqrt(width)
    return weight.astype(np.float32), (2.0 * (np.arange(classes) == 0)).astype(np.float32)


def clustered(count: int, width: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Features like those of a network: not negative, of several clusters; ``[count, width]``."""
    centres = np.random.default_rng(0).standard_normal((12, width), np.float32)
    draws = np.random.default_rng([2, seed])
    result = draws.standard_normal((count, width), np.float32)
    result *= 0.7
    result += centres[draws.integers(0, 12, count)]
    return np.maximum(result, 0.0, out=result)


def made_up(sizes: list[int], width: int, classes: int, epochs: int = 20) -> Problem:
    """Samples of the first classes, so many of each, class by class."""
    count = sum(sizes)
    draws = np.random.default_rng(3)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    skill = draws.normal(1.0, 1.5, (count, 1)) + np.linspace(-2, 2, epochs)
    margins = (skill + draws.normal(size=(count, epochs))).astype(np.float32)
    errors = (math.sqrt(2) / (1 + np.exp(margins))).astype(np.float32)
    perturbations = draws.exponential(size=count).astype(np.float32)
    arrays = (clustered(count, width), labels, *head(width, classes), margins, errors, perturbations)
    return Problem(*(torch.from_numpy(one) for one in arrays))


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def status(name: str, process: int | str = "self") -> float:
    """A line of what Linux tells of a process, in MB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def peak_megabytes(work: Callable[[], object]) -> float:
    """Most memory resident during ``work``, beyond what was before it; NaN where the system does not say (only Linux does)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not count as being there already
        _CLEAR.write_text("5", encoding="ascii")
        before = status("VmRSS")
    except (OSError, AttributeError):
        return math.nan
    work()
    return status("VmHWM") - before


def chunks(count: int, size: int) -> Iterator[slice]:
    """``0..count`` in parts."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
