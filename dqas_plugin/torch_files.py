"""Files of ``torch.save`` from other people, read without believing them; see :mod:`dqas_plugin.untrusted`.

Torch itself refuses pickles that would run code (``weights_only``). What it leaves to its caller is done here: sizes that a
file claims, containers without end, and NumPy's arrays, whose own unpickling trusts what it is told and may bring the process
down.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dqas_plugin.errors import UserError
from dqas_plugin.untrusted import Array, size_of

if TYPE_CHECKING:
    import torch

_DEEPEST = 64  # containers inside containers; the files that programs write have at most 6
_CODE = re.compile(r"b1|[iu][1248]|f[248]", re.ASCII)
_LEGACY = 5  # pickles in a row that a file of old versions begins with
_GROWING = frozenset({"hex", "hexcodec", "uu", "uucodec", "quopri", "quopricodec", "quotedprintable", "base64", "base64codec"})
"""Encodings of bytes as bytes, with nothing but letters in their names: each makes them longer, and they can be put on top of
one another."""

_SLICE = ("mark", "stackslice")  # what pickletools calls the objects since the last mark
_MOST_IN_TUPLE = 1_000_000  # values, counted as often as they are in it
_CALLS = ("REDUCE", "NEWOBJ", "NEWOBJ_EX")
_LONGEST_CODEC = 40  # characters of such a name
_ORDERS = ("<", ">", "|", "=")


def read_torch(path: Path, what: str, more: Sequence[Any] = ()) -> Any:
    """What ``torch.save`` wrote, if it is tensors, NumPy arrays and plain values.

    Args:
        path: the file.
        what: what it should be, for messages: ``a DREAM set``.
        more: other classes that may be in it, each harmless.

    Returns:
        the same in plain containers, with plain tensors: parameters and attributes of tensors are gone.

    Raises:
        UserError: if it cannot be read, needs code to be run (it says which), or describes more than the file has.
    """
    import torch

    size = size_of(path, what)
    archived = _is_archive(path, size)
    try:
        _check_growth(path, archived)
        with torch.serialization.safe_globals([*_NUMPY, *more]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles of an unusual protocol
            # Mapped, a tensor is a part of the file; read, it may be longer than what was read for it.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=archived)
    except Exception as error:  # whatever a damaged or hostile pickle brings about
        raise UserError(f"{path} cannot be read as {what}: {_refusal(error)}") from error
    copied, count = _Plain(path, size).copy(found, "")
    if count > size:
        raise UserError(f"{path} claims to hold {count:.3g} values in {size:,} bytes: it is damaged, or made to fill memory")
    return copied


def _is_archive(path: Path, size: int) -> bool:
    """Whether it is a zip file. What torch writes is stored, not compressed: a member that grows when unpacked is a trap."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            claimed = sum(one.file_size for one in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise UserError(f"{path} is a damaged archive: get it again") from error
    if claimed > size:
        raise UserError(f"{path} claims {claimed:,} bytes of content and has {size:,}: it is damaged, or made to fill memory")
    return True


def _check_growth(path: Path, archived: bool) -> None:
    """Refuse pickles that make much of little, which torch does not: byte arrays of any length, encodings of encodings, tuples,
    and containers where a function or the name of a storage is due, which it would print in a message, however often they hold
    one another.

    Raises:
        ValueError: if one does.
        OSError, zipfile.BadZipFile: if the file cannot be read.
    """
    if archived:
        with zipfile.ZipFile(path) as archive:
            for one in archive.infolist():
                if one.filename.endswith(".pkl"):
                    _check_pickle(BytesIO(archive.read(one)))
        return
    with path.open("rb") as file:
        for _ in range(_LEGACY):
            _check_pickle(file)


def _check_pickle(stream: IO[bytes]) -> None:
    encodes = grows = False
    followed = _Followed()
    try:
        for kind, argument, _ in pickletools.genops(stream):
            text = argument.decode("latin-1") if isinstance(argument, bytes) else argument if isinstance(argument, str) else ""
            if kind.name == "GLOBAL":
                encodes |= text == "_codecs encode"
                grows |= text.endswith(" bytearray")
            elif len(text) < _LONGEST_CODEC:
                grows |= encodes and _letters(text) in _GROWING
            grows |= followed.step(kind, argument)
    except (ValueError, IndexError):  # torch stops at the same place
        pass
    if grows:
        raise ValueError("it makes much of little: byte arrays, encodings of encodings, containers of containers")


class _Value(NamedTuple):
    """What stands for an object: how much there is in it, counted as often as it is there, and whether it is plain (a number,
    a text, or a tuple of plain things), a ``global`` (a function or class by its name), or ``made`` otherwise.
    """

    size: int
    kind: Literal["plain", "global", "made"]


_PLAIN, _MADE = _Value(1, "plain"), _Value(1, "made")


class _Followed:
    """A stack like that of an unpickler, of :class:`_Value` instead of objects; None is a mark.

    The hash of a tuple takes as long as there is in it, and nothing can interrupt that.
    """

    def __init__(self) -> None:
        self.stack: list[_Value | None] = []
        self.memo: dict[Any, _Value | None] = {}

    def step(self, kind: pickletools.OpcodeInfo, argument: Any) -> bool:
        """Follow an instruction; whether it is one of those that :func:`_check_growth` refuses."""
        if kind.name.endswith("GET"):
            self.stack.append(self.memo.get(argument, _PLAIN))
        elif kind.name.endswith("PUT"):
            self.memo[argument] = self.stack[-1]
        elif kind.name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif kind.name == "DUP":
            self.stack.append(self.stack[-1])
        elif kind.name == "MARK":
            self.stack.append(None)
        else:
            return self._made(kind)
        return False

    def _made(self, kind: pickletools.OpcodeInfo) -> bool:
        names = [one.name for one in kind.stack_before]
        taken = self._since_mark() if "mark" in names else []
        taken += [self.stack.pop() for name in names if name not in _SLICE]  # the last one first
        values = [one for one in taken if one is not None]
        if "TUPLE" in kind.name:
            made = _Value(1 + sum(one.size for one in values), "made" if any(one.kind == "made" for one in values) else "plain")
        elif kind.name in ("GLOBAL", "STACK_GLOBAL"):
            made = _Value(1, "global")
        else:
            made = _MADE if values or kind.name.startswith("EMPTY") or "mark" in names else _PLAIN
        self.stack += [made] * len(kind.stack_after)
        odd = kind.name in _CALLS and (not values or values[-1].kind != "global")
        odd |= kind.name.endswith("PERSID") and any(one.kind == "made" for one in values)
        return odd or made.size > _MOST_IN_TUPLE

    def _since_mark(self) -> list[_Value | None]:
        taken: list[_Value | None] = []
        while (one := self.stack.pop()) is not None:
            taken.append(one)
        return taken


def _letters(text: str) -> str:
    return "".join(one for one in text.lower() if one.isalnum())


def _refusal(error: Exception) -> str:
    """Why torch would not read a file, in a few words; what it would have had to run, if it says so."""
    text = " ".join(str(error).split())
    if found := re.search(r"(?:Unsupported global: |unsupported )GLOBAL (\S{1,200})", text):
        return f"it asks for {ascii(found[1])[1:-1]}, and reading that could run code; have it written again as tensors only"
    if "weights_only" in text.lower() or "Unsupported" in text:
        return "it holds more than tensors and numbers, and reading that could run code; have it written again as tensors only"
    return "it is damaged, or not a file of torch.save; get it again"


class _Dtype:
    """Stands for ``numpy.dtype`` in a pickle: a number or a boolean."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise ValueError("not a type of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in _ORDERS:
            raise ValueError("not the order of bytes")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray`` in a pickle."""

    array: Array | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(shape, tuple) or not all(isinstance(one, int) and one >= 0 for one in shape):
            raise ValueError("not a shape")
        self.array = _values(kind, content).reshape(shape, order="F" if fortran else "C")


def _values(kind: Any, content: Any) -> Array:
    if not isinstance(kind, _Dtype) or not isinstance(content, bytes):
        raise ValueError("not an array of numbers")
    return np.frombuffer(bytearray(content), kind.dtype)


def _reconstruct(*_: Any) -> _Array:
    """Stands for the function of that name, which makes an empty array to be filled."""
    return _Array()


def _scalar(kind: Any, content: Any) -> Any:
    """Stands for the function of that name: one number."""
    return _values(kind, content).reshape(()).item()


_NUMPY: list[Any] = [
    (_Dtype, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    *((_reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What a pickled array consists of, under its names in NumPy 1 and 2, and what stands for it."""


class _Plain:
    """Copies containers, each once, and counts what they hold: a list of one list twice, that twice … is long in few bytes."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self._done: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()

    def copy(self, value: Any, place: str) -> tuple[Any, int]:
        """The copy, and how many values it holds.

        Args:
            value: anything.
            place: where it is, such as ``['data'][0]``.
        """
        import torch

        if isinstance(value, _Array):
            value = value.array
        if isinstance(value, torch.Tensor):
            value = torch.Tensor.detach(value)  # not value.detach(): a file may give a tensor any attributes
        if isinstance(value, torch.Tensor | np.ndarray):
            self._check_dense(value, place)
            return value, 1
        if not isinstance(value, dict | list | tuple):
            return value, 1
        if id(value) in self._done:
            return self._done[id(value)]
        if id(value) in self._open or len(self._open) >= _DEEPEST:
            raise UserError(f"{self.path} holds containers nested without end: it is damaged, or made to fill memory")
        self._open.add(id(value))
        found = self._copied(value, place)
        self._open.remove(id(value))
        self._done[id(value)] = found
        return found

    def _copied(self, value: dict[Any, Any] | list[Any] | tuple[Any, ...], place: str) -> tuple[Any, int]:
        keys, values = (value.keys(), value.values()) if isinstance(value, dict) else (range(len(value)), value)
        parts = [self.copy(one, f"{place}[{_short(key)}]") for key, one in zip(keys, values, strict=True)]
        copies, count = [one for one, _ in parts], 1 + sum(number for _, number in parts)
        if isinstance(value, dict):
            return dict(zip(value, copies, strict=True)), count
        return (copies if isinstance(value, list) else tuple(copies)), count

    def _check_dense(self, values: torch.Tensor | Array, place: str) -> None:
        """A tensor may look large and hold little (strides of 0, sparse): making an array of it would fill memory."""
        if isinstance(values, np.ndarray):
            plain = not values.dtype.hasobject
        else:
            plain = str(values.layout) == "torch.strided" and not values.is_quantized and values.device.type == "cpu"
        if not plain or values.nbytes > self.size:
            raise UserError(
                f"{self.path}: the values{place} claim {tuple(values.shape)}, more than the file holds: it is damaged, or "
                "made to fill memory"
            )


def _short(key: Any) -> str:
    """A key for messages: anything may be one, and that as long as one likes."""
    known = isinstance(key, str) or (isinstance(key, int) and abs(key) < 10**18)
    return ascii(key)[:80] if known and (isinstance(key, int) or len(key) < 80) else "…"
