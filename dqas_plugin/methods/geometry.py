"""Rules that look at where a sample lies in its class: around the mean of the features.

``herding``: samples whose running mean follows that of the class (or, in DeepCore, flees it).
``moderate``: samples neither near the mean nor far from it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.contracts import selector
from dqas_plugin.data import IntArray
from dqas_plugin.methods import ordering
from dqas_plugin.methods.greedy import best_gains
from dqas_plugin.methods.greedy_on_device import best_gains_on_device
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.methods.points import Points, mean_of, squared_distances
from dqas_plugin.signals import View


@selector(
    "herding",
    title="Herding: the farthest from what the mean still lacks (paper: the nearest)",
    family="geometry",
    needs={"features"},
    source="Welling, ICML 2009; Rebuffi et al., CVPR 2017, algorithm 4; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: nearest to what the mean still lacks, DeepCore takes the farthest",
)
def herding(view: View, budget: int, rng: np.random.Generator, *, compat: Compat = "deepcore") -> IntArray:
    """Pick by the distance to ``(k + 1) mean - Σ picked``, k being the number of picks so far: with it the means would agree.

    ``deepcore``: the farthest. ``paper``: the nearest, but no sample twice.

    Args:
        view: one class.
        budget: how many.
        rng: not used, nothing is random.
        compat: ``deepcore`` or ``paper``.

    Returns:
        positions in the order of picking, int64; equal distances go to the lowest position.
    """
    return herded(view.features, budget, farthest=ordering.is_deepcore("herding", compat))


def herded(features: Tensor, budget: int, *, farthest: bool) -> IntArray:
    """The first ``budget`` picks of :func:`herding`, int64; O(n d) memory.

    Around the mean the squared distance is ``|x + s|² = |x|² + 2 x·s + const``, s being the sum of the picks: a pick p adds
    ``2 x·p``.

    Args:
        features: float ``[n, d]``.
        budget: how many samples, n at most.
        farthest: whether the highest distance is picked, or the lowest.
    """
    if not features.numel():
        return np.arange(min(budget, len(features)), dtype=np.int64)
    points, sign = Points.of(features), 1.0 if farthest else -1.0
    start, step = sign * points.squares, torch.zeros_like(points.squares)
    if features.device.type != "cpu":
        return best_gains_on_device(None, points.rows(), start, step, -2.0 * sign, budget).cpu().numpy()
    return best_gains(points.factors(), start.numpy(), step.numpy(), -2.0 * sign, budget)


@selector(
    "moderate",
    title="Moderate: neither near the class mean nor far from it",
    family="geometry",
    needs={"features"},
    source="Xia et al., ICLR 2023, section 3; tmllab/2023_ICLR_Moderate-DS",
    differs="the released program takes medians of the features as class centre and cuts the ranks of all classes together",
)
def moderate(view: View, budget: int, rng: np.random.Generator) -> IntArray:
    """Order by how near the distance to the class mean is to the median of these distances, on both sides.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.

    Returns:
        all positions, best first, int64. Of two samples as near to the median the one nearer to the mean comes first (the two
        in the middle of an even number always are), then the one of the lower position.
    """
    features = view.features
    distances = squared_distances(features, mean_of(features)).sqrt().cpu().numpy()
    rising = np.sort(distances)
    lower, upper = rising[(len(rising) - 1) // 2], rising[len(rising) // 2]
    # Twice the distance from the median, in a form whose rounding is the same on both sides.
    scores = np.abs((distances - lower) + (distances - upper))
    inwards = ordering.lowest_first(distances)
    return inwards[ordering.lowest_first(scores[inwards])]
