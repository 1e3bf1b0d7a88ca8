"""The plugin manager: every hook, strangers' entry points, and plugins that are broken in every way we could think of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any, Literal

import click
import numpy as np
import pytest
import torch

from dqas_plugin import hookspecs
from dqas_plugin import plugins as module
from dqas_plugin.bench import Cell, open_dataset, plan, run
from dqas_plugin.contracts import allocator, refiner, selector
from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.pipeline import SelectionRequest, run_request, select
from dqas_plugin.plugins import Plugins, check_options, plugins
from dqas_plugin.recipes import Recipe
from dqas_plugin.selection import Selection
from dqas_plugin.training import EpochReport

HOOKS = [name for name in dir(hookspecs) if name.startswith("dqas_")]


@pytest.fixture
def host() -> Plugins:
    """Built-ins, without strangers."""
    return Plugins(strangers=False)


@pytest.fixture
def with_plugin() -> Iterator[Any]:
    """Register a plugin in the process-wide manager until the test ends."""
    added: list[object] = []

    def add(plugin: object) -> object:
        plugins().register(plugin, f"test-{len(added)}")
        added.append(plugin)
        return plugin

    yield add
    for plugin in added:
        plugins().unregister(plugin)


def toy(n: int = 24, classes: int = 3) -> ImageDataset:
    draws = np.random.default_rng(0)
    labels = np.arange(n) % classes
    images = draws.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    names = tuple(f"class {one}" for one in range(classes))
    return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), names, "toy", mirror=False)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    assert f"test_{hook}" in globals(), f"write a test named test_{hook}"


def register_one(host: Plugins, hook: str, *arguments: Any, **named: Any) -> None:
    """Register a plugin whose one hook calls ``register(...)``."""
    body = {hook: staticmethod(hookimpl(specname=hook)(lambda register: register(*arguments, **named)))}
    host.register(type("Stranger", (), body)(), "stranger")


# The hooks, one test each


def test_dqas_register_selectors(host: Plugins) -> None:
    @selector("far-first", title="Far first", needs={"features"})
    def far_first(view: Any, budget: int, rng: np.random.Generator) -> Any:
        return view.features.norm(dim=1).argsort(descending=True)[:budget]

    register_one(host, "dqas_register_selectors", far_first)
    assert host.selectors["far-first"] is far_first
    assert host.selectors.provider("far-first") == "stranger"
    assert host.selectors.provider("random") == "dqas_plugin.methods"
    assert host.problems == []


def test_dqas_register_allocators(host: Plugins) -> None:
    @allocator("mine", trains=False)
    def mine(problem: Any) -> Any:
        return problem.allocation(problem.uniform(), "mine")

    register_one(host, "dqas_register_allocators", mine)
    assert host.allocators["mine"] is mine


def test_dqas_register_refiners(host: Plugins) -> None:
    @refiner("mine")
    def mine(signals: Any, selected: Any, budget: int, rng: Any) -> Any:
        return []

    register_one(host, "dqas_register_refiners", mine)
    assert host.refiners["mine"] is mine


def test_dqas_register_datasets(host: Plugins) -> None:
    register_one(host, "dqas_register_datasets", "mine", toy, title="My own", takes_path=True)
    assert host.datasets["mine"].takes_path
    assert host.datasets["mine"].title == "My own"


def test_dqas_register_models(host: Plugins) -> None:
    register_one(host, "dqas_register_models", "mine", toy, takes_name=True)
    assert host.models["mine"].takes_name


def test_dqas_register_importers(host: Plugins) -> None:
    register_one(host, "dqas_register_importers", "mine", toy, title="Mine")
    assert host.importers["mine"].function is toy


def test_dqas_register_exporters(host: Plugins) -> None:
    register_one(host, "dqas_register_exporters", "mine", toy, title="Mine")
    assert host.exporters["mine"].function is toy


def test_an_importer_may_need_the_dataset(host: Plugins) -> None:
    register_one(host, "dqas_register_importers", "mine", lambda path, data, *, more=1: (path, data, more), needs_dataset=True)
    assert host.importers["mine"].read("p", "d", more=2) == ("p", "d", 2)


def test_dqas_register_executors(host: Plugins) -> None:
    register_one(host, "dqas_register_executors", "mine", toy)
    assert "mine" in host.executors


def test_dqas_register_commands(host: Plugins) -> None:
    class Stranger:
        @hookimpl
        def dqas_register_commands(self, cli: click.Group) -> None:
            @cli.command()
            def hello() -> None:
                """Greet."""

    class Broken:
        @hookimpl
        def dqas_register_commands(self, cli: click.Group) -> None:
            raise RuntimeError("no commands today")

    cli = click.Group("dqas")
    host.register(Stranger(), "stranger")
    host.register(Broken(), "broken")
    problems = host.register_commands(cli)
    assert "hello" in cli.commands
    assert [str(one) for one in problems] == ["plugin 'broken' is skipped: RuntimeError: no commands today"]


def test_words_of_options_are_known() -> None:
    @refiner("mine")
    def mine(
        signals: Any, selected: Any, budget: int, rng: Any, *, way: Literal["up", "down"] = "up", size: int = 1
    ) -> Any: ...

    assert mine.words == {"way": ("up", "down")}
    assert mine.settings({"size": 2}) == {"way": "up", "size": 2}
    check_options(mine, "refiner", {"way": "down", "size": 7})
    with pytest.raises(UserError, match="unknown way 'dwn': did you mean 'down'"):
        check_options(mine, "refiner", {"way": "dwn"})
    mine.function.__annotations__["way"] = "NotImported"
    assert mine.words == {}  # and whatever it is, is for the function to judge
    check_options(mine, "refiner", {"way": "dwn"})


def test_dqas_epoch_finished(with_plugin: Any) -> None:
    reports: list[EpochReport] = []

    class Listener:
        @hookimpl
        def dqas_epoch_finished(self, report: EpochReport) -> None:
            reports.append(report)

    with_plugin(Listener())
    recipe = Recipe("short", epochs=3, batch=8, precision="fp32", proxy_epochs=2)
    select(toy(), "graphcut", budget=6, model="convnet3-small", recipe=recipe)
    assert [one.step for one in reports] == [3, 6]
    assert reports[-1].steps == 6


def test_dqas_selection_made(with_plugin: Any) -> None:
    made: list[tuple[Selection, SelectionRequest]] = []

    class Listener:
        @hookimpl
        def dqas_selection_made(self, selection: Selection, request: SelectionRequest) -> None:
            made.append((selection, request))

    with_plugin(Listener())
    selection = select(toy(), "random", budget=6)
    assert [one[0] for one in made] == [selection]
    assert made[0][1].budget == 6


def test_dqas_cell_finished(with_plugin: Any, tmp_path: Any) -> None:
    heard: list[tuple[Cell, dict[str, Any]]] = []

    class Listener:
        @hookimpl
        def dqas_cell_finished(self, cell: Cell, result: dict[str, Any]) -> None:
            heard.append((cell, result))

    with_plugin(Listener())
    recipe = Recipe("short", iterations=2, batch=8, precision="fp32")
    cells = plan(open_dataset("digits"), ["random"], ratios=[0.02], seeds=1, recipe=recipe)
    outcome = run(cells, tmp_path, open_executor=in_this_process)
    assert [one[0] for one in heard] == cells
    assert heard[0][1] == outcome.results[cells[0].key]


@contextmanager
def in_this_process(jobs: int) -> Iterator[Any]:
    class Pool:
        def run(self, function: Any, tasks: Any) -> Any:
            return ((one, function(one)) for one in tasks)

    yield Pool()


def test_dqas_select(with_plugin: Any) -> None:
    """A wrapper narrows the candidates before, and sees the result after."""
    seen: list[Selection] = []

    class OnlyEven:
        @hookimpl(wrapper=True)
        def dqas_select(self, request: SelectionRequest) -> Any:
            request.restrict(np.arange(0, len(request.data), 2))
            selection = yield
            seen.append(selection)
            return selection

    with_plugin(OnlyEven())
    selection = select(toy(), "random", budget=9)
    assert (selection.indices % 2 == 0).all()
    assert seen == [selection]


def test_dqas_select_can_be_replaced(with_plugin: Any) -> None:
    class First:
        @hookimpl
        def dqas_select(self, request: SelectionRequest) -> Selection:
            return Selection(np.array([0, 1, 2]), np.array([1, 1, 1]))

    with_plugin(First())
    assert select(toy(), "random", budget=9).indices.tolist() == [0, 1, 2]


def test_dqas_select_must_give_a_selection(with_plugin: Any) -> None:
    class Wrong:
        @hookimpl
        def dqas_select(self, request: SelectionRequest) -> Any:
            return [1, 2, 3]

    with_plugin(Wrong())
    with pytest.raises(PluginError, match="gave list instead of a Selection"):
        run_request(SelectionRequest(toy(), "random", 6))


# Broken plugins


def test_an_unknown_hook_is_an_error_that_names_it(host: Plugins) -> None:
    class Misspelt:
        @hookimpl
        def dqas_register_selector(self, register: Any) -> None: ...

    with pytest.raises(PluginError) as caught:
        host.register(Misspelt(), "misspelt")
    words = str(caught.value)
    assert "plugin 'misspelt' implements the unknown hook 'dqas_register_selector'" in words
    assert "'dqas_register_selectors'" in words


def test_an_optional_hook_may_be_unknown(host: Plugins) -> None:
    class Newer:
        @hookimpl(optionalhook=True)
        def dqas_of_a_later_version(self) -> None: ...

    assert host.register(Newer(), "newer") == "newer"


def test_an_unknown_argument_is_an_error_and_leaves_nothing(host: Plugins) -> None:
    class Wrong:
        @hookimpl
        def dqas_cell_finished(self, sell: Any) -> None: ...

    with pytest.raises(PluginError, match=r"plugin 'wrong' cannot be registered.*sell"):
        host.register(Wrong(), "wrong")
    assert "wrong" not in [one.name for one in host.overview()]


@pytest.mark.parametrize(
    ("hook", "arguments", "words"),
    [
        ("dqas_register_selectors", (lambda view, budget, rng: [],), "decorate it with @selector"),
        ("dqas_register_selectors", (selector("random")(print),), "exists already, from plugin 'dqas_plugin.methods'"),
        ("dqas_register_selectors", (selector("two words")(print),), "cannot be typed"),
        ("dqas_register_datasets", ("digits", print), "exists already, from plugin 'dqas_plugin.datasets'"),
        ("dqas_register_datasets", ("",), "TypeError"),
    ],
)
def test_a_bad_registration_is_named_and_skipped(host: Plugins, hook: str, arguments: Any, words: str) -> None:
    register_one(host, hook, *arguments)
    (problem,) = host.problems
    assert problem.plugin == "stranger"
    assert words in problem.message
    assert "graphcut" in host.selectors
    assert "digits" in host.datasets


def test_an_unknown_flag_is_named(host: Plugins) -> None:
    register_one(host, "dqas_register_datasets", "mine", print, takes_paths=True)
    assert "unknown argument 'takes_paths'" in host.problems[0].message


class Points:
    """Entry points that lead to what this module defines."""

    class Good:
        @hookimpl
        def dqas_register_selectors(self, register: Any) -> None:
            register(selector("good")(print))

    class Misspelt:
        @hookimpl
        def dqas_slect(self, request: Any) -> None: ...

    good, misspelt = Good(), Misspelt()

    def __getattr__(self, name: str) -> Any:
        if name == "exits":
            raise SystemExit("I leave")
        raise ImportError(f"no {name} here\nnor anywhere")


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [EntryPoint(name, f"strangers:{name}", "dqas") for name in ("broken", "exits", "good", "misspelt")]
    monkeypatch.setattr(module, "entry_points", lambda group: found)
    monkeypatch.setattr(EntryPoint, "load", lambda self: getattr(Points(), self.name))
    monkeypatch.delenv(module.LIMIT, raising=False)


def test_strangers_load_and_broken_ones_are_named(strangers: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        host = Plugins()
    assert host.selectors["good"].name == "good"
    problems = {one.plugin: one.message for one in host.problems}
    assert set(problems) == {"broken", "exits", "misspelt"}
    assert "ImportError: no broken here nor anywhere (from strangers:broken)" in problems["broken"]
    assert "did you mean 'dqas_select'" in problems["misspelt"]
    assert "SystemExit: I leave" in problems["exits"]
    assert caplog.text.count("is skipped") == 3


@pytest.mark.parametrize(("limit", "loaded"), [("", []), ("good", ["good"]), (" good , other", ["good"])])
def test_the_environment_limits_what_loads(
    strangers: None, monkeypatch: pytest.MonkeyPatch, limit: str, loaded: list[str]
) -> None:
    monkeypatch.setenv(module.LIMIT, limit)
    host = Plugins()
    assert [one.name for one in host.overview() if not one.name.startswith("dqas_plugin")] == loaded
    absent = {"other"} if "other" in limit else set()
    assert {one.plugin for one in host.problems} == absent
    assert all("not installed" in one.message for one in host.problems)


def test_overview_says_what_each_brings(host: Plugins) -> None:
    info = {one.name: one for one in host.overview()}
    assert "digits" in info["dqas_plugin.datasets"].brings["datasets"]
    assert "adaptive" in info["dqas_plugin.allocation"].brings["allocators"]
    assert "dqas_select" in info["dqas_plugin.pipeline"].hooks


def test_unknown_names_answer_with_the_nearest(host: Plugins) -> None:
    with pytest.raises(UserError, match=r"unknown method 'grapcut': did you mean 'graphcut'\?"):
        host.selectors["grapcut"]
    with pytest.raises(UserError, match="unknown allocator 'zzz': choose one of adaptive, paper, proportional, uniform"):
        host.allocators["zzz"]


def test_unregistering_takes_its_names_away(host: Plugins) -> None:
    plugin = Points.Good()
    host.register(plugin, "passing")
    assert "good" in host.selectors
    host.unregister(plugin)
    assert "good" not in host.selectors
