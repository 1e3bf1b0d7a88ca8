"""What tables show of finished cells, as arrays: it is kept beside their results, so that many are read at once.

Cells that differ in their seed alone are one *way* of choosing: a row of a table. Ways that differ in their budget alone are
one *line*, and lines of one dataset, model, recipe and kind of device one *part* of the results: a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dqas_plugin.bench.grid import Cell, hashed

Result = dict[str, Any]
Epoch = Literal["last", "best"]
Kind = Literal["last", "best", "counts"]
Floats = npt.NDArray[np.float64]

SECONDS = ("features", "selection", "allocation", "refinement", "pixels", "training")
"""The steps whose time is told."""

_MEASURES = ("mean", "worst", "natural")
_EPOCHS: Mapping[Epoch, str] = {"last": "accuracy", "best": "best"}
_COLUMNS = (
    *(f"{epoch} {measure}" for epoch in _EPOCHS for measure in _MEASURES),
    *("fewest", "most"),
    *(f"{step} seconds" for step in SECONDS),
)
NUMBERS = len(_COLUMNS)
_PLACES = {name: place for place, name in enumerate(_COLUMNS)}


class Figures(NamedTuple):
    """What tables show of one finished cell.

    Attributes:
        training: key of its training.
        numbers: float64 ``[NUMBERS]``.
        last: accuracy of every class after the last step, NaN without test images, float64 ``[C]``.
        best: that of the best evaluation.
        counts: images of every class, float64 ``[C]``.
    """

    training: str
    numbers: Floats
    last: Floats
    best: Floats
    counts: Floats

    @staticmethod
    def of(result: Result) -> Figures:
        """Those of a result."""
        accuracies = [result[name] for name in _EPOCHS.values()]
        seconds, counts = result["seconds"], result["counts"]
        numbers = [one[measure] for one in accuracies for measure in _MEASURES]
        numbers += [min(counts), max(counts), *(seconds.get(step, 0.0) for step in SECONDS)]
        last, best = (np.array(one["classes"], dtype=np.float64) for one in accuracies)  # None becomes NaN
        return Figures(result["training"], np.array(numbers, dtype=np.float64), last, best, np.array(counts, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Finished:
    """The finished cells of a way.

    Attributes:
        seeds: ascending.
        trainings: their keys.
        numbers: float64 ``[n, NUMBERS]``.
        by_class: gets the figures of every class, of one kind, float64 ``[n, C]``; most tables show none.
        epoch: whose accuracies are told.
    """

    seeds: tuple[int, ...] = ()
    trainings: tuple[str, ...] = ()
    numbers: Floats = field(default_factory=lambda: np.empty((0, NUMBERS)))
    by_class: Callable[[Kind], Floats] = lambda _: np.empty((0, 0))
    epoch: Epoch = "last"

    @staticmethod
    def of(results: Mapping[int, Result]) -> Finished:
        """Of results by seed."""
        if not results:
            return Finished()
        seeds = tuple(sorted(results))
        found = [Figures.of(results[seed]) for seed in seeds]

        def by_class(kind: Kind) -> Floats:
            return np.stack([getattr(one, kind) for one in found])

        return Finished(seeds, tuple(one.training for one in found), np.stack([one.numbers for one in found]), by_class)

    def at(self, epoch: Epoch) -> Finished:
        """The same with the accuracies of another epoch."""
        return replace(self, epoch=epoch)

    def scores(self, measure: str, epoch: Epoch | None = None) -> dict[int, float]:
        """An accuracy by seed."""
        return dict(zip(self.seeds, self._column(f"{epoch or self.epoch} {measure}"), strict=True))

    @property
    def fewest(self) -> int:
        """Images of the smallest class, in any seed."""
        return int(min(self._column("fewest")))

    @property
    def most(self) -> int:
        """Images of the largest class, in any seed."""
        return int(max(self._column("most")))

    @property
    def seconds(self) -> dict[str, float]:
        """Mean of each step."""
        return {step: sum(self._column(f"{step} seconds")) / len(self.seeds) for step in SECONDS}

    @property
    def by_seed(self) -> dict[int, str]:
        """The key of the training of every seed."""
        return dict(zip(self.seeds, self.trainings, strict=True))

    @cached_property
    def classes(self) -> Floats:
        """The accuracy of every class, NaN without test images, float64 ``[n, C]``."""
        return self.by_class(self.epoch)

    @property
    def counts(self) -> Floats:
        """Images of every class, float64 ``[n, C]``."""
        return self.by_class("counts")

    def _column(self, name: str) -> list[float]:
        found: list[float] = self.numbers[:, _PLACES[name]].tolist()
        return found


@dataclass(frozen=True, eq=False)
class Way:
    """A way of choosing.

    Attributes:
        cell: the first of its cells.
        line: its line.
        planned: how many seeds there should be.
        finished: what is there.
    """

    cell: Cell
    line: str
    planned: int
    finished: Finished


def part_of(cell: Cell) -> str:
    """Names the part of the results that the cell belongs to."""
    return hashed([cell.dataset.identity(), cell.model, cell.recipe.as_dict(), cell.device])


def line_of(cell: Cell) -> str:
    """Names the line: everything of a cell but its seed, its budget, and how its dataset was named."""
    configuration = cell.configuration()
    del configuration["seed"], configuration["budget"], configuration["label"]
    return hashed({**configuration, "dataset": cell.dataset.identity()})


def ways_of(cells: Sequence[Cell], results: Mapping[str, Result]) -> list[Way]:
    """The ways of these cells, in the order in which they come first."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((line_of(cell), cell.budget), []).append(cell)
    found = []
    for (line, _), group in groups.items():
        finished = Finished.of({cell.seed: results[cell.key] for cell in group if cell.key in results})
        found.append(Way(group[0], line, len({cell.seed for cell in group}), finished))
    return found
