"""Budget arithmetic."""

from __future__ import annotations

from typing import Any

import pytest

from dqas_plugin.budget import budget_of
from dqas_plugin.errors import UserError


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"ratio": 0.1}, 5000), ({"ratio": 1.0}, 50000), ({"aipc": 50}, 500), ({"aipc": 1.5}, 15), ({"budget": 77}, 77)],
)
def test_the_three_ways_to_say_it(given: dict[str, Any], expected: int) -> None:
    assert budget_of(50000, 10, **given) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "exactly one"),
        ({"ratio": 0.1, "aipc": 5}, "exactly one"),
        ({"ratio": 0.0}, "above 0 and at most 1, not 0"),
        ({"ratio": 1.5}, "not 1.5"),
        ({"ratio": float("nan")}, "not nan"),
        ({"ratio": -0.1}, "not -0.1"),
        ({"aipc": -5.0}, "above 0, not -5"),
        ({"aipc": float("inf")}, "not inf"),
        ({"budget": 0}, "above 0, not 0"),
        ({"ratio": 0.0001}, "comes to 5 images, less than one for each of the 10 classes: raise it to at least 0.0002"),
        ({"aipc": 0.5}, "at least 1"),
        ({"budget": 9}, "at least 10"),
        ({"aipc": 5001}, "more than the 50,000"),
    ],
)
def test_what_cannot_be_met(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        budget_of(50000, 10, **given)
    assert words in str(caught.value)


@pytest.mark.parametrize("size", [1437, 50000, 617])
def test_the_remedy_works(size: int) -> None:
    with pytest.raises(UserError) as caught:
        budget_of(size, 10, ratio=1e-6)
    assert budget_of(size, 10, ratio=float(str(caught.value).rsplit(" ", 1)[1])) >= 10
