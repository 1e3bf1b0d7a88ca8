"""Folders of arrays in the cache: built once, opened often, and either whole or absent.

An entry is built in a temporary folder beside it and renamed when complete. Its ``checksums.txt`` has the hash of every other
file, in the form that ``b2sum --check`` reads. Whenever the entry is opened the hashes of small files are compared. Those of
large files are compared when one of them has been touched since the last time, and once after every start of the machine
(``verified.txt`` says of what), so that opening does not read a gigabyte. What does not agree is built again.
A lock keeps several processes from building the same entry.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.errors import UserError, out_of_memory
from dqas_plugin.paths import cannot_write, lock, part_folder, remove, settle, settle_name

_log = logging.getLogger(__name__)
_META, _CHECKSUMS, _VERIFIED = "meta.json", "checksums.txt", "verified.txt"
_SMALL = 1 << 22  # bytes; hashed in 4 ms
_MACHINES = 16  # that a shared cache remembers to have verified an entry
_BOOT = Path("/proc/sys/kernel/random/boot_id")
T = TypeVar("T")


def cached_entry(
    entry: Path, name: str, fill: Callable[[Path], dict[str, Any]], read: Callable[[Path, dict[str, Any]], T]
) -> T:
    """What ``read`` makes of an entry, which is built first if it is missing or damaged.

    Args:
        entry: its folder, in a folder that exists.
        name: what people know it by, for messages.
        fill: writes all files into the folder it gets and returns the metadata (JSON); called at most once.
        read: opens the files; it gets the folder and the metadata, and may fail in any way on those of another version.

    Raises:
        UserError: the cache cannot be read or written; and whatever ``fill`` raises. Nothing half-built stays behind.
    """
    with suppress(_UnusableError):
        return _open(entry, name, read)
    try:
        with _only_builder(entry.parent / f".{entry.name}.lock"):
            try:
                return _open(entry, name, read)  # another process built it while we waited
            except _UnusableError as reason:
                if os.path.lexists(entry):
                    _log.warning("the cache entry of %s is damaged (%s) and is built again: %s", name, reason, entry)
                    remove(entry)
            _build(entry, fill)
    except OSError as error:
        if out_of_memory(error):
            raise
        raise cannot_write(f"the cache of {name} in {entry.parent}", error, "set DQAS_CACHE to another folder") from error
    try:
        return _open(entry, name, read)
    except _UnusableError as error:
        raise UserError(
            f"the cache entry {entry} was damaged while it was written ({error}): check the disk, or change DQAS_CACHE"
        ) from error


def entry_key(described: Any) -> str:
    """Name of an entry: the hash of all that it depends on, in values that JSON knows."""
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()


def map_array(path: Path) -> Tensor:
    """The array of an ``.npy`` file as a tensor, memory-mapped; never unpickles.

    The map is private and writable: torch then does not warn of read-only memory, and the file cannot change.
    """
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def write_weights(content: Any, path: Path) -> None:
    """Write what ``torch.save`` makes of it.

    Raises:
        OSError: if the disk is full; torch by itself ends with a complaint of its own about that, if the file is its own.
    """
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


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
        """End the file."""
        self._file.close()

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _UnusableError(Exception):
    """There is no entry, or it is damaged; the message says in what way."""


def _open(entry: Path, name: str, read: Callable[[Path, dict[str, Any]], T]) -> T:
    """What ``read`` makes of a whole entry.

    Raises:
        _UnusableError: if it is missing or damaged.
        UserError: if it cannot be read, but may well be whole.
    """
    try:
        meta = _verified(entry)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        missing = Path(os.fsdecode(error.filename or entry)).name
        raise _UnusableError(f"{missing} is missing or no longer what it was") from error
    except OSError as error:
        raise _unreadable(entry, name, error) from error
    try:
        return read(entry, meta)
    except OSError as error:
        raise _unreadable(entry, name, error) from error
    except (ValueError, LookupError, TypeError, AttributeError, UserError) as error:
        if out_of_memory(error):
            raise
        raise _UnusableError(f"this version cannot use it ({error})") from error


def _unreadable(entry: Path, name: str, error: OSError) -> Exception:
    """Not damage: building it again would not help, and would throw away what is whole."""
    if out_of_memory(error):
        return error
    reason = error.strerror or error
    return UserError(
        f"cannot read the cache entry {entry} of {name} ({reason}): mend that, or set DQAS_CACHE to another folder"
    )


def _verified(entry: Path) -> dict[str, Any]:
    """The metadata of an entry, once all files agree with their hashes."""
    sums = _checksums(entry)
    found = {one.name: one.stat() for one in entry.iterdir() if one.name not in (_CHECKSUMS, _VERIFIED)}
    if sums.keys() != found.keys() or _META not in sums:
        raise _UnusableError(f"{_CHECKSUMS} names other files than there are")
    large = {name: state for name, state in found.items() if state.st_size > _SMALL}
    stamp = _stamp(large)
    known = _stamps(entry) if large else []
    for name, expected in sums.items():
        if (name not in large or stamp not in known) and _hash(entry / name) != expected:
            raise _UnusableError(f"{name} has not the content that was written")
    if large and stamp not in known:
        _remember(entry, [*known, stamp])
    meta: dict[str, Any] = json.loads((entry / _META).read_text(encoding="utf-8"))
    return meta


def _checksums(entry: Path) -> dict[str, str]:
    """The hashes of the files, by name."""
    try:
        lines = (entry / _CHECKSUMS).read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        if (entry / _META).is_file():
            raise _UnusableError("it has no checksums; older versions wrote none") from None
        raise
    except UnicodeDecodeError as error:
        raise _UnusableError(f"{_CHECKSUMS} is damaged") from error
    return {name: value for value, _, name in (line.partition("  ") for line in lines)}


def _write_checksums(entry: Path) -> None:
    lines = [f"{_hash(file)}  {file.name}\n" for file in sorted(entry.iterdir()) if file.name not in (_CHECKSUMS, _VERIFIED)]
    (entry / _CHECKSUMS).write_text("".join(lines), encoding="ascii")


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _stamp(large: dict[str, os.stat_result]) -> str:
    """Tells that nobody has touched the files since, and that the machine has not been off."""
    boot = _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else ""
    states = [[name, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino] for name, one in sorted(large.items())]
    return entry_key([boot, states])


def _stamps(entry: Path) -> list[str]:
    try:
        return (entry / _VERIFIED).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _remember(entry: Path, stamps: list[str]) -> None:
    with suppress(OSError):  # a cache that can only be read is verified every time
        # A plain write: cut short, it is a stamp that does not agree.
        (entry / _VERIFIED).write_text("\n".join(stamps[-_MACHINES:]), encoding="ascii")


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    """Wait until no other process builds this entry; where there are no locks, do not."""
    with path.open("wb") as file:
        lock(file.fileno(), wait=True)
        yield


def _build(entry: Path, fill: Callable[[Path], dict[str, Any]]) -> None:
    with part_folder(entry) as temporary:
        meta = fill(temporary)
        (temporary / _META).write_text(json.dumps(meta), encoding="utf-8")
        _write_checksums(temporary)
        settle(temporary)  # else a power cut after the rename could leave an entry of the right length, all zeros
        large = {file.name: file.stat() for file in temporary.iterdir() if file.stat().st_size > _SMALL}
        if large:
            _remember(temporary, [_stamp(large)])
        _install(temporary, entry)


def _install(temporary: Path, entry: Path) -> None:
    try:
        temporary.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another process was faster (no locks here): its entry is as good
            raise
    settle_name(entry)
