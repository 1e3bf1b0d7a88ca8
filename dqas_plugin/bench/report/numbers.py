"""The tables of accuracies and of what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dqas_plugin.bench import render
from dqas_plugin.bench.report.markup import Html
from dqas_plugin.bench.report.sortable import Column, Entry, table
from dqas_plugin.bench.statistics import Difference, Summary
from dqas_plugin.bench.table import SECONDS, Row, Section


def accuracies(section: Section) -> Html:
    """All rows: accuracies after the last step, differences, and images of a class; seeds only where they are not the same."""
    columns = [
        Column("method"),
        Column("budget", number=True, hint="sorted by the number of images"),
        Column("accuracy", number=True, hint="class mean in %, after the last step"),
        Column("vs even", number=True, hint="points against the same method with even class counts"),
        Column("vs random", number=True, hint="points against random images with even class counts"),
        Column("worst class", number=True),
        Column("all images", number=True, hint="all test images alike, in %"),
        Column("best epoch", number=True, hint="class mean of the best evaluation, which is chosen on test labels"),
        Column("a class", number=True, hint="images of the smallest and of the largest class; sorted by the largest"),
    ]
    rows = [_line(row) for row in section.rows]
    if any(row.seeds != section.seeds for row in section.rows):
        columns.append(Column("seeds", number=True))
        for line, row in zip(rows, section.rows, strict=True):
            line.append(Entry(f"{len(row.seeds)}", len(row.seeds)))
    return table("Accuracies", columns, rows)


def _line(row: Row) -> list[Entry]:
    return [
        Entry(row.name),
        budget(row),
        _accuracy(row.accuracy),
        _difference(row.versus_uniform),
        _difference(row.versus_random),
        *(_accuracy(one) for one in (row.worst, row.natural, row.best)),
        Entry(render.spread(row), row.most),
    ]


def budget(row: Row) -> Entry:
    """As the user gave it, and in images."""
    return Entry(f"{row.label} ({row.budget:,})", row.budget)


def _accuracy(value: Summary | None) -> Entry:
    return Entry(render.summary(value), None if value is None else value.mean)


def _difference(value: Difference | None) -> Entry:
    return Entry(render.difference(value), None if value is None else value.mean)


def costs(section: Section) -> Html:
    """Seconds of every step of one training set, mean over seeds."""
    steps = _steps(section.rows)
    columns = [Column("method"), Column("budget", number=True), *(Column(step, number=True) for step in (*steps, "sum"))]
    return table("Seconds", columns, [[Entry(row.name), budget(row), *_seconds(row, steps)] for row in section.rows])


def _steps(rows: Sequence[Row]) -> list[str]:
    return [step for step in SECONDS if any(row.seconds.get(step) for row in rows)]


def _seconds(row: Row, steps: Sequence[str]) -> Iterator[Entry]:
    for value in (*(row.seconds.get(step) for step in steps), sum(row.seconds.values()) if row.seconds else None):
        yield Entry("" if value is None else f"{value:,.1f}", value)
