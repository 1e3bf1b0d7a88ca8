"""The figures that tables show, kept in the file of results beside the results they are made of.

A result is a long text, and what is shown of it a few numbers: to read a hundred thousand of them takes a second. They can be
made again at any time, and a file without them (of an older version) is read by its results.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from dqas_plugin.bench.finished import NUMBERS, Figures, Floats, Kind, Result, line_of, part_of
from dqas_plugin.bench.grid import Cell

SCHEMA = """
CREATE TABLE IF NOT EXISTS lines (id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, part TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS figures (id INTEGER PRIMARY KEY, line INTEGER NOT NULL, budget INTEGER NOT NULL,
    seed INTEGER NOT NULL, key TEXT NOT NULL UNIQUE, training TEXT NOT NULL, numbers BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS figures_of_line ON figures (line);
CREATE TABLE IF NOT EXISTS class_figures (id INTEGER PRIMARY KEY, last BLOB NOT NULL, counts BLOB NOT NULL, best BLOB NOT NULL);
"""
"""``numbers`` are those of :class:`dqas_plugin.bench.finished.Figures`, float64 with the lowest byte first, like all others."""

ClassFigures = dict[tuple[str, int], tuple[tuple[int, ...], Floats]]
"""Of every way, by line and budget: ascending seeds, and the numbers of every class, float64 ``[n, C]``."""

_FLOAT = np.dtype("<f8")


class Kept(NamedTuple):
    """The figures of the finished cells of a way, by ascending seed.

    Attributes:
        line: names its line.
        budget: images.
        first: id of the cell that was measured first.
        seeds: of all cells.
        trainings: their keys.
        numbers: float64 ``[n, NUMBERS]``.
    """

    line: str
    budget: int
    first: int
    seeds: tuple[int, ...]
    trainings: tuple[str, ...]
    numbers: Floats


def keep(database: sqlite3.Connection, cell: Cell, result: Result) -> None:
    """Keep the figures of a finished cell; inside the transaction that keeps its result."""
    figures = Figures.of(result)
    line = line_of(cell)
    database.execute("DELETE FROM class_figures WHERE id = (SELECT id FROM figures WHERE key = ?)", (cell.key,))
    database.execute("INSERT OR IGNORE INTO lines (hash, part) VALUES (?, ?)", (line, part_of(cell)))
    added = database.execute(
        "INSERT OR REPLACE INTO figures (line, budget, seed, key, training, numbers) "
        "VALUES ((SELECT id FROM lines WHERE hash = ?), ?, ?, ?, ?, ?)",
        (line, cell.budget, cell.seed, cell.key, figures.training, _bytes(figures.numbers)),
    )
    by_class = (figures.last, figures.counts, figures.best)
    database.execute("INSERT INTO class_figures VALUES (?, ?, ?, ?)", (added.lastrowid, *map(_bytes, by_class)))


def complete(database: sqlite3.Connection) -> bool:
    """Whether every finished cell has its figures."""
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'class_figures'").fetchone()
    if not tables:
        return False
    (cells,), (figures,) = (database.execute(f"SELECT count(*) FROM {one}").fetchone() for one in ("cells", "figures"))
    return bool(cells == figures)


def parts(database: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    """Every part of the results, and the id of its first cell; those that were measured first come first."""
    yield from database.execute(
        "SELECT part, min(earliest) AS first FROM lines JOIN "
        "(SELECT line, min(id) AS earliest FROM figures GROUP BY line) AS of_line ON of_line.line = lines.id "
        "GROUP BY part ORDER BY first"
    )


def ways(database: sqlite3.Connection, part: str) -> list[Kept]:
    """The ways of a part; those that were measured first come first."""
    columns = _columns(database, f"SELECT {_OF_WAY}, training, numbers FROM figures {_OF_PART}", part)
    if not columns:
        return []
    *found, trainings, numbers = columns
    if not set(map(type, trainings)) <= {str}:
        raise ValueError("a figure is of another kind")
    order, found_ways = _ways(found)
    names, keys = _names(database, part), tuple(trainings[one] for one in order)
    shown = table([numbers[one] for one in order], NUMBERS)
    if not np.isfinite(shown).all():
        raise ValueError("a figure is no number")
    kept = [Kept(names[one.line], one.budget, one.first, one.seeds, keys[one.cells], shown[one.cells]) for one in found_ways]
    return sorted(kept, key=lambda one: one.first)


def of_classes(database: sqlite3.Connection, part: str, kind: Kind, classes: int) -> ClassFigures:
    """The figures of every class, of one kind.

    Raises:
        ValueError: if they are of another number of classes.
        TypeError: if they are none.
    """
    columns = _columns(database, f"SELECT {_OF_WAY}, {kind} FROM figures JOIN class_figures USING (id) {_OF_PART}", part)
    if not columns:
        return {}
    *found, values = columns
    order, found_ways = _ways(found)
    names, shown = _names(database, part), table([values[one] for one in order], classes)
    return {(names[one.line], one.budget): (one.seeds, shown[one.cells]) for one in found_ways}


def keys(database: sqlite3.Connection) -> set[str]:
    """Of the cells that have figures."""
    return {key for (key,) in database.execute("SELECT key FROM figures")}


def _names(database: sqlite3.Connection, part: str) -> dict[int, str]:
    """The hash of every line of a part, by its number."""
    return dict(database.execute("SELECT id, hash FROM lines WHERE part = ?", (part,)))


def _columns(database: sqlite3.Connection, query: str, part: str) -> list[Sequence[Any]]:
    """What is found, column by column (none if nothing is): many cells are looked at together rather than one by one."""
    return list(zip(*database.execute(query, (part,)).fetchall(), strict=True))


class _Way(NamedTuple):
    """Cells that stand side by side, by ascending seed, and the lowest of their ids."""

    line: int
    budget: int
    seeds: tuple[int, ...]
    cells: slice
    first: int


def _ways(found: Sequence[Sequence[Any]]) -> tuple[list[int], list[_Way]]:
    """An order of the cells in which those of a way stand side by side, and the ways.

    Args:
        found: columns of line, budget, seed, id.

    Raises:
        ValueError: if they are something else than whole numbers.
    """
    if not all(set(map(type, column)) <= {int} for column in found):
        raise ValueError("a figure is of another kind")
    cells = np.array(found, dtype=np.int64)
    order = np.lexsort(cells[::-1])
    lines, budgets, seeds, ids = cells[:, order]
    ways = []
    others = np.flatnonzero((np.diff(lines) != 0) | (np.diff(budgets) != 0)) + 1
    for start, end in pairwise([0, *others.tolist(), len(order)]):
        way = slice(start, end)
        ways.append(_Way(int(lines[start]), int(budgets[start]), tuple(seeds[way].tolist()), way, int(ids[way].min())))
    return order.tolist(), ways


_OF_WAY = "line, budget, seed, id"
_OF_PART = "WHERE line IN (SELECT id FROM lines WHERE part = ?)"
CELLS_OF_PART = (
    f"SELECT key, config, result FROM cells WHERE key IN (SELECT key FROM figures {_OF_PART}) ORDER BY created, rowid"
)
"""The rows of the finished cells of a part, oldest first."""
CELLS_OF_IDS = "SELECT id, cells.key, config FROM figures JOIN cells USING (key) WHERE id IN "
"""Id, key and configuration of the finished cells of the ids that follow."""


def _bytes(values: Floats) -> bytes:
    return values.astype(_FLOAT).tobytes()


def table(rows: Sequence[bytes], width: int) -> Floats:
    """Kept numbers, float64 ``[len(rows), width]``.

    Raises:
        ValueError: if a row has another length.
        TypeError: if it is none.
    """
    if set(map(len, rows)) - {_FLOAT.itemsize * width}:
        raise ValueError("figures of another size")
    return np.frombuffer(b"".join(rows), _FLOAT).astype(np.float64, copy=False).reshape(len(rows), width)
