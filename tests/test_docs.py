"""The documents: nothing generated is stale, every hook is documented and tested, every example runs."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dqas_plugin import hookspecs
from dqas_plugin.plugins import Plugins

ROOT = Path(__file__).resolve().parent.parent
HOOKS = sorted(name for name in dir(hookspecs) if name.startswith("dqas_"))
COMMANDS = ("pip install . && dqas bench --method graphcut --adaptive", 'pip install ".[test]" && pytest')


def environment() -> dict[str, str]:
    path = os.pathsep.join(str(ROOT / one) for one in (".", "cli", "adapters", "docs"))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}


def sections(page: str) -> dict[str, str]:
    """Heading (without #) to the text under it."""
    parts = re.split(r"^##+ (.+)$", (ROOT / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def example(text: str) -> str:
    found = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 1, "one example per hook"
    return str(found[0])


def heading(hook: str) -> str:
    arguments = inspect.signature(getattr(hookspecs, hook)).parameters
    return f"{hook}({', '.join(arguments)})"


def module_of(source: str, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(hook: str) -> None:
    text = sections("docs/hooks.md")[heading(hook)]
    for argument in inspect.signature(getattr(hookspecs, hook)).parameters:
        assert re.search(rf"^\* `{argument}`:", text, flags=re.MULTILINE), f"{hook}: say what {argument} is"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    tests = (ROOT / "tests" / "test_plugins.py").read_text()
    assert re.search(rf"^def test_{hook}\b", tests, flags=re.MULTILINE)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_example_is_a_plugin(hook: str) -> None:
    loaded = Plugins(strangers=False)
    before = {plural: set(loaded.registry(plural)) for plural in ("selectors", "allocators", "refiners", "datasets", "models")}
    name = loaded.register(module_of(example(sections("docs/hooks.md")[heading(hook)]), f"example_{hook}"))
    info = next(one for one in loaded.overview() if one.name == name)
    assert info.hooks == (hook,)
    assert loaded.problems == []
    plural = hook.removeprefix("dqas_register_")
    if plural in before:
        assert set(loaded.registry(plural)) > before[plural]


def page_plugin(hook: str) -> Plugins:
    loaded = Plugins(strangers=False)
    loaded.register(module_of(example(sections("docs/hooks.md")[heading(hook)]), f"example_{hook}"))
    return loaded


def test_example_of_a_selector_selects() -> None:
    import numpy as np

    from dqas_plugin import Signals, rank

    features = np.arange(12, dtype=np.float32).reshape(6, 2)
    signals = Signals.from_arrays(features, np.zeros((6, 2), np.float32), np.array([0, 0, 0, 1, 1, 1]))
    far_first = page_plugin("dqas_register_selectors").selectors["far-first"]
    assert rank(signals, far_first, counts=[2, 3]).take([2, 3]).tolist() == [2, 1, 5, 4, 3]


def test_example_of_an_allocator_allocates() -> None:
    from dqas_plugin.allocation import allocate

    root = page_plugin("dqas_register_allocators").allocators["root"]
    found = allocate(root, lambda counts, seed: pytest.fail("trains=False"), [100, 400], 30)
    assert found.counts.tolist() == [10, 20]


def test_example_of_a_refiner_refines() -> None:
    import numpy as np

    from dqas_plugin import Signals

    hardest = page_plugin("dqas_register_refiners").refiners["hardest"]
    logits = np.array([[3.0, 0], [0, 1], [0, 5], [9, 0]], dtype=np.float32)
    signals = Signals.from_arrays(np.zeros((4, 1), np.float32), logits, np.array([0, 0, 0, 0]))
    assert hardest(signals, np.array([2]), 2, np.random.default_rng(0)).tolist() == [1, 0]


def test_examples_of_a_dataset_and_a_model_train() -> None:
    from dqas_plugin.recipes import recipe
    from dqas_plugin.training import train

    splits = page_plugin("dqas_register_datasets").datasets["squares"](None, per_class=8)
    flat = page_plugin("dqas_register_models").models["flat"]
    trained = train(flat.function, splits.train, recipe("quick").with_(iterations=3, precision="fp32"), 0, test=splits.test)
    assert trained.last is not None
    assert trained.last.accuracy.shape == (2,)


def test_example_of_an_importer_reads(tmp_path: Path) -> None:
    (tmp_path / "picks.txt").write_text("3 1\n0 2 4\n")
    ranking = page_plugin("dqas_register_importers").importers["lines"](tmp_path / "picks.txt")
    assert ranking.capacity.tolist() == [2, 3]


def test_example_of_an_executor_runs() -> None:
    open_executor = page_plugin("dqas_register_executors").executors["threads"]
    with open_executor(2) as pool:
        found = dict(pool.run(lambda task: 10 // task, [5, 2, 0]))
    assert (found[5], found[2]) == (2, 5)
    assert isinstance(found[0], ZeroDivisionError)


def test_example_of_a_command_greets() -> None:
    cli = click.Group()
    assert page_plugin("dqas_register_commands").register_commands(cli) == []
    assert CliRunner().invoke(cli, ["hello", "you"]).output == "hello you\n"


def test_readme_gives_both_commands_and_ci_runs_the_second() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "\n".join(f"    {one}" for one in COMMANDS) in readme
    assert COMMANDS[1] in (ROOT / ".ci" / "run").read_text()


def test_readme_python_runs(tmp_path: Path) -> None:
    source = example(sections("README.md")["From Python"])
    quick = source.replace("adaptive=True", 'recipe=recipe("quick").with_(proxy_epochs=1)')
    assert quick != source
    call = [sys.executable, "-c", f"from dqas_plugin.recipes import recipe\n{quick}\nassert len(next(iter(loader))[0]) == 64"]
    subprocess.run(call, cwd=tmp_path, env=environment(), check=True)


def test_readme_plugin_is_the_one_of_the_hooks_page() -> None:
    readme = sections("README.md")["A method of your own"]
    assert example(readme) == example(sections("docs/hooks.md")["dqas_register_selectors(register)"])
    assert len(re.findall(r"\n", "".join(re.findall(r"^```\w+\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)))) <= 40


def test_generated_pages_are_up_to_date() -> None:
    call = [sys.executable, "-m", "cogapp", "-I", ".", "-I", "cli", "-I", "docs", "--check"]
    call += [
        "README.md",
        "docs/help.md",
        "docs/methods.md",
        "docs/plugins.md",
        "docs/quickstart.md",
        "docs/results.md",
        "docs/gpu.md",
    ]
    done = subprocess.run(call, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run 'make docs': {done.stdout}{done.stderr}"


def pages() -> types.ModuleType:
    return module_of(
        (ROOT / "docs" / "pages.py").read_text().replace("__file__", repr(str(ROOT / "docs" / "pages.py"))), "pages"
    )


def test_help_leaves_nothing_out() -> None:
    from dqas_cli.main import cli

    text = (ROOT / "docs" / "help.md").read_text()
    for name, command in cli.commands.items():
        assert f"## dqas {name}" in text
        for parameter in command.params:
            assert all(one in text for one in parameter.opts if one.startswith("--"))


def test_masks_hide_numbers_and_verdicts_only() -> None:
    own: Callable[[str], list[str]] = pages().masked
    head = "5 % (72 images)  accuracy  vs uniform  verdict\n"
    one = own(
        f"{head}random  93.1 ± 0.9\n  + adaptive  91.9 ± 1.1  -0.6 [-1.8, 0.7]  not better\na + b at 5 %: -0.6 points: no."
    )
    other = own(f"{head}random  8.0 ± 10.9\n  + adaptive  1.0  kept even counts\n\na + b at 5 %: kept even counts.")
    assert one == other
    assert one != own(f"{head}random  8.0 ± 10.9\n  + paper  1.0  kept even counts\n\na + b at 5 %: kept even counts.")
    assert [line.split()[0] for line in one] == ["%", "random", "+", "a"]


@pytest.mark.slow
def test_readme_output_is_what_the_command_prints() -> None:
    own: Callable[[str], list[str]] = pages().masked
    stored, real = own((ROOT / "docs" / "bench-output.txt").read_text()), own(pages().run_command())
    assert stored == real, "run 'make output'"
