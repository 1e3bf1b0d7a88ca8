"""Decoded images on disk, memory-mapped: decoded once, then opened in a fraction of a second.

An entry is a folder ``images/<key>`` in the cache: ``train.npy`` and ``test.npy`` (uint8 ``[N, C, H, W]``; no test file where
there is no test split), their labels, ``train-targets.npy`` where the training images have soft labels, and ``meta.json``
(classes, content digests, notes); see ``cache_entry`` for how it is built.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dqas_plugin.cache_entry import ArrayFile, cached_entry, map_array
from dqas_plugin.data import DatasetSplits, ImageDataset, TrainOnly, check_class_names, content_digest
from dqas_plugin.datasets.decode import Decoded, EncodedImages, decode_batches, without_size_warnings
from dqas_plugin.errors import UserError
from dqas_plugin.paths import cache_folder

_log = logging.getLogger(__name__)
_SPLITS = ("train", "test")


def cached_splits(
    name: str, key: str, source: Callable[[], EncodedImages], *, size: int | None = None, mirror: bool = True
) -> DatasetSplits:
    """The splits of a source of encoded images, from the cache if they are there, else decoded into it.

    Args:
        name: what results are labelled with; the splits become ``name/train`` and ``name/test``.
        key: identifies the content of the source and all options that change pixels, labels or split.
        source: opens the source; called only if the entry has to be built. With no image in its test split the result is
            :class:`TrainOnly`.
        size: side length to resize to, or None to demand one size of all images.
        mirror: see :class:`ImageDataset`.

    Raises:
        UserError: an image is bad (it is named), or the cache cannot be written.
    """

    def fill(folder: Path) -> dict[str, Any]:
        return _fill(folder, name, source(), size)

    def read(folder: Path, meta: dict[str, Any]) -> DatasetSplits:
        opened = [_open_split(folder, meta, split, name, mirror) for split in _SPLITS if split in meta["digests"]]
        return DatasetSplits(*opened) if len(opened) == len(_SPLITS) else TrainOnly(*opened)

    return cached_entry(cache_folder("images") / key, name, fill, read)


def _open_split(entry: Path, meta: dict[str, Any], split: str, name: str, mirror: bool) -> ImageDataset:
    targets = entry / f"{split}-targets.npy"
    return ImageDataset(
        map_array(entry / f"{split}.npy"),
        map_array(entry / f"{split}-labels.npy"),
        tuple(meta["classes"]),
        f"{name}/{split}",
        mirror=mirror,
        digest=str(meta["digests"][split]),
        notes=tuple(meta["notes"][split]),
        targets=map_array(targets) if targets.exists() else None,
    )


def _fill(folder: Path, name: str, source: EncodedImages, size: int | None) -> dict[str, Any]:
    """Write the arrays of an entry into ``folder``; its metadata."""
    check_class_names(source.classes, name)
    conversions = _decode_into(folder, name, source, size)
    meta: dict[str, Any] = {"classes": source.classes, "digests": {}, "notes": {}}
    for split, chosen in zip(_SPLITS, (~source.in_test, source.in_test), strict=True):
        if not chosen.any():
            (folder / f"{split}.npy").unlink()  # an empty file cannot be mapped
            continue
        np.save(folder / f"{split}-labels.npy", np.ascontiguousarray(source.labels[chosen]))
        images, labels = (map_array(folder / f"{split}{kind}.npy") for kind in ("", "-labels"))
        targets = None
        if split == "train" and source.targets is not None:
            np.save(folder / f"{split}-targets.npy", source.targets)
            targets = torch.from_numpy(source.targets)
            # Checked here, where a mistake is the source's; on opening it would be damage.
            ImageDataset(images, labels, source.classes, f"{name}/{split}", targets=targets)
        meta["digests"][split] = content_digest(images, labels, source.classes, targets)
        counted = [f"{count:,} {what}" for what, count in sorted(conversions[split].items())]
        meta["notes"][split] = [*source.notes, *counted]
    return meta


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
            if position != len(source.labels):
                raise UserError(
                    f"{name} has {len(source.labels):,} labels but {position:,} images: give one of each in every row"
                )
        finally:
            for writer in writers:
                writer.close()
    return conversions


class _Appender:
    """Writes images into an ``.npy`` file, one batch after the other."""

    def __init__(self, path: Path, length: int, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._file = ArrayFile(path, (length, *shape), np.uint8)

    def append(self, images: list[Decoded], conversions: Counter[str]) -> None:
        block = np.empty((len(images), *self._shape), dtype=np.uint8)  # [B, C, H, W]
        for row, one in zip(block, images, strict=True):
            if len(one.pixels) > len(row):
                raise _ColourFoundError
            if len(one.pixels) < len(row):
                conversions["grey images became RGB"] += 1
            row[:] = one.pixels  # grey is repeated over the channels
            conversions.update(one.conversions)
        self._file.write(block)

    def close(self) -> None:
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
