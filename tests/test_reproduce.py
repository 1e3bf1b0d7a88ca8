"""Command lines that make given cells: read by the command itself, planned, and compared by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench_lines import planned, results_folder
from dqas_plugin.bench import Cell, DatasetReference, commands, plan
from dqas_plugin.recipes import recipe

DATA = DatasetReference("digits", "0123", images=1438, classes=10, shape=(1, 8, 8), mirror=False)
ODD = replace(
    DATA,
    name="parquet:/data/it's here/set",
    root="/r oot",
    options={"test_from": "digits", "size": 8, "strict": True},
)


def keys(cells: Sequence[Cell]) -> set[str]:
    return {cell.key for cell in cells}


GRIDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "adaptive": {"allocators": ["adaptive"], "refiner": "error-reduction"},
    "adaptive without refinement": {"allocators": ["adaptive"]},
    "refinement alone": {"refiner": "error-reduction", "refine_share": 0.2, "refiner_options": {"rounds": 1}},
    "another refiner": {"allocators": ["adaptive"], "refiner": "random"},
    "algorithm 1": {"allocators": ["paper"], "allocator_options": {"iterations": 5}},
    "a goal": {"allocators": ["adaptive"], "refiner": "error-reduction", "goal": "worst", "proxy": "train"},
    "budgets by class": {"aipc": [5, 12], "ratios": []},
    "odd ratios": {"ratios": [0.075, 0.333333, 0.0123456]},
    "many seeds": {"seeds": 7},
    "iterations": {"recipe": recipe("quick").with_(iterations=500)},
    "epochs and prior": {"recipe": recipe("fast").with_(epochs=20, prior="empirical")},
    "a learning rate and a batch": {"recipe": recipe("paper").with_(lr=0.6, batch=16)},
    "network and memory": {"model": "resnet18", "max_memory": 500_000_000},
    "options of methods": {"methods": ["grand", "graphcut"], "method_options": {"repeat": 3}},
    "options that are words": {"methods": ["bins"], "method_options": {"bins": 5}},
    "variants": {"methods": ["graphcut:eq7", "herding:paper"]},
    "whole images": {"methods": ["dq", "dqas"], "patches": {"keep": True}},
    "patches as usual": {"methods": ["dq", "dqas", "graphcut"]},
    "other patches": {"methods": ["dq"], "patches": {"drop_rate": 0.5, "size": 4, "scores": "saliency", "rebuild": "mae"}},
    "harmonic patches": {"methods": ["dq", "dqas"], "patches": {"rebuild": "harmonic"}},
    "bins on originals": {"methods": ["dqas"], "bins_on": "original", "allocators": ["adaptive"]},
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("dataset", [DATA, ODD], ids=["digits", "odd names"])
def test_one_grid_is_one_line(name: str, dataset: DatasetReference) -> None:
    choices = {"methods": ["graphcut", "herding"], "ratios": [0.05, 0.1], "seeds": 2, **GRIDS[name]}
    cells = plan(dataset, choices.pop("methods"), **choices)
    found = commands(cells)
    assert not any(one.lacking for one in found)
    assert len(found) == (2 if name == "options of methods" else 1)  # graphcut has not the option of grand
    assert keys([cell for one in found for cell in planned(one.line, dataset)]) == keys(cells)


def test_lines_are_short() -> None:
    """What is usual is not said; the network, the recipe and the device are, since the results depend on them."""
    [found] = commands(plan(DATA, ["graphcut"], allocators=["adaptive"], refiner="error-reduction"))
    assert str(found) == (
        "dqas bench --dataset digits --method graphcut --ratio 0.05,0.1 --seeds 3 --adaptive --model convnet3-small "
        "--recipe quick --device cpu"
    )


def test_folder_of_results(tmp_path: Path) -> None:
    cells = plan(DATA, ["graphcut"])
    [found] = commands(cells, tmp_path / "my results")
    assert results_folder(found.line) == tmp_path / "my results"
    assert results_folder(commands(cells)[0].line) == Path("dqas-results")


def test_several_settings_are_several_lines_and_no_cell_is_lost() -> None:
    cells = [
        *plan(DATA, ["graphcut", "dq"], allocators=["adaptive"], refiner="error-reduction", seeds=2),
        *plan(DATA, ["graphcut", "dq"], allocators=["adaptive"], seeds=2),
        *plan(DATA, ["dq"], patches={"keep": True}, seeds=3, ratios=[0.1]),
        *plan(DATA, ["margin"], ratios=[0.2], seeds=1),
        *plan(replace(DATA, name="shapes", fingerprint="s"), ["margin"], ratios=[0.2], seeds=1),
    ]
    found = commands(cells)
    assert len(found) == 5
    made = []
    for one in found:
        dataset = replace(DATA, name="shapes", fingerprint="s") if "shapes" in one.line else DATA
        made += planned(one.line, dataset)
    assert keys(cells) == keys(made)


def test_missing_seeds_and_budgets_are_covered() -> None:
    """A line may make more than is wanted (all seeds from 0, and what methods are compared with), but nothing else."""
    grid = plan(DATA, ["graphcut", "herding"], allocators=["adaptive"], ratios=[0.05, 0.1, 0.2], seeds=4)
    wanted = [
        cell
        for cell in grid
        if (cell.method, cell.seed) == ("graphcut", 3) or (cell.method == "herding" and cell.label == "20 %" and cell.variant)
    ]
    found = commands(wanted)
    made = keys([cell for one in found for cell in planned(one.line, DATA)])
    assert keys(wanted) <= made <= keys(grid)
    assert all("--ratio 0.2 " in one.line for one in found if "herding" in one.line)


def test_even_counts_come_with_adaptive_ones() -> None:
    cells = plan(DATA, ["graphcut", "herding"], allocators=["adaptive"], seeds=2)
    assert len(commands(cells)) == 1
    more = plan(DATA, ["graphcut"], seeds=5)
    found = commands([*cells, *more])
    assert keys([*cells, *more]) == keys([cell for one in found for cell in planned(one.line, DATA)])


def test_random_alone() -> None:
    cells = plan(DATA, [], seeds=2)
    [found] = commands(cells)
    assert keys(planned(found.line, DATA)) == keys(cells)
    assert "--method random " in found.line
    assert commands([]) == []


def test_what_no_option_says_is_told() -> None:
    other = plan(DATA, ["graphcut"], recipe=recipe("quick").with_(momentum=0.8, label_smoothing=0.1))
    [found] = commands(other)
    assert found.lacking == ("momentum=0.8", "label_smoothing=0.1")
    assert str(found).endswith("  # no option for: momentum=0.8, label_smoothing=0.1")
    named = plan(DATA, ["graphcut"], recipe=recipe("quick").with_(name="my own"))
    [found] = commands(named)
    assert found.lacking == ("the recipe 'my own'",)
    *_, cell = plan(DATA, ["dq"], patches={"rebuild": "mae"}, seeds=1)
    assert cell.quantization is not None
    patches = {**cell.quantization["patches"], "mae_steps": 3}
    [found] = commands([replace(cell, quantization={**cell.quantization, "patches": patches})])
    assert found.lacking == ("mae_steps=3",)


def test_a_label_of_ones_own_does_not_matter() -> None:
    cells = [
        replace(cell, label=label) for cell in plan(DATA, ["graphcut"], ratios=[0.1], seeds=1) for label in ("little", "7 %")
    ]
    for cell in cells:
        [found] = commands([cell])
        assert cell.key in keys(planned(found.line, DATA))
