"""What the files of other programs hold, checked; see :mod:`dqas_plugin.untrusted` for how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.torch_files import read_torch
from dqas_plugin.untrusted import Array, inside, read_array, size_of

__all__ = ["check_indices", "inside", "read_npy", "read_torch", "whole_numbers"]


def read_npy(path: Path, what: str) -> Array:
    """The array in a ``.npy`` file, without pickles.

    Raises:
        UserError: if it cannot be read, holds Python objects, or claims more values than the file has.
    """
    size = size_of(path, what)
    try:
        with path.open("rb") as file:
            return read_array(file, size)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as {what}: {error}") from error


def whole_numbers(values: Any, path: Path, field: str) -> IntArray:
    """One row of whole numbers as int64 ``[K]``.

    Args:
        values: array, tensor or list.
        path: the file they stand in, for messages.
        field: where in it.

    Raises:
        UserError: for another shape, or numbers that are not whole.
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: {field} must be one row of whole numbers; it is no array") from error
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise UserError(f"{path}: {field} must be one row of whole numbers, not {array.dtype} {array.shape}")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.floor(array)).all()):
        raise UserError(f"{path}: {field} must be whole numbers, and some are not")
    if len(array) and not (-(2**63) <= array.min() and array.max() < 2**63):
        raise UserError(f"{path}: {field} has numbers beyond 64 bits")
    return array.astype(np.int64)


def check_indices(indices: IntArray, data: ImageDataset, path: Path, field: str = "indices") -> None:
    """Refuse indices that are not different samples of ``data``.

    Raises:
        UserError: naming the first that is wrong.
    """
    outside = indices[(indices < 0) | (indices >= len(data))]
    if len(outside):
        raise UserError(
            f"{path}: {field} holds {outside[0]}, but {data.name} has samples 0..{len(data) - 1}; name their own dataset"
        )
    values, times = np.unique(indices, return_counts=True)
    if (times > 1).any():
        raise UserError(f"{path}: {field} holds the sample {values[times > 1][0]} more than once; every index may appear once")
