"""Many results and long grids: the figures kept beside results are those of the results, and nothing grows that should not."""

from __future__ import annotations

import copy
import math
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqas_plugin import logistic
from dqas_plugin.bench import Cell, Lines, Row, Section, Store, evidence, kept_figures, tables, tabulate
from dqas_plugin.bench.layout import render
from dqas_plugin.bench.statistics import paired_difference, paired_differences, summaries, summarise
from dqas_plugin.errors import UserError
from dqas_plugin.refinement import expected_error_change, last_layer
from dqas_plugin.scores import class_scores, scores_of_parts
from load_problem import dataset, fill, many_tables, one_table, result, results_of, write
from load_steps import FAILING, IDLE, Usage, Watch, overhead

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process holds")


# --- what tables show --------------------------------------------------------------------------------------------------------


def odd_results(seed: int) -> list[tuple[Cell, dict[str, Any]]]:
    """Cells of several tables in a random order, with all that results may have: classes without test images, other names
    and labels of the same thing, steps without times, seeds that are missing here and there."""
    draws = np.random.default_rng(seed)
    cells = [*many_tables(400, seeds=3), *one_table(300, methods=("random", "graphcut", "margin"))]
    found = []
    for number in draws.permutation(len(cells))[: int(draws.integers(100, 300))]:
        cell = cells[number]
        made = result(cell, np.random.default_rng(int(number)))
        if cell.dataset.name.endswith("1"):
            for one in ("accuracy", "best"):
                made[one]["classes"][int(number) % 3] = None
        if draws.random() < 0.1:
            cell = replace(cell, label="as many", dataset=replace(cell.dataset, name=f"{cell.dataset.name}/", root="/data"))
        if draws.random() < 0.2:
            del made["seconds"]["refinement"]
        found.append((cell, made))
    return found


def literal(folder: Path, best: bool) -> list[Section]:
    """Every cell is read, and then put into tables."""
    with Store.existing(folder) as store:
        found = list(store.cells())
    results = {cell.key: result for cell, result in found}
    return tabulate([cell for cell, _ in found], results, "best" if best else "last")


def content(row: Row) -> dict[str, Any]:
    """All that a row shows."""
    told = [name for name, one in vars(Row).items() if isinstance(one, property | cached_property) and name != "class_scores"]
    return {name: getattr(row, name) for name in ("cell", "planned", *told)} | {"class scores": row.class_scores.tolist()}


def as_text(sections: list[Section], folder: Path) -> str:
    built = [table for number in tables.TABLES for table in tables.build(number, sections, folder)]
    return render(built, "csv", 200) + render(built, "md", 200)


@pytest.mark.parametrize("seed", range(3))
def test_kept_figures_are_those_of_the_results(seed: int, tmp_path: Path) -> None:
    write(tmp_path, odd_results(seed))
    with Store.existing(tmp_path) as store:
        assert store.has_figures
    for best in (False, True):
        quick, slow = evidence.read(tmp_path, best_epoch=best), literal(tmp_path, best)
        assert len(quick) > 2
        for ours, theirs in zip(quick, slow, strict=True):
            assert replace(ours, rows=()) == replace(theirs, rows=())
            np.testing.assert_equal([content(row) for row in ours.rows], [content(row) for row in theirs.rows])
    assert as_text(quick, tmp_path) == as_text(slow, tmp_path)


def test_kept_figures_by_hand(tmp_path: Path) -> None:
    cells = one_table(3, methods=("random",), budgets=1)
    made = [result(cell, np.random.default_rng(cell.seed)) for cell in cells]
    del made[1]["seconds"]["selection"]
    made[2]["best"]["classes"][4] = None
    write(tmp_path, zip(cells, made, strict=True))
    [row] = [one for one in evidence.read(tmp_path, best_epoch=True)[0].rows if not one.variant]
    count = len(row.seeds)
    shown = made[:count]
    assert row.accuracy is not None
    assert row.accuracy.mean == pytest.approx(sum(one["best"]["mean"] for one in shown) / count)
    assert row.seconds["selection"] == pytest.approx(sum(one["seconds"].get("selection", 0) for one in shown) / count)
    assert (row.fewest, row.most) == (min(min(one["counts"]) for one in shown), max(max(one["counts"]) for one in shown))
    for label, summary in enumerate(row.classes):
        known = [one["best"]["classes"][label] for one in shown if one["best"]["classes"][label] is not None]
        assert summary == summarise(known)


def test_a_result_that_is_made_again_replaces_its_figures(tmp_path: Path) -> None:
    [*first, last] = one_table(8, methods=("random", "graphcut"))
    renamed = replace(last, recipe=replace(last.recipe, name="of my own"))  # the same cell, in another table
    assert renamed.key == last.key
    with Store(tmp_path) as store:
        for cell in (*first, last, *first, renamed, last, renamed):
            store.add_cell(cell, result(cell, np.random.default_rng(store._database.total_changes)))
    quick, slow = evidence.read(tmp_path), literal(tmp_path, best=False)
    assert [one.recipe for one in quick] == ["quick", "of my own"]
    assert as_text(quick, tmp_path) == as_text(slow, tmp_path)
    assert len(kept(tmp_path, "figures")) == len(kept(tmp_path, "class_figures")) == 8


def kept(folder: Path, table: str) -> list[Any]:
    database = sqlite3.connect(folder / "results.sqlite")
    try:
        return database.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        database.close()


def without_figures(folder: Path) -> None:
    """As an older version left it."""
    database = sqlite3.connect(folder / "results.sqlite")
    for table in ("figures", "class_figures", "lines"):
        database.execute(f"DROP TABLE {table}")
    database.close()


def test_a_file_of_an_older_version(tmp_path: Path) -> None:
    """It is read by its results, and gets its figures when it is written to."""
    fill(tmp_path, one_table(60))
    expected = as_text(evidence.read(tmp_path), tmp_path)
    without_figures(tmp_path)
    assert as_text(evidence.read(tmp_path), tmp_path) == expected
    with Store(tmp_path) as store:
        assert store.has_figures
    assert len(kept(tmp_path, "figures")) == 60
    assert as_text(evidence.read(tmp_path), tmp_path) == expected


def test_figures_and_result_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [cell, other, *_] = one_table(4)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with Store(tmp_path) as store:
        store.add_cell(cell, result(cell, np.random.default_rng(0)))
        monkeypatch.setattr(kept_figures, "keep", cut)
        with pytest.raises(KeyboardInterrupt):
            store.add_cell(other, result(other, np.random.default_rng(0)))
        monkeypatch.undo()
        assert store.result(other) is None
        assert store.has_figures
        store.add_cell(other, result(other, np.random.default_rng(0)))
        assert store.result(other) is not None


@pytest.mark.parametrize("which", ["seed = 1", "id < 20", "1"])
def test_results_removed_while_they_are_read(which: str, tmp_path: Path) -> None:
    fill(tmp_path, one_table(40, methods=("random",)))
    [section] = evidence.read(tmp_path)
    database = sqlite3.connect(tmp_path / "results.sqlite")
    database.execute(f"DELETE FROM figures WHERE {which}")
    database.commit()
    database.close()
    with pytest.raises(UserError, match="removed while they were read"):
        _ = section.rows[0].classes


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("UPDATE figures SET numbers = x'00'", 2),
        ("UPDATE figures SET numbers = 'text of no use' || hex(numbers)", 2),
        ("UPDATE figures SET numbers = replace(numbers, numbers, zeroblob(104) || x'000000000000F07F')", 2),
        ("UPDATE figures SET seed = 'one'", 2),
        ("UPDATE figures SET training = x'01'", 3),
        ("UPDATE figures SET key = key || '!'", 2),
        ("UPDATE class_figures SET last = x'00'", 1),
        ("UPDATE class_figures SET last = 7", 1),
        ("DROP TABLE figures; CREATE TABLE figures AS SELECT key FROM cells", 2),
    ],
)
def test_damaged_figures(change: str, table: int, tmp_path: Path) -> None:
    fill(tmp_path, one_table(40, methods=("random", "graphcut")))
    database = sqlite3.connect(tmp_path / "results.sqlite")
    database.executescript(change)
    database.close()
    with pytest.raises(UserError, match="is damaged"):
        tables.build(table, evidence.read(tmp_path), tmp_path)


def test_reading_figures_is_quicker_by_far(tmp_path: Path) -> None:
    """The measure is processor time: other programs do not decide it. In truth it is forty times."""
    fill(tmp_path, one_table(1000, classes=100, methods=("random", "graphcut"), budgets=1))

    def seconds(read: Callable[[], list[Section]]) -> float:
        started = time.process_time()
        read()
        return time.process_time() - started

    quick = min(seconds(lambda: evidence.read(tmp_path)) for _ in range(2))
    assert 8 * quick < seconds(lambda: literal(tmp_path, best=False))


def test_one_table_of_many_reads_its_own_part(tmp_path: Path) -> None:
    fill(tmp_path, many_tables(600, seeds=2))
    with Store.existing(tmp_path) as store:
        asked: list[str] = []
        store._database.set_trace_callback(asked.append)
        [(part, first), *others] = store.parts()
        ways = store.ways(part)
        assert len(others) >= 3
    assert sum(len(one.seeds) for one, _ in ways) < 300
    assert first.key == ways[0][1].key
    assert len(asked) < 10
    [section] = evidence.read(tmp_path, dataset="set-1", recipe="fast")
    assert {row.cell.dataset.name for row in section.rows} == {"folder:/data/set-1"}


def test_stored_cells_are_looked_up_many_at_a_time(tmp_path: Path) -> None:
    cells = one_table(1200)
    fill(tmp_path, cells[:1100])
    with Store.existing(tmp_path) as store:
        asked: list[str] = []
        store._database.set_trace_callback(asked.append)
        found = store.results(cells)
        assert list(found) == [cell.key for cell in cells[:1100]]
        assert store.stored(cells) == found.keys()
        assert len(asked) <= 6
        assert found == {cell.key: made for cell, made in results_of(cells[:1100])}


def test_commands_for_what_is_missing_cost_little(tmp_path: Path) -> None:
    """They were made of a cell for each missing seed: hundreds of thousands beside a table of thousands of seeds."""
    fill(tmp_path, one_table(80, methods=("random", "graphcut"), budgets=1))
    [section] = evidence.read(tmp_path)
    many = replace(section, seeds=tuple(range(100_000)))
    started = time.process_time()
    [table] = tables.build(2, [many], tmp_path)
    assert time.process_time() - started < 5
    assert any("--seeds 100000" in line for line in table.commands)


# --- statistics of many seeds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 2, 5, 200])
@pytest.mark.parametrize("gaps", [False, True])
def test_columns_are_summarised_as_one_by_one(seeds: int, gaps: bool) -> None:
    draws = np.random.default_rng(seeds)
    values = draws.random((seeds, 7))
    values[:, 3] = 0.5
    if gaps:
        values[draws.random(values.shape) < 0.3] = np.nan
        values[:, 5] = np.nan
    columns = [[one for one in column if not math.isnan(one)] for column in values.T.tolist()]
    for ours, column in zip(summaries(values), columns, strict=True):
        same(ours, summarise(column))
    zeros = [dict.fromkeys(range(len(column)), 0.0) for column in columns]
    for difference, column, zero in zip(paired_differences(values), columns, zeros, strict=True):
        same(difference, paired_difference(dict(enumerate(column)), zero))


def same(ours: Any, theirs: Any) -> None:
    assert (ours is None) == (theirs is None)
    if ours is not None:
        for name, value in vars(theirs).items():
            assert getattr(ours, name) == (value if value is None else pytest.approx(value, rel=1e-9, abs=1e-14)), name


# --- a long grid -------------------------------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("kind", ["nothing", "failing"])
def test_a_long_grid_costs_little_and_grows_by_its_results_alone(kind: str, tmp_path: Path) -> None:
    cells = one_table(400, budgets=2)
    watch = Watch(every=100)
    steps = IDLE if kind == "nothing" else FAILING
    found = overhead(cells, tmp_path, steps, reporter=watch, finished=lambda *_: None)
    assert found.processor < 50
    [_, (_, before, _), *_, (done, after, _)] = watch.seen
    assert done == len(cells)
    assert after.files <= before.files + 1
    assert after.memory < before.memory + 15
    outcome = found.outcome
    if kind == "failing":
        logs = list((tmp_path / "failures").iterdir())
        assert {one.log for one in outcome.failures} == set(logs)
        assert len(logs) == len(cells)
        assert "came to nothing" in logs[0].read_text(encoding="utf-8")
    else:
        assert len(outcome.results) == len(cells)


def test_lines_of_a_thousand_failures_are_one_each() -> None:
    class Text:
        lines = 0

        def write(self, text: str) -> None:
            self.lines += text.count("\n")

        def flush(self) -> None: ...

    text: Any = Text()
    lines = Lines(text)
    lines.begin(1000, 0)
    for cell in one_table(1000):
        lines.failed(cell, ValueError("one\ntwo"))
    assert text.lines == 1000


@linux
def test_usage_sees_what_grows(tmp_path: Path) -> None:
    before = Usage.of(os.getpid())
    ballast = bytearray(os.urandom(1)) * 100_000_000  # beyond what the allocator keeps of freed memory
    with (tmp_path / "open").open("w"):
        after = Usage.of(os.getpid())
    assert after.memory - before.memory > 80
    assert after.files == before.files + 1
    assert len(ballast) == 100_000_000


# --- many samples in many classes --------------------------------------------------------------------------------------------


def made_up(samples: int = 300, width: int = 6, classes: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(samples, width, generator=draws)
    return features, (features @ torch.randn(width, classes, generator=draws)).argmax(dim=1)


def test_a_fit_in_parts_is_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = made_up()
    whole = logistic.fit(features.double(), labels, 9, l2=0.1, tolerance=1e-8)
    monkeypatch.setattr(logistic, "_AT_ONCE", 9 * 7)
    assert len(logistic.row_parts(len(labels), 9)) == 43
    parts = logistic.fit(features.double(), labels, 9, l2=0.1, tolerance=1e-8)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("scorer", ["kap2nd", "influence", "gradient"])
def test_scores_without_keeping_the_logits_of_the_pool(scorer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = made_up()
    options: dict[str, Any] = {"scorer": scorer, "prior": "balanced", "exclude_self": True}
    whole = expected_error_change(features, labels, np.arange(0, 300, 4), **options)
    monkeypatch.setattr(last_layer, "_KEPT", 0)
    monkeypatch.setattr(last_layer, "_CHUNK", 16)
    monkeypatch.setattr(logistic, "_AT_ONCE", 9 * 7)
    parts = expected_error_change(features, labels, np.arange(0, 300, 4), **options)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-7)


def test_scores_of_parts_are_those_of_the_whole() -> None:
    features, labels = made_up()
    logits = copy.copy(features @ torch.ones(6, 9).cumsum(dim=1))
    whole = class_scores(logits, labels, 9)
    parts = scores_of_parts(zip(logits.split(11), labels.split(11), strict=True), 9)
    np.testing.assert_array_equal(parts.accuracy, whole.accuracy)
    np.testing.assert_array_equal(parts.loss, whole.loss)


def test_made_up_results_are_of_the_size_of_real_ones() -> None:
    cell = one_table(30, classes=100)[20]
    assert 3000 < len(str(result(cell, np.random.default_rng(0)))) < 9000
    assert cell.dataset == dataset("cifar100", 100)
