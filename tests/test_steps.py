"""What the pipeline asks of a method: how deep, how often, with which signals; and what it writes down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dqas_plugin import Weighted, select, selector
from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import plugins
from dqas_plugin.ranking import check_memory
from dqas_plugin.recipes import Recipe

SHORT = Recipe("short", iterations=6, batch=16, precision="fp32", proxy_epochs=2)
CALL: dict[str, Any] = {"budget": 9, "recipe": SHORT}


def toy(counts: tuple[int, ...] = (20, 16, 12)) -> ImageDataset:
    draws = np.random.default_rng(0)
    labels = draws.permutation(np.repeat(np.arange(len(counts)), counts))
    images = draws.integers(0, 256, (len(labels), 1, 8, 8), dtype=np.uint8)
    return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), ("a", "b", "c"), "toy", mirror=False)


class Watched:
    """A method that remembers what it was asked for."""

    def __init__(self, *, nested: bool = True, weights: bool = False, needs: tuple[str, ...] = (), **more: Any) -> None:
        self.asked: list[tuple[int, int, int]] = []  # class, its size, budget
        self.views: list[Any] = []

        def watched(view: Any, budget: int, rng: Any, *, repeat: int = 3) -> Any:
            self.asked.append((view.label, len(view), budget))
            self.views.append(view)
            order = np.arange(len(view))[::-1][:budget]
            return Weighted(order, np.full(budget, 1.0 / budget)) if weights else order

        self.selector = selector("watched", nested=nested, needs=needs, **more)(watched)

    @property
    def budgets(self) -> list[int]:
        return [budget for _, _, budget in self.asked]


def test_even_counts_rank_no_deeper_than_needed() -> None:
    watched = Watched()
    chosen = select(toy(), watched.selector, **CALL)
    assert watched.budgets == [3, 3, 3]
    assert chosen.counts.tolist() == [3, 3, 3]


def test_a_search_for_counts_ranks_all_once() -> None:
    watched = Watched()
    select(toy(), watched.selector, adaptive=True, **CALL)
    assert watched.asked == [(0, 20, 20), (1, 16, 16), (2, 12, 12)]


def test_what_is_not_nested_is_asked_for_the_final_counts() -> None:
    watched = Watched(nested=False)
    chosen = select(toy(), watched.selector, adaptive=True, refiner="none", **CALL)
    assert watched.asked[-3:] == [
        (label, size, count) for label, size, count in zip(range(3), (20, 16, 12), chosen.counts, strict=True)
    ]
    assert len(watched.asked) > 6  # every trial without what it holds out


def test_weights_are_those_of_the_final_counts() -> None:
    watched = Watched(weights=True)
    chosen = select(toy(), watched.selector, adaptive=True, refiner="none", **CALL)
    assert watched.budgets == [20, 16, 12, *chosen.counts]
    assert chosen.weights is not None
    assert chosen.weights.tolist() == pytest.approx([1.0 / count for count in chosen.counts for _ in range(count)])
    even = Watched(weights=True)
    select(toy(), even.selector, **CALL)
    assert even.budgets == [3, 3, 3]


@pytest.mark.parametrize(("options", "runs"), [({}, 3), ({"repeat": 2}, 2)])
def test_several_trainings_where_a_method_reads_them(options: dict[str, int], runs: int) -> None:
    watched = Watched(needs=("gradients", "runs"))
    select(toy(), watched.selector, **CALL, **options)
    found = watched.views[0].runs
    assert len(found) == runs
    assert not any(torch.equal(found[0].logits, one.logits) for one in found[1:])


def test_one_training_otherwise() -> None:
    watched = Watched(needs=("gradients", "dynamics"))
    select(toy(), watched.selector, **CALL)
    assert len(watched.views[0].runs) == 1
    assert watched.views[0].margins.shape == (20, 2)


def test_notes_are_reported_once_and_written_down() -> None:
    @selector("noting")
    def noting(view: Any, budget: int, rng: Any) -> Any:
        view.note("only nearly so")
        return np.arange(budget)

    said: list[str] = []
    chosen = select(toy(), noting, report=said.append, adaptive=True, **CALL)
    assert said.count("only nearly so") == 1
    assert chosen.provenance["notes"] == ["only nearly so"]


def test_a_method_that_needs_more_memory_is_refused_before_it_runs() -> None:
    watched = Watched(memory=lambda size: size.samples**2 * size.classes, needs=("features",))
    said: list[str] = []
    with pytest.raises(UserError, match=r"'watched' needs 1.2 KiB to rank a class of 20 images, more than the 1.2 KiB"):
        select(toy(), watched.selector, max_memory=1199, report=said.append, **CALL)
    assert watched.asked == said == []
    select(toy(), watched.selector, max_memory=1200, **CALL)
    assert watched.views[0].max_memory == 1200


def test_a_method_that_quantizes_says_that_here_it_does_not() -> None:
    said: list[str] = []
    data = toy((30, 30, 30))
    chosen = select(data, "dqas", report=said.append, budget=9, recipe=SHORT)
    note = "'dqas' ranks whole images here; dqas quantize and dqas bench also drop patches"
    assert said.count(note) == 1
    assert note in chosen.provenance["notes"]
    assert chosen.indices.tolist() == select(data, "bins:eq7", budget=9, recipe=SHORT).indices.tolist()  # that is what it does


def test_the_result_records_whose_features_were_read() -> None:
    reading, blind = Watched(needs=("features",)), Watched(needs=("logits",))
    assert select(toy(), reading.selector, **CALL).provenance["features"] == "proxy"
    assert select(toy(), blind.selector, **CALL).provenance["features"] is None
    with pytest.raises(UserError, match="nothing-like-it"):
        select(toy(), reading.selector, features="timm:nothing-like-it", **CALL)


def test_the_class_that_takes_most_memory_need_not_be_the_largest() -> None:
    """A method may take another way where a class is large."""
    uneven = selector("uneven", memory=lambda size: 10 if size.samples > 20 else 100 * size.budget)(lambda view, budget, rng: 0)
    assert check_memory(uneven, [30, 15, 15], [1, 2, 9], 4, 1000, {}) == 900
    assert check_memory(uneven, [30, 15], [1, 0], 4, 1000, {}) == 10
    with pytest.raises(UserError, match="to rank a class of 15 images"):
        check_memory(uneven, [30, 15], [1, 2], 4, 150, {})


def test_memory_depends_on_the_options() -> None:
    location, size = plugins().selectors["facility-location"], 40_000
    usual, more = (check_memory(location, [size], [1], 4, 6 * 10**9, options) for options in ({}, {"neighbours": 3000}))
    assert more > 5 * usual
