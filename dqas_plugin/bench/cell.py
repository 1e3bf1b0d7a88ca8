"""What is done for a cell, in a worker: prepare the signals, make the selection, train on it. All of it is by name and path,
so that it can be sent to another process or machine. It computes on one thread, so that a result does not depend on the number
of workers.

The result of a cell is a dict that JSON knows:

* ``accuracy``: ``mean`` (class mean), ``worst`` (lowest class), ``natural`` (all test images alike) and ``classes``, in 0..1,
  after the last step of the training;
* ``best``: the same of the evaluation with the highest class mean, chosen on test labels: for comparison with others only;
* ``counts``: images chosen of each class;
* ``seconds``: ``features``, ``selection``, ``allocation``, ``refinement``, ``training``, and where patches are dropped
  ``pixels``: judging and rebuilding all training images;
* ``training``: key of the training, the same for cells that chose the same images;
* ``precision``, ``steps``, ``versions``, and ``provenance`` as the selection tells it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dqas_plugin.bench.grid import Cell, DatasetReference, hashed
from dqas_plugin.data import DatasetSplits, FloatArray, ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.scores import ClassScores
from dqas_plugin.threads import single_threads
from dqas_plugin.training import train
from dqas_plugin.versions import versions

if TYPE_CHECKING:
    from dqas_plugin.pipeline import SelectionRequest
    from dqas_plugin.quantization.rebuilding import Rebuilt
    from dqas_plugin.selection import Selection

Result = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A cell for a worker.

    Attributes:
        cell: what is to be done.
        device: where: ``cpu``, ``cuda:0`` …; ``cuda`` where the executor gives every worker a GPU.
        path: the file of the cell's selection.
    """

    cell: Cell
    device: str
    path: Path

    def on(self, device: str) -> Task:
        """The same on another device."""
        return replace(self, device=device)


@dataclass(frozen=True)
class Preparation:
    """Cells that read the output of the same network."""

    tasks: tuple[Task, ...]

    @property
    def cell(self) -> Cell:
        """One of them."""
        return self.tasks[0].cell

    @property
    def device(self) -> str:
        """Where."""
        return self.tasks[0].device

    def on(self, device: str) -> Preparation:
        """The same on another device."""
        return Preparation(tuple(one.on(device) for one in self.tasks))


@dataclass(frozen=True)
class Chosen:
    """What the driver needs to know of a selection.

    Attributes:
        digest: hash of the chosen indices and their weights, whatever their order.
        counts: images of each class.
        provenance: as the selection tells it.
    """

    digest: str
    counts: tuple[int, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Steps:
    """The four calls behind a cell; all but ``read`` run in workers.

    Attributes:
        prepare: compute and keep the signals that cells share.
        select: make a selection and write it.
        read: what a selection file holds; :class:`UserError` if it cannot be read.
        train: train on the selection of a task.
    """

    prepare: Callable[[Preparation], None]
    select: Callable[[Task], Chosen]
    read: Callable[[Path], Chosen]
    train: Callable[[Task], Result]


def open_dataset(name: str, root: str | Path | None = None, **options: Any) -> DatasetReference:
    """Load a dataset and return its reference. This process keeps it for :func:`load`."""
    from dqas_plugin.lookup import load_dataset

    splits = load_dataset(name, root, **options)
    reference = DatasetReference.of(splits, name, root, options)
    _loaded.cache_clear()
    give(reference, splits)
    return reference


def give(reference: DatasetReference, splits: DatasetSplits) -> None:
    """Let :func:`load` find a dataset that this process has already."""
    _given[reference] = splits


def is_given(reference: DatasetReference) -> bool:
    """Whether this process has the dataset."""
    return reference in _given


def load(reference: DatasetReference) -> DatasetSplits:
    """The dataset of a reference, kept for the next call in the same process.

    Raises:
        UserError: if its content is not what it was when the grid was planned.
    """
    return _given.get(reference) or _loaded(reference)


_given: dict[DatasetReference, DatasetSplits] = {}  # the same content may be mirrored under one name and not under another


@lru_cache(maxsize=2)
def _loaded(reference: DatasetReference) -> DatasetSplits:
    from dqas_plugin.lookup import load_dataset

    splits = load_dataset(reference.name, reference.root, **reference.options)
    if DatasetReference.of(splits, reference.name).fingerprint != reference.fingerprint:
        raise UserError(f"the dataset '{reference.name}' has changed since the grid was planned: start the command again")
    return splits


def request(cell: Cell, device: str) -> SelectionRequest:
    """The cell as a request to the pipeline."""
    from dqas_plugin.pipeline import SelectionRequest

    original = load(cell.dataset).train
    return SelectionRequest(
        data=_rebuilt(cell, device).data if cell.reads_rebuilt else original,
        method=cell.method,
        budget=cell.images,
        allocator=cell.allocator,
        allocator_options=dict(cell.allocator_options),
        refiner=cell.refiner,
        refiner_options=dict(cell.refiner_options),
        refine_share=cell.refine_share,
        method_options=dict(cell.method_options),
        goal=cell.goal,
        proxy=cell.proxy,
        model=cell.model,
        recipe=cell.recipe,
        seed=cell.seed,
        device=device,
        features=cell.features,
        max_memory=cell.max_memory,
        made_for=None if cell.quantization is None else original,
        report=_log.info,
    )


def _rebuilt(cell: Cell, device: str) -> Rebuilt:
    """The images of the dataset, rebuilt without the patches that the cell's method drops."""
    from dqas_plugin.quantization.quantize import rebuilt_by_proxy

    patches = cell.patches
    assert patches is not None
    return rebuilt_by_proxy(load(cell.dataset).train, patches, cell.model, cell.recipe, cell.seed, device, _log.info)


def prepare_signals(preparation: Preparation) -> None:
    """Compute and cache the signals that these cells need, and the rebuilt images."""
    from dqas_plugin.pipeline import prepare

    for task in preparation.tasks:
        with single_threads():
            prepare(request(task.cell, task.device))
            if task.cell.patches is not None:
                _rebuilt(task.cell, task.device)


def make_selection(task: Task) -> Chosen:
    """Rank, allocate and refine; write the selection."""
    from dqas_plugin.pipeline import run_request

    with single_threads():
        selection = run_request(request(task.cell, task.device))
    selection.save(task.path)
    return _chosen(selection)


def read_selection(path: Path) -> Chosen:
    """What the file says."""
    from dqas_plugin.selection import Selection

    return _chosen(Selection.load(path))


def train_on_selection(task: Task) -> Result:
    """Train a network on the selection of the task and test it: the part of the result that does not depend on the method."""
    from dqas_plugin.lookup import resolve_model
    from dqas_plugin.plugins import announce_epoch
    from dqas_plugin.selection import Selection

    cell, data = task.cell, load(task.cell.dataset)
    selection = Selection.load(task.path, data.train)
    order = np.argsort(selection.indices)  # the same set is the same training, whoever chose it
    weights = None if selection.weights is None else torch.from_numpy(selection.weights[order])
    with single_threads():
        rebuilt = None if cell.patches is None else _rebuilt(cell, task.device)
        images = data.train if rebuilt is None else rebuilt.data
        trained = train(
            resolve_model(cell.model),
            images.subset(selection.indices[order]),
            cell.recipe,
            cell.seed,
            device=task.device,
            weights=weights,
            test=data.test,
            on_epoch=announce_epoch,
        )
    assert trained.last is not None  # there is a test set
    assert trained.best is not None
    return {
        "accuracy": accuracies(trained.last, data.test),
        "best": accuracies(trained.best, data.test),
        "seconds": trained.seconds,
        **({} if rebuilt is None else {"pixels": rebuilt.seconds}),
        "precision": trained.precision,
        "steps": trained.steps,
        "versions": versions(),
    }


STEPS = Steps(prepare=prepare_signals, select=make_selection, read=read_selection, train=train_on_selection)


def compose(cell: Cell, chosen: Chosen, training: Result) -> Result:
    """The result of a cell, of its selection and its training."""
    seconds = dict(chosen.provenance.get("seconds", {}))
    common = dict(training)
    seconds |= {"pixels": common.pop("pixels")} if "pixels" in common else {}
    return {
        **common,
        "counts": list(chosen.counts),
        "seconds": {**seconds, "training": training["seconds"]},
        "training": hashed(cell.training_configuration(chosen.digest)),
        "provenance": dict(chosen.provenance),
    }


def accuracies(scores: ClassScores, test: ImageDataset) -> dict[str, Any]:
    """Class mean, lowest class, mean over all test images, and every class; classes without test images are left out."""
    present = test.class_sizes > 0
    classes: FloatArray = np.where(present, scores.accuracy, np.nan)
    return {
        "mean": float(classes[present].mean()),
        "worst": float(classes[present].min()),
        "natural": float(np.average(classes[present], weights=test.class_sizes[present])),
        "classes": [float(one) if known else None for one, known in zip(classes, present, strict=True)],
    }


def _chosen(selection: Selection) -> Chosen:
    order = np.argsort(selection.indices)
    digest = hashlib.blake2b(selection.indices[order].astype("<i8").tobytes(), digest_size=16)
    if selection.weights is not None:
        digest.update(selection.weights[order].astype("<f4").tobytes())
    return Chosen(digest.hexdigest(), tuple(int(one) for one in selection.counts), dict(selection.provenance))
