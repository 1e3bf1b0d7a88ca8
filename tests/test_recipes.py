"""The recipes' arithmetic, names and mistakes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from dqas_plugin.errors import UserError
from dqas_plugin.recipes import RECIPES, Recipe, recipe


def test_paper_recipe() -> None:
    paper = recipe("paper")
    assert (paper.epochs, paper.lr, paper.momentum, paper.weight_decay, paper.batch) == (200, 0.1, 0.9, 5e-4, 128)
    assert paper.crop
    assert paper.flip
    assert paper.schedule == "cosine"
    assert paper.prior == "balanced"
    assert paper.steps(50_000) == 200 * 391
    assert paper.steps(100) == 200


def test_steps() -> None:
    assert Recipe("r", epochs=3, batch=10).steps(31) == 12
    assert Recipe("r", epochs=3, batch=10).steps(30) == 9
    assert Recipe("r", iterations=50).steps(10**6) == 50
    assert recipe("paper").for_proxy().steps(1280) == 100
    assert recipe("quick").for_proxy().iterations is None


def test_cosine_with_warm_up() -> None:
    plain = Recipe("r", iterations=100, lr=0.2)
    assert plain.learning_rate(0, 100) == 0.2
    assert plain.learning_rate(50, 100) == pytest.approx(0.1)
    assert plain.learning_rate(100, 100) == pytest.approx(0.0)
    warm = Recipe("r", iterations=100, lr=0.2, warmup=0.1)
    rates = [warm.learning_rate(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2 / 11)
    assert np.diff(rates[:11]) == pytest.approx(0.2 / 11)
    assert rates[10] == max(rates) == 0.2
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[100] == pytest.approx(0.0)


def test_changing_a_recipe_shows_in_its_name() -> None:
    paper = recipe("paper")
    assert paper.with_(epochs=20).name == "paper[epochs=20]"
    assert paper.with_(epochs=20).with_(lr=0.2).name == "paper[epochs=20,lr=0.2]"
    assert paper.with_(epochs=20).with_(epochs=200) == paper
    assert paper.with_(epochs=20, name="mine").name == "mine"
    changed = paper.with_(iterations=500)
    assert (changed.iterations, changed.epochs, changed.name) == (500, None, "paper[iterations=500]")
    assert recipe("quick").with_(epochs=2).iterations is None
    assert recipe(changed) is changed


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    assert Recipe(**json.loads(json.dumps(RECIPES[name].as_dict()))) == RECIPES[name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3, "iterations": 4}, "exactly one of epochs and iterations"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"batch": 1.5}, "batch must be a whole number"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1"),
        ({"prior": "balnced"}, "unknown prior 'balnced': did you mean 'balanced'"),
        ({"epoch": 3}, "unknown recipe option 'epoch': did you mean 'epochs'"),
    ],
)
def test_recipe_mistakes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe("paper").with_(**changes)


def test_unknown_recipe() -> None:
    with pytest.raises(UserError, match="unknown recipe 'papr': did you mean 'paper'"):
        recipe("papr")
