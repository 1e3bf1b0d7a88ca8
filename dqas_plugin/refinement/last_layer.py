"""The last layer trained on what is selected, and how well it does on the rest: what the scorers look at.

The pool R is everything that is not selected, all of it: a sample of it would cost most of the accuracy of the scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.data import IntArray, as_indices
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.gradients import residuals_of
from dqas_plugin.logistic import NO_SPREAD, fit, mean_curvature, row_parts, solve
from dqas_plugin.losses import log_prior, sample_losses

_CHUNK = 8192  # samples of the pool that are looked at together
_KEPT = 2**24  # logits of the pool that are kept rather than computed four times: 128 MB
_TOLERANCE = 1e-3  # largest entry of the gradient where the fit stops; 1e-2 still gives the same order
PRIORS = ("balanced", "empirical")


@dataclass(frozen=True, eq=False)
class Problem:
    """Features and labels, seen from a first selection: centred on its mean, one scale for all, and a column of ones.

    No direction is dropped: a candidate may bring one in which the selected do not differ.

    Attributes:
        features: float32 or float64 ``[N, d]``.
        labels: int64 ``[N]``, on the device of the features.
        num_classes: C.
        mean: float64 ``[d]``.
        scale: float64, root of the mean squared distance of the selected from ``mean``; of all, where the selected are alike.
        balanced: whether the class frequencies of what is selected are taken out of the loss.
    """

    features: Tensor
    labels: Tensor
    num_classes: int
    mean: Tensor
    scale: Tensor
    balanced: bool

    @staticmethod
    def of(
        features: npt.ArrayLike | Tensor,
        labels: npt.ArrayLike | Tensor,
        selected: npt.ArrayLike,
        num_classes: int | None = None,
        prior: str = "empirical",
    ) -> Problem:
        """Checked; the scale is that of the features ``selected``.

        Raises:
            UserError: for shapes that do not fit, numbers that are not finite, nothing selected, an unknown prior.
        """
        if prior not in PRIORS:
            raise unknown_name("prior", prior, PRIORS)
        values = torch.as_tensor(features)
        values = values if values.dtype == torch.float64 else values.float()
        truth = torch.as_tensor(labels, device=values.device).long()
        if values.ndim != 2 or truth.shape != values.shape[:1]:
            raise UserError(
                f"features and labels must be [N, d] and [N], not {list(values.shape)} and {list(truth.shape)}: give a row each"
            )
        chosen = positions("selected", selected, len(truth))
        if not len(chosen):
            raise UserError("nothing is selected that a training could start from: select at least one sample first")
        if not all(bool(values[one : one + _CHUNK].isfinite().all()) for one in range(0, len(values), _CHUNK)):
            raise UserError("the features have numbers that are not finite: leave those samples out")
        classes = int(truth.max()) + 1 if num_classes is None else num_classes
        if int(truth.min()) < 0 or int(truth.max()) >= classes:
            raise UserError(f"labels must lie in 0..{classes - 1}, not {int(truth.min())}..{int(truth.max())}")
        centred = values[torch.from_numpy(chosen).to(values.device)].double()
        mean = centred.mean(0)
        scale = _spread(centred, mean) or _spread(values, mean) or 1.0  # one sample, or identical ones; or all are
        return Problem(values, truth, classes, mean, mean.new_tensor(scale), prior == "balanced")

    def rows(self, indices: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Inputs of the last layer, ``[n, d + 1]``."""
        centred = self.features[indices].to(dtype).sub_(self.mean.to(dtype)).div_(self.scale.to(dtype))
        return torch.cat([centred, centred.new_ones(len(centred), 1)], dim=1)

    def fitted(self, selected: IntArray, l2: float, *, start: Tensor | None = None, tolerance: float = _TOLERANCE) -> Fitted:
        """The last layer trained on ``selected`` dataset indices, from the weights ``start`` if there are any."""
        mask = torch.ones(len(self.labels), dtype=torch.bool, device=self.features.device)
        chosen = torch.from_numpy(selected).to(mask.device)
        mask[chosen] = False
        labels = self.labels[chosen]
        prior = log_prior(labels, self.num_classes).double() if self.balanced else self.mean.new_zeros(self.num_classes)
        inputs = self.rows(chosen)
        weights = fit(inputs, labels, self.num_classes, l2=l2, log_prior=prior, start=start, tolerance=tolerance)
        return Fitted(self, inputs, labels, mask.nonzero()[:, 0], prior, weights, l2)


@dataclass(frozen=True, eq=False)
class Fitted:
    """The last layer trained on a selection S, beside the pool R of everything else.

    Attributes:
        problem: what all selections share.
        inputs: of S, float64 ``[n, d + 1]``.
        labels: of S, int64 ``[n]``.
        pool: R, dataset indices, int64 ``[r]``.
        prior: what training adds to the logits, float64 ``[C]``.
        weights: float64 ``[d + 1, C]``.
        l2: strength of the penalty.
    """

    problem: Problem
    inputs: Tensor
    labels: Tensor
    pool: Tensor
    prior: Tensor
    weights: Tensor
    l2: float

    def blocks(self, dtype: torch.dtype | None = None) -> Iterator[tuple[slice, Tensor]]:
        """The inputs of the pool in parts: where each is in it, and ``[b, d + 1]``; of the features' type by default."""
        dtype = self.problem.features.dtype if dtype is None else dtype
        for start in range(0, len(self.pool), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(self.pool)))
            yield part, self.problem.rows(self.pool[part], dtype)

    @cached_property
    def pool_labels(self) -> Tensor:
        """int64 ``[r]``."""
        return self.problem.labels[self.pool]

    @cached_property
    def _kept_logits(self) -> Tensor | None:
        if len(self.pool) * self.problem.num_classes > _KEPT:
            return None
        weights = self.weights.to(self.problem.features.dtype)
        return torch.cat([(part @ weights).double() for _, part in self.blocks()])

    def pool_logits(self, rows: slice | Tensor, inputs: Tensor) -> Tensor:
        """Of some of the pool, as at test time, without the prior; those of a large pool in many classes are not kept.

        Args:
            rows: where they are in the pool.
            inputs: theirs, ``[b, d + 1]``.

        Returns:
            float64 ``[b, C]``.
        """
        if self._kept_logits is not None:
            return self._kept_logits[rows]
        return (inputs @ self.weights.to(inputs.dtype)).double()

    @cached_property
    def pool_loss(self) -> float:
        """Expected error: the mean negative log-likelihood of the pool (Equation 6 with its minus sign)."""
        losses = [sample_losses(self.pool_logits(rows, part), self.pool_labels[rows]) for rows, part in self.blocks()]
        return float(torch.cat(losses).mean())

    @cached_property
    def probabilities(self) -> Tensor:
        """Of S, in training; float64 ``[n, C]``."""
        return torch.softmax(self.inputs @ self.weights + self.prior, dim=1)

    @cached_property
    def pool_gradient(self) -> Tensor:
        """Of the expected error in the weights, float64 ``[d + 1, C]``."""
        total = torch.zeros_like(self.weights)
        for rows, part in self.blocks():
            residuals = residuals_of(self.pool_logits(rows, part), self.pool_labels[rows])
            total += (part.T @ residuals.to(part.dtype)).double()
        return total / len(self.pool)

    @cached_property
    def response(self) -> Tensor:
        """Inverse Hessian of the training loss times the pool's gradient, float64 ``[d + 1, C]``."""
        return solve(self.inputs, self.probabilities, self.l2, self.pool_gradient)

    @cached_property
    def curvature(self) -> Tensor:
        """The Hessian of the training loss without its classes, float64 ``[d + 1, d + 1]``."""
        return mean_curvature(self.inputs, self.probabilities, self.l2)

    @cached_property
    def prior_response(self) -> Tensor:
        """Change of the expected error by each class's log-prior to first order, float64 ``[C]``; 0 where there is none."""
        if not self.problem.balanced:
            return torch.zeros_like(self.prior)
        total = torch.zeros_like(self.prior)
        for part in row_parts(*self.probabilities.shape):
            chances = self.probabilities[part]
            weighted = chances * (self.inputs[part] @ self.response)
            total -= (weighted - chances * weighted.sum(1, keepdim=True)).sum(0)
        return total

    @cached_property
    def counts(self) -> Tensor:
        """Samples of every class in S; none count as half a one, as in the prior. float64 ``[C]``."""
        return torch.bincount(self.labels, minlength=self.problem.num_classes).double().clamp_min(0.5)


def _spread(rows: Tensor, mean: Tensor) -> float:
    """Root of the mean squared distance from ``mean`` of rows ``[n, d]``; 0 where that is but their rounding."""
    parts = torch.split(rows, _CHUNK)
    squares = torch.stack([(one.double() - mean).square().sum() for one in parts]).sum()
    spread = float((squares / len(rows)).sqrt())
    return spread if spread > NO_SPREAD * float(mean.norm()) else 0.0


def positions(name: str, values: npt.ArrayLike, count: int) -> IntArray:
    """Dataset indices, int64, of indices or of a mask ``[count]``.

    Raises:
        UserError: for anything else, or for indices that repeat or are out of range.
    """
    found = as_indices(name, values, count)
    if len(np.unique(found)) < len(found):
        raise UserError(f"{name} must be different indices: leave out what repeats")
    return found
