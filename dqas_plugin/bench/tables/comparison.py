"""Tables 2 to 4: ways of choosing down the side, budgets across, each compared with another one over the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dqas_plugin.bench.paper import Comparison, PaperRow
from dqas_plugin.bench.reproduce import commands
from dqas_plugin.bench.statistics import ONE_SEED, Difference, holm, verdict
from dqas_plugin.bench.table import KEPT_EVEN, SAME, Row, Section
from dqas_plugin.bench.tables import wording
from dqas_plugin.bench.tables.beside import (
    Beside,
    Footnotes,
    about_paper,
    beside,
    budget_of_ratio,
    comparison_of,
    row_of,
)
from dqas_plugin.bench.tables.lines import Line, budgets_of
from dqas_plugin.bench.tables.parts import Head, Table, Value

Place = tuple[int, int]
"""Number of the line, and budget."""


@dataclass(frozen=True)
class Plan:
    """What a comparison is of.

    Attributes:
        number: of the table in the paper.
        title: of ours.
        than: what lines are compared with, in words.
        head: of the column of differences.
        against: the difference of a line at a budget; None where there is none.
    """

    number: int
    title: str
    than: str
    head: str
    against: Callable[[Line, Row], Difference | None]


class _Contents:
    """All that the table of a section shows, before it is put into columns."""

    def __init__(self, section: Section, plan: Plan, lines: Sequence[Line]) -> None:
        self.section, self.plan, self.lines = section, plan, lines
        self.beside: Beside | None = beside(section)
        self.paper: Comparison | None = comparison_of(plan.number, self.beside)
        self.measured = budgets_of(section)
        self.printed: dict[int, float] = {}  # ratio of the paper by budget
        if self.paper is not None:
            self.printed = {budget_of_ratio(ratio, section): ratio for ratio in self.paper.ratios}
        known = {budget: f"{ratio:g} %" for budget, ratio in self.printed.items()} | self.measured
        self.budgets = dict(sorted(known.items()))
        self.differences = self._differences()
        places = list(self.differences)
        self.places: dict[int, list[Place]] = {}  # by budget
        for one in places:
            self.places.setdefault(one[1], []).append(one)
        self.corrected = dict(zip(places, holm([self.differences[one].p for one in places]), strict=True))

    def _differences(self) -> dict[Place, Difference]:
        found = {}
        for place, line in enumerate(self.lines):
            for budget, row in line.rows.items():
                against = self.plan.against(line, row)
                if against is not None:
                    found[place, budget] = against
        return found

    def columns(self, budget: int) -> list[str]:
        """What is shown of a budget."""
        heads = ["accuracy"]
        heads += ["paper"] if budget in self.printed else []
        here = self.places.get(budget, [])
        heads += [self.plan.head] if here else []
        return heads + (["p"] if any(self.corrected[place] is not None for place in here) else [])

    def column(self, budget: int, head: str, rows: Sequence[PaperRow | None]) -> list[Value]:
        """One value for each line, and then for each row that only the paper has."""
        extra = len(rows) - len(self.lines)
        own = [line.rows.get(budget) for line in self.lines]
        if head == "accuracy":
            summaries = [None if row is None else row.accuracy for row in own]
            shown = [wording.accuracy(one, bold) for one, bold in zip(summaries, wording.best(summaries), strict=True)]
        elif head == "paper":
            return self._printed(self.printed[budget], rows)
        else:
            shown = [self._compared(place, budget, head) for place in range(len(self.lines))]
        return shown + [wording.EMPTY] * extra

    def _printed(self, ratio: float, rows: Sequence[PaperRow | None]) -> list[Value]:
        assert self.paper is not None
        figures = [None if row is None else row.figures.get(ratio) for row in rows]
        highest = max((one for one in figures if one is not None), default=None)
        return [wording.published(one, self.paper.decimals, one is not None and one == highest) for one in figures]

    def _compared(self, place: int, budget: int, head: str) -> Value:
        found, row = self.differences.get((place, budget)), self.lines[place].rows.get(budget)
        if found is None or row is None:
            return wording.EMPTY
        return wording.p_value(self.corrected[place, budget]) if head == "p" else wording.difference(found, row.measure)


def comparison(section: Section, plan: Plan, lines: Sequence[Line], results: Path | str) -> Table:
    """The table of a section.

    Args:
        section: that the lines are of.
        plan: what is compared.
        lines: down the side, in this order; those that were not measured are told as missing.
        results: folder of the results, for the commands.
    """
    contents = _Contents(section, plan, lines)
    rows, labels, footnotes = _labels(contents)
    heads = [Head("method", label=True), *([Head("in the paper", label=True)] if contents.paper else [])]
    columns = list(labels)
    for budget, label in contents.budgets.items():
        for head in contents.columns(budget):
            heads.append(Head(head, f"{label} ({budget:,})"))
            columns.append(contents.column(budget, head, rows))
    absent = [cell for line in lines for cell in line.missing(contents.budgets, section.seeds)]
    return Table(
        title=plan.title,
        caption=_caption(contents),
        protocol=wording.protocol(section),
        heads=tuple(heads),
        rows=tuple(zip(*columns, strict=True)),
        findings=_findings(contents),
        footnotes=tuple(footnotes),
        commands=tuple(map(str, commands(absent, results))),
    )


def _labels(contents: _Contents) -> tuple[list[PaperRow | None], list[list[Value]], list[str]]:
    """The paper's row of each line, then those that no line has; the columns that name the rows; footnotes."""
    names = [Value(line.name) for line in contents.lines]
    if contents.paper is None or contents.beside is None:
        return [None] * len(names), [names], []
    printed = contents.paper.rows
    rows = [row_of(printed, line.method, line.variant, line.detail) for line in contents.lines]
    alone = [row for row in printed if row.method is None]
    notes = Footnotes(contents.plan.number, contents.beside.dataset.key)
    theirs = [wording.EMPTY if row is None else Value(row.label, marks=notes.of(row.name)) for row in (*rows, *alone)]
    return [*rows, *alone], [names + [wording.EMPTY] * len(alone), theirs], notes.texts


def _caption(contents: _Contents) -> tuple[str, ...]:
    plan, count = contents.plan, len([one for one in contents.corrected.values() if one is not None])
    compared = f"{plan.head}: difference in points to {plan.than}, paired over seeds"
    if count:
        tests = f", corrected for the {count} comparisons of the table (Holm)" if count > 1 else ""
        compared += f", with its 95 % interval; p: two-sided paired t test{tests}"
    return (
        wording.protocol_in_words(contents.section),
        wording.OURS,
        *([f"{compared}."] if contents.differences else []),
        *([wording.BOLD] if len(contents.section.seeds) > 1 or contents.paper else []),
        about_paper(contents.section, contents.beside if contents.paper else None, f"Table {plan.number}"),
    )


def _findings(contents: _Contents) -> tuple[str, ...]:
    """One sentence for each budget and outcome, and one on rows with fewer seeds."""
    found = []
    for budget, label in contents.budgets.items():
        outcomes = _outcomes(contents, budget)
        if list(outcomes) == [ONE_SEED]:
            outcomes = {ONE_SEED: ["nothing is claimed"]}
        found += [f"{label}: {outcome}: {', '.join(names)}." for outcome, names in sorted(outcomes.items(), key=_order)]
    rows = [(line.name, row) for line in contents.lines for row in line.rows.values()]
    return (*found, *wording.seeds_short(rows, contents.section))


def _outcomes(contents: _Contents, budget: int) -> dict[str, list[str]]:
    """The lines of each outcome, with their p values."""
    found: dict[str, list[str]] = {}
    for place, line in enumerate(contents.lines):
        against = contents.differences.get((place, budget))
        if against is None:
            continue
        same = line.rows[budget].verdict if line.rows[budget].verdict in (KEPT_EVEN, SAME) else ""
        told = verdict(against, contents.plan.than, contents.corrected[place, budget])
        outcome, _, p = (same or told).partition(" (")
        found.setdefault(outcome, []).append(f"{line.name} ({p}" if p else line.name)
    return found


def _order(outcome: tuple[str, object]) -> int:
    words = ("better", "worse", "not better")
    return next((place for place, word in enumerate(words) if outcome[0].startswith(word)), len(words))


def by_method(lines: Sequence[Line]) -> Mapping[str, list[Line]]:
    """Lines of each method, in their order."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.method, []).append(line)
    return found
