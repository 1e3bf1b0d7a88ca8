"""Nearest neighbours against all distances written out, and against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.neighbors import NearestNeighbors

from dqas_plugin.errors import UserError
from dqas_plugin.methods import copies, neighbours
from dqas_plugin.methods.copies import first_copies
from dqas_plugin.methods.neighbours import Nearest, at_least_one, nearest, nearest_others

Array = npt.NDArray[Any]

whole_numbers = hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.integers(-2, 2).map(float))


def literal(points: Array, count: int, *, others: bool = False) -> tuple[list[list[int]], list[list[float]]]:
    """All squared distances in float64, each row sorted; equal ones by position."""
    wide = points.astype(np.float64)
    positions, squares = [], []
    for row in range(len(wide)):
        lengths = np.square(wide - wide[row]).sum(axis=1)
        order = [int(one) for one in np.argsort(lengths, kind="stable") if not (others and one == row)][:count]
        positions.append(order)
        squares.append([float(lengths[one]) for one in order])
    return positions, squares


def check(found: Nearest, expected: tuple[list[list[int]], list[list[float]]]) -> None:
    assert found.positions.tolist() == expected[0]
    np.testing.assert_allclose(found.squares, np.array(expected[1]).reshape(found.squares.shape), rtol=1e-12)


@given(points=whole_numbers, count=st.integers(1, 12))
@settings(deadline=None, max_examples=150)
def test_order_and_ties_are_those_of_the_definition(points: Array, count: int) -> None:
    check(nearest(torch.from_numpy(points), count), literal(points, count))
    check(nearest_others(torch.from_numpy(points), count), literal(points, count, others=True))


def test_agrees_with_scikit_learn() -> None:
    points = np.random.default_rng(0).normal(size=(500, 24)).astype(np.float32) * 3 + 20
    distances, positions = NearestNeighbors(n_neighbors=8, algorithm="brute").fit(points.astype(np.float64)).kneighbors()
    found = nearest_others(torch.from_numpy(points), 8)
    assert found.positions.tolist() == positions.tolist()
    np.testing.assert_allclose(found.squares.sqrt(), distances, rtol=1e-9)


@pytest.mark.parametrize("size", [8, 5_000, 200_000])
def test_the_size_of_the_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    points = np.random.default_rng(1).integers(0, 4, (90, 3)).astype(np.float32)
    monkeypatch.setattr(neighbours, "BLOCK", size)
    check(nearest(torch.from_numpy(points), 5), literal(points, 5))


@pytest.mark.parametrize("kinds", [1, 3, 40])
def test_many_copies_come_in_their_order(kinds: int) -> None:
    draws = np.random.default_rng(2)
    points = draws.normal(size=(kinds, 16)).astype(np.float32)[draws.integers(0, kinds, 200)]
    check(nearest(torch.from_numpy(points), 11), literal(points, 11))
    check(nearest_others(torch.from_numpy(points), 11), literal(points, 11, others=True))


def test_near_copies_far_from_the_origin_are_told_apart() -> None:
    draws = np.random.default_rng(3)
    points = draws.normal(size=(12, 16))[np.repeat(np.arange(12), 15)] + 50
    points = (points * (1 + 3e-7 * draws.integers(-2, 3, points.shape))).astype(np.float32)  # some last bits differ
    assert len(np.unique(points, axis=0)) > 150
    check(nearest(torch.from_numpy(points), 20), literal(points, 20))


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_the_unit_does_not_matter(scale: float) -> None:
    points = np.random.default_rng(4).normal(size=(50, 5)).astype(np.float32)
    assert nearest(torch.from_numpy(points * np.float32(scale)), 9).positions.tolist() == literal(points, 9)[0]


def test_fewer_samples_than_asked_for() -> None:
    points = torch.tensor([[0.0], [5.0], [1.0]])
    assert nearest(points, 10).positions.tolist() == [[0, 2, 1], [1, 2, 0], [2, 0, 1]]
    assert nearest_others(points, 10).positions.tolist() == [[2, 1], [2, 0], [0, 1]]
    assert nearest_others(points[:1], 10).positions.shape == (1, 0)
    assert nearest_others(points[:0], 10).positions.numel() == 0


def test_first_copies_are_those_of_a_plain_search(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    rows = draws.normal(size=(40, 5)).astype(np.float32)[draws.integers(0, 40, 300)]
    wide = draws.integers(0, 2, (300, 1)).astype(np.float64)
    both = np.c_[rows, wide]
    expected = [int((both == one).all(axis=1).argmax()) for one in both]
    assert first_copies(rows, wide).tolist() == expected
    assert first_copies(torch.from_numpy(rows), wide.astype(np.int16)).tolist() == expected
    monkeypatch.setattr(copies, "_hash", lambda words, seed: np.zeros(len(words), dtype=np.uint64))  # all alike
    assert first_copies(rows, wide).tolist() == expected
    assert first_copies(rows[:0]).tolist() == []


def test_first_copies_look_at_all_arrays() -> None:
    one = torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert first_copies(one).tolist() == [0, 0, 2, 0]
    assert first_copies(one, torch.tensor([7.0, 8.0, 7.0, 7.0])).tolist() == [0, 1, 2, 0]


def test_a_count_of_nothing_is_refused() -> None:
    assert at_least_one("neighbours", 1) == 1
    with pytest.raises(UserError, match="neighbours must be at least 1, not 0"):
        at_least_one("neighbours", 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    points = np.random.default_rng(5).integers(0, 4, (90, 3)).astype(np.float32)
    found = nearest(torch.from_numpy(points).cuda(), 5)
    check(Nearest(found.positions.cpu(), found.squares.cpu()), literal(points, 5))
