"""Which plugins of others a cell's result depends on, so that a result made with one is not taken for a result made without."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from dqas_plugin.plugins import plugins

WRAPPERS = "wrappers"
"""The role of plugins that stand around every selection (the hook ``dqas_select``)."""

OURS = ("dqas_plugin", "dqas_adapters")


def foreign_plugins(method: str, allocator: str, refiner: str | None, model: str) -> dict[str, str]:
    """Plugins that are not part of this project, by their role in a cell, with their versions and digests of their source.

    Args:
        method: name of the selector.
        allocator: its name.
        refiner: its name, or None.
        model: its name.

    Returns:
        for example ``{"method": "my-plugin 1.2 3f5a…", "wrappers": "near-duplicates 0.1 …"}``; most often empty.
    """
    loaded = plugins()
    found = {}
    for role, kind, name in (
        ("method", loaded.selectors, method),
        ("allocator", loaded.allocators, allocator),
        ("refiner", loaded.refiners, refiner),
        ("model", loaded.models, model),
    ):
        known = name if name is None or name in kind else name.partition(":")[0]
        if known is not None and known in kind:
            found[role] = _identities([kind.provider(known)])
    found[WRAPPERS] = _identities(one.plugin_name for one in loaded.hook.dqas_select.get_hookimpls())
    return {role: text for role, text in found.items() if text}


def _identities(names: Iterable[str]) -> str:
    """Those of these plugins that are not ours."""
    return ", ".join(text for name in sorted(names) if (text := _identity(name, plugins().home(name))))


@cache
def _identity(name: str, module: str) -> str:
    """Name, version and digest of the source; empty for our own plugins."""
    package = module.partition(".")[0]
    if package in OURS:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for path in _sources(package):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    version = next((one.version for one in plugins().overview() if one.name == name), "")
    return " ".join(part for part in (name, version, digest.hexdigest()) if part)


def _sources(package: str) -> Iterator[Path]:
    """The files of a package, or the file of a module."""
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        return
    path = Path(file)
    yield from sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
