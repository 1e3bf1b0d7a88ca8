"""Table 1: the accuracy of every class at every budget, and which classes gain from more images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dqas_plugin.bench import render
from dqas_plugin.bench.evidence import short_name
from dqas_plugin.bench.paper import paper
from dqas_plugin.bench.reproduce import RESULTS, commands
from dqas_plugin.bench.statistics import ONE_SEED, Difference, Summary, holm, paired_difference, paired_differences, verdict
from dqas_plugin.bench.table import Row, Section
from dqas_plugin.bench.tables import wording
from dqas_plugin.bench.tables.beside import about_paper, beside
from dqas_plugin.bench.tables.lines import Budgets, Line, budgets_of, lines_of, only
from dqas_plugin.bench.tables.parts import Head, Table, Value

_WIDE = 20  # classes from which on they stand below each other
_SEEDS, _MEAN = "seeds", "mean"


@dataclass(frozen=True)
class _Entry:
    """One row of the table (a column, where classes stand below each other)."""

    name: str
    label: str
    seeds: Value
    classes: Sequence[Value]
    mean: Value


@dataclass(frozen=True)
class _Change:
    """How the classes of a line differ between its smallest and its largest budget."""

    line: Line
    first: Row
    last: Row
    classes: Sequence[Difference | None]
    mean: Difference | None


def table_1(sections: Iterable[Section], results: Path | str = RESULTS, methods: Sequence[str] = ()) -> list[Table]:
    """Class-wise accuracy against the budget.

    Args:
        sections: of :func:`dqas_plugin.bench.evidence.read`; each gets a table.
        results: folder that they come from, for the commands.
        methods: only these, by any name that a row goes by; otherwise all.

    Raises:
        UserError: for a method that the results do not have.
    """
    return [_table(section, only(lines_of(section), methods), results) for section in sections]


def _table(section: Section, lines: Sequence[Line], results: Path | str) -> Table:
    budgets = budgets_of(section)
    changes = [one for line in lines if (one := _change(line)) is not None]
    best = {budget: _best(section, lines, budget) for budget in budgets}
    entries = [entry for line in lines for entry in _entries(section, line, budgets, best, changes)]
    printed = _printed(section)
    rules = _rules(entries, several=len(budgets) > 1, printed=bool(printed))
    entries += printed
    names = section.class_names or tuple(map(str, range(section.classes)))
    heads, rows = _below(entries, names) if len(names) > _WIDE else _beside(entries, names)
    absent = [cell for line in lines for cell in line.missing(budgets, section.seeds)]
    return Table(
        title="Table 1: accuracy of every class at every budget",
        caption=_caption(section, changes),
        protocol=wording.protocol(section),
        heads=tuple(heads),
        rows=tuple(rows),
        rules=() if len(names) > _WIDE else rules,
        findings=(*_findings(changes, names), *_short(section, lines)),
        commands=tuple(map(str, commands(absent, results))),
    )


# --- entries -----------------------------------------------------------------------------------------------------------------


def _entries(
    section: Section, line: Line, budgets: Budgets, best: Mapping[int, list[set[str]]], changes: Sequence[_Change]
) -> list[_Entry]:
    found = []
    for budget, label in budgets.items():
        row, bold = line.rows.get(budget), best[budget]
        told = f"{label} ({budget:,})"
        if row is None or len(row.classes) != section.classes:
            blank = [wording.EMPTY] * section.classes
            found.append(_Entry(line.name, told, Value("0", numbers={"n": 0}), blank, wording.MISSING))
            continue
        classes = [_accuracy(one, line.name in names) for one, names in zip(row.classes, bold[:-1], strict=True)]
        seeds = Value(str(len(row.seeds)), numbers={"n": len(row.seeds)})
        found.append(_Entry(line.name, told, seeds, classes, _accuracy(row.accuracy, line.name in bold[-1])))
    for change in changes:
        if change.line is line:
            differences = [wording.difference(one) for one in change.classes]
            found.append(_Entry(line.name, "change", _number(change), differences, wording.difference(change.mean)))
    return found


def _number(change: _Change) -> Value:
    n = 0 if change.mean is None else change.mean.n
    return Value(str(n), numbers={"n": n})


def _accuracy(value: Summary | None, bold: bool) -> Value:
    """Without the number of seeds, which has its own column; a class without test images has no accuracy."""
    if value is None:
        return Value("–")
    return Value(render.summary(value), bold=bold, numbers=wording.percent(value))


def _best(section: Section, lines: Sequence[Line], budget: int) -> list[set[str]]:
    """Names of the best lines at a budget: for every class, and last for the mean."""
    rows = [(line.name, line.rows[budget]) for line in lines if budget in line.rows]
    rows = [(name, row) for name, row in rows if len(row.classes) == section.classes]
    found = []
    for place in range(section.classes + 1):
        values = [row.accuracy if place == section.classes else row.classes[place] for _, row in rows]
        found.append({name for (name, _), best in zip(rows, wording.best(values), strict=True) if best})
    return found


def _change(line: Line) -> _Change | None:
    rows = [line.rows[budget] for budget in sorted(line.rows) if line.rows[budget].seeds]
    if len(rows) < 2:
        return None
    first, last = rows[0], rows[-1]
    _, less, more = np.intersect1d(first.seeds, last.seeds, assume_unique=True, return_indices=True)
    count = min(first.class_scores.shape[1], last.class_scores.shape[1])
    classes = paired_differences(last.class_scores[more, :count] - first.class_scores[less, :count])
    return _Change(line, first, last, classes, paired_difference(_mean(last), _mean(first)))


def _mean(row: Row) -> dict[int, float]:
    """Over the classes that have an accuracy, by seed."""
    known = ~np.isnan(row.class_scores)
    totals, counts = np.where(known, row.class_scores, 0.0).sum(axis=1), known.sum(axis=1)
    return {seed: float(total / count) for seed, total, count in zip(row.seeds, totals, counts, strict=True) if count}


def _printed(section: Section) -> list[_Entry]:
    """The rows of the paper, where the classes are those of its dataset."""
    table = paper().classes
    if not _has_its_classes(section):
        return []
    return [
        _Entry(
            f"paper: {table.method}",
            f"{count} a class ({count * len(figures):,})",
            wording.EMPTY,
            [wording.published(one, 1) for one in figures],
            wording.EMPTY,
        )
        for count, figures in table.rows.items()
    ]


def _has_its_classes(section: Section) -> bool:
    dataset = paper().datasets[paper().classes.dataset]
    found = beside(section)
    return section.class_names == dataset.class_names or (found is not None and found.dataset is dataset)


# --- layout of the entries ---------------------------------------------------------------------------------------------------


def _beside(entries: Sequence[_Entry], names: Sequence[str]) -> tuple[list[Head], list[tuple[Value, ...]]]:
    """Classes beside each other, as in the paper."""
    heads = [Head("method", label=True), Head("images", label=True), Head(_SEEDS), *map(Head, names), Head(_MEAN)]
    rows = [(Value(one.name), Value(one.label), one.seeds, *one.classes, one.mean) for one in entries]
    return heads, rows


def _below(entries: Sequence[_Entry], names: Sequence[str]) -> tuple[list[Head], list[tuple[Value, ...]]]:
    """Classes below each other."""
    heads = [Head("class", label=True), *(Head(one.label, one.name) for one in entries)]
    rows = [(Value(name), *(one.classes[place] for one in entries)) for place, name in enumerate(names)]
    rows.append((Value(_MEAN), *(one.mean for one in entries)))
    rows.append((Value(_SEEDS), *(one.seeds for one in entries)))
    return heads, rows


def _rules(entries: Sequence[_Entry], *, several: bool, printed: bool) -> tuple[int, ...]:
    """A line between ways of choosing if each has several rows, and above the rows of the paper if there are any."""
    names = [one.name for one in entries]
    between = [place for place in range(1, len(names)) if names[place] != names[place - 1]] if several else []
    return (*between, *([len(names)] if printed else []))


# --- words -------------------------------------------------------------------------------------------------------------------


def _caption(section: Section, changes: Sequence[_Change]) -> tuple[str, ...]:
    changed = "change: difference in points from the smallest to the largest budget, paired over seeds"
    if any(change.mean is not None and change.mean.low is not None for change in changes):
        changed += ", with its 95 % interval"
    table = paper().classes
    theirs = f"paper: {table.method} on CIFAR-10, as printed ({paper().common})."
    found = beside(section)
    if found is not None and found.why_not:
        theirs += f" {short_name(section.dataset)} is not CIFAR-10: {found.why_not}."
    return (
        wording.protocol_in_words(section),
        "Test accuracy of every class in %, mean ± standard deviation; seeds: how many.",
        *([f"{changed}."] if changes else []),
        *(["Bold: the best mean of a class at a budget."] if len(section.seeds) > 1 else []),
        theirs if _has_its_classes(section) else about_paper(section, None, "Table 1"),
    )


def _findings(changes: Sequence[_Change], names: Sequence[str]) -> list[str]:
    """For every way of choosing the classes that gain, and those of which no gain is shown."""
    flat = [None if one is None else one.p for change in changes for one in change.classes]
    corrected = iter(holm(flat))
    count = sum(one is not None for one in flat)
    found = []
    for change in changes:
        outcomes: dict[str, list[str]] = {}
        for name, difference in zip(names, change.classes, strict=False):
            p = next(corrected)
            if difference is not None:
                outcome = verdict(difference, change.first.label, p).partition(" (")[0]
                outcomes.setdefault(outcome, []).append(f"{name} {render.difference(difference).partition(' ')[0]}")
        where = f"{change.line.name}, {change.first.label} to {change.last.label}"
        if list(outcomes) == [ONE_SEED]:
            found.append(f"{where}: {ONE_SEED}.")
            continue
        told = [f"{outcome}: {', '.join(classes)}" for outcome, classes in outcomes.items()]
        found.append(f"{where}: {'; '.join(told)} (paired t tests, Holm over {count} comparisons).")
    return found


def _short(section: Section, lines: Sequence[Line]) -> list[str]:
    return wording.seeds_short([(line.name, row) for line in lines for row in line.rows.values()], section)
