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
    """One way of choosing at one budget, over all seeds. Accuracies are in 0..1.

    Attributes:
        label: the budget as the user gave it.
        budget: images.
        method: name of the selector.
        variant: what is added to it; empty for even counts.
        seeds: finished seeds.
        planned: seeds of the grid.
        accuracy: class mean after the last step; None while no seed is finished.
        worst: lowest class.
        natural: all test images alike.
        best: class mean of the best evaluation, chosen on test labels.
        measure: what the differences compare: ``mean``, ``worst`` or ``natural``.
        versus_uniform: paired with the same method at even counts; None for even counts themselves.
        versus_random: paired with ``random`` at even counts.
        verdict: what ``versus_uniform`` shows, in words; empty without it.
        fewest: images of the smallest class, in any seed.
        most: images of the largest class, in any seed.
        seconds: mean of each step.
        detail: what is set otherwise than usual about the method itself; most often empty.
        scores: the measure that differences compare, by seed.
        finished: all its finished cells.
        cell: the first of its cells; its seed means nothing.
    """

    label: str
    budget: int
    method: str
    variant: str
    seeds: tuple[int, ...]
    planned: int
    accuracy: Summary | None = None
    worst: Summary | None = None
    natural: Summary | None = None
    best: Summary | None = None
    measure: str = "mean"
    versus_uniform: Difference | None = None
    versus_random: Difference | None = None
    verdict: str = ""
    fewest: int | None = None
    most: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""
    scores: Mapping[int, float] = field(default_factory=dict)
    finished: Finished = field(default_factory=Finished, repr=False)
    cell: Cell | None = None

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

    @property
    def name(self) -> str:
        """Method and variant."""
        return f"{self.base} + {self.variant}" if self.variant else self.base


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
        if row.cell is None:
            return None
        wanted = even_counts(row.cell)
        alike = (one for one in self.rows if (one.method, one.budget, one.variant) == (wanted.method, wanted.budget, ""))
        return next((one for one in alike if one.cell and replace(one.cell, seed=wanted.seed).key == wanted.key), None)


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
        cell, ours = way.cell, self.finished[way.line, way.cell.budget]
        row = Row(
            *(cell.label, cell.budget, cell.method, cell.variant, ours.seeds, way.planned),
            measure=cell.goal,
            detail=cell.detail,
            cell=cell,
        )
        if not ours.seeds:
            return row
        uniform, random = self._compared(way)
        scores = ours.scores(cell.goal)
        against = paired_difference(scores, uniform.scores(cell.goal))
        return replace(
            row,
            accuracy=summarise(ours.scores("mean").values()),
            worst=summarise(ours.scores("worst").values()),
            natural=summarise(ours.scores("natural").values()),
            best=summarise(ours.scores("mean", "best").values()),
            versus_uniform=against,
            versus_random=paired_difference(scores, random.scores(cell.goal)),
            verdict="" if against is None else _verdict(cell, against, ours, uniform),
            fewest=ours.fewest,
            most=ours.most,
            seconds=ours.seconds,
            scores=scores,
            finished=ours,
        )

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


def _verdict(cell: Cell, against: Difference, ours: Finished, uniform: Finished) -> str:
    theirs = uniform.by_seed
    if all(training == theirs.get(seed, training) for seed, training in ours.by_seed.items()):
        return SAME if cell.allocator == "uniform" else KEPT_EVEN
    return verdict(against)
