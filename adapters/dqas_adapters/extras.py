"""Packages that only some adapters need, and that an extra of this one brings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dqas_plugin.errors import UserError


def needed(package: str, who: str, extra: str) -> Any:
    """The package.

    Args:
        package: its name.
        who: what needs it, and how that calls it: ``the executor 'ray' needs the package of that name``.
        extra: how it is installed, as one types it after ``pip install``.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"{who}: pip install {extra}") from error
