"""Rules that look at the network's answer to a sample: the less sure, the earlier.

Probabilities are never subtracted from 1, so that samples the network is very sure of still have an order.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dqas_plugin.contracts import selector
from dqas_plugin.data import IntArray
from dqas_plugin.methods import ordering
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.signals import View

_OFFSET = 1e-6  # what DeepCore adds to every probability before it takes the logarithm


@selector(
    "least-confidence",
    title="Least confidence: the best answer is a weak one",
    family="uncertainty",
    needs={"logits"},
    source="Lewis and Gale, SIGIR 1994; Settles, Active Learning Literature Survey, 2009, section 3.1; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: smallest highest probability first, DeepCore: smallest highest logit",
)
def least_confidence(view: View, budget: int, rng: np.random.Generator, *, compat: Compat = "deepcore") -> IntArray:
    """Order by the highest answer, weakest first.

    ``deepcore``: by the highest logit, which is not comparable between samples. ``paper``: by the highest probability.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.
        compat: ``deepcore`` or ``paper``.

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    if ordering.is_deepcore("least-confidence", compat):
        return ordering.lowest_first(view.logits.amax(dim=1))
    return ordering.highest_first(odds_against(view.logits))


@selector(
    "entropy",
    title="Entropy: answers spread over many classes",
    family="uncertainty",
    needs={"logits"},
    source="Shannon, 1948; Settles, Active Learning Literature Survey, 2009, section 3.1; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: exact entropy, DeepCore: with 1e-6 added to every probability in the logarithm",
)
def entropy(view: View, budget: int, rng: np.random.Generator, *, compat: Compat = "deepcore") -> IntArray:
    """Order by the entropy of the probabilities, highest first.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.
        compat: ``deepcore`` (``-Σ p log(p + 1e-6)``) or ``paper`` (``-Σ p log p``).

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    logarithms = view.logits.double().log_softmax(dim=1)
    probabilities = logarithms.exp()
    if ordering.is_deepcore("entropy", compat):
        logarithms = (probabilities + _OFFSET).log()
    return ordering.lowest_first((probabilities * logarithms).sum(dim=1))


@selector(
    "margin",
    title="Margin: two answers are nearly equally likely",
    family="uncertainty",
    needs={"logits"},
    source="Scheffer, Decomain, Wrobel, IDA 2001; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: the same",
)
def margin(view: View, budget: int, rng: np.random.Generator, *, compat: Compat = "deepcore") -> IntArray:
    """Order by the highest minus the second highest probability, smallest first.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.
        compat: ``deepcore`` and ``paper`` are the same.

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    ordering.is_deepcore("margin", compat)
    return ordering.highest_first(below_full_margin(view.logits))


@selector(
    "deepfool",
    title="DeepFool: a small change of the pixels changes the answer",
    family="boundary",
    needs={"perturbations"},
    source="Ducoffe and Precioso, 2018; Moosavi-Dezfooli et al., CVPR 2016; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: the same",
)
def deepfool(view: View, budget: int, rng: np.random.Generator, *, compat: Compat = "deepcore") -> IntArray:
    """Order by the length of the smallest change of the pixels that changes the class, shortest first.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.
        compat: ``deepcore`` and ``paper`` are the same.

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    ordering.is_deepcore("deepfool", compat)
    return ordering.lowest_first(view.perturbations)


def odds_against(logits: Tensor) -> Tensor:
    """Logarithm of ``(1 - p) / p``, p being the highest probability, float64 ``[n]``; minus infinity if there is one class.

    Args:
        logits: float ``[n, C]``.
    """
    ordered = logits.double().sort(dim=1, descending=True).values
    return (ordered[:, 1:] - ordered[:, :1]).logsumexp(dim=1)  # of the differences: a large logit would swallow the sum


def below_full_margin(logits: Tensor) -> Tensor:
    """``1 - (p1 - p2)`` of the two highest probabilities, float64 ``[n]``: twice the second and once each of the others.

    Args:
        logits: float ``[n, C]``.
    """
    others = logits.double().softmax(dim=1)
    others.scatter_(1, others.argmax(dim=1, keepdim=True), 0.0)  # sorting a thousand classes takes 15 times as long
    return others.amax(dim=1) + others.sum(dim=1)


SELECTORS = (least_confidence, entropy, margin, deepfool)
