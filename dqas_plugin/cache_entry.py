"""Folders of arrays in the cache: built once, opened often, and either whole or absent.

An entry is built in a temporary folder beside it and renamed when complete. Its ``meta.json`` holds the length of every other
file, which is checked whenever the entry is opened; the content is not hashed again (that would read a gigabyte), so bytes
changed in place by hand go unnoticed. A lock keeps several processes from building the same entry.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows: there two processes may build the same entry, and the first one done wins
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)
_META = "meta.json"
T = TypeVar("T")


def cached_entry(
    entry: Path, name: str, fill: Callable[[Path], dict[str, Any]], read: Callable[[Path, dict[str, Any]], T]
) -> T:
    """What ``read`` makes of an entry, which is built first if it is missing or damaged.

    Args:
        entry: its folder, in a folder that exists.
        name: what people know it by, for messages.
        fill: writes all files into the folder it gets and returns the metadata (JSON); called at most once.
        read: opens the files; it gets the folder and the metadata, and may fail in any way on a damaged one.

    Raises:
        UserError: the cache cannot be written; and whatever ``fill`` raises. Nothing half-built stays behind.
    """
    if (found := _open(entry, read)) is not None:
        return found
    with _only_builder(entry.parent / f".{entry.name}.lock") as alone:
        if (found := _open(entry, read)) is not None:  # another process built it while we waited
            return found
        _remove_damaged(entry, name)
        if alone:
            _remove_leftovers(entry)
        _build(entry, name, fill)
    found = _open(entry, read)
    if found is None:
        raise UserError(f"the cache entry {entry} was damaged while it was written: check the disk, or change DQAS_CACHE")
    return found


def entry_key(described: Any) -> str:
    """Name of an entry: the hash of all that it depends on, in values that JSON knows."""
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()


def map_array(path: Path) -> Tensor:
    """The array of an ``.npy`` file as a tensor, memory-mapped; never unpickles.

    The map is private and writable: torch then does not warn of read-only memory, and the file cannot change.
    """
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


class ArrayFile:
    """Writes an ``.npy`` file block by block; its shape is known beforehand.

    Plain writes rather than a writable memory map: on a full disk they fail with an error instead of killing the process,
    and no page of the file has to stay in memory.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._file: BinaryIO = path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, block: npt.NDArray[Any]) -> None:
        """Append rows, ``[B, …]``."""
        self._file.write(np.ascontiguousarray(block, dtype=self._dtype).data)

    def close(self) -> None:
        """Make sure that everything is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())  # else a power cut after the rename could leave an entry of the right length, all zeros
        self._file.close()

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(entry: Path, read: Callable[[Path, dict[str, Any]], T]) -> T | None:
    """What ``read`` makes of a whole entry; None if it is missing or damaged."""
    try:
        meta = json.loads((entry / _META).read_text(encoding="utf-8"))
        if any((entry / file).stat().st_size != length for file, length in meta["lengths"].items()):
            return None
        return read(entry, meta)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, UserError):  # whatever a damaged file may cause
        return None


@contextmanager
def _only_builder(path: Path) -> Iterator[bool]:
    """Wait until no other process builds this entry; yields whether that could be made sure of."""
    if fcntl is None:
        yield False
        return
    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # released by the system when the process ends, however it ends
        except OSError:  # a file system without locks
            locked = False
        else:
            locked = True
        yield locked


def _remove_damaged(entry: Path, name: str) -> None:
    if entry.exists():
        _log.warning("the cache entry of %s is damaged and is built again: %s", name, entry)
        shutil.rmtree(entry)


def _remove_leftovers(entry: Path) -> None:
    """Delete what a builder of this entry left behind that was killed (nobody else builds it now)."""
    for folder in entry.parent.glob(f".{entry.name}.*.part"):
        shutil.rmtree(folder, ignore_errors=True)


def _build(entry: Path, name: str, fill: Callable[[Path], dict[str, Any]]) -> None:
    try:
        temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}.", suffix=".part"))
        try:
            meta = fill(temporary)
            meta["lengths"] = {file.name: file.stat().st_size for file in sorted(temporary.iterdir())}
            (temporary / _META).write_text(json.dumps(meta), encoding="utf-8")
            _install(temporary, entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write the cache of {name} in {entry.parent} ({reason}): free some space, or set DQAS_CACHE"
        ) from error


def _install(temporary: Path, entry: Path) -> None:
    try:
        temporary.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another process was faster (no locks here): its entry is as good
            raise
