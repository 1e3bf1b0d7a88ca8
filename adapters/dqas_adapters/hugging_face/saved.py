"""A split as ``save_to_disk`` writes it: Arrow files, and JSON that says what the columns are.

``state.json`` names the Arrow files and ``dataset_info.json`` the types of the columns; a ``DatasetDict`` is a folder of such
folders with ``dataset_dict.json``. All of it is read with pyarrow alone: nothing has to be installed, nothing asks the network,
and a stranger's JSON cannot ask for 10^12 class names, as it can of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dqas_adapters.hugging_face.stream import check_stream
from dqas_plugin.data import IntArray
from dqas_plugin.datasets.decode import AT_A_STEP, Encoded, in_batches
from dqas_plugin.datasets.parquet import LABEL_NAMES, holds_images
from dqas_plugin.errors import UserError
from dqas_plugin.untrusted import inside, parsed_json, read_bytes, size_of

DICT, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"

TARGETS = "targets"
"""The column of soft labels: a list of C probabilities in every row."""

_MAX_JSON = 2**26  # bytes: a million class names take a third of it


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: if it cannot be read, or is none.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise UserError(f"{path} has more than {_MAX_JSON:,} bytes, which no list of columns needs: get the dataset again")
        found = parsed_json(read_bytes(path, _MAX_JSON).decode())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not whole JSON"
        raise UserError(f"{path} cannot be read ({reason}): save the dataset again, or get it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object: save the dataset again, or get it again")
    return found


@dataclass(frozen=True)
class Saved:
    """One split.

    Attributes:
        folder: where it is.
        files: its Arrow files, in order.
        features: what ``dataset_info.json`` says of the columns.
        image: the column of images.
        label: the column of labels.
    """

    folder: Path
    files: tuple[Path, ...]
    features: Mapping[str, Any]
    image: str
    label: str

    @staticmethod
    def open(root: Path, split: str, image: str | None, label: str | None) -> Saved:
        """The split of that name below ``root`` ("": the root itself), and its columns: those named, else those found.

        Raises:
            UserError: for damaged or missing files, or columns that cannot be told.
        """
        folder = inside(root, split)
        listed = read_json(folder / STATE).get("_data_files")
        try:
            names = [str(one["filename"]) for one in listed]  # type: ignore[union-attr]
        except (TypeError, KeyError):
            names = []
        if not names:
            raise UserError(f"{folder / STATE}: '_data_files' must be a list of file names; save the dataset again")
        files = tuple(inside(folder, one) for one in names)
        for one in files:
            size_of(one, "an Arrow file")
        with _reading(files[0]), pa.memory_map(str(files[0])) as file:
            schema = pa.ipc.open_stream(file).schema
            _ = schema.names  # a name that is no UTF-8 is known here, as damage
        described = read_json(folder / INFO).get("features")
        features = described if isinstance(described, dict) else {}
        image = _image_column(folder, schema, features, image)
        return Saved(folder, files, features, image, _label_column(folder, schema, features, label))

    @property
    def named(self) -> bool:
        """Whether the column of labels is a ``ClassLabel``."""
        return _kind(self.features, self.label) == "ClassLabel"

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of a ``ClassLabel``."""
        names = self.features[self.label].get("names") if self.named else None
        if names is None:
            return None
        if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
            raise UserError(f"{self.folder / INFO}: the names of the column '{self.label}' must be a list of words; mend them")
        return tuple(names)

    @property
    def others(self) -> list[str]:
        """Columns that are not read."""
        return [one for one in self.features if one not in (self.image, self.label, TARGETS)]

    def labels(self) -> IntArray:
        """The labels, int64 ``[N]``, none below 0."""
        parts, row = [], 0
        for path, array in self._column(self.label, pa.types.is_integer):
            values: IntArray = (
                array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            )  # a huge uint64 turns negative
            values[array.is_null().to_numpy(zero_copy_only=False)] = -1
            if (wrong := np.flatnonzero(values < 0)).size:
                raise UserError(
                    f"{path} row {row + wrong[0]} has the label {array[int(wrong[0])]} in the column '{self.label}': labels "
                    "must be 0 or more; remove unlabelled rows, or name another split"
                )
            parts.append(values)
            row += len(values)
        if not row:
            raise UserError(f"{self.folder} has no rows: add images to it, or name another split")
        return np.concatenate(parts)

    def images(self) -> Iterator[list[Encoded]]:
        """The encoded images, some at a time."""
        return in_batches(self._images())

    def _images(self) -> Iterator[Encoded]:
        row = 0
        for path, array in self._column(self.image, holds_images):
            at = array.type.get_field_index("bytes")
            for start in range(0, len(array), AT_A_STEP):
                some = array.slice(start, AT_A_STEP).flatten()[at]  # flatten: a null struct gives null bytes
                for content in some.to_pylist():
                    yield self._encoded(f"{path} row {row}", content)
                    row += 1

    def _encoded(self, where: str, content: bytes | None) -> Encoded:
        if content is None:
            raise UserError(
                f"{where} has no image bytes in the column '{self.image}': save the dataset with its images embedded, or "
                "remove the row"
            )
        return Encoded(where, content)

    def targets(self, classes: int) -> npt.NDArray[np.float32]:
        """The soft labels, float32 ``[N, classes]``."""
        parts = []
        for path, array in self._column(TARGETS, lambda _: True):
            kind = array.type
            listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            flat = array.flatten() if listed else array  # leaves null rows out
            sound = listed and pa.types.is_floating(kind.value_type) and flat.null_count == 0
            if not sound or array.null_count or set(array.value_lengths().unique().to_pylist()) - {classes}:
                raise UserError(
                    f"{path}: the column '{TARGETS}' must hold a list of {classes} numbers in every row, one a class"
                )
            with np.errstate(over="ignore"):  # infinity is no probability, and refused with what else is none
                parts.append(flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, classes))
        return np.concatenate(parts)

    def _column(self, name: str, fits: Callable[[pa.DataType], bool]) -> Iterator[tuple[Path, Any]]:
        """File and array of every record batch; each array is checked against what the file holds before it is used."""
        for path in self.files:
            with _reading(path), pa.memory_map(str(path)) as file:
                place = _place_of(path, pa.ipc.open_stream(file).schema, name, fits)
                file.seek(0)
                check_stream(file, path)
                file.seek(0)
                for batch in pa.ipc.open_stream(file, options=pa.ipc.IpcReadOptions(included_fields=[place])):
                    array = batch.column(0)
                    array.validate(full=True)
                    yield path, array


def _place_of(path: Path, schema: pa.Schema, name: str, fits: Callable[[pa.DataType], bool]) -> int:
    """Which column of a file has that name, and such a type as in the first file."""
    place = int(schema.get_field_index(name))
    if place < 0:
        raise UserError(f"{path} has no column '{name}', as the dataset says it has: get it again")
    if not fits(schema.types[place]):
        raise UserError(f"{path}: the column '{name}' is {schema.types[place]}, other than the dataset says: get it again")
    return place


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a whole Arrow file ({reason}): save the dataset again, or get it again") from error


def _kind(features: Mapping[str, Any], column: str) -> str:
    """The type that ``dataset_info.json`` gives a column, "" if it gives none."""
    found = features.get(column)
    return str(found.get("_type", "")) if isinstance(found, dict) else ""


def _image_column(folder: Path, schema: pa.Schema, features: Mapping[str, Any], wanted: str | None) -> str:
    structs = [one.name for one in schema if holds_images(one.type) and _kind(features, one.name) in ("Image", "")]
    if wanted is None and len(structs) == 1:
        return str(structs[0])
    if wanted in structs:
        return str(wanted)
    listed = ", ".join(schema.names) or "none"
    if wanted is not None:
        raise UserError(f"hf: {folder} has no column '{wanted}' of type Image (its columns: {listed}): change the option image")
    if structs:
        raise UserError(f"hf: {folder} has the image columns {', '.join(structs)}: say which one with the option image")
    raise UserError(
        f"hf: {folder} has no column of type Image (its columns: {listed}): cast one to datasets.Image and save again"
    )


def _label_column(folder: Path, schema: pa.Schema, features: Mapping[str, Any], wanted: str | None) -> str:
    integers = [one.name for one in schema if pa.types.is_integer(one.type)]
    listed = ", ".join(schema.names) or "none"
    if wanted is not None and wanted not in integers:
        raise UserError(
            f"hf: {folder} has no column '{wanted}' of whole numbers (its columns: {listed}): change the option label"
        )
    if wanted is not None:
        return wanted
    for choice in ([one for one in integers if _kind(features, one) == "ClassLabel"], integers):
        usual = [one for one in LABEL_NAMES if one in choice]
        if usual or len(choice) == 1:
            return str([*usual, *choice][0])
        if choice:
            raise UserError(f"hf: {folder} has no label column, but {', '.join(choice)}: say which one with the option label")
    raise UserError(f"hf: {folder} has no column of labels, ClassLabel or whole numbers (its columns: {listed}): add one")
