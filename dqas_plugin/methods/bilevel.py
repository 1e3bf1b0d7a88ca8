"""Rules that look at what a training step on some samples does for the loss of others."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.contracts import Bounds, selector
from dqas_plugin.data import IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.gradients import LastLayerGradients, outputs_of
from dqas_plugin.methods import ordering
from dqas_plugin.methods.copies import first_copies
from dqas_plugin.methods.neighbours import at_least_one
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.signals import View

_TIE = 1e-12  # products closer than this share of the highest may be those of equal samples
_FAR = -1e300  # a logarithm that nothing reaches: what is below it is 0


@selector(
    "glister",
    title="Glister: steps that lower the loss of the whole class",
    family="gradient",
    needs={"gradients"},
    source="Killamsetty et al., AAAI 2021; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: the network takes a step with the picked, then gradients anew; DeepCore's update never runs",
)
def glister(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    batch: Annotated[int, Bounds(1)] | None = ordering.DEEPCORE_BATCH,
    eta: Annotated[float, Bounds(0)] = 0.1,
    block: Annotated[int, Bounds(1)] = 20,
    compat: Compat = "deepcore",
) -> IntArray:
    """Order by the inner product of a sample's gradient with the mean gradient of the class, highest first.

    ``deepcore``: the products of the network as it is (the update after each pick is passed under a wrong name there), of
    gradients of the mean loss of a batch. ``paper``: greedily, see :func:`bilevel_picks`.

    Args:
        view: one class; it is training and validation set in one.
        budget: how many; ``deepcore`` ranks all.
        rng: not used, nothing is random.
        batch: samples in a batch, for ``deepcore``: gradients in a last, shorter batch come out longer. None: all in one.
        eta: length of the step, for ``paper``. DeepCore's default.
        block: picks between two updates, for ``paper``. Its program takes a fixed number of rounds instead, so that its blocks
            depend on the budget.
        compat: ``deepcore`` or ``paper``.

    Returns:
        positions, best first, int64; equal products go to the lowest position.

    Raises:
        UserError: for a batch or block below 1, or an eta that is negative or not finite.
    """
    gradients = view.gradients
    if ordering.is_deepcore("glister", compat):
        size = None if batch is None else at_least_one("batch", batch)
        return ordering.highest_first(own_products(gradients.scaled(ordering.batch_scale(len(view), size))))
    if not 0.0 <= eta < math.inf:
        raise UserError(f"eta of glister must be a number of at least 0, not {eta}")
    labels = view.labels.to(gradients.residuals.device)
    return bilevel_picks(gradients, view.logits, labels, budget, eta, at_least_one("block", block)).cpu().numpy()


def own_products(gradients: LastLayerGradients) -> Tensor:
    """``<g_i, Σ_j g_j>`` of all n gradients, float64 ``[n]``; equal for equal samples."""
    products = gradients.along(gradients.total())
    ordered = products.sort().values
    if len(products) < 2 or (ordered.diff() > _TIE * products.abs().amax()).all():
        return products
    return products[_copies(gradients).to(products.device)]


def bilevel_picks(gradients: LastLayerGradients, logits: Tensor, labels: Tensor, budget: int, eta: float, block: int) -> Tensor:
    """Glister's greedy selection with its update, on the device of the gradients and without waiting for it.

    The last layer takes the step ``-eta Σ_{p picked} g_p`` from where it was; the validation gradient there is that of the
    samples' new outputs; the next picks are those whose (old) gradients have the highest inner products with it: the decrease
    of the validation loss by one more sample, to first order (section 4 of the paper, algorithm 2; the sum is the paper's, the
    mean DeepCore's).

    A class soon fits, and then its gradient is next to nothing: it is taken up to a positive factor, which changes no order.

    Args:
        gradients: of n samples.
        logits: float ``[n, C]``.
        labels: int64 ``[n]``.
        budget: how many; n at most.
        eta: length of the step.
        block: picks between two updates.

    Returns:
        int64 ``[budget]`` on the device.
    """
    features, copies = gradients.features, _copies(gradients).to(gradients.residuals.device)
    taken = torch.zeros(len(gradients), dtype=torch.bool, device=gradients.residuals.device)
    picks = copies.new_zeros(0)
    outputs = logits.double()
    total = gradients.total()
    count = min(budget, len(gradients))
    for start in range(0, count, block):
        gains = gradients.along(total)[copies].masked_fill_(taken, -torch.inf)
        chosen = gains.argsort(descending=True, stable=True)[: min(block, count - start)]
        taken.index_fill_(0, chosen, True)
        picks = torch.cat([picks, chosen])
        outputs = outputs - eta * outputs_of(features, gradients.subset(chosen).total())
        total = LastLayerGradients(proportional_residuals(outputs, labels), features).total()
    return picks


def proportional_residuals(outputs: Tensor, labels: Tensor) -> Tensor:
    """``p - y`` times the largest factor that leaves ``p`` of every wrong class at most 1, float64 ``[n, C]``.

    Args:
        outputs: float64 ``[n, C]``.
        labels: int64 ``[n]``.
    """
    column = labels[:, None]
    logarithms = outputs.log_softmax(dim=1).scatter(1, column, -torch.inf)
    result = (logarithms - logarithms.amax().clamp(min=_FAR)).exp()
    return result.scatter(1, column, -result.sum(dim=1, keepdim=True))


def _copies(gradients: LastLayerGradients) -> Tensor:
    """For every sample the first one that is equal to it: rounding may tell equal rows apart."""
    return torch.from_numpy(first_copies(gradients.residuals, gradients.features))
