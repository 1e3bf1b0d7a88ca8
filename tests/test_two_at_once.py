"""Two runs on one folder, readers meanwhile, and one cache for all: nothing is corrupted, lost or locked for long."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import toy_grid
from dqas_plugin.bench import Steps, Store, run
from dqas_plugin.bench.cell import Task
from dqas_plugin.bench.store import _log_ahead
from test_kill import script

pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks")


def test_two_benches_and_ten_readers(tmp_path: Path) -> None:
    [told] = script("toy_crowd.py", tmp_path, 10)
    assert told["trouble"] == []
    assert (told["cells"], told["unequal"], told["left"]) == (18, 0, 0)
    assert int(str(told["looked"])) > 10
    assert 18 <= int(str(told["trained"])) <= 26, "they do not share the work"


def with_training(train: Any) -> Steps:
    return Steps(toy_grid.prepare, toy_grid.select, toy_grid.read_selection, train)


def test_a_run_leaves_out_what_another_one_has_done_meanwhile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = toy_grid.cells()
    order: list[str] = []

    def train(task: Task) -> dict[str, Any]:
        order.append(f"first {cells.index(task.cell)}")
        if len(order) == 1:
            second = run(cells, tmp_path, jobs=1, steps=with_training(other), finished=lambda *_: None)
            assert second.trainings == 18
        return toy_grid.train(task)

    def other(task: Task) -> dict[str, Any]:
        order.append(f"second {cells.index(task.cell)}")
        return toy_grid.train(task)

    outcome = run(cells, tmp_path, jobs=1, steps=with_training(train), finished=lambda *_: None)
    assert order == ["first 0", *(f"second {number}" for number in reversed(range(18)))]
    assert (outcome.trainings, len(outcome.results), outcome.failures) == (1, 18, [])
    assert caplog.text.count("another run works on") == 1


def test_selections_of_another_run_are_used(tmp_path: Path) -> None:
    cells = toy_grid.cells()[:6]
    made: list[int] = []

    def select(task: Task) -> Any:
        made.append(cells.index(task.cell))
        if len(made) == 1:
            run(cells, tmp_path, jobs=1, steps=toy_grid.STEPS, finished=lambda *_: None)
        return toy_grid.select(task)

    steps = Steps(toy_grid.prepare, select, toy_grid.read_selection, toy_grid.train)
    outcome = run(cells, tmp_path, jobs=1, steps=steps, finished=lambda *_: None)
    assert made == [0]
    assert (outcome.selections, outcome.trainings, len(outcome.results)) == (1, 0, 6)


def test_nothing_is_locked_while_something_is_trained(tmp_path: Path) -> None:
    """Neither the results nor a file of the cache that is whole."""
    written: list[int] = []

    def train(task: Task) -> dict[str, Any]:
        with closing(sqlite3.connect(tmp_path / "results.sqlite", timeout=0, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            database.execute("ROLLBACK")
        toy_grid.signals(task.cell)
        with Store(tmp_path) as store:
            store.add_training({"number": len(written)}, {"from": "another process"})
        written.append(len(written))
        return toy_grid.train(task)

    outcome = run(toy_grid.cells()[:3], tmp_path, jobs=1, steps=with_training(train), finished=lambda *_: None)
    assert (written, outcome.failures) == ([0, 1, 2], [])


def test_many_make_the_file_of_results_at_once(tmp_path: Path) -> None:
    """Whoever looks finds all of it or nothing: never a file that seems to be another program's."""
    for number in range(8):
        children, start = [], time.monotonic() + 0.02
        for _ in range(6):
            child = os.fork()
            if child == 0:  # only SQLite, no threads
                status = 1
                try:
                    while time.monotonic() < start:
                        pass
                    with Store(tmp_path / str(number)) as store:
                        store.add_training({"process": os.getpid()}, {})
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
        with closing(sqlite3.connect(tmp_path / str(number) / "results.sqlite")) as database:
            assert database.execute("SELECT count(*) FROM trainings").fetchone() == (6,)


def test_a_file_that_others_make_just_now_is_waited_for() -> None:
    class Busy(sqlite3.Connection):
        asked = 0

        def execute(self, *statement: Any) -> sqlite3.Cursor:
            self.asked += 1
            if self.asked < 3:
                raise sqlite3.OperationalError("database is locked")
            return super().execute(*statement)

    with closing(sqlite3.connect(":memory:", factory=Busy)) as database:
        _log_ahead(database)
        assert database.asked == 3
