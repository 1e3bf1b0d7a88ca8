"""What Tables 2, 3 and 4 compare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dqas_plugin.bench.paper import paper
from dqas_plugin.bench.reproduce import RESULTS
from dqas_plugin.bench.statistics import Difference, paired_difference
from dqas_plugin.bench.table import Row, Section
from dqas_plugin.bench.tables.comparison import Plan, by_method, comparison
from dqas_plugin.bench.tables.lines import Line, lines_of, only, unmeasured
from dqas_plugin.bench.tables.parts import Table

DQ, DQAS = "dq", "dqas"


def table_2(sections: Iterable[Section], results: Path | str = RESULTS, methods: Sequence[str] = ()) -> list[Table]:
    """All methods at all budgets, compared with random images: the paper's rows in its order, then the others.

    Args:
        sections: of :func:`dqas_plugin.bench.evidence.read`; each gets a table.
        results: folder that they come from, for the commands.
        methods: only these, by any name that a row goes by; ``random`` always comes with them.

    Raises:
        UserError: for a method that is neither in the results nor in the paper.
    """
    title = "Table 2: methods at even and adaptive class counts"
    plan = Plan(2, title, "random", "vs random", lambda _, row: row.versus_random)
    chosen = [*methods, "random"] if methods else ()
    return [comparison(one, plan, only(_all_lines(one), chosen), results) for one in sections]


def table_3(sections: Iterable[Section], results: Path | str = RESULTS, methods: Sequence[str] = ()) -> list[Table]:
    """Every method that was measured with adaptive class counts or refinement, with and without: DQAS first.

    Args:
        sections: see :func:`table_2`.
        results: see :func:`table_2`.
        methods: only these.

    Raises:
        UserError: for a method that has no such row.
    """
    plan = Plan(3, "Table 3: adaptive sampling", "even counts", "vs even", lambda _, row: row.versus_uniform)
    return [comparison(one, plan, only(_with_and_without(one), methods), results) for one in sections]


def table_4(sections: Iterable[Section], results: Path | str = RESULTS) -> list[Table]:
    """The pipelines of DQ and DQAS at even class counts.

    Args:
        sections: see :func:`table_2`.
        results: see :func:`table_2`.
    """
    found = []
    for section in sections:
        lines = [line for line in lines_of(section) if line.method in (DQ, DQAS) and not line.variant]
        for method in (DQ, DQAS):
            if not any(line.method == method and not line.detail for line in lines):
                lines.append(unmeasured(section, method))
        lines.sort(key=lambda line: (_whole(line), line.method))
        plan = Plan(4, "Table 4: the pipelines without adaptive sampling", DQ, "vs dq", _ToDq(lines))
        found.append(comparison(section, plan, lines, results))
    return found


class _ToDq:
    """The difference of a line of dqas to that of dq with the same patches."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._dq = {_whole(line): line for line in reversed(lines) if line.method == DQ}

    def __call__(self, line: Line, row: Row) -> Difference | None:
        other = self._dq.get(_whole(line))
        if line.method == DQ or other is None or row.budget not in other.rows:
            return None
        return paired_difference(row.scores, other.rows[row.budget].scores)


def _whole(line: Line) -> str:
    """What is said of patches, without the images that bins are made of: that is what the pipelines differ in."""
    return re.sub(r"(, )?bins on \w+", "", line.detail)


def _all_lines(section: Section) -> list[Line]:
    """The paper's methods in its order, each with all its lines; then the other methods."""
    printed = next(one for (number, _), one in paper().comparisons.items() if number == 2).rows
    there = by_method(lines_of(section))
    found: list[Line] = []
    for row in printed:
        assert row.method is not None
        own = list(there.get(row.method, ()))
        if not any(line.variant == row.variant and not line.detail for line in own):
            own.insert(0, unmeasured(section, row.method, adaptive=bool(row.variant)))
            own.sort(key=lambda line: (line.detail, bool(line.variant)))
        found += own
    known = {row.method for row in printed}
    return found + [line for method, lines in there.items() if method not in known for line in lines]


def _with_and_without(section: Section) -> list[Line]:
    there = dict(by_method(lines_of(section)))
    own = there.pop(DQAS, [])
    for adaptive in (False, True):
        usual = unmeasured(section, DQAS, adaptive)
        if not any(line.variant == usual.variant and not line.detail for line in own):
            own.append(usual)
    own.sort(key=lambda line: (line.detail, bool(line.variant)))
    varied = {line.method for lines in there.values() for line in lines if line.variant}
    return [*own, *(line for method, lines in there.items() if method in varied for line in lines)]
