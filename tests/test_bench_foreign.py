"""Cells know which plugins of others their results depend on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dqas_plugin.bench import Cell, DatasetReference, foreign, plan, tabulate
from dqas_plugin.plugins import plugins

DIGITS = DatasetReference("digits", "0123", images=1438, classes=10, mirror=False)

WRAPPER = """
from dqas_plugin.hookspecs import hookimpl

@hookimpl(wrapper=True)
def dqas_select(request):
    return (yield)
"""
METHOD = """
from dqas_plugin import hookimpl, selector

@selector("last-first", title="Last first", needs=())
def last_first(view, budget, rng):
    return list(range(len(view)))[::-1][:budget]

@hookimpl
def dqas_register_selectors(register):
    register(last_first)
"""

Install = Callable[[str, str], ModuleType]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes a module, imports it and registers it as a plugin of that name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    there: list[ModuleType] = []

    def make(name: str, source: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        plugins().register(module, name, version="1.2")
        there.append(module)
        return module

    yield make
    for module in there:
        if plugins().home(module.__name__) == module.__name__:
            plugins().unregister(module)
        sys.modules.pop(module.__name__)
    foreign._identity.cache_clear()


def planned(method: str = "graphcut") -> list[Cell]:
    return plan(DIGITS, [method], ratios=[0.05], allocators=["adaptive"], seeds=1)


def test_without_plugins_of_others_nothing_is_told() -> None:
    assert all(not cell.plugins for cell in planned())
    assert "plugins" not in planned()[0].detail


def test_results_behind_a_wrapper_are_other_results(install: Install) -> None:
    plain = planned()
    install("some_wrapper", WRAPPER)
    wrapped = planned()
    assert not {cell.key for cell in plain} & {cell.key for cell in wrapped}
    assert {cell.plugins["wrappers"][:17] for cell in wrapped} == {"some_wrapper 1.2 "}
    assert all("with some_wrapper" in cell.detail for cell in wrapped)
    assert [cell.training_configuration("s") for cell in plain] == [cell.training_configuration("s") for cell in wrapped]


def test_another_source_is_another_plugin(install: Install) -> None:
    install("some_wrapper", WRAPPER)
    before = planned()[0]
    install("other_wrapper", WRAPPER + "\nCHANGED = True\n")
    both = planned()[0].plugins["wrappers"].split(", ")
    assert [one.split()[0] for one in both] == ["other_wrapper", "some_wrapper"]
    assert before.plugins["wrappers"] == both[1]
    assert both[0].split()[-1] != both[1].split()[-1]


def test_a_method_of_others_has_its_mark_and_its_baseline_has_none(install: Install) -> None:
    install("last_first_plugin", METHOD)
    random, even, adaptive = planned("last-first")
    assert random.plugins == {}
    assert even.plugins == adaptive.plugins
    assert even.plugins["method"].startswith("last_first_plugin 1.2 ")
    assert Cell.from_configuration(even.configuration()) == even


def test_rows_are_still_compared_with_even_counts(install: Install) -> None:
    install("some_wrapper", WRAPPER)
    install("last_first_plugin", METHOD)
    cells = planned("last-first")
    found = {
        cell.key: {
            "accuracy": {"mean": 0.5 + 0.1 * place, "worst": 0.0, "natural": 0.5, "classes": []},
            "best": {"mean": 0.5, "worst": 0.0, "natural": 0.5, "classes": []},
            "counts": [7] * 10,
            "seconds": {},
            "training": str(place),
        }
        for place, cell in enumerate(cells)
    }
    [section] = tabulate(cells, found)
    adaptive = section.rows[2]
    assert adaptive.versus_uniform is not None
    assert adaptive.versus_random is not None
    assert adaptive.versus_uniform.mean == pytest.approx(0.1)
    assert adaptive.versus_random.mean == pytest.approx(0.2)
