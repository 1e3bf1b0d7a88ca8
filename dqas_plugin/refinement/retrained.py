"""The paper read literally: a network is trained anew with every candidate. For tiny pools, and to see what it would cost."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.models import Network
from dqas_plugin.precision import Build
from dqas_plugin.recipes import Recipe
from dqas_plugin.refinement.last_layer import positions
from dqas_plugin.seeding import derive
from dqas_plugin.told import YEAR, Told
from dqas_plugin.trainer import Trainer
from dqas_plugin.training import outputs, train

_STEPS, _IMAGES = 10, 1000  # what the estimate is measured on


def retrained_error_change(
    data: ImageDataset,
    build: Build,
    recipe: Recipe,
    selected: npt.ArrayLike,
    candidates: npt.ArrayLike,
    seed: int,
    *,
    exclude_self: bool = False,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Change of the mean loss of the pool when a network is trained with one more sample, for every candidate.

    All trainings have the same seed. Even so they differ by chance, mostly by more than one sample does: the mean over several
    seeds says more.

    Args:
        data: all images.
        build: makes the network.
        recipe: how it is trained.
        selected: dataset indices ``[K]``, or a mask ``[N]``. The pool is everything else.
        candidates: dataset indices ``[M]`` of the pool, each of which costs a training.
        seed: of the trainings.
        exclude_self: the candidate leaves the pool: the change is that of the mean over all others.
        device: where to train.
        report: told of every training.

    Returns:
        float64 ``[M]``; below 0: it helps.

    Raises:
        UserError: if nothing is selected, or a candidate is.
    """
    chosen, tried = positions("selected", selected, len(data)), positions("candidates", candidates, len(data))
    if np.isin(tried, chosen).any():
        raise UserError("a candidate is selected already: leave it out")
    pool = np.setdiff1d(np.arange(len(data)), chosen)
    rest, places = data.subset(pool), np.searchsorted(pool, tried)

    def losses(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return _losses(train(build, data.subset(indices), recipe, seed, device=device).network, rest)

    before = losses(chosen)
    changes = np.empty(len(tried))
    for turn, (candidate, place) in enumerate(zip(tried, places, strict=True)):
        difference = losses(np.append(chosen, candidate)) - before
        if exclude_self:
            difference = np.delete(difference, place)
        changes[turn] = difference.mean() if len(difference) else 0.0
        if report is not None:
            report(f"trained with {turn + 1} of {len(tried)} candidates")
    return changes


def retraining_years(
    data: ImageDataset, build: Build, recipe: Recipe, selected: int, *, device: torch.device | str = "cpu"
) -> float:
    """How long one round of :func:`retrained_error_change` over the whole pool would take here, in years.

    Measured on ten steps of a training and one look at a thousand images.

    Args:
        data: all images.
        build: makes the network.
        recipe: how it is trained.
        selected: how many images are selected.
        device: where to train.

    Raises:
        UserError: if nothing, or everything, is selected.
    """
    if not 0 < selected < len(data):
        raise UserError(
            f"of {len(data)} images at least one must be selected and one not: {selected} leaves nothing to estimate"
        )
    return (len(data) - selected) * training_seconds(Trainer(data, build, recipe, 0, device), selected) / YEAR


def training_seconds(trainer: Trainer, selected: int) -> float:
    """How long one training on ``selected`` images and one look at all others takes here, measured on a part of both."""
    data, build, recipe, device = trainer.data, trainer.build, trainer.recipe, trainer.device
    part = data.subset(np.arange(min(selected, recipe.batch)))
    brief = train(build, part, recipe.with_(iterations=_STEPS), 0, device=device)
    images = recipe.steps(selected) * selected / recipe.batches(selected)
    looked = data.subset(np.arange(min(len(data), _IMAGES)))
    started = time.perf_counter()
    _losses(brief.network, looked)
    looking = (time.perf_counter() - started) / len(looked)
    return images / brief.images_per_second + (len(data) - selected) * looking


def retrained_changes(trainer: Trainer, *, exclude_self: bool = False) -> Callable[[IntArray], npt.NDArray[np.float64]]:
    """The scorer ``retrain``: :func:`retrained_error_change` of all that is not selected, as ``f(selected) -> [N]``.

    Args:
        trainer: how networks are trained.
        exclude_self: a candidate leaves the pool that it is scored on.
    """
    seed = derive(trainer.seed, "retrain")

    def changes(selected: IntArray) -> npt.NDArray[np.float64]:
        free = np.setdiff1d(np.arange(len(trainer.data)), selected)
        found = np.full(len(trainer.data), np.nan)
        found[free] = retrained_error_change(
            trainer.data,
            trainer.build,
            trainer.recipe,
            selected,
            free,
            seed,
            exclude_self=exclude_self,
            device=trainer.device,
            report=Told("error reduction", trainer.report).say,
        )
        return found

    return changes


def _losses(network: Network, data: ImageDataset) -> npt.NDArray[np.float64]:
    """Negative log-likelihood of every image, float64 ``[N]``."""
    logits = torch.cat([one for _, one in outputs(network, data)]).double()
    return functional.cross_entropy(logits, data.labels, reduction="none").numpy()
