"""Results for tests of the report: digits with selections whose images are there, and a toy with names that mean harm; and a
reader of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from dqas_plugin import Selection
from dqas_plugin.bench import Cell, DatasetReference, open_dataset
from dqas_plugin.bench.cell import load
from dqas_plugin.bench.evidence import read
from dqas_plugin.bench.report import write
from dqas_plugin.bench.store import Store
from evidence_problem import result, stored, toy_cells

HARM = ("<script>window.harm = 1</script>", "\"'><img src=x onerror='window.harm = 2'>", "</script><b>&amp;")
HOSTILE = DatasetReference("folder:/there/<i>is</i>/none", "4567", images=900, classes=3, class_names=HARM)


def of_digits(cell: Cell) -> dict[str, Any]:
    """Accuracies by method, budget and seed; adaptive counts gain where the method is ``herding``, and nothing else does."""
    noise = np.random.default_rng([cell.budget, cell.seed, cell.method == "herding"]).normal(0, 0.002, 10)
    level = (
        0.6 + cell.budget / 1000 - 0.2 * (cell.method == "herding") + 0.1 * (cell.method == "herding" and bool(cell.variant))
    )
    classes = (level + 0.005 * cell.seed + np.linspace(0, 0.05, 10) + (noise if cell.variant else 0)).tolist()
    counts = np.full(10, cell.budget // 10) + (np.arange(10) - 4 if cell.variant else 0)
    counts[-1] += cell.budget - counts.sum()
    found = result(classes, counts.tolist(), cell.key)
    versions = {"dqas": "0.1.0", "python": "3.11.1" if cell.seed else "3.12.1"}
    return found | {"precision": "fp32", "versions": versions}


def digits_cells() -> list[Cell]:
    """Two methods beside ``random``, with and without adaptive sampling, two budgets, three seeds; one is not finished."""
    cells = toy_cells(("graphcut", "herding"), dataset=open_dataset("digits"), ratios=[0.05, 0.1])
    return [cell for cell in cells if (cell.method, cell.variant, cell.label, cell.seed) != ("graphcut", "", "10 %", 2)]


def select(cell: Cell, folder: Path) -> Selection:
    """Keep a selection for the cell: images of each class drawn at random."""
    train = load(cell.dataset).train
    rng = np.random.default_rng([cell.seed, cell.budget, len(cell.variant)])
    counts = np.array(of_digits(cell)["counts"])
    labels = train.labels.numpy()
    picks = [rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in enumerate(counts)]
    provenance = {"fingerprint": train.fingerprint, "dataset": train.name}
    chosen = Selection(np.concatenate(picks), counts, provenance=provenance)
    with Store(folder) as store:
        chosen.save(store.selection(cell))
    return chosen


def results(folder: Path) -> Path:
    """The folder, with both."""
    cells = digits_cells()
    stored(folder, cells, of_digits)
    for cell in cells:
        if cell.variant or cell.method != "random":
            select(cell, folder)
    hostile = toy_cells(dataset=HOSTILE, ratios=[0.05], seeds=2)
    return stored(folder, hostile, lambda cell: result([0.5, None, 0.7 + cell.seed / 9], [30, 5, 10], cell.key))


def page(folder: Path) -> Path:
    """The report on them."""
    out = folder / "report.html"
    write(read(results(folder)), folder, out)
    return out


VOID = {"img", "meta", "link"}


class Page(HTMLParser):
    """Elements with their attributes, and the text of every one of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._table = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.elements.append((name, found))
        if name not in VOID:
            self.open.append(name)
        if name == "table":
            self._table = f"{sum(one == 'table' for one, _ in self.elements)} {found['aria-label']}"
            self.tables[self._table] = []
        elif name == "tr":
            self.tables[self._table].append([])
        elif name in ("th", "td"):
            self.tables[self._table][-1].append("")
        elif name == "script":
            self.scripts.append("")

    def handle_endtag(self, name: str) -> None:
        if name not in VOID and name != "!doctype":
            assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.tables[self._table][-1][-1] += data
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif "main" in self.open:
            self.words.append(data)

    def table(self, label: str) -> list[list[str]]:
        """The first of that label."""
        return next(rows for name, rows in self.tables.items() if name.partition(" ")[2] == label)
