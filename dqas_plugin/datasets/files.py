"""Finding image files, and the hashes that name a source of images."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from dqas_plugin.errors import UserError

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_FORMAT = "2"  # raise it whenever the same source would give other pixels or another file layout


class ImageFile(NamedTuple):
    """One file below a folder: its path relative to it (with ``/``), length in bytes and time of change."""

    relative: str
    size: int
    state: str


def existing_folder(path: str | Path, what: str) -> Path:
    """``path`` as a folder that exists, or an error that says what was looked for."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{what}: {folder} {state}; name the folder that holds the data")
    return folder


def dataset_name(path: Path) -> str:
    """What results are labelled with: the last part of the path, without a file ending."""
    full = path.resolve()
    return (full.name if full.is_dir() else full.stem) or str(full)


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly inside ``folder``, sorted by name."""
    visible = (one for one in folder.iterdir() if not one.name.startswith("."))
    found = (one for one in visible if os.path.isdir(one))  # no error, wherever a link may lead
    return sorted(found, key=lambda one: one.name)


def image_files(root: Path, folder: Path) -> tuple[list[ImageFile], int]:
    """Image files anywhere below ``folder``, sorted, with paths relative to ``root``; and how many other files lie there.

    A file is an image if its ending says so (:data:`IMAGE_ENDINGS`); hidden files and folders are passed over.
    """
    found: list[ImageFile] = []
    others = 0
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [one for one in folders if not one.startswith(".")]
        relative = os.path.relpath(parent, root).replace(os.sep, "/")  # once a folder: this runs at every load
        for name in names:
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS:
                status = _status(f"{parent}{os.sep}{name}")
                if not stat.S_ISREG(status.st_mode):  # one waits for ever for a pipe, and devices do not end
                    raise UserError(f"{parent}{os.sep}{name} is no regular file: remove it")
                state = f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
                found.append(ImageFile(f"{relative}/{name}", status.st_size, state))
            else:
                others += 1
    return sorted(found), others


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        _unreadable(error)


def _unreadable(error: OSError) -> NoReturn:
    raise UserError(f"cannot read {error.filename} ({error.strerror}): mend or remove it") from error


def listing_key(kind: str, files: Iterable[ImageFile], options: Mapping[str, object]) -> str:
    """Cache key of a folder of image files.

    It covers relative path, length and state of every file, not the bytes: reading 110,000 small files would take longer than
    the reload is allowed to. The state is what no two files have in common and no change leaves as it is: the times of the
    content (which archives bring with them) and of the entry on the disk (ns), and its number there.
    """
    return _key(kind, options, (f"{one.relative}\x1f{one.size}\x1f{one.state}" for one in files))


def content_key(kind: str, files: Iterable[tuple[str, Path]], options: Mapping[str, object]) -> str:
    """Cache key of a few large files: the hash of all their bytes, each with its role (``train``, ``test``)."""
    return _key(kind, options, (f"{role}\x1f{file_digest(path)}" for role, path in files))


def _key(kind: str, options: Mapping[str, object], parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in [_FORMAT, kind, repr(sorted(options.items())), *parts]:
        digest.update(os.fsencode(part) + b"\0")  # names on disk need not be valid UTF-8
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Hex BLAKE2b-128 of all bytes of a file, read block by block.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): mend or remove it") from error
