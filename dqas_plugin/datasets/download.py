"""What the loaders that download through torchvision share."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path

from dqas_plugin.errors import UserError

DEFAULT_ROOT = Path("data")
"""Where data sets are looked for without ``--root``."""

_allowed: ContextVar[bool] = ContextVar("downloads are allowed", default=True)

_TIMEOUT = 30.0  # seconds without an answer; urllib's default is to wait for ever


@contextmanager
def no_downloads() -> Iterator[None]:
    """Inside, :func:`downloading` refuses: for work that can do without the data."""
    before = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(before)


@contextmanager
def downloading(name: str, root: Path) -> Iterator[None]:
    """Around a download to ``root``: its words go to stderr, it does not hang, and a failure is one clear sentence."""
    if not _allowed.get():
        raise UserError(f"{name} is not in {root}, and nothing is downloaded for this: put its files there")
    timeout = socket.getdefaulttimeout()
    existed = root.exists()
    socket.setdefaulttimeout(timeout or _TIMEOUT)
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError) as error:
        if not existed:
            _remove_empty(root)
        reason = " ".join(str(getattr(error, "reason", None) or error).split()).rstrip(".")
        raise UserError(
            f"{name} is not in {root} and could not be downloaded ({reason}): put its files there, "
            "or name the folder that holds them with --root"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _remove_empty(root: Path) -> None:
    """Remove the folders that a failed download made, unless something lies in them."""
    for folder, _, _ in os.walk(root, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return
