"""The figures that tables show, kept in the file of results beside the results they are made of.

A result is a long text, and what is shown of it a few numbers: to read a hundred thousand of them takes a second. They can be
made again at any time, and a file without them (of an older version) is read by its results.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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

ClassFigures = dict[tuple[str, int], dict[int, bytes]]
"""Kept numbers of every class, by line and budget, and then by seed."""

_FLOAT = np.dtype("<f8")


class Kept(NamedTuple):
    """The figures of the finished cells of a way, by ascending seed.

    Attributes:
        line: names its line.
        budget: images.
        first: key of the cell that was measured first.
        seeds: of all cells.
        trainings: their keys.
        numbers: float64 ``[n, NUMBERS]``.
    """

    line: str
    budget: int
    first: str
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


def parts(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Every part of the results, and the key of its first cell; those that were measured first come first."""
    yield from database.execute(
        "SELECT part, key FROM figures JOIN (SELECT part, min(earliest) AS first FROM lines JOIN "
        "(SELECT line, min(id) AS earliest FROM figures GROUP BY line) AS of_line ON of_line.line = lines.id GROUP BY part) "
        "ON id = first ORDER BY first"
    )


def ways(database: sqlite3.Connection, part: str) -> list[Kept]:
    """The ways of a part; those that were measured first come first."""
    names = _names(database, part)
    found: dict[tuple[int, int], list[tuple[int, int, str, str, bytes]]] = {}
    for line, budget, *cell in database.execute(
        f"SELECT line, budget, seed, id, key, training, numbers FROM figures {_OF_PART}", (part,)
    ):
        found.setdefault((line, budget), []).append(tuple(cell))
    kept = []
    for (line, budget), cells in found.items():
        first = min(cells, key=lambda one: one[1])
        seeds, _, _, trainings, numbers = zip(*sorted(cells), strict=True)
        if not all(type(one) is int for one in (budget, *seeds)) or not all(type(one) is str for one in trainings):
            raise ValueError("a figure is of another kind")
        shown = table(numbers, NUMBERS)
        if not np.isfinite(shown).all():
            raise ValueError("a figure is no number")
        kept.append((first[1], Kept(names[line], budget, first[2], seeds, trainings, shown)))
    return [one for _, one in sorted(kept, key=lambda one: one[0])]


def of_classes(database: sqlite3.Connection, part: str, kind: Kind, classes: int) -> ClassFigures:
    """The figures of every class, of one kind.

    Raises:
        ValueError: if they are of another number of classes.
        TypeError: if they are none.
    """
    names = _names(database, part)
    found: dict[tuple[int, int], dict[int, bytes]] = {}
    for line, budget, seed, values in database.execute(
        f"SELECT line, budget, seed, {kind} FROM figures JOIN class_figures USING (id) {_OF_PART}", (part,)
    ):
        found.setdefault((line, budget), {})[seed] = values
    for cells in found.values():
        table(list(cells.values())[:1], classes)
    return {(names[line], budget): cells for (line, budget), cells in found.items()}


def keys(database: sqlite3.Connection) -> set[str]:
    """Of the cells that have figures."""
    return {key for (key,) in database.execute("SELECT key FROM figures")}


def _names(database: sqlite3.Connection, part: str) -> dict[int, str]:
    """The hash of every line of a part, by its number."""
    return dict(database.execute("SELECT id, hash FROM lines WHERE part = ?", (part,)))


_OF_PART = "WHERE line IN (SELECT id FROM lines WHERE part = ?)"
CELLS_OF_PART = (
    f"SELECT key, config, result FROM cells WHERE key IN (SELECT key FROM figures {_OF_PART}) ORDER BY created, rowid"
)
"""The rows of the finished cells of a part, oldest first."""


def _bytes(values: Floats) -> bytes:
    return values.astype(_FLOAT).tobytes()


def table(rows: Sequence[bytes], width: int) -> Floats:
    """Kept numbers, float64 ``[len(rows), width]``.

    Raises:
        ValueError: if a row has another length.
        TypeError: if it is none.
    """
    if any(len(one) != _FLOAT.itemsize * width for one in rows):
        raise ValueError("figures of another size")
    return np.frombuffer(b"".join(rows), _FLOAT).astype(np.float64, copy=False).reshape(len(rows), width)
