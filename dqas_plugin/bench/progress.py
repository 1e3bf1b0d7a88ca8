"""What people see while a benchmark runs: a bar on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dqas_plugin.bench.grid import Cell
from dqas_plugin.told import visible

Name = Callable[[Cell], str]

_PHASES = {
    "features": "features for all methods: {} to compute",
    "probes": "probes for class counts and refinement: {} to train",
    "selections": "selections: {} to make",
    "trainings": "trainings: {} to do",
}


_PAUSE = 10.0  # seconds between two lines of a phase that finishes no cells


class Reporter:
    """Is told what happens, in the driver; does nothing about it."""

    def begin(self, cells: int, stored: int) -> None:
        """The run has ``cells`` cells, of which ``stored`` are finished already."""

    def phase(self, name: str, tasks: int) -> None:
        """``tasks`` calls of one kind begin: ``features``, ``probes``, ``selections`` or ``trainings``."""

    def advance(self) -> None:
        """One call of the phase is over."""

    def finished(self, cell: Cell, result: dict[str, Any]) -> None:
        """The cell is finished and stored."""

    def failed(self, cell: Cell, error: Exception) -> None:
        """The cell failed; the others go on."""

    def close(self) -> None:
        """The run is over."""


def reporter(stream: TextIO | None = None, name: Name = str) -> Reporter:
    """A bar if the stream (default: stderr) is a terminal, else lines; ``name`` says how a cell is called."""
    target = sys.stderr if stream is None else stream
    return Bar(target, name) if target.isatty() else Lines(target, name)


def names(cells: Iterable[Cell]) -> Name:
    """How the cells of a run are called one by one: with dataset, network and recipe where these are not the same for all."""
    told = [(cell.dataset.title, cell.model, cell.recipe.name) for cell in cells]
    differing = [position for position, values in enumerate(zip(*told, strict=True)) if len(set(values)) > 1]

    def name(cell: Cell) -> str:
        parts = (cell.dataset.title, cell.model, cell.recipe.name)
        return f"{', '.join(parts[one] for one in differing)}: {cell}"

    return name if differing else str


class Silent(Reporter):
    """Says nothing."""


class Lines(Reporter):
    """One line per finished cell: ``12/18 graphcut+adaptive 5 % seed 1: 83.1 % (2.1 s)``."""

    def __init__(self, stream: TextIO, name: Name = str) -> None:
        self.stream = stream
        self.name_of = name
        self.done = self.cells = 0
        self.name, self.calls, self.tasks = "", 0, 0
        self.told = time.monotonic()

    def begin(self, cells: int, stored: int) -> None:
        """Say how much is stored already."""
        self.cells, self.done = cells, stored
        if stored:
            self._say(f"{stored} of {cells} cells are stored already")

    def phase(self, name: str, tasks: int) -> None:
        """Name what begins."""
        self.name, self.calls, self.tasks = name, 0, tasks
        self._say(_PHASES[name].format(tasks))

    def advance(self) -> None:
        """Count one call, and say so now and then in the phases that finish no cells."""
        self.calls += 1
        if self.name != "trainings" and self.calls < self.tasks and time.monotonic() - self.told >= _PAUSE:
            self._say(f"{self.name}: {self.calls} of {self.tasks}")

    def finished(self, cell: Cell, result: dict[str, Any]) -> None:
        """Show the cell and its accuracy."""
        self.done += 1
        self._say(f"{self.done}/{self.cells} {self.name_of(cell)}: {describe(result)}")

    def failed(self, cell: Cell, error: Exception) -> None:
        """Show the cell and what went wrong."""
        self.done += 1
        self._say(f"{self.done}/{self.cells} {self.name_of(cell)}: failed ({one_line(error)})")

    def _say(self, text: str) -> None:
        self.told = time.monotonic()
        print(text, file=self.stream, flush=True)


class Bar(Reporter):
    """A bar for the calls of the phase, with the last finished cell beside it."""

    def __init__(self, stream: TextIO, name: Name = str) -> None:
        self.name_of = name
        columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[last]}"), console=Console(file=stream), transient=True
        )
        self.task: TaskID | None = None

    def begin(self, cells: int, stored: int) -> None:
        """Say how much is stored already."""
        if stored:
            self._say(f"{stored} of {cells} cells are stored already")
        if stored < cells:
            self.progress.start()

    def phase(self, name: str, tasks: int) -> None:
        """Name what begins."""
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(name, total=tasks, last="")

    def advance(self) -> None:
        """Count one call."""
        if self.task is not None:
            self.progress.advance(self.task)

    def finished(self, cell: Cell, result: dict[str, Any]) -> None:
        """Show the cell and its accuracy."""
        if self.task is not None:
            self.progress.update(self.task, last=f"{self.name_of(cell)}: {describe(result)}")

    def failed(self, cell: Cell, error: Exception) -> None:
        """Show the cell and what went wrong."""
        self._say(f"{self.name_of(cell)}: failed ({one_line(error)})")

    def close(self) -> None:
        """Stop."""
        self.progress.stop()

    def _say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)


def describe(result: dict[str, Any]) -> str:
    """Accuracy and training time of a finished cell."""
    return f"{100 * result['accuracy']['mean']:.1f} % ({result['seconds']['training']:.1f} s)"


def one_line(error: Exception) -> str:
    """The first line of an error's message, with its kind if it has none of its own to say."""
    return visible(str(error).strip().partition("\n")[0]) or type(error).__name__
