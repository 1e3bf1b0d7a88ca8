"""Which cells a grid has, and what their keys depend on."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import pytest

from dqas_plugin.bench.grid import Cell, DatasetReference, hashed, plan
from dqas_plugin.errors import UserError
from dqas_plugin.recipes import recipe

DIGITS = DatasetReference("digits", "0123", images=1438, classes=10, mirror=False)
CELL = Cell(DIGITS, "graphcut", 72, "5 %", allocator="adaptive")

OTHER: dict[str, Any] = {
    "dataset": replace(DIGITS, fingerprint="4567"),
    "method": "graphcut:eq7",
    "budget": 73,
    "allocator": "paper",
    "refiner": "eer",
    "refiner_options": {"rounds": 1},
    "goal": "worst",
    "proxy": "train",
    "model": "resnet18",
    "recipe": recipe("fast"),
    "seed": 1,
    "device": "cuda",
    "method_options": {"objective": "eq7"},
    "allocator_options": {"iterations": 3},
    "features": "timm:resnet18",
    "max_memory": 1000,
    "method_file": "89ab",
    "quantization": {"bins_on": "original", "patches": None},
    "plugins": {"wrappers": "some 1.0 cdef"},
}


@pytest.mark.parametrize("name", OTHER)
def test_key_changes_with(name: str) -> None:
    assert replace(CELL, **{name: OTHER[name]}).key != CELL.key


def test_every_field_is_known_to_these_tests() -> None:
    assert {one.name for one in fields(Cell)} == {*OTHER, "label", "refine_share"}


@pytest.mark.parametrize(
    "same",
    [
        {"label": "7.2 a class"},
        {"refine_share": 0.3},  # there is no refiner
        {"recipe": recipe("quick").with_(name="another name")},
        {"features": "proxy@elsewhere"},  # the content of such a file counts, not where it is
        {"dataset": replace(DIGITS, root="/elsewhere", options={"root": 1})},
        {"dataset": replace(DIGITS, shape=(1, 8, 8))},
        {"dataset": replace(DIGITS, class_names=("zero", "one"))},
    ],
)
def test_key_does_not_change_with(same: dict[str, Any]) -> None:
    assert replace(CELL, **same).key == CELL.key


def test_keys_of_cells_that_are_stored_stay() -> None:
    """As an earlier version made them, without the fields that came later; they change with the format of results only."""
    assert CELL.key == "448c763c27413835c34edfb48b3011cc"
    assert replace(CELL, refiner="random").key == "323c3f30d1dd8d26cda8aa4a22fcff9d"


def test_key_knows_the_path_of_a_dataset_by_its_content_alone() -> None:
    here, there = (replace(CELL, dataset=replace(DIGITS, name=name)) for name in ("folder:here", "folder:there"))
    assert here.key == there.key != CELL.key


def test_refine_share_counts_with_a_refiner() -> None:
    one = replace(CELL, refiner="eer")
    assert replace(one, refine_share=0.3).key != one.key


def test_key_changes_with_every_recipe_option() -> None:
    changes: dict[str, Any] = {
        "epochs": 3, "iterations": 7, "batch": 8, "lr": 0.3, "momentum": 0.5, "weight_decay": 0.1, "nesterov": False,
        "warmup": 0.2, "crop": False, "flip": False, "label_smoothing": 0.1, "prior": "empirical", "precision": "fp32",
        "proxy_epochs": 3,
    }  # fmt: skip
    keys = {CELL.key, *(replace(CELL, recipe=CELL.recipe.with_(**{name: value})).key for name, value in changes.items())}
    assert len(keys) == 1 + len(changes)
    assert {one.name for one in fields(CELL.recipe)} == {*changes, "name", "schedule"}


def test_a_stored_cell_is_read_back() -> None:
    cell = replace(CELL, dataset=replace(DIGITS, shape=(1, 8, 8)), refiner="eer", refiner_options={"diversity": None})
    stored = json.loads(json.dumps(cell.configuration()))
    assert Cell.from_configuration(stored) == cell
    assert hash(Cell.from_configuration(stored).dataset) == hash(cell.dataset)
    earlier = {name: one for name, one in stored.items() if name != "refiner_options"}
    del earlier["dataset"]["shape"]
    assert Cell.from_configuration(earlier) == replace(cell, dataset=DIGITS, refiner_options={})


def test_what_is_set_otherwise_is_told() -> None:
    assert CELL.variant == "adaptive"
    cell = replace(CELL, goal="worst", allocator_options={"effort": "train"}, refiner="eer")
    assert cell.variant == "adaptive (worst, effort=train) + eer"
    assert replace(cell, refiner_options={"rounds": 1, "diversity": None}).variant.endswith("eer (diversity=None, rounds=1)")


def test_options_go_where_they_belong() -> None:
    cells = plan(
        DIGITS,
        ["graphcut"],
        allocators=["adaptive", "paper", "proportional"],
        allocator_options={"iterations": 7, "reset": False},
        refiner="error-reduction",
        refiner_options={"rounds": 1, "diversity": None},
        ratios=[0.1],
        seeds=1,
    )
    assert [(one.allocator, one.allocator_options, one.refiner_options) for one in cells[1:]] == [
        ("uniform", {}, {}),
        ("adaptive", {"iterations": 7}, {"rounds": 1, "diversity": None}),
        ("paper", {"iterations": 7, "reset": False}, {"rounds": 1, "diversity": None}),
        ("proportional", {}, {"rounds": 1, "diversity": None}),
    ]


def test_key_is_the_same_in_every_process() -> None:
    assert hashed({"b": 1, "a": [1.5, None]}) == hashed({"a": [1.5, None], "b": 1})
    assert Cell.from_configuration(json.loads(json.dumps(CELL.configuration()))).key == CELL.key


def test_training_is_shared_by_all_that_chose_the_same_images() -> None:
    configuration = CELL.training_configuration("digest")
    same = [
        replace(CELL, method="random", allocator="uniform", budget=1, label="", goal="worst"),
        replace(CELL, recipe=CELL.recipe.with_(proxy_epochs=99)),
    ]
    assert all(one.training_configuration("digest") == configuration for one in same)
    other = [
        replace(CELL, seed=1),
        replace(CELL, model="resnet18"),
        replace(CELL, device="cuda"),
        replace(CELL, recipe=recipe("fast")),
    ]
    assert all(one.training_configuration("digest") != configuration for one in other)
    assert CELL.training_configuration("other") != configuration


def test_grid_has_random_the_even_split_and_the_allocator() -> None:
    cells = plan(DIGITS, ["graphcut"], ratios=[0.1, 0.05], seeds=2, allocators=["adaptive"], goal="worst", proxy="train")
    ways = [(one.label, one.budget, one.method, one.allocator, one.seed) for one in cells]
    expected = [
        (label, budget, method, allocator, seed)
        for label, budget in (("10 %", 144), ("5 %", 72))
        for method, allocator in (("random", "uniform"), ("graphcut", "uniform"), ("graphcut", "adaptive"))
        for seed in (0, 1)
    ]
    assert ways == expected
    assert {(one.allocator, one.goal, one.proxy) for one in cells} == {
        ("uniform", "mean", "probe"),
        ("adaptive", "worst", "train"),
    }


def test_default_budgets_and_text() -> None:
    cells = plan(DIGITS, ["graphcut"], allocators=["adaptive"])
    assert len(cells) == 2 * 3 * 3
    assert str(cells[-1]) == "graphcut+adaptive 10 % seed 2"
    assert str(cells[0]) == "random 5 % seed 0"
    assert cells[0].is_baseline
    assert not cells[-1].is_baseline


def test_repeats_are_one() -> None:
    cells = plan(
        DIGITS, ["random", "graphcut", "graphcut"], ratios=[0.05, 0.05], seeds=[3, 3], allocators=["adaptive", "adaptive"]
    )
    assert len({one.key for one in cells}) == len(cells) == 4  # random + adaptive too, since random was named


def test_images_per_class() -> None:
    cells = plan(DIGITS, [], aipc=[5, 20], seeds=1)
    assert [(one.label, one.budget) for one in cells] == [("5 a class", 50), ("20 a class", 200)]


def test_a_file_behind_a_method_is_part_of_the_key(tmp_path: Any) -> None:
    from dqas_plugin.bench.grid import _file_digest

    file = tmp_path / "one.npz"
    file.write_bytes(b"1")
    first = _file_digest(f"ranking:{file}")
    file.write_bytes(b"2")
    assert first is not None
    assert _file_digest(f"ranking:{file}") != first
    assert _file_digest("graphcut:eq7") is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratios": [0.0]}, "ratio"),
        ({"ratios": [1.5]}, "1.5"),
        ({"ratios": [math.nan]}, "nan"),
        ({"ratios": [0.001]}, "10 classes"),
        ({"aipc": [-3]}, "-3"),
        ({"aipc": [200]}, "1,438"),
        ({"ratios": [0.1], "aipc": [3]}, "not both"),
        ({"seeds": 0}, "0 seeds"),
        ({"seeds": []}, "seeds"),
        ({"goal": "men"}, "did you mean 'mean'"),
        ({"proxy": "prob"}, "did you mean 'probe'"),
        ({"allocators": ["adaptve"]}, "did you mean 'adaptive'"),
        ({"methods": ["grafcut"]}, "did you mean 'graphcut'"),
        ({"model": "resnet19"}, "resnet18"),
        ({"recipe": "quik"}, "did you mean 'quick'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"refiner": "nothing-like-it"}, "nothing-like-it"),
        ({"refiner": "error-reduction", "refiner_options": {"round": 1}}, "did you mean 'rounds'"),
        ({"refiner": "error-reduction", "refiner_options": {"scorer": "retrian"}}, "did you mean 'retrain'"),
        ({"refiner_options": {"rounds": 1}}, "'rounds' belongs to a refiner"),
        ({"allocators": ["paper"], "allocator_options": {"iteration": 1}}, "did you mean 'iterations'"),
        ({"allocators": ["paper"], "allocator_options": {"init": "unform"}}, "unknown init 'unform': did you mean 'uniform'"),
        ({"allocator_options": {"iterations": 1}}, "'iterations' belongs to an allocator"),
        ({"methods": ["dqas"]}, "the shape of the images of 'digits' is not known"),
    ],
)
def test_mistakes_are_told_in_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as told:
        plan(DIGITS, options.pop("methods", ["graphcut"]), **options)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("share", [0.0, 1.0, math.nan, 0.9])
def test_a_refiner_leaves_one_image_a_class(share: float) -> None:
    with pytest.raises(UserError, match="refine share"):
        plan(DIGITS, ["graphcut"], refiner="random", refine_share=share)
