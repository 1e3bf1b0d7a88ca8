"""Disks that are full, and folders that can only be read: real ones where this user may mount them, else by limits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def _mount(folder: Path, *options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.decode().strip()}")


@contextmanager
def mounted(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A folder on a disk of its own, of that size; the test is skipped where that cannot be."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir(parents=True, exist_ok=True)
    _mount(folder, f"size={kilobytes}k")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def make_readonly(folder: Path) -> None:
    """From now on nothing can be written on that disk."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file can become longer than so many bytes: for any user, and as good as a full disk."""
    if resource is None:
        pytest.skip("limits of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def little_memory(more: int) -> Iterator[None]:
    """This process may take so many bytes more than it has."""
    if resource is None or not Path("/proc/self/statm").exists():
        pytest.skip("limits of memory")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
