"""Figures: what is drawn, which rows are taken, what is said where some are missing, and files that are always the same."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from PIL import Image

from dqas_plugin import UserError
from dqas_plugin.bench import Cell, DatasetReference, Section
from dqas_plugin.bench.evidence import read
from dqas_plugin.bench.figures import FIGURES, figure, save
from dqas_plugin.bench.figures.canvas import Picture, lines_of
from evidence_problem import TOY, result, section, stored, toy_cells, usual

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "results"


def axes_of(picture: Picture) -> list[Axes]:
    return list(picture.drawn().axes)


def series(axes: Axes) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Of every set of points by its label: places, heights, and how far the bars of error reach up."""
    found = {}
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None:
            line, _, bars = container.lines
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
            ends = [one[1][1] if len(one) else np.nan for one in bars[0].get_segments()] if bars else None
            reach = None if ends is None else np.array(ends) - y
            found[str(container.get_label())] = (x, y, reach)
    return found


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    return 100 * float(np.mean(values)), 100 * float(np.std(values, ddof=1))


def drawn(name: str, table: Section, **options: Any) -> Picture:
    return figure(name, [table], FOLDER, **options)


# --- what is drawn -------------------------------------------------------------------------------------------------------


def test_figure_1_has_a_point_for_every_class_and_budget() -> None:
    picture = drawn("1", section(toy_cells()))
    [axes] = axes_of(picture)
    assert [one.get_text() for one in axes.get_xticklabels()] == ["cat", "dog"]
    points = series(axes)
    assert list(points) == ["5 %", "10 %", "20 %"]
    for budget, (x, y, reach) in zip((50, 100, 200), points.values(), strict=True):
        assert np.round(x).tolist() == [0, 1], "above the name of its class"
        dog = mean_and_spread([0.5 + budget / 1000 + seed / 100 for seed in range(3)])
        assert y == pytest.approx([100 * (0.8 + budget / 10_000), dog[0]])
        assert reach == pytest.approx([0, dog[1]], abs=1e-9)
    assert all(one < other for one, other in zip(points["5 %"][0], points["20 %"][0], strict=True)), "budgets rise to the right"
    assert picture.title == "Accuracy by class and budget: graphcut"


def test_figure_3_has_counts_as_bars_and_both_accuracies() -> None:
    picture = drawn("3", section(toy_cells()), ratio=0.1)
    above, below = axes_of(picture)
    even, adaptive = series(above).values()
    assert even[1] == pytest.approx([81.0, 61.0])
    assert adaptive[1] == pytest.approx([81.0, 71.1])
    assert adaptive[2] == pytest.approx([0, mean_and_spread([0.6, 0.611, 0.622])[1]], abs=1e-9)
    [bars] = [one for one in below.containers if isinstance(one, BarContainer)]
    assert [bar.get_height() for bar in bars] == [40, 60]
    assert all(bar.get_hatch() for bar in bars), "bars are told by more than colour"
    [level] = below.patches[2:]
    assert (level.get_data().values.tolist(), level.get_linestyle()) == ([50, 50], ":")  # type: ignore[attr-defined]
    assert [one.get_text() for one in below.get_xticklabels()] == ["cat", "dog"]
    assert picture.title == "Class counts and accuracies: graphcut + adaptive + error-reduction at 10 %"
    assert "+5.0 points [4.9, 5.2] against even counts: better than uniform." in picture.caption


def test_curves_have_a_line_for_every_row() -> None:
    table = section(toy_cells(["graphcut", "herding"]))
    [axes] = axes_of(drawn("curves", table))
    lines = series(axes)
    assert list(lines) == [row.name for row in table.rows[:5]]
    for name, (x, y, reach) in lines.items():
        rows = [row for row in table.rows if row.name == name]
        assert x == pytest.approx([50, 100, 200], rel=0.03), "moved by next to nothing"
        assert y == pytest.approx([100 * row.accuracy.mean for row in rows if row.accuracy])
        assert reach == pytest.approx([100 * row.accuracy.std for row in rows if row.accuracy and row.accuracy.std])
    assert [one.get_text() for one in axes.get_xticklabels()] == ["5 %", "10 %", "20 %"]


@pytest.mark.parametrize("count", [5, 40])
def test_curves_can_be_told_without_colour(count: int) -> None:
    """By marker and line: no two rows look alike once it is copied in grey."""
    cells = toy_cells(seeds=1)
    many = [replace(cell, method=f"{cell.method}-{number}") for number in range(count) for cell in cells[-2:] + cells[1:3]]
    rows = section([*cells, *many]).rows
    [axes] = axes_of(drawn("curves", replace(section(cells), rows=rows)))
    looks = [
        (line.get_marker(), line.get_linestyle(), line.get_markerfacecolor() == "white", to_rgb(line.get_color()))
        for container in axes.containers
        if isinstance(container, ErrorbarContainer) and (line := container.lines[0]) is not None
    ]
    assert len(set(looks)) == len(looks)
    if count == 5:
        assert len({look[:3] for look in looks}) == len(looks)


def test_what_is_added_to_a_method_is_told_by_the_line() -> None:
    [axes] = axes_of(drawn("curves", mixed(), methods=["herding"]))
    lines = [one.lines[0] for one in axes.containers if isinstance(one, ErrorbarContainer)]
    styles = [str(one._unscaled_dash_pattern) for one in lines if one is not None]  # type: ignore[attr-defined]
    assert len(set(styles)) == len(styles) == 5
    assert len({one.get_marker() for one in lines if one is not None}) == 1


def test_one_seed_has_no_bars_of_error() -> None:
    table = section(toy_cells(seeds=1))
    for name in FIGURES:
        picture = drawn(name, table)
        assert all(reach is None for axes in axes_of(picture) for *_, reach in series(axes).values())
        assert "standard deviation" not in picture.caption
    assert "one seed, no verdict" in drawn("3", table).caption


def test_a_class_without_test_images_has_no_point() -> None:
    table = section(toy_cells(), lambda cell: result([0.5, None], usual(cell)["counts"], cell.key))
    for name in ("1", "3"):
        for _, y, _ in series(axes_of(drawn(name, table))[0]).values():
            assert y[0] == pytest.approx(50)
            assert np.isnan(y[1])


def test_classes_without_names_have_numbers() -> None:
    nameless = replace(TOY, class_names=())
    table = section(toy_cells(dataset=nameless))
    assert [one.get_text() for one in axes_of(drawn("1", table))[0].get_xticklabels()] == ["0", "1"]


def test_many_classes_are_on_several_lines() -> None:
    many = DatasetReference("many", "4567", images=100_000, classes=60, mirror=False)
    table = section(
        toy_cells(dataset=many, seeds=2),
        lambda cell: result([0.01 * label for label in range(1, 61)], [cell.budget // 60] * 60, cell.key),
    )
    names = [[one.get_text() for one in axes.get_xticklabels()] for axes in axes_of(drawn("1", table))]
    assert [len(one) for one in names] == [20, 20, 20]
    assert list(chain.from_iterable(names)) == [str(label) for label in range(60)]
    assert len(axes_of(drawn("3", table))) == 6
    heights = np.concatenate([next(iter(series(axes).values()))[1] for axes in axes_of(drawn("1", table))])
    assert heights == pytest.approx(np.arange(1.0, 61))


@pytest.mark.parametrize("classes", [1, 10, 25, 26, 99, 1000])
def test_lines_hold_every_class_once(classes: int) -> None:
    lines = lines_of(classes)
    assert [label for one in lines for label in range(classes)[one]] == list(range(classes))
    assert max(len(range(classes)[one]) for one in lines) <= 25


@pytest.mark.parametrize("name", FIGURES)
def test_captions_say_how_it_was_measured(name: str) -> None:
    told = drawn(name, section(toy_cells())).caption
    assert "toy (1,000 images, 2 classes), convnet3-small, recipe quick, prior balanced, cpu, 3 seeds." in told
    assert "Test accuracy after the last epoch; mean and standard deviation over seeds." in told
    title, text = (one.get_text() for one in drawn(name, section(toy_cells())).drawn().texts)
    assert title == drawn(name, section(toy_cells())).title
    assert " ".join(text.split()) == " ".join(told.split())


def test_captions_say_what_is_unusual() -> None:
    cells = toy_cells()
    unfinished = section(cells[:-1])
    assert "Not all seeds are finished: points stand for 2 to 3 of them." in drawn("curves", unfinished).caption
    assert "Not all" not in drawn("curves", unfinished, methods=["random"]).caption
    best = replace(section(cells), epoch="best")
    assert "of the best epoch, which is chosen on test labels" in drawn("1", best).caption
    path = replace(section(cells), dataset="parquet:/somewhere/else/birds")
    assert "birds (1,000" in drawn("1", path).caption
    assert "somewhere" not in drawn("1", path).caption
    twice = section([*cells, *(replace(cell, refine_share=0.2) for cell in cells if cell.refiner)])
    assert {
        "graphcut + adaptive + error-reduction (refine share 0.1)",
        "graphcut + adaptive + error-reduction (refine share 0.2)",
    } < set(series(axes_of(drawn("curves", twice))[0]))


# --- which rows ----------------------------------------------------------------------------------------------------------


def mixed() -> Section:
    cells = toy_cells(["random", "graphcut", "herding"], allocators=["paper", "adaptive"], seeds=1)
    plain = [replace(cell, refiner=None) for cell in cells if cell.refiner and cell.method == "herding"]
    return section([*cells, *plain])


def test_the_first_rows_that_will_do_are_taken() -> None:
    assert drawn("1", mixed()).title.endswith(": graphcut")
    assert drawn("3", mixed()).title.endswith(": graphcut + adaptive + error-reduction at 20 %")
    only = section(toy_cells([], allocators=[], refiner=None))
    assert drawn("1", only).title.endswith(": random")


@pytest.mark.parametrize(
    ("name", "method", "title"),
    [
        ("1", "herding", ": herding"),
        ("1", "herding + adaptive", ": herding + adaptive"),
        ("3", "herding", ": herding + adaptive + error-reduction at 10 %"),
        ("3", "random", ": random + adaptive + error-reduction at 10 %"),
        ("3", "herding + adaptive", ": herding + adaptive at 10 %"),
        ("3", "graphcut + paper + error-reduction", ": graphcut + paper + error-reduction at 10 %"),
    ],
)
def test_a_method_is_named_as_in_the_table(name: str, method: str, title: str) -> None:
    options = {"aipc": 50} if name == "3" else {}
    assert drawn(name, mixed(), methods=[method], **options).title.endswith(title)


def test_curves_of_some_methods() -> None:
    [axes] = axes_of(drawn("curves", mixed(), methods=["herding + adaptive", "graphcut"]))
    assert list(series(axes)) == [
        *("herding + adaptive", "graphcut", "graphcut + paper + error-reduction", "graphcut + adaptive + error-reduction")
    ]


def test_a_method_in_two_ways_must_be_told_apart() -> None:
    cells = toy_cells(["bins"], seeds=1)
    table = section([*cells, *(replace(cell, method_options={"bins": 5}) for cell in cells if cell.method == "bins")])
    assert drawn("1", table, methods=["bins (bins=5)"]).title.endswith(": bins (bins=5)")
    assert drawn("1", table, methods=["bins"]).title.endswith(": bins"), "the name is a row of its own"
    renamed = section([replace(cell, method_options={"bins": 5}) if cell.method == "bins" else cell for cell in cells])
    assert drawn("1", renamed, methods=["bins"]).title.endswith(": bins (bins=5)")
    assert drawn("3", table, methods=["bins"], ratio=0.1).title.endswith(": bins + adaptive + error-reduction at 10 %")
    own = [cell for cell in cells if cell.method == "bins"]
    six = section([replace(cell, method_options={"bins": number}) for number in (5, 6) for cell in own])
    listed = "'bins (bins=5) + adaptive + error-reduction' or 'bins (bins=6) + adaptive + error-reduction'"
    with pytest.raises(UserError, match=re.escape(f"choose with --method {listed}")):
        drawn("3", six, methods=["bins"])
    with pytest.raises(UserError, match=re.escape("figure 1 shows one line, and several are called so")):
        drawn("1", six, methods=["bins"])


# --- what is missing -----------------------------------------------------------------------------------------------------


def complaint(name: str, table: Section, **options: Any) -> tuple[str, list[str]]:
    """What is said, and the words of the command in it."""
    with pytest.raises(UserError) as caught:
        drawn(name, table, **options)
    text = str(caught.value)
    assert "\n" not in text
    told, _, command = text.partition("run dqas bench ")
    return told, shlex.split(command)


def at(ratio: float) -> list[Cell]:
    return toy_cells(ratios=[ratio])


@pytest.mark.parametrize(("ratio", "other"), [(0.1, "0.2"), (0.6, "0.3")])
@pytest.mark.parametrize("name", ["1", "curves"])
def test_one_budget_is_not_enough(name: str, ratio: float, other: str) -> None:
    told, words = complaint(name, section(at(ratio)))
    assert f"two budgets, and there is {100 * ratio:.0f} % only" in told
    assert words[words.index("--ratio") + 1] == other
    assert words[words.index("--seeds") + 1] == "3"
    assert words[words.index("--results") + 1] == FOLDER


def test_adaptive_counts_are_missing() -> None:
    told, words = complaint("3", section(toy_cells(allocators=[], refiner=None)), methods=["graphcut"])
    assert told.startswith("figure 3 needs graphcut with adaptive class counts: ")
    assert "--adaptive" in words
    assert words[words.index("--method") + 1] == "graphcut"
    refined = section(toy_cells(allocators=[]))
    assert complaint("3", refined)[0].startswith("figure 3 needs graphcut with adaptive class counts: "), (
        "a refiner is not enough"
    )


def test_even_counts_are_missing() -> None:
    told, words = complaint("3", section([cell for cell in toy_cells() if cell.allocator == "adaptive"]))
    assert told.startswith("figure 3 needs graphcut with even class counts at 20 %: ")
    assert "--adaptive" not in words


def test_a_budget_is_missing() -> None:
    told, words = complaint("3", section(toy_cells()), ratio=0.3)
    assert "at 5 %, 10 %, 20 %, not at 30 %: choose one of these, or " in told
    assert (words[words.index("--ratio") + 1], "--adaptive" in words) == ("0.3", True)
    told, words = complaint("3", section(toy_cells()), aipc=7)
    assert "not at 7 a class" in told
    assert words[words.index("--aipc") + 1] == "7"


@pytest.mark.parametrize("name", FIGURES)
def test_a_method_is_missing(name: str) -> None:
    told, words = complaint(name, section(toy_cells()), methods=["grafcut"])
    assert "results has no results of 'grafcut' (did you mean 'graphcut'?): to measure it, " in told
    assert words[words.index("--method") + 1] == "grafcut"
    assert words[words.index("--ratio") + 1] == "0.05,0.1,0.2"


def test_wrong_options() -> None:
    table = section(toy_cells())
    for name, options, said in (
        ("2", {}, "unknown figure '2': choose one of 1, 3, curves"),
        ("curve", {}, "did you mean 'curves'?"),
        ("1", {"ratio": 0.1}, "leave them out"),
        ("curves", {"aipc": 3}, "leave them out"),
        ("3", {"aipc": 3, "ratio": 0.1}, "exclude each other"),
        ("3", {"methods": ["random", "graphcut"]}, "figure 3 shows one method, not random, graphcut"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            drawn(name, table, **options)
    with pytest.raises(UserError, match="has 2 tables \\(toy, convnet3-small, recipe quick; toy, resnet18, recipe quick\\)"):
        figure("1", [table, replace(table, model="resnet18")], FOLDER)


# --- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ending"), [("1", ".svg"), ("3", ".svg"), ("curves", ".svg"), ("3", ".png"), ("curves", ".pdf")]
)
def test_files_are_the_same_every_time(name: str, ending: str, tmp_path: Path) -> None:
    cells = toy_cells()
    stored(tmp_path / "results", cells)
    files = [tmp_path / f"{number}{ending}" for number in range(2)]
    for file in files:
        save(figure(name, read(tmp_path / "results"), tmp_path / "results"), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending]
    assert files[0].read_bytes().startswith(start)
    assert b"Date" not in files[0].read_bytes()
    assert b"matplotlib v" not in files[0].read_bytes().lower(), "another version would make another file"


def test_grey_copies_keep_every_mark(tmp_path: Path) -> None:
    """Neither points nor bars are so light that a copy in grey loses them."""
    save(drawn("1", section(toy_cells())), tmp_path / "1.png")
    for container in axes_of(drawn("1", section(toy_cells())))[0].containers:
        assert isinstance(container, ErrorbarContainer)
        line = container.lines[0]
        assert line is not None
        assert line.get_markeredgecolor() == "black"
    shades = [
        Image.new("RGB", (1, 1), tuple(round(255 * one) for one in to_rgb(container.lines[0].get_color())))
        .convert("L")
        .getpixel((0, 0))
        for container in axes_of(drawn("1", section(toy_cells())))[0].containers
        if isinstance(container, ErrorbarContainer) and container.lines[0] is not None
    ]
    assert all(int(one) - int(other) > 25 for one, other in pairwise(shades)), "from light to dark"


def test_settings_of_the_process_change_nothing_and_are_not_changed(tmp_path: Path) -> None:
    plain, wild = tmp_path / "plain.svg", tmp_path / "wild.svg"
    save(drawn("3", section(toy_cells())), plain)
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        save(drawn("3", section(toy_cells())), wild)
        assert mpl.rcParams["font.size"] == 20
        assert mpl.rcParams["svg.hashsalt"] == "other"
    assert plain.read_bytes() == wild.read_bytes()


def test_wrong_endings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for name in ("figure.jpg", "figure", "folder.png"):
        with pytest.raises(UserError, match=r"ends in \.png, \.svg or \.pdf"):
            save(drawn("1", section(toy_cells())), tmp_path / name)
    assert [one.name for one in tmp_path.iterdir()] == ["folder.png"]


# --- the command ---------------------------------------------------------------------------------------------------------


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program as a process of its own, which must not have loaded pyplot at its end."""
    code = (
        "import sys\nfrom dqas_cli.main import cli\n"
        "try: cli.main(sys.argv[1:], prog_name='dqas')\n"
        "finally: assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    path = os.pathsep.join(str(ROOT / one) for one in (".", "cli", "adapters"))
    own = {**os.environ, "PYTHONPATH": path}
    call = [sys.executable, "-c", code, "figure", *arguments]
    return subprocess.run(call, cwd=cwd, env=own, capture_output=True, text=True, check=False)


def test_the_command_writes_a_file(tmp_path: Path) -> None:
    stored(tmp_path / "dqas-results", toy_cells())
    done = run("1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Accuracy by class and budget: graphcut\nsaved: figure-1.png\n"), done.stderr
    with Image.open(tmp_path / "figure-1.png") as image:
        assert image.width == 1200


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dqas_cli.main import cli

    results = str(stored(tmp_path / "results", toy_cells(allocators=[], refiner=None)))
    for arguments, said in (
        (["2"], "unknown figure '2': choose one of 1, 3, curves"),
        (["1", "--out", str(tmp_path / "a.jpg")], "ends in .png, .svg or .pdf"),
        (["1", "--results", str(tmp_path / "nowhere")], "run dqas bench with --results"),
        (["3", "--results", results], "--adaptive"),
        (["1", "--results", results, "--dataset", "tow"], "did you mean 'toy'?"),
        (["1", "--results", results, "--method", "random,graphcut"], "figure 1 shows one method"),
    ):
        done = CliRunner().invoke(cli, ["figure", *arguments])
        assert done.exit_code == 2, done.output
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["results"]


def test_the_command_hands_every_option_on(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dqas_cli.main import cli

    other = [replace(cell, model="resnet18") for cell in toy_cells()]
    results = str(stored(tmp_path / "results", [*toy_cells(), *other]))
    wanted = ["--model", "resnet18", "--dataset", "toy", "--recipe", "quick", "--method", "random", "--ratio", "0.1"]
    done = CliRunner().invoke(cli, ["figure", "3", "--results", results, "--out", str(tmp_path / "a.svg"), *wanted])
    assert done.exit_code == 2
    assert "--method random --ratio 0.05,0.1,0.2" in done.stderr
    assert "--model resnet18" in done.stderr
    wanted[wanted.index("random")] = "graphcut"
    done = CliRunner().invoke(cli, ["figure", "3", "--results", results, "--out", str(tmp_path / "a.svg"), *wanted])
    assert done.stdout.startswith("Class counts and accuracies: graphcut + adaptive + error-reduction at 10 %\n"), done.stderr
    several = ["--method", "graphcut,random", "--out", str(tmp_path / "b.pdf")]
    assert CliRunner().invoke(cli, ["figure", "curves", "--results", results, *wanted[:6], *several]).exit_code == 0
    assert CliRunner().invoke(cli, ["figure", "1", "--results", results]).exit_code == 2, "two tables"
