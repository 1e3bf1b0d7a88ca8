"""Accuracy against the budget: one line for every row of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dqas_plugin.bench.figures.canvas import COLOURS, MARKERS, Floats, Picture, caption, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dqas_plugin.bench.table import Row, Section
    from dqas_plugin.bench.tables.lines import Line

_HEIGHT = 3.8  # inches
_APART = 0.006  # of the axis, between two curves
_SPREAD = 0.04  # of the axis, at most between the first and the last
_STYLES: Sequence[Any] = ("--", "-.", ":", (0, (9, 3)), (0, (5, 1, 1, 1, 1, 1)), (0, (1, 4)))
"""Of lines, by what is added to a method."""
_LONG = 30  # characters of a name, beyond which two of them fill the width


def picture(section: Section, lines: Sequence[Line]) -> Picture:
    """Marker and colour tell the method, line and filling what is added to it.

    Args:
        section: the table.
        lines: of it.
    """
    columns = 2 if max(len(line.name) for line in lines) > _LONG else 3
    rows = [row for line in lines for row in line.rows.values()]

    def draw(figure: Figure) -> Sequence[Axes]:
        ax = figure.subplots()
        for line, look, shift in zip(lines, _looks(lines), _shifts(rows, len(lines)), strict=True):
            budgets = sorted(line.rows)
            mean, spread = percent([line.rows[budget].accuracy for budget in budgets])
            points(ax, [shift * budget for budget in budgets], mean, spread, label=line.name, **look)
        _axis(ax, rows)
        return [ax]

    return Picture("Accuracy against the budget", caption(section, rows), _HEIGHT, draw, columns)


def _looks(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """How to draw each of them."""
    bases = [next(iter(line.rows.values())).base for line in lines]
    added = [line.name.removeprefix(base) for line, base in zip(lines, bases, strict=True)]
    methods, additions = list(dict.fromkeys(bases)), list(dict.fromkeys(one for one in added if one))
    found = []
    for base, more in zip(bases, added, strict=True):
        place = methods.index(base)
        colour = COLOURS[place % len(COLOURS)]
        style = _STYLES[additions.index(more) % len(_STYLES)] if more else "-"
        fill = "white" if more else colour
        marker = MARKERS[place % len(MARKERS)]
        found.append({"marker": marker, "linestyle": style, "color": colour, "markerfacecolor": fill})
    return found


def _shifts(rows: Sequence[Row], count: int) -> Floats:
    """Factors for the budgets of each curve, so that bars of error stand beside one another, ``[count]``."""
    budgets = [row.budget for row in rows]
    widest = np.log(max(budgets) / min(budgets)) * min(_APART * (count - 1), _SPREAD)
    return np.asarray(np.exp(np.linspace(-widest / 2, widest / 2, count)))


def _axis(ax: Axes, rows: Sequence[Row]) -> None:
    """Budgets on a logarithmic axis, each with its name."""
    labels = {row.budget: row.label for row in rows}
    ax.set_xscale("log")
    ax.set_xticks(list(labels), list(labels.values()))
    ax.set_xticks([], minor=True)
    ax.set_xlabel("budget: share of the training set" if all(one.endswith("%") for one in labels.values()) else "budget")
    ax.set_ylabel("accuracy in %, mean over classes")
