"""The bench: a grid of cells, run once each, kept in one file, and printed as a table that claims no more than it measured.

dataset = open_dataset("digits")
cells = plan(dataset, ["graphcut"], allocators=["adaptive"], ratios=[0.05, 0.1], seeds=3)
outcome = run(cells, "dqas-results", reporter=reporter())
print(plain(tabulate(cells, outcome.results)))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqas_plugin.bench.cell import STEPS, Steps, open_dataset
    from dqas_plugin.bench.checks import DEFAULT_RATIOS
    from dqas_plugin.bench.cost import Estimate, estimate
    from dqas_plugin.bench.executors import default_jobs
    from dqas_plugin.bench.grid import Cell, DatasetReference, plan
    from dqas_plugin.bench.gridfile import ShippedGrid, read_grid, shipped_grids
    from dqas_plugin.bench.gridspec import GridSpec, plan_grids
    from dqas_plugin.bench.progress import Bar, Lines, Reporter, Silent, names, reporter
    from dqas_plugin.bench.render import markdown, plain
    from dqas_plugin.bench.reproduce import Command, commands
    from dqas_plugin.bench.runner import Failure, Outcome, Stopped, run
    from dqas_plugin.bench.store import Store
    from dqas_plugin.bench.table import Row, Section, tabulate
    from dqas_plugin.bench.tables import Table

_HOMES = {
    "DEFAULT_RATIOS": "checks",
    "STEPS": "cell",
    "Bar": "progress",
    "Cell": "grid",
    "Command": "reproduce",
    "DatasetReference": "grid",
    "Estimate": "cost",
    "Failure": "runner",
    "GridSpec": "gridspec",
    "Lines": "progress",
    "Outcome": "runner",
    "Reporter": "progress",
    "Row": "table",
    "Section": "table",
    "ShippedGrid": "gridfile",
    "Silent": "progress",
    "Steps": "cell",
    "Stopped": "runner",
    "Store": "store",
    "Table": "tables",
    "commands": "reproduce",
    "default_jobs": "executors",
    "estimate": "cost",
    "markdown": "render",
    "names": "progress",
    "open_dataset": "cell",
    "plain": "render",
    "plan": "grid",
    "plan_grids": "gridspec",
    "read_grid": "gridfile",
    "reporter": "progress",
    "run": "runner",
    "shipped_grids": "gridfile",
    "tabulate": "table",
}

__all__ = [
    "DEFAULT_RATIOS",
    "STEPS",
    "Bar",
    "Cell",
    "Command",
    "DatasetReference",
    "Estimate",
    "Failure",
    "GridSpec",
    "Lines",
    "Outcome",
    "Reporter",
    "Row",
    "Section",
    "ShippedGrid",
    "Silent",
    "Steps",
    "Stopped",
    "Store",
    "Table",
    "commands",
    "default_jobs",
    "estimate",
    "markdown",
    "names",
    "open_dataset",
    "plain",
    "plan",
    "plan_grids",
    "read_grid",
    "reporter",
    "run",
    "shipped_grids",
    "tabulate",
]


def __getattr__(name: str) -> Any:
    """Import on first use: a worker, and a plugin manager that wants the executors alone, need not wait for the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dqas_plugin.bench' has no attribute '{name}'")
    return getattr(import_module(f"dqas_plugin.bench.{_HOMES[name]}"), name)
