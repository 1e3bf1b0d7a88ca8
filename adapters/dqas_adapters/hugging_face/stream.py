"""Whether the batches of an Arrow stream are stored as they are: compressed ones may be a thousand times as long in memory.

``save_to_disk`` compresses nothing, and pyarrow does not say what is compressed until it has unpacked it. So the one field that
tells is read here, from the description of every batch: a flatbuffer, https://arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa

from dqas_plugin.errors import UserError

# Fields by number, in the tables of Arrow's Message.fbs and of the batches in it.
_KIND, _HEADER = 1, 2
_DATA = 1  # of a dictionary: the batch in it
_COMPRESSION = 3  # of a batch
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def check_stream(file: Any, path: Path) -> None:
    """Refuse compressed batches.

    Args:
        file: of pyarrow, at the beginning of the stream.
        path: its name, for messages.

    Raises:
        UserError: if there are any.
        pa.ArrowException, OSError, ValueError: if it is damaged.
    """
    for message in pa.ipc.MessageReader.open_stream(file):
        try:
            compressed = _compressed(message.metadata.to_pybytes())
        except struct.error as error:
            raise ValueError("the description of a batch is damaged") from error
        if compressed:
            raise UserError(
                f"{path} is compressed, which save_to_disk of datasets never does: save the dataset again with that"
            )


def _compressed(description: bytes) -> bool:
    message = _number("<I", description, 0)
    kind = _field(description, message, _KIND)
    header = _field(description, message, _HEADER)
    if not kind or not header:
        return False
    batch = _followed(description, header)
    if _number("<B", description, kind) == _DICTIONARY_BATCH:
        data = _field(description, batch, _DATA)
        return bool(data and _field(description, _followed(description, data), _COMPRESSION))
    return _number("<B", description, kind) == _RECORD_BATCH and bool(_field(description, batch, _COMPRESSION))


def _field(content: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 if it has none."""
    names = table - _number("<i", content, table)
    place = 4 + 2 * number
    offset = _number("<H", content, names + place) if place < _number("<H", content, names) else 0
    return table + offset if offset else 0


def _followed(content: bytes, place: int) -> int:
    return place + _number("<I", content, place)


def _number(kind: str, content: bytes, place: int) -> int:
    if place < 0:
        raise struct.error("before the beginning")
    return int(struct.unpack_from(kind, content, place)[0])
