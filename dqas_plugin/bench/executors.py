"""Run many independent calls. ``local`` has so many processes of one thread each; other ways come in as plugins."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

from dqas_plugin.errors import DqasError, OutOfMemoryError, UserError, out_of_memory
from dqas_plugin.hookspecs import hookimpl

Task = TypeVar("Task")
Result = TypeVar("Result")
Handle = TypeVar("Handle", bound=Hashable)

_RETRIES = 1

_log = logging.getLogger(__name__)


class Pool(Protocol):
    """What ``open_executor(jobs)`` gives inside its ``with`` block."""

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result | Exception]]:
        """Every task with its result, or with the exception it raised, in order of completion.

        Tasks are best taken from the sequence one at a time, when there is room for one: it leaves out those that have become
        needless meanwhile, since somebody else did them.
        """
        ...


class WorkerLostError(DqasError):
    """A task whose worker came to an end before it: the process was killed, or its machine went away."""


def default_jobs(device: str = "cpu") -> int:
    """The processors this process may use; on ``cuda`` the GPUs, and one on a GPU that is named."""
    if device == "cuda":
        import torch

        return max(1, torch.cuda.device_count())
    if not device.startswith("cpu"):
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def local(jobs: int) -> Iterator[Pool]:
    """``jobs`` processes on this machine; with one job, this process itself.

    A task for ``cuda`` gets one of the GPUs here, in turn over the processes: several processes share a GPU where there are
    more of them. A task whose process is killed is done once more, and has then failed. Leaving the block by an exception
    (Ctrl-C) ends the processes at once, and so does the end of this process, however it comes.

    Raises:
        UserError: if ``jobs`` is below 1.
    """
    if jobs < 1:
        raise UserError(f"{jobs} jobs cannot do anything: choose at least 1")
    if jobs == 1:
        yield _Here()
        return
    pool = _Processes(jobs)
    try:
        yield pool
    finally:
        pool.end()


@hookimpl
def dqas_register_executors(register: Callable[..., None]) -> None:
    """The built-in executor."""
    register("local", local, title="processes of one thread on this machine")


def each_once(
    tasks: Sequence[Task],
    start: Callable[[Sequence[Task]], Sequence[Handle]],
    finished: Callable[[Sequence[Handle]], Sequence[tuple[Handle, Any]]],
    *,
    limit: int,
    retries: int,
) -> Iterator[tuple[Task, Any]]:
    """The loop of an executor: some tasks at a time, and those again whose worker was lost.

    Args:
        tasks: what is to be done; the next one is asked for when there is room for it.
        start: begins tasks and returns something to know each by.
        finished: waits until one of those begun is finished at least; returns the finished ones with their outcomes, which
            is a :class:`WorkerLostError` if the worker came to an end.
        limit: how many are begun at a time.
        retries: how often a task is begun again.

    Yields:
        every task with its outcome, in order of completion.
    """
    fresh, again = iter(tasks), deque[tuple[Task, int]]()
    running: dict[Handle, tuple[Task, int]] = {}
    ready: list[tuple[Task, Any]] = []
    while True:
        begun = list(islice(_waiting(again, fresh), limit - len(running)))
        if begun:  # before the outcomes are looked at: workers need not wait for that
            running.update(zip(start([task for task, _ in begun]), begun, strict=True))
        elif not running and not ready:
            return
        yield from ready
        ready = []
        for handle, outcome in finished(list(running)) if running else ():
            task, lost = running.pop(handle)
            if isinstance(outcome, WorkerLostError) and lost < retries:
                _log.warning("%s; the task is done again", outcome)
                again.append((task, lost + 1))
            else:
                ready.append((task, outcome))


def _waiting(again: deque[tuple[Task, int]], fresh: Iterator[Task]) -> Iterator[tuple[Task, int]]:
    """The tasks to begin, each with the number of workers it has lost."""
    while again:
        yield again.popleft()
    for task in fresh:
        yield task, 0


def portable_outcome(function: Callable[[Task], Result], task: Task) -> Result | Exception:
    """The result of a call or its exception, with the traceback as a note, in a form that survives pickling."""
    outcome = _outcome(function, task)
    try:
        content = pickle.dumps(outcome)
        if isinstance(outcome, Exception):
            pickle.loads(content)
    except Exception as error:
        if not isinstance(outcome, Exception):
            return DqasError(f"the result cannot leave its process: {error}")
        replacement = DqasError(f"{type(outcome).__name__}: {outcome}")
        for note in outcome.__notes__:
            replacement.add_note(note)
        return replacement
    return outcome


class _Here:
    """Runs tasks in this process, one after the other."""

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result | Exception]]:
        for task in tasks:
            yield task, _outcome(function, task)


class _Processes:
    """Runs tasks in processes, which start when they are needed and stay."""

    def __init__(self, jobs: int) -> None:
        self.workers = [_Worker(number) for number in range(jobs)]

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result | Exception]]:
        start = partial(self._start, function)
        try:
            yield from each_once(tasks, start, _finished, limit=len(self.workers), retries=_RETRIES)
        finally:
            for worker in self.workers:
                if worker.busy:
                    worker.end()

    def _start(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[_Worker]:
        free = [worker for worker in self.workers if not worker.busy][: len(tasks)]
        for worker, task in zip(free, tasks, strict=True):
            worker.begin(pickle.dumps((function, _placed(task, worker.number))))
        return free

    def end(self) -> None:
        for worker in self.workers:
            worker.end()


def _finished(busy: Sequence[_Worker]) -> list[tuple[_Worker, Any]]:
    ready = wait([worker.connection for worker in busy if worker.connection is not None])
    return [(worker, worker.outcome()) for worker in busy if worker.connection in ready]


class _Worker:
    """A process, and the connection to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.busy = False
        self.connection: Connection | None = None
        self.process: Any = None

    def begin(self, call: bytes) -> None:
        """Send the pickled function and task."""
        self.busy = True
        if self.connection is not None:
            try:
                self.connection.send_bytes(call)
                return
            except OSError:  # it was killed while it had nothing to do
                self.end()
        self._start().send_bytes(call)
        self.busy = True

    def _start(self) -> Connection:
        # fresh processes: a fork would copy the locks of torch's threads
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,))
        with interrupts_held_back():
            process.start()
            self.process, self.connection = process, ours
        theirs.close()  # else the end of the process would not close the connection
        return ours

    def outcome(self) -> Any:
        """What the process sent."""
        assert self.connection is not None
        try:
            found = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join()
            status = self.process.exitcode
            self.end()
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            return WorkerLostError(
                f"a worker process was ended from outside ({how}), probably for want of memory: use fewer jobs"
            )
        if isinstance(found, OutOfMemoryError):
            self.end()  # a process that is full of other things would fail at all that comes, and fast: it would get most tasks
        self.busy = False
        return found

    def end(self) -> None:
        """End the process, at once if it is at work."""
        if self.connection is None:
            return
        if self.busy:
            self.process.terminate()
        self.connection.close()
        self.process.join()
        self.busy, self.connection, self.process = False, None, None


def _serve(connection: Connection) -> None:
    """What a worker process does: calls, until the driver closes the connection."""
    _end_with_parent()
    with suppress(EOFError, OSError):
        while True:
            connection.send_bytes(pickle.dumps(portable_outcome(_called, connection.recv_bytes())))


def _called(call: bytes) -> Any:
    function, task = pickle.loads(call)
    return function(task)


def _placed(task: Any, worker: int) -> Any:
    """A task for ``cuda`` on one of the GPUs here, in turn over the workers; any other as it is."""
    if getattr(task, "device", None) != "cuda":
        return task
    gpus = default_jobs("cuda")
    return task.on(f"cuda:{worker % gpus}") if gpus > 1 else task


def _outcome(function: Callable[[Task], Result], task: Task) -> Result | Exception:
    """The result, or the exception with its traceback as a note (it would be lost on the way between processes)."""
    try:
        return function(task)
    except Exception as error:
        said = OutOfMemoryError.of(error) if out_of_memory(error) else error
        said.add_note("".join(traceback.format_exception(error)))
        return said


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Processes started inside never see Ctrl-C (the driver ends them); this one sees it when the block ends."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # the first process starts it, and that would let interrupts through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """End this worker when the driver ends, even if it was killed."""
    parent: Any = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
