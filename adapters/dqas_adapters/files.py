"""Rankings and selections in this project's own files, read back: ``--method ranking:FILE.npz``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.selection import Ranking, Selection


def load_ranking(path: str | Path) -> Ranking:
    """What ``Ranking.save`` wrote; nothing in the file is executed."""
    return Ranking.load(path)


def load_selection(path: str | Path) -> Selection:
    """What ``Selection.save`` wrote; it is checked against its dataset when it is used, not here."""
    return Selection.load(path)


@hookimpl
def dqas_register_importers(register: Callable[..., None]) -> None:
    """Register both readers."""
    register("ranking", load_ranking, title="samples of every class, best first (.npz); also a method: ranking:FILE.npz")
    register("selection", load_selection, title="a chosen training set (.npz), as 'dqas select' writes it")
