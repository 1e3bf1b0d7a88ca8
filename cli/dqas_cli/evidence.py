"""Options of the commands that show what a folder of results holds, and the reading of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dqas_plugin.bench.table import Section

F = TypeVar("F", bound=Callable[..., Any])


def results_options(function: F) -> F:
    """``--results``, and which of the tables in it: ``--dataset``, ``--model``, ``--recipe``."""
    folder = click.Path(path_type=Path)
    found = [
        click.option(
            "--results", type=folder, default=Path("dqas-results"), show_default=True, help="Folder of dqas bench's results."
        ),
        click.option("--dataset", metavar="NAME", help="Only of this dataset; a path may be its last part."),
        click.option("--model", metavar="NAME", help="Only of this network."),
        click.option("--recipe", metavar="NAME", help="Only of this recipe, as tables name it."),
    ]
    for option in reversed(found):
        function = option(function)
    return function


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage: among the figures of a large folder it finds none, and takes a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def chosen_sections(results: Path, dataset: str | None, model: str | None, recipe: str | None) -> list[Section]:
    """The tables of these results.

    Raises:
        UserError: if there are none.
    """
    from dqas_plugin.bench.evidence import read

    with uncollected():
        return read(results, dataset=dataset, model=model, recipe=recipe)
