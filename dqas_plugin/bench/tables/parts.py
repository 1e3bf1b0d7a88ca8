"""What a table of the evidence is made of: text and numbers, without any layout (that is :mod:`dqas_plugin.bench.layout`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Number = float | int


@dataclass(frozen=True)
class Head:
    """The head of a column.

    Attributes:
        text: what the column holds.
        group: what its neighbours with the same group have in common, such as a budget; they stand under it, and stay together
            where a wide table is cut, if they fit. Empty: the column stands alone.
        label: it names the rows, and is repeated where a wide table is cut.
    """

    text: str
    group: str = ""
    label: bool = False

    @property
    def name(self) -> str:
        """Group and text in a line."""
        return " ".join(part for part in (self.group, self.text) if part)


@dataclass(frozen=True)
class Value:
    """One cell.

    Attributes:
        text: as people read it.
        bold: it is the best of its column.
        missing: it should be there and is not; the text says so.
        marks: numbers of the footnotes that belong to it, from 1.
        numbers: the same for programs, by name: ``mean``, ``std``, ``n``, ``p`` …, not rounded.
    """

    text: str = ""
    bold: bool = False
    missing: bool = False
    marks: tuple[int, ...] = ()
    numbers: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table with all that is said around it.

    Attributes:
        title: what is compared.
        caption: sentences: the protocol, and what the numbers are.
        protocol: what all numbers have in common, by name: dataset, model, recipe …
        heads: of the columns.
        rows: as many values in each as there are heads.
        rules: numbers of the rows, from 0, above which a line is drawn.
        findings: sentences: what the numbers show, and what they do not.
        footnotes: sentences that values refer to by their marks.
        commands: lines for a shell that fill what is missing.
    """

    title: str
    caption: tuple[str, ...]
    protocol: Mapping[str, str]
    heads: tuple[Head, ...]
    rows: tuple[tuple[Value, ...], ...]
    rules: tuple[int, ...] = ()
    findings: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def incomplete(self) -> bool:
        """Whether something is missing."""
        return any(value.missing for row in self.rows for value in row)
