"""Results made by hand, for tests of what shows them: two classes, methods and budgets as wanted, every number known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dqas_plugin.bench import Cell, DatasetReference, Section, plan, tabulate
from dqas_plugin.bench.store import Store

TOY = DatasetReference("toy", "0123", images=1000, classes=2, mirror=False, class_names=("cat", "dog"))


def result(classes: Sequence[float | None], counts: Sequence[int], training: str = "") -> dict[str, Any]:
    """What a cell leaves behind.

    Args:
        classes: accuracy of each, in 0..1; None for one without test images.
        counts: images of each.
        training: what tells one training from another.
    """
    known = [one for one in classes if one is not None]
    accuracy = {"mean": sum(known) / len(known), "worst": min(known), "natural": known[0], "classes": list(classes)}
    best = {"mean": accuracy["mean"] + 0.01, "worst": accuracy["worst"], "natural": known[0], "classes": list(classes)}
    seconds = {"features": 1.0, "selection": 0.5, "training": 2.0}
    return {"accuracy": accuracy, "best": best, "counts": list(counts), "seconds": seconds, "training": training}


def usual(cell: Cell) -> dict[str, Any]:
    """Accuracies that rise with the budget, by seed a little; adaptive counts give ``dog`` more, and gain by it."""
    moved = cell.budget // 10 if cell.allocator != "uniform" else 0
    cat, dog = 0.8 + cell.budget / 10_000, 0.5 + cell.budget / 1000 + cell.seed / 100
    gain = (0.1 + cell.seed / 1000) if moved else 0.0
    half = cell.budget // 2
    return result([cat, dog + gain], [half - moved, half + moved], f"{cell.key}")


def section(cells: Sequence[Cell], make: Callable[[Cell], dict[str, Any]] = usual) -> Section:
    """The table of these cells, all of them finished."""
    [found] = tabulate(cells, {cell.key: make(cell) for cell in cells})
    return found


def stored(folder: Path, cells: Sequence[Cell], make: Callable[[Cell], dict[str, Any]] = usual) -> Path:
    """A folder of results with these cells."""
    with Store(folder) as store:
        for cell in cells:
            store.add_cell(cell, make(cell))
    return folder


def toy_cells(methods: Sequence[str] = ("graphcut",), dataset: DatasetReference = TOY, **choices: Any) -> list[Cell]:
    """Cells with even and adaptive counts, at 5, 10 and 20 % with three seeds unless it is said otherwise."""
    usually: dict[str, Any] = {"ratios": [0.05, 0.1, 0.2], "seeds": 3, "allocators": ["adaptive"], "refiner": "error-reduction"}
    return plan(dataset, list(methods), **{**usually, **choices})
