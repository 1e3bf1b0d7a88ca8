"""Files from other people, read without believing them: nothing in them is executed, and no size is taken on trust.

Memory stays in proportion to the length of the file, whatever it claims to hold.
"""

from __future__ import annotations

import json
import os
import re
import stat
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dqas_plugin.errors import UserError

Array = npt.NDArray[Any]

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # an escape for the half of a character, which may have its other half beside it
_LONGEST_NAME = 255  # bytes of the name of a file, on every file system


def size_of(path: Path, what: str) -> int:
    """Length of a regular file in bytes.

    Args:
        path: the file.
        what: what it should be, for messages: ``a DREAM set``.

    Raises:
        UserError: if it cannot be opened, or is a folder, a pipe (one may wait for ever) or a device (without end).
    """
    try:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} cannot be read as {what} (it is no regular file): name another file")
        with path.open("rb"):
            return status.st_size
    except (OSError, ValueError) as error:  # ValueError: a name that no file has
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read as {what} ({reason}): name another file") from error


def read_bytes(path: Path, most: int) -> bytes:
    """All of a regular file.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is longer, or no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("no regular file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most:,} bytes")
    return content


def parsed_json(text: str | bytes) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: if it is none, nested so deeply that Python gives up, or has halves of characters, which cannot be printed.
    """
    try:
        found = json.loads(text)
        if _HALF.search(text if isinstance(text, str) else text.decode("utf-8", "replace")):
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return found


def check_readable(text: str) -> None:
    """Refuse to write a text of JSON that :func:`parsed_json` would refuse to read.

    Raises:
        UserError: if so.
    """
    try:
        parsed_json(text)
    except UnicodeEncodeError as error:
        raise UserError(f"{error.object[error.start - 40 : error.end + 40]!a} is no text in UTF-8: rename it") from error


def check_text(*values: object) -> None:
    """Refuse words that no text can hold, such as the name of a file that is not in UTF-8: they could not be read back.

    Raises:
        UserError: naming the first of them.
    """
    for one in values:
        try:
            str(one).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{str(one)!a} is no text in UTF-8, which results are written in: rename it") from error


def inside(folder: Path, name: str) -> Path:
    """The path of ``name``, which stands in a file, below ``folder``.

    Raises:
        UserError: if it leads out of the folder, through ``..``, a link or as an absolute path, or no file has such a name.
    """
    try:
        found = (folder / name).resolve()
        longest = max((len(os.fsencode(one)) for one in Path(name).parts), default=0)
    except (ValueError, OSError, RuntimeError):  # a zero byte, half a surrogate pair, links in a circle
        longest = _LONGEST_NAME + 1
    if longest > _LONGEST_NAME:
        raise UserError(f"{folder}: {ascii(name)[:80]} cannot be the name of a file; mend the file that holds it")
    if not found.is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: the name '{name}' leads out of that folder; mend the file that holds it")
    return found


def read_array(file: IO[bytes], length: int) -> Array:
    """The array in a file or member of an archive in ``.npy`` format, without pickles.

    Args:
        file: at its beginning.
        length: bytes that it has.

    Raises:
        ValueError: in words that end a sentence, if it is no such file, holds Python objects, or claims values that it has not.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on headers that Python 2 wrote, and on odd escapes in those that nobody did
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
    except Exception as error:  # NumPy reads the header as Python text: a damaged one fails in many ways
        raise ValueError("it is no .npy file; name another") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and reading them could run code; name another")
    claimed, left = int(np.prod(shape, dtype=object)) * dtype.itemsize, length - file.tell()
    if claimed != left or min(shape, default=0) < 0 or not dtype.itemsize:
        raise ValueError(f"it is damaged, its header claims {claimed:,} bytes of values and {left:,} follow; get it again")
    found = np.frombuffer(bytearray(file.read(claimed)), dtype)
    return found.reshape(shape, order="F" if fortran else "C")
