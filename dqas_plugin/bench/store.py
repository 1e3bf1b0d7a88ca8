"""The results of a benchmark: one SQLite file. Only drivers write to it, row by row, so that a stop leaves it whole.

A row is on the disk when it is written: a power cut loses none. Several processes may read and write at once; the file is
locked for the milliseconds of a write only.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from dqas_plugin.bench import kept_figures
from dqas_plugin.bench.finished import Kind, part_of
from dqas_plugin.bench.grid import RESULT_FORMAT, Cell, hashed
from dqas_plugin.bench.kept_figures import Kept
from dqas_plugin.bench.stored_rows import check_result, checked_cell, is_shown
from dqas_plugin.errors import UserError
from dqas_plugin.untrusted import check_readable, parsed_json

Result = dict[str, Any]

_APPLICATION = 0x44514153  # "DQAS": tells the file from any other SQLite file
_AT_ONCE = 500  # keys in a query
_WAIT = 60.0  # seconds, for other processes
_CACHE = 64 * 1024  # KiB; with the 2 MB that are usual pages of a large file are read again and again
_OLDEST_FIRST = "SELECT key, config, result FROM cells ORDER BY created, rowid"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS trainings (key TEXT PRIMARY KEY, config TEXT NOT NULL, result TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, config TEXT NOT NULL, result TEXT NOT NULL, created TEXT NOT NULL);
"""


class Store:
    """``FOLDER/results.sqlite``. Use it in a ``with`` block.

    Args:
        folder: made if it is missing.
        reading: only read what is there; then nothing has to be writable.

    Raises:
        UserError: if the folder cannot be written, or the file is damaged or not one of ours; then and later.
    """

    def __init__(self, folder: Path | str, *, reading: bool = False) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "results.sqlite"
        self._closing = ExitStack()
        try:
            self._database = self._open_to_read() if reading else self._open()
            if not reading:
                self._add_figures()
        except BaseException:
            self._closing.close()
            raise

    @classmethod
    def existing(cls, folder: Path | str) -> Store:
        """The store of a folder that has one, to read it.

        Raises:
            UserError: if it has none, or the file is damaged or not one of ours.
        """
        if not cls.exists(folder):
            raise _no_results(folder)
        return cls(folder, reading=True)

    @staticmethod
    def exists(folder: Path | str) -> bool:
        """Whether there are results in the folder."""
        return (Path(folder) / "results.sqlite").is_file()

    def _open(self) -> sqlite3.Connection:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write results to {self.folder} ({error.strerror}): choose another folder") from error
        with self._in_words("write"):
            database = self._connection(str(self.path))
            if not self._is_ours(database):
                _log_ahead(database)
                # All at once: a process that is killed half-way, or another that looks, must not find a part of it.
                database.executescript(
                    f"BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {RESULT_FORMAT};"
                    f"{_SCHEMA} COMMIT;"
                )
            database.execute("PRAGMA synchronous = FULL")
        if not all(os.access(one, os.W_OK) for one in (self.folder, self.path)):  # SQLite says so at the first result only
            raise UserError(f"cannot write {self.path} (it can only be read): choose another folder")
        return database

    def _open_to_read(self) -> sqlite3.Connection:
        """A connection that writes nothing."""
        with self._in_words("read"):
            try:
                database = self._connection(str(self.path))
                ours = self._is_ours(database)
            except sqlite3.OperationalError as error:
                if not any(words in str(error) for words in ("unable to open", "readonly", "I/O", "full")):
                    raise
                database = self._open_unwritable()
                ours = self._is_ours(database)
            if not ours:
                raise _no_results(self.folder)
            database.execute("PRAGMA query_only = ON")
            database.execute(f"PRAGMA cache_size = -{_CACHE}")
            database.execute("BEGIN")  # all that is read is of one moment, whatever is written meanwhile; nobody has to wait
        return database

    def _open_unwritable(self) -> sqlite3.Connection:
        """Where SQLite can make no files of its own beside it, nobody writes, so the file can be read by itself.

        If a process was killed there when one still could, a log is beside it; then both are copied.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        if not log.exists() or log.stat().st_size == 0:
            return self._connection(f"{self.path.absolute().as_uri()}?immutable=1", uri=True)
        try:
            folder = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="dqas-"))
            copy, _ = (shutil.copyfile(one, Path(folder) / one.name) for one in (self.path, log))
        except OSError as error:
            raise UserError(f"cannot copy {self.path} to read it ({error.strerror}): set TMPDIR to another folder") from error
        return self._connection(str(copy))

    def _connection(self, name: str, *, uri: bool = False) -> sqlite3.Connection:
        """A connection that is closed with the store: autocommit; another process on the same folder waits its turn."""
        database = sqlite3.connect(name, timeout=_WAIT, isolation_level=None, uri=uri)
        self._closing.callback(database.close)
        return database

    @contextmanager
    def _in_words(self, verb: str) -> Iterator[None]:
        """What SQLite says becomes a sentence with a remedy."""
        try:
            yield
        except sqlite3.Error as error:
            said = str(error)
            if "not a database" in said:
                raise UserError(f"{self.path} is not a file of results: move it away or choose another folder") from error
            if "malformed" in said or "no such" in said or "decode" in said:
                raise self._damaged(said) from error
            raise UserError(f"cannot {verb} {self.path} ({said}): {_remedy(verb, said)}") from error

    def _damaged(self, said: str) -> UserError:
        return UserError(
            f"{self.path} is damaged ({said}): move it away, and dqas bench trains again with the selections it finds; what is "
            f"left in it can be had with: sqlite3 {self.path} .recover"
        )

    def _is_ours(self, database: sqlite3.Connection) -> bool:
        """Whether it has our tables, rather than none; files of other programs and of other versions are refused."""
        database.execute("BEGIN")  # all three as they are at one moment: another process may be making the file just now
        try:
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
        if application != _APPLICATION and (application or version or tables):
            raise UserError(f"{self.path} belongs to another program: move it away or choose another folder")
        if application == _APPLICATION and version != RESULT_FORMAT:
            raise UserError(
                f"{self.path} has results of format {version}, this version of dqas writes format {RESULT_FORMAT}: "
                "choose another folder"
            )
        return bool(application == _APPLICATION)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.close()

    def selection(self, cell: Cell) -> Path:
        """Where the selection of the cell is kept."""
        return self.folder / "selections" / f"{cell.key}.npz"

    def result(self, cell: Cell) -> Result | None:
        """The result of the cell, if it is finished."""
        return self._read("cells", cell.key)

    def training(self, configuration: Mapping[str, Any]) -> Result | None:
        """The result of the training of that configuration, if it is finished."""
        return self._read("trainings", hashed(configuration))

    def results(self, cells: Iterable[Cell]) -> dict[str, Result]:
        """Results of those of the cells that are finished, by key; in the order of the cells."""
        wanted = [cell.key for cell in cells]
        found = {key: self._parsed(result) for key, result in self._chosen("result", wanted)}
        return {key: found[key] for key in wanted if key in found}

    def stored(self, cells: Iterable[Cell]) -> set[str]:
        """Keys of those of the cells that are finished."""
        return {key for key, _ in self._chosen("key", [cell.key for cell in cells])}

    @property
    def has_figures(self) -> bool:
        """Whether the figures that tables show are there for every finished cell; a file of an older version has none."""
        with self._in_words("read"):
            return kept_figures.complete(self._database)

    def parts(self) -> list[tuple[str, Cell]]:
        """Every part of the results with its first cell, where there are figures; those measured first come first."""
        with self._of_figures():
            found = list(kept_figures.parts(self._database))
        cells = self._cells_of([first for _, first in found])
        return [(part, cells[first]) for part, first in found]

    def ways(self, part: str) -> list[tuple[Kept, Cell]]:
        """The ways of a part, each with the first of its cells; those measured first come first."""
        with self._of_figures():
            found = kept_figures.ways(self._database, part)
        cells = self._cells_of([one.first for one in found])
        return [(one, cells[one.first]) for one in found]

    def class_figures(self, part: str, kind: Kind, classes: int) -> kept_figures.ClassFigures:
        """Accuracies or counts of every class in a part, which has so many."""
        with self._of_figures():
            return kept_figures.of_classes(self._database, part, kind, classes)

    @contextmanager
    def _of_figures(self) -> Iterator[None]:
        with self._in_words("read"):
            try:
                yield
            except (ValueError, TypeError, OverflowError) as error:  # whatever a damaged file may cause
                raise self._damaged("the figures of its tables are none") from error

    def cells_beside(self, cell: Cell) -> Iterator[tuple[Cell, Result]]:
        """Every finished cell of the table that a cell belongs to, with its result, oldest first."""
        part = part_of(cell)
        if not self.has_figures:
            yield from ((one, result) for one, result in self.cells() if part_of(one) == part)
            return
        yield from self._cells(kept_figures.CELLS_OF_PART, part)

    def cells(self) -> Iterator[tuple[Cell, Result]]:
        """Every finished cell with its result, oldest first."""
        yield from self._cells(_OLDEST_FIRST)

    def shown(self) -> Iterator[tuple[Cell, Result]]:
        """The same, each fit to make a table of.

        Raises:
            UserError: if one is not.
        """
        for cell, result in self.cells():
            try:
                check_result(result, cell.dataset.classes)
            except ValueError as error:
                raise self._damaged(str(error)) from error
            yield cell, result

    def add_training(self, configuration: Mapping[str, Any], result: Result) -> None:
        """Keep the result of a training."""
        self._write("trainings", hashed(configuration), configuration, result)

    def add_cell(self, cell: Cell, result: Result) -> None:
        """Keep the result of a cell, and the figures that tables show of it."""
        with self._in_words("write"), _transaction(self._database):
            self._write("cells", cell.key, cell.configuration(), result)
            if is_shown(result, cell.dataset.classes):
                kept_figures.keep(self._database, cell, result)

    def _add_figures(self) -> None:
        """Make those of cells that an older version stored."""
        if self.has_figures:
            return
        with self._in_words("write"):
            self._database.executescript(kept_figures.SCHEMA)
            with _transaction(self._database):
                there = kept_figures.keys(self._database)
                for cell, result in self.cells():
                    if cell.key not in there and is_shown(result, cell.dataset.classes):
                        kept_figures.keep(self._database, cell, result)

    def _cells_of(self, ids: Sequence[int]) -> dict[int, Cell]:
        """The cells of these ids, which their figures have, by id."""
        rows = list(self._of(kept_figures.CELLS_OF_IDS, ids))
        found = {one: self._cell(key, config) for one, key, config in rows}
        if len(found) < len(ids):
            raise self._damaged("figures belong to no cell")
        return found

    def _cells(self, query: str, *values: str) -> Iterator[tuple[Cell, Result]]:
        with closing(self._rows(query, *values)) as rows:  # before the file, also where one of them is no cell
            for key, config, result in rows:
                yield self._cell(key, config), self._parsed(result)

    def _cell(self, key: str, config: str) -> Cell:
        try:
            cell = checked_cell(self._parsed(config))
        except ValueError as error:
            raise self._damaged(str(error)) from error
        vars(cell)["key"] = key  # where it is cached: it need not be hashed again
        return cell

    def _chosen(self, column: str, keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Key and that column of those of the finished cells."""
        return self._of(f"SELECT key, {column} FROM cells WHERE key IN ", keys)

    def _of(self, query: str, values: Sequence[str | int]) -> Iterator[Any]:
        """What a query finds that asks for one of those values, some at a time."""
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            yield from self._rows(f"{query}({','.join('?' * len(part))})", *part)

    def _read(self, table: str, key: str) -> Result | None:
        rows = list(self._rows(f"SELECT result FROM {table} WHERE key = ?", key))
        return self._parsed(rows[0][0]) if rows else None

    def _rows(self, query: str, *values: str | int) -> Generator[Any, None, None]:
        with self._in_words("read"):
            yield from self._database.execute(query, values)

    def _parsed(self, text: Any) -> dict[str, Any]:
        try:
            found = parsed_json(text)
        except (ValueError, TypeError) as error:
            raise self._damaged("a row is no JSON") from error
        if not isinstance(found, dict):
            raise self._damaged("a row is no JSON object")
        return found

    def _write(self, table: str, key: str, configuration: Mapping[str, Any], result: Result) -> None:
        values = (key, _json(configuration), _json(result), datetime.now(UTC).isoformat(timespec="milliseconds"))
        with self._in_words("write"):
            self._database.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", values)


def _log_ahead(database: sqlite3.Connection) -> None:
    """Let the file have a write-ahead log. Of all statements this is the one where SQLite does not wait for other processes."""
    until = time.monotonic() + _WAIT
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.005)


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside, or nothing; inside another one, part of that."""
    if database.in_transaction:
        yield
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.rollback()
        raise
    database.commit()


def _no_results(folder: Path | str) -> UserError:
    return UserError(f"{folder} has no results: run dqas bench with --results {folder} first, or name another folder")


def _remedy(verb: str, said: str) -> str:
    if "locked" in said:
        return "wait until the other process is done with it, and start the same command again"
    if verb == "write" and ("full" in said or "I/O" in said):
        return "make room, and start the same command again, or choose another folder"
    return "choose another folder"


def _json(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    check_readable(text)
    return text
