"""Running a reader on bytes that nobody should believe, and telling whether it behaved.

A reader behaves if it either gives what it is for, which can then be used, or raises a ``UserError``: one line, which names
the file, folder or dataset. Everything else is a defect: another exception, a warning that people would see, more memory or
time than the input warrants, a file written where none belongs, a pickle that was executed.

Folders are written as one row of bytes, a bundle: before every file a line ``#### name``. ``#### name -> target`` is a link,
``#### name |`` a pipe.
"""

from __future__ import annotations

import gzip
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqas_plugin.errors import UserError

CORPUS = Path(__file__).parent / "corpus"
"""A folder of inputs for every target; those ending in ``.gz`` are compressed to be small here, the readers get them whole."""

SECONDS = 5.0
"""Of processor time that a small input may take."""

MEMORY = 300 << 20
"""Bytes of memory that a small input may take, where a target does not say otherwise."""

MARK = "dqas_canary"
"""Attribute of ``sys`` that the pickles of the corpus set if somebody executes them."""

_PATIENCE = 15  # seconds on the clock; ten times as many where things are imported and compiled
_VIRTUAL = 4 << 30  # bytes of address space that may be asked for, filled or not
_MEMBER = re.compile(rb"(?:^|\n)#### ([^\n]{1,300})\n")
_MOST_MEMBERS = 2000
_SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # Python shows none of these
_LONGEST = 2500  # characters of a sentence


class DefectError(AssertionError):
    """What a reader did that it should not."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True)
class Target:
    """A reader and how it is called.

    Attributes:
        name: of the target, and of its folder in the corpus.
        run: called with the path of the hostile file or folder and the number of the variant; it reads and uses what it gets.
        file: name of the file that the bytes become; None: the bytes are a bundle, which becomes a folder.
        covers: names of the readers it stands for, as registered.
        skeleton: writes what is in the folder before the bundle is unpacked into it.
        finish: makes of what was unpacked what is read.
        variants: how many ways of calling there are.
        memory: bytes that a small input may take.
    """

    name: str
    run: Callable[[Path, int], Any]
    file: str | None = None
    covers: tuple[str, ...] = ()
    skeleton: Callable[[Path], None] | None = None
    variants: int = 1
    memory: int = MEMORY
    finish: Callable[[Path], None] | None = None


class Canary:
    """Unpickled without care, it sets :data:`MARK`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"import sys; sys.{MARK} = True",))


def inputs(target: str) -> Iterator[tuple[str, bytes]]:
    """The corpus of a target: names and contents."""
    for one in sorted((CORPUS / target).glob("*")):
        content = one.read_bytes()
        yield one.name.removesuffix(".gz"), gzip.decompress(content) if one.suffix == ".gz" else content


def keep(target: str, name: str, content: bytes) -> int:
    """Put an input into the corpus, compressed where that makes it much smaller; its size there."""
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    small = gzip.compress(content, mtime=0)
    ending, kept = (".gz", small) if len(small) < len(content) // 2 else ("", content)
    (CORPUS / target / f"{name}{ending}").write_bytes(kept)
    return len(kept)


def pack(members: Mapping[str, bytes]) -> bytes:
    """A bundle of these files."""
    return b"".join(b"#### " + os.fsencode(name) + b"\n" + content + b"\n" for name, content in members.items())


def members(data: bytes) -> dict[str, bytes]:
    """The files of a bundle."""
    parts = _MEMBER.split(data)[1 : 2 * _MOST_MEMBERS + 1]
    found = {os.fsdecode(name): content for name, content in zip(parts[::2], parts[1::2], strict=True)}
    if found:
        last = next(reversed(found))
        found[last] = found[last].removesuffix(b"\n")
    return found


def unpack(data: bytes, folder: Path) -> None:
    """Write the files of a bundle; names that lead elsewhere, and what no file system takes, are passed over."""
    for name, content in members(data).items():
        path, arrow, target = name.partition(" -> ")
        pipe = path.endswith(" |")
        parts = path.removesuffix(" |").split("/")
        if any(one in ("", ".", "..") or "\0" in one for one in parts) or "\0" in target:
            continue
        place = folder.joinpath(*parts)
        try:
            if not place.parent.resolve().is_relative_to(folder.resolve()):
                continue  # through a link
            place.parent.mkdir(parents=True, exist_ok=True)
            if arrow:
                place.unlink(missing_ok=True)
                place.symlink_to(target)
            elif pipe:
                place.unlink(missing_ok=True)
                os.mkfifo(place)
            elif not place.is_symlink():
                place.unlink(missing_ok=True)  # a link of the skeleton's
                place.write_bytes(content)
        except (OSError, RuntimeError):  # RuntimeError: links in a circle
            continue


def execute(target: Target, data: bytes, variant: int = 0, *, measured: bool = True) -> str:
    """Run a target on an input.

    Args:
        target: the reader.
        data: the input.
        variant: how it is called.
        measured: judge time and memory, too; not at the first call, which imports.

    Returns:
        ``read``, or the sentence of the refusal.

    Raises:
        DefectError: if it did not behave.
    """
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    base = Path(tempfile.mkdtemp(dir=place, prefix="hostile."))
    try:
        return _executed(target, data, variant % target.variants, base, measured)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _executed(target: Target, data: bytes, variant: int, base: Path, measured: bool) -> str:
    for one in ("hostile", "cache", "here"):
        (base / one).mkdir()
    path = base / "hostile"
    if target.skeleton is not None:
        target.skeleton(path)
    if target.file is None:
        unpack(data, path)
    else:
        path = path / target.file
        path.write_bytes(data)
    if target.finish is not None:
        target.finish(path)
    before = listing(base / "hostile")
    if hasattr(sys, MARK):
        delattr(sys, MARK)
    with _surroundings(base), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for kind in _SILENT:
            warnings.simplefilter("ignore", kind)
        with alarm(_PATIENCE if measured else 10 * _PATIENCE), _limits(target.memory if measured else None):
            said = _outcome(target, path, variant)
    _check_traces(base, seen, changed=listing(base / "hostile") != before)
    return said


def _check_traces(base: Path, seen: Sequence[warnings.WarningMessage], changed: bool) -> None:
    """What a run must not leave behind: warnings, the mark of a pickle that was executed, files."""
    shown = [one for one in seen if not issubclass(one.category, _SILENT)]
    if shown:
        text = f"{shown[0].category.__name__}: {shown[0].message} ({shown[0].filename}:{shown[0].lineno})"
        raise DefectError("warning", text)
    if hasattr(sys, MARK):
        raise DefectError("executed", "a pickle was executed")
    if changed:
        raise DefectError("written", "something was written into the folder that was read")
    extra = {one.name for one in base.iterdir()} - {"hostile", "cache", "here", "out"}
    if extra or any((base / "here").iterdir()):
        raise DefectError("written", f"something was written elsewhere: {sorted(extra)}")


def _outcome(target: Target, path: Path, variant: int) -> str:
    """``read``, or what the refusal says, which is checked to be a sentence for people."""
    try:
        target.run(path, variant)
    except UserError as error:
        text = str(error)
    except DefectError:
        raise
    except MemoryError as error:
        raise DefectError("memory", f"{type(error).__name__}: {error} at {_place(error)}") from error
    except Exception as error:
        raise DefectError("exception", f"{type(error).__name__}: {str(error)[:300]} at {_place(error)}") from error
    else:
        return "read"
    if "\n" in text.strip() or len(text) > _LONGEST or not text.strip():
        raise DefectError("sentence", f"no sentence: {text[:300]!r} ({len(text)} characters)")
    if "hostile" not in text:
        raise DefectError("sentence", f"it does not name the file: {text}")
    return text


def _place(error: BaseException) -> str:
    """The innermost line of this project in a traceback."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "dqas_" in one.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else "nowhere"


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Every file below a folder, its length and time of change."""
    found = []
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            status = os.lstat(os.path.join(parent, name))
            found.append((os.path.join(parent, name), status.st_size, status.st_mtime_ns))
    return sorted(found)


@contextmanager
def _surroundings(base: Path) -> Iterator[None]:
    before = os.environ.get("DQAS_CACHE")
    os.environ["DQAS_CACHE"] = str(base / "cache")
    try:
        with chdir(base / "here"):
            yield
    finally:
        if before is None:
            del os.environ["DQAS_CACHE"]
        else:
            os.environ["DQAS_CACHE"] = before


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Interrupt what waits for ever, for a pipe that nobody writes to."""

    def ring(*_: Any) -> None:
        raise DefectError("hang", f"nothing after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _limits(memory: int | None) -> Iterator[None]:
    """Judge the time and memory of the block; None: do not."""
    if memory is None or not sys.platform.startswith("linux"):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + _VIRTUAL, hard))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    resident, started = _status("VmRSS"), time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    taken, grown = time.process_time() - started, _status("VmHWM") - resident
    if taken > SECONDS:
        raise DefectError("slow", f"{taken:.1f} s")
    if grown > memory:
        raise DefectError("memory", f"{grown / 2**20:.0f} MiB")


def _status(field: str) -> int:
    """Bytes, of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)
