"""What each comparison with even counts shows, corrected for their number, as a table with a picture of every interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dqas_plugin.bench import render
from dqas_plugin.bench.report.markup import Html, tag
from dqas_plugin.bench.report.numbers import budget
from dqas_plugin.bench.report.sortable import Column, Entry, table
from dqas_plugin.bench.statistics import Difference, holm, told_p, verdict
from dqas_plugin.bench.table import KEPT_EVEN, SAME, Row, Section

BETTER, WORSE, UNDECIDED = "better than uniform", "worse than uniform", "not better than uniform"
NOTHING_SAID = ("one seed, no verdict", "no spread, no verdict")

_WIDTH, _HEIGHT, _MARGIN = 140, 16, 6  # of the picture of an interval, in pixels


class Judged(NamedTuple):
    """A row, and what its comparison with even counts shows.

    Attributes:
        row: the row.
        against: the difference.
        p: corrected for the number of comparisons in the table; None where there is no test.
        verdict: as :mod:`dqas_plugin.bench.statistics` words it.
    """

    row: Row
    against: Difference
    p: float | None
    verdict: str


class _Mark(NamedTuple):
    """How a verdict is shown: a shape and a word, and a colour (by its class) besides."""

    sign: str
    word: str
    name: str


_MARKS = {
    BETTER: _Mark("▲", "better", "good"),
    WORSE: _Mark("▼", "worse", "bad"),
    UNDECIDED: _Mark("○", "no clear difference", "open"),
    KEPT_EVEN: _Mark("=", "kept even counts", "same"),
    SAME: _Mark("=", "same selection", "same"),
    **{one: _Mark("?", one, "open") for one in NOTHING_SAID},
}


def judged(section: Section) -> list[Judged]:
    """The comparisons of a table, in its order; their p values are corrected by Holm's method."""
    found = [(row, row.versus_uniform) for row in section.rows if row.versus_uniform is not None]
    corrected = holm([against.p for _, against in found])
    return [
        Judged(row, against, p, row.verdict if p is None else verdict(against, p=p).partition(" (")[0])
        for (row, against), p in zip(found, corrected, strict=True)
    ]


def word(said: str) -> str:
    """A verdict as the page words it."""
    return _MARKS[said].word


def mark(said: str) -> Html:
    """Sign and word of a verdict."""
    sign, _, name = _MARKS[said]
    return tag("span", {"class": f"mark {name}"}, tag("span", {"aria-hidden": "true"}, sign), f" {word(said)}")


def tally(found: Iterable[Judged]) -> Html:
    """How often each verdict was found."""
    counts = Counter(one.verdict for one in found)
    items = [tag("li", None, tag("b", None, f"{counts[said]:,}"), " ", mark(said)) for said in _MARKS if counts[said]]
    return tag("ul", {"class": "tally"}, *items)


def note(found: Sequence[Judged]) -> str:
    """How the verdicts were reached."""
    tests = sum(one.p is not None for one in found)
    told = ["Differences are in points of accuracy, against the same method with even class counts, paired over seeds"]
    told += [", with their 95 % interval." if tests else "."]
    if tests > 1:
        told.append(f" p values are corrected for the {tests} comparisons of this table by Holm's method; intervals are not.")
    told.append(
        " A verdict is better or worse where p is below 0.05." if tests else " A verdict takes several seeds that differ."
    )
    return "".join(told)


def verdicts(found: Sequence[Judged]) -> Html:
    """The table of all comparisons."""
    ends = [0.0] + [end for one in found for end in (one.against.mean, one.against.low, one.against.high) if end is not None]
    span = (min(ends), max(ends))
    columns = [
        Column("method"),
        Column("budget", number=True),
        Column("verdict"),
        Column("difference", number=True, hint="points against even class counts, and the 95 % interval"),
        Column("interval", number=True, hint="the same as a picture; the line is 0; sorted by the lower end"),
        Column("p", number=True, hint="two-sided, of the paired t test, corrected for the number of comparisons"),
        Column("seeds", number=True),
    ]
    return table("Verdicts", columns, [_line(one, span) for one in found], "verdicts")


def _line(one: Judged, span: tuple[float, float]) -> list[Entry]:
    measure = "" if one.row.measure == "mean" else f" ({MEASURES[one.row.measure]})"
    return [
        Entry(one.row.name),
        budget(one.row),
        Entry(mark(one.verdict)),
        Entry(render.difference(one.against) + measure, one.against.mean),
        Entry(_interval(one.against, span), one.against.low),
        Entry("" if one.p is None else told_p(one.p).removeprefix("p = ").removeprefix("p "), one.p),
        Entry(f"{one.against.n}", one.against.n),
    ]


MEASURES = {"mean": "class mean", "worst": "worst class", "natural": "all test images"}
"""What accuracies are taken over."""


def _interval(against: Difference, span: tuple[float, float]) -> Html:
    """Mean and interval on an axis that all rows share."""
    low, high = span
    scale = (_WIDTH - 2 * _MARGIN) / ((high - low) or 1.0)

    def place(value: float) -> str:
        return f"{_MARGIN + (value - low) * scale:.1f}"

    middle = _HEIGHT / 2
    parts = [tag("line", {"class": "zero", "x1": place(0), "x2": place(0), "y1": 0, "y2": _HEIGHT})]
    if against.low is not None and against.high is not None:
        ends = {"x1": place(against.low), "x2": place(against.high), "y1": middle, "y2": middle}
        parts.append(tag("line", {"class": "bar", **ends}))
    parts.append(tag("circle", {"class": "mean", "cx": place(against.mean), "cy": middle, "r": 3.5}))
    size = {"width": _WIDTH, "height": _HEIGHT, "viewBox": f"0 0 {_WIDTH} {_HEIGHT}"}
    return tag("svg", {"class": "interval", "aria-hidden": "true", **size}, *parts)
