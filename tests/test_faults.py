"""Full disks, folders that can only be read, damaged files, want of memory: a sentence, and nothing that is whole is lost."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import small_disk
import toy_grid
from dqas_cli.main import cli
from dqas_plugin.bench import Steps, Store, run
from dqas_plugin.bench.cell import Task
from dqas_plugin.bench.executors import local
from dqas_plugin.cache_entry import cached_entry, write_weights
from dqas_plugin.errors import OutOfMemoryError, UserError, out_of_memory
from dqas_plugin.paths import new_folder
from dqas_plugin.selection import Selection
from entries import VALUE, Entry
from evidence_problem import stored, toy_cells
from one_line import check

# --- a full disk --------------------------------------------------------------------------------------------------------------


@contextmanager
def full(kind: str, folder: Path) -> Iterator[Path]:
    """A folder in which 30,000 bytes have room, but not more."""
    if kind == "disk":
        with small_disk.mounted(folder, 32) as disk:
            yield disk
    else:
        folder.mkdir()
        with small_disk.limited(30_000):
            yield folder


@pytest.mark.parametrize("kind", ["disk", "limit"])
def test_a_full_disk_for_the_cache(tmp_path: Path, kind: str) -> None:
    """Whatever is written: arrays, weights, metadata; nothing half-written stays."""
    written: list[Callable[[Path], object]] = [
        lambda folder: Entry(folder).fill(folder),
        lambda folder: write_weights({"a": torch.zeros(100_000)}, folder / "network.pt"),
        lambda folder: np.save(folder / "a.npy", np.zeros(100_000)),
        lambda _: None,
    ]
    with full(kind, tmp_path / "full") as folder:
        for number, write in enumerate(written):

            def fill(whole: Path, write: Callable[[Path], object] = write) -> dict[str, Any]:
                write(whole)
                return {"filling": "x" * 100_000}

            with pytest.raises(UserError, match=r"cannot write the cache of the toy in .*DQAS_CACHE"):
                cached_entry(folder / str(number), "the toy", fill, lambda *_: None)
        assert [one.name for one in folder.iterdir() if not one.name.endswith(".lock")] == []
        assert cached_entry(folder / "small", "the toy", lambda _: {"a": 1}, lambda _, meta: meta["a"]) == 1


@pytest.mark.parametrize("kind", ["disk", "limit"])
def test_a_full_disk_for_the_results(tmp_path: Path, kind: str) -> None:
    """Some cells are kept, then a sentence; with room again the same call finishes, and does nothing twice."""
    trained: list[str] = []

    def train(task: Task) -> dict[str, Any]:
        trained.append(task.cell.key)
        return toy_grid.train(task) | {"versions": {"filling": "x" * 2000}}

    def go(folder: Path) -> Any:
        steps = Steps(toy_grid.prepare, toy_grid.select, toy_grid.read_selection, train)
        return run(toy_grid.cells(), folder, jobs=1, steps=steps, finished=lambda *_: None)

    (tmp_path / "whole").mkdir()
    with small_disk.mounted(tmp_path / "full", 290) if kind == "disk" else small_disk.limited(200_000):
        results = tmp_path / "full"
        with pytest.raises(UserError, match=r"cannot write .*(full|I/O|No space|too large).*(make room|choose another)"):
            go(results)
        kept = len(trained)
        shutil.copytree(results, tmp_path / "whole", dirs_exist_ok=True)
    with Store(tmp_path / "whole") as store:
        finished = len(list(store.cells()))
    outcome = go(tmp_path / "whole")
    assert len(outcome.results) == 18
    assert 0 <= kept - finished <= 1  # the one that could not be written
    assert 18 <= len(trained) <= 18 + kept - finished
    assert finished == outcome.stored


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results made by hand; not to be changed."""
    return stored(tmp_path_factory.mktemp("results"), toy_cells())


@pytest.mark.parametrize("command", ["table 2 --out t.md", "figure curves --out f.png", "figure curves --out f.pdf", "report"])
def test_a_full_disk_for_what_is_shown(tmp_path: Path, results: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence; the file that was there stays as it was."""
    monkeypatch.chdir(tmp_path)
    name = command.rpartition(" ")[2] if "--out" in command else "report.html"
    Path(name).write_text("old")
    call = [*command.split(), "--results", str(results)]
    with small_disk.limited(100):
        result = CliRunner().invoke(cli, call)
    assert result.exit_code == 2, result.output
    check(result.stderr, "cannot write", name)
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert Path(name).read_text() == "old"
    assert CliRunner().invoke(cli, call).exit_code == 0


def test_a_full_disk_for_a_selection_and_a_folder(tmp_path: Path) -> None:
    chosen = Selection(np.arange(1000), np.array([1000]))
    with small_disk.limited(2000):
        with pytest.raises(UserError, match=r"cannot write .*s\.npz"):
            chosen.save(tmp_path / "s.npz")
        with pytest.raises(UserError, match=r"cannot write .*new"), new_folder(tmp_path / "new") as folder:
            write_weights(torch.zeros(1000), folder / "a.pt")
        with pytest.raises(UserError, match=r"cannot write .*/new/s\.npz \("), new_folder(tmp_path / "new") as folder:
            chosen.save(folder / "s.npz")
    assert list(tmp_path.iterdir()) == []


# --- a folder that can only be read -------------------------------------------------------------------------------------------


def show(results: Path, out: Path) -> None:
    for command in (["table", "2"], ["figure", "curves", "--out", f"{out}/f.png"], ["report", "--out", f"{out}/r.html"]):
        result = CliRunner().invoke(cli, [*command, "--results", str(results)])
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("left", ["nothing", "a log", "a log and its index"])
def test_results_that_can_only_be_read_are_shown(tmp_path: Path, results: Path, left: str) -> None:
    """Those of a run that ended too, and of one that was killed: with all that it had written."""
    with small_disk.mounted(tmp_path / "disk", 2000) as disk:
        shutil.copytree(results, disk, dirs_exist_ok=True)
        if left != "nothing":
            child = os.fork()
            if child == 0:  # only SQLite, no threads
                store = Store(disk)
                store.add_training({"last": 1}, {"last": 1})
                os._exit(9)
            os.waitpid(child, 0)
            if left == "a log":
                (disk / "results.sqlite-shm").unlink()
            assert (disk / "results.sqlite-wal").stat().st_size > 0
        small_disk.make_readonly(disk)
        show(disk, tmp_path)
        with Store.existing(disk) as store:
            assert store.training({"last": 1}) == (None if left == "nothing" else {"last": 1})
        with pytest.raises(UserError, match="cannot write"):
            Store(disk)
        result = CliRunner().invoke(cli, ["bench", "--results", str(disk), "--method", "random"])
        assert result.exit_code == 2
        check(result.stderr, "cannot write", str(disk))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="for root every folder can be written")
def test_a_folder_without_permission_to_write_is_shown(tmp_path: Path, results: Path) -> None:
    folder = Path(shutil.copytree(results, tmp_path / "closed"))
    for one in folder.iterdir():
        one.chmod(0o444)
    folder.chmod(0o555)
    try:
        show(folder, tmp_path)
    finally:
        folder.chmod(0o755)


def test_a_cache_that_can_only_be_read_serves(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 8000) as disk:
        entry = Entry(disk)
        entry.open()
        (disk / "entry" / "verified.txt").unlink(missing_ok=True)
        small_disk.make_readonly(disk)
        assert entry.open() == VALUE
        with pytest.raises(UserError, match=r"cannot write the cache of the toy.*Read-only.*set DQAS_CACHE"):
            cached_entry(disk / "other", "the toy", entry.fill, entry.read)


# --- a file of results that is damaged ----------------------------------------------------------------------------------------


def test_a_damaged_file_of_results_is_a_sentence(tmp_path: Path, results: Path) -> None:
    """Cut at any place, or overwritten with zeros or noise at any: never a traceback, and never other figures of a cell."""
    with Store.existing(results) as store:
        expected = {cell.key: result for cell, result in store.cells()}
    content, draws = (results / "results.sqlite").read_bytes(), random.Random(1)
    refused: list[str] = []
    for number in range(60):
        place, folder = draws.randrange(1, len(content)), tmp_path / str(number)
        other = bytes(512) if number % 3 else draws.randbytes(512)
        changed = content[:place] if number % 2 else content[:place] + other + content[place + 512 :]
        folder.mkdir()
        (folder / "results.sqlite").write_bytes(changed[: len(content)])
        for reading in (True, False):
            try:
                with Store(folder, reading=reading) as store:
                    found = {cell.key: result for cell, result in store.cells()}
            except UserError as error:
                refused.append(str(error))
            else:
                assert number % 2 == 0 or found == expected
    assert len(refused) > 60
    assert all("results.sqlite" in one or "has no results" in one for one in refused)


def test_what_a_damaged_file_of_results_is_told_on_the_command_line(tmp_path: Path, results: Path) -> None:
    folder = Path(shutil.copytree(results, tmp_path / "results"))
    file = folder / "results.sqlite"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for command in (["table", "2"], ["report", "--out", f"{tmp_path}/r.html"], ["bench", "--method", "random", "--jobs", "1"]):
        result = CliRunner().invoke(cli, [*command, "--results", str(folder)])
        assert result.exit_code == 2, result.output
        check(result.stderr, f"{file} is damaged", "move it away", ".recover")


def test_a_log_that_was_cut_loses_the_last_rows_alone(tmp_path: Path) -> None:
    """And they are then measured again."""
    cells = toy_grid.cells()
    child = os.fork()
    if child == 0:  # only files, no threads
        run(cells, tmp_path, jobs=1, steps=toy_grid.STEPS, finished=lambda cell, _: cell == cells[9] and os._exit(9))
        os._exit(0)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 9
    log = tmp_path / "results.sqlite-wal"
    log.write_bytes(log.read_bytes()[: -log.stat().st_size // 5])
    outcome = run(cells, tmp_path, jobs=1, steps=toy_grid.STEPS, finished=lambda *_: None)
    assert len(outcome.results) == 18
    assert 0 < outcome.stored < 10


def test_a_commit_is_on_the_disk(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        store.add_training({"a": 1}, {})
        with closing(sqlite3.connect(tmp_path / "results.sqlite")) as database:
            assert database.execute("SELECT count(*) FROM trainings").fetchone() == (1,)


# --- want of memory -----------------------------------------------------------------------------------------------------------


def starved(kind: str) -> str:
    """Asks for far more memory than is allowed."""
    with small_disk.little_memory(200 << 20):
        if kind == "torch":
            torch.zeros(1 << 33)
        elif kind == "numpy":
            np.zeros(1 << 33)
        elif kind == "python":
            bytearray(1 << 36)
        elif kind == "map":
            np.memmap("/dev/zero", mode="r", shape=(1 << 36,))
    return "enough"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
def test_want_of_memory_is_a_sentence() -> None:
    kinds = ["torch", "numpy", "python", "map", "nothing"]
    with local(1) as pool:
        outcomes = dict(pool.run(starved, kinds))
    assert outcomes.pop("nothing") == "enough"
    for kind, outcome in outcomes.items():
        assert isinstance(outcome, OutOfMemoryError), kind
        assert str(outcome).startswith("memory ran out"), kind
        assert "use fewer --jobs" in str(outcome)
        assert "alloc_cpu.cpp" not in str(outcome)
        assert "in starved" in outcome.__notes__[0]


def test_what_is_want_of_memory() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert not out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    error = UserError("the weights cannot be read")
    error.__cause__ = MemoryError()
    assert out_of_memory(error)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
def test_a_cell_without_memory_fails_alone(tmp_path: Path) -> None:
    cells = toy_grid.cells()[:4]

    def train(task: Task) -> dict[str, Any]:
        if task.cell == cells[1]:
            starved("torch")
        return toy_grid.train(task)

    steps = Steps(toy_grid.prepare, toy_grid.select, toy_grid.read_selection, train)
    outcome = run(cells, tmp_path, jobs=1, steps=steps, finished=lambda *_: None)
    [failure] = outcome.failures
    assert str(failure).startswith(f"{failure.name} failed: OutOfMemoryError: memory ran out (")
    assert len(outcome.results) == 3
    again = run(cells, tmp_path, jobs=1, steps=toy_grid.STEPS, finished=lambda *_: None)
    assert (len(again.results), again.stored, again.trainings, again.failures) == (4, 3, 1, [])
