"""The store: what is kept, what is refused, and that a killed run leaves it whole."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dqas_plugin.bench import store as module
from dqas_plugin.bench.grid import Cell, DatasetReference
from dqas_plugin.bench.store import Store
from dqas_plugin.errors import UserError

CELL = Cell(DatasetReference("digits", "0123", images=1438, classes=10, mirror=False), "graphcut", 72, "5 %")


def test_what_is_kept(tmp_path: Path) -> None:
    configuration = CELL.training_configuration("digest")
    with Store(tmp_path / "new" / "folder") as store:
        assert store.result(CELL) is None
        assert store.training(configuration) is None
        store.add_training(configuration, {"a": 1})
        store.add_cell(CELL, {"b": [0.5, None]})
        store.add_cell(CELL, {"b": [0.25, None]})
    with Store(tmp_path / "new" / "folder") as store:
        assert store.training(configuration) == {"a": 1}
        assert store.result(CELL) == {"b": [0.25, None]}
        assert store.result(replace(CELL, seed=1)) is None
        assert store.results([CELL, replace(CELL, seed=1)]) == {CELL.key: {"b": [0.25, None]}}
        [(cell, result)] = store.cells()
        assert cell == CELL
        assert cell.key == CELL.key
        assert result == {"b": [0.25, None]}


def test_it_is_an_ordinary_file_with_a_log(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_cell(CELL, {})
    database = sqlite3.connect(tmp_path / "results.sqlite")
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    [(key, created)] = database.execute("SELECT key, created FROM cells").fetchall()
    assert key == CELL.key
    assert created.endswith("+00:00")
    database.close()


def test_two_at_once(tmp_path: Path) -> None:
    with Store(tmp_path) as one, Store(tmp_path) as other:
        one.add_cell(CELL, {"a": 1})
        other.add_cell(replace(CELL, seed=1), {"a": 2})
        assert other.result(CELL) == {"a": 1}


def test_exists(tmp_path: Path) -> None:
    assert not Store.exists(tmp_path / "none")
    with Store(tmp_path):
        assert Store.exists(tmp_path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "results.sqlite"
    file.write_bytes(b"something else entirely, and long enough to be looked at " * 40)
    with pytest.raises(UserError, match="not a file of results"):
        Store(tmp_path)
    assert file.read_bytes().startswith(b"something else")


def test_a_database_of_another_program(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "results.sqlite")
    other.execute("CREATE TABLE letters (text)")
    other.close()
    with pytest.raises(UserError, match="another program"):
        Store(tmp_path)


def test_results_of_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESULT_FORMAT", 99)
    Store(tmp_path).__exit__(None, None, None)
    monkeypatch.undo()
    with pytest.raises(UserError, match="format 99"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot write results"):
            Store(folder)


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").mkdir()
    with pytest.raises(UserError, match="choose another folder"):
        Store(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_in_the_middle(tmp_path: Path) -> None:
    """SIGKILL while rows are being written: the file stays whole, and every row in it is complete."""
    script = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[2])
from dqas_plugin.bench.grid import Cell, DatasetReference
from dqas_plugin.bench.store import Store
cell = Cell(DatasetReference("digits", "0123", images=1438, classes=10), "graphcut", 72, "5 %")
with Store(sys.argv[1]) as store:
    for seed in range(10**9):
        store.add_cell(replace(cell, seed=seed), {"seed": seed, "filling": "x" * 5000})
        if seed == 20:
            print("writing", flush=True)
"""
    root = Path(__file__).resolve().parents[1]
    child = subprocess.Popen([sys.executable, "-c", script, tmp_path, root], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with Store(tmp_path) as store:
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = list(store.cells())
    assert [result["seed"] for _, result in found] == list(range(len(found)))
    assert len(found) > 20
