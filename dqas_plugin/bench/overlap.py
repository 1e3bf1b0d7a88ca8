"""How far the methods' picks differ: two methods that pick the same images are one method, or a mistake."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dqas_plugin.bench.grid import Cell, hashed
from dqas_plugin.bench.store import Store
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import plugins
from dqas_plugin.selection import Selection

SUSPICIOUS = 0.95
"""Share of common images from which on two methods are pointed out."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """What the selections of one budget have in common.

    Attributes:
        dataset: its name.
        label: the budget as the user gave it.
        images: the budget.
        seeds: how many, averaged over.
        names: of the methods, with ``+ adaptive`` and the like; in the order of the registry, even counts first.
        methods: the method behind each name.
        shares: float64 ``[M, M]``: images in both selections of a seed over the budget; NaN where they have no seed in common.
        chance: what two random selections would have in common: budget over dataset.
    """

    dataset: str
    label: str
    images: int
    seeds: int
    names: tuple[str, ...]
    methods: tuple[str, ...]
    shares: FloatArray
    chance: float

    @property
    def suspicious(self) -> list[tuple[str, str, float]]:
        """Pairs of different methods that pick (nearly) the same images, and their share."""
        pairs = itertools.combinations(range(len(self.names)), 2)
        alike = [(i, j) for i, j in pairs if self.shares[i, j] >= SUSPICIOUS and self.methods[i] != self.methods[j]]
        return [(self.names[i], self.names[j], float(self.shares[i, j])) for i, j in alike]


def overlaps(folder: Path | str) -> list[Overlap]:
    """The overlap of all selections in a folder of results: one for every dataset, model, recipe and budget.

    Raises:
        UserError: if there are no results, or fewer than two methods.
    """
    if not Store.exists(folder):
        raise UserError(f"there are no results in {folder}: run dqas bench first, or name another folder")
    groups: defaultdict[str, list[tuple[Cell, IntArray]]] = defaultdict(list)
    with Store.existing(folder) as store:
        for cell, _ in store.cells():
            if (path := store.selection(cell)).is_file():
                groups[_group(cell)].append((cell, Selection.load(path).indices))
    found = [_overlap(members) for members in groups.values()]
    compared = [one for one in found if len(one.names) > 1]
    if not compared:
        raise UserError(f"there are no two methods to compare in {folder}: run dqas bench with several of them")
    return compared


def _group(cell: Cell) -> str:
    return hashed([cell.dataset.identity(), cell.model, cell.recipe.as_dict(), cell.budget, cell.device])


def _name(cell: Cell) -> str:
    detail = f" ({cell.detail})" if cell.detail else ""
    return f"{cell.method}{detail}" + (f" + {cell.variant}" if cell.variant else "")


def _place(cell: Cell) -> tuple[int, str, bool, str]:
    """Where a cell stands among the others."""
    known = list(plugins().selectors)
    head = cell.method.partition(":")[0]
    return known.index(head) if head in known else len(known), cell.method, bool(cell.variant), cell.variant


def _overlap(members: list[tuple[Cell, IntArray]]) -> Overlap:
    members = sorted(members, key=lambda one: _place(one[0]))
    cell = members[0][0]
    chosen: dict[str, dict[int, IntArray]] = {}
    methods: dict[str, str] = {}
    for one, indices in members:
        chosen.setdefault(_name(one), {})[one.seed] = indices
        methods[_name(one)] = one.method
    names = tuple(chosen)
    shares = np.full((len(names), len(names)), np.nan)
    for (i, first), (j, second) in itertools.product(enumerate(names), repeat=2):
        values = list(_shares(chosen[first], chosen[second]))
        if values:
            shares[i, j] = np.mean(values)
    chance = cell.budget / cell.dataset.images
    seeds = {one.seed for one, _ in members}
    told = (cell.dataset.name, cell.label, cell.budget, len(seeds))
    return Overlap(*told, names, tuple(methods.values()), shares, chance)


def _shares(first: dict[int, IntArray], second: dict[int, IntArray]) -> Iterator[float]:
    for seed in first.keys() & second.keys():
        yield len(np.intersect1d(first[seed], second[seed])) / max(len(first[seed]), len(second[seed]))
