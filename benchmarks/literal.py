"""The selection methods as they are usually written: the yardstick of ``selectors.py``.

They proceed as the released DeepCore does (or, for methods it does not have, as the paper says): gradients are written out,
``C (d + 1)`` numbers a sample; greedy methods read dense matrices of all pairs and take their sums anew for every pick. All in
float64, so that they say which picks are right. Equal scores go to the lowest position.

Every one is ``f(view, budget) -> positions`` in the order of picking.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.optimize

from common import BATCH, chunks
from dqas_plugin.signals import View

D2_GAMMA = 0.01  # distances of the made-up features are tens, and messages must arrive

Array = npt.NDArray[Any]
Literal = Callable[[View, int], list[int]]
Worth = Callable[[list[int]], float]


def softmax(view: View) -> Array:
    """Probabilities, float64 ``[n, C]``."""
    logits = view.logits.double().numpy()
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def gradients(view: View, scale: Array | None = None) -> Array:
    """Gradients of the loss in the last layer, written out, float64 ``[n, C (d + 1)]``.

    It is the mean loss of a batch of the class, or with ``scale`` (``[n]``) the loss times that.
    """
    residuals = softmax(view)
    residuals[:, view.label] -= 1
    residuals *= (batch_shares(len(view)) if scale is None else scale)[:, None]
    inputs = np.concatenate([view.features.double().numpy(), np.ones((len(view), 1))], axis=1)
    result: Array = (residuals[:, :, None] * inputs[:, None]).reshape(len(view), -1)
    return result


def batch_shares(count: int) -> Array:
    """One over the size of the batch that each of so many samples is in."""
    result = np.empty(count)
    for part in chunks(count, BATCH):
        result[part] = 1 / len(result[part])
    return result


def negative_distances(points: Array) -> Array:
    """Minus the squared distances of all pairs, ``[n, n]``."""
    points = points - points.mean(axis=0)
    squares = np.square(points).sum(axis=1)
    result: Array = 2 * points @ points.T - squares[:, None] - squares
    return result


def cosines(view: View) -> Array:
    """.5 + .5 cos of the gradients of all pairs, ``[n, n]``."""
    rows = gradients(view)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    result: Array = 0.5 + 0.5 * rows @ rows.T
    return result


def lowest(scores: Array, budget: int) -> list[int]:
    """Positions of the lowest scores."""
    return [int(one) for one in np.argsort(scores, kind="stable")[:budget]]


# Submodular


def graphcut(similarity: Array, budget: int) -> list[int]:
    """-2 Σ over the picked + Σ over all, of every sample that is left."""
    everything = similarity.sum(axis=1)
    selected = np.zeros(len(similarity), dtype=bool)
    picks: list[int] = []
    for _ in range(budget):
        left = np.flatnonzero(~selected)
        gains = -2 * similarity[np.ix_(left, np.flatnonzero(selected))].sum(axis=1) + everything[left]
        picks.append(int(left[gains.argmax()]))
        selected[picks[-1]] = True
    return picks


def covering(similarity: Array, budget: int) -> list[int]:
    """Σ max(0, similarity - best so far), lazily: those of the highest gains known are asked again until they stay first.

    Two samples that only gain for themselves and each other gain exactly the same, so that gains are compared up to rounding.
    """
    best = np.zeros(len(similarity))
    gains = similarity.sum(axis=1)
    near = 1e-14 * float(similarity.max()) * len(similarity)
    picks: list[int] = []
    for _ in range(budget):
        asked: set[int] = set()
        while stale := set(np.flatnonzero(gains >= gains.max() - near).tolist()) - asked:
            for one in stale:
                gains[one] = np.maximum(0, similarity[one] - best).sum()
            asked |= stale
        picks.append(int((gains >= gains.max() - near).argmax()))
        gains[picks[-1]] = -np.inf
        best = np.maximum(best, similarity[picks[-1]])
    return picks


def graphcut_eq7(view: View, budget: int) -> list[int]:
    # With one bin equation 7 is 2 Σ over the picked - Σ over all of the distances: the other objective with this similarity.
    return graphcut(negative_distances(view.features.double().numpy()), budget)


def graphcut_deepcore(view: View, budget: int) -> list[int]:
    return graphcut(cosines(view), budget)


def facility_location(view: View, budget: int) -> list[int]:
    return covering(cosines(view), budget)


def nearness(view: View) -> Array:
    """How much nearer than the farthest two the gradients of all pairs are, ``[n, n]``."""
    similarity = -np.sqrt(np.maximum(-negative_distances(gradients(view)), 1e-12))
    result: Array = similarity - similarity.min() + 1e-3
    return result


def craig(view: View, budget: int) -> list[int]:
    return covering(nearness(view), budget)


def coverage(similarity: Array) -> Worth:
    """What facility location maximises."""
    return lambda picks: float(similarity[picks].max(axis=0).sum())


# Geometry


def farthest_first(points: Array, distance: Callable[[Array, Array], Array], budget: int, seed: int) -> list[int]:
    """The sample farthest from its nearest pick, from a table of the distances to every pick."""
    count = len(points)
    picks = [int(np.random.RandomState(seed % 2**32).randint(0, count))]
    table = np.full((budget, count), -1.0)
    nearest = np.full(count, np.inf)
    selected = np.zeros(count, dtype=bool)
    for turn in range(budget - 1):
        selected[picks[-1]] = True
        table[turn, ~selected] = distance(points[picks[-1]], points[~selected])
        nearest = np.minimum(nearest, table[turn])
        picks.append(int(nearest.argmax()))
    return picks


def k_center(view: View, budget: int) -> list[int]:
    def distance(centre: Array, others: Array) -> Array:
        result: Array = np.sqrt(np.square(others - centre).sum(axis=1))
        return result

    return farthest_first(view.features.double().numpy(), distance, budget, view.seed)


def divergence(one: Array, other: Array) -> Array:
    """Symmetric Kullback-Leibler divergence along the last axis."""
    result: Array = np.sum(0.5 * one * np.log(one / other) + 0.5 * other * np.log(other / one), axis=-1)
    return result


def contextual_diversity(view: View, budget: int) -> list[int]:
    return farthest_first(softmax(view), divergence, budget, view.seed)


def herding(view: View, budget: int) -> list[int]:
    """The farthest from (picks + 1) * mean - Σ picked, as DeepCore has it."""
    points = view.features.double().numpy()
    mean = points.mean(axis=0)
    selected = np.zeros(len(points), dtype=bool)
    picks: list[int] = []
    for turn in range(budget):
        left = np.flatnonzero(~selected)
        target = (turn + 1) * mean - points[selected].sum(axis=0)
        picks.append(int(left[np.square(points[left] - target).sum(axis=1).argmax()]))
        selected[picks[-1]] = True
    return picks


def kmeans_prototypes(view: View, budget: int) -> list[int]:
    """The nearest to one of ten means, by Lloyd's algorithm from samples far from each other."""
    points = view.features.double().numpy()
    squares = np.square(points - points[0]).sum(axis=1)
    centres = [points[0]]
    for _ in range(9):
        centres.append(points[squares.argmax()])
        squares = np.minimum(squares, np.square(points - centres[-1]).sum(axis=1))
    labels = np.full(len(points), -1)
    while True:
        apart = np.stack([np.square(points - one).sum(axis=1) for one in centres])
        if (apart.argmin(axis=0) == labels).all():
            return lowest(apart.min(axis=0), budget)
        labels = apart.argmin(axis=0)
        centres = [points[labels == one].mean(axis=0) for one in np.unique(labels)]


def moderate(view: View, budget: int) -> list[int]:
    """Distances to the mean that are nearest to their median; of two as near the shorter."""
    points = view.features.double().numpy()
    distances = np.sqrt(np.square(points - points.mean(axis=0)).sum(axis=1))
    order = np.lexsort((distances, np.abs(distances - np.median(distances)).round(12)))
    return [int(one) for one in order[:budget]]


def cal(view: View, budget: int) -> list[int]:
    """Mean divergence from the ten nearest, lowest first."""
    order = np.argsort(-negative_distances(view.features.double().numpy()), axis=1, kind="stable")
    chances = softmax(view)
    return lowest(divergence(chances[:, None], chances[order[:, 1:11]]).mean(axis=1), budget)


# Gradients


def gradmatch(view: View, budget: int) -> list[int]:
    """Orthogonal matching pursuit of the mean gradient, every step a new least-squares problem of all picks."""
    atoms = gradients(view)
    target = atoms.mean(axis=0)
    rest = target
    selected = np.zeros(len(atoms), dtype=bool)
    picks: list[int] = []
    for turn in range(budget):
        left = np.flatnonzero(~selected)
        picks.append(int(left[(atoms @ rest)[left].argmax()]))
        selected[picks[-1]] = True
        chosen = atoms[picks]
        system = chosen @ chosen.T + (np.eye(turn + 1) if turn else 0.0)
        weights = scipy.linalg.lstsq(system, chosen @ target)[0]
        rest = target - chosen.T @ weights
    weights = scipy.optimize.nnls(system, chosen @ target)[0]
    return [pick for pick, weight in zip(picks, weights, strict=True) if weight > 0]


def glister(view: View, budget: int) -> list[int]:
    """The highest products with the mean gradient: the update after a pick never runs in DeepCore."""
    rows = gradients(view)
    return lowest(-(rows @ rows.mean(axis=0)), budget)


def grand(view: View, budget: int) -> list[int]:
    """The longest gradients, in batches of the whole dataset."""
    scale = batch_shares(len(view.whole))[view.indices]
    return lowest(-np.linalg.norm(gradients(view, scale), axis=1), budget)


# Scores


def least_confidence(view: View, budget: int) -> list[int]:
    return lowest(view.logits.double().numpy().max(axis=1), budget)


def entropy(view: View, budget: int) -> list[int]:
    chances = softmax(view)
    return lowest((np.log(chances + 1e-6) * chances).sum(axis=1), budget)


def margin(view: View, budget: int) -> list[int]:
    ordered = np.sort(softmax(view), axis=1)
    return lowest(ordered[:, -1] - ordered[:, -2], budget)


def deepfool(view: View, budget: int) -> list[int]:
    return lowest(view.perturbations.double().numpy(), budget)


# Training dynamics


def el2n(view: View, budget: int) -> list[int]:
    return lowest(-view.errors.double().numpy()[:, :10].mean(axis=1), budget)


def aum(view: View, budget: int) -> list[int]:
    return lowest(view.margins.double().numpy().mean(axis=1), budget)


def events(view: View) -> Array:
    """How often each sample was right and then wrong; the number of epochs if it was never right."""
    counts = []
    for row in view.margins.numpy():
        right = [bool(one > 0) for one in row]
        fell = sum(before and not after for before, after in pairwise(right))
        counts.append(fell if any(right) else len(right))
    return np.array(counts, dtype=np.float64)


def forgetting(view: View, budget: int) -> list[int]:
    """The most often forgotten, of equals the lower mean margin."""
    margins = view.margins.double().numpy().mean(axis=1)
    return [int(one) for one in np.lexsort((margins, -events(view)))[:budget]]


def strata(view: View) -> Array:
    """Which fiftieth of the range of mean margins each sample is in, without the hardest 30 %, which are in -1."""
    margins = view.margins.double().numpy().mean(axis=1)
    kept = np.argsort(margins)[int(0.3 * len(view)) :]
    edges = np.linspace(margins[kept].min(), margins[kept].max(), 51)
    result = np.full(len(view), -1)
    result[kept] = np.clip(np.searchsorted(edges, margins[kept], side="right") - 1, 0, 49)
    return result


def ccs(view: View, budget: int) -> list[int]:
    """An equal share of what is left of the budget for every stratum, the smallest first."""
    draws, places = np.random.default_rng(view.seed), strata(view)
    members = [draws.permutation(np.flatnonzero(places == one)) for one in range(50)]
    picks: list[int] = []
    for turn, one in enumerate(sorted(members, key=len)):
        picks += [int(sample) for sample in one[: (budget - len(picks)) // (50 - turn)]]
    return picks


def d2(view: View, budget: int) -> list[int]:
    """Difficulty sent to the five nearest and back, then taken from the neighbours of every pick."""
    squares = -negative_distances(view.features.double().numpy())
    np.fill_diagonal(squares, np.inf)
    joined = np.zeros(squares.shape, dtype=bool)
    np.put_along_axis(joined, np.argsort(squares, axis=1, kind="stable")[:, :5], True, axis=1)
    strength = np.where(joined | joined.T, np.exp(-D2_GAMMA * squares), 0.0)
    scores = events(view)
    scores += strength @ scores
    picks: list[int] = []
    for _ in range(budget):
        picks.append(int(scores.argmax()))
        scores -= strength[picks[-1]] * scores[picks[-1]]
        scores[picks[-1]] = -np.inf
    return picks


LITERAL: dict[str, Literal] = {
    "graphcut:eq7": graphcut_eq7,
    "graphcut": graphcut_deepcore,
    "facility-location": facility_location,
    "craig": craig,
    "k-center": k_center,
    "contextual-diversity": contextual_diversity,
    "herding": herding,
    "kmeans-prototypes": kmeans_prototypes,
    "moderate": moderate,
    "cal": cal,
    "gradmatch": gradmatch,
    "glister": glister,
    "grand": grand,
    "least-confidence": least_confidence,
    "entropy": entropy,
    "margin": margin,
    "deepfool": deepfool,
    "el2n": el2n,
    "aum": aum,
    "forgetting": forgetting,
    "ccs": ccs,
    "d2": d2,
}

DRAWN: dict[str, Callable[[View], Array]] = {"ccs": strata}
"""What methods that draw at random agree in: so many samples of each of these groups, or one more or less."""

STARTS = {"kmeans-prototypes"}
"""What depends on where it starts, so that other picks are as right."""

WORTHS: dict[str, Callable[[View], Worth]] = {
    "facility-location": lambda view: coverage(cosines(view)),
    "craig": lambda view: coverage(nearness(view)),
}
"""What greedy methods maximise, to tell whether two choices are as good."""
