"""``dqas bench --grid FILE`` and ``--price``: the file says what the options would, and runs as they do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dqas_cli.bench import bench
from dqas_cli.main import cli
from dqas_plugin.bench import GridSpec, Store, read_grid
from dqas_plugin.bench.gridfile import HOW
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.plugins import plugins
from one_line import refused

TWO = """
[defaults]
iterations = 2
method = "herding"
seeds = 2

[[grid]]
dataset = "shapes"
dataset-option = { classes = 3, per_class = 30, test_per_class = 10, size = 8, modes = 4 }
aipc = 4

[[grid]]
dataset = "shapes"
dataset-option = { classes = 3, per_class = 20, test_per_class = 10, size = 8, modes = 2 }
aipc = [4, 6]
"""


@pytest.fixture
def two(tmp_path: Path) -> str:
    """Path of a grid file with two small datasets."""
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "--device", "cpu", "--jobs", "1", *arguments])


# --- the same in both ways -----------------------------------------------------------------------------------------------

SAME = [
    ("--dataset cifar10", "dataset = 'cifar10'"),
    ("--dataset shapes --dataset-option modes=3", "dataset = 'shapes'\ndataset-option = { modes = 3 }"),
    ("--test-from digits", "test-from = 'digits'"),
    ("--method graphcut:eq7,herding --method all", "method = ['graphcut:eq7', 'herding', 'all']"),
    ("--ratio 0.05,0.1", "ratio = [0.05, 0.1]"),
    ("--aipc 5 --aipc 7", "aipc = [5, 7]"),
    ("--method grand --method-option repeat=3", "method = 'grand'\nmethod-option = { repeat = 3 }"),
    ("--features timm:resnet18", "features = 'timm:resnet18'"),
    ("--max-memory 500MB", "max-memory = '500MB'"),
    ("--adaptive", "adaptive = true"),
    ("--allocator paper,adaptive", "allocator = ['paper', 'adaptive']"),
    ("--allocator paper --allocator-option reset=false", "allocator = 'paper'\nallocator-option = { reset = false }"),
    ("--adaptive --refiner none", "adaptive = true\nrefiner = 'none'"),
    ("--adaptive --refine-share 0.25", "adaptive = true\nrefine-share = 0.25"),
    ("--adaptive --refiner-option rounds=1 --scorer ridge", "adaptive=true\nrefiner-option={rounds=1}\nscorer='ridge'"),
    ("--adaptive --goal worst --proxy train", "adaptive = true\ngoal = 'worst'\nproxy = 'train'"),
    ("--method dq --bins-on original --no-patches", "method = 'dq'\nbins-on = 'original'\nno-patches = true"),
    ("--method dqas --drop-rate 0.5 --patch-size 4", "method = 'dqas'\ndrop-rate = 0.5\npatch-size = 4"),
    ("--method dqas --patch-scores saliency --rebuild mae", "method = 'dqas'\npatch-scores = 'saliency'\nrebuild = 'mae'"),
    ("--model resnet18 --recipe paper --batch 64 --lr 0.6", "model = 'resnet18'\nrecipe = 'paper'\nbatch = 64\nlr = 0.6"),
    ("--epochs 7 --prior empirical", "epochs = 7\nprior = 'empirical'"),
    ("--iterations 9 --seeds 5", "iterations = 9\nseeds = 5"),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[GridSpec]:
    """What the command plans; nothing is run."""
    seen: list[GridSpec] = []

    def plan_grids(specs: list[GridSpec], **_: Any) -> list[Any]:
        seen.extend(specs)
        return []

    monkeypatch.setattr("dqas_plugin.bench.gridspec.plan_grids", plan_grids)
    return seen


@pytest.mark.parametrize(("arguments", "text"), SAME, ids=lambda text: text.replace("\n", " "))
def test_a_file_means_what_the_options_mean(arguments: str, text: str, tmp_path: Path, asked: list[GridSpec]) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"[[grid]]\n{text}")
    for call in (arguments.split(), ["--grid", str(path)]):
        result = run(*call, "--estimate", "--results", str(tmp_path / "results"))
        assert result.exit_code == 0, result.stderr
    by_options, by_file = asked
    assert by_options != GridSpec(mark="--")
    assert replace(by_options, mark="") == replace(by_file, where="")
    assert by_options.arguments() == by_file.arguments()


def test_without_options_everything_is_as_the_library_has_it(tmp_path: Path, asked: list[GridSpec]) -> None:
    assert run("--estimate", "--results", str(tmp_path / "results")).exit_code == 0
    assert asked == [GridSpec(mark="--")]


def test_every_option_is_a_key_or_says_how_to_run(tmp_path: Path) -> None:
    """And the examples above have every key."""
    names = [max(one.opts, key=len).lstrip("-") for one in bench.params if isinstance(one, click.Option)]
    used = {line.partition("=")[0].strip() for _, text in SAME for line in text.splitlines()}
    assert used == set(names) - set(HOW)


# --- a run ---------------------------------------------------------------------------------------------------------------


def test_every_dataset_gets_its_table(two: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "results")
    first = run("--grid", two, "--results", folder)
    assert first.exit_code == 0, first.stderr
    heads = [line for line in first.stdout.splitlines() if line.startswith("shapes (")]
    assert [("modes=4" in one, "(90 images" in one) for one in heads] == [(True, True), (False, False)]
    assert first.stdout.count("4 a class (12 images)") == 4  # accuracies and times of two tables
    assert first.stdout.count("6 a class (18 images)") == 2
    assert "12/12 shapes (classes=3, modes=2, per_class=20, size=8, test_per_class=10): " in first.stderr
    with Store(folder) as store:
        assert len(list(store.cells())) == 2 * 2 * (1 + 2)
    second = run("--grid", two, "--results", folder)
    assert second.stdout == first.stdout
    assert "12 of 12 cells are stored already" in second.stderr
    assert run("--grid", two, "--results", folder, "--estimate", "--price", "3").stdout == (
        "all 12 cells are stored: nothing is left to do\n"
    )


class Impatient:
    """Presses Ctrl-C once a number of cells are finished."""

    def __init__(self, cells: int) -> None:
        self.left = cells

    @hookimpl
    def dqas_cell_finished(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture
def impatient() -> Iterator[Impatient]:
    plugin = Impatient(7)
    plugins().register(plugin)
    yield plugin
    plugins().unregister(plugin)


def accuracies(folder: str) -> dict[str, Any]:
    with Store(folder) as store:
        return {cell.key: result["accuracy"] for cell, result in store.cells()}


def test_a_stopped_grid_goes_on_where_it_was(two: str, tmp_path: Path, impatient: Impatient) -> None:
    folder = str(tmp_path / "results")
    stopped = run("--grid", two, "--results", folder)
    assert stopped.exit_code == 130
    assert stopped.stdout == ""
    assert stopped.stderr.splitlines()[-1].startswith("dqas: stopped; 7 of 12 cells are kept in")
    left = run("--grid", two, "--results", folder, "--estimate")
    assert left.stdout.startswith("12 cells, 7 of them stored; left to do: at most ")
    again = run("--grid", two, "--results", folder)
    assert again.exit_code == 0, again.stderr
    assert "7 of 12 cells are stored already" in again.stderr
    assert "missing" not in again.stdout
    assert run("--grid", two, "--results", str(tmp_path / "at-once")).exit_code == 0
    assert accuracies(folder) == accuracies(str(tmp_path / "at-once"))


def test_a_cell_that_fails_is_named_with_its_dataset(two: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr("dqas_plugin.pipeline.run_request", broken)
    result = run("--grid", two, "--results", str(tmp_path / "results"))
    assert result.exit_code == 1
    said = result.stderr.splitlines()[-1]
    assert said.startswith("dqas: error: 12 of 12 cells failed; the first: shapes (classes=3, modes=4, ")
    assert "random 4 a class seed 0 failed: RuntimeError: no memory" in said


# --- mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ("--method herding", "--method"),
        ("--dataset digits", "--dataset"),
        ("--dataset-option modes=3", "--dataset-option"),
        ("--recipe quick", "--recipe"),  # though it is the default
        ("--adaptive", "--adaptive"),
        ("--seeds 3 --jobs 2", "--seeds"),
        ("--no-patches", "--no-patches"),
    ],
)
def test_what_the_file_says_cannot_be_an_option_too(given: str, option: str, two: str, tmp_path: Path) -> None:
    said = f"{option} says what to run, and so does --grid {two}: write it into a grid file of your own, or leave it out"
    refused(f"bench --grid {two} {given} --results {tmp_path / 'results'}", said)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "case",
    [
        ("[[grid]]\nmetod = 'all'", "own.toml, grid 1: unknown key 'metod': did you mean 'method'?"),
        ("[[grid]]\nmethod = 'grphcut'", "own.toml, grid 1: unknown method 'grphcut': did you mean 'graphcut'?"),
        ("[[grid]]\nratio = 'much'", "own.toml, grid 1: ratio must be a number"),
        ("[[grid]]\ndataset = 'folder:none'", "own.toml, grid 1: ", "none"),
        ("[[gird]]", "unknown table 'gird'"),
        ("grid", "own.toml is not TOML"),
        ("", "own.toml has no [[grid]] table"),
    ],
    ids=lambda case: case[0].replace("\n", " "),
)
def test_a_file_that_is_wrong_is_refused(case: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(case[0])
    refused("bench --grid own.toml", *case[1:])
    assert [one.name for one in tmp_path.iterdir()] == ["own.toml"]


def test_other_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused("bench --grid quick-tabel2", "no grid file quick-tabel2", "'quick-table2'")
    refused("bench --grid .", "is a folder")
    refused("bench --grid quick-table2 --executor locl", "unknown executor 'locl'")
    refused("bench --price 2", "--price belongs to --estimate")
    refused("bench --estimate --price 0", "--price 0: give a number above 0")
    refused("bench --estimate --price free", "--price free: give a number above 0")
    refused("bench --lr -1", "--lr -1: give a number above 0")
    assert list(tmp_path.iterdir()) == []


# --- what it costs -------------------------------------------------------------------------------------------------------


def test_money_is_told_at_a_price_alone(two: str, tmp_path: Path) -> None:
    free = run("--grid", two, "--estimate", "--results", str(tmp_path / "results"))
    assert free.exit_code == 0, free.stderr
    assert free.stdout.startswith("12 cells, 0 of them stored; left to do: at most 4 trainings of proxies and 12 of final")
    assert "price" not in free.stdout
    assert "an hour" not in free.stdout
    paid = run("--grid", two, "--estimate", "--price", "2.50", "--results", str(tmp_path / "results"))
    assert "; at 2.50 an hour about " in paid.stdout
    assert "(that time x the price x 1 device: an estimate, too)" in paid.stdout
    assert not (tmp_path / "results").exists()


# --- dqas list grids -----------------------------------------------------------------------------------------------------


def test_list_grids_names_what_grid_takes() -> None:
    listed = CliRunner().invoke(cli, ["list", "grids", "--format", "json"])
    rows = json.loads(listed.stdout)
    assert [one["name"] for one in rows] == ["paper-table2", "quick-table2"]
    for one in rows:
        assert [replace(spec, where="") for spec in read_grid(one["name"])] == [
            replace(spec, where="") for spec in read_grid(one["file"])
        ]
    shown = CliRunner().invoke(cli, ["list", "grids"]).stdout.splitlines()
    assert shown[0].split() == ["name", "title", "file"]
    assert [line.split()[0] for line in shown[1:]] == ["paper-table2", "quick-table2"]
