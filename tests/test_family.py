"""Families of distilled sets: which rows are a set, which set a class takes its images from, and all of it from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

import registering
import toys
from dqas_adapters import family
from dqas_adapters.family import distilled_family, from_fitting_sets, sets_in
from dqas_plugin import ImageDataset, UserError, rank, select
from dqas_plugin.allocation.problem import Allocation, AllocationProblem
from dqas_plugin.contracts import Selector, allocator
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.plugins import Plugins
from dqas_plugin.recipes import Recipe
from dqas_plugin.signals import Signals

CLASSES, SIZES = 3, (2, 6, 12)
SHORT = Recipe("short", iterations=4, batch=16, precision="fp32", proxy_epochs=1)


@pytest.fixture
def registered() -> Iterator[None]:
    yield from registering.registered(family, "family")


def labels_of(sizes: tuple[int, ...] = SIZES, classes: int = CLASSES) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.concatenate([np.repeat(np.arange(classes), size) for size in sizes])


def toy_family() -> ImageDataset:
    """Sets of noisy pictures, one after another."""
    labels = labels_of()
    mixed = toys.toy((sum(SIZES),) * CLASSES)
    places = {label: iter((mixed.labels == label).nonzero().flatten().tolist()) for label in range(CLASSES)}
    return mixed.subset([next(places[label]) for label in labels.tolist()], name="family")


# What is a set


def test_a_new_set_begins_where_the_label_decreases() -> None:
    number, sizes = sets_in(labels_of((2, 3, 1)))
    assert sizes.tolist() == [2, 3, 1]
    assert number.tolist() == [0] * 6 + [1] * 9 + [2] * 3


def test_one_set_is_one_set() -> None:
    number, sizes = sets_in(labels_of((5,)))
    assert sizes.tolist() == [5]
    assert set(number) == {0}


@pytest.mark.parametrize("labels", [[0, 0, 1, 0, 1, 1], [0, 1, 2, 0, 1], [1, 0, 0, 1], [2, 1, 0], [0, 0, 1, 1, 1, 0, 1], [4]])
def test_rows_in_any_other_order_are_one_set(labels: list[int]) -> None:
    number, sizes = sets_in(np.array(labels))
    assert number.tolist() == [0] * len(labels)
    assert sizes.tolist() == [max(labels.count(one) for one in labels)]


def test_many_mixed_rows_take_no_table_of_all_sets_and_classes() -> None:
    labels = np.random.default_rng(0).integers(0, 30_000, 300_000)  # 150,000 decreases x 30,000 classes would be 36 GB
    assert len(sets_in(labels)[1]) == 1


def test_a_class_without_images_is_no_matter() -> None:
    assert sets_in(2 * labels_of((1, 4)))[1].tolist() == [1, 4]


# Which set a class takes its images from


@settings(max_examples=150, deadline=None)
@given(data=some.data())
def test_images_come_from_the_set_that_fits(data: some.DataObject) -> None:
    sizes = np.array(data.draw(some.lists(some.integers(1, 6), min_size=1, max_size=4)))
    number = np.repeat(np.arange(len(sizes)), sizes)
    allowed = np.array(data.draw(some.lists(some.booleans(), min_size=len(number), max_size=len(number))))
    number = number[allowed]
    budget = data.draw(some.integers(0, len(number)))
    order = np.array(data.draw(some.permutations(range(len(number)))), dtype=np.int64)
    taken = from_fitting_sets(number, sizes, budget, order).tolist()

    large = [(size, place) for place, size in enumerate(sizes.tolist()) if size >= budget]
    others = sorted((-size, place) for place, size in enumerate(sizes.tolist()))
    first = min(large)[1] if large else others[0][1]
    expected: list[int] = []
    for place in [first, *(place for _, place in others if place != first)]:
        expected += [one for one in order.tolist() if number[one] == place]
    assert taken == expected[:budget]


@pytest.mark.parametrize(
    ("budget", "sets"),
    [(1, [2, 0, 0]), (2, [2, 0, 0]), (3, [0, 3, 0]), (6, [0, 6, 0]), (7, [0, 0, 7]), (13, [0, 1, 12]), (20, [2, 6, 12])],
)
def test_counts_and_sets(budget: int, sets: list[int]) -> None:
    number = np.repeat(np.arange(3), SIZES)
    taken = from_fitting_sets(number, np.array(SIZES), budget, np.arange(20))
    assert len(set(taken.tolist())) == budget
    found = np.bincount(number[taken], minlength=3)
    assert found.tolist() == ([1, 0, 0] if budget == 1 else sets)


def ranked(counts: list[int], seed: int = 0, candidates: Any = None, **options: Any) -> list[list[int]]:
    signals = Signals.from_arrays(None, None, labels_of())
    return [
        one.tolist()
        for one in rank(signals, distilled_family, counts=counts, seed=seed, candidates=candidates, **options).order
    ]


def test_every_class_by_its_own_count() -> None:
    # set 0 is rows 0..5, set 1 rows 6..23, set 2 rows 24..59
    assert ranked([2, 3, 14]) == [[0, 1], [12, 13, 14], [*range(48, 60), 18, 19]]


def test_what_may_not_be_taken_does_not_change_which_set_fits() -> None:
    candidates = np.setdiff1d(np.arange(60), [0, 6, 7])
    assert ranked([2, 0, 0], candidates=candidates)[0] == [1, 24]  # the set of 2 fits; one of it is missing
    assert ranked([5, 0, 0], candidates=candidates)[0] == [8, 9, 10, 11, 24]


def test_random_stays_within_the_set() -> None:
    draws = [ranked([3, 3, 3], seed, within="random") for seed in range(20)]
    for one in draws:
        assert [set(part) <= set(range(6 + 6 * label, 12 + 6 * label)) for label, part in enumerate(one)] == [True] * 3
    assert len({tuple(one[0]) for one in draws}) > 10
    assert draws[3] == ranked([3, 3, 3], 3, within="random")
    assert sorted(ranked([6, 6, 6], within="random")[1]) == list(range(12, 18))


def test_an_ordinary_dataset_is_one_set_and_says_so() -> None:
    signals = Signals.from_arrays(None, None, [1, 0, 0, 1, 0, 1])
    found = rank(signals, distilled_family, counts=[2, 1])
    assert [one.tolist() for one in found.order] == [[1, 2], [0]]
    (note,) = found.provenance["notes"]
    assert "one set, not a family" in note


def test_another_order_is_answered_with_the_right_ones() -> None:
    with pytest.raises(UserError, match=r"'ordered'.*'order'"):
        ranked([1, 1, 1], within="ordered")


def test_the_plugin_brings_one_selector_that_reads_nothing_but_labels() -> None:
    loaded = Plugins(strangers=False)
    loaded.register(family, "family")
    assert loaded.problems == []
    (name,) = next(one for one in loaded.overview() if one.name == "family").brings["selectors"]
    entry = loaded.selectors[name]
    assert isinstance(entry, Selector)
    assert (entry.needs, entry.nested) == (frozenset(), False)


# From end to end


@pytest.mark.usefixtures("registered")
def test_even_counts_are_the_whole_set_of_that_size() -> None:
    chosen = select(toy_family(), "distilled-family", aipc=6)
    assert chosen.indices.tolist() == list(range(6, 24))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("proxy", ["probe", "train"])
def test_adaptive_counts_each_from_the_set_that_fits(proxy: str) -> None:
    data, effort = toy_family(), {"effort": "train", "finalists": 1, "confirm": 2}
    options: dict[str, Any] = {
        "adaptive": True,
        "refiner": "none",
        "allocator_options": effort,
        "model": "convnet3-small",
        "recipe": SHORT,
    }
    chosen = select(data, "distilled-family", aipc=6, proxy=proxy, **options)
    assert chosen.counts.sum() == 18
    assert chosen.provenance["allocation"]["evaluations"] > 1
    check(data, chosen.indices, chosen.counts)


@pytest.mark.usefixtures("registered")
def test_counts_that_another_allocator_makes_uneven() -> None:
    @allocator("uneven")
    def uneven(problem: AllocationProblem) -> Allocation:
        counts = np.array([2, 4, 12])
        problem.evaluate_many([(counts, 0)], "a try")
        return Allocation(counts)

    class Uneven:
        @hookimpl
        def dqas_register_allocators(self, register: Any) -> None:
            register(uneven)

    data = toy_family()
    with registering.plugin(Uneven(), "uneven"):
        chosen = select(data, "distilled-family", aipc=6, allocator="uneven", recipe=SHORT, model="convnet3-small")
    assert chosen.counts.tolist() == [2, 4, 12]
    check(data, chosen.indices, chosen.counts)


def check(data: ImageDataset, indices: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> None:
    """Every class has its images from the smallest set that has so many of it."""
    number = np.repeat(np.arange(len(SIZES)), [CLASSES * one for one in SIZES])
    for label, count in enumerate(counts.tolist()):
        mine = indices[data.labels.numpy()[indices] == label]
        assert len(mine) == count
        fitting = next((place for place, size in enumerate(SIZES) if size >= count), len(SIZES) - 1)
        assert (number[mine] == fitting).sum() == min(count, SIZES[fitting])
    assert torch.equal(torch.bincount(data.labels[torch.from_numpy(indices)]), torch.from_numpy(counts))
