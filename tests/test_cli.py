"""The command line: commands, what they print and where, exit statuses, plugins' commands."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from dqas_cli import main as program
from dqas_cli.main import Program, cli
from dqas_plugin import Selection, hookimpl, load_dataset
from dqas_plugin.bench.gridspec import TABLE_2, chosen_allocators, chosen_methods
from dqas_plugin.errors import DqasError, PluginError, UserError
from dqas_plugin.given import read_size
from dqas_plugin.plugins import Plugins, plugins

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--dataset", "shapes"]
for _option in ("classes=3", "per_class=30", "test_per_class=10", "size=8", "modes=4"):
    TINY += ["--dataset-option", _option]
QUICK = [*TINY, "--iterations", "2", "--device", "cpu"]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def start(*args: str, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join(str(ROOT / one) for one in (".", "cli", "adapters"))
    own = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}
    call = [sys.executable, "-m", "dqas_cli", *args]
    return subprocess.Popen(
        call, cwd=cwd, env=own, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_help_and_version_do_not_wait_for_torch() -> None:
    code = (
        "import sys\nfrom dqas_cli.main import cli\n"
        "for arguments in (['--help'], ['--version'], ['bench', '--help'], ['select', '-h']):\n"
        "    try: cli.main(arguments, prog_name='dqas')\n    except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'pandas', 'sklearn', 'dqas_plugin.plugins'} & set(sys.modules)\n"
    )
    path = os.pathsep.join(str(ROOT / one) for one in (".", "cli", "adapters"))
    own = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dqas bench --method graphcut --adaptive" in done.stdout


def test_plugins_of_this_package_add_no_commands() -> None:
    """Why ``--help`` need not load them."""
    group = click.Group()
    assert plugins().register_commands(group) == []
    assert group.commands == {}


def test_without_a_command_the_help_page_is_shown() -> None:
    assert "Usage: dqas [OPTIONS] [COMMAND]" in invoke().output


# --- commands of plugins -------------------------------------------------------------------------------------------------


@click.command()
def hello() -> None:
    """Greet."""
    click.echo("hello")


class Hello:
    @hookimpl
    def dqas_register_commands(self, cli: click.Group) -> None:
        cli.add_command(hello)


class Thief:
    @hookimpl
    def dqas_register_commands(self, cli: click.Group) -> None:
        cli.add_command(hello, "bench")


@pytest.fixture
def own_program(monkeypatch: pytest.MonkeyPatch) -> tuple[Program, Plugins]:
    """A program with the built-in commands whose plugins are those registered in the test."""
    loaded = Plugins(built_in=False, strangers=False)
    monkeypatch.setattr("dqas_plugin.plugins.plugins", lambda: loaded)
    return Program("dqas", commands=dict(cli.commands)), loaded


def test_command_of_a_plugin_runs(own_program: tuple[Program, Plugins]) -> None:
    own, loaded = own_program
    loaded.register(Hello())
    assert CliRunner().invoke(own, ["hello"]).output == "hello\n"


def test_commands_of_strangers_are_on_the_help_page(
    own_program: tuple[Program, Plugins], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, loaded = own_program
    loaded.register(Hello())
    assert "hello" not in CliRunner().invoke(own, ["--help"]).output
    stranger = EntryPoint("hello", "dqas_hello", "dqas")
    monkeypatch.setattr(program, "entry_points", lambda group: [stranger])
    assert "hello" in CliRunner().invoke(own, ["--help"]).output


def test_plugin_cannot_take_a_command_away(own_program: tuple[Program, Plugins]) -> None:
    own, loaded = own_program
    loaded.register(Thief())
    problems = loaded.register_commands(own)
    assert [one.plugin for one in problems] == ["Thief"]
    assert "'bench'" in problems[0].message
    assert own.commands["bench"] is cli.commands["bench"]


# --- what goes wrong -----------------------------------------------------------------------------------------------------


def failing(error: BaseException) -> Program:
    own = Program("dqas", params=list(cli.params))

    @own.command()
    def fail() -> None:
        click.echo("some output")
        raise error

    return own


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no such thing: name\n another"), 2, "dqas: error: no such thing: name another\n"),
        (PluginError("plugin 'x' broke"), 1, "dqas: error: plugin 'x' broke\n"),
        (DqasError("it broke"), 1, "dqas: error: it broke\n"),
        (click.UsageError("No."), 2, "dqas: error: no; see dqas fail --help\n"),
        (KeyboardInterrupt(), 130, "dqas: stopped; the same command continues where it was\n"),
        (KeyboardInterrupt("stopped; 2 of 3 cells are kept"), 130, "dqas: stopped; 2 of 3 cells are kept\n"),
        (ZeroDivisionError("division by zero"), 1, None),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "dqas: error: the disk, perhaps that of the output, is full: make room, and start the same command again\n",
        ),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
    ],
)
def test_every_error_is_one_line(error: BaseException, status: int, line: str | None) -> None:
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == status
    assert result.stdout == "some output\n"
    if line is None:
        assert result.stderr.startswith("dqas: error: ZeroDivisionError: division by zero (")
        assert result.stderr.count("\n") == 1
        assert "DQAS_DEBUG=1" in result.stderr
    else:
        assert result.stderr == line


@pytest.mark.parametrize("how", [{"args": ["--debug", "fail"]}, {"args": ["fail"], "env": {"DQAS_DEBUG": "1"}}])
def test_debug_shows_the_traceback(how: dict[str, Any]) -> None:
    own = failing(ZeroDivisionError("division by zero"))
    result = CliRunner().invoke(own, **how)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "raise error" in result.stderr
    assert "Traceback" not in CliRunner().invoke(own, ["fail"]).stderr


def test_errors_are_raised_outside_standalone_mode() -> None:
    with pytest.raises(UserError, match="no such thing"):
        failing(UserError("no such thing")).main(["fail"], standalone_mode=False)


def test_closed_pipe_is_silent(tmp_path: Path) -> None:
    with start("list", "plugins", "--format", "json", cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 1)


@pytest.mark.slow
def test_ctrl_c_stops_and_the_same_command_continues(tmp_path: Path) -> None:
    call = ("bench", *TINY, "--iterations", "150", "--device", "cpu", "--method", "random", "--ratio", "0.5", "--seeds", "5")
    with start(*call, "--jobs", "2", cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:  # the first finished cell
            if line.startswith("1/5"):
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("dqas: stopped; ")
    with start(*call, "--jobs", "1", cwd=tmp_path) as again:
        _, stderr = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "cells are stored already" in stderr


# --- bench ---------------------------------------------------------------------------------------------------------------


def test_bench_prints_a_table_and_keeps_the_cells(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    call = ("bench", *QUICK, "--method", "random,graphcut", "--ratio", "0.1", "--ratio", "0.2", "--seeds", "2", "--jobs", "1")
    first = invoke(*call, "--results", str(folder))
    assert first.exit_code == 0, first.stderr
    assert "quick[iterations=2]" in first.stdout
    assert "graphcut" in first.stdout
    assert "8/8" in first.stderr
    started = time.perf_counter()
    second = invoke(*call, "--results", str(folder))
    assert second.stdout == first.stdout
    assert "8 of 8 cells are stored already" in second.stderr
    assert time.perf_counter() - started < 5


def test_bench_hands_every_option_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def plan(dataset: Any, methods: list[str], **options: Any) -> list[Any]:
        seen.update(options, dataset=dataset, methods=methods)
        return []

    monkeypatch.setattr("dqas_plugin.bench.gridspec.plan", plan)
    more = (
        "--method graphcut:eq7,random,dq --aipc 4,6 --adaptive --allocator paper,adaptive --refiner random --refine-share 0.25"
    )
    more += " --proxy train --goal worst --model convnet3 --recipe fast --epochs 7 --prior empirical --seeds 5 --estimate"
    more += " --method-option objective=eq7 --features proxy --max-memory 500MB --bins-on original --no-patches"
    more += " --drop-rate 0.5 --patch-size 4 --patch-scores saliency --rebuild mae --allocator-option iterations=7"
    more = more.replace("--refiner random", "--refiner error-reduction --refiner-option diversity=none --scorer ridge")
    result = invoke("bench", *TINY, "--device", "cpu", *more.split(), "--results", str(tmp_path / "results"))
    assert result.exit_code == 0, result.stderr
    assert seen["dataset"].options == {"classes": 3, "per_class": 30, "test_per_class": 10, "size": 8, "modes": 4}
    recipe = seen.pop("recipe")
    assert (recipe.epochs, recipe.iterations, recipe.prior) == (7, None, "empirical")
    del seen["dataset"]
    assert seen == {
        "methods": ["graphcut:eq7", "random", "dq"],
        "ratios": (),
        "aipc": (4, 6),
        "seeds": 5,
        "allocators": ["paper", "adaptive"],
        "refiner": "error-reduction",
        "refiner_options": {"diversity": None, "scorer": "ridge"},
        "allocator_options": {"iterations": 7},
        "refine_share": 0.25,
        "goal": "worst",
        "proxy": "train",
        "model": "convnet3",
        "device": "cpu",
        "features": "proxy",
        "max_memory": 500_000_000,
        "method_options": {"objective": "eq7"},
        "patches": {"keep": True, "drop_rate": 0.5, "size": 4, "scores": "saliency", "rebuild": "mae"},
        "bins_on": "original",
    }
    assert not (tmp_path / "results").exists()


def test_bench_estimate_writes_nothing(tmp_path: Path) -> None:
    result = invoke("bench", *QUICK, "--ratio", "0.1", "--estimate", "--results", str(tmp_path / "results"))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("6 cells")
    assert list(tmp_path.iterdir()) == []


def test_bench_tests_on_another_dataset(tmp_path: Path) -> None:
    call = ("bench", "--dataset", "digits", "--test-from", "digits", "--device", "cpu", "--estimate")
    result = invoke(*call, "--results", str(tmp_path / "results"))
    assert result.exit_code == 0, result.stderr


def test_bench_names_the_cells_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dqas_plugin.bench import Failure, Outcome

    def run(cells: list[Any], *_: Any, **__: Any) -> Outcome:
        return Outcome(failures=[Failure(cells[0], RuntimeError("no memory"), tmp_path / "log")])

    monkeypatch.setattr("dqas_plugin.bench.run", run)
    result = invoke("bench", *QUICK, "--ratio", "0.1", "--results", str(tmp_path / "results"))
    assert result.exit_code == 1
    assert "dqas: error: 1 of 6 cells failed; the first: random" in result.stderr


def test_all_methods_are_the_rows_of_table_2_that_exist() -> None:
    assert chosen_methods(()) == ["graphcut"]
    found = chosen_methods(("all", "graphcut:eq7"))
    assert found == [*TABLE_2, "graphcut:eq7"]
    assert set(TABLE_2) <= set(plugins().selectors)


def test_allocators_of_the_options() -> None:
    assert chosen_allocators(False, None) == []
    assert chosen_allocators(True, None) == ["adaptive"]
    assert chosen_allocators(False, "paper, adaptive") == ["paper", "adaptive"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123", 123),
        ("500MB", 500_000_000),
        ("4GiB", 2**32),
        ("1.5 kb", 1500),
        ("2K", 2000),
        ("1e9", 10**9),
        ("3TiB", 3 * 2**40),
    ],
)
def test_sizes_are_read_in_any_common_form(text: str, size: int) -> None:
    assert read_size("--max-memory", text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "4XB", "nan", "1e99GB", "1e1e1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    result = invoke("bench", *QUICK, "--max-memory", text)
    assert result.exit_code == 2
    assert "give a size such as 500MB or 4GiB" in result.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [("nonsense", "NAME=VALUE"), ("objektive=eq7", "did you mean 'objective'"), ("repeat=3", "unknown method option 'repeat'")],
)
def test_a_wrong_method_option_is_named(given: str, said: str, tmp_path: Path) -> None:
    for call in (("bench", "--results", str(tmp_path / "r")), ("select", "--ratio", "0.1", "--out", str(tmp_path / "s.npz"))):
        result = invoke(*call, *QUICK, "--method", "graphcut", "--method-option", given)
        assert result.exit_code == 2
        assert said in result.stderr


# --- select --------------------------------------------------------------------------------------------------------------


def test_select_saves_what_it_says(tmp_path: Path) -> None:
    out = tmp_path / "new" / "s.npz"
    result = invoke("select", *QUICK, "--ratio", "0.1", "--method", "graphcut:eq7", "--out", str(out))
    assert result.exit_code == 0, result.stderr
    train = load_dataset("shapes", classes=3, per_class=30, test_per_class=10, size=8, modes=4).train
    chosen = Selection.load(out, train)
    assert len(chosen) == 9
    assert result.stdout.splitlines() == [
        "9 of 90 images of shapes/train (10.0%)",
        "class   images  chosen",
        "easy-0      30       3",
        "easy-1      30       3",
        "hard-0      30       3",
        f"saved: {out}",
    ]


def test_select_keeps_an_older_file_unless_told_otherwise(tmp_path: Path) -> None:
    out = tmp_path / "s.npz"
    call = ("select", *QUICK, "--method", "random", "--aipc", "2", "--out", str(out))
    assert invoke(*call).exit_code == 0
    before = out.read_bytes()
    refused = invoke(*call, "--seed", "1")
    assert refused.exit_code == 2
    assert refused.stderr == f"dqas: error: {out} exists already: choose another name or add --force\n"
    assert out.read_bytes() == before
    assert invoke(*call, "--seed", "1", "--force").exit_code == 0
    assert not np.array_equal(np.load(out)["indices"], [])
    assert out.read_bytes() != before


def test_select_hands_every_option_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def select(data: Any, method: str, **options: Any) -> Any:
        seen.update(options, method=method)
        raise UserError("enough")

    monkeypatch.setattr("dqas_plugin.pipeline.select", select)
    more = "--aipc 2 --adaptive --allocator paper --refiner random --proxy train --goal natural --model resnet18 --seed 3"
    more += " --method-option objective=eq7 --max-memory 2GiB --allocator-option lower_bound=0.3 --allocator-option reset=no"
    more = more.replace("--refiner random", "--refiner error-reduction --refiner-option rounds=1")
    result = invoke("select", *QUICK, *more.split(), "--out", str(tmp_path / "s.npz"))
    assert result.stderr == "dqas: error: enough\n"
    assert seen.pop("recipe").iterations == 2
    assert callable(seen.pop("report"))
    assert seen == {
        "ratio": None,
        "aipc": 2,
        "method": "graphcut",
        "adaptive": True,
        "allocator": "paper",
        "refiner": "error-reduction",
        "refiner_options": {"rounds": 1},
        "allocator_options": {"lower_bound": 0.3, "reset": False},
        "refine_share": 0.1,
        "proxy": "train",
        "goal": "natural",
        "model": "resnet18",
        "seed": 3,
        "device": "cpu",
        "features": "proxy",
        "max_memory": 2**31,
        "objective": "eq7",
    }


# --- list and doctor -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["methods", "datasets", "models", "allocators", "refiners", "importers", "executors", "plugins"]
)
def test_list_shows_everything(kind: str) -> None:
    from dqas_cli.listing import KINDS

    rows = json.loads(invoke("list", kind, "--format", "json").stdout)
    table = invoke("list", kind).stdout
    names = [one.name for one in plugins().overview()] if kind == "plugins" else list(plugins().registry(KINDS[kind]))
    assert [row["name"].partition(":")[0] for row in rows] == names
    assert all(row["name"] in table for row in rows)
    if kind != "plugins":
        assert all(row["title"] and row["plugin"] for row in rows)


def test_list_tells_options_and_variants() -> None:
    rows = {row["name"]: row for row in json.loads(invoke("list", "methods", "--format", "json").stdout)}
    assert rows["graphcut"]["needs"] == ["features", "gradients"]
    assert "eq7" in rows["graphcut"]["variants"]
    assert "objective" in rows["graphcut"]["options"]
    datasets = {row["name"]: row for row in json.loads(invoke("list", "datasets", "--format", "json").stdout)}
    assert datasets["shapes"]["options"]["easy_share"] == 0.5
    assert "folder:PATH" in datasets


class Misspelt:
    @hookimpl
    def dqas_register_selectors(self, register: Any) -> None:
        register("no selector")


@pytest.fixture
def with_broken_plugin() -> Any:
    broken = Misspelt()
    plugins().register(broken, "misspelt")
    yield
    plugins().unregister(broken)


@pytest.mark.usefixtures("with_broken_plugin")
def test_broken_plugin_is_named_with_the_reason() -> None:
    assert "is no Selector" in invoke("list", "plugins").stdout
    result = invoke("doctor")
    assert result.exit_code == 1
    line = next(one for one in result.stdout.splitlines() if "misspelt: " in one)
    assert line.startswith("PROBLEM")
    assert "is no Selector" in line
    assert result.stdout.splitlines()[-1] == "1 problem"


def test_doctor_finds_nothing_wrong(own_cache: Path, tmp_path: Path) -> None:
    result = invoke("doctor", "--root", str(tmp_path))
    assert result.exit_code == 0, result.stdout
    assert "PROBLEM" not in result.stdout
    assert str(own_cache) in result.stdout
    for word in ("torch", "cpu", "bf16", "cache", f"{tmp_path} holds nothing"):
        assert word in result.stdout


def test_doctor_names_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DQAS_CACHE", str(tmp_path / "file" / "cache"))
    result = invoke("doctor")
    assert result.exit_code == 1
    line = next(one for one in result.stdout.splitlines() if one.startswith("PROBLEM cache"))
    assert "set DQAS_CACHE" in line


def test_doctor_names_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    result = invoke("doctor", "--root", str(tmp_path / "data"))
    assert result.exit_code == 1
    assert f"{tmp_path / 'data'} is no folder" in result.stdout
