"""How many samples of each class? Adaptive class-wise sampling around any coreset or distillation method (DQAS, ECCV 2024).

    from dqas_plugin import load_dataset, select
    data = load_dataset("digits")
    chosen = select(data.train, method="graphcut", ratio=0.1, adaptive=True, seed=0)

Plugin authors need ``hookimpl`` and the decorators ``selector``, ``allocator`` and ``refiner``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqas_plugin.contracts import Bounds, Weighted, allocator, refiner, selector
    from dqas_plugin.data import DatasetSplits, ImageDataset
    from dqas_plugin.errors import DqasError, PluginError, UserError
    from dqas_plugin.hookspecs import hookimpl
    from dqas_plugin.lookup import load_dataset
    from dqas_plugin.pipeline import rank, select
    from dqas_plugin.selection import Ranking, Selection
    from dqas_plugin.signals import Signals

_HOMES = {
    "Bounds": "contracts",
    "DatasetSplits": "data",
    "DqasError": "errors",
    "ImageDataset": "data",
    "PluginError": "errors",
    "Ranking": "selection",
    "Selection": "selection",
    "Signals": "signals",
    "UserError": "errors",
    "Weighted": "contracts",
    "allocator": "contracts",
    "hookimpl": "hookspecs",
    "load_dataset": "lookup",
    "rank": "pipeline",
    "refiner": "contracts",
    "select": "pipeline",
    "selector": "contracts",
}

__all__ = [
    "Bounds",
    "DatasetSplits",
    "DqasError",
    "ImageDataset",
    "PluginError",
    "Ranking",
    "Selection",
    "Signals",
    "UserError",
    "Weighted",
    "allocator",
    "hookimpl",
    "load_dataset",
    "rank",
    "refiner",
    "select",
    "selector",
]


def __getattr__(name: str) -> Any:
    """Import on first use: a plugin that needs ``hookimpl`` alone, and ``dqas --help``, need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dqas_plugin' has no attribute '{name}'")
    return getattr(import_module(f"dqas_plugin.{_HOMES[name]}"), name)
