"""Gradients of the loss in the last layer's weights and bias, never written out.

For cross-entropy under a linear head the gradient of one sample is ``(p - y) ⊗ [φ, 1]``: C·(d+1) numbers that follow from C
and d. Everything asked of them here is an inner product, and ``<g_i, g_j> = <p_i - y_i, p_j - y_j> · (<φ_i, φ_j> + 1)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_CHUNK = 2048  # rows whose features are widened to float64 at once


@dataclass(frozen=True, eq=False)
class LastLayerGradients:
    """Implicit gradients ``g_i = r_i ⊗ [φ_i, 1]`` of n samples.

    Attributes:
        residuals: ``p - y``, float64 ``[n, C]``.
        features: ``φ``, float32 ``[n, d]``.
    """

    residuals: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.residuals)

    @cached_property
    def squared_norms(self) -> Tensor:
        """``|g_i|²``, float64 ``[n]``."""
        return self.residuals.square().sum(dim=1) * (squared_lengths(self.features) + 1.0)

    @cached_property
    def norms(self) -> Tensor:
        """``|g_i|``, float64 ``[n]``."""
        return self.squared_norms.sqrt()

    def scaled(self, factors: Tensor) -> LastLayerGradients:
        """Each gradient times its own of the ``factors [n]``, e.g. :func:`~dqas_plugin.methods.ordering.batch_scale`."""
        return LastLayerGradients(self.residuals * factors.to(self.residuals)[:, None], self.features)

    def of_output(self, output: int) -> LastLayerGradients:
        """The part that belongs to the weights and the bias of one output."""
        return LastLayerGradients(self.residuals[:, output : output + 1], self.features)

    def subset(self, positions: Tensor) -> LastLayerGradients:
        """Those at some positions, int64 ``[k]``."""
        return LastLayerGradients(self.residuals[positions], self.features[positions])

    def products(self, position: int) -> Tensor:
        """``<g_i, g_position>`` for every i, float64 ``[n]``."""
        return self.products_with([position])[:, 0]

    def products_with(self, positions: list[int] | Tensor) -> Tensor:
        """``<g_i, g_j>`` for every i and every j of ``positions``, float64 ``[n, k]``; features meet in float32."""
        inner = (self.features @ self.features[positions].T).double()  # <φ_i, φ_j> (n, k)
        return (self.residuals @ self.residuals[positions].T) * (inner + 1.0)

    def total(self, weights: Tensor | None = None) -> Tensor:
        """``Σ_i weights_i g_i`` (weights ``[n]``, all 1 by default), written out: float64 ``[C, d + 1]``."""
        residuals = self.residuals if weights is None else self.residuals * weights.double()[:, None]
        result = residuals.new_zeros(residuals.shape[1], self.features.shape[1] + 1)
        for rows, part in zip(in_chunks(residuals), in_chunks(self.features), strict=True):
            result[:, :-1] += rows.T @ part
            result[:, -1] += rows.sum(dim=0)
        return result

    def along(self, direction: Tensor) -> Tensor:
        """``<g_i, direction>`` for every i, float64 ``[n]``; the direction is ``[C, d + 1]``, e.g. the mean gradient."""
        weight, bias = direction[:, :-1].double(), direction[:, -1].double()
        pairs = zip(in_chunks(self.residuals), in_chunks(self.features), strict=True)
        return torch.cat([((rows @ weight) * part).sum(dim=1) + rows @ bias for rows, part in pairs])


def outputs_of(features: Tensor, head: Tensor) -> Tensor:
    """What a last layer ``head [C, d + 1]`` (weights, bias) makes of features ``[n, d]``, float64 ``[n, C]``."""
    weight, bias = head[:, :-1].double(), head[:, -1].double()
    return torch.cat([part @ weight.T + bias for part in in_chunks(features)])


def with_bias(features: Tensor) -> Tensor:
    """``[φ, 1]``, float64 ``[n, d + 1]``."""
    result = features.new_ones((len(features), features.shape[1] + 1), dtype=torch.float64)
    result[:, :-1] = features
    return result


def in_chunks(rows: Tensor) -> Iterator[Tensor]:
    """The rows in float64, some at a time."""
    for start in range(0, max(1, len(rows)), _CHUNK):
        yield rows[start : start + _CHUNK].double()


def squared_lengths(rows: Tensor) -> Tensor:
    """Squared norm of every row, float64 ``[n]``."""
    return torch.cat([part.square().sum(dim=1) for part in in_chunks(rows)])


def residuals_of(logits: Tensor, labels: Tensor) -> Tensor:
    """``softmax(logits) - onehot(labels)``, float64 ``[n, C]``, of logits ``[n, C]`` and labels int64 ``[n]``.

    The entry of the label is minus the sum of the others: ``p - 1`` would lose all digits of a sample that fits well.
    """
    result = logits.double().softmax(dim=1)
    column = labels[:, None]
    result.scatter_(1, column, 0.0)
    return result.scatter(1, column, -result.sum(dim=1, keepdim=True))
