"""Run many independent calls. ``local`` has so many processes of one thread each; other ways come in as plugins."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.hookspecs import hookimpl

Task = TypeVar("Task")
Result = TypeVar("Result")


class Pool(Protocol):
    """What ``open_executor(jobs)`` gives inside its ``with`` block."""

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result | Exception]]:
        """Every task with its result, or with the exception it raised, in order of completion."""
        ...


def default_jobs() -> int:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def local(jobs: int) -> Iterator[Pool]:
    """``jobs`` processes on this machine; with one job, this process itself.

    Leaving the block by an exception (Ctrl-C) ends the processes at once.

    Raises:
        UserError: if ``jobs`` is below 1.
        DqasError: from ``run``, if a process is killed from outside.
    """
    if jobs < 1:
        raise UserError(f"{jobs} jobs cannot do anything: choose at least 1")
    if jobs == 1:
        yield _Here()
        return
    # fresh processes: a fork would copy the locks of torch's threads
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        yield _Processes(pool)
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


@hookimpl
def dqas_register_executors(register: Callable[..., None]) -> None:
    """The built-in executor."""
    register("local", local, title="processes of one thread on this machine")


class _Here:
    """Runs tasks in this process, one after the other."""

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result | Exception]]:
        for task in tasks:
            yield task, _outcome(function, task)


class _Processes:
    """Runs tasks in a pool of processes."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self.pool = pool

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result | Exception]]:
        try:
            with _interrupts_held_back():
                futures = {self.pool.submit(_portable_outcome, function, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise DqasError(
                "a worker process was ended from outside, probably for want of memory: use fewer jobs; "
                "what is finished is kept, and the same command continues"
            ) from error


def _outcome(function: Callable[[Task], Result], task: Task) -> Result | Exception:
    """The result, or the exception with its traceback as a note (it would be lost on the way between processes)."""
    try:
        return function(task)
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        return error


def _portable_outcome(function: Callable[[Task], Result], task: Task) -> Result | Exception:
    """As :func:`_outcome`, with an exception that survives pickling: one that does not would break the whole pool."""
    outcome = _outcome(function, task)
    if isinstance(outcome, Exception):
        try:
            pickle.loads(pickle.dumps(outcome))
        except Exception:
            replacement = DqasError(f"{type(outcome).__name__}: {outcome}")
            for note in outcome.__notes__:
                replacement.add_note(note)
            return replacement
    return outcome


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started inside never see Ctrl-C (the driver ends them); this one sees it when the block ends."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
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
