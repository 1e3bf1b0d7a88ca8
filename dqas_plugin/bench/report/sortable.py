"""Tables whose columns can be sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dqas_plugin.bench.report.markup import Html, tag


@dataclass(frozen=True)
class Column:
    """The head of a column.

    Attributes:
        text: what the column holds.
        number: it is sorted by number, and the highest come first.
        hint: a longer word on it.
    """

    text: str
    number: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Entry:
    """A cell.

    Attributes:
        text: as people read it, or markup.
        value: what a column of numbers is sorted by; cells without it stay last.
    """

    text: str
    value: float | None = None


def table(label: str, columns: Sequence[Column], rows: Sequence[Sequence[Entry]], name: str = "") -> Html:
    """A table in a box that scrolls sideways by itself, where the page is too narrow.

    Args:
        label: what the table shows, for those who do not see it.
        columns: their heads.
        rows: as many entries in each; the first names the row.
        name: of a class.
    """
    heads = [tag("th", {"scope": "col", "data-number": one.number, "title": one.hint or None}, one.text) for one in columns]
    body = [
        tag(
            "tr",
            None,
            *(_cell(entry, column, place == 0) for place, (entry, column) in enumerate(zip(row, columns, strict=True))),
        )
        for row in rows
    ]
    whole = tag(
        "table",
        {"class": f"sortable {name}".rstrip(), "aria-label": label},
        tag("thead", None, tag("tr", None, *heads)),
        tag("tbody", None, *body),
    )
    return tag("div", {"class": "scroll", "role": "region", "tabindex": 0, "aria-label": label}, whole)


def _cell(entry: Entry, column: Column, first: bool) -> Html:
    attributes = {
        "scope": "row" if first else None,
        "class": "number" if column.number else None,
        "data-sort": None if entry.value is None else repr(float(entry.value)),
    }
    return tag("th" if first else "td", attributes, entry.text)
