"""Rules that look at how far a sample alone would move the network: the length of its gradient."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.contracts import Bounds, selector
from dqas_plugin.data import IntArray
from dqas_plugin.methods import ordering
from dqas_plugin.methods.neighbours import at_least_one
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.signals import View


@selector(
    "grand",
    title="GraNd: long gradients, over several trainings",
    family="gradient",
    needs={"gradients", "runs"},
    source="Paul, Ganguli, Dziugaite, NeurIPS 2021; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: gradients of single samples, DeepCore: of a batch's mean loss, longer in the dataset's last one (batch)",
)
def grand(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    repeat: Annotated[int, Bounds(1)] = 10,
    batch: Annotated[int, Bounds(1)] | None = None,
    compat: Compat = "deepcore",
) -> IntArray:
    """Order by the length of the last layer's loss gradient, averaged over trainings, longest first.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.
        repeat: over how many trainings; over those that the view has if it has fewer, which it notes.
        batch: samples in a batch of the whole dataset in its order, for ``deepcore``: it takes gradients of the mean loss of a
            batch, so that the samples of the last, shorter one come out longer by ``batch / rest``. The default, None, is one
            batch for all, where that shows no effect.
        compat: ``deepcore``, or ``paper``, which ignores ``batch``.

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    deepcore = ordering.is_deepcore("grand", compat)
    runs = view.runs[: at_least_one("repeat", repeat)]
    if len(runs) < repeat:
        view.note(f"grand averaged over {len(runs)} of the {repeat} trainings asked for (repeat): there are no more")
    scores = torch.stack([run.gradients.norms for run in runs]).mean(dim=0)
    if deepcore and batch is not None:
        scores = scores * batch_scale_of(view, at_least_one("batch", batch)).to(scores.device)
    return ordering.highest_first(scores)


def batch_scale_of(view: View, batch: int) -> Tensor:
    """``ordering.batch_scale`` of the samples of a view where batches are taken of the whole dataset, float64 ``[n]``."""
    whole = view.whole.indices
    return ordering.batch_scale(len(whole), batch)[torch.from_numpy(np.searchsorted(whole, view.indices))]
