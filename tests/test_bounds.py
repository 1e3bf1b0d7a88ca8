"""Numbers out of their bounds are known before any work is done, for everything that is registered."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import numpy as np
import pytest

from dqas_plugin.bench import DatasetReference, plan
from dqas_plugin.contracts import Bounds, Entry
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import check_options, plugins
from dqas_plugin.refining import Refinement

DIGITS = DatasetReference("digits", "0123", images=1438, classes=10, mirror=False)
KINDS = {"selectors": "method", "allocators": "allocator", "refiners": "refiner"}


def numbers() -> list[tuple[str, Entry, str]]:
    """Every option of everything that ranks, allocates or refines which is a number."""
    found = []
    for plural, kind in KINDS.items():
        for entry in plugins().registry(plural).values():
            if not entry.name.startswith("deepcore:"):  # its classes do not tell
                found += [(kind, entry, name) for name, one in entry.options.items() if is_number(one)]
    return found


def is_number(option: inspect.Parameter) -> bool:
    words = str(option.annotation)
    return not isinstance(option.default, bool) and ("int" in words.replace("hint", "") or "float" in words)


@pytest.mark.parametrize(("kind", "entry", "name"), numbers(), ids=lambda one: getattr(one, "name", one))
def test_every_number_has_bounds(kind: str, entry: Entry, name: str) -> None:
    bounds = entry.bounds[name]
    default = entry.options[name].default
    assert default is None or bounds.allow(default)
    below: float = bounds.least if bounds.above else bounds.least - 1
    with pytest.raises(UserError, match=f"{name} of the {kind} '{entry.name}' must be"):
        check_options(entry, kind, {name: below})
    check_options(entry, kind, {name: None})


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "text"),
    [
        (Bounds(1), [1, 2.5, 1e300], [0.999, -1, float("nan"), float("inf")], "at least 1"),
        (Bounds(0, above=True), [1e-9, 7], [0, -0.0, float("nan")], "above 0"),
        (Bounds(0, 1), [0, 0.5, 1], [-1e-9, 1.001, float("nan")], "between 0 and 1"),
        (Bounds(0, 1, above=True), [1e-9, 1], [0, 1.1], "above 0 and at most 1"),
    ],
)
def test_bounds(bounds: Bounds, inside: list[float], outside: list[float], text: str) -> None:
    assert all(bounds.allow(one) for one in inside)
    assert not any(bounds.allow(one) for one in outside)
    assert str(bounds) == text


def test_bounds_are_found_in_annotations() -> None:
    def function(
        view: Any,
        *,
        plain: Annotated[int, Bounds(1)] = 1,
        maybe: Annotated[float, "a note", Bounds(0, 1)] | None = None,
        free: int = 3,
        named: Annotated[int, "a note"] = 3,
    ) -> None: ...

    function.__annotations__.update(plain=Annotated[int, Bounds(1)], maybe=Annotated[float, "a note", Bounds(0, 1)] | None)
    function.__annotations__.update(free=int, named=Annotated[int, "a note"], view=Any)
    assert Entry("some", function).bounds == {"plain": Bounds(1), "maybe": Bounds(0, 1)}


@pytest.mark.parametrize("value", [True, "text", np.float64(0.5)])
def test_what_is_no_plain_number_is_left_to_the_function(value: Any) -> None:
    def function(*, share: Annotated[Any, Bounds(0, 1)] = 0.5) -> None: ...

    function.__annotations__["share"] = Annotated[Any, Bounds(0, 1)]
    check_options(Entry("some", function), "method", {"share": value})


def test_a_grid_is_refused_when_it_is_planned() -> None:
    with pytest.raises(UserError, match="bins of the method 'dq' must be at least 1, not 0"):
        plan(DIGITS, ["dq"], ratios=[0.1], method_options={"bins": 0}, patches={"keep": True})
    with pytest.raises(UserError, match="confirm of the allocator 'adaptive' must be at least 2, not 1"):
        plan(DIGITS, ["random"], ratios=[0.1], allocators=["adaptive"], allocator_options={"confirm": 1})
    with pytest.raises(UserError, match="rounds of the refiner 'error-reduction' must be at least 1, not 0"):
        Refinement.of("error-reduction", {"rounds": 0}, 100, 0.1, 10)
