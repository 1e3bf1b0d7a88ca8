"""Grids that are killed at random moments, and what must be there afterwards; for the tests and for ``stress/kill.py``."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from dqas_plugin.bench import Store
from dqas_plugin.bench.cell import read_selection
from dqas_plugin.errors import UserError
from dqas_plugin.selection import Selection

Rows = dict[tuple[str, str], tuple[Any, ...]]

DAMAGES = ("cut", "empty", "zeros", "a bit")


def rows(folder: Path) -> Rows:
    """Row number, date and result of all that is kept, read from a copy so that the folder stays as the kill left it."""
    if not Store.exists(folder):
        return {}
    with tempfile.TemporaryDirectory() as copy:
        for one in folder.glob("results.sqlite*"):
            if not one.name.endswith("-shm"):  # an index of the log, made again
                shutil.copy(one, copy)
        with closing(sqlite3.connect(Path(copy) / "results.sqlite")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            there = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return {
                (table, key): found
                for table in sorted(there & {"cells", "trainings"})
                for key, *found in map(tuple, database.execute(f"SELECT key, rowid, created, result FROM {table}"))
            }


def whole_selections(folder: Path) -> dict[str, int]:
    """The selection files that can be read, with the time of their last change."""
    found = {}
    for one in (folder / "selections").glob("*.npz"):
        try:
            read_selection(one)
        except UserError:
            continue
        found[one.name] = one.stat().st_mtime_ns
    return found


def figures(folder: Path) -> dict[str, list[Any]]:
    """Of every cell all that must be the same at every run: seconds are not. Selections bit for bit."""
    names = ("accuracy", "best", "counts", "training", "precision", "steps")
    found = {}
    with Store.existing(folder) as store:
        assert store.has_figures
        for cell, result in store.cells():
            assert cell.key not in found, "a cell is counted twice"
            chosen = Selection.load(store.selection(cell))
            parts = (chosen.indices, chosen.counts, chosen.weights)
            arrays = [None if one is None else np.asarray(one).tobytes() for one in parts]
            found[cell.key] = [*(result[name] for name in names), *arrays]
    return found


def leftovers(*folders: Path) -> list[Path]:
    """Half-written files, and logs of SQLite that a whole run has emptied and removed."""
    return [one for folder in folders for one in folder.rglob("*") if one.name.endswith((".part", "-wal", "-shm"))]


def damage(files: list[Path], draws: random.Random) -> Path | None:
    """Do to one of the files what a power cut may do; which one, if there is any."""
    if not files:
        return None
    file = draws.choice(sorted(files))
    content = file.read_bytes()
    kind, place = draws.choice(DAMAGES), draws.randrange(max(1, len(content)))
    if kind == "cut":
        content = content[:place]
    elif kind == "empty":
        content = b""
    elif kind == "zeros":
        content = content[:place] + bytes(len(content) - place)
    elif content:
        content = content[:place] + bytes([content[place] ^ (1 << draws.randrange(8))]) + content[place + 1 :]
    file.write_bytes(content)
    return file


def damageable(results: Path, cache: Path) -> list[Path]:
    """Files that are made again when they are damaged."""
    return [
        *(results / "selections").glob("*.npz"),
        *(one for one in cache.rglob("*") if one.is_file() and one.suffix != ".lock"),
    ]


def readable_by_others(file: Path) -> bool:
    """Whether a selection file is a whole archive: an independent look at it."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def marked(mark: str) -> list[int]:
    """The live processes that were started with ``DQAS_MARK=mark`` in their environment (Linux)."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            if f"DQAS_MARK={mark}".encode() in (one / "environ").read_bytes().split(b"\0"):
                state = (one / "stat").read_text().rpartition(")")[2].split()[0]
                found += [] if state in "ZX" else [int(one.name)]
        except OSError:  # ended, or somebody else's
            continue
    return [one for one in found if one != os.getpid()]
