"""Rules that cover the class: no sample shall be far from its nearest pick.

``k-center``: by the distance of features. ``contextual-diversity``: by how far the answers of the network differ.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.contracts import Bounds, selector
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.methods import ordering
from dqas_plugin.methods.copies import first_copies
from dqas_plugin.methods.farthest import Distances, Metric, farthest_first, farthest_on_device
from dqas_plugin.methods.neighbours import block_rows
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.methods.points import mean_of, squared_distances
from dqas_plugin.signals import View

_SOURCE = "Gonzalez, 1985; Sener and Savarese, ICLR 2018; PatrickZH/DeepCore"


@selector(
    "k-center",
    title="k-center: the farthest from all picks so far",
    family="geometry",
    needs={"features"},
    source=_SOURCE,
    variants=ordering.variants(),
    differs="paper: first centre drawn for every class, DeepCore draws one position for all",
)
def k_center(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    first: Annotated[int, Bounds(0)] | None = None,
    compat: Compat = "deepcore",
) -> IntArray:
    """The greedy 2-approximation of k-center: the sample whose nearest pick is the farthest away, in euclidean distance.

    Args:
        view: one class.
        budget: how many, the first centre among them.
        rng: for the first centre, with ``paper``.
        first: position of the first centre; None: drawn.
        compat: ``deepcore`` or ``paper``.

    Returns:
        positions in the order of picking, int64; equal distances go to the lowest position.

    Raises:
        UserError: for a first centre that is not in the class.
    """
    start = first_centre("k-center", view, rng, first, compat)
    features = view.features
    if features.device.type != "cpu":
        return farthest_on_device(_squares(features), start, len(features), budget).cpu().numpy()
    return farthest_first(euclidean(features), start, budget)


@selector(
    "contextual-diversity",
    title="Contextual diversity: answers unlike those of all picks so far",
    family="geometry",
    needs={"logits"},
    source="Agarwal et al., ECCV 2020; sharat29ag/CDAL; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: first centre drawn for every class; its program takes the same divergence for classification",
)
def contextual_diversity(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    first: Annotated[int, Bounds(0)] | None = None,
    compat: Compat = "deepcore",
) -> IntArray:
    """As :func:`k_center`, by the symmetric Kullback-Leibler divergence of softmax outputs, ``½ Σ (p - q)(log p - log q)``.

    DeepCore takes logarithms of rounded probabilities and has no number where one is 0; here it is always one.

    Args:
        view: one class.
        budget: how many, the first centre among them.
        rng: for the first centre, with ``paper``.
        first: position of the first centre; None: drawn.
        compat: ``deepcore`` or ``paper``. The paper also asks, where an image has many regions, that both of a pair predict
            the class compared; its released reward for classification does not, and neither does this.

    Returns:
        positions in the order of picking, int64; equal divergences go to the lowest position.

    Raises:
        UserError: for a first centre that is not in the class.
    """
    start = first_centre("contextual-diversity", view, rng, first, compat)
    logarithms = view.logits.double().log_softmax(dim=1)
    if logarithms.device.type != "cpu":
        return farthest_on_device(_divergences(logarithms), start, len(logarithms), budget).cpu().numpy()
    return farthest_first(symmetric_divergence(logarithms), start, budget)


def first_centre(method: str, view: View, rng: np.random.Generator, first: int | None, compat: str) -> int:
    """Position of the first pick.

    ``deepcore``: NumPy's older generator begins anew with the seed for every class. ``paper``: drawn.
    """
    deepcore = ordering.is_deepcore(method, compat)
    if first is None:
        return int(np.random.RandomState(view.seed % 2**32).randint(0, len(view)) if deepcore else rng.integers(len(view)))
    if not 0 <= first < len(view):
        raise UserError(f"first of {method} must be a position in 0..{len(view) - 1}, not {first}")
    return first


def euclidean(features: Tensor) -> Metric:
    """Squared euclidean distance of features, float ``[n, d]``, in units of the largest distance from their middle."""
    # Rounding goes with the distance from where the coordinates begin: a few far away shall not move it.
    from_mean = squared_distances(features, mean_of(features))
    middle = mean_of(features[from_mean <= from_mean.median()])
    squares = squared_distances(features, middle)
    scale = float(squares.max().sqrt()) or 1.0
    own: FloatArray = squares.div_(scale**2).numpy()
    rows = np.empty(features.shape, dtype=np.float32)
    step = block_rows(features.shape[1])
    for start in range(0, len(rows), step):
        rows[start : start + step] = (features[start : start + step].double() - middle).div_(scale).numpy()
    plain = features.numpy()  # no torch from here on: its threads and NumPy's get in each other's way in a loop

    def exact(some: IntArray, others: IntArray) -> FloatArray:
        result = np.empty(len(some))
        for start in range(0, len(some), step):
            part = slice(start, start + step)
            apart = plain[some[part]].astype(np.float64)
            apart -= plain[others[part]]
            apart /= scale
            result[part] = np.einsum("nd,nd->n", apart, apart)
        return result

    lengths = np.sqrt(own)
    return Metric(own, rows, 0, 2.0, (lengths, lengths), exact, first_copies(features + 0.0))  # -0 is 0


def symmetric_divergence(logarithms: Tensor) -> Metric:
    """``½ KL(p || q) + ½ KL(q || p)`` (nats) of log-probabilities, float64 ``[n, C]``."""
    logs = logarithms.numpy()
    chances = np.exp(logs)

    def exact(some: IntArray, others: IntArray) -> FloatArray:
        result = np.empty(len(some))
        step = block_rows(logs.shape[1])
        for start in range(0, len(some), step):
            one, other = some[start : start + step], others[start : start + step]
            np.einsum("nc,nc->n", chances[one] - chances[other], logs[one] - logs[other], out=result[start : start + step])
        return result / 2

    own = np.einsum("nc,nc->n", chances, logs) / 2
    norms = 2 * np.linalg.norm(chances, axis=1), np.linalg.norm(logs, axis=1)
    rows = np.concatenate([chances, logs], axis=1)
    return Metric(own, rows, logs.shape[1], 0.5, norms, exact, first_copies(logarithms))


def _squares(features: Tensor) -> Distances:
    """Squared distances from one sample to all, on the device."""
    step = block_rows(features.shape[1])

    def distances(position: Tensor) -> Tensor:
        centre = features.index_select(0, position.to(features.device)).double()
        return torch.cat([(part.double() - centre).square_().sum(dim=1) for part in torch.split(features, step)])

    return distances


def _divergences(logarithms: Tensor) -> Distances:
    """The same of symmetric divergences."""
    chances = logarithms.exp()

    def distances(position: Tensor) -> Tensor:
        place = position.to(logarithms.device)
        return ((chances - chances.index_select(0, place)) * (logarithms - logarithms.index_select(0, place))).sum(dim=1) / 2

    return distances
