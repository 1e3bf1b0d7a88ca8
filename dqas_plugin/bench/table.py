"""From finished cells to the records of a table: numbers and verdicts, without any layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dqas_plugin.bench.finished import SECONDS, Epoch, Finished, Floats, Result, Way, line_of, part_of, ways_of
from dqas_plugin.bench.foreign import WRAPPERS
from dqas_plugin.bench.grid import Cell
from dqas_plugin.bench.statistics import Difference, Summary, paired_difference, summaries, summarise, verdict
from dqas_plugin.recipes import Recipe
from dqas_plugin.told import visible

__all__ = ["KEPT_EVEN", "SAME", "SECONDS", "Result", "Row", "Section", "even_counts", "section_of", "tabulate"]

KEPT_EVEN = "kept even counts"
SAME = "same selection"


@dataclass(frozen=True)
class Row:
    """One way of choosing at one budget, over all seeds. Accuracies are in 0..1; None while no seed is finished.

    What it tells is worked out when it is asked for: a table shows a part of it, and there may be thousands of rows.

    Attributes:
        cell: the first of its cells; its seed means nothing.
        planned: seeds of the grid.
        finished: all its finished cells.
        uniform: those of the same method at even counts; none for even counts themselves.
        random: those of ``random`` at even counts; none for these themselves.
    """

    cell: Cell
    planned: int
    finished: Finished = field(default_factory=Finished, repr=False)
    uniform: Finished = field(default_factory=Finished, repr=False)
    random: Finished = field(default_factory=Finished, repr=False)

    @property
    def label(self) -> str:
        """The budget as the user gave it."""
        return self.cell.label

    @property
    def budget(self) -> int:
        """Images."""
        return self.cell.budget

    @property
    def method(self) -> str:
        """Name of the selector."""
        return self.cell.method

    @property
    def detail(self) -> str:
        """What is set otherwise than usual about the method itself; most often empty."""
        return self.cell.detail

    @cached_property
    def variant(self) -> str:
        """What is added to the method; empty for even counts."""
        return self.cell.variant

    @property
    def measure(self) -> str:
        """What the differences compare: ``mean``, ``worst`` or ``natural``."""
        return self.cell.goal

    @property
    def seeds(self) -> tuple[int, ...]:
        """Finished seeds."""
        return self.finished.seeds

    @cached_property
    def accuracy(self) -> Summary | None:
        """Class mean after the last step."""
        return self._summary("mean")

    @cached_property
    def worst(self) -> Summary | None:
        """Lowest class."""
        return self._summary("worst")

    @cached_property
    def natural(self) -> Summary | None:
        """All test images alike."""
        return self._summary("natural")

    @cached_property
    def best(self) -> Summary | None:
        """Class mean of the best evaluation, chosen on test labels."""
        return self._summary("mean", "best")

    @cached_property
    def scores(self) -> Mapping[int, float]:
        """The measure that differences compare, by seed."""
        return self.finished.scores(self.measure)

    @cached_property
    def versus_uniform(self) -> Difference | None:
        """Paired with the same method at even counts; None for even counts themselves."""
        return paired_difference(self.scores, self.uniform.scores(self.measure))

    @cached_property
    def versus_random(self) -> Difference | None:
        """Paired with ``random`` at even counts."""
        return paired_difference(self.scores, self.random.scores(self.measure))

    @cached_property
    def verdict(self) -> str:
        """What :attr:`versus_uniform` shows, in words; empty without it."""
        if self.versus_uniform is None:
            return ""
        theirs = self.uniform.by_seed
        if all(training == theirs.get(seed, training) for seed, training in self.finished.by_seed.items()):
            return SAME if self.cell.allocator == "uniform" else KEPT_EVEN
        return verdict(self.versus_uniform)

    @property
    def fewest(self) -> int | None:
        """Images of the smallest class, in any seed."""
        return self.finished.fewest if self.seeds else None

    @property
    def most(self) -> int | None:
        """Images of the largest class, in any seed."""
        return self.finished.most if self.seeds else None

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Mean of each step."""
        return self.finished.seconds if self.seeds else {}

    @property
    def class_scores(self) -> Floats:
        """The accuracy of every class, NaN for one without test images, in the order of the seeds, float64 ``[n, C]``."""
        return self.finished.classes

    @cached_property
    def classes(self) -> tuple[Summary | None, ...]:
        """Accuracy of every class; None for one without test images."""
        return summaries(self.class_scores)

    @cached_property
    def counts(self) -> tuple[Summary, ...]:
        """Images of every class."""
        return tuple(one for one in summaries(self.finished.counts) if one is not None)

    @property
    def base(self) -> str:
        """The method, with what is set otherwise than usual: ``dq (whole images)``."""
        return f"{self.method} ({self.detail})" if self.detail else self.method

    @cached_property
    def name(self) -> str:
        """Method and variant."""
        return f"{self.base} + {self.variant}" if self.variant else self.base

    def _summary(self, measure: str, epoch: Epoch | None = None) -> Summary | None:
        return summarise(self.finished.scores(measure, epoch).values())


@dataclass(frozen=True)
class Section:
    """The rows that share dataset, model, recipe and kind of device.

    Attributes:
        class_names: of every class; empty if they are not known.
        settings: the recipe, of which ``recipe`` is the name.
        epoch: whose accuracies these are: ``last``, or ``best``, which is chosen on test labels.
        options: of the dataset.
    """

    dataset: str
    images: int
    classes: int
    model: str
    recipe: str
    prior: str
    device: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    class_names: tuple[str, ...] = ()
    settings: Recipe | None = None
    epoch: str = "last"
    options: Mapping[str, Any] = field(default_factory=dict)

    def even(self, row: Row) -> Row | None:
        """The row of even counts that this one is compared with; two of one name may differ in what the name does not tell."""
        wanted = even_counts(row.cell)
        alike = (one for one in self.rows if (one.method, one.budget, one.variant) == (wanted.method, wanted.budget, ""))
        return next((one for one in alike if replace(one.cell, seed=wanted.seed).key == wanted.key), None)


def tabulate(cells: Sequence[Cell], results: Mapping[str, Result], epoch: Epoch = "last") -> list[Section]:
    """The table of these cells; those without a result are told as missing."""
    parts: dict[str, list[Cell]] = {}
    for cell in cells:
        parts.setdefault(part_of(cell), []).append(cell)
    return [
        section_of(
            ways_of(part, results),
            epoch,
            seeds=tuple(sorted({cell.seed for cell in part})),
            class_names=next((one.dataset.class_names for one in part if one.dataset.class_names), ()),
        )
        for part in parts.values()
    ]


def section_of(ways: Sequence[Way], epoch: Epoch, *, seeds: tuple[int, ...], class_names: tuple[str, ...]) -> Section:
    """The table of these ways, which belong to one part of the results.

    Args:
        ways: those that were measured first come first.
        epoch: whose accuracies are told.
        seeds: of any of them.
        class_names: of every class; empty if they are not known.
    """
    place = {name: place for place, name in enumerate(dict.fromkeys((way.cell.method, way.cell.detail) for way in ways))}
    ordered = sorted(ways, key=lambda way: (way.cell.budget, place[way.cell.method, way.cell.detail]))
    rows = _Rows({(way.line, way.cell.budget): way.finished.at(epoch) for way in ordered})
    first = ways[0].cell
    return Section(
        dataset=first.dataset.name,
        images=first.dataset.images,
        classes=first.dataset.classes,
        model=first.model,
        recipe=first.recipe.name,
        prior=first.recipe.prior,
        device=first.device,
        seeds=seeds,
        rows=tuple(rows.row(way) for way in ordered),
        class_names=tuple(map(visible, class_names)),
        settings=first.recipe,
        epoch=epoch,
        options=first.dataset.options,
    )


class _Rows:
    """Makes the rows of a section, each beside those that it is compared with."""

    def __init__(self, finished: Mapping[tuple[str, int], Finished]) -> None:
        self.finished = finished  # by line and budget
        self.even: dict[str, tuple[str, str]] = {}  # by line, the lines of even counts of the same method and of ``random``

    def row(self, way: Way) -> Row:
        """The row of a way."""
        return Row(way.cell, way.planned, self.finished[way.line, way.cell.budget], *self._compared(way))

    def _compared(self, way: Way) -> tuple[Finished, Finished]:
        """What is finished of the same method at even counts, and of random images; nothing where that is the way itself."""
        cell, nothing = way.cell, Finished()
        if way.line not in self.even:
            self.even[way.line] = line_of(even_counts(cell)), line_of(even_counts(cell, "random"))
        uniform, random = (self.finished.get((line, cell.budget), nothing) for line in self.even[way.line])
        return uniform if cell.variant else nothing, nothing if (cell.method, cell.variant) == ("random", "") else random


def even_counts(cell: Cell, method: str | None = None) -> Cell:
    """The cell of even counts that this one is compared with; what is not used there is at its default, as in ``plan``."""
    other = method is not None and method != cell.method
    roles = ("model", WRAPPERS) if other else ("model", WRAPPERS, "method")
    return Cell(
        dataset=cell.dataset,
        method=method or cell.method,
        budget=cell.budget,
        label=cell.label,
        model=cell.model,
        recipe=cell.recipe,
        seed=cell.seed,
        device=cell.device,
        method_options={} if other else cell.method_options,
        features="proxy" if other else cell.features,
        max_memory=cell.max_memory,
        method_file=None if other else cell.method_file,
        quantization=None if other else cell.quantization,
        plugins={role: one for role, one in cell.plugins.items() if role in roles},
    )
