"""Reading tables of the evidence in tests."""

from __future__ import annotations

from dqas_plugin.bench import Table
from dqas_plugin.bench.tables import Value

Cells = dict[str, dict[str, Value]]


def cells(table: Table) -> Cells:
    """Values by the labels of their row, with `` | `` between them, and the name of their column."""
    found: Cells = {}
    for row in table.rows:
        assert len(row) == len(table.heads)
        pairs = list(zip(table.heads, row, strict=True))
        name = " | ".join(value.text for head, value in pairs if head.label and value.text)
        assert name not in found
        found[name] = {head.name: value for head, value in pairs if not head.label}
    return found


def texts(table: Table) -> dict[str, dict[str, str]]:
    """The same as text, without what is empty."""
    return {name: {head: one.text for head, one in row.items() if one.text} for name, row in cells(table).items()}
