"""Folders with many results, made by hand: every cell has a result of the size of a real one, and no image is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dqas_plugin.bench import Cell, DatasetReference, plan
from dqas_plugin.bench.store import Result, Store
from dqas_plugin.bench.table import SECONDS

METHODS = ("random", "graphcut", "k-center", "herding", "margin", "entropy", "craig", "glister")
_VERSIONS = {"dqas": "0.1.0", "numpy": "2.4.6", "python": "3.11.7", "torch": "2.14.1+cpu"}


def dataset(name: str, classes: int = 10, images: int = 50_000) -> DatasetReference:
    """A dataset that exists by name only."""
    names = tuple(f"class {one}" for one in range(classes))
    return DatasetReference(name, f"fingerprint of {name}", images, classes, shape=(3, 32, 32), class_names=names)


def one_table(cells: int, classes: int = 10, methods: Sequence[str] = METHODS, budgets: int = 5) -> list[Cell]:
    """About so many cells that one table shows: all methods with even and adaptive counts, at some budgets, with many seeds."""
    rows = budgets * (2 * len(methods))
    ratios = [(one + 1) / (2 * budgets) for one in range(budgets)]
    seeds = range(-(-cells // rows))
    reference = dataset("cifar10" if classes == 10 else "cifar100", classes)
    planned = plan(reference, methods, ratios=ratios, seeds=seeds, allocators=["adaptive"], refiner="error-reduction")
    return planned[:cells]


def many_tables(cells: int, seeds: int = 5) -> list[Cell]:
    """So many cells of many datasets, of 10 or 100 classes, with two recipes, some options and some goals."""
    found: list[Cell] = []
    number = 0
    while len(found) < cells:
        classes = 100 if number % 4 == 3 else 10
        for recipe, goal in (("quick", "mean"), ("fast", "worst")):
            found += plan(
                dataset(f"folder:/data/set-{number}", classes),
                METHODS,
                ratios=[0.01, 0.05, 0.1],
                seeds=seeds,
                allocators=["adaptive"],
                refiner="error-reduction",
                refiner_options={"rounds": 5} if number % 2 else {},
                goal=goal,
                recipe=recipe,
                allocator_options={"confirm": 9} if number % 3 == 0 else {},
            )
        number += 1
    return found[:cells]


def results_of(cells: Iterable[Cell]) -> Iterator[tuple[Cell, Result]]:
    """Each cell with a made-up result: methods, budgets and allocators differ, and adaptive counts are sometimes kept even."""
    for number, cell in enumerate(cells):
        yield cell, result(cell, np.random.default_rng(number))


def result(cell: Cell, draws: np.random.Generator) -> Result:
    """A made-up result of the size of a real one."""
    classes = cell.dataset.classes
    level = 0.5 + 0.4 * cell.budget / cell.dataset.images + 0.01 * METHODS.index(cell.method)
    correct = draws.binomial(100, np.clip(level + 0.01 * (cell.allocator != "uniform"), 0, 1), (2, classes)) / 100
    moved = cell.allocator != "uniform" and draws.random() < 0.8
    counts = np.full(classes, cell.budget // classes)
    if moved:
        counts += draws.integers(-counts[0] // 2, counts[0] // 2 + 1, classes)
    seconds = {step: float(draws.exponential(5)) for step in SECONDS if step != "pixels"}
    return {
        "accuracy": _accuracies(correct[0]),
        "best": _accuracies(correct.max(axis=0)),
        "counts": counts.tolist(),
        "seconds": seconds,
        "training": f"{cell.method}, {cell.budget}, {cell.seed}{', moved' if moved else ''}",
        "precision": "bf16",
        "steps": 300,
        "versions": _VERSIONS,
        "provenance": _provenance(cell, seconds),
    }


def _accuracies(classes: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    mean = float(classes.mean())
    return {"mean": mean, "worst": float(classes.min()), "natural": mean, "classes": classes.tolist()}


def _provenance(cell: Cell, seconds: dict[str, float]) -> dict[str, Any]:
    gain = {"error": 0.006696676982719324, "mean": 0.016406249999999956}
    return {
        "allocation": {"chosen": "curves", "evaluations": 118, "gain": gain, "step": 0.75},
        **{name: getattr(cell, name) for name in ("allocator", "allocator_options", "budget", "features", "goal", "method")},
        **{name: getattr(cell, name) for name in ("method_options", "model", "proxy", "refine_share", "refiner", "seed")},
        "dataset": f"{cell.dataset.name}/train",
        "fingerprint": cell.dataset.fingerprint,
        "notes": [],
        "ratio": cell.budget / cell.dataset.images,
        "recipe": cell.recipe.as_dict(),
        "refiner_options": dict(cell.refiner_options),
        "seconds": seconds,
        "versions": _VERSIONS,
    }


def fill(folder: Path, cells: Iterable[Cell]) -> Path:
    """A folder with made-up results of these cells."""
    return write(folder, results_of(cells))


def write(folder: Path, results: Iterable[tuple[Cell, Result]]) -> Path:
    """A folder with these results, written at once: a hundred thousand would take minutes."""
    with Store(folder) as store:
        store._database.execute("BEGIN")
        for cell, found in results:
            store.add_cell(cell, found)
        store._database.execute("COMMIT")
    return folder
