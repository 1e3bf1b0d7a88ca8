"""``dqas table``: formats, files, choices, and mistakes in one sentence."""

from __future__ import annotations

import csv
import gc
import io
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dqas_cli.main import cli
from dqas_plugin.bench.tables import TABLES
from evidence_problem import TOY, stored, toy_cells
from one_line import refused

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, two recipes."""
    folder = tmp_path_factory.mktemp("results")
    cells = toy_cells(["graphcut"])
    other = toy_cells(["graphcut"], replace(TOY, name="folder:/my/other", fingerprint="456"), recipe="fast", ratios=[0.1])
    return stored(folder, [*cells, *other])


def table(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["table", *arguments])


@pytest.mark.parametrize("number", TABLES)
@pytest.mark.parametrize("form", ["plain", "md", "latex", "csv", "html"])
def test_every_table_in_every_format(number: int, form: str, results: Path) -> None:
    done = table(str(number), "--results", str(results), "--format", form)
    assert done.exit_code == 0, done.output
    assert done.output.count(f"Table {number}") >= 2  # one for each protocol
    assert "other" in done.output


def test_help_tells_what_tables_and_formats_there_are() -> None:
    text = " ".join(table("--help").output.split())
    for number, what in TABLES.items():
        assert f"{number}: {what}"[:25] in text
    assert "[plain|md|latex|csv|html]" in text


def test_garbage_is_collected_again_however_it_ends(results: Path) -> None:
    for more, status in (([], 0), (["--dataset", "none"], 2)):
        assert table("2", "--results", str(results), *more).exit_code == status
        assert gc.isenabled()


def test_where_a_store_holds_several_one_can_be_chosen(results: Path) -> None:
    for chosen, others in (("--dataset other", "toy"), ("--recipe quick", "folder:/my/other")):
        output = table("2", "--results", str(results), *chosen.split()).output
        assert output.count("**Table 2") == 1
        assert f"{others} (1,000 images" not in output


def test_a_pipe_gets_markdown_and_a_file_what_its_name_says(results: Path, tmp_path: Path) -> None:
    assert table("2", "--results", str(results)).output.startswith("**Table 2")
    target = tmp_path / "new" / "t.csv"
    done = table("2", "--results", str(results), "--out", str(target))
    assert done.output == f"saved: {target}\n"
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert {row["dataset"] for row in rows} == {"toy", "folder:/my/other"}
    assert {row["recipe"] for row in rows} == {"quick", "fast"}
    ours = next(row for row in rows if row["method"] == "graphcut" and row["dataset"] == "toy")
    assert float(ours["5 % (50) accuracy mean"]) == pytest.approx(68.25)
    table("2", "--results", str(results), "--out", str(target), "--format", "latex")
    assert "\\toprule" in target.read_text(encoding="utf-8")
    assert [one.name for one in target.parent.iterdir()] == ["t.csv"]


def test_best_epoch_is_labelled(results: Path) -> None:
    def shown(*more: str) -> tuple[str, list[float]]:
        chosen = ("2", "--results", str(results), "--dataset", "toy", *more)
        rows = csv.DictReader(io.StringIO(table(*chosen, "--format", "csv").output))
        return table(*chosen).output, [float(text) for row in rows if (text := row["5 % (50) accuracy mean"])]

    (last, means), (best, higher) = shown(), shown("--best-epoch")
    assert "last epoch" in last
    assert "best epoch" not in last
    assert "best epoch, chosen on test labels" in best
    assert higher == pytest.approx([one + 1 for one in means])
    assert len(means) == 3


def test_missing_cells_come_with_commands(results: Path) -> None:
    output = table("2", "--results", str(results)).output
    assert "| craig | *missing* |" in output
    assert f"--results {results}" in output
    assert "dqas bench --dataset folder:/my/other " in output


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders without our results."""
    base = tmp_path_factory.mktemp("strange")
    found = {name: base / name for name in ("nothing", "empty", "text", "foreign", "newer", "fresh")}
    for name, folder in found.items():
        if name != "nothing":
            folder.mkdir()
    (found["text"] / "results.sqlite").write_text("not a database at all " * 100)
    with closing(sqlite3.connect(found["foreign"] / "results.sqlite")) as database:
        database.execute("CREATE TABLE other (x)")
    stored(found["newer"], toy_cells()[:1])
    with closing(sqlite3.connect(found["newer"] / "results.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    stored(found["fresh"], [])
    return found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "has no results: run dqas bench with --results"),
        ("empty", "has no results: run dqas bench with --results"),
        ("text", "is not a file of results"),
        ("foreign", "belongs to another program"),
        ("newer", "has results of format 99, this version of dqas writes format"),
        ("fresh", "has no finished cell yet"),
    ],
)
def test_folders_without_results(name: str, words: str, strange: dict[str, Path]) -> None:
    before = sorted(strange["nothing"].parent.rglob("*"))
    refused(f"table 2 --results {strange[name]}", words)
    assert sorted(strange["nothing"].parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("9", "there is no table 9: the paper has tables 1 to 5"),
        ("two", "give a whole number"),
        ("0", "give a whole number of at least 1"),
        ("2 --format word", "unknown format 'word'"),
        ("2 --method grafcut", "did you mean 'graphcut'"),
        ("4 --method graphcut", "table 4 compares dq with dqas"),
        ("5 --best-epoch", "table 5 has no accuracies"),
        ("2 --dataset toi", "did you mean 'toy'"),
        ("2 --recipe paper", "unknown recipe in these results 'paper'"),
        ("2 --model resnet", "unknown model in these results"),
    ],
)
def test_mistakes(arguments: str, words: str, results: Path) -> None:
    refused(f"table {arguments} --results {results}", words)


def test_nothing_is_written_where_something_is_wrong(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "t.md"
    for arguments in ("9", "2 --dataset toi"):
        refused(f"table {arguments} --results {results} --out {target}")
    refused(f"table 2 --results {results} --out {tmp_path}", "is a folder: name a file")
    refused(f"table 2 --results {results} --out {results / 'results.sqlite' / 't.md'}", "is a file")
    assert list(tmp_path.iterdir()) == []


def test_results_are_read_without_torch(results: Path, tmp_path: Path) -> None:
    """Importing it takes longer than all the rest; methods that quantize are asked about without it, too."""
    shaped = replace(TOY, shape=(3, 32, 32))
    stored(tmp_path, toy_cells(["dq", "dqas"], shaped, ratios=[0.1]))
    code = (
        "import sys\nfrom dqas_cli.main import cli\n"
        f"for folder in ({str(results)!r}, {str(tmp_path)!r}):\n"
        "    for number in '12345':\n"
        "        try: cli.main(['table', number, '--results', folder], prog_name='dqas')\n"
        "        except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'pandas', 'sklearn', 'matplotlib', 'scipy.stats'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    path = os.pathsep.join(str(ROOT / one) for one in (".", "cli", "adapters"))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "whole images" not in done.stdout
