"""The last layer fitted anew, without anything of the project: what expected error changes are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Array = npt.NDArray[Any]


def clusters(count: int, width: int, classes: int, seed: int, noise: float = 1.3) -> tuple[Array, Array]:
    """Features like those of a network: few directions matter, classes have parts and overlap; float64, not centred."""
    draws = np.random.default_rng(seed)
    spread = 1 / np.sqrt(np.arange(1, width + 1))
    parts = draws.normal(size=(classes, 3, width))
    labels = draws.integers(0, classes, count)
    features = (parts[labels, draws.integers(0, 3, count)] + noise * draws.normal(size=(count, width))) * spread
    return 5 + 3 * np.maximum(features, -0.2), labels


def inputs_of(features: Array, selected: Array) -> Tensor:
    """As the docstring says."""
    mean = features[selected].mean(0)
    scale = np.sqrt(np.square(features[selected] - mean).sum(1).mean())
    return torch.from_numpy(np.c_[(features - mean) / scale, np.ones(len(features))])


def newton(
    inputs: Tensor, labels: Tensor, classes: int, l2: float, prior: Tensor, start: Tensor | None = None, last: float = 1.0
) -> Tensor:
    """The last layer fitted with its whole Hessian until the gradient is below 1e-7; the last sample weighs ``last``."""
    weights = torch.zeros(inputs.shape[1], classes, dtype=torch.float64) if start is None else start
    each = torch.ones(len(labels), dtype=torch.float64)
    each[-1] = last

    def loss(at: Tensor) -> Tensor:
        losses = functional.cross_entropy(inputs @ at + prior, labels, reduction="none")
        return (each * losses).sum() + l2 / 2 * at.square().sum()

    for _ in range(100):
        p = (inputs @ weights + prior).softmax(1)
        gradient = inputs.T @ (each[:, None] * (p - functional.one_hot(labels, classes))) + l2 * weights
        if gradient.abs().max() <= 1e-7:
            return weights
        blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        size = weights.numel()
        curvature = torch.einsum("nab,nd,ne->daeb", blocks * each[:, None, None], inputs, inputs).reshape(size, size)
        step = torch.linalg.solve(curvature + l2 * torch.eye(size, dtype=torch.float64), gradient.flatten())
        step, length = step.view_as(weights), 1.0
        while loss(weights - length * step) > loss(weights) and length > 1e-3:
            length /= 2
        weights = weights - length * step
    raise AssertionError("Newton's method does not arrive")
