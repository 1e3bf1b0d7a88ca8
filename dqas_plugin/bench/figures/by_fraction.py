"""Figure 1: how the accuracy of every class rises with the budget: which classes have enough images, and which need more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps

from dqas_plugin.bench.figures.canvas import MARKERS, Picture, caption, label_classes, lines_of, names_of, percent, points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dqas_plugin.bench.table import Row, Section
    from dqas_plugin.bench.tables.lines import Line

_HEIGHT = 2.8  # inches, of a line of classes
_WIDTH = 0.6  # of what stands above a class, where classes are 1 apart


def picture(section: Section, line: Line) -> Picture:
    """Above every class one point for each budget, from left to right, and a line through them.

    Args:
        section: the table.
        line: of it.
    """
    lines = lines_of(section.classes)
    rows = [line.rows[budget] for budget in sorted(line.rows)]

    def draw(figure: Figure) -> Sequence[Axes]:
        axes = figure.subplots(len(lines), 1, squeeze=False)[:, 0]
        for ax, classes in zip(axes, lines, strict=True):
            _points(ax, rows, classes, names_of(section)[classes])
        return [axes[0]]

    title = f"Accuracy by class and budget: {line.name}"
    return Picture(title, caption(section, rows), _HEIGHT * len(lines), draw, columns=min(len(rows), 8))


def _points(ax: Axes, rows: Sequence[Row], classes: slice, names: Sequence[str]) -> None:
    values = [percent(row.classes[classes]) for row in rows]
    offsets = np.linspace(-_WIDTH / 2, _WIDTH / 2, len(rows))
    places = np.arange(len(names))
    means = np.stack([one for one, _ in values])  # [budgets, classes]
    ax.plot(places + offsets[:, None], means, color="0.6", linewidth=0.8, zorder=1)
    shades = colormaps["viridis_r"](np.linspace(0.15, 1.0, len(rows)))  # from light to dark in grey, too
    for number, (row, (mean, spread)) in enumerate(zip(rows, values, strict=True)):
        look = {"fmt": MARKERS[number % len(MARKERS)], "color": shades[number], "label": row.label}
        points(ax, places + offsets[number], mean, spread, ecolor="0.4", markeredgecolor="black", markeredgewidth=0.4, **look)
    label_classes(ax, names)
    ax.set_ylabel("accuracy in %")
