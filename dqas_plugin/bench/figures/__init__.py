"""Figures of a folder of results: 1 and 3 of the paper, and accuracy against the budget for every method.

picture = figure("3", read("dqas-results"), "dqas-results", methods=["graphcut"], ratio=0.1)
save(picture, Path("figure-3.svg"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqas_plugin.errors import UserError, unknown_name

if TYPE_CHECKING:
    from dqas_plugin.bench.figures.canvas import Picture
    from dqas_plugin.bench.table import Section

FIGURES = {
    "1": "accuracy of every class at every budget, of one method",
    "3": "class counts and accuracies of a method, adaptive and even",
    "curves": "accuracy against the budget, of all methods",
}
"""What there is to draw: 1 and 3 are those of the paper."""

ENDINGS = (".png", ".svg", ".pdf")
"""File formats, by the end of the name."""


def figure(
    name: str,
    sections: Sequence[Section],
    folder: Path | str,
    *,
    methods: Sequence[str] = (),
    ratio: float | None = None,
    aipc: float | None = None,
) -> Picture:
    """The figure of that name.

    Args:
        name: one of :data:`FIGURES`.
        sections: of :func:`dqas_plugin.bench.evidence.read`; there must be one.
        folder: where they come from, for messages.
        methods: which to show, as tables name them, without or with what is added to them; none: figures 1 and 3 take the
            first that will do, ``curves`` takes all.
        ratio: the budget of figure 3, as a share of the training set.
        aipc: the same as average images per class.

    Raises:
        UserError: for an unknown figure or method, several tables, options of another figure, or results that are missing:
            with the command that measures them.
    """
    if name not in FIGURES:
        raise unknown_name("figure", name, FIGURES)
    _check_options(name, methods, ratio, aipc)
    from dqas_plugin.bench.figures import by_budget, by_class, by_fraction
    from dqas_plugin.bench.figures.choosing import Results

    results = Results.of(sections, folder)
    wanted = next(iter(methods), None)
    if name == "curves":
        return by_budget.picture(results.section, results.all_of(methods))
    if name == "1":
        return by_fraction.picture(results.section, results.at_all_budgets(wanted))
    return by_class.picture(results.section, *results.even_and_adaptive(wanted, ratio, aipc))


def check_ending(path: Path) -> None:
    """Refuse a file name that does not say which format is meant.

    Raises:
        UserError: with the endings that do.
    """
    if path.suffix.lower() not in ENDINGS or path.is_dir():
        raise UserError(f"{path}: give a file that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, which is the format")


def _check_options(name: str, methods: Sequence[str], ratio: float | None, aipc: float | None) -> None:
    if ratio is not None and aipc is not None:
        raise UserError("ratio and aipc exclude each other: give one of them")
    if name != "3" and (ratio, aipc) != (None, None):
        raise UserError(f"ratio and aipc choose the budget of figure 3, and figure {name} shows all: leave them out")
    if name != "curves" and len(methods) > 1:
        raise UserError(f"figure {name} shows one method, not {', '.join(methods)}: name one, or draw the figure curves")


def __getattr__(name: str) -> Any:
    """``save``, on first use: matplotlib takes a while to import."""
    if name != "save":
        raise AttributeError(f"module 'dqas_plugin.bench.figures' has no attribute '{name}'")
    from dqas_plugin.bench.figures.canvas import save

    return save
