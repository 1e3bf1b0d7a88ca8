"""From finished cells to the records of a table: numbers and verdicts, without any layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dqas_plugin.bench.foreign import WRAPPERS
from dqas_plugin.bench.grid import Cell, hashed
from dqas_plugin.bench.statistics import Difference, Summary, paired_difference, summarise, verdict
from dqas_plugin.recipes import Recipe

Result = dict[str, Any]

SECONDS = ("features", "selection", "allocation", "refinement", "pixels", "training")

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
        classes: accuracy of every class; None for one without test images.
        class_scores: the same by seed.
        counts: images of every class.
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
    classes: tuple[Summary | None, ...] = ()
    class_scores: Mapping[int, Sequence[float | None]] = field(default_factory=dict)
    counts: tuple[Summary, ...] = ()
    cell: Cell | None = None

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


_Finished = dict[int, Result]  # by seed


def tabulate(cells: Sequence[Cell], results: Mapping[str, Result]) -> list[Section]:
    """The table of these cells; those without a result are told as missing."""
    groups: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[hashed([cell.dataset.identity(), cell.model, cell.recipe.as_dict(), cell.device])].append(cell)
    return [_section(group, results) for group in groups.values()]


def _section(cells: Sequence[Cell], results: Mapping[str, Result]) -> Section:
    groups: dict[str, list[Cell]] = {}
    place = {name: place for place, name in enumerate(dict.fromkeys((cell.method, cell.detail) for cell in cells))}
    for cell in sorted(cells, key=lambda one: (one.budget, place[one.method, one.detail])):
        groups.setdefault(_way(cell), []).append(cell)
    finished = {way: _finished(group, results) for way, group in groups.items()}
    first = cells[0]
    return Section(
        dataset=first.dataset.name,
        images=first.dataset.images,
        classes=first.dataset.classes,
        model=first.model,
        recipe=first.recipe.name,
        prior=first.recipe.prior,
        device=first.device,
        seeds=tuple(sorted({cell.seed for cell in cells})),
        rows=tuple(_row(group, finished) for group in groups.values()),
        class_names=next((one.dataset.class_names for one in cells if one.dataset.class_names), ()),
        settings=first.recipe,
        options=first.dataset.options,
    )


def _way(cell: Cell) -> str:
    """Everything of a cell but its seed, and how its dataset was named."""
    configuration = cell.configuration()
    del configuration["seed"], configuration["label"]
    return hashed({**configuration, "dataset": cell.dataset.identity()})


def _finished(cells: Sequence[Cell], results: Mapping[str, Result]) -> _Finished:
    return {cell.seed: results[cell.key] for cell in cells if cell.key in results}


def _row(cells: Sequence[Cell], finished: Mapping[str, _Finished]) -> Row:
    cell = cells[0]
    ours = finished[_way(cell)]
    row = Row(
        *(cell.label, cell.budget, cell.method, cell.variant, tuple(sorted(ours)), len({one.seed for one in cells})),
        measure=cell.goal,
        detail=cell.detail,
        cell=cell,
    )
    if not ours:
        return row
    uniform = finished.get(_way(even_counts(cell)), {}) if cell.variant else {}
    random = finished.get(_way(even_counts(cell, "random")), {}) if (cell.method, cell.variant) != ("random", "") else {}
    against = paired_difference(_accuracy(ours, cell.goal), _accuracy(uniform, cell.goal))
    counts = [result["counts"] for result in ours.values()]
    return replace(
        row,
        accuracy=summarise(_accuracy(ours, "mean").values()),
        worst=summarise(_accuracy(ours, "worst").values()),
        natural=summarise(_accuracy(ours, "natural").values()),
        best=summarise(result["best"]["mean"] for result in ours.values()),
        versus_uniform=against,
        versus_random=paired_difference(_accuracy(ours, cell.goal), _accuracy(random, cell.goal)),
        verdict="" if against is None else _verdict(cell, against, ours, uniform),
        fewest=min(map(min, counts)),
        most=max(map(max, counts)),
        seconds=_mean_seconds(ours),
        scores=_accuracy(ours, cell.goal),
        classes=_by_class([result["accuracy"]["classes"] for result in ours.values()]),
        class_scores={seed: result["accuracy"]["classes"] for seed, result in ours.items()},
        counts=tuple(one for one in _by_class(counts) if one is not None),
    )


def _by_class(values: Sequence[Sequence[float | None]]) -> tuple[Summary | None, ...]:
    """Over the seeds, for every class."""
    return tuple(summarise(one for one in row if one is not None) for row in zip(*values, strict=True))


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


def _accuracy(finished: _Finished, measure: str) -> dict[int, float]:
    return {seed: result["accuracy"][measure] for seed, result in finished.items()}


def _verdict(cell: Cell, against: Difference, ours: _Finished, uniform: _Finished) -> str:
    common = [seed for seed in ours if seed in uniform]
    if all(ours[seed]["training"] == uniform[seed]["training"] for seed in common):
        return SAME if cell.allocator == "uniform" else KEPT_EVEN
    return verdict(against)


def _mean_seconds(finished: _Finished) -> dict[str, float]:
    return {step: sum(one["seconds"].get(step, 0.0) for one in finished.values()) / len(finished) for step in SECONDS}
