"""Whether indices belong to the images at hand. DQ's files hold bare numbers, so this is told from two things:

* what this program writes has a file ``dqas.json`` with it that names the dataset, by fingerprint, and the files, by content;
* DQ takes the same share of every class. Indices into other images, or into the same ones in another order, hit the classes
  as chance will have it, which shows where there are enough of them.

That the images of a class are in another order among themselves cannot be seen in a file of DQ's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dqas_adapters.dq.layout import IMAGE_FOLDER
from dqas_adapters.record import RECORD, origin
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.datasets.files import file_digest
from dqas_plugin.errors import UserError
from dqas_plugin.untrusted import parsed_json, read_bytes

_MOST = 1 << 22  # bytes of a sidecar
_CHANCE = 0.25  # of what chance brings about: rounding gives less than half of it where there are enough of a class


def describe(out: Path, data: ImageDataset, files: Iterable[Path]) -> None:
    """Write ``dqas.json`` into ``out``: which images the numbers in ``files``, all below ``out``, belong to."""
    listed = {one.relative_to(out).as_posix(): file_digest(one) for one in files}
    meta = origin(data) | {"files": listed}
    (out / RECORD).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def check_written_for(path: Path, data: ImageDataset) -> bool:
    """Whether this program wrote ``path``, for these images.

    Raises:
        UserError: if it wrote it for others, or as positions in an image folder.
    """
    for folder in path.absolute().parents[:2]:
        meta = _sidecar(folder / RECORD)
        name = path.absolute().relative_to(folder).as_posix()
        if name not in meta.get("files", {}) or meta["files"][name] != file_digest(path):
            continue
        if name.startswith(f"{IMAGE_FOLDER}/"):
            raise UserError(f"{path} holds positions in an image folder, not in a dataset: name {folder / path.name} instead")
        if meta.get("fingerprint") != data.fingerprint:
            raise UserError(
                f"{path} was written for {meta.get('dataset', 'another dataset')} (fingerprint {meta.get('fingerprint')}), "
                f"not for {data.name} (fingerprint {data.fingerprint}): load the dataset it was written for"
            )
        return True
    return False


def check_spread(path: Path, table: IntArray, data: ImageDataset, enough: int) -> None:
    """Refuse indices that hit the classes as unevenly as by chance.

    Args:
        path: where they stand.
        table: int64 ``[R, C]``, how many of each class there are in each part: a bin, or the selection.
        data: the images.
        enough: how many of each class a part must have for the difference to show, by what DQ may round.

    Raises:
        UserError: if so.
    """
    share = data.class_sizes / len(data)
    taken = table.sum(axis=1, keepdims=True)
    variance = taken * share * (1 - taken / len(data))  # of draws without regard to classes, up to the factor 1 - share
    told = (variance >= enough).all(axis=1)
    if data.num_classes < 2 or not told.any():
        return
    deviation = np.square(table - taken * share)[told] / variance[told]
    if deviation.sum() / (told.sum() * (data.num_classes - 1)) > _CHANCE:  # Pearson's statistic for each degree of freedom
        raise UserError(
            f"{path}: the classes of {data.name} are spread over it as unevenly as by chance, where DQ takes the same share of "
            "each: load the images in the order that it was made for, or set the option check_order=false"
        )


def _sidecar(path: Path) -> dict[str, Any]:
    """What a ``dqas.json`` says; nothing, if there is none."""
    try:
        if not path.is_file():
            return {}
        meta = parsed_json(read_bytes(path, _MOST))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: remove it, or write the files beside it again") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("files", {}), dict):
        raise UserError(f"{path} is damaged: remove it, or write the files beside it again")
    return meta
