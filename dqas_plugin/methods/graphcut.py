"""GraphCut: samples like the rest of their class and unlike those picked already.

Two objectives go by this name in the literature of dataset quantization:

``deepcore``: what the released DeepCore and DQ compute (PatrickZH/DeepCore, ``methods_utils/submodular_function.py``):
    ``G(x) = -2 Σ_{p picked} s(p, x) + Σ_{p in T} s(p, x)`` with ``s = .5 + .5 cos`` of last-layer loss gradients.
``eq7``: equation 7 of DQAS (Zhao et al., ECCV 2024), after Iyer et al., ALT 2021:
    ``G(x) = Σ_{p picked} |p - x|² - Σ_{p not yet picked} |p - x|²`` on features; samples of earlier bins are in neither sum.

Up to terms that are equal for all x, both change with a pick p by ``step(x) - weight * K(x, p)`` where K is an inner product of
outer products ``left ⊗ right``; ``greedy.best_gains`` does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.contracts import selector
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import unknown_name
from dqas_plugin.gradients import LastLayerGradients, squared_lengths, with_bias
from dqas_plugin.methods import ordering
from dqas_plugin.methods.greedy import Factors, best_gains
from dqas_plugin.methods.greedy_on_device import best_gains_on_device
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.methods.points import Points
from dqas_plugin.signals import View

Objective = Literal["deepcore", "eq7"]


@selector(
    "graphcut",
    title="GraphCut: like the rest of the class, unlike the picked",
    family="submodular",
    needs={"features", "gradients"},
    source="Iyer et al., ALT 2021; PatrickZH/DeepCore; DQAS, equation 7",
    variants={**ordering.variants(), "eq7": {"objective": "eq7"}},
    differs="paper: equation 7 of DQAS, distances of features; DeepCore: angles between gradients",
)
def graphcut(
    view: View, budget: int, rng: np.random.Generator, *, compat: Compat = "deepcore", objective: Objective | None = None
) -> IntArray:
    """Positions in the order of picking, int64; equal gains go to the lowest position.

    Args:
        view: one class.
        budget: how many.
        rng: not used, nothing is random.
        compat: ``deepcore`` or ``paper``, which here is DQAS.
        objective: ``deepcore`` (gradients) or ``eq7`` (features); None: that of ``compat``.

    Raises:
        UserError: for another objective.
    """
    followed = "deepcore" if ordering.is_deepcore("graphcut", compat) else "eq7"
    chosen = followed if objective is None else objective
    if chosen == "deepcore":
        return graphcut_deepcore(view.gradients, budget)
    if chosen == "eq7":
        return graphcut_eq7(view.features, budget)
    raise unknown_name("objective of graphcut", chosen, ("deepcore", "eq7"))


def graphcut_eq7(features: Tensor, budget: int, bin_sizes: Sequence[int] = ()) -> IntArray:
    """The first ``budget`` picks of DQAS equation 7, int64; O(n d) memory.

    In closed form, with s and q the sums of p and |p|² over a set: ``G(x) = m|x|² - 2 x·v + const`` where
    ``m = |picked| - |rest|`` and ``v = s_picked - s_rest``, so that a pick p adds ``2|x|² - 4 x·p``.

    Args:
        features: float ``[n, d]``.
        budget: how many samples, n at most.
        bin_sizes: after so many picks a new bin begins; default: one bin.
    """
    count, width = features.shape
    if not count or not width:
        return np.arange(min(budget, count), dtype=np.int64)
    points = Points.of(features)
    start, step = -count * points.squares, 2.0 * points.squares
    if features.device.type != "cpu":
        return best_gains_on_device(None, points.rows(), start, step, 4.0, budget, bin_sizes).cpu().numpy()
    return best_gains(points.factors(), start.numpy(), step.numpy(), 4.0, budget, bin_sizes=bin_sizes)


def graphcut_deepcore(gradients: LastLayerGradients, budget: int, bin_sizes: Sequence[int] = ()) -> IntArray:
    """The first ``budget`` picks of DeepCore's GraphCut on last-layer gradients, int64; O(n (C + d)) memory.

    A pick p adds ``-2 s(p, x) = -1 - cos(p, x)``. The cosine to a gradient of length 0 counts as 0 (DeepCore has no number
    there).

    Args:
        gradients: of n samples.
        budget: how many samples, n at most.
        bin_sizes: after so many picks a new bin begins, as in DQ: GraphCut on what the bins before left over.
    """
    count = len(gradients)
    left = directions(gradients.residuals)  # (n, C)
    if left.device.type != "cpu":
        return _deepcore_on_device(left, gradients.features, budget, bin_sizes).cpu().numpy()
    plain = gradients.features.numpy()  # NumPy from here on, see Points.factors
    norms = squared_lengths(gradients.features).add(1.0).sqrt().numpy()[:, None]  # |[φ, 1]|

    def right(rows: IntArray) -> FloatArray:
        wide = np.ones((len(rows), plain.shape[1] + 1))
        wide[:, :-1] = plain[rows]
        wide /= norms[rows]
        return wide

    factors = Factors(left.numpy(), right, gradients.features)
    everything = factors.sums(factors.total(np.arange(count)), np.arange(count))  # Σ_p cos(p, x) (n,)
    return best_gains(factors, 0.5 * everything, np.zeros(count), 1.0, budget, bin_sizes=bin_sizes)


def _deepcore_on_device(left: Tensor, features: Tensor, budget: int, bin_sizes: Sequence[int]) -> Tensor:
    right = directions(with_bias(features))
    everything = ((left @ (left.T @ right)) * right).sum(dim=1)
    return best_gains_on_device(left, right, 0.5 * everything, torch.zeros_like(everything), 1.0, budget, bin_sizes)


def directions(rows: Tensor) -> Tensor:
    """Each row over its norm; rows of norm 0 as they are."""
    lengths = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(lengths > 0, lengths, 1.0)
