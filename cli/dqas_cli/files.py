"""Whether a file or folder can be written, asked before the work and not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dqas_plugin.errors import UserError
from dqas_plugin.paths import cache_folder, check_empty, check_regular


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written; nothing is left behind.

    Raises:
        UserError: if a file is in the way, or the system says no.
    """
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise UserError(f"cannot write to {folder}: {there} is a file; choose another folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose a folder you can write") from error


def check_new_folder(folder: Path) -> None:
    """Refuse a folder for results that holds something already, or cannot be made or written.

    Raises:
        UserError: if so.
    """
    check_empty(folder)
    check_writable(folder.resolve().parent)  # it is made there, and gets its name when it is whole


def check_new_file(path: Path) -> None:
    """Refuse a file that cannot be written, or a name that something else has.

    Raises:
        UserError: if so.
    """
    check_regular(path)
    check_writable(path.resolve().parent)


def check_cache() -> Path:
    """The cache folder, once it is known to be writable.

    Raises:
        UserError: if it is not.
    """
    folder = cache_folder()
    try:
        check_writable(folder)
    except UserError as error:
        raise UserError(f"the cache is of no use: {error}, and set DQAS_CACHE to it") from error
    return folder
