"""The report as text: what it says and counts, that nothing in it can do harm, its pictures, and the command."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from dqas_cli.main import cli
from dqas_plugin.bench import Cell, render
from dqas_plugin.bench.evidence import read
from dqas_plugin.bench.report import write
from dqas_plugin.bench.report.classes import moved_most
from dqas_plugin.bench.report.curves import curves
from dqas_plugin.bench.report.headlines import headlines, unfinished
from dqas_plugin.bench.report.markup import Html, data_block, tag, together
from dqas_plugin.bench.report.origins import cost, measured
from dqas_plugin.bench.report.pairs import name_of, pairs
from dqas_plugin.bench.report.verdicts import judged
from evidence_problem import TOY, result, section, stored, toy_cells, usual
from report_problem import HARM, Page, digits_cells, of_digits


def written(tmp_path: Path, cells: Sequence[Cell], make: Any = usual) -> Page:
    folder = stored(tmp_path / "results", cells, make)
    write(read(folder), folder, tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


# --- what it says ----------------------------------------------------------------------------------------------------------


def scored(differences: Sequence[Sequence[float]]) -> list[Any]:
    """Comparisons with even counts, one a budget, with these differences by seed."""
    ratios = [0.05, 0.1, 0.2][: len(differences)]
    cells = toy_cells(ratios=ratios, seeds=len(differences[0]))
    budgets = sorted({cell.budget for cell in cells})

    def make(cell: Cell) -> dict[str, Any]:
        gain = differences[budgets.index(cell.budget)][cell.seed] if cell.variant else 0.0
        same = bool(cell.variant) and not any(differences[budgets.index(cell.budget)])
        name = f"{cell.method} {cell.budget} {cell.seed} {'' if same else cell.variant}"
        return result([0.5 + gain, 0.5 + gain], [1, 1], name)

    return judged(section(cells, make))


ONE = "On x, graphcut + adaptive + error-reduction at 5 %"
ALL = "On x, adaptive sampling"
MORE = f"{ALL} is better than even counts"
BETTER, WORSE, OPEN, KEPT = [0.02, 0.021, 0.019], [-0.02, -0.021, -0.019], [0.02, -0.02, 0.01], [0.0, 0.0, 0.0]
GAIN, LOSS, EITHER = "+2.0 [1.8, 2.2] points", "-2.0 [-2.2, -1.8] points", "+0.3 [-4.8, 5.5] points"


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([BETTER], [f"{ONE}: adaptive sampling gains {GAIN} against even counts (p < 0.001)."]),
        ([WORSE], [f"{ONE}: adaptive sampling loses {LOSS} against even counts (p < 0.001)."]),
        ([OPEN], [f"{ONE}: no difference from even counts beyond chance, {EITHER} (p = 0.81)."]),
        ([KEPT], [f"{ONE}: kept even counts, so nothing changes."]),
        ([[0.02]], [f"{ONE}: +2.0 points against even counts; one seed, no verdict: run more seeds."]),
        (
            [BETTER, [0.03, 0.031, 0.029], WORSE],
            [f"{MORE} in 2 of 3 comparisons (+2.0 to +3.0 points) and worse in 1 of 3 comparisons ({LOSS})."],
        ),
        (
            [BETTER, OPEN, KEPT],
            [
                f"{MORE} in 1 of 3 comparisons ({GAIN}) and worse in none.",
                f"1 shows no difference beyond chance ({EITHER}).",
                "1 kept even counts or the same images, so nothing changes there.",
            ],
        ),
        (
            [OPEN, [0.01, -0.02, 0.01]],
            [f"{ALL} shows no difference from even counts beyond chance in both comparisons (+0.0 to +0.3 points)."],
        ),
        (
            [[0.02], [-0.01]],
            [f"{ALL} was compared with even counts 2 times (-1.0 to +2.0 points), without a verdict: run more seeds."],
        ),
    ],
)
def test_headlines(differences: list[list[float]], said: list[str]) -> None:
    assert headlines("x", scored(differences)) == said


def test_nothing_is_claimed_where_nothing_is_compared(tmp_path: Path) -> None:
    found = written(tmp_path, toy_cells(allocators=[], refiner=None))
    text = "".join(found.words)
    assert "On toy, nothing is compared with even class counts yet; dqas bench --adaptive does that." in text
    assert "There are no pictures: nothing is compared with even class counts." in text
    assert len(found.table("Accuracies")) == 1 + 6


def test_verdicts_are_corrected_for_their_number() -> None:
    differences = [OPEN, BETTER, [0.010, 0.028, 0.022]]
    found = scored(differences)
    p = [stats.ttest_1samp(one, 0).pvalue for one in differences]
    order = np.argsort(p)
    corrected = np.maximum.accumulate([min(1.0, (3 - rank) * p[place]) for rank, place in enumerate(order)])
    assert [found[place].p for place in order] == pytest.approx(corrected.tolist())
    assert [one.verdict for one in found] == ["not better than uniform", "better than uniform", "not better than uniform"]


def test_an_interval_above_nothing_may_be_chance() -> None:
    rising = [0.02, 0.03, 0.04]
    [alone] = scored([rising])
    assert alone.against.low is not None
    assert alone.against.low > 0
    assert alone.verdict == "better than uniform"
    among = scored([rising, OPEN, OPEN])
    assert among[0].verdict == "not better than uniform"


def test_rows_with_fewer_seeds_are_named(read_page: Page) -> None:
    text = "".join(read_page.words)
    assert "Not every row has all seeds: graphcut at 10 %: 2 of 3." in text
    assert unfinished(section(toy_cells())) == []


def test_tables_hold_the_numbers(read_page: Page, report: Path) -> None:
    rows = read(report.parent)[0].rows
    heads, *lines = read_page.table("Accuracies")
    assert heads[:5] == ["method", "budget", "accuracy", "vs even", "vs random"]
    assert heads[-1] == "seeds"  # they are not the same everywhere
    for line, row in zip(lines, rows, strict=True):
        assert line[:3] == [row.name, f"{row.label} ({row.budget})", render.summary(row.accuracy)]
        assert line[3:5] == [render.difference(row.versus_uniform), render.difference(row.versus_random)]
    _, *verdicts = read_page.table("Verdicts")
    words = {one[0]: one[2] for one in verdicts}
    assert words["herding + adaptive + error-reduction"] == "▲ better"
    assert words["graphcut + adaptive + error-reduction"] == "○ no clear difference"


def test_classes_beside_each_other(read_page: Page) -> None:
    _, *lines = read_page.table("Classes: graphcut + adaptive + error-reduction at 5 %")
    cells = [cell for cell in digits_cells() if cell.method == "graphcut" and cell.label == "5 %"]
    for label, line in enumerate(lines):
        even, other = ([of_digits(cell) for cell in cells if bool(cell.variant) is added] for added in (False, True))
        counts = [np.mean([one["counts"][label] for one in some]) for some in (even, other)]
        accuracies = [[100 * one["accuracy"]["classes"][label] for one in some] for some in (even, other)]
        assert [float(one) for one in line[1:3]] == counts
        assert line[4:] == [f"{np.mean(one):.1f} ± {np.std(one, ddof=1):.1f}" for one in accuracies]


def test_classes_without_test_images_say_so(read_page: Page) -> None:
    hostile = [table for name, table in read_page.tables.items() if "Classes" in name and table[1][0] == HARM[0]]
    assert [line[4] for line in hostile[0][1:]] == ["50.0 ± 0.0", "no test images", "75.6 ± 7.9"]


def test_classes_that_moved_most() -> None:
    cells = toy_cells(dataset=replace(TOY, classes=6, class_names=()), ratios=[0.05], seeds=1)
    counts = {False: [10, 10, 10, 10, 10, 10], True: [11, 4, 10, 13, 5, 17]}
    [pair] = pairs(section(cells, lambda cell: result([0.5] * 6, counts[bool(cell.variant)], cell.key)))
    assert moved_most(pair, 3) == [1, 4, 5]
    assert moved_most(pair, 9) == [0, 1, 2, 3, 4, 5]


def test_pairs_are_of_the_same_settings() -> None:
    """Two rows may have one name and differ in what it does not tell: memory, here."""
    cells = toy_cells(ratios=[0.05], seeds=1)
    others = [replace(cell, max_memory=99) for cell in cells if cell.method != "random"]
    found = pairs(section([*cells, *others]))
    assert [one.even.cell.max_memory == one.other.cell.max_memory for one in found] == [True] * 2
    assert len({id(one.even) for one in found}) == 2


def test_sections_have_names_of_their_own() -> None:
    one = section(toy_cells())
    assert name_of(one, [one]) == "toy"
    paths = [replace(one, dataset=name, model=model) for name in ("parquet:/a/toy", "digits") for model in ("m", "n")]
    assert [name_of(each, paths) for each in paths] == ["toy, m", "toy, n", "digits, m", "digits, n"]
    modes = [replace(one, options={"modes": modes}) for modes in (4, 9)]
    assert [name_of(each, modes) for each in modes] == ["toy (modes=4)", "toy (modes=9)"]


def test_cost_counts_what_is_shared_once(tmp_path: Path) -> None:
    cells = toy_cells(ratios=[0.05])

    def make(cell: Cell) -> dict[str, Any]:
        shared = "same" if cell.seed == 0 else cell.key
        return result([0.5, 0.5], [1, 1], shared) | {"seconds": {"features": 100.0, "selection": 20.0, "training": 50.0}}

    folder = stored(tmp_path, cells, make)
    [part] = measured(folder, read(folder))
    # Nine cells; three of seed 0 share one training; features by seed, whatever the method.
    assert cost(part).startswith("9 training sets, of which 7 differ: 6 min of training, 3 min of choosing, and 5 min for")


def test_commands_and_versions_are_there(read_page: Page, report: Path) -> None:
    text = "".join(read_page.words)
    assert "dqas bench --dataset digits --method graphcut,herding --ratio 0.05,0.1 --seeds 3 --adaptive" in text
    assert str(report.parent) in text
    assert "3.12.1 (10 cells), 3.11.1 (19 cells)" in text


# --- that it is safe and whole ---------------------------------------------------------------------------------------------


def test_names_cannot_do_harm(read_page: Page, report: Path) -> None:
    names = [name for name, _ in read_page.elements]
    assert names.count("script") == 2
    assert "i" not in names
    assert all(str(found["src"]).startswith("data:image/png;base64,") for name, found in read_page.elements if name == "img")
    for name, found in read_page.elements:
        assert not any(key.startswith("on") or key == "style" for key in found), (name, found)
        assert str(found.get("href", "#")).startswith(("#", "data:,"))
    told = [name for name, found in read_page.tables.items() if "Classes" in name and found[1][0] == HARM[0]]
    assert [line[0] for line in read_page.tables[told[0]][1:]] == list(HARM)


def test_its_policy_allows_its_own_script_and_style_alone(read_page: Page, report: Path) -> None:
    [policy] = [
        str(found["content"]) for name, found in read_page.elements if found.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(one.split(" ", 1) for one in policy.split("; "))
    style = re.findall(r"<style>(.*?)</style>", report.read_text(encoding="utf-8"), re.DOTALL)
    for rule, text in (("script-src", read_page.scripts[-1]), ("style-src", style[0])):
        assert rules.pop(rule) == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert rules == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}


def test_links_lead_somewhere(read_page: Page) -> None:
    identities = [found["id"] for _, found in read_page.elements if "id" in found]
    assert len(identities) == len(set(identities))
    targets = [str(found["href"])[1:] for name, found in read_page.elements if name == "a"]
    assert len(targets) > 15
    assert set(targets) <= set(identities)


def test_data_of_the_curves(read_page: Page, report: Path) -> None:
    found = json.loads(read_page.scripts[0])
    first, second = found["table-1"], found["table-2"]
    assert [one["label"] for one in first["budgets"]] == ["5 %", "10 %"]
    rows = read(report.parent)[0].rows
    for series in first["series"]:
        mine = [row for row in rows if row.name == series["name"]]
        for point, row in zip(series["points"], mine, strict=True):
            assert row.accuracy is not None
            assert row.accuracy.std is not None
            middle, low, high, text = point["mean"]
            assert middle == pytest.approx(100 * row.accuracy.mean, abs=1e-3)
            assert (high - middle, middle - low) == pytest.approx([100 * row.accuracy.std] * 2, abs=2e-3)
            assert text == f"{render.summary(row.accuracy)} %"
            assert ("gain" in point) == (row.versus_uniform is not None)
    assert [one["name"] for one in second["series"]] == ["random", "graphcut", "graphcut + adaptive + error-reduction"]


def test_of_many_curves_the_first_methods_are_shown() -> None:
    one = section(toy_cells(["graphcut", "herding", "k-center", "cal", "craig", "margin"]))
    found = curves(one, judged(one))["series"]
    assert len(found) == 13
    assert [series["name"] for series in found if series["shown"] and "+" not in series["name"]] == [
        *("random", "graphcut", "herding", "k-center")
    ]
    assert sum(series["shown"] for series in found) == 7  # with what is added to them
    looks = {(series["colour"], series["shape"], series["dash"]) for series in found}
    assert len(looks) == len(found)


def test_equal_results_give_equal_pages(report: Path, tmp_path: Path) -> None:
    write(read(report.parent), report.parent, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == report.read_bytes()


def test_many_rows_and_classes_stay_small(tmp_path: Path) -> None:
    """The grid of Table 2 on 200 classes: bounded, and it says what it leaves out."""
    big = replace(TOY, images=100_000, classes=200, class_names=())
    methods = ["herding", "k-center", "grand", "cal", "craig", "glister", "entropy", "margin", "graphcut", "dq", "dqas"]
    cells = toy_cells(methods, dataset=replace(big, shape=(3, 64, 64)), ratios=[0.01, 0.05, 0.1, 0.2], seeds=1)
    rng = np.random.default_rng(0)
    found = written(tmp_path, cells, lambda cell: result(rng.random(200).tolist(), rng.integers(1, 9, 200).tolist(), cell.key))
    assert (tmp_path / "report.html").stat().st_size < 5e6
    assert "others are left out." in "".join(found.words)


def test_markup_escapes_all_but_itself() -> None:
    assert tag("a", {"title": '"<', "hidden": True, "id": None}, "<b>", Html("<i></i>")) == (
        '<a title="&quot;&lt;" hidden>&lt;b&gt;<i></i></a>'
    )
    assert together(["<", Html("<br>")], " & ") == "&lt; &amp; <br>"
    block = data_block("x", {"</script><!--": "&\u2028"})
    assert json.loads(re.sub("<[^>]*>", "", block)) == {"</script><!--": "&\u2028"}
    assert block.count("<") == 2


# --- the command -----------------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path) -> None:
    folder = stored(tmp_path / "results", [*toy_cells(), *toy_cells(dataset=replace(TOY, name="folder:/a/b", fingerprint="9"))])
    out = tmp_path / "new" / "page.html"
    done = CliRunner().invoke(cli, ["report", "--results", str(folder), "--dataset", "b", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(
        "On b, adaptive sampling is better than even counts in all 3 comparisons (+5.0 to +5.1 points)"
    )
    assert done.output.endswith(f"saved: {out}\n")
    text = out.read_text(encoding="utf-8")
    assert ">toy<" not in text
    again = CliRunner().invoke(cli, ["report", "--results", str(folder), "--dataset", "toy", "--out", str(out)])
    assert again.exit_code == 0, again.output
    assert ">toy<" in out.read_text(encoding="utf-8")  # replaced


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "report.pdf"], "the report is an HTML file; name it so"),
        (["--results", "nowhere"], "nowhere has no results: run dqas bench with --results nowhere first"),
        (["--dataset", "tou"], "unknown dataset in these results 'tou': did you mean 'toy'?"),
        (["--out", "results/results.sqlite/x.html"], "results.sqlite is a file; choose another folder"),
    ],
)
def test_mistakes_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    stored(tmp_path / "results", toy_cells())
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["report", "--results", "results", *arguments])
    assert done.exit_code == 2
    assert said in done.output
    assert [one.name for one in tmp_path.iterdir()] == ["results"]
