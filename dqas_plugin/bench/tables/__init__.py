"""The comparisons of the paper, regenerated from a folder of results; the paper's figures stand beside ours.

print(layout.render(build(2, evidence.read("dqas-results")), "md"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dqas_plugin.bench.reproduce import RESULTS
from dqas_plugin.bench.table import Section
from dqas_plugin.bench.tables.comparisons import table_2, table_3, table_4
from dqas_plugin.bench.tables.parts import Head, Table, Value
from dqas_plugin.bench.tables.table_1 import table_1
from dqas_plugin.bench.tables.table_5 import table_5
from dqas_plugin.errors import UserError

__all__ = ["TABLES", "Head", "Table", "Value", "build", "check", "table_1", "table_2", "table_3", "table_4", "table_5"]

TABLES = {
    1: "accuracy of every class at every budget",
    2: "all methods at all budgets",
    3: "with and without adaptive sampling",
    4: "the pipelines of DQ and DQAS without adaptive sampling",
    5: "what every step costs",
}
"""What there is, by number in the paper."""


def check(number: int, methods: Sequence[str] = (), best_epoch: bool = False) -> None:
    """Refuse what a table does not have, before anything is read.

    Raises:
        UserError: for another number; methods for a table that has its own; an epoch for one without accuracies.
    """
    if number not in TABLES:
        raise UserError(f"there is no table {number}: the paper has tables {min(TABLES)} to {max(TABLES)}")
    if methods and number == 4:
        raise UserError(f"table 4 compares dq with dqas, not {', '.join(methods)}: leave the method out")
    if best_epoch and number == 5:
        raise UserError("table 5 has no accuracies, so no best epoch: leave that out")


def build(
    number: int,
    sections: Sequence[Section],
    results: Path | str = RESULTS,
    *,
    methods: Sequence[str] = (),
) -> list[Table]:
    """The table of that number, once for each protocol.

    Args:
        number: 1 to 5.
        sections: of :func:`dqas_plugin.bench.evidence.read`.
        results: folder that they come from, for the commands that fill what is missing.
        methods: only these, by any name that a row goes by.

    Raises:
        UserError: see :func:`check`; an unknown method.
    """
    check(number, methods)
    if number == 4:
        return table_4(sections, results)
    return {1: table_1, 2: table_2, 3: table_3, 5: table_5}[number](sections, results, methods)
