"""Which lines of a table a figure shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dqas_plugin.bench.evidence import short_name
from dqas_plugin.bench.grid import Cell
from dqas_plugin.bench.reproduce import commands
from dqas_plugin.bench.table import Row, Section, even_counts
from dqas_plugin.bench.tables.lines import AS_ADAPTIVE, Line, budgets_of, lines_of
from dqas_plugin.budget import budget_of
from dqas_plugin.errors import UserError, nearest


@dataclass(frozen=True)
class Results:
    """What is finished of one table.

    Attributes:
        section: the table.
        folder: where it comes from.
        lines: each with one row at least.
    """

    section: Section
    folder: Path
    lines: Sequence[Line]

    @classmethod
    def of(cls, sections: Sequence[Section], folder: Path | str) -> Results:
        """Those of the only table.

        Raises:
            UserError: if there are several.
        """
        if len(sections) != 1:
            tables = "; ".join(f"{short_name(one.dataset)}, {one.model}, recipe {one.recipe}" for one in sections)
            raise UserError(
                f"{folder} has {len(sections)} tables ({tables}) and a figure shows one: choose it with --dataset, --model or "
                "--recipe, or give results that differ in something else a folder of their own"
            )
        rows = tuple(row for row in sections[0].rows if row.accuracy is not None)
        finished = replace(sections[0], rows=rows)
        return cls(finished, Path(folder), lines_of(finished))

    def at_all_budgets(self, method: str | None) -> Line:
        """What figure 1 shows: one line.

        Args:
            method: any name that it goes by; None: the first at even counts with two budgets, ``random`` only where there is no
                other.

        Raises:
            UserError: if there is none, or it has one budget only.
        """
        alike = self._called(method)
        even = [line for line in alike if not line.variant] or alike
        if method is None:
            chosen = min(even, key=lambda line: (len(line.rows) < 2, line.method == "random"))
        else:
            exact = [line for line in alike if line.name == method]
            chosen = _only(exact or even, "figure 1 shows one line")
        if len(chosen.rows) < 2:
            told = f"figure 1 needs {chosen.name} at two budgets, and there is {self._told(chosen)} only"
            raise UserError(f"{told}: run {self._command([chosen], **self._another())}")
        return chosen

    def even_and_adaptive(self, method: str | None, ratio: float | None, aipc: float | None) -> tuple[Row, Row]:
        """What figure 3 compares: a method at even class counts, and at those of an allocator.

        Args:
            method: any name that it goes by; None: the first that has both. Of several allocators ``adaptive`` is taken.
            ratio: the budget; the largest if neither is given.
            aipc: the same in average images per class.

        Raises:
            UserError: if either row is missing.
        """
        alike = self._called(method)
        uneven = sorted((line for line in alike if line.cell.allocator != "uniform"), key=_unusual)
        if not uneven:
            line = min(alike, key=lambda line: line.method == "random")
            command = self._command([line], **AS_ADAPTIVE)
            raise UserError(f"figure 3 needs {line.method} with adaptive class counts: run {command}")
        if method is not None:
            uneven = [line for line in uneven if method in (line.name, _base(line))] or uneven
            _only(list({_base(line): line for line in uneven}.values()), "figure 3 shows one method")
        adaptive = self._at(uneven[0], ratio, aipc)
        even = self.section.even(adaptive)
        if even is None:
            wanted = replace(even_counts(adaptive.cell), seed=max(self.section.seeds))
            told = f"figure 3 needs {adaptive.base} with even class counts at {adaptive.label}"
            raise UserError(f"{told}: run {self._commands([wanted])}")
        return even, adaptive

    def all_of(self, methods: Sequence[str]) -> list[Line]:
        """What the curves show: every line, or those of some methods.

        Raises:
            UserError: if a method is missing, or there is one budget only.
        """
        named = [line for method in methods for line in self._called(method)] or self.lines
        found = list({line.name: line for line in named}.values())
        if len({budget for line in found for budget in line.rows}) < 2:
            even = [line for line in found if not line.variant] or found
            told = f"curves need two budgets, and there is {self._told(found[0])} only"
            raise UserError(f"{told}: run {self._command(even, **self._another())}")
        return found

    def _called(self, method: str | None) -> Sequence[Line]:
        """The lines that go by a name; None means all.

        Raises:
            UserError: if there is none.
        """
        if method is None:
            return self.lines
        found = [line for line in self.lines if method in line.names]
        if not found:
            near = nearest(method, {line.method for line in self.lines} | {row.base for row in self.section.rows})
            command = self._command([replace(self.lines[0], cell=even_counts(self.lines[0].cell, method))])
            raise UserError(f"{self.folder} has no results of '{method}' ({near}): to measure it, run {command}")
        return found

    def _at(self, line: Line, ratio: float | None, aipc: float | None) -> Row:
        """The row at that budget; the largest if none is given."""
        if ratio is None and aipc is None:
            return line.rows[max(line.rows)]
        budget = budget_of(self.section.images, self.section.classes, ratio=ratio, aipc=aipc)
        if budget not in line.rows:
            label = f"{100 * ratio:.6g} %" if ratio is not None else f"{aipc:g} a class"
            told = f"{self.folder} has {line.name} at {self._told(line)}, not at {label}"
            command = self._command([line], budget=budget, label=label)
            raise UserError(f"{told}: choose one of these, or run {command}")
        return line.rows[budget]

    def _told(self, line: Line) -> str:
        """Its budgets, in words."""
        return ", ".join(line.rows[budget].label for budget in sorted(line.rows))

    def _another(self) -> dict[str, Any]:
        """Fields of cells at another budget than the largest: twice as many images, or half as many where there are too few."""
        largest = max(budgets_of(self.section))
        budget = 2 * largest if 2 * largest <= self.section.images else largest // 2
        return {"budget": budget, "label": f"{100 * budget / self.section.images:.6g} %"}

    def _command(self, lines: Sequence[Line], **changes: Any) -> str:
        """The ``dqas bench`` command for lines like these, at all budgets of the table unless one of ``changes`` is another."""
        budgets: list[dict[str, Any]] = [
            {"budget": budget, "label": label} for budget, label in budgets_of(self.section).items()
        ]
        if "budget" in changes:
            budgets = [{}]
        cells = [replace(line.cell, **one, **changes, seed=max(self.section.seeds)) for line in lines for one in budgets]
        return self._commands(cells)

    def _commands(self, cells: Sequence[Cell]) -> str:
        return " && ".join(str(one) for one in commands(cells, self.folder))


def _unusual(line: Line) -> tuple[bool, bool, bool]:
    """What comes last where figure 3 may choose: ``random``, and what ``--adaptive`` does not mean."""
    return line.method == "random", line.cell.allocator != "adaptive", line.cell.refiner is None


def _base(line: Line) -> str:
    return next(iter(line.rows.values())).base


def _only(lines: Sequence[Line], told: str) -> Line:
    """The only one of the lines.

    Raises:
        UserError: if there are several.
    """
    if len(lines) > 1:
        listed = " or ".join(f"'{line.name}'" for line in lines)
        raise UserError(f"{told}, and several are called so: choose with --method {listed}")
    return lines[0]
