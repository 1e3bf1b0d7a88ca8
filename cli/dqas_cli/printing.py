"""Plain tables for the terminal: aligned columns, no wrapping, the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from dqas_plugin.told import visible


def aligned(header: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Rows under a header, columns two spaces apart; the columns numbered in ``right`` are flush right."""
    cells = [[visible(str(one)) for one in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (
            one.rjust(width) if column in right else one.ljust(width)
            for column, (one, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in cells)


def size(count: int) -> str:
    """Bytes for people: ``12.3 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
