"""Decoded images on disk, memory-mapped: decoded once, then opened in a fraction of a second.

An entry is a folder ``images/<key>`` in the cache: ``train.npy`` and ``test.npy`` (uint8 ``[N, C, H, W]``), their labels, and
``meta.json`` (classes, content digests, notes, file lengths). It is built in a temporary folder beside it and renamed when
complete, so an entry is either whole or absent. Lengths are checked whenever an entry is opened; the pixels are not hashed
again (that would read a gigabyte), so bytes changed in place by hand go unnoticed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from dqas_plugin.data import DatasetSplits, ImageDataset, content_digest
from dqas_plugin.datasets.decode import Decoded, EncodedImages, decode_batches, without_size_warnings
from dqas_plugin.errors import UserError
from dqas_plugin.paths import cache_folder

try:
    import fcntl
except ImportError:  # not on Windows: there two processes may build the same entry, and the first one done wins
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)
_SPLITS = ("train", "test")


def cached_splits(
    name: str, key: str, source: Callable[[], EncodedImages], *, size: int | None = None, mirror: bool = True
) -> DatasetSplits:
    """The splits of a source of encoded images, from the cache if they are there, else decoded into it.

    Args:
        name: what results are labelled with; the splits become ``name/train`` and ``name/test``.
        key: identifies the content of the source and all options that change pixels, labels or split.
        source: opens the source; called only if the entry has to be built.
        size: side length to resize to, or None to demand one size of all images.
        mirror: see :class:`ImageDataset`.

    Raises:
        UserError: an image is bad (it is named), or the cache cannot be written.
    """
    parent = cache_folder("images")
    entry = parent / key
    if (splits := _open_entry(entry, name, mirror)) is not None:
        return splits
    with _only_builder(parent / f".{key}.lock") as alone:
        if (splits := _open_entry(entry, name, mirror)) is not None:  # another process built it while we waited
            return splits
        _remove_damaged(entry, name)
        if alone:
            _remove_leftovers(parent, key)
        _build_entry(entry, name, source(), size)
    splits = _open_entry(entry, name, mirror)
    if splits is None:
        raise UserError(f"the cache entry {entry} was damaged while it was written: check the disk, or set DQAS_CACHE to another")
    return splits


def _open_entry(entry: Path, name: str, mirror: bool) -> DatasetSplits | None:
    """The splits of a whole entry; None if it is missing or damaged."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if any((entry / file).stat().st_size != length for file, length in meta["lengths"].items()):
            return None
        train, test = (_open_split(entry, meta, split, name, mirror) for split in _SPLITS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):  # whatever a damaged file may cause
        return None
    return DatasetSplits(train, test)


def _open_split(entry: Path, meta: dict[str, Any], split: str, name: str, mirror: bool) -> ImageDataset:
    # Mode "c" maps privately and writably: torch then does not warn of read-only memory, and the file cannot change.
    images = np.load(entry / f"{split}.npy", mmap_mode="c", allow_pickle=False)
    labels = np.load(entry / f"{split}-labels.npy", allow_pickle=False)
    return ImageDataset(
        torch.from_numpy(images),
        torch.from_numpy(labels),
        tuple(meta["classes"]),
        f"{name}/{split}",
        mirror=mirror,
        digest=str(meta["digests"][split]),
        notes=tuple(meta["notes"][split]),
    )


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
            yield False
        else:
            yield True


def _remove_damaged(entry: Path, name: str) -> None:
    if entry.exists():
        _log.warning("the cache entry of %s is damaged and is built again: %s", name, entry)
        shutil.rmtree(entry)


def _remove_leftovers(parent: Path, key: str) -> None:
    """Delete what a builder of this entry left behind that was killed (nobody else builds it now)."""
    for folder in parent.glob(f".{key}.*.part"):
        shutil.rmtree(folder, ignore_errors=True)


def _build_entry(entry: Path, name: str, source: EncodedImages, size: int | None) -> None:
    try:
        temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}.", suffix=".part"))
        try:
            _fill(temporary, name, source, size)
            _install(temporary, entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot write the cache of {name} in {entry.parent} ({error.strerror or error}): free some space, or set DQAS_CACHE"
        ) from error


def _install(temporary: Path, entry: Path) -> None:
    try:
        temporary.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another process was faster (no locks here): its entry is as good
            raise


def _fill(folder: Path, name: str, source: EncodedImages, size: int | None) -> None:
    """Write all files of an entry into ``folder``."""
    conversions = _decode_into(folder, name, source, size)
    meta: dict[str, Any] = {"classes": source.classes, "digests": {}, "notes": {}, "lengths": {}}
    for split, chosen in zip(_SPLITS, (~source.in_test, source.in_test), strict=True):
        labels = np.ascontiguousarray(source.labels[chosen])
        np.save(folder / f"{split}-labels.npy", labels)
        images = np.load(folder / f"{split}.npy", mmap_mode="c")
        meta["digests"][split] = content_digest(torch.from_numpy(images), torch.from_numpy(labels), source.classes)
        counted = [f"{count:,} {what}" for what, count in sorted(conversions[split].items())]
        meta["notes"][split] = [*source.notes, *counted]
        for file in (f"{split}.npy", f"{split}-labels.npy"):
            meta["lengths"][file] = (folder / file).stat().st_size
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _decode_into(folder: Path, name: str, source: EncodedImages, size: int | None) -> dict[str, Counter[str]]:
    """Write the pixels of both splits; they are grey only if every image is."""
    with without_size_warnings():
        try:
            return _decode_as(None, folder, name, source, size)
        except _ColourFoundError:  # the first batch was all grey: rare, so starting again is cheaper than looking ahead
            return _decode_as(3, folder, name, source, size)


class _ColourFoundError(Exception):
    """A colour image came after grey ones."""


def _decode_as(
    channels: int | None, folder: Path, name: str, source: EncodedImages, size: int | None
) -> dict[str, Counter[str]]:
    conversions: dict[str, Counter[str]] = {split: Counter() for split in _SPLITS}
    writers: list[_Appender] = []
    position = 0
    with _progress(name, len(source.labels)) as advance:
        try:
            for batch in decode_batches(source.batches(), size):
                if not writers:
                    shape = (channels or max(len(one.pixels) for one in batch), *batch[0].pixels.shape[1:])
                    test = int(source.in_test.sum())
                    lengths = (len(source.labels) - test, test)
                    writers = [_Appender(folder / f"{s}.npy", n, shape) for s, n in zip(_SPLITS, lengths, strict=True)]
                in_test = source.in_test[position : position + len(batch)]
                for split, writer, chosen in zip(_SPLITS, writers, (~in_test, in_test), strict=True):
                    writer.append([batch[i] for i in np.flatnonzero(chosen)], conversions[split])
                position += len(batch)
                advance(len(batch))
        finally:
            for writer in writers:
                writer.close()
    return conversions


class _Appender:
    """Writes images one batch after the other into an ``.npy`` file whose length is known beforehand.

    Plain writes rather than a writable memory map: on a full disk they fail with an error instead of killing the process,
    and no page of the file has to stay in memory.
    """

    def __init__(self, path: Path, length: int, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._file: BinaryIO = path.open("wb")
        header = {"descr": "|u1", "fortran_order": False, "shape": (length, *shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, images: list[Decoded], conversions: Counter[str]) -> None:
        block = np.empty((len(images), *self._shape), dtype=np.uint8)  # [B, C, H, W]
        for row, one in zip(block, images, strict=True):
            if len(one.pixels) > len(row):
                raise _ColourFoundError
            if len(one.pixels) < len(row):
                conversions["grey images became RGB"] += 1
            row[:] = one.pixels  # grey is repeated over the channels
            conversions.update(one.conversions)
        self._file.write(block.data)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())  # else a power cut after the rename could leave an entry of the right length but of zeros
        self._file.close()


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr if that is a terminal, else a line in the log."""
    from rich.console import Console  # only when something is decoded
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        _log.info("decoding %d images of %s into the cache", total, name)
        yield lambda count: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"decoding {name}", total=total)
        yield lambda count: progress.advance(task, count)
