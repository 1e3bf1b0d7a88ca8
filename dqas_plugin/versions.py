"""Versions of what computes, for results to carry."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def installed(package: str) -> str | None:
    """The version of an installed package; None for one that is not (this one, run from its source folder)."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """This program, torch, NumPy and Python."""
    import numpy
    import torch

    own = installed("dqas") or "not installed"
    return {"dqas": own, "torch": torch.__version__, "numpy": numpy.__version__, "python": platform.python_version()}
