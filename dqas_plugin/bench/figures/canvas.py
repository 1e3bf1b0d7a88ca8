"""What all figures share: the size, the look, the caption, and files that are the same whenever they are made.

Figures are matplotlib objects without pyplot: nothing of this process is changed, whatever settings its user has.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.figure import Figure

from dqas_plugin.bench import render
from dqas_plugin.bench.evidence import short_name
from dqas_plugin.bench.figures import check_ending
from dqas_plugin.paths import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dqas_plugin.bench.statistics import Summary
    from dqas_plugin.bench.table import Row, Section

Floats = npt.NDArray[np.float64]

WIDTH = 8.0  # inches
MARKERS = "os^DvPX*<>hdp"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#8a4a78", "#000000", "#b07d00", "#4a90c2")
"""Of Okabe and Ito, darker where they were too light for lines; 13 markers and 7 colours repeat together after 91."""

CLASSES_A_LINE = 25

_LINE = 125  # characters of a caption
_LINE_HEIGHT = 0.16  # inches
_ENTRY_HEIGHT = 0.19  # inches, of a line of the legend
_TITLE_HEIGHT = 0.32  # inches
_SETTINGS: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "lines.markersize": 5,
    "lines.linewidth": 1.3,
    "errorbar.capsize": 2,
    "pdf.fonttype": 42,
    "svg.hashsalt": "dqas",
    "savefig.dpi": 150,
    "text.parse_math": False,  # a name may hold a dollar
}
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What matplotlib writes into a file unasked: when it was made, and by which version."""


@dataclass(frozen=True)
class Picture:
    """A figure that has not been drawn yet.

    Attributes:
        title: what it shows.
        caption: how that was measured.
        height: of the axes, in inches.
        draw: puts axes into an empty figure, and gives those whose labels the legend explains.
        columns: of the legend.
    """

    title: str
    caption: str
    height: float
    draw: Callable[[Figure], Sequence[Axes]]
    columns: int

    def drawn(self) -> Figure:
        """The figure, with title, legend and caption."""
        with _look():
            return self._drawn()

    def _drawn(self) -> Figure:
        """From top to bottom: title, axes, legend, caption, each of a known height.

        The layout engine that finds heights by itself solves equations in an order that differs from run to run, and so its
        results do, in the last digit.
        """
        figure = Figure()
        entries = [entry for axes in self.draw(figure) for entry in zip(*axes.get_legend_handles_labels(), strict=True)]
        caption = [line for part in self.caption.split("\n") for line in textwrap.wrap(part, _LINE)]
        below = _LINE_HEIGHT * (len(caption) + 1)
        legend = _ENTRY_HEIGHT * (-(-len(entries) // self.columns) + 1)
        height = _TITLE_HEIGHT + self.height + legend + below
        figure.set_size_inches(WIDTH, height)
        figure.text(0.01, 1 - 0.1 / height, self.title, va="top", weight="bold", fontsize=10)
        figure.text(0.01, 0.5 * _LINE_HEIGHT / height, "\n".join(caption), va="bottom", fontsize=8, color="0.25")
        handles, labels = [handle for handle, _ in entries], [label for _, label in entries]
        figure.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, below / height), ncols=self.columns)
        figure.tight_layout(rect=(0, (below + legend) / height, 1, 1 - _TITLE_HEIGHT / height), h_pad=0.6)
        figure.align_ylabels()
        return figure


def save(picture: Picture, path: Path) -> None:
    """Draw and write it, in the format of the name's ending; equal results give equal bytes with one matplotlib.

    Raises:
        UserError: for another ending, or a folder that cannot be written.
    """
    check_ending(path)
    ending = path.suffix.lower()
    named = {} if ending == ".png" else {"Title": picture.title}
    drawn = BytesIO()  # written at once: matplotlib meets a full disk with an error of its own
    with _look():
        picture.drawn().savefig(drawn, format=ending[1:], metadata={**_METADATA[ending], **named})
    with atomic_file(path) as temporary:
        temporary.write_bytes(drawn.getvalue())


@contextmanager
def _look() -> Iterator[None]:
    """Inside, matplotlib's own defaults with ours on top; afterwards the settings are as before."""
    with style.context(["default", _SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it, as everybody can see
        yield


def caption(section: Section, rows: Iterable[Row], *more: str) -> str:
    """Dataset, network, recipe and seeds of what is shown, how accuracies were taken, and more sentences."""
    shown = list(rows)
    seeds = tuple(sorted({seed for row in shown for seed in row.seeds}))
    told = [render.caption(replace(section, dataset=short_name(section.dataset), seeds=seeds)) + "."]
    counts = sorted({len(row.seeds) for row in shown})
    spread = "" if counts == [1] else "; mean and standard deviation over seeds"
    when = (
        "after the last epoch" if section.epoch == "last" else f"of the {section.epoch} epoch, which is chosen on test labels"
    )
    told.append(f"Test accuracy {when}{spread}.")
    if len(counts) > 1:
        told.append(f"Not all seeds are finished: points stand for {counts[0]} to {counts[-1]} of them.")
    return "\n".join([*told, *more])


def percent(values: Sequence[Summary | None]) -> tuple[Floats, Floats]:
    """Means and standard deviations in %, float64 ``[n]`` each; NaN where there is none."""
    means = [np.nan if one is None else 100 * one.mean for one in values]
    spreads = [np.nan if one is None or one.std is None else 100 * one.std for one in values]
    return np.array(means), np.array(spreads)


def names_of(section: Section) -> list[str]:
    """Names of the classes; their numbers where they have none."""
    return list(section.class_names) or [str(label) for label in range(section.classes)]


def lines_of(classes: int) -> list[slice]:
    """The classes of each line of axes, where there are too many for one: about as many in each."""
    count = -(-classes // CLASSES_A_LINE)
    edges = np.linspace(0, classes, count + 1).round().astype(int)
    return [slice(int(start), int(end)) for start, end in pairwise(edges)]


def label_classes(axes: Axes, names: Sequence[str], longest: int = 6) -> None:
    """Class names below an axis with one place a class; slanted if they are long."""
    slanted = len(names) > 15 or any(len(name) > longest for name in names)
    how: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(names)), names, **how)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="x", length=0)


def points(axes: Axes, x: Any, means: Floats, spreads: Floats, **look: Any) -> Any:
    """Markers with error bars of one standard deviation, where there is one; the handle for a legend."""
    bars = None if np.isnan(spreads).all() else spreads
    return axes.errorbar(x, means, yerr=bars, elinewidth=0.8, **look)
