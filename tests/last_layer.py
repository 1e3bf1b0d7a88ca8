"""Small problems for methods that read last-layer gradients, and those gradients written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dqas_plugin.signals import Signals, View

Array = npt.NDArray[Any]
CLASS = 1


def problem(seed: int, count: int, width: int = 6, classes: int = 4) -> tuple[Array, Array]:
    """Features float32 ``[count, width]`` and logits ``[count, classes]``."""
    draws = np.random.default_rng(seed)
    return draws.normal(size=(count, width)).astype(np.float32) + 1, draws.normal(size=(count, classes)).astype(np.float32) * 2


def view_of(features: Array, logits: Array) -> View:
    """All samples as those of class 1."""
    return Signals.from_arrays(features, logits, np.full(len(features), CLASS), num_classes=logits.shape[1]).view(CLASS)


def written_out(features: Array, logits: Array, batch: int) -> Array:
    """Gradients of the mean loss of each batch in weights and bias, float64 ``[n, C, d + 1]``."""
    rows = []
    for start in range(0, len(features), batch):
        free = torch.tensor(logits[start : start + batch], dtype=torch.float64, requires_grad=True)
        functional.cross_entropy(free, torch.full((len(free),), CLASS)).backward()
        assert free.grad is not None
        inputs = np.c_[features[start : start + batch].astype(np.float64), np.ones(len(free))]
        rows.append(free.grad.numpy()[:, :, None] * inputs[:, None])
    return np.concatenate(rows)
