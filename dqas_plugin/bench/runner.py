"""Run a grid: first the selections, then the trainings, each once, and keep every cell as soon as it is finished."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from dqas_plugin.bench.cell import STEPS, Chosen, Preparation, Result, Steps, Task, compose
from dqas_plugin.bench.cost import check_trainings
from dqas_plugin.bench.executors import Pool, default_jobs
from dqas_plugin.bench.grid import Cell, hashed
from dqas_plugin.bench.progress import Reporter, Silent, names
from dqas_plugin.bench.store import Store
from dqas_plugin.errors import NotFiniteError, UserError
from dqas_plugin.paths import atomic_file, lock
from dqas_plugin.told import visible

_log = logging.getLogger(__name__)

Work = TypeVar("Work")

OpenExecutor = Callable[[Any], AbstractContextManager[Pool]]


class Stopped(KeyboardInterrupt):
    """Ctrl-C; the message says what is kept."""


@dataclass(frozen=True)
class Failure:
    """A cell that raised.

    Attributes:
        cell: the cell.
        error: what it raised.
        log: file with the traceback.
        name: what the cell is called among the others; empty: as it calls itself.
    """

    cell: Cell
    error: Exception
    log: Path
    name: str = ""

    def __str__(self) -> str:
        message = str(self.error).strip().partition("\n")[0]
        return f"{self.name or self.cell} failed: {type(self.error).__name__}: {message} (see {self.log})"


@dataclass
class Outcome:
    """What a run gave.

    Attributes:
        results: result of every finished cell, by key; those that were stored before are among them.
        failures: the cells that raised.
        stored: how many cells were stored before.
        selections: how many selections were made.
        trainings: how many trainings were done.
        seconds: wall time.
    """

    results: dict[str, Result] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    stored: int = 0
    selections: int = 0
    trainings: int = 0
    seconds: float = 0.0

    @property
    def notes(self) -> list[str]:
        """What the selections of finished cells tell people, each once, with how many cells it is of."""
        told = Counter(note for one in self.results.values() for note in one.get("provenance", {}).get("notes", ()))
        return [f"{visible(note)} ({count:,} of {len(self.results):,} cells)" for note, count in told.items()]


def run(
    cells: Sequence[Cell],
    folder: Path | str,
    *,
    executor: str = "local",
    executor_options: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
    steps: Steps = STEPS,
    open_executor: OpenExecutor | None = None,
    finished: Callable[[Cell, Result], Any] | None = None,
) -> Outcome:
    """Do what is not yet done of a grid.

    Args:
        cells: see :func:`dqas_plugin.bench.plan`.
        folder: where results are kept: ``results.sqlite``, ``selections/KEY.npz``, and ``failures/KEY.txt``.
        executor: name of the way to run (``dqas list executors``).
        executor_options: options of the executor.
        jobs: calls at a time; default: the number of processors, of GPUs for ``cuda``, 1 for a GPU that is named, and what an
            executor on other machines finds room for.
        device: ``cpu``, ``cuda:0`` …, of the kind that the cells were planned for; ``cuda``: all GPUs there are.
        reporter: is told what happens.
        steps: what is done for a cell.
        open_executor: instead of a registered one.
        finished: called after a cell is stored; default: the hook ``dqas_cell_finished``.

    Raises:
        UserError: for a folder that cannot be written, an unknown executor or option, a refiner that would train too many
            networks, or what a cell raised as a mistake of the user's: it ends the run.
        Stopped: at Ctrl-C; all finished cells are kept.
    """
    started = time.perf_counter()
    opener, elsewhere = (open_executor, False) if open_executor else _executor(executor, executor_options or {}, device)
    if jobs is not None and jobs < 1:
        raise UserError(f"{jobs} jobs cannot do anything: choose at least 1")
    workers = jobs if jobs or elsewhere else default_jobs(device)
    check_trainings(cells, device)
    with Store(folder) as store, _alone(store.folder) as alone:
        driver = _Driver(cells, store, device, steps, reporter=reporter or Silent(), finished=finished or _tell_plugins)
        driver.backwards = not alone
        try:
            driver.begin()
            if left := len(driver.open) + len(driver.damaged):
                with opener(workers and min(workers, left)) as pool:
                    driver.work(pool)
        except KeyboardInterrupt:
            done = len(driver.outcome.results)
            raise Stopped(
                f"stopped; {done} of {len(driver.cells)} cells are kept in {folder}, and the same command continues there"
            ) from None
        finally:
            driver.reporter.close()
        driver.outcome.seconds = time.perf_counter() - started
        return driver.outcome


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other run works on this folder. It is never kept from it: it then begins at the other end.

    The lock that tells is on the folder itself, so no file is left behind; nobody waits for it.
    """
    if os.name == "nt":
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        alone = lock(handle) is not False
        if not alone:
            _log.warning("another run works on %s: this one begins at the other end, and leaves out what is finished", folder)
        yield alone
    finally:
        os.close(handle)


def _executor(name: str, options: Mapping[str, Any], device: str) -> tuple[OpenExecutor, bool]:
    """What opens the executor, and whether its workers may be other machines."""
    from dqas_plugin.plugins import check_options, plugins

    found = plugins().executors[name]
    check_options(found, "executor", options)
    found.check_ready(options)
    if found.elsewhere and device.startswith("cuda:"):
        raise UserError(f"the executor '{name}' gives every task its GPU: write --device cuda, not {device}")
    return partial(found, **options), found.elsewhere


def _tell_plugins(cell: Cell, result: Result) -> None:
    from dqas_plugin.plugins import plugins

    try:
        plugins().hook.dqas_cell_finished(cell=cell, result=result)
    except Exception as error:  # the cell is stored; a plugin's trouble with it must not end the run
        _log.warning("a plugin failed in dqas_cell_finished: %s: %s", type(error).__name__, error)


class _Undone(Sequence[Work]):
    """Work that is asked for one piece at a time; what is done by then, by another run on the same folder, is left out."""

    def __init__(self, tasks: Sequence[Work], is_open: Callable[[Work], bool]) -> None:
        self.tasks, self.is_open = tasks, is_open

    def __len__(self) -> int:
        return len(self.tasks)

    @overload
    def __getitem__(self, place: int) -> Work: ...

    @overload
    def __getitem__(self, place: slice) -> _Undone[Work]: ...

    def __getitem__(self, place: int | slice) -> Work | _Undone[Work]:
        return _Undone(self.tasks[place], self.is_open) if isinstance(place, slice) else self.tasks[place]

    def __iter__(self) -> Iterator[Work]:
        return (task for task in self.tasks if self.is_open(task))


class _Driver:
    """The run in progress."""

    def __init__(
        self,
        cells: Sequence[Cell],
        store: Store,
        device: str,
        steps: Steps,
        *,
        reporter: Reporter,
        finished: Callable[[Cell, Result], Any],
    ) -> None:
        self.cells = {cell.key: cell for cell in cells}
        self.name = names(self.cells.values())
        self.store = store
        self.device = device
        self.reporter = reporter
        self.steps = steps
        self.tell = finished
        self.backwards = False
        self.damaged: dict[str, Cell] = {}  # finished cells whose selection must be made again
        self.outcome = Outcome()
        self.chosen: dict[str, Chosen] = {}  # by key of the cell

    @property
    def open(self) -> list[Cell]:
        """Cells that are neither finished nor failed."""
        closed = self.outcome.results.keys() | {one.cell.key for one in self.outcome.failures}
        return [cell for key, cell in self.cells.items() if key not in closed]

    def begin(self) -> None:
        """Look up what is there."""
        self.outcome.results = self.store.results(self.cells.values())
        self.outcome.stored = len(self.outcome.results)
        self.reporter.begin(len(self.cells), self.outcome.stored)
        for cell in self.cells.values():
            path = self._task(cell).path
            if not self._look_up(cell) and path.exists():
                _log.warning("the selection of %s is damaged and is made again: %s", self.name(cell), path)
                if cell.key in self.outcome.results:
                    self.damaged[cell.key] = cell

    def _look_up(self, cell: Cell) -> bool:
        """Whether the selection of the cell is there, and whole."""
        try:
            self.chosen[cell.key] = self.steps.read(self._task(cell).path)
        except UserError:
            return False
        return True

    def work(self, pool: Pool) -> None:
        """All that is left to do."""
        self._prepare(pool)
        self._select(pool)
        self._train(pool)

    def _prepare(self, pool: Pool) -> None:
        """Networks that several cells read come first, so that workers do not wait for each other to train them."""
        cells = [cell for cell in self._unselected() if not cell.is_baseline]
        shared: defaultdict[str, dict[str, Task]] = defaultdict(dict)
        probes: defaultdict[str, dict[str, Task]] = defaultdict(dict)
        for cell in cells:
            even = replace(
                cell,
                allocator="uniform",
                allocator_options={},
                refiner=None,
                refiner_options={},
                goal="mean",
                proxy="probe",
            )
            if not even.is_baseline:
                shared[cell.proxy_key].setdefault(hashed(cell.method), self._task(even))
            if cell.allocator != "uniform" or cell.refiner is not None:
                budget = [cell.signals_key, cell.recipe.as_dict(), cell.budget, cell.quantization]
                budget += [cell.refiner, cell.refine_share]
                probes[hashed(budget)].setdefault(hashed([cell.allocator, cell.proxy, cell.refiner]), self._task(cell))
        for name, groups in (("features", shared), ("probes", probes)):
            preparations = [Preparation(tuple(tasks.values())) for tasks in groups.values()]
            for _ in self._phase(pool, name, self.steps.prepare, preparations):
                pass  # an error comes again where the selection of a cell needs this network, and is that cell's then

    def _select(self, pool: Pool) -> None:
        tasks = _Undone([self._task(cell) for cell in self._unselected()], lambda task: not self._look_up(task.cell))
        for task, outcome in self._phase(pool, "selections", self.steps.select, tasks):
            if isinstance(outcome, Exception):
                self._fail([task.cell], outcome)
                continue
            self.outcome.selections += 1
            self.chosen[task.cell.key] = outcome
            self._compare(task.cell)

    def _compare(self, cell: Cell) -> None:
        """Say so if a selection that was made again is not the one that the result of its cell belongs to."""
        stored = self.outcome.results.get(cell.key, {}).get("training")
        if stored not in (None, hashed(self._training(cell))):
            _log.warning("%s now chooses other images than those its result was measured with", self.name(cell))

    def _train(self, pool: Pool) -> None:
        """One training for all cells that chose the same images."""
        groups: defaultdict[str, list[Cell]] = defaultdict(list)
        for cell in self.open:
            groups[hashed(self._training(cell))].append(cell)

        def is_open(task: Task) -> bool:
            configuration = self._training(task.cell)
            stored = self.store.training(configuration)
            if stored is None:
                return True
            for cell in groups[hashed(configuration)]:
                self._finish(cell, stored)
            return False

        tasks = [task for group in groups.values() if is_open(task := self._task(group[0]))]
        for task, outcome in self._phase(pool, "trainings", self.steps.train, _Undone(tasks, is_open)):
            configuration = self._training(task.cell)
            group = groups[hashed(configuration)]
            if isinstance(outcome, Exception):
                self._fail(group, outcome)
                continue
            self.outcome.trainings += 1
            self.store.add_training(configuration, outcome)
            for cell in group:
                self._finish(cell, outcome)

    def _phase(self, pool: Pool, name: str, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
        """Run the tasks; a mistake of the user's ends the whole run, since the other cells would meet it too."""
        if not tasks:
            return
        self.reporter.phase(name, len(tasks))
        tasks = tasks[::-1] if self.backwards else tasks
        for task, outcome in pool.run(function, tasks):
            if isinstance(outcome, UserError) and not isinstance(outcome, NotFiniteError):
                raise outcome
            yield task, outcome
            self.reporter.advance()

    def _finish(self, cell: Cell, training: Result) -> None:
        result = compose(cell, self.chosen[cell.key], training)
        self.store.add_cell(cell, result)
        self.outcome.results[cell.key] = result
        self.reporter.finished(cell, result)
        self.tell(cell, result)

    def _fail(self, cells: Iterable[Cell], error: Exception) -> None:
        for cell in list(cells):
            log = self.store.folder / "failures" / f"{cell.key}.txt"
            with atomic_file(log) as file:
                file.write_text("\n".join([self.name(cell), repr(error), *getattr(error, "__notes__", [])]), encoding="utf-8")
            self.outcome.failures.append(Failure(cell, error, log, self.name(cell)))
            self.reporter.failed(cell, error)

    def _unselected(self) -> list[Cell]:
        return [cell for cell in [*self.open, *self.damaged.values()] if cell.key not in self.chosen]

    def _training(self, cell: Cell) -> dict[str, Any]:
        return cell.training_configuration(self.chosen[cell.key].digest)

    def _task(self, cell: Cell) -> Task:
        return Task(cell, self.device, self.store.selection(cell))
