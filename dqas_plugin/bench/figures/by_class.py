"""Figure 3: the class counts that an allocator chose, and what became of the accuracy of every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dqas_plugin.bench import render
from dqas_plugin.bench.figures.canvas import (
    COLOURS,
    Picture,
    caption,
    label_classes,
    lines_of,
    names_of,
    percent,
    points,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dqas_plugin.bench.table import Row, Section

_HEIGHT = 3.8  # inches, of a line of classes
_SHARES = [3, 2]  # of the accuracies and of the counts in it


def picture(section: Section, even: Row, adaptive: Row) -> Picture:
    """Accuracies of both above, counts below, for the same classes.

    Args:
        section: the table.
        even: the row of even class counts.
        adaptive: the same method at the same budget, with an allocator.
    """
    lines = lines_of(section.classes)

    def draw(figure: Figure) -> Sequence[Axes]:
        ratios = _SHARES * len(lines)
        axes = figure.subplots(2 * len(lines), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for number, classes in enumerate(lines):
            above, below = axes[2 * number : 2 * number + 2]
            _accuracies(above, even, adaptive, classes)
            _counts(below, even, adaptive, classes)
            label_classes(below, names_of(section)[classes])
            above.set_xticks(below.get_xticks(), [])
            above.set_xlim(below.get_xlim())
        return [axes[0], axes[1]]

    title = f"Class counts and accuracies: {adaptive.name} at {adaptive.label}"
    told = " ".join(render.sentences(replace(section, rows=(adaptive,))))
    return Picture(title, caption(section, [even, adaptive], told), _HEIGHT * len(lines), draw, columns=2)


def _accuracies(ax: Axes, even: Row, adaptive: Row, classes: slice) -> None:
    looks: list[tuple[Row, str, dict[str, Any]]] = [
        (even, "even counts", {"fmt": "s--", "color": COLOURS[1], "markerfacecolor": "white"}),
        (adaptive, adaptive.variant, {"fmt": "o-", "color": COLOURS[0]}),
    ]
    for shift, (row, name, look) in zip((-0.06, 0.06), looks, strict=True):
        mean, spread = percent(row.classes[classes])
        label = f"accuracy, {name}: {render.summary(row.accuracy)} %"
        points(ax, np.arange(len(mean)) + shift, mean, spread, label=label, **look)
    ax.set_ylabel("accuracy in %")


def _counts(ax: Axes, even: Row, adaptive: Row, classes: slice) -> None:
    chosen = adaptive.counts[classes]
    heights = [one.mean for one in chosen]
    spreads = None if all(one.std is None for one in chosen) else [one.std or 0.0 for one in chosen]
    places = np.arange(len(chosen))
    look: dict[str, Any] = {"width": 0.7, "color": "0.85", "edgecolor": "0.25", "linewidth": 0.8, "hatch": "///"}
    bars = {"elinewidth": 0.8, "capsize": 2}
    ax.bar(places, heights, yerr=spreads, error_kw=bars, label=f"images, {adaptive.variant}", **look)
    level = np.array([one.mean for one in even.counts[classes]])
    edges = np.append(places - 0.5, places[-1] + 0.5)
    ax.stairs(level, edges, baseline=None, color="black", linestyle=":", linewidth=1.5, label="images, even counts")
    ax.set_ylabel("images")
