"""Where caches live, and how files are written so that a stop half-way, a full disk or a power cut leaves nothing half-written.

What is being written has the name ``.NAME.part`` beside its target, is flushed to the disk, and takes the target's name last.
Its writer holds a lock on it. So what a killed process left behind is told from what another one is writing just now, and the
next writer of the same target uses that name again: nothing piles up.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dqas_plugin.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_PART = ".part"
_WRITERS = 16  # of one target at a time; the others take names that nobody can tell from those of killed ones
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), None}  # None: numpy, which wrote less than it should


def cache_folder(*parts: str) -> Path:
    """``$DQAS_CACHE`` (default ``~/.cache/dqas``) and the parts below it; created if missing."""
    base = os.environ.get("DQAS_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "dqas")
    folder = Path(base).expanduser().joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write the cache folder {folder} ({error.strerror}): set DQAS_CACHE to a folder you can write"
        ) from error
    return folder


def check_empty(folder: Path) -> None:
    """Refuse a folder for new files that holds some, is a file, or is one whose place a new one cannot take.

    Raises:
        UserError: if so.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not an empty folder: choose another name")
    mounted = os.path.ismount(folder)
    if mounted or (folder.is_dir() and folder.samefile(Path.cwd())):
        what = "the root of a file system" if mounted else "the folder you are in"
        raise UserError(f"{folder} is {what}, and a new folder cannot take its place: name one inside it")


def check_regular(path: Path) -> None:
    """Refuse to replace what is there and no regular file: a folder, a device, a pipe.

    Raises:
        UserError: if so.
    """
    if path.exists() and not path.is_file():
        what = "is a folder: name a file" if path.is_dir() else "is no regular file: choose another name"
        raise UserError(f"{path} {what}")


def _behind_links(path: Path) -> Path:
    return path.resolve() if path.is_symlink() else path


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that gets the name ``folder`` when the block ends well, and is removed when it does not.

    Raises:
        UserError: if something is in ``folder`` already, or it cannot be written.
    """
    with _in_words(folder):
        check_empty(folder)
        folder = _behind_links(folder)
        with part_folder(folder) as temporary:
            try:
                yield temporary
            except UserError as error:
                if str(temporary) in str(error):  # what people know is the name that it would have got
                    raise UserError(str(error).replace(str(temporary), str(folder))) from error
                raise
            _take_name(temporary, folder)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and is removed when it does not.

    Raises:
        UserError: if it cannot be written, or is something else than a file; a link leads to the file meant.
    """
    with _in_words(path):
        check_regular(path)
        path = _behind_links(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part(path, folder=False) as temporary:
            yield temporary
            _take_name(temporary, path)


@contextmanager
def part_folder(target: Path) -> Iterator[Path]:
    """An empty folder ``.NAME.part`` beside ``target``, to be renamed to it; removed at the end if it is not.

    Raises:
        OSError: if it cannot be made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _part(target, folder=True) as temporary:
        yield temporary


def settle(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk and would outlast a power cut."""
    if path.is_symlink():
        return
    if path.is_dir():
        for one in path.iterdir():
            settle(one)
        _flush_folder(path)
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle_name(path: Path) -> None:
    """Wait until the name of a file or folder is on the disk, after it was renamed."""
    _flush_folder(path.parent)


def _take_name(temporary: Path, target: Path) -> None:
    """Give what is whole its name; both are on the disk afterwards, the content first."""
    settle(temporary)
    temporary.replace(target)
    settle_name(target)


def remove(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it; nothing happens if there is none."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def cannot_write(what: object, error: OSError, otherwise: str = "choose another folder") -> UserError:
    """The error of the system in words, with a remedy: room if the disk is full, or else ``otherwise``."""
    remedy = f"make room there, or {otherwise}" if error.errno in _FULL else otherwise
    return UserError(f"cannot write {what} ({error.strerror or error}): {remedy}")


def lock(handle: int, *, wait: bool = False) -> bool | None:
    """Lock an open file or folder until it is closed, or its process ends, however it ends.

    Args:
        handle: of the system, as ``os.open`` gives it.
        wait: for another process that has locked it.

    Returns:
        Whether it is locked now; None where there are no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _in_words(target: Path) -> Iterator[None]:
    """What the system says of writing ``target`` becomes one sentence; what it says of other files is left alone."""
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else Path(os.fsdecode(error.filename))
        ours = named is None or named in (target, *target.parents) or any(_is_part(one, target) for one in named.parts)
        if not ours:
            raise
        raise cannot_write(target, error) from error


def _is_part(name: str, target: Path) -> bool:
    return name.startswith(f".{target.name}.") and name.endswith(_PART)


@contextmanager
def _part(target: Path, *, folder: bool) -> Iterator[Path]:
    """The file or folder that is to become ``target``: empty, ours alone, and removed at the end if it still has that name."""
    temporary, handle = _claimed(target, folder)
    try:
        yield temporary
    finally:
        if handle is None or _names(temporary, handle):
            remove(temporary)
        if handle is not None:
            os.close(handle)


def _claimed(target: Path, folder: bool) -> tuple[Path, int | None]:
    """The temporary path, and the handle that holds the lock on it; None where there are no locks."""
    for number in range(_WRITERS):
        temporary = target.parent / f".{target.name}{f'.{number}' if number else ''}{_PART}"
        handle = _opened(temporary, folder)
        if handle is None:
            break
        locked = lock(handle)
        if locked and _names(temporary, handle):  # else its last writer has renamed it meanwhile
            _empty(temporary, handle)
            return temporary, handle
        os.close(handle)
        if locked is None:
            remove(temporary)
            break
    temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}{_PART}"
    if folder:
        temporary.mkdir()
    else:
        temporary.touch(exist_ok=False)
    return temporary, None


def _opened(temporary: Path, folder: bool) -> int | None:
    """A handle of the file or folder of that name, which is made if it is missing; None if that cannot be."""
    if fcntl is None:
        return None
    try:
        if folder:
            temporary.mkdir(exist_ok=True)
            return os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:
        return None


def _names(path: Path, handle: int) -> bool:
    """Whether what is open has that name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _empty(temporary: Path, handle: int) -> None:
    """Remove what a killed process left in it."""
    if temporary.is_dir():
        for one in temporary.iterdir():
            remove(one)
    else:
        os.truncate(handle, 0)
