"""Kills at random moments: what is finished is kept and not done again, and the figures are those of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import killing
import toy_grid
from dqas_plugin import paths
from dqas_plugin.bench import Steps, Store, run
from dqas_plugin.bench.cell import read_selection
from dqas_plugin.errors import UserError
from dqas_plugin.paths import atomic_file, new_folder
from dqas_plugin.selection import Selection

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

SELECTION = Selection(np.arange(20), np.array([15, 5]), np.linspace(0, 1, 20, dtype=np.float32), {"seed": 3})


def script(name: str, *arguments: object) -> list[dict[str, object]]:
    """What a script beside this file says."""
    here = Path(__file__).resolve().parent
    added = [here, here.parent, here.parent / "adapters", here.parent / "cli"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, added))}
    command = [sys.executable, str(here / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_again_and_again(tmp_path: Path) -> None:
    """Some twenty times, with a file damaged now and then."""
    [told] = script("toy_grid.py", tmp_path, 20, 0, 0.3)
    assert told["cells"] == 18
    assert int(str(told["kills"])) >= 20
    assert int(str(told["damaged"])) > 1
    assert {name: told[name] for name in ("lost", "twice", "unequal", "left")} == dict.fromkeys(
        ("lost", "twice", "unequal", "left"), 0
    )


@pytest.mark.parametrize("moment", ["writing", "written", "renamed"])
def test_what_a_killed_writer_leaves_is_used_up(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step of a write: the file is the old one or the new one, and the next writer leaves nothing beside it."""
    file = tmp_path / "s.npz"
    SELECTION.save(file)
    newer = Selection(SELECTION.indices[::-1].copy(), SELECTION.counts, None, {})
    child = os.fork()
    if child == 0:  # only files, no threads
        places = {"writing": (np, "savez"), "written": (paths, "settle"), "renamed": (paths, "settle_name")}
        monkeypatch.setattr(*places[moment], lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        newer.save(file)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    expected = newer if moment == "renamed" else SELECTION
    assert Selection.load(file).indices.tolist() == expected.indices.tolist()
    newer.save(file)
    assert [one.name for one in tmp_path.iterdir()] == ["s.npz"]
    assert Selection.load(file).indices.tolist() == newer.indices.tolist()


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as first, atomic_file(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"  # it ends last
    with new_folder(tmp_path / "b") as whole, new_folder(tmp_path / "c") as other:
        assert whole != other
        (whole / "one").write_text("1")
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["a", "b", "c", "one"]


def test_without_locks_names_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "fcntl", None)
    with atomic_file(tmp_path / "a") as first, atomic_file(tmp_path / "a") as second:
        assert first != second
        first.touch()
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_nobody_is_led_away_by_a_link(tmp_path: Path) -> None:
    """In a folder that others can write, the name of the temporary file is known beforehand."""
    (tmp_path / "precious").write_text("precious")
    for target in ("precious", "not there"):
        (tmp_path / ".a.part").symlink_to(tmp_path / target)
        with atomic_file(tmp_path / "a") as file:
            file.write_text("new")
        assert (tmp_path / "a").read_text() == "new"
        assert not (tmp_path / "a").is_symlink()
        (tmp_path / ".a.part").unlink()
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "not there").exists()


def test_whoever_reads_a_file_meanwhile_reads_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with (tmp_path / "a").open() as reader:
        with atomic_file(tmp_path / "a") as file:
            file.write_text("new")
        assert reader.read() == "old"
    assert (tmp_path / "a").read_text() == "new"


def test_a_file_of_results_whose_making_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each statement: the next call makes it, and never takes it for another program's."""
    connect, finished = sqlite3.connect, False
    for number in range(1, 99):
        child = os.fork()
        if child == 0:  # only SQLite, no threads
            left = iter(range(number - 1))

            def connected(*arguments: Any, left: Iterator[int] = left, **options: Any) -> sqlite3.Connection:
                database = connect(*arguments, **options)
                database.set_trace_callback(lambda _: None if next(left, None) is not None else os._exit(9))
                return database

            monkeypatch.setattr(sqlite3, "connect", connected)
            Store(tmp_path / str(number))
            os._exit(0)
        finished = os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 0
        with Store(tmp_path / str(number)) as store:
            store.add_training({"number": number}, {})
            assert store.training({"number": number}) == {}
        if finished:
            break
    assert finished
    assert number > 8


def test_a_damaged_selection_is_known_whatever_was_changed(tmp_path: Path) -> None:
    """One bit of any byte, of a shape too: the file is refused, or says the same (dates and the like)."""
    file = SELECTION.save(tmp_path / "s.npz")
    content, refused = file.read_bytes(), 0
    expected = read_selection(file)
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 2]) + content[place + 1 :])
        try:
            found = read_selection(file)
        except UserError:
            refused += 1
            continue
        assert found == expected
        assert Selection.load(file).indices.tolist() == SELECTION.indices.tolist()
    assert refused > len(content) / 2


@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_selection_is_made_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, own_cache: Path, finished: bool
) -> None:
    """Of a cell that is finished too, and then without a training."""
    cells = toy_grid.cells()[:4]

    def go(steps: Steps = toy_grid.STEPS) -> tuple[int, int]:
        outcome = run(cells, tmp_path, jobs=1, steps=steps, finished=lambda *_: None)
        assert len(outcome.results) == 4
        return outcome.selections, outcome.trainings

    def stop(_: object) -> dict[str, object]:
        raise KeyboardInterrupt

    if finished:
        go()
    else:
        with pytest.raises(KeyboardInterrupt):
            go(Steps(toy_grid.prepare, toy_grid.select, toy_grid.read_selection, stop))
    with Store(tmp_path) as store:
        file = store.selection(cells[2])
    expected = Selection.load(file)
    content = file.read_bytes()
    file.write_bytes(content[:300] + bytes(40) + content[340:])
    caplog.clear()
    assert go() == (1, 0 if finished else 4)
    assert f"the selection of {cells[2]} is damaged and is made again: {file}" in caplog.text
    assert Selection.load(file).indices.tobytes() == expected.indices.tobytes()
    assert go() == (0, 0)


def test_the_damage_that_is_done_here_is_damage(tmp_path: Path) -> None:
    file = SELECTION.save(tmp_path / "s.npz")
    draws, content = random.Random(0), file.read_bytes()
    for _ in range(20):
        file.write_bytes(content)
        killing.damage([file], draws)
        assert file.read_bytes() != content
