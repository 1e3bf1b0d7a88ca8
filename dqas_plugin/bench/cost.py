"""What a grid will cost, said beforehand: how many cells and trainings, and about how long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dqas_plugin.bench.cell import load
from dqas_plugin.bench.executors import default_jobs
from dqas_plugin.bench.grid import Cell, hashed
from dqas_plugin.bench.store import Store
from dqas_plugin.contracts import Selector
from dqas_plugin.plugins import plugins
from dqas_plugin.recipes import Recipe
from dqas_plugin.threads import single_threads
from dqas_plugin.told import duration
from dqas_plugin.training import train

if TYPE_CHECKING:
    from dqas_plugin.refining import Refinement

_WARM_UP_IMAGES = 32
_MEASURED_SECONDS = 1.0
_EVALUATIONS = 5  # of ``train``
_FORWARD = 1 / 3  # cost of an evaluated image over that of a trained one: forward, against forward and twice that backward
_PERTURBING = 2.0  # DeepFool: about three iterations, each a forward pass and one backward pass to the pixels for every class
_STARTING = 4.0  # a worker imports torch

Speed = Callable[[Cell, str], float]


@dataclass(frozen=True)
class Estimate:
    """What is left to do of a grid.

    Attributes:
        cells: all of them.
        stored: those that are finished.
        proxies: networks that are trained to choose: at most one for each seed, whose features all methods share (some
            average over several), one for each seed and set of rebuilt images that is chosen from, and one for each seed and
            budget to search class counts with.
        trainings: at most; cells that choose the same images share one.
        seconds: of proxies, retrainings and trainings together, on so many jobs.
        jobs: calls at a time.
        searches: cells whose class counts are searched for; their time is not known beforehand.
        retrainings: networks that refiners train themselves.
        autoencoders: that are trained to rebuild images; their time is not known beforehand.
        devices: machines or GPUs that the jobs are on.
        price: of an hour of one of them, in any currency; None: not known.
    """

    cells: int
    stored: int
    proxies: int
    trainings: int
    seconds: float
    jobs: int
    searches: int
    retrainings: int = 0
    autoencoders: int = 0
    devices: int = 1
    price: float | None = None

    @property
    def money(self) -> float | None:
        """Time x price x devices, in the currency of the price; None without one."""
        return None if self.price is None else self.seconds / 3600 * self.price * self.devices

    def __str__(self) -> str:
        if self.stored == self.cells:
            return f"all {self.cells} cells are stored: nothing is left to do"
        refining = f", {self.retrainings:,} to refine" if self.retrainings else ""
        text = (
            f"{self.cells} cells, {self.stored} of them stored; left to do: at most {self.proxies} trainings of proxies"
            f"{refining} and {self.trainings} of final networks, about {duration(self.seconds)} with "
            f"{_number(self.jobs, 'job')} (an estimate, from a few training steps on this machine)"
        )
        if self.price is not None and self.money is not None:
            text += (
                f"; at {_price(self.price)} an hour about {_amount(self.money)} (that time x the price x "
                f"{_number(self.devices, 'device')}: an estimate, too)"
            )
        searches = [f"the search for class counts in {self.searches} cells"] if self.searches else []
        plural = "s" if self.autoencoders > 1 else ""
        autoencoders = [f"the training of {self.autoencoders} autoencoder{plural}"] if self.autoencoders else []
        if searches or autoencoders:
            text += f"; not counted: {' and '.join(searches + autoencoders)}"
        return text


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _price(price: float) -> str:
    """``2.50``, and more digits where there are more."""
    return f"{price:,.2f}" if round(price, 2) == price else f"{price:g}"


def _amount(money: float) -> str:
    return f"{money:,.2f}" if money >= 0.01 else "less than 0.01"


def estimate(
    cells: Sequence[Cell],
    folder: Path | str,
    *,
    jobs: int | None = None,
    executor: str = "local",
    device: str = "cpu",
    price: float | None = None,
    speed: Speed | None = None,
) -> Estimate:
    """Count what is left to do and measure a few training steps; nothing is written.

    Args:
        cells: see :func:`dqas_plugin.bench.plan`.
        folder: where results are kept.
        jobs: as in :func:`dqas_plugin.bench.run`.
        executor: as in :func:`dqas_plugin.bench.run`.
        device: as in :func:`dqas_plugin.bench.run`.
        price: of an hour of a machine or GPU, in any currency, to say what the time costs.
        speed: training images per second of a cell's model and recipe on a device; default: measured.
    """
    every = {cell.key: cell for cell in cells}
    stored: set[str] = set()
    if Store.exists(folder):
        with Store.existing(folder) as store:
            stored = store.stored(every.values())
    left = [cell for key, cell in every.items() if key not in stored]
    workers, devices = _workers(executor, jobs, device)
    lanes = workers if device.startswith("cpu") else devices
    proxies = _proxies(left)
    searches = [cell for cell in left if cell.allocator not in ("uniform", "proportional")]
    probing = [cell for cell in left if _refines(cell) or (cell in searches and cell.proxy == "probe")]
    probes = {(cell.signals_key, cell.images): cell for cell in probing}
    retraining = [(cell, one) for cell in left if (one := cell.refinement) and one.trainings(cell.dataset.images)]
    rebuilding = [(cell, patches) for cell in left if (patches := cell.patches) and patches.rebuild == "mae"]
    speeds: dict[str, float] = {}

    def cost(cell: Cell, images: float) -> float:
        kind = hashed([cell.dataset.fingerprint, cell.model, cell.recipe.as_dict()])
        if kind not in speeds:
            speeds[kind] = (speed or measured_speed)(_largest(cell, left), device)
        return images / speeds[kind]

    proxy_seconds = _shared([cost(cell, images) for cell, _, images in proxies.values()], lanes)
    proxy_seconds += _shared([cost(cell, _training_images(cell)) for cell in probes.values()], lanes)
    proxy_seconds += _shared([cost(cell, _retraining_images(cell, one)) for cell, one in retraining], lanes)
    training_seconds = _shared([cost(cell, _training_images(cell)) for cell in left], lanes)
    starting = _STARTING if workers > 1 and left else 0.0
    return Estimate(
        cells=len(every),
        stored=len(stored),
        proxies=sum(trainings for _, trainings, _ in proxies.values()) + len(probes),
        trainings=len(left),
        seconds=starting + proxy_seconds + training_seconds,
        jobs=workers,
        searches=len(searches),
        retrainings=sum(one.trainings(cell.dataset.images) for cell, one in retraining),
        autoencoders=len({hashed([cell.dataset.identity(), asdict(patches)]) for cell, patches in rebuilding}),
        devices=devices,
        price=price,
    )


def _workers(executor: str, jobs: int | None, device: str) -> tuple[int, int]:
    """How many jobs there are at a time, and on how many machines or GPUs: jobs on one GPU are as fast as one alone.

    Where an executor with workers elsewhere finds room is not known beforehand: without a number of jobs it is one.
    """
    if plugins().executors[executor].elsewhere:
        return jobs or 1, jobs or 1
    workers = jobs or default_jobs(device)
    return workers, 1 if device.startswith("cpu") else min(workers, default_jobs(device))


def check_trainings(cells: Iterable[Cell], device: str) -> None:
    """Refuse cells whose refiner would train more networks than it may, before anything is done.

    Raises:
        UserError: if there is one, with how long it would take.
    """
    from dqas_plugin.lookup import resolve_model
    from dqas_plugin.trainer import Trainer

    for cell in cells:
        refinement = cell.refinement
        if refinement is not None and refinement.trainings(cell.dataset.images):
            data = load(cell.dataset).train
            with single_threads():
                trainer = Trainer(data, resolve_model(cell.model), cell.recipe, cell.seed, device)
                refinement.check_trainings(trainer, cell.dataset.images)


def measured_speed(cell: Cell, device: str) -> float:
    """Training images per second, of a few steps of about a second altogether."""
    from dqas_plugin.lookup import resolve_model

    data, build = load(cell.dataset).train, resolve_model(cell.model)

    def speed(images: int, steps: int) -> float:
        sample = data.subset(np.linspace(0, len(data) - 1, min(images, len(data))).astype(np.int64))
        recipe = replace(cell.recipe, iterations=steps, epochs=None, batch=images)
        return train(build, sample, recipe, 0, device=device).images_per_second

    with single_threads():
        first = speed(min(_WARM_UP_IMAGES, cell.budget), 2)
        batch = int(np.clip(first * _MEASURED_SECONDS / 2, 2, -(-cell.budget // cell.recipe.batches(cell.budget))))
        return speed(batch, int(np.clip(first * _MEASURED_SECONDS / batch, 2, 50)))


def _largest(cell: Cell, cells: Sequence[Cell]) -> Cell:
    """The cell of the same model and recipe with the largest budget: its batches are the fullest."""
    alike = [one for one in cells if (one.dataset, one.model, one.recipe) == (cell.dataset, cell.model, cell.recipe)]
    return max(alike, key=lambda one: one.budget)


def _proxies(cells: Sequence[Cell]) -> dict[str, tuple[Cell, int, float]]:
    """For every set of shared signals: a cell, how many trainings, and what they cost in images trained on."""
    wanted: dict[str, tuple[Cell, int, bool]] = {}
    for cell in cells:
        repeat, perturbed = _reads(cell)
        judging = (patches := cell.patches) is not None and patches.scores == "grad-cam"
        for key, count, walked in ((cell.signals_key, repeat, perturbed), (cell.proxy_key, int(judging), False)):
            if count:
                _, most, before = wanted.get(key, (cell, 0, False))
                wanted[key] = (cell, max(most, count), before or walked)
    return {key: (cell, count, _proxy_images(cell, count, perturbed)) for key, (cell, count, perturbed) in wanted.items()}


def _refines(cell: Cell) -> bool:
    """Whether a refiner reads the probe's network."""
    return cell.refinement is not None and cell.refinement.reads_network


def _reads(cell: Cell) -> tuple[int, bool]:
    """How many proxy trainings a cell's method reads, and whether it also needs DeepFool's perturbations."""
    from dqas_plugin.lookup import resolve_method

    found, preset = resolve_method(cell.method)
    trainings = found.trainings({**preset, **cell.method_options}) if isinstance(found, Selector) else 0
    return trainings, isinstance(found, Selector) and "perturbations" in found.needs


def _proxy_images(cell: Cell, trainings: int, perturbed: bool) -> float:
    images = cell.dataset.images * trainings * (cell.recipe.proxy_epochs + _FORWARD)
    return images + perturbed * cell.dataset.images * _PERTURBING * cell.dataset.classes


def _training_images(cell: Cell) -> float:
    return _trained(cell.recipe, cell.images) + _EVALUATIONS * _FORWARD * len(load(cell.dataset).test)


def _retraining_images(cell: Cell, refinement: Refinement) -> float:
    once = _trained(cell.recipe, refinement.kept) + _FORWARD * (cell.dataset.images - refinement.kept)
    return refinement.trainings(cell.dataset.images) * once


def _trained(recipe: Recipe, images: int) -> float:
    """Images seen in a training on so many."""
    return recipe.steps(images) * images / recipe.batches(images)


def _shared(seconds: Sequence[float], workers: int) -> float:
    """Wall time of calls on some workers: as long as the longest at least."""
    return max(sum(seconds) / workers, *seconds) if seconds else 0.0
