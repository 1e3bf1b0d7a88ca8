"""The report in a real browser: it loads without a complaint, sorts, draws, and can be used on a phone and by keyboard."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import Browser, browser, missing
from dqas_plugin.bench import render
from dqas_plugin.bench.evidence import read
from dqas_plugin.bench.table import Row

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there is a browser")

TABLE = "#table-1-accuracies table"
CURVES = "figure[data-curves=table-1]"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def shown(window: Browser, report: Path) -> Browser:
    """The report as it looks when it is opened, in a window of a usual size."""
    window.resize(1280, 900)
    window.open(report)
    return window


@pytest.fixture(scope="module")
def rows(report: Path) -> tuple[Row, ...]:
    return read(report.parent)[0].rows


def column(window: Browser, place: int, table: str = TABLE) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(row => row.cells[arguments[1]].textContent)"
    found: list[str] = window.run(script, table, place)
    return found


def sorts(window: Browser) -> list[str]:
    found: list[str] = window.run(f"return [...document.querySelectorAll('{TABLE} th[aria-sort]')].map(one => one.ariaSort)")
    return found


def head(window: Browser, place: int) -> str:
    return window.find(f"{TABLE} thead th:nth-child({place + 1}) button")


def complaints(window: Browser) -> list[str]:
    return [one["message"] for one in window.log("browser")]


def attribute(window: Browser, selector: str, name: str) -> list[Any]:
    script = "return [...document.querySelectorAll(arguments[0])].map(one => one.getAttribute(arguments[1]))"
    found: list[Any] = window.run(script, selector, name)
    return found


def tip(window: Browser) -> str | None:
    found: str | None = window.run(
        f"const tip = document.querySelector('{CURVES} .tip'); return tip.hidden ? null : tip.innerText"
    )
    return found


def test_loads_in_silence_and_asks_for_nothing(window: Browser, report: Path) -> None:
    complaints(window)
    window.requests()
    window.open(report)
    assert complaints(window) == []
    asked = [one for one in window.requests() if not one.startswith("data:")]
    assert {one.partition("#")[0] for one in asked} == {report.as_uri()}
    assert window.run("return document.querySelectorAll('svg .point').length") > 10  # the script went to its end
    assert window.run("return typeof window.harm") == "undefined"


def test_complaints_and_requests_would_be_seen(window: Browser, report: Path, tmp_path: Path) -> None:
    """The page with a script and a picture that it must not have: both are refused, and the tests above would fail."""
    bad = tmp_path / "bad.html"
    more = "<script>window.harm = 3</script><img src='http://127.0.0.1:9/x.png'>"
    bad.write_text(report.read_text().replace("<main>", f"<main>{more}", 1))
    complaints(window)
    window.open(bad)
    said = complaints(window)
    assert sum("Content Security Policy" in one for one in said) == 2, said
    assert window.run("return typeof window.harm") == "undefined"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'>")
    window.open(bad)
    assert "http://127.0.0.1:9/x.png" in window.requests()
    complaints(window)


def test_a_click_on_a_head_sorts(shown: Browser, rows: tuple[Row, ...]) -> None:
    accuracies = [row.accuracy.mean for row in rows if row.accuracy is not None]
    before = column(shown, 2)
    assert before == [render.summary(row.accuracy) for row in rows]
    shown.click(head(shown, 2))
    fallen = sorted(zip(accuracies, before, strict=True), key=lambda one: -one[0])
    assert column(shown, 2) == [text for _, text in fallen]
    assert fallen != list(zip(accuracies, before, strict=True))
    assert sorts(shown)[2] == "descending"
    shown.click(head(shown, 2))
    assert column(shown, 2) == [text for _, text in sorted(zip(accuracies, before, strict=True), key=lambda one: one[0])]
    assert sorts(shown) == ["none"] * 2 + ["ascending"] + ["none"] * (len(sorts(shown)) - 3)


def test_what_has_no_number_stays_last(shown: Browser, rows: tuple[Row, ...]) -> None:
    known = [row.versus_uniform.mean for row in rows if row.versus_uniform is not None]
    missing_ = [""] * (len(rows) - len(known))
    for sign in (-1, 1):
        shown.click(head(shown, 3))
        found = column(shown, 3)
        assert found[len(known) :] == missing_
        means = [float(one.split()[0]) for one in found[: len(known)]]
        assert means == pytest.approx(sorted((100 * one for one in known), key=lambda one: sign * one), abs=0.051)


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_heads_sort_by_keyboard(shown: Browser, rows: tuple[Row, ...], key: str) -> None:
    shown.focus(head(shown, 0))
    shown.press(key)
    names = [row.name for row in rows]
    assert column(shown, 0) == sorted(names) != names
    shown.press("Tab", key)
    budgets = sorted((row.budget for row in rows), reverse=True)
    assert [int(re.findall(r"\((\d+)\)", one)[0]) for one in column(shown, 1)] == budgets
    assert sorts(shown)[:2] == ["none", "descending"]


def test_legend_hides_and_shows_by_keyboard(shown: Browser) -> None:
    lines = f"return document.querySelectorAll('{CURVES} g.series').length"
    names = shown.run(f"return [...document.querySelectorAll('{CURVES} .legend button')].map(one => one.textContent)")
    assert names == [
        "random",
        "graphcut",
        "graphcut + adaptive + error-reduction",
        "herding",
        "herding + adaptive + error-reduction",
    ]
    assert shown.run(lines) == len(names)
    shown.focus(shown.find(f"{CURVES} .legend button:nth-child(2)"))
    shown.press("Space")
    assert attribute(shown, f"{CURVES} .legend button", "aria-pressed") == ["true", "false", "true", "true", "true"]
    assert shown.run(lines) == len(names) - 1
    labels = attribute(shown, f"{CURVES} .point", "aria-label")
    assert not any(one.startswith("graphcut at") for one in labels)
    shown.press("Enter")
    assert shown.run(lines) == len(names)
    shown.focus(shown.find(f"{CURVES} .choices button:last-child"))
    shown.press("Enter")
    assert shown.run(lines) == 0


def test_points_tell_their_values(shown: Browser, rows: tuple[Row, ...]) -> None:
    random, graphcut = rows[0], rows[1]
    shown.focus(shown.find(f"{CURVES} .point[tabindex='0']"))
    told = tip(shown)
    assert told is not None
    assert told.split("\n") == ["random", f"5 %: {render.summary(random.accuracy)} %, 3 seeds"]
    shown.press("Down")
    assert (tip(shown) or "").split("\n") == ["graphcut", f"5 %: {render.summary(graphcut.accuracy)} %, 3 seeds"]
    shown.press("Right")
    later = next(row for row in rows if row.name == "graphcut" and row.label == "10 %")
    assert (tip(shown) or "").split("\n") == ["graphcut", f"10 %: {render.summary(later.accuracy)} %, 2 seeds"]
    assert attribute(shown, f"{CURVES} .point[tabindex='0']", "data-x") == ["1"]  # one stop for the whole picture
    shown.run("document.activeElement.blur()")
    assert tip(shown) is None
    shown.hover(shown.find(f"{CURVES} g.series:last-of-type .point:last-child .catch"))
    assert (tip(shown) or "").startswith(rows[-1].name)


def test_points_stand_where_their_values_are(shown: Browser, rows: tuple[Row, ...]) -> None:
    """Heights of points are a straight line of their accuracies, falling."""
    heights = shown.run(f"return [...document.querySelectorAll('{CURVES} .catch')].map(one => Number(one.getAttribute('cy')))")
    names = list(dict.fromkeys(row.name for row in rows))
    values = [row.accuracy.mean for name in names for row in rows if row.name == name and row.accuracy is not None]
    slope, offset = np.polyfit(values, heights, 1)
    assert slope < -100
    assert heights == pytest.approx((slope * np.array(values) + offset).tolist(), abs=0.2)


def test_other_measures(shown: Browser, rows: tuple[Row, ...]) -> None:
    shown.run(
        f"const one = document.querySelector('{CURVES} select'); one.value = 'gain'; one.dispatchEvent(new Event('change'))"
    )
    compared = [row for row in rows if row.versus_uniform is not None]
    labels = attribute(shown, f"{CURVES} .point", "aria-label")
    assert len(labels) == len(compared)
    texts = [f"{row.name} at {row.label}: {render.difference(row.versus_uniform)} points" for row in compared]
    assert sorted(one.partition(", ")[0] for one in labels) == sorted(text.partition(", ")[0] for text in texts)


def test_one_panel_of_classes_at_a_time(shown: Browser) -> None:
    visible = (
        "return [...document.querySelectorAll('#table-1-classes .panel')].filter(one => one.offsetHeight).map(one => one.id)"
    )
    assert shown.run(visible) == ["table-1-class-0"]
    shown.focus(shown.find("#table-1-classes select"))
    shown.press("Down")
    assert shown.run(visible) == ["table-1-class-1"]


@pytest.mark.parametrize("width", [320, 375, 700, 1000, 1280])
def test_the_page_does_not_scroll_sideways(shown: Browser, width: int) -> None:
    shown.resize(width, 812)
    assert shown.run("return window.innerWidth") == width
    assert shown.run("return document.documentElement.scrollWidth") <= width
    if width < 800:  # tables do, in their own boxes
        assert shown.run("return [...document.querySelectorAll('main .scroll')].some(one => one.scrollWidth > one.clientWidth)")
    drawn = shown.run(f"return document.querySelector('{CURVES} .plot svg').getBoundingClientRect().right")
    assert drawn <= width


def test_everything_can_be_reached_by_tab(shown: Browser) -> None:
    shown.press("Tab")
    assert shown.run("return document.activeElement.textContent") == "Skip to the summary"
    shown.press("Enter")
    assert shown.run("return location.hash") == "#summary"
    reached = set()
    for _ in range(120):
        shown.press("Tab")
        name = "const one = document.activeElement; return one.tagName + ' ' + (one.getAttribute('class') ?? '')"
        reached.add(shown.run(name).strip())
    assert {"BUTTON", "SELECT", "g point", "DIV scroll", "PRE"} <= reached, reached


@pytest.mark.parametrize("dark", [False, True])
def test_a_picture_of_it_is_not_blank(shown: Browser, dark: bool) -> None:
    shown.resize(1280, 900, dark)
    shown.run("document.querySelector('figure.curves').scrollIntoView({behavior: 'instant'})")
    pixels = np.asarray(Image.open(io.BytesIO(shown.screenshot())).convert("RGB")).astype(int)
    assert pixels.shape == (900, 1280, 3)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    assert (ground.mean() < 60) == dark
    differ = np.abs(pixels - ground).max(axis=2) > 60
    assert 0.01 < differ.mean() < 0.5
    plot = shown.run("const box = document.querySelector('.plot svg').getBoundingClientRect(); return [box.top, box.bottom]")
    inside = pixels[max(0, int(plot[0])) : int(plot[1])].reshape(-1, 3)
    coloured = inside.max(axis=1) - inside.min(axis=1) > 80
    assert coloured.sum() > 500  # lines and points


def test_without_a_script_all_is_there(window: Browser, report: Path) -> None:
    window.scripts(False)
    try:
        window.open(report)
        text = window.run("return document.body.innerText")
    finally:
        window.scripts(True)
    assert "The curves are drawn by a script; the same numbers are in the tables." in text
    assert text.count("Images a class, mean over seeds") == 5  # every panel: four of digits, one of the toy
    assert "\nShow " not in text
