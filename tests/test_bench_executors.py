"""The local executor: order, exceptions, a killed worker, Ctrl-C."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dqas_plugin.bench.executors import _portable_outcome, local
from dqas_plugin.errors import DqasError, UserError


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


def test_in_processes() -> None:
    """What is done first comes first; an exception is an outcome; a process ended from outside ends the run with a reason."""
    with local(2) as pool:
        assert [task for task, _ in pool.run(time.sleep, [1.5, 0.01, 0.02])] == [0.01, 0.02, 1.5]
        outcomes = dict(pool.run(math.sqrt, [4.0, -1.0]))
        assert outcomes[4.0] == 2.0
        assert isinstance(outcomes[-1.0], ValueError)
        assert any("Traceback" in note for note in outcomes[-1.0].__notes__)
        with pytest.raises(DqasError, match=r"ended from outside.*fewer jobs"):
            list(pool.run(os._exit, [1]))


class StubbornError(Exception):
    """An exception that cannot be made again from its arguments."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def test_an_exception_that_cannot_travel() -> None:
    def fail(_: int) -> None:
        raise StubbornError(1, 2)

    outcome = _portable_outcome(fail, 0)
    assert type(outcome) is DqasError
    assert str(outcome) == "StubbornError: 1 and 2"
    assert "in fail" in outcome.__notes__[0]


GRID = """
import sys, time, os, pathlib
sys.path.insert(0, sys.argv[2])

def train(task):
    pathlib.Path(sys.argv[1], f"worker-{os.getpid()}").touch()
    time.sleep(0.01 if task.cell.seed < 2 else 60)
    accuracy = {"mean": 0.5, "worst": 0.5, "natural": 0.5, "classes": [0.5]}
    return {"accuracy": accuracy, "best": accuracy, "seconds": 1.0, "precision": "fp32", "steps": 1, "versions": {}}

def finished(cell, result):
    if cell.seed == 1:
        print("ready", flush=True)

if __name__ == "__main__":
    from dqas_plugin.bench import Steps, Stopped, DatasetReference, Cell, run
    from dqas_plugin.bench.cell import Chosen

    cells = [Cell(DatasetReference("d", "0", 10, 1), "random", 5, "5", seed=seed) for seed in range(6)]
    steps = Steps(None, None, lambda path: Chosen(path.stem, (1,)), train)
    try:
        run(cells, sys.argv[1] + "/results", jobs=2, steps=steps, finished=finished)
    except Stopped as stop:
        print(stop)
        sys.exit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c(tmp_path: Path) -> None:
    """The workers (which get the signal too) end at once and quietly, and what was finished is kept."""
    child = _started(tmp_path, GRID)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert err == ""
    assert child.returncode == 130
    assert out.startswith("stopped; 2 of 6 cells are kept in ")
    workers = [int(one.name.partition("-")[2]) for one in tmp_path.glob("worker-*")]
    assert workers
    _wait_for_the_end_of(workers)
    from dqas_plugin.bench import Store

    with Store(tmp_path / "results") as store:
        assert sorted(cell.seed for cell, _ in store.cells()) == [0, 1]


SLEEPERS = """
import sys, time, os, pathlib
sys.path.insert(0, sys.argv[2])

def sleep(seconds):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    from dqas_plugin.bench.executors import local
    with local(2) as pool:
        list(pool.run(sleep, [1, 2]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_workers_end_with_a_killed_driver(tmp_path: Path) -> None:
    child = _started(tmp_path, SLEEPERS)
    assert child.stdout is not None
    workers = [int(child.stdout.readline()) for _ in range(2)]
    child.kill()
    child.communicate(timeout=20)
    _wait_for_the_end_of(workers)


def _started(folder: Path, source: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(source)
    command = [sys.executable, script, folder, Path(__file__).resolve().parents[1]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _wait_for_the_end_of(processes: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(_alive(one) for one in processes):
        assert time.monotonic() < deadline, "workers outlive the driver"
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        # a zombie has ended; it waits for whoever adopted it
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return Path("/proc/self").exists() is False
    except OSError:
        return False
