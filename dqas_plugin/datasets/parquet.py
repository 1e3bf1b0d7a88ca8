"""``parquet:PATH``: a file or a folder in the column layout of the Hugging Face hub.

The image column is a struct ``{bytes, path}`` of which the bytes are read; the label column is an integer. Class names come
from the ``huggingface`` entry of the schema's metadata (``info.features.<label>.names``) if there is one. Files of patches, as
``quantization/patch_files.py`` writes them, have no image column: their images are rebuilt. A column ``targets`` of such files,
or of images that this program wrote, holds soft labels.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dqas_plugin.data import DatasetSplits, IntArray
from dqas_plugin.datasets.cache import cached_splits
from dqas_plugin.datasets.decode import AT_A_STEP, Encoded, EncodedImages, in_batches
from dqas_plugin.datasets.files import content_key, dataset_name
from dqas_plugin.datasets.folder import TEST_NAMES
from dqas_plugin.datasets.splits import check_size, require_every_class, stratified_test_mask
from dqas_plugin.errors import UserError
from dqas_plugin.untrusted import parsed_json, size_of

if TYPE_CHECKING:
    from dqas_plugin.quantization.patch_files import PatchFormat, Rebuild

_IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
"""Usual names of a column of labels, the preferred one first."""
_MOST_ROWS = 1  # for each byte of a file; an image takes 50 bytes at the very least, and equal ones are rare
_BUFFER = 1 << 20  # bytes of a file that are read at once; without it, the whole column of a row group
_SPLIT_NAME = re.compile(r"(train|test|validation|valid|val)(?![a-z])", re.IGNORECASE)


def load(path: str, *, size: int | None = None, test_share: float = 0.2, seed: int = 0, mirror: bool = True) -> DatasetSplits:
    """Images and labels of parquet files; decoded once into the cache (key: all bytes of the files, and these options).

    In a folder, the split of a file is the beginning of its name (``train-00000-of-00001.parquet``), else the name of the
    folder it lies in (``train/0000.parquet``); ``test`` is preferred to ``val``, ``valid`` and ``validation``. A single
    file, or files without a test split, are split by seed. Rows are counted from 0 in messages.

    Args:
        path: a parquet file, or a folder with some (at any depth).
        size: resize every image to ``size x size`` (bilinear, antialiased); None demands one size.
        test_share: part of each class that is kept for testing if there is no test split; 0: there is none.
        seed: of that split.
        mirror: whether a mirrored image still belongs to its class. Where a file that this program wrote says no, it does not.

    Raises:
        UserError: nothing there, not parquet, missing columns, bad labels, a damaged image (file and row are named).
    """
    given = Path(path).expanduser()
    train, test, notes = _find(given, test_share > 0)
    name = dataset_name(given)
    check_size(size, name)
    roles = [("train", one) for one in train] + [("test", one) for one in test]
    written = [_Written.open(file) for _, file in roles]
    mirror = mirror and all(one.mirror for one in written)
    options: dict[str, object] = {"size": size} if test else {"size": size, "test_share": test_share, "seed": seed}
    if rebuilt := {(one.patches.rebuild.name, one.patches.rebuild.note or "") for one in written if one.patches}:
        options["rebuilt"] = sorted(rebuilt)
        notes = (*notes, *sorted({note for _, note in rebuilt if note}))
    soft = _soft([one for (role, _), one in zip(roles, written, strict=True) if role == "train"], train)
    if soft:
        options["targets"] = True
    key = content_key("parquet", roles, options)

    def source() -> EncodedImages:
        tables = [_Table.open(file, one.patches) for (_, file), one in zip(roles, written, strict=True)]
        labels = np.concatenate([one.labels for one in tables])
        classes = _classes(name, tables, labels)
        if test:
            in_test = np.repeat([role == "test" for role, _ in roles], [len(one.labels) for one in tables])
            require_every_class(labels[~in_test], classes, f"{name}/train")
            require_every_class(labels[in_test], classes, f"{name}/test")
        else:
            require_every_class(labels, classes, name)
            in_test = stratified_test_mask(labels, classes, test_share, seed, name)
        targets = None
        if soft:
            rows = np.concatenate([one.targets(len(classes)) for one in tables[: len(train)]])
            targets = rows if test else rows[~in_test]
        return EncodedImages(classes, labels, in_test, lambda: _batches(tables), notes, targets)

    return cached_splits(name, key, source, size=size, mirror=mirror)


def _find(path: Path, split: bool) -> tuple[list[Path], list[Path], tuple[str, ...]]:
    """Training files, test files and notes; a path without a test split gives no test files."""
    how = ": every class was split by seed" if split else ""
    if path.is_file():
        return [path], [], (f"a single file{how}",)
    if not path.is_dir():
        raise UserError(f"parquet: {path} does not exist; name a parquet file or a folder that holds some")
    files = sorted(one for one in path.rglob("*.parquet") if os.path.isfile(one))  # no error, wherever a link may lead
    if not files:
        raise UserError(f"parquet: {path} holds no .parquet files; name a file or a folder that does")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file, path), []).append(file)
    if set(by_split) == {""}:
        return files, [], (f"no splits in the file names{how}",)
    if "train" not in by_split:
        raise UserError(f"parquet: {path} has no file whose name begins with 'train'; rename the training files so")
    test_split = next((one for one in TEST_NAMES if one in by_split), None)
    unused = sorted(file.name for split, some in by_split.items() if split not in ("train", test_split) for file in some)
    notes = [f"{len(unused)} files were not used ({unused[0]} …)"] if unused else []
    if test_split is None:
        notes.append(f"no test split{how}")
    return by_split["train"], by_split[test_split] if test_split else [], tuple(notes)


def _split_of(file: Path, root: Path) -> str:
    inside = file.relative_to(root).parts
    for part in (file.name, *reversed(inside[:-1])):
        if match := _SPLIT_NAME.match(part):
            return match[1].lower()
    return ""


class _Patches(NamedTuple):
    """How a file holds patches, and what makes images of them."""

    kind: PatchFormat
    rebuild: Rebuild


class _Written(NamedTuple):
    """What a file says that this program wrote; of any other, images that may be mirrored."""

    mirror: bool
    patches: _Patches | None
    soft: bool

    @staticmethod
    def open(path: Path) -> _Written:
        from dqas_plugin.quantization import patch_files  # it writes what is read here

        size_of(path, "a parquet file")
        with _reading(path):
            record = patch_files.recorded(path)
            soft = bool(record) and patch_files.TARGETS in pq.read_schema(path).names
        kind = patch_files.patch_format(path, record)
        patches = _Patches(kind, patch_files.rebuilding(path, kind)) if kind else None
        return _Written(record.get("mirror") is not False, patches, soft)


def _soft(written: Sequence[_Written], files: Sequence[Path]) -> bool:
    """Whether the training files have soft labels: all of them, or none."""
    lacking = [file for file, one in zip(files, written, strict=True) if not one.soft]
    if lacking and len(lacking) < len(files):
        raise UserError(f"{lacking[0]} has no soft labels and other training files have some: load them apart")
    return not lacking


@dataclass(frozen=True)
class _Table:
    """One parquet file: its image column or patches, its labels int64 ``[rows]``, and its class names if it has any."""

    path: Path
    image: str
    labels: IntArray
    names: tuple[str, ...] | None
    patches: _Patches | None = None

    @staticmethod
    def open(path: Path, patches: _Patches | None = None) -> _Table:
        with _reading(path):
            file = pq.ParquetFile(path)
            schema = file.schema_arrow
            _ = schema.names  # a name that is no UTF-8 is known here, as damage
        _check_rows(path, file.metadata.num_rows)
        if doubled := [one for one, count in Counter(schema.names).items() if count > 1]:
            raise UserError(f"{path} has {len(doubled)} names for several columns, such as '{doubled[0]}': rename one of them")
        image, label = "" if patches else _image_column(schema, path), _label_column(schema, path)
        with _reading(path):
            column = file.read(columns=[label]).column(0)
        return _Table(path, image, _labels(column, label, path), _class_names(schema, label), patches)

    def targets(self, classes: int) -> npt.NDArray[np.float32]:
        """Soft labels ``[rows, classes]``; whether they are probabilities is not checked here."""
        from dqas_plugin.quantization.patch_files import TARGETS

        with _reading(self.path):
            column = pq.read_table(self.path, columns=[TARGETS]).column(0)
        kind = column.type
        sound = pa.types.is_fixed_size_list(kind) and kind.list_size == classes and kind.value_type == pa.float32()
        if not sound or column.null_count or len(column) != len(self.labels):
            raise UserError(
                f"{self.path}: column '{TARGETS}' must hold one float32 for each of {classes} classes: write the file again"
            )
        values = np.concatenate([one.flatten().to_numpy(zero_copy_only=False) for one in column.chunks])
        return values.reshape(-1, classes)


def _check_rows(path: Path, rows: int) -> None:
    """Refuse a file that repeats one row without end, which takes next to no room in it."""
    most = path.stat().st_size * _MOST_ROWS
    if rows > most:
        raise UserError(f"{path} claims {rows:,} rows, more than images fit into it: it is damaged, or made to fill memory")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a readable parquet file ({reason}): download it again or remove it") from error


def _image_column(schema: pa.Schema, path: Path) -> str:
    structs = [one.name for one in schema if holds_images(one.type)]
    for name in (*_IMAGE_NAMES, *(structs if len(structs) == 1 else ())):
        if name in structs:
            return str(name)
    raise UserError(
        f"{path} has no image column: one of {', '.join(schema.names)} must be a struct of bytes and path, named image or img"
    )


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of that type has encoded images, as the Hugging Face hub keeps them: a struct with their bytes."""
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _label_column(schema: pa.Schema, path: Path) -> str:
    name = next((one for one in LABEL_NAMES if one in schema.names), None)
    if name is None:
        raise UserError(
            f"{path} has no label column: one of {', '.join(schema.names)} must be named {' or '.join(LABEL_NAMES)}"
        )
    if not pa.types.is_integer(schema.field(name).type):
        raise UserError(f"{path}: column '{name}' is {schema.field(name).type}, but labels must be integers counted from 0")
    return name


def _labels(column: pa.ChunkedArray, name: str, path: Path) -> IntArray:
    if len(column) == 0:
        raise UserError(f"{path} has no rows: remove the file or add images to it")
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise UserError(f"{path} row {row} has no label (column '{name}' is null there): label it or remove the row")
    labels: IntArray = column.to_numpy().astype(np.int64)  # a uint64 beyond int64 turns negative and is refused with the rest
    if labels.min() < 0:
        row = int(np.flatnonzero(labels < 0)[0])
        raise UserError(f"{path} row {row} has the label {column[row]}: labels must be 0 or more; remove unlabelled rows")
    return labels


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    try:
        names = parsed_json((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):  # no such entry, or one of another shape: names are optional
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(one, str) for one in names) else None


def _classes(name: str, tables: Sequence[_Table], labels: IntArray) -> tuple[str, ...]:
    named = {one.names: one.path for one in tables if one.names}
    if len(named) > 1:
        first, second = list(named.values())[:2]
        raise UserError(f"{first} and {second} name different classes: load them apart, or give them the same class names")
    highest = int(labels.max())
    for names in named:
        if names is not None and highest >= len(names):
            raise UserError(
                f"{name}: label {highest} has no name; the files name {len(names)} classes: mend the labels or names"
            )
        if names is not None:
            return names
    if highest >= len(labels):  # also keeps a label like 10**12 from making as many names
        raise UserError(f"{name}: the highest label is {highest} but there are only {len(labels)} images: count labels from 0")
    return tuple(str(one) for one in range(highest + 1))


def _batches(tables: Sequence[_Table]) -> Iterator[list[Encoded]]:
    """The encoded images of all files; a page and a batch of one file are in memory at a time."""
    for table in tables:
        rows = _rebuilt(table.path, *table.patches) if table.patches else in_batches(_stored(table.path, table.image))
        while True:
            with _reading(table.path):
                batch = next(rows, None)
            if batch is None:
                break
            yield batch


def _rebuilt(path: Path, kind: PatchFormat, rebuild: Rebuild) -> Iterator[list[Encoded]]:
    from dqas_plugin.quantization.patch_files import rebuilt

    return rebuilt(path, kind, rebuild)


def _stored(path: Path, image: str) -> Iterator[Encoded]:
    row = 0
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)
    for batch in file.iter_batches(AT_A_STEP, columns=[f"{image}.bytes"]):
        for content in batch.column(0).flatten()[0].to_pylist():  # flatten: a null struct gives null bytes
            yield _encoded(path, row, content)
            row += 1


def _encoded(path: Path, row: int, content: bytes | None) -> Encoded:
    where = f"{path} row {row}"
    if content is None:
        raise UserError(f"{where} has no image bytes: embed the image in the file or remove the row")
    return Encoded(where, content)
