"""Files from other people, read without believing them: nothing in them is executed, and no size is taken on trust."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import UserError

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


def read_torch(path: Path, what: str) -> Any:
    """What ``torch.save`` wrote, if it is tensors, NumPy arrays and plain values.

    Args:
        path: the file.
        what: what it should be, for messages: ``a DREAM set``.

    Raises:
        UserError: if it cannot be read, needs code to be run (it says which), or describes a tensor larger than the file.
    """
    import torch

    size = _size(path, what)
    _check_archive(path, size)
    try:
        with torch.serialization.safe_globals(array_parts()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles of an unusual protocol
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle brings about
        raise UserError(f"{path} cannot be read as {what}: {_refusal(error)}") from error
    for place, values in _arrays(found, ""):
        _check_dense(values, f"{path}: the values{place}", size)
    return found


def read_npy(path: Path, what: str) -> Array:
    """The array in a ``.npy`` file, without pickles.

    Raises:
        UserError: if it cannot be read, holds Python objects, or claims more values than the file has.
    """
    size = _size(path, what)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            left = size - file.tell()
    except Exception as error:  # NumPy reads the header as Python text: a damaged one fails in many ways
        raise UserError(f"{path} cannot be read as {what}: it is no .npy file; name another") from error
    if dtype.hasobject:
        raise UserError(f"{path} cannot be read as {what}: it holds Python objects, and reading them could run code")
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if claimed != left or min(shape, default=0) < 0:
        raise UserError(f"{path} is damaged: its header claims {claimed:,} bytes of values and {left:,} follow; get it again")
    found: Array = np.load(path, allow_pickle=False)
    return found


def inside(folder: Path, name: str) -> Path:
    """The path of ``name``, which stands in a file, below ``folder``.

    Raises:
        UserError: if it leads out of the folder, through ``..``, a link or as an absolute path.
    """
    found = (folder / name).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: the name '{name}' leads out of that folder; mend the file that holds it")
    return found


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


def _size(path: Path, what: str) -> int:
    try:
        with path.open("rb"):
            return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be read as {what} ({error.strerror}): name another file") from error


def _check_archive(path: Path, size: int) -> None:
    """What torch writes is stored, not compressed: a member that grows when it is unpacked is a trap."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(one.file_size for one in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"{path} is a damaged archive: get it again") from error
    if claimed > size:
        raise UserError(f"{path} claims {claimed:,} bytes of content and has {size:,}: it is damaged, or made to fill memory")


def array_parts() -> list[Any]:
    """What a pickled NumPy array of numbers consists of, under its names in NumPy 1 and 2."""
    core = np._core.multiarray  # type: ignore[attr-defined]
    numbers = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    old = [(one, f"numpy.core.multiarray.{one.__name__}") for one in (core._reconstruct, core.scalar)]
    return [core._reconstruct, core.scalar, np.ndarray, np.dtype, *dict.fromkeys(numbers), *old]


def _refusal(error: Exception) -> str:
    """Why torch would not read a file, in a few words; what it would have had to run, if it says so."""
    text = " ".join(str(error).split())
    if found := re.search(r"(?:Unsupported global: |unsupported )GLOBAL (\S+)", text):
        return f"it asks for {found[1]}, and reading that could run code; have it written again as tensors only"
    if "weights_only" in text.lower() or "Unsupported" in text:
        return "it holds more than tensors and numbers, and reading that could run code; have it written again as tensors only"
    return "it is damaged, or not a file of torch.save; get it again"


def _arrays(value: Any, place: str) -> Iterator[tuple[str, torch.Tensor | Array]]:
    """Every tensor and array inside containers, and where it is."""
    import torch

    if isinstance(value, torch.Tensor | np.ndarray):
        yield place, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _arrays(one, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for position, one in enumerate(value):
            yield from _arrays(one, f"{place}[{position}]")


def _check_dense(values: torch.Tensor | Array, where: str, size: int) -> None:
    """A tensor may look large and hold little (strides of 0, sparse): making an array of it would fill memory."""
    if isinstance(values, np.ndarray):
        plain = not values.dtype.hasobject
    else:
        plain = str(values.layout) == "torch.strided" and not values.is_quantized and values.device.type == "cpu"
    if not plain or values.nbytes > size:
        raise UserError(f"{where} claim {tuple(values.shape)}, more than the file holds: it is damaged, or made to fill memory")
