"""Steps of a benchmark that cost nothing, or are timed: what is left of a run is what the driver costs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dqas_plugin.bench import Cell, Reporter, Steps, Store, run
from dqas_plugin.bench.cell import Chosen, Preparation, Task
from dqas_plugin.bench.runner import Outcome
from dqas_plugin.errors import DqasError, UserError
from load_problem import result

A = TypeVar("A")
B = TypeVar("B")


def prepare(preparation: Preparation) -> None:
    """Nothing."""


def select(task: Task) -> Chosen:
    """A selection of no images."""
    counts = tuple(result(task.cell, np.random.default_rng(task.cell.seed))["counts"])
    return Chosen(task.cell.key, counts, result(task.cell, np.random.default_rng(0))["provenance"])


def read(path: Path) -> Chosen:
    """None is stored."""
    raise UserError(f"{path} is not there")


def train(task: Task) -> dict[str, Any]:
    """Made-up accuracies."""
    found = result(task.cell, np.random.default_rng(task.cell.seed))
    return {name: found[name] for name in ("accuracy", "best", "precision", "steps", "versions")} | {"seconds": 1.0}


def fail(task: Task) -> dict[str, Any]:
    """A training that never ends well."""
    raise DqasError(f"the training of {task.cell} came to nothing")


IDLE = Steps(prepare, select, read, train)
FAILING = Steps(prepare, select, read, fail)


@dataclass
class Timed:
    """Steps that count the seconds inside them, on the wall and of this process's processor time."""

    steps: Steps
    wall: float = 0.0
    processor: float = 0.0

    @property
    def counted(self) -> Steps:
        """The same steps, counted; for a run in this process alone."""
        named = (self.steps.prepare, self.steps.select, self.steps.read, self.steps.train)
        return Steps(*(self._counting(one) for one in named))

    def _counting(self, step: Callable[[A], B]) -> Callable[[A], B]:
        def counted(task: A) -> B:
            wall, processor = time.perf_counter(), time.process_time()
            try:
                return step(task)
            finally:
                self.wall += time.perf_counter() - wall
                self.processor += time.process_time() - processor

        return counted


@dataclass
class Overhead:
    """What a run cost beside its steps, in milliseconds a cell.

    Attributes:
        wall: on the wall.
        processor: of processor time, which other programs do not lengthen as much.
        outcome: of the run.
    """

    wall: float
    processor: float
    outcome: Outcome


def overhead(cells: Sequence[Cell], folder: Path, steps: Steps = IDLE, **options: Any) -> Overhead:
    """Run the cells in this process and see what that costs beside the steps."""
    timed = Timed(steps)
    wall, processor = time.perf_counter(), time.process_time()
    outcome = run(cells, folder, jobs=1, steps=timed.counted, **options)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Overhead(1000 * (wall - timed.wall) / len(cells), 1000 * (processor - timed.processor) / len(cells), outcome)


@dataclass(frozen=True)
class Usage:
    """What a process holds.

    Attributes:
        memory: anonymous, in MB.
        files: that it has open.
        maps: regions of its memory.
    """

    memory: float
    files: int
    maps: int

    @staticmethod
    def of(process: int) -> Usage:
        """Of a running process; only Linux tells."""
        home = Path("/proc") / str(process)
        lines = dict(line.partition(":")[::2] for line in (home / "status").read_text(encoding="ascii").splitlines())
        maps = (home / "maps").read_bytes().count(b"\n")
        return Usage(int(lines["RssAnon"].split()[0]) * 1024 / 1e6, len(os.listdir(home / "fd")), maps)


def children(process: int) -> list[int]:
    """The workers of a driver: processes that it started and that have not ended, without the one that watches resources."""
    found = []
    for task in (Path("/proc") / str(process) / "task").iterdir():
        found += [int(one) for one in (task / "children").read_text(encoding="ascii").split()]
    return [one for one in found if b"resource_tracker" not in (Path("/proc") / str(one) / "cmdline").read_bytes()]


@dataclass
class Watch(Reporter):
    """Looks at the driver and its workers after every so many cells."""

    every: int = 100
    seen: list[tuple[int, Usage, list[Usage]]] = field(default_factory=list)
    done: int = 0

    def finished(self, cell: Cell, result: dict[str, Any]) -> None:
        """Count."""
        self._count()

    def failed(self, cell: Cell, error: Exception) -> None:
        """Count."""
        self._count()

    def _count(self) -> None:
        self.done += 1
        if self.done % self.every == 0:
            own = os.getpid()
            self.seen.append((self.done, Usage.of(own), [Usage.of(one) for one in children(own)]))


__all__ = ["FAILING", "IDLE", "Overhead", "Store", "Timed", "Usage", "Watch", "children", "overhead"]
