"""What a folder of results shows: every finished cell, put into tables.

Tables, figures and the report all start here, so that they show the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dqas_plugin.bench.store import Store
from dqas_plugin.bench.table import Section, tabulate
from dqas_plugin.errors import UserError, unknown_name


def read(
    folder: Path | str,
    *,
    dataset: str | None = None,
    model: str | None = None,
    recipe: str | None = None,
    best_epoch: bool = False,
) -> list[Section]:
    """The tables of all finished cells, those that were measured first come first.

    Args:
        folder: of results.
        dataset: only of this one, named as in the bench, or by the last part of its path.
        model: only of this network.
        recipe: only of the recipe of this name.
        best_epoch: accuracies of the best evaluation instead of the last one. It is chosen on test labels: for comparison with
            others only.

    Raises:
        UserError: if there are no results, they are of another version, or none is of that dataset, model and recipe.
    """
    with Store.existing(folder) as store:
        found = list(store.cells())
    results = {cell.key: {**result, "accuracy": result["best"]} if best_epoch else result for cell, result in found}
    sections = [replace(one, epoch="best" if best_epoch else "last") for one in tabulate([cell for cell, _ in found], results)]
    if not sections:
        raise UserError(f"{folder} has no finished cell yet: let dqas bench --results {folder} finish one first")
    for kind, wanted in (("dataset", dataset), ("model", model), ("recipe", recipe)):
        if wanted is not None:
            sections = _of(sections, kind, wanted)
    return sections


def _of(sections: Iterable[Section], kind: str, wanted: str) -> list[Section]:
    names = {id(one): {getattr(one, kind), short_name(getattr(one, kind))} for one in sections}
    chosen = [one for one in sections if wanted in names[id(one)]]
    if not chosen:
        raise unknown_name(f"{kind} in these results", wanted, set().union(*names.values()))
    return chosen


def short_name(dataset: str) -> str:
    """A dataset's name without its path: ``parquet:DIR/cifar10-jpeg`` is ``cifar10-jpeg``."""
    return dataset.rpartition(":")[2].rstrip("/").rpartition("/")[2] or dataset
