"""The local executor: order, exceptions, killed workers, GPUs, Ctrl-C; and the loop that all executors share."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import processes
from dqas_plugin.bench import Cell, DatasetReference
from dqas_plugin.bench.cell import Preparation, Task
from dqas_plugin.bench.executors import WorkerLostError, _placed, default_jobs, each_once, local, portable_outcome
from dqas_plugin.errors import DqasError, OutOfMemoryError, UserError


def test_in_this_process() -> None:
    with local(1) as pool:
        outcomes = dict(pool.run(math.sqrt, [4.0, -1.0, 9.0]))
    assert outcomes[4.0] == 2.0
    assert outcomes[9.0] == 3.0
    assert isinstance(outcomes[-1.0], ValueError)
    assert "Traceback" in outcomes[-1.0].__notes__[0]


@pytest.mark.parametrize("jobs", [0, -1])
def test_too_few_jobs(jobs: int) -> None:
    with pytest.raises(UserError, match="at least 1"), local(jobs):
        pass


def test_in_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is done first comes first; an exception is an outcome; a task whose process is killed is done once more."""
    with local(2) as pool:
        assert [task for task, _ in pool.run(time.sleep, [1.5, 0.01, 0.02])] == [0.01, 0.02, 1.5]
        outcomes = dict(pool.run(math.sqrt, [4.0, -1.0]))
        assert outcomes[4.0] == 2.0
        assert isinstance(outcomes[-1.0], ValueError)
        assert any("Traceback" in note for note in outcomes[-1.0].__notes__)
        caplog.clear()
        found = dict(pool.run(processes.mortal, [f"{tmp_path}/one 1", f"{tmp_path}/two 2", f"{tmp_path}/three 0"]))
        assert found[f"{tmp_path}/one 1"] == 2  # calls
        assert found[f"{tmp_path}/three 0"] == 1
        lost = found[f"{tmp_path}/two 2"]
        assert isinstance(lost, WorkerLostError)
        assert str(lost) == ("a worker process was ended from outside (signal 9), probably for want of memory: use fewer jobs")
        assert [one.getMessage() for one in caplog.records] == [f"{lost}; the task is done again"] * 2
        idle = [one.process for one in pool.workers if one.process is not None]  # type: ignore[attr-defined]
        assert idle
        for process in idle:
            process.kill()
            process.join()
        assert dict(pool.run(math.sqrt, [4.0, 9.0])) == {4.0: 2.0, 9.0: 3.0}  # they were killed while they had nothing to do


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
def test_a_worker_that_ran_out_of_memory_is_replaced(tmp_path: Path) -> None:
    """Else it fails at all that comes, faster than the others work, and so gets most of the tasks."""
    tasks = [f"{tmp_path} {number}" for number in range(6)]
    with local(2) as pool:
        outcomes = dict(pool.run(processes.starving, tasks))
    failed = [task for task, outcome in outcomes.items() if isinstance(outcome, OutOfMemoryError)]
    assert failed == [tasks[0]]
    assert [outcomes[task] for task in tasks[1:]] == ["enough"] * 5


def test_tasks_for_all_gpus_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs and three workers: the first and the third share one; a GPU that is named stays, and so does the processor."""
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [default_jobs(one) for one in ("cuda", "cuda:1")] == [2, 1]
    cell = Cell(DatasetReference("d", "0", 10, 1), "random", 5, "5")
    tasks = [Task(cell, "cuda", Path(str(one))) for one in range(3)]
    with local(3) as pool:
        for each in (tasks, [Preparation((one,)) for one in tasks]):
            placed = dict(pool.run(_device_of, each))
            assert sorted(placed.values()) == ["cuda:0", "cuda:0", "cuda:1"]
            assert list(map(id, sorted(placed, key=each.index))) == list(map(id, each))  # the tasks come back as they were
        for named in ("cuda:1", "cpu"):
            assert [one for _, one in pool.run(_device_of, [tasks[0].on(named)] * 2)] == [named] * 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert _placed(tasks[0], 1).device == "cuda"


def _device_of(task: Task | Preparation) -> str:
    return task.device


def test_the_loop_of_executors() -> None:
    """Never more than the limit at a time; a lost task comes next, and is an outcome once it was lost too often."""
    log: list[str] = []
    lost = {"b": 1, "d": 5}

    def start(tasks: Sequence[str]) -> list[str]:
        log.extend(f"+{one}" for one in tasks)
        return list(tasks)

    def finished(handles: Sequence[str]) -> list[tuple[str, object]]:
        assert 1 <= len(handles) <= 2
        first = handles[0]
        log.append(f"-{first}")
        lost[first] = lost.get(first, 0) - 1
        return [(first, WorkerLostError("gone") if lost[first] >= 0 else first.upper())]

    outcomes = dict(each_once("abcd", start, finished, limit=2, retries=2))
    assert {task: str(outcome) for task, outcome in outcomes.items()} == {"a": "A", "b": "B", "c": "C", "d": "gone"}
    assert " ".join(log) == "+a +b -a +c -b +b -c +d -b -d +d -d +d -d"


def test_a_result_that_cannot_travel() -> None:
    outcome = portable_outcome(lambda _: (one for one in ()), 0)
    assert type(outcome) is DqasError
    assert "the result cannot leave its process: cannot pickle 'generator' object" in str(outcome)


class StubbornError(Exception):
    """An exception that cannot be made again from its arguments."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def test_an_exception_that_cannot_travel() -> None:
    def fail(_: int) -> None:
        raise StubbornError(1, 2)

    outcome = portable_outcome(fail, 0)
    assert type(outcome) is DqasError
    assert str(outcome) == "StubbornError: 1 and 2"
    assert "in fail" in outcome.__notes__[0]


def test_ctrl_c(tmp_path: Path) -> None:
    """The workers, which get the signal too, end at once and quietly."""
    processes.check_ctrl_c(tmp_path, "local")


def test_a_killed_driver(tmp_path: Path) -> None:
    processes.check_restart(tmp_path, "local")


@pytest.mark.slow
def test_figures_do_not_depend_on_processes(tmp_path: Path) -> None:
    processes.check_figures(tmp_path, local)
