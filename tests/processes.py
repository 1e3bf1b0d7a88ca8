"""Executors under fire, for the tests of each: processes that are killed, Ctrl-C, and figures that must stay the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import registering
from dqas_plugin.bench import Cell, Store, open_dataset, plan, run
from dqas_plugin.bench.cell import STEPS, Steps, Task, train_on_selection
from dqas_plugin.recipes import recipe

GRID = """
import importlib, os, pathlib, sys, time
from functools import partial

ROOT = pathlib.Path(sys.argv[2])
sys.path[:0] = [str(ROOT), str(ROOT / "adapters")]
FOLDER = pathlib.Path(sys.argv[1])

def train(task):
    with (FOLDER / "calls").open("a") as file:
        file.write(f"{os.getpid()} {task.cell.seed}\\n")
    if task.cell.seed >= 2 and not (FOLDER / "fast").exists():
        time.sleep(300)
    accuracy = {"mean": 0.5, "worst": 0.5, "natural": 0.5, "classes": [0.5]}
    return {"accuracy": accuracy, "best": accuracy, "seconds": 1.0, "precision": "fp32", "steps": 1, "versions": {}}

done = []

def finished(cell, result):
    done.append(cell.seed)
    if len(done) == 2:
        print("ready", flush=True)

if __name__ == "__main__":
    from dqas_plugin.bench import Cell, Steps, Stopped, open_dataset, run
    from dqas_plugin.bench.cell import Chosen

    name, *options = sys.argv[3:]
    module = importlib.import_module("dqas_plugin.bench.executors" if name == "local" else f"dqas_adapters.{name}")
    opener = partial(getattr(module, "local" if name == "local" else f"open_{name}"), **eval(f"dict({','.join(options)})"))
    cells = [Cell(open_dataset("digits"), "random", 50, "50", seed=seed) for seed in range(6)]
    steps = Steps(None, None, lambda path: Chosen(path.stem, (1,)), train)
    try:
        run(cells, FOLDER / "results", jobs=2, steps=steps, finished=finished, open_executor=opener)
    except Stopped as stop:
        print(stop)
        sys.exit(130)
"""
"""A run of six cells, of which the first two end at once, and the others only where there is a file ``fast``."""


def told_without(package: str, name: str, adapter: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Result]:
    """Where the package of an executor is not installed: what ``dqas list executors`` prints, and how a bench with it ends."""
    from dqas_cli.main import cli

    monkeypatch.setitem(sys.modules, package, None)
    with registering.plugin(adapter, name):
        listed = CliRunner().invoke(cli, ["list", "executors"]).output
        call = ["bench", "--method", "random", "--executor", name, "--results", str(folder / "results")]
        return listed, CliRunner().invoke(cli, call)


def mortal(task: str) -> int:
    """For a task ``FILE TIMES``: kills its own process so many times; then the number of calls."""
    name, _, times = task.rpartition(" ")
    with Path(name).open("a") as file:
        file.write(".")
    calls = Path(name).stat().st_size
    if calls <= int(times):
        os.kill(os.getpid(), signal.SIGKILL)
    return calls


def starving(task: str) -> str:
    """For tasks ``FOLDER NUMBER``: the first one leaves its process without memory, for itself and for what comes."""
    import resource

    if task.endswith(" 0"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
    else:
        time.sleep(0.2)
    bytearray(1 << 28)
    return "enough"


def train_or_die(marker: Path, task: Task) -> dict[str, Any]:
    """The training of a task; the first of all is killed."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return train_on_selection(task)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def check_figures(folder: Path, open_executor: Any, seeds: int = 2) -> None:
    """With a worker killed in the middle, the results and selections of a real grid are those of this process."""
    short = recipe("quick").with_(iterations=5, proxy_epochs=1, precision="fp32")
    cells = plan(open_dataset("digits"), ["graphcut"], ratios=[0.05], seeds=seeds, recipe=short)
    here = run(cells, folder / "here", jobs=1)
    told: list[str] = []
    steps = Steps(STEPS.prepare, STEPS.select, STEPS.read, partial(train_or_die, folder / "killed"))
    options: dict[str, Any] = {"jobs": 2, "steps": steps, "open_executor": open_executor}
    there = run(cells, folder / "there", finished=lambda cell, _: told.append(cell.key), **options)
    assert (folder / "killed").exists()
    assert there.failures == []
    assert sorted(told) == sorted(cell.key for cell in cells)  # each once
    with Store(folder / "there") as store:
        kept = [_figures(cell, result, store) for cell, result in sorted(store.cells(), key=lambda one: one[0].key)]
    with Store(folder / "here") as store:
        assert kept == [_figures(cell, here.results[cell.key], store) for cell in sorted(cells, key=lambda one: one.key)]


def _figures(cell: Cell, result: dict[str, Any], store: Store) -> list[Any]:
    """All that must not depend on where a cell is computed."""
    chosen = STEPS.read(store.selection(cell))
    names = ("accuracy", "best", "counts", "training", "precision", "steps")
    return [cell.key, chosen.digest, *(result[name] for name in names)]


def check_ctrl_c(folder: Path, *executor: str) -> None:
    """The workers end within seconds, nothing but a sentence is said, and what was finished is kept."""
    child = _ready(folder, *executor)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert err == ""
    assert child.returncode == 130
    assert out.startswith("stopped; 2 of 6 cells are kept in ")
    _wait_for_the_end_of({worker for worker, _ in _calls(folder)})
    assert _kept(folder) == [0, 1]


def check_restart(folder: Path, *executor: str) -> None:
    """A killed driver takes its workers with it; the same command does the rest, and nothing that is finished again."""
    child = _ready(folder, *executor)
    child.kill()
    child.communicate(timeout=20)
    _wait_for_the_end_of({worker for worker, _ in _calls(folder)})
    assert _kept(folder) == [0, 1]
    (folder / "calls").rename(folder / "earlier")
    (folder / "fast").touch()
    again = _started(folder, *executor)
    _, err = again.communicate(timeout=120)
    assert err == ""
    assert again.returncode == 0
    assert sorted(seed for _, seed in _calls(folder)) == [2, 3, 4, 5]
    assert _kept(folder) == [0, 1, 2, 3, 4, 5]


def _ready(folder: Path, *executor: str) -> subprocess.Popen[str]:
    """The run, as soon as two cells are finished and two others begun."""
    if os.name == "nt":
        pytest.skip("signals")
    child = _started(folder, *executor)
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise AssertionError(child.communicate(timeout=20))
    deadline = time.monotonic() + 60
    while len(_calls(folder)) < 4:
        assert time.monotonic() < deadline, "the other cells are not begun"
        time.sleep(0.05)
    return child


def _started(folder: Path, *executor: str) -> subprocess.Popen[str]:
    """:data:`GRID` in a Python process of its own session."""
    script = folder / "script.py"
    script.write_text(GRID)
    command = [sys.executable, script, folder, Path(__file__).resolve().parents[1], *executor]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _calls(folder: Path) -> list[tuple[int, int]]:
    """Process and seed of every training begun."""
    file = folder / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(worker), int(seed)) for worker, seed in (line.split() for line in lines)]


def _kept(folder: Path) -> list[int]:
    with Store(folder / "results") as store:
        return sorted(cell.seed for cell, _ in store.cells())


def _wait_for_the_end_of(processes: set[int]) -> None:
    deadline = time.monotonic() + 20
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
