"""The last layer alone: multinomial logistic regression on frozen features, fitted by Newton's method.

    J(W) = sum_i cross_entropy(x_i W + log_prior, y_i) + l2 / 2 * |W|^2,    x = [features, 1]

The sum rather than the mean, so that adding a sample does not change the strength of the penalty. Newton steps are solved by
preconditioned conjugate gradients. The preconditioner is the same d x d matrix for every class, X' diag(w) X + l2 with w_i the
mean curvature of sample i, trace(diag p_i - p_i p_i') / (C - 1); nothing of size (C d)^2 is formed. Steps are solved in
float32, since the next one corrects them; losses and gradients are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_NEWTON_STEPS = 50
_SOLVE_STEPS = 100
_HALVINGS = 30
_RELATIVE = 0.05  # error of a step that Newton's method can do with
_AT_ONCE = 2**22  # numbers of a table of samples and classes that are worked on together: 32 MB in float64
_INNER = 1e-3  # as far as float32 is trusted when more is wanted

NO_SPREAD = 1e-6
"""Of the length of the mean: samples that differ by less are the same, but for rounding."""


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Maps features to the space of the probe: centred, turned onto their main directions, one scale for all.

    Attributes:
        mean: float64 ``[d]``.
        basis: float64 ``[d, k]``.
    """

    mean: Tensor
    basis: Tensor

    @staticmethod
    def of(features: Tensor, dimensions: int) -> Standardiser:
        """Fitted to ``features`` ``[n, d]``: their first ``dimensions`` principal directions, scaled so that E|x|^2 = 1."""
        wide = features.double()
        mean = wide.mean(0)
        centred = wide - mean
        kept = min(dimensions, *centred.shape)
        if kept < centred.shape[1]:
            _, vectors = torch.linalg.eigh(centred.T @ centred)
            basis = vectors[:, -kept:]
        else:
            basis = torch.eye(kept, dtype=torch.float64, device=wide.device)
        least = max(1e-12, NO_SPREAD * float(mean.norm()))  # where all are the same, roundings are not blown up
        scale = (centred @ basis).square().sum(1).mean().sqrt().clamp_min(least)
        return Standardiser(mean, basis / scale)

    def __call__(self, features: Tensor) -> Tensor:
        """float64 ``[n, k + 1]``: the mapped features and a column of ones."""
        mapped = (features.double() - self.mean) @ self.basis
        return torch.cat([mapped, mapped.new_ones(len(mapped), 1)], dim=1)


def fit(
    inputs: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    l2: float,
    log_prior: Tensor | None = None,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
) -> Tensor:
    """The weights W that minimise J.

    Args:
        inputs: float64 ``[n, d]``, a column of ones included.
        labels: int64 ``[n]``.
        num_classes: C.
        l2: strength of the penalty, above 0.
        log_prior: float64 ``[C]`` added to the logits (:func:`dqas_plugin.training.log_prior`), or None.
        start: float64 ``[d, C]`` to start from.
        tolerance: stop when no entry of the gradient exceeds it.

    Returns:
        float64 ``[d, C]``.
    """
    weights = inputs.new_zeros(inputs.shape[1], num_classes) if start is None else start.clone()
    prior = inputs.new_zeros(num_classes) if log_prior is None else log_prior.to(inputs)

    single, parts = inputs.float(), row_parts(len(labels), num_classes)

    def loss(candidate: Tensor) -> Tensor:
        sums = [functional.cross_entropy(inputs[part] @ candidate + prior, labels[part], reduction="sum") for part in parts]
        return torch.stack(sums).sum() + 0.5 * l2 * candidate.square().sum()

    current = loss(weights)
    probabilities = single.new_empty(len(labels), num_classes)  # the largest of all that is here
    for _ in range(_NEWTON_STEPS):
        gradient = torch.zeros_like(weights)
        for part in parts:
            residuals = torch.softmax(inputs[part] @ weights + prior, dim=1)
            probabilities[part] = residuals
            residuals.scatter_add_(1, labels[part, None], residuals.new_full((1, 1), -1.0).expand(len(residuals), 1))
            gradient += inputs[part].T @ residuals
        gradient += l2 * weights
        if gradient.abs().max() <= tolerance:
            break
        direction = _solve(single, probabilities, l2, gradient.float(), _RELATIVE, _SOLVE_STEPS).double()
        weights, current, moved = _step(loss, weights, direction, current, float((gradient * direction).sum()))
        if not moved:
            break
    return weights


def row_parts(count: int, width: int) -> list[slice]:
    """The rows of a table ``[count, width]`` in parts that are small against the memory; most often it is one."""
    rows = max(1, _AT_ONCE // width)
    return [slice(start, min(start + rows, count)) for start in range(0, max(1, count), rows)]


def hessian_product(inputs: Tensor, probabilities: Tensor, l2: float, vector: Tensor) -> Tensor:
    """H V = X' (P o XV - P o rowsum(P o XV)) + l2 V for ``vector`` V ``[d, C]`` and P ``[n, C]``."""
    total = torch.zeros_like(vector)
    for part in row_parts(*probabilities.shape):
        rows, chances = inputs[part], probabilities[part]
        weighted = chances * (rows @ vector)
        weighted -= chances * weighted.sum(1, keepdim=True)
        total += rows.T @ weighted
    return total + l2 * vector


def mean_curvature(inputs: Tensor, probabilities: Tensor, l2: float) -> Tensor:
    """X' diag(w) X + l2, float64 ``[d, d]``, with w_i the mean curvature of sample i: the Hessian without its classes."""
    squares = torch.cat([probabilities[part].square().sum(1) for part in row_parts(*probabilities.shape)])
    curvature = (1 - squares).clamp_min_(0) / max(1, probabilities.shape[1] - 1)
    gram = (inputs.T @ (inputs * curvature[:, None])).double()
    gram.diagonal().add_(l2)
    return gram


def solve(inputs: Tensor, probabilities: Tensor, l2: float, right: Tensor, *, tolerance: float = 1e-5) -> Tensor:
    """V with H V = ``right``; see :func:`hessian_product`.

    Conjugate gradients run in float32; the remainder, which is computed in float64, is then solved for in turn.

    Args:
        inputs: float64 ``[n, d]``.
        probabilities: float64 ``[n, C]``.
        l2: strength of the penalty, above 0.
        right: float64 ``[d, C]``.
        tolerance: stop when the remainder is so small a part of ``right``; also once it no longer shrinks.

    Returns:
        float64 ``[d, C]``.
    """
    single = inputs.float(), probabilities.float()
    solution, remainder = torch.zeros_like(right), right
    size = right.norm()
    goal = tolerance * size
    while size > goal:
        scaled = (remainder / size).float()  # float32 has no room for what is very small
        part = _solve(*single, l2, scaled, max(_INNER, 0.5 * float(goal / size)), 10 * _SOLVE_STEPS).double() * size
        following = right - hessian_product(inputs, probabilities, l2, solution + part)
        if not following.norm() < size:
            break
        solution, remainder, size = solution + part, following, following.norm()
    return solution


def _solve(inputs: Tensor, probabilities: Tensor, l2: float, right: Tensor, relative: float, steps: int) -> Tensor:
    """V with H V = ``right``, roughly, by preconditioned conjugate gradients; all float32."""
    factor = torch.linalg.cholesky(mean_curvature(inputs, probabilities, l2)).float()
    solution = torch.zeros_like(right)
    residual = right.clone()
    preconditioned = torch.cholesky_solve(residual, factor)
    direction = preconditioned.clone()
    product = (residual * preconditioned).sum()
    goal = relative * right.norm()
    for _ in range(steps):
        if residual.norm() <= goal:
            break
        image = hessian_product(inputs, probabilities, l2, direction)
        length = product / (direction * image).sum()
        solution += length * direction
        residual -= length * image
        preconditioned = torch.cholesky_solve(residual, factor)
        following = (residual * preconditioned).sum()
        direction = preconditioned + following / product * direction
        product = following
    return solution


def _step(
    loss: Callable[[Tensor], Tensor], weights: Tensor, direction: Tensor, current: Tensor, slope: float
) -> tuple[Tensor, Tensor, bool]:
    """Backtracking line search along ``-direction``."""
    length = 1.0
    for _ in range(_HALVINGS):
        candidate = weights - length * direction
        value = loss(candidate)
        if value <= current - 1e-4 * length * slope:
            return candidate, value, True
        length *= 0.5
    return weights, current, False
