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
from dqas_plugin.gradients import LastLayerGradients, in_chunks, squared_lengths
from dqas_plugin.methods.greedy import Factors, best_gains
from dqas_plugin.signals import View

Objective = Literal["deepcore", "eq7"]


@selector(
    "graphcut",
    title="GraphCut: like the rest of the class, unlike the picked",
    family="submodular",
    needs={"gradients"},
    source="Iyer et al., ALT 2021; PatrickZH/DeepCore; DQAS, equation 7",
    variants={"deepcore": {"objective": "deepcore"}, "eq7": {"objective": "eq7"}},
)
def graphcut(view: View, budget: int, rng: np.random.Generator, *, objective: Objective = "deepcore") -> IntArray:
    """Positions in the order of picking, int64; equal gains go to the lowest position.

    Args:
        view: one class.
        budget: how many.
        rng: not used, nothing is random.
        objective: ``deepcore`` (gradients) or ``eq7`` (features).
    """
    if objective == "deepcore":
        return graphcut_deepcore(view.gradients, budget)
    if objective == "eq7":
        return graphcut_eq7(view.features, budget)
    raise unknown_name("objective of graphcut", objective, ("deepcore", "eq7"))


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
    # Distances are translation invariant, and the order of gains does not depend on the unit: around the mean and with
    # norms of at most 1 nothing cancels and nothing overflows.
    centre = torch.stack([part.sum(dim=0) for part in in_chunks(features)]).sum(dim=0) / count
    squares = torch.cat([(part - centre).square().sum(dim=1) for part in in_chunks(features)]).numpy()
    scale = float(np.sqrt(squares.max())) or 1.0

    # NumPy from here on: the loop alternates with its products, and two pools of spinning threads get in each other's way.
    plain, middle = features.numpy(), centre.numpy()

    def right(rows: IntArray) -> FloatArray:
        result: FloatArray = (plain[rows] - middle) / scale
        return result

    squares = squares / scale**2
    factors = Factors(np.ones((count, 1)), right, features)
    return best_gains(factors, -count * squares, 2.0 * squares, 4.0, budget, bin_sizes=bin_sizes)


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
    features = gradients.features
    residuals = gradients.residuals
    lengths = residuals.norm(dim=1, keepdim=True)
    left = (residuals / torch.where(lengths > 0, lengths, 1.0)).numpy()  # (n, C)
    plain = features.numpy()  # as above
    norms = squared_lengths(features).add(1.0).sqrt().numpy()[:, None]  # |[φ, 1]|

    def right(rows: IntArray) -> FloatArray:
        wide = np.ones((len(rows), plain.shape[1] + 1))
        wide[:, :-1] = plain[rows]
        wide /= norms[rows]
        return wide

    factors = Factors(left, right, features)
    everything = factors.sums(factors.total(np.arange(count)), np.arange(count))  # Σ_p cos(p, x) (n,)
    return best_gains(factors, 0.5 * everything, np.zeros(count), 1.0, budget, bin_sizes=bin_sizes)
