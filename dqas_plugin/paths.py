"""Where caches live, and how a file is written so that a stop half-way leaves nothing half-written."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dqas_plugin.errors import UserError


def cache_folder(*parts: str) -> Path:
    """``$DQAS_CACHE`` (default ``~/.cache/dqas``) and the parts below it; created if missing."""
    base = os.environ.get("DQAS_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "dqas")
    folder = Path(base).expanduser().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write the cache folder {folder} ({error.strerror}): set DQAS_CACHE to a folder you can write"
        ) from error
    return folder


def check_empty(folder: Path) -> None:
    """Refuse a folder for new files that holds some, or is a file.

    Raises:
        UserError: if so.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not an empty folder: choose another name")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that gets the name ``folder`` when the block ends well, and is removed when it does not.

    Raises:
        UserError: if something is in ``folder`` already, or it cannot be written.
    """
    check_empty(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            whole = Path(temporary) / "whole"
            whole.mkdir()
            yield whole
            whole.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror or error}): choose another folder") from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and is removed when it does not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.part"
        temporary.touch(exist_ok=False)  # with the usual permissions; those of tempfile are the owner's alone
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose a folder you can write") from error
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
