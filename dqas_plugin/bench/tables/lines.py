"""The rows of a section, put together to lines: one way of choosing, at all its budgets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dqas_plugin.bench.grid import Cell
from dqas_plugin.bench.table import Row, Section, even_counts
from dqas_plugin.defaults import ADAPTIVE
from dqas_plugin.errors import unknown_name

Budgets = Mapping[int, str]
"""Label of every budget in images, the smallest first."""

AS_ADAPTIVE: Mapping[str, Any] = {"allocator": "adaptive", "refiner": ADAPTIVE}
"""Fields of the cells that ``--adaptive`` makes."""


@dataclass(frozen=True)
class Line:
    """One way of choosing.

    Attributes:
        name: method and variant, and whatever else tells it from the other lines.
        cell: one of its cells; budget, label and seed mean nothing.
        rows: by budget; empty for a way that was never measured.
    """

    name: str
    cell: Cell
    rows: Mapping[int, Row] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The selector."""
        return self.cell.method

    @property
    def variant(self) -> str:
        """What is added to it; empty for even counts."""
        return self.cell.variant

    @property
    def detail(self) -> str:
        """What is set otherwise than usual about the method."""
        return self.cell.detail

    @property
    def names(self) -> set[str]:
        """What it may be asked for by: its whole name, that without what is added, and the method."""
        rows = self.rows.values()
        return {self.name, self.method, *(row.name for row in rows), *(row.base for row in rows)}

    def missing(self, budgets: Budgets, seeds: Sequence[int]) -> list[Cell]:
        """A cell for each of these budgets where some of these seeds, ascending, have none: that of the last of them.

        A command that makes it makes all seeds below it, too.
        """
        found = []
        for budget, label in budgets.items():
            there = set(self.rows[budget].seeds) if budget in self.rows else set()
            last = next((seed for seed in reversed(seeds) if seed not in there), None)
            if last is not None:
                found.append(replace(self.cell, budget=budget, label=label, seed=last))
        return found


def lines_of(section: Section) -> list[Line]:
    """All lines of a section: methods in the order of its rows, and within each even counts first."""
    found: dict[str, dict[int, Row]] = {}
    cells: dict[str, Cell] = {}
    for row in section.rows:
        key = json.dumps(_settings(row.cell), sort_keys=True)
        found.setdefault(key, {})[row.budget] = row
        cells.setdefault(key, row.cell)
    names = _names({key: next(iter(rows.values())).name for key, rows in found.items()})
    lines = [Line(names[key], cells[key], rows) for key, rows in found.items()]
    methods = list(dict.fromkeys(line.method for line in lines))
    return sorted(lines, key=lambda line: (methods.index(line.method), line.detail, bool(line.variant)))


def _settings(cell: Cell) -> dict[str, Any]:
    """All that makes it another way of choosing than another cell of its section."""
    configuration = cell.configuration()
    return {name: configuration[name] for name in configuration if name not in _OF_SECTION}


_OF_SECTION = ("dataset", "budget", "label", "model", "recipe", "seed", "device")


def _names(by_key: Mapping[str, str]) -> dict[str, str]:
    """The names, with the settings that differ where several have the same."""
    found = dict(by_key)
    for name in set(by_key.values()):
        alike = {key: json.loads(key) for key in by_key if by_key[key] == name}
        if len(alike) > 1:
            settings = next(iter(alike.values()))
            differing = [one for one in settings if len({json.dumps(each[one]) for each in alike.values()}) > 1]
            for key, settings in alike.items():
                told = ", ".join(f"{one.replace('_', ' ')} {_told(settings[one])}" for one in differing)
                found[key] = f"{name} ({told})"
    return found


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def budgets_of(section: Section) -> dict[int, str]:
    """Every budget that was measured, in order."""
    return dict(sorted({row.budget: row.label for row in reversed(section.rows)}.items()))


def unmeasured(section: Section, method: str, adaptive: bool = False) -> Line:
    """A line without rows: the method at its usual settings, with even counts or as ``--adaptive`` has it."""
    cell = even_counts(even_counts(section.rows[0].cell, "random"), method)
    if adaptive:
        cell = replace(cell, **AS_ADAPTIVE)
    return Line(f"{method} + {cell.variant}" if adaptive else method, cell)


def only(lines: Sequence[Line], methods: Sequence[str]) -> list[Line]:
    """Those of the lines that are asked for by name, or all where none is named.

    Raises:
        UserError: for a name that none of them has.
    """
    known = set().union(*(line.names for line in lines))
    for name in methods:
        if name not in known:
            raise unknown_name("method in these results", name, known)
    return [line for line in lines if not methods or line.names & set(methods)]
