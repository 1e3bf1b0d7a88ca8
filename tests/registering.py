"""Adapters for tests: an installation brings them, a checkout does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dqas_plugin.plugins import plugins


def registered(plugin: object, name: str) -> Iterator[None]:
    """For a fixture: the plugin, registered here where the package is not installed.

    Args:
        plugin: the module.
        name: of its entry point.
    """
    if any(one.name == name for one in plugins().overview()):
        yield
        return
    plugins().register(plugin, name)
    try:
        yield
    finally:
        plugins().unregister(plugin)


plugin = contextmanager(registered)
"""The same for a ``with`` block."""
