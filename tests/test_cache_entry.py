"""Entries of the cache that are damaged, or cannot be read for a while, and what is verified when."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dqas_plugin import cache_entry
from dqas_plugin.errors import UserError
from dqas_plugin.paths import new_folder
from entries import LARGE, VALUE, Entry


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content is hashed."""
    names: list[str] = []
    really = cache_entry._hash
    monkeypatch.setattr(cache_entry, "_SMALL", 1000)
    monkeypatch.setattr(cache_entry, "_hash", lambda file: (names.append(file.name), really(file))[1])
    return names


def flip(file: Path, place: int) -> None:
    """Change one bit, and nothing else that can be told from outside but the time of the last change of the file's record."""
    before = file.stat()
    with file.open("r+b") as content:
        content.seek(place)
        old = content.read(1)
        content.seek(place)
        content.write(bytes([old[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_large_files_are_verified_when_they_were_touched(tmp_path: Path, hashed: list[str]) -> None:
    entry = Entry(tmp_path)
    assert [entry.open(), entry.open()] == [VALUE, VALUE]
    hashed.clear()
    assert entry.open() == VALUE
    assert "values.npy" not in hashed
    assert "meta.json" in hashed
    flip(entry.path / "values.npy", LARGE // 2)
    assert entry.open() == VALUE
    assert entry.built == 2


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="Linux")
def test_large_files_are_verified_after_a_start_of_the_machine(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for every machine that shares the cache once."""
    entry, boots = Entry(tmp_path), [tmp_path / "one", tmp_path / "two"]
    for number, boot in enumerate(boots):
        boot.write_text(f"{number}\n")
    seen = []
    for boot in (boots[0], boots[1], boots[0], boots[1]):
        monkeypatch.setattr(cache_entry, "_BOOT", boot)
        hashed.clear()
        entry.open()
        seen.append("values.npy" in hashed)
    assert seen == [True, True, False, False]  # the first is the building
    assert entry.built == 1


@pytest.mark.parametrize("way", ["a file", "a dangling link", "an empty folder", "no checksums", "meta a folder", "one more"])
def test_an_entry_that_is_something_else(tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str) -> None:
    entry = Entry(tmp_path)
    if way in ("no checksums", "meta a folder", "one more"):
        entry.open()
        file = entry.path / {"no checksums": "checksums.txt", "meta a folder": "meta.json", "one more": "more"}[way]
        file.unlink(missing_ok=True)
        if way == "meta a folder":
            file.mkdir()
        elif way == "one more":
            file.touch()
    elif way == "a file":
        entry.path.touch()
    elif way == "a dangling link":
        entry.path.symlink_to(tmp_path / "nothing")
    else:
        entry.path.mkdir()
    entry.built = 0
    with caplog.at_level(logging.WARNING):
        assert [entry.open(), entry.open()] == [VALUE, VALUE]
    assert entry.built == 1
    assert caplog.text.count("the cache entry of the toy is damaged") == 1
    assert not entry.path.is_symlink()


def test_what_cannot_be_read_now_is_not_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry(tmp_path)
    entry.open()

    def failing(number: int) -> Callable[[Path], object]:
        def fail(_: Path) -> object:
            raise OSError(number, os.strerror(number))

        return fail

    monkeypatch.setattr("entries.map_array", failing(errno.EACCES))
    with pytest.raises(UserError, match=r"cannot read the cache entry .*entry of the toy \(Permission denied\).*DQAS_CACHE"):
        entry.open()
    monkeypatch.setattr("entries.map_array", failing(errno.ENOMEM))
    with pytest.raises(OSError, match="Cannot allocate"):
        entry.open()
    monkeypatch.undo()
    assert entry.open() == VALUE
    assert entry.built == 1


@pytest.mark.skipif(shutil.which("b2sum") is None, reason="no b2sum")
def test_others_can_verify_an_entry(tmp_path: Path) -> None:
    entry = Entry(tmp_path)
    entry.open()
    command = ["b2sum", "--length=128", "--check", "checksums.txt"]
    assert subprocess.run(command, cwd=entry.path, capture_output=True, check=False).returncode == 0
    flip(entry.path / "values.npy", 5000)
    assert subprocess.run(command, cwd=entry.path, capture_output=True, check=False).returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="permissions")
def test_others_may_read_what_is_kept(tmp_path: Path) -> None:
    """As the user's settings have it; folders that only their maker can read are of no use in a shared cache."""
    before = os.umask(0o022)
    try:
        entry = Entry(tmp_path)
        entry.open()
        with new_folder(tmp_path / "new"):
            pass
    finally:
        os.umask(before)
    assert [oct(one.stat().st_mode & 0o777) for one in (entry.path, tmp_path / "new")] == ["0o755", "0o755"]
