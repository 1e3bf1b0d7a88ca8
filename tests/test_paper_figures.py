"""The file of the paper's figures against the paper's text, and what the loader makes of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import dqas_plugin.bench.paper as package
from dqas_plugin.bench.gridspec import TABLE_2
from dqas_plugin.bench.paper import paper
from dqas_plugin.plugins import plugins


@pytest.fixture(scope="module")
def lines(shared: Path) -> list[str]:
    text = shared / "paper" / "dqas-eccv2024.md"
    if not text.is_file():
        pytest.skip("the text of the paper is not in shared/")
    return text.read_text(encoding="utf-8").splitlines()


def printed(lines: list[str], table: int) -> list[list[str]]:
    """The cells of a table, those that are empty left out, as far as the first line without any; bold face is dropped."""
    start = next(number for number, line in enumerate(lines) if re.match(rf"\**Table {table}:", line))
    rows: list[list[str]] = []
    for line in lines[start + 1 :]:
        if "\t" in line:
            cells = (cell.strip() for cell in re.sub(r"</?b>", "", line).split("\t"))
            rows.append([cell for cell in cells if cell])
        elif rows:
            break
    return rows


def test_table_1(lines: list[str]) -> None:
    head, *rows = printed(lines, 1)
    found = paper().classes
    assert head == ["IPC", *found.columns]
    assert {int(row[0]): tuple(map(float, row[1:])) for row in rows} == found.rows
    assert [row[0] for row in rows] == ["15", "20", "25", "30", "35", "40", "45", "50"]
    title = next(line for line in lines if line.startswith("**Table 1:"))
    assert found.title in title
    assert found.method.split()[1] in title  # the reference


def test_table_2(lines: list[str]) -> None:
    head, counts, ratios, *rows = printed(lines, 2)
    assert head == ["Dataset", *(one.title for one in paper().datasets.values())]
    assert ratios[0] == "Ratio"
    assert len(rows) == 17
    first = 0
    raw = tomllib.loads(Path(package.__file__).with_name("figures.toml").read_text(encoding="utf-8"))
    for dataset in paper().datasets.values():
        found = paper().comparisons[2, dataset.key]
        columns = slice(first, first := first + len(found.ratios))
        assert list(found.ratios) == [float(one) for one in ratios[1:][columns]]
        aipc = [float(one) for one in counts[columns]]
        assert aipc == raw["table_2"][dataset.key]["aipc"]
        assert aipc == [ratio / 100 * dataset.images / dataset.classes for ratio in found.ratios]
        assert [(row.label, list(row.figures.values())) for row in found.rows] == [
            (row[0], [float(one) for one in row[1:][columns]]) for row in rows
        ]
        decimals = {len(one.partition(".")[2]) for row in rows for one in row[1:][columns]}
        assert found.decimals == max(decimals)
    assert first == len(counts) == 18


@pytest.mark.parametrize("table", [3, 4])
def test_tables_3_and_4(lines: list[str], table: int) -> None:
    head, *rows = printed(lines, table)
    found = paper().comparisons[table, "cifar10"]
    assert head == ["Ratio", *(f"{ratio / 100:g}" for ratio in found.ratios)]
    assert {row.label: list(row.figures.values()) for row in found.rows} == {
        row[0]: [float(one) for one in row[1:]] for row in rows
    }
    assert len(rows) == 2
    assert any(line.startswith(f"Table {table}: {found.title}") for line in lines)


def test_table_5(lines: list[str]) -> None:
    _, *rows = printed(lines, 5)
    cost = paper().cost
    labels = {name: f"{name} [{cost.references[name]}]" if name in cost.references else name for name in cost.hours}
    assert {labels[name]: hours for name, hours in cost.hours.items()} == {row[0]: float(row[1]) for row in rows}
    text = " ".join(lines)
    assert f"condensing the CIFAR-10 dataset at a {cost.ratio / 100:g} ratio" in text
    assert f"on an {cost.device} GPU" in text


def test_protocols(lines: list[str]) -> None:
    text = " ".join(lines)
    for one in paper().datasets.values():
        rate = one.protocol.rpartition(" ")[2]
        assert f"a batch size of 128 and a cosine-annealed learning rate of {rate}." in text
        assert "200 epochs, batch 128" in one.protocol
    assert re.search(r"CIFAR-10 contains\s+50000 training images across 10 categories", text)


def test_rows_of_table_2_are_methods_of_this_program() -> None:
    for key in paper().datasets:
        assert tuple(row.method for row in paper().comparisons[2, key].rows) == TABLE_2
    assert set(TABLE_2) <= set(plugins().selectors)
    ours = paper().comparisons[2, "cifar10"].rows[-1]
    assert (ours.name, ours.method, ours.variant) == ("Ours", "dqas", "adaptive + error-reduction")


def test_highest_figure_of_a_column_is_ours_or_dqs() -> None:
    """Which the paper prints in bold: one way to see that no row slipped by a column."""
    for key in paper().datasets:
        found = paper().comparisons[2, key]
        best = {max(found.rows, key=lambda row: row.figures[ratio]).name for ratio in found.ratios}
        assert best <= {"Ours", "DQ"}


def test_contradictions_are_noted_where_they_are() -> None:
    found = paper()
    assert {table for note in found.notes for table in note.tables} == {2, 3, 4, 5}
    for note in found.notes:
        for table in note.tables:
            keys = note.datasets or tuple(key for number, key in found.comparisons if number == table)
            names = {row.name for key in keys for row in found.comparisons[table, key].rows} if table != 5 else found.cost.hours
            assert set(note.rows) <= set(names)
    dq = " ".join(note.text for note in found.notes_of(2, "cifar10") if "DQ" in note.rows)
    assert "batches of 16" in dq
    assert "83.79" in dq
    assert "95.8" in next(note.text for note in found.notes_of(2, "cifar10") if "Ours" in note.rows)
    assert not any("95.8" in note.text for note in found.notes_of(2, "cifar100"))
    without, same = found.comparisons[3, "cifar10"].rows[0], found.comparisons[4, "cifar10"].rows[1]
    assert without.figures == same.figures  # what the notes of tables 3 and 4 say
