"""Rules that look at clusters within the class: how far a sample is from the nearest of some prototypes."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch

from dqas_plugin.contracts import Bounds, selector
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import unknown_name
from dqas_plugin.methods import ordering
from dqas_plugin.methods.copies import first_copies
from dqas_plugin.methods.neighbours import at_least_one, block_rows
from dqas_plugin.methods.points import Points
from dqas_plugin.signals import View

Keep = Literal["easy", "hard"]

LARGE = 50_000
"""Samples above which the clusters are found from parts of them."""

_GRID = 2.0**-20  # of the largest distance from the mean: clusters nearer to each other than this are one


@selector(
    "kmeans-prototypes",
    title="k-means prototypes: near the middle of a cluster (hard: far from all)",
    family="geometry",
    needs={"features"},
    source="Sorscher et al., NeurIPS 2022",
    variants={"easy": {"keep": "easy"}, "hard": {"keep": "hard"}},
    differs="the paper clusters all classes together, in the space of a self-supervised network (--features)",
)
def kmeans_prototypes(
    view: View, budget: int, rng: np.random.Generator, *, clusters: Annotated[int, Bounds(1)] = 10, keep: Keep = "easy"
) -> IntArray:
    """Order by the distance to the nearest centre of a k-means clustering of the features.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: of the clustering.
        clusters: how many, or as many as there are different samples.
        keep: ``easy`` (nearest first), which the paper advises where samples are scarce, or ``hard`` (farthest first), where
            they abound.

    Returns:
        all positions, best first, int64; equal distances keep their order.

    Raises:
        UserError: for another ``keep``, or less than one cluster.
    """
    if keep not in ("easy", "hard"):
        raise unknown_name("keep of kmeans-prototypes", keep, ("easy", "hard"))
    at_least_one("clusters", clusters)
    features = view.features.cpu()
    points = Points.of(features).rows().numpy()
    if len(points) > LARGE:
        view.note(f"kmeans-prototypes found the clusters of {len(points):,} images from random parts of them")
    centres = prototypes(points, clusters, int(rng.integers(2**31)))
    squares = nearest_squares(points, centres)
    return ordering.lowest_first(squares) if keep == "easy" else ordering.highest_first(squares)


def prototypes(points: FloatArray, clusters: int, seed: int) -> FloatArray:
    """Centres of a k-means clustering, float64 ``[k, d]``; k is less than ``clusters`` where fewer points differ.

    Args:
        points: float64 ``[n, d]``, of norm 1 at most.
        clusters: how many.
        seed: of the first centres.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    different = np.unique(first_copies(torch.from_numpy(np.round(points / _GRID) + 0.0)))
    count = min(clusters, len(different))
    if count == len(different):
        return points[different]
    if len(points) > LARGE:
        found = MiniBatchKMeans(count, batch_size=4096, n_init=3, random_state=seed).fit(points)
        return np.asarray(found.cluster_centers_, dtype=np.float64)
    labels = KMeans(count, n_init=3, random_state=seed).fit_predict(points)
    # Threads of scikit-learn add up in any order; these means are the same on every run.
    centres: FloatArray = np.stack([points[labels == label].mean(axis=0) for label in np.unique(labels)])
    return centres


def nearest_squares(points: FloatArray, centres: FloatArray) -> FloatArray:
    """Squared distance of every point ``[n, d]`` to the nearest centre ``[k, d]``, float64 ``[n]``."""
    result = np.full(len(points), np.inf)
    step = block_rows(points.shape[1])
    for start in range(0, len(points), step):
        part = points[start : start + step]
        for centre in centres:
            apart = part - centre
            np.minimum(result[start : start + step], np.einsum("nd,nd->n", apart, apart), out=result[start : start + step])
    return result
