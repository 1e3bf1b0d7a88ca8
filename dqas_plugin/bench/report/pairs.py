"""What stands beside what: a row with something added, and the row of the same method at even counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dqas_plugin.bench import render
from dqas_plugin.bench.evidence import short_name
from dqas_plugin.bench.table import Row, Section


class Pair(NamedTuple):
    """Two rows of one method and budget."""

    even: Row
    other: Row

    @property
    def title(self) -> str:
        """Method, what is added, and the budget."""
        return f"{self.other.name} at {self.other.label}"


def pairs(section: Section) -> list[Pair]:
    """Every row that is compared with even counts, beside these; in the order of the table."""
    compared = [row for row in section.rows if row.versus_uniform is not None]
    return [Pair(even, row) for row in compared if (even := section.even(row)) is not None and even.accuracy is not None]


def telling(found: Sequence[Pair]) -> Pair | None:
    """The one that is shown first: what ``--adaptive`` means, of another method than ``random``, at the smallest budget."""

    def preference(pair: Pair) -> tuple[bool, bool, bool, int]:
        cell = pair.other.cell
        return cell.method == "random", cell.allocator == "uniform", cell.refiner is None, cell.budget

    return min(found, key=preference, default=None)


def name_of(section: Section, sections: Sequence[Section]) -> str:
    """What the section is called: its dataset, and what else it takes to tell it from the others."""
    alike = [one for one in sections if short_name(one.dataset) == short_name(section.dataset)]
    short = replace(section, dataset=short_name(section.dataset))
    told = [render.dataset(short) if any(one.options != section.options for one in alike) else short.dataset]
    for field in ("model", "recipe", "prior", "device", "images"):
        if len({getattr(one, field) for one in alike}) > 1:
            value = getattr(section, field)
            told.append(f"{value:,} images" if field == "images" else str(value))
    return ", ".join(told)
