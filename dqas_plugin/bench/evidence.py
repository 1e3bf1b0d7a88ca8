"""What a folder of results shows: every finished cell, put into tables.

Tables, figures and the report all start here, so that they show the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from dqas_plugin.bench.finished import Epoch, Finished, Floats, Kind, Way
from dqas_plugin.bench.kept_figures import ClassFigures, Kept
from dqas_plugin.bench.store import Store
from dqas_plugin.bench.table import Section, section_of, tabulate
from dqas_plugin.errors import UserError, unknown_name

T = TypeVar("T")

_NO_FIGURES: Floats = np.empty((0, 0))


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
    epoch: Epoch = "best" if best_epoch else "last"
    wanted = {"dataset": dataset, "model": model, "recipe": recipe}
    with Store.existing(folder) as store:
        if store.has_figures:
            parts = [(part, _Named(cell.dataset.name, cell.model, cell.recipe.name)) for part, cell in store.parts()]
            sections = [_section(store, part, epoch) for part, _ in _chosen(parts, wanted)]
        else:
            found = list(store.shown())
            whole = tabulate([cell for cell, _ in found], {cell.key: result for cell, result in found}, epoch)
            named = [(one, _Named(one.dataset, one.model, one.recipe)) for one in whole]
            sections = [one for one, _ in _chosen(named, wanted)]
    if not sections:
        raise UserError(f"{folder} has no finished cell yet: let dqas bench --results {folder} finish one first")
    return sections


class _Named(NamedTuple):
    """What a table may be asked for by."""

    dataset: str
    model: str
    recipe: str


def _section(store: Store, part: str, epoch: Epoch) -> Section:
    """The table of a part of the results, of the figures that are kept of them."""
    found = store.ways(part)
    by_class = _ByClass(store.folder, part, found[0][1].dataset.classes)
    ways = [
        Way(cell, kept.line, len(kept.seeds), Finished(kept.seeds, kept.trainings, kept.numbers, partial(by_class, kept)))
        for kept, cell in found
    ]
    seeds = tuple(sorted({seed for way in ways for seed in way.finished.seeds}))
    class_names = next((way.cell.dataset.class_names for way in ways if way.cell.dataset.class_names), ())
    return section_of(ways, epoch, seeds=seeds, class_names=class_names)


class _ByClass:
    """Reads the figures of every class of a part when some are asked for: only few tables show any."""

    def __init__(self, folder: Path, part: str, classes: int) -> None:
        self.folder, self.part, self.classes = folder, part, classes
        self.read = cache(self._read)

    def _read(self, kind: Kind) -> ClassFigures:
        with Store.existing(self.folder) as store:
            return store.class_figures(self.part, kind, self.classes)

    def __call__(self, kept: Kept, kind: Kind) -> Floats:
        """Those of a way, float64 ``[n, C]``.

        Raises:
            UserError: if the results are no longer there.
        """
        seeds, values = self.read(kind).get((kept.line, kept.budget), ((), _NO_FIGURES))
        if seeds == kept.seeds:
            return values
        places = {seed: place for place, seed in enumerate(seeds)}  # some were added meanwhile
        if not places.keys() >= set(kept.seeds):
            raise UserError(f"results in {self.folder} were removed while they were read: start the same command again")
        return values[[places[seed] for seed in kept.seeds]]


def _chosen(named: Sequence[tuple[T, _Named]], wanted: Mapping[str, str | None]) -> list[tuple[T, _Named]]:
    """Those that are asked for.

    Raises:
        UserError: if there are some, but none is.
    """
    found = list(named)
    for kind, name in wanted.items():
        if name is not None and found:
            known = [(one, {getattr(one[1], kind), short_name(getattr(one[1], kind))}) for one in found]
            found = [one for one, names in known if name in names]
            if not found:
                raise unknown_name(f"{kind} in these results", name, set().union(*(names for _, names in known)))
    return found


def short_name(dataset: str) -> str:
    """A dataset's name without its path: ``parquet:DIR/cifar10-jpeg`` is ``cifar10-jpeg``."""
    return dataset.rpartition(":")[2].rstrip("/").rpartition("/")[2] or dataset
