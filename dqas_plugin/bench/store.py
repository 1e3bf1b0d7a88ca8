"""The results of a benchmark: one SQLite file. Only the driver writes to it, row by row, so that a stop leaves it whole."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from dqas_plugin.bench.grid import RESULT_FORMAT, Cell, hashed
from dqas_plugin.errors import UserError

Result = dict[str, Any]

_APPLICATION = 0x44514153  # "DQAS": tells the file from any other SQLite file
_SCHEMA = """
CREATE TABLE IF NOT EXISTS trainings (key TEXT PRIMARY KEY, config TEXT NOT NULL, result TEXT NOT NULL, created TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, config TEXT NOT NULL, result TEXT NOT NULL, created TEXT NOT NULL);
"""


class Store:
    """``FOLDER/results.sqlite``. Use it in a ``with`` block.

    Args:
        folder: made if it is missing.

    Raises:
        UserError: if the folder cannot be written, or the file is not one of ours.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "results.sqlite"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write results to {self.folder} ({error.strerror}): choose another folder") from error
        self._database = self._open()

    @classmethod
    def existing(cls, folder: Path | str) -> Store:
        """The store of a folder that has one.

        Raises:
            UserError: if it has none, or the file is not one of ours.
        """
        if not cls.exists(folder):
            raise UserError(f"{folder} has no results: run dqas bench with --results {folder} first, or name another folder")
        return cls(folder)

    @staticmethod
    def exists(folder: Path | str) -> bool:
        """Whether there are results in the folder."""
        return (Path(folder) / "results.sqlite").is_file()

    def _open(self) -> sqlite3.Connection:
        database = None
        try:
            # autocommit; another process on the same folder waits its turn
            database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._check(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {RESULT_FORMAT}")
        except sqlite3.Error as error:
            if database is not None:
                database.close()
            if "not a database" in str(error):
                raise UserError(f"{self.path} is not a file of results: move it away or choose another folder") from error
            raise UserError(f"cannot write {self.path} ({error}): choose another folder") from error
        except UserError:
            database.close()  # type: ignore[union-attr]  # only raised once it is open
            raise
        return database

    def _check(self, database: sqlite3.Connection) -> None:
        """Refuse files of other programs and of other versions of this one."""
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != _APPLICATION and (application or version or tables):
            raise UserError(f"{self.path} belongs to another program: move it away or choose another folder")
        if application == _APPLICATION and version != RESULT_FORMAT:
            raise UserError(
                f"{self.path} has results of format {version}, this version of dqas writes format {RESULT_FORMAT}: "
                "choose another folder"
            )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._database.close()

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
        """Results of those of the cells that are finished, by key."""
        found = ((cell.key, self.result(cell)) for cell in cells)
        return {key: result for key, result in found if result is not None}

    def cells(self) -> Iterator[tuple[Cell, Result]]:
        """Every finished cell with its result, oldest first."""
        for key, config, result in self._database.execute("SELECT key, config, result FROM cells ORDER BY created, rowid"):
            cell = Cell.from_configuration(json.loads(config))
            vars(cell)["key"] = key  # where it is cached: it need not be hashed again
            yield cell, json.loads(result)

    def add_training(self, configuration: Mapping[str, Any], result: Result) -> None:
        """Keep the result of a training."""
        self._write("trainings", hashed(configuration), configuration, result)

    def add_cell(self, cell: Cell, result: Result) -> None:
        """Keep the result of a cell."""
        self._write("cells", cell.key, cell.configuration(), result)

    def _read(self, table: str, key: str) -> Result | None:
        row = self._database.execute(f"SELECT result FROM {table} WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _write(self, table: str, key: str, configuration: Mapping[str, Any], result: Result) -> None:
        values = (key, _json(configuration), _json(result), datetime.now(UTC).isoformat(timespec="milliseconds"))
        try:
            self._database.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", values)
        except sqlite3.Error as error:
            raise UserError(f"cannot write {self.path} ({error}): make room, and start the same command again") from error


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, allow_nan=False)
