"""The ``dqas bench`` command lines that make given cells: for what a table lacks, and for doing all of it again.

A command makes whole grids: with the wanted cells come ``random`` and even class counts, and all seeds below the highest. What
is stored already is not made again.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from dqas_plugin.bench.grid import Cell
from dqas_plugin.budget import budget_of
from dqas_plugin.defaults import ADAPTIVE, NONE
from dqas_plugin.errors import UserError
from dqas_plugin.quantization.settings import MAE_STEPS, PatchSettings
from dqas_plugin.recipes import RECIPES, Recipe

RESULTS = "dqas-results"
"""Where ``dqas bench`` keeps results unless told otherwise."""

Words = tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A line for a shell.

    Attributes:
        line: the command.
        lacking: settings of the cells that no option of the command stands for, in words; most often none. With any, the
            command makes other cells.
    """

    line: str
    lacking: Words = ()

    def __str__(self) -> str:
        return self.line if not self.lacking else f"{self.line}  # no option for: {', '.join(self.lacking)}"


class _Grid(NamedTuple):
    """What all cells of a command have in common."""

    shared: Words  # dataset, network and recipe
    own: Words  # settings of the method
    counts: Words  # of class counts and refinement; none: even counts
    unit: str  # of the budgets
    lacking: Words


class _Part(NamedTuple):
    """Methods of a grid that are wanted at the same budgets and seeds."""

    methods: Words
    budgets: Words
    seeds: int


def commands(cells: Iterable[Cell], results: Path | str = RESULTS) -> list[Command]:
    """Few command lines whose grids hold all these cells.

    Args:
        cells: in any order; methods and budgets keep it.
        results: folder of the results.
    """
    wanted: dict[_Grid, dict[str, dict[str, int]]] = {}
    for cell in cells:
        unit, number = _budget(cell)
        grid = _Grid(_shared(cell), _own(cell), _counts(cell), unit, _lacking(cell))
        seeds = wanted.setdefault(grid, {}).setdefault(cell.method, {})
        seeds[number] = max(seeds.get(number, 0), cell.seed + 1)
    found: list[tuple[_Grid, _Part]] = []
    for grid, methods in sorted(wanted.items(), key=lambda one: not one[0].counts):  # even counts come with the others
        left = {method: _uncovered(grid, method, seeds, found) for method, seeds in methods.items()}
        found += [(grid, part) for part in _parts(left)]
    found = [(grid, part) for grid, part in found if not _only_baseline(grid, part, found)]
    return [Command(shlex.join(_words(grid, part, results)), grid.lacking) for grid, part in found]


def _uncovered(grid: _Grid, method: str, seeds: Mapping[str, int], found: Iterable[tuple[_Grid, _Part]]) -> dict[str, int]:
    """Budgets and seeds that do not come with an earlier command."""
    if grid.counts:
        return dict(seeds)
    alike = [part for other, part in found if other._replace(counts=()) == grid and method in part.methods]
    return {
        number: count
        for number, count in seeds.items()
        if not any(number in part.budgets and part.seeds >= count for part in alike)
    }


def _parts(wanted: Mapping[str, Mapping[str, int]]) -> list[_Part]:
    """Methods with the same budgets at the same seeds go together."""
    groups: defaultdict[tuple[Words, int], list[str]] = defaultdict(list)
    for method, seeds in wanted.items():
        for count in dict.fromkeys(seeds.values()):
            groups[tuple(number for number in seeds if seeds[number] == count), count].append(method)
    return [_Part(tuple(methods), budgets, count) for (budgets, count), methods in groups.items()]


def _only_baseline(grid: _Grid, part: _Part, found: Iterable[tuple[_Grid, _Part]]) -> bool:
    """Whether it is ``random`` with even counts alone, which comes with every other command."""
    if grid.counts or grid.own or part.methods != ("random",):
        return False
    return any(
        other.shared == grid.shared and other.unit == grid.unit and set(part.budgets) <= set(more.budgets)
        and more.seeds >= part.seeds and more is not part
        for other, more in found
    )  # fmt: skip


def _words(grid: _Grid, part: _Part, results: Path | str) -> list[str]:
    dataset, training = grid.shared[: grid.shared.index("--model")], grid.shared[grid.shared.index("--model") :]
    return [
        *("dqas", "bench", *dataset),
        *("--method", ",".join(part.methods), *grid.own),
        *(grid.unit, ",".join(part.budgets), "--seeds", str(part.seeds)),
        *(*grid.counts, *training),
        *(() if str(results) == RESULTS else ("--results", str(results))),
    ]


# --- options of a cell -------------------------------------------------------------------------------------------------------


def _budget(cell: Cell) -> tuple[str, str]:
    """``--ratio`` or ``--aipc``, and a number that means just as many images."""
    size, classes = cell.dataset.images, cell.dataset.classes
    number, _, unit = cell.label.partition(" ")
    try:
        value = float(number)
        if unit == "%" and budget_of(size, classes, ratio=value / 100) == cell.budget:
            return "--ratio", f"{value / 100:.10g}"
    except (ValueError, UserError):  # a label of somebody's own
        pass
    if cell.budget % classes == 0 and unit != "%":
        return "--aipc", str(cell.budget // classes)
    return "--ratio", f"{cell.budget / size:.10g}"


def _shared(cell: Cell) -> Words:
    return (*_dataset(cell), "--model", cell.model, *_recipe(cell.recipe), "--device", cell.device, *_memory(cell))


def _dataset(cell: Cell) -> Iterator[str]:
    yield from ("--dataset", cell.dataset.name)
    if cell.dataset.root:
        yield from ("--root", cell.dataset.root)
    options = dict(cell.dataset.options)
    if "test_from" in options:
        yield from ("--test-from", str(options.pop("test_from")))
    yield from _pairs("--dataset-option", options)


def _recipe(recipe: Recipe) -> Iterator[str]:
    base = _base(recipe)
    yield from ("--recipe", recipe.name if base is None else base.name)
    for name in _RECIPE_OPTIONS:
        value = getattr(recipe, name)
        if value is not None and value != getattr(base, name, None):
            yield from (f"--{name}", str(value))
    if recipe.prior != "balanced":
        yield from ("--prior", recipe.prior)


_RECIPE_OPTIONS = ("epochs", "iterations", "batch", "lr")


def _base(recipe: Recipe) -> Recipe | None:
    return RECIPES.get(recipe.name.partition("[")[0])


def _lacking(cell: Cell) -> Words:
    """What of a recipe and of patches no option changes."""
    recipe, base = cell.recipe, _base(cell.recipe)
    if base is None:
        return (f"the recipe '{recipe.name}'",)
    steps = [] if cell.patches is None or cell.patches.mae_steps == MAE_STEPS else [f"mae_steps={cell.patches.mae_steps}"]
    names = [one.name for one in fields(Recipe) if one.name not in ("name", *_RECIPE_OPTIONS, "prior")]
    return (*steps, *(f"{name}={getattr(recipe, name)}" for name in names if getattr(recipe, name) != getattr(base, name)))


def _memory(cell: Cell) -> Iterator[str]:
    if cell.max_memory != _default("max_memory"):
        yield from ("--max-memory", str(cell.max_memory))


def _own(cell: Cell) -> Words:
    words = [*_pairs("--method-option", cell.method_options)]
    if cell.features != "proxy":
        words += ["--features", cell.features]
    return (*words, *_quantization(cell))


def _quantization(cell: Cell) -> Iterator[str]:
    if cell.quantization is None:
        return
    if "bins on" in cell.detail:
        yield from ("--bins-on", cell.quantization["bins_on"])
    patches = cell.quantization["patches"]
    if patches is None:
        yield "--no-patches"
        return
    usual = PatchSettings()
    for name, option in _PATCH_OPTIONS.items():
        if patches[name] != getattr(usual, name):
            yield from (option, str(patches[name]))


_PATCH_OPTIONS = {"drop_rate": "--drop-rate", "size": "--patch-size", "scores": "--patch-scores", "rebuild": "--rebuild"}


def _counts(cell: Cell) -> Words:
    """How class counts are chosen, and the last samples."""
    adaptive = cell.allocator == "adaptive"
    words = ["--adaptive"] if adaptive else [] if cell.allocator == "uniform" else ["--allocator", cell.allocator]
    words += _pairs("--allocator-option", cell.allocator_options)
    if cell.refiner != (ADAPTIVE if adaptive else None):
        words += ["--refiner", cell.refiner or NONE]
    words += _pairs("--refiner-option", cell.refiner_options)
    if cell.refiner is not None and cell.refine_share != _default("refine_share"):
        words += ["--refine-share", f"{cell.refine_share:.10g}"]
    for name in ("proxy", "goal"):
        if getattr(cell, name) != _default(name):
            words += [f"--{name}", getattr(cell, name)]
    return tuple(words)


def _default(name: str) -> Any:
    return next(one.default for one in fields(Cell) if one.name == name)


def _pairs(option: str, values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(values.items()):
        text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        yield from (option, f"{name}={text}")
