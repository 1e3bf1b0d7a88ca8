"""Datasets that no textbook has, through the real commands: they work, or end in one sentence and status 2."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from dqas_plugin import Selection, load_dataset, select
from dqas_plugin.augment import Shifts, shift
from dqas_plugin.data import ImageDataset, at_once, by_class
from dqas_plugin.errors import UserError
from dqas_plugin.recipes import recipe
from dqas_plugin.told import visible
from dqas_plugin.training import outputs
from odd_problem import ALLOWED, FOLDERS, NASTY, OBEYED, classes, methods, outcome
from toys import toy

LIGHT = [name for name, odd in FOLDERS.items() if not odd.heavy]
EFFORT = {"repeats": 1, "directions": 1, "iterations": 1, "screen": 1, "finalists": 1, "confirm": 2}
SHORT = recipe("quick").with_(iterations=2, proxy_epochs=1, precision="fp32")


@pytest.mark.parametrize("name", LIGHT)
def test_an_odd_folder_works_or_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    odd, folder = FOLDERS[name], tmp_path / "images"
    odd.write(folder)
    few = [part for option, value in EFFORT.items() for part in ("--allocator-option", f"{option}={value}")]
    for number, more in enumerate([[], ["--adaptive", *few]]):
        out = tmp_path / f"{number}.npz"
        budget = ["--aipc", str(odd.aipc), "--out", str(out)]
        kind, said = outcome(["select", *odd.arguments(folder), *budget, *more])
        if odd.refused:
            assert (kind, odd.refused in said) == ("refused", True), said
            assert not out.exists()
        elif kind == "refused" and more:
            assert any(words in said for words in ALLOWED), said
        else:
            assert kind == "ok", said
            data = load_dataset(f"folder:{folder}", **odd.options).train
            chosen = Selection.load(out, data)
            assert len(set(chosen.indices)) == len(chosen) == odd.aipc * data.num_classes
            np.testing.assert_array_equal(np.bincount(data.labels[chosen.indices], minlength=data.num_classes), chosen.counts)
            assert (chosen.counts >= 1).all()
            told = " ".join(chosen.provenance["notes"])
            assert ("the same within all classes" in told) == (name in ("black", "identical")), told
            if name == "noise" or not more:  # after three steps a probe may well know nothing
                assert ("no better than chance" in told) == (name == "noise"), told


def images(counts: tuple[int, ...], kind: str) -> ImageDataset:
    """So many images of each class, all different, all black, or all alike within a class."""
    data = toy(counts)
    pixels = {"black": torch.zeros_like(data.images), "alike": data.images[:1].expand_as(data.images).contiguous()}
    return ImageDataset(pixels.get(kind, data.images), data.labels, data.classes, kind)


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize(("counts", "kind"), [((12,), "alike"), ((1, 12, 1), "black")])
def test_every_method_on_images_that_say_little(method: str, counts: tuple[int, ...], kind: str) -> None:
    data = images(counts, kind)
    options = {"bins": 1} if method.partition(":")[0] in ("bins", "dq", "dqas") else {}
    chosen = select(data, method, budget=2 * len(counts), recipe=SHORT, refiner="error-reduction", refine_share=0.2, **options)
    assert len(set(chosen.indices)) == 2 * len(counts)
    assert (chosen.counts >= 1).all()
    assert chosen.weights is None or np.isfinite(chosen.weights).all()


def test_a_class_of_one_image_cannot_be_measured_but_can_be_chosen() -> None:
    data = images((1, 12, 1), "singles")
    assert select(data, "random", budget=6, allocator="proportional", recipe=SHORT).counts.tolist() == [1, 4, 1]
    with pytest.raises(UserError, match=r"class 0 has 1 images, too few to hold some out .*add images to it"):
        select(data, "random", budget=6, allocator="adaptive", recipe=SHORT)


def test_two_hundred_classes() -> None:
    data = toy((2,) * 200)
    chosen = select(data, "graphcut", budget=300, refiner="error-reduction", recipe=SHORT)
    assert len(set(chosen.indices)) == 300
    assert (chosen.counts >= 1).all()


def test_by_class_is_where_each_label_is() -> None:
    labels = np.random.default_rng(0).integers(0, 6, 50)
    labels[labels == 3] = 2  # a class without samples
    for label, found in enumerate(by_class(labels, 7)):
        assert found.tolist() == np.flatnonzero(labels == label).tolist()


# --- large images ------------------------------------------------------------------------------------------------------------


def test_few_large_images_are_handled_at_once() -> None:
    assert at_once((3, 32, 32), 8192, 2**28) == 8192
    assert at_once((3, 512, 512), 8192, 2**28) * 3 * 512 * 512 <= 2**28
    assert at_once((3, 10**5, 10**5), 8192, 2**28) == 1


def test_large_images_are_evaluated_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from dqas_plugin.models import convnet3_small

    network = convnet3_small((1, 8, 8), 3)
    data = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
    (whole,) = outputs(network, data)
    monkeypatch.setattr("dqas_plugin.training._EVALUATED_PIXELS", 8 * 8 * 7)
    parts = list(outputs(network, data))
    assert [len(one) for one, _ in parts] == [7] * 7 + [1]
    torch.testing.assert_close(torch.cat([one for _, one in parts]), whole[1])


def test_large_images_are_moved_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    draws = torch.Generator().manual_seed(0)
    moves = Shifts(*(torch.randint(-3, 4, (20,), generator=draws) for _ in range(2)), torch.arange(20) % 2 == 0)
    expected = shift(pixels, moves)
    monkeypatch.setattr("dqas_plugin.augment._PIXELS", 16 * 16 * 3)
    assert torch.equal(shift(pixels, moves), expected)


# --- names -------------------------------------------------------------------------------------------------------------------


def test_visible_names() -> None:
    assert visible("naïve 日本語 👩‍🔬 a\u00a0b") == "naïve 日本語 👩‍🔬 a\u00a0b"
    assert visible("a\nb\r\t\x1b[31m\x07\u202e\u2028\ud800") == r"a\nb\r\t\x1b[31m\x07\u202e\u2028\ud800"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a bench on classes of nasty names, at two budgets."""
    folder = tmp_path_factory.mktemp("names")
    FOLDERS["names"].write(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQAS_CACHE", str(folder / "cache"))
        (folder / "cache").mkdir()
        grid = ["--aipc", "2,3", "--seeds", "1", "--jobs", "1", "--results", str(folder / "results"), "--method", "graphcut"]
        kind, said = outcome(["bench", *FOLDERS["names"].arguments(folder / "images"), *grid])
    assert kind == "ok", said
    return folder / "results"


def written(results: Path, form: str, table: str = "1") -> str:
    kind, text = outcome(["table", table, "--results", str(results), "--format", form])
    assert kind == "ok", text
    return text


@pytest.mark.parametrize("form", ["plain", "md", "latex", "csv", "html"])
@pytest.mark.parametrize("table", ["1", "2", "3", "4", "5"])
def test_tables_print_nothing_that_is_obeyed(results: Path, form: str, table: str) -> None:
    text = written(results, form, table)
    assert not set(OBEYED) & set(text)


def test_markdown_of_nasty_names(results: Path) -> None:
    text = written(results, "md")
    rows = [one for one in text.splitlines() if one.startswith("| ")]
    widths = {len(re.findall(r"(?<!\\)\|", one)) for one in rows}
    assert len(widths) == 1, widths
    for bad in ("<script", "a|b", "](x)", "\nbreak"):
        assert bad not in text.replace("\\<", "")
    assert r"a\|b" in text


def test_latex_of_nasty_names(results: Path) -> None:
    text = written(results, "latex")
    assert r"50\%\_\$\&\#\{\}\textasciitilde{}\textasciicircum{}" in text
    assert r"\textbackslash{}input\{x\}" in text
    assert r"\input" not in text
    assert "(U+65E5)" in text


def test_csv_of_nasty_names(results: Path) -> None:
    rows = list(csv.reader(io.StringIO(written(results, "csv"))))
    assert len({len(one) for one in rows}) == 1
    cells = [cell for row in rows for cell in row]
    assert any("HYPERLINK" in one for one in cells)
    for cell in cells:
        number = re.fullmatch(r"[-+]?[\d.]+(e-?\d+)?", cell)
        assert number or cell[:1] not in "=+-@" or not cell, cell


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_of_nasty_names(results: Path, tmp_path: Path) -> None:
    parsed = _Tags()
    parsed.feed(written(results, "html"))
    assert "script" not in parsed.tags
    for name in NASTY:
        assert visible(name) in parsed.text
    kind, said = outcome(["report", "--results", str(results), "--out", str(tmp_path / "report.html")])
    assert kind == "ok", said
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert not set(OBEYED) & set(page)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_figure_of_nasty_names(results: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"figure.{ending}"
    kind, said = outcome(["figure", "1", "--results", str(results), "--out", str(out)])
    assert kind == "ok", said
    assert out.stat().st_size > 1000


def test_bench_shows_that_a_network_learnt_nothing(tmp_path: Path) -> None:
    odd = FOLDERS["noise"]
    odd.write(tmp_path / "noise")
    grid = ["--aipc", "3", "--seeds", "1", "--jobs", "1", "--results", str(tmp_path / "r"), "--method", "margin"]
    for _ in range(2):  # the second time from what is stored
        kind, said = outcome(["bench", *odd.arguments(tmp_path / "noise"), *grid])
        assert kind == "ok", said
        assert re.search(r"note: the network that 'margin' reads is no better than chance .*\(1 of 2 cells\)", said), said


def test_a_name_that_ends_in_an_error_is_written_out(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    classes((2, 2), ("good", NASTY[6]))(folder)
    for file in (folder / "train" / NASTY[6]).iterdir():
        file.unlink()
    kind, said = outcome(["select", "--dataset", f"folder:{folder}", "--aipc", "1", "--out", str(tmp_path / "s.npz")])
    assert kind == "refused", said
    assert r"\x1b[31mred\x07 has no images" in said
