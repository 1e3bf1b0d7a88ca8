"""Tables 2, 3 and 4 from results made by hand: every number against scipy, what is missing, and the paper's column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from scipy import stats

from bench_lines import planned
from dqas_plugin.bench import Cell, DatasetReference, Section, Table, tabulate
from dqas_plugin.bench.gridspec import TABLE_2
from dqas_plugin.bench.paper import paper
from dqas_plugin.bench.tables import build, table_2, table_3, table_4
from dqas_plugin.errors import UserError
from evidence_problem import TOY, result, section, toy_cells, usual
from table_reading import cells, texts

CLASSES = paper().datasets["cifar10"].class_names
CIFAR10 = DatasetReference("cifar10", "c1", images=50_000, classes=10, shape=(3, 32, 32), class_names=CLASSES)
SHAPED = replace(TOY, shape=(3, 32, 32))
NOISE = (0.011, -0.002, 0.006, 0.0)
GAIN = {"random": 0.0, "graphcut": 0.03, "herding": -0.02, "dq": 0.01, "dqas": 0.018, "kmeans-prototypes": 0.001}


def accuracy(cell: Cell) -> float:
    """Of every class: rises with the budget, by method, seed, and what of the two is not the sum of both."""
    mixed = np.random.default_rng(crc32(f"{cell.method} {cell.variant} {cell.seed}".encode())).normal(0.0, 0.001)
    gain = GAIN[cell.method] + 0.01 * bool(cell.variant)
    return float(0.5 + cell.budget / cell.dataset.images + gain + NOISE[cell.seed] + mixed)


def made(cell: Cell) -> dict[str, Any]:
    classes = cell.dataset.classes
    return result([accuracy(cell)] * classes, [cell.budget // classes] * classes, cell.key)


def of(grid: Sequence[Cell], left_out: Sequence[Cell] = ()) -> Section:
    """The section of a folder of results, which holds finished cells only."""
    return section([cell for cell in grid if cell not in left_out], made)


def only(tables: Sequence[Table]) -> Table:
    [found] = tables
    return found


GRID = toy_cells(["graphcut", "herding", "kmeans-prototypes"], seeds=4, ratios=[0.1, 0.2])


def scores(method: str, budget: int, variant: str = "", grid: Sequence[Cell] = GRID) -> np.ndarray[Any, Any]:
    found = [cell for cell in grid if (cell.method, cell.budget, cell.variant) == (method, budget, variant)]
    return np.array([accuracy(cell) for cell in sorted(found, key=lambda cell: cell.seed)])


ADAPTIVE = "adaptive + error-reduction"


# --- Table 2 -----------------------------------------------------------------------------------------------------------------


def test_rows_are_the_papers_in_its_order_and_then_the_others() -> None:
    found = texts(only(table_2([of(GRID)])))
    names = list(found)
    assert [name for name in names if " + " not in name and name in TABLE_2] == [one for one in TABLE_2 if one != "dqas"]
    assert names[-2:] == ["kmeans-prototypes", f"kmeans-prototypes + {ADAPTIVE}"]
    assert names[names.index("graphcut") + 1] == f"graphcut + {ADAPTIVE}"
    assert f"dqas + {ADAPTIVE}" in names  # the paper's own row
    assert found["craig"] == {"10 % (100) accuracy": "missing", "20 % (200) accuracy": "missing"}


def test_numbers_are_those_of_numpy_and_scipy() -> None:
    found = cells(only(table_2([of(GRID)])))
    compared = []
    for budget, label in ((100, "10 % (100)"), (200, "20 % (200)")):
        for method, variant in [
            (one, two) for one in ("random", "graphcut", "herding", "kmeans-prototypes") for two in ("", ADAPTIVE)
        ]:
            if (method, variant) == ("random", ADAPTIVE):
                continue
            name = f"{method} + {variant}" if variant else method
            ours, random = scores(method, budget, variant), scores("random", budget)
            row = found[name]
            mean, std = 100 * ours.mean(), 100 * ours.std(ddof=1)
            assert row[f"{label} accuracy"].text == f"{mean:.1f} ± {std:.1f} (4)"
            assert row[f"{label} accuracy"].numbers == {"mean": pytest.approx(mean), "std": pytest.approx(std), "n": 4}
            if name == "random":
                assert row[f"{label} vs random"].text == ""
                continue
            test = stats.ttest_rel(ours, random)
            interval = test.confidence_interval(0.95)
            numbers = row[f"{label} vs random"].numbers
            assert numbers["mean"] == pytest.approx(100 * (ours - random).mean())
            assert (numbers["low"], numbers["high"]) == pytest.approx((100 * interval.low, 100 * interval.high))
            assert numbers["p"] == pytest.approx(test.pvalue)
            compared.append((test.pvalue, row[f"{label} p"].numbers["holm"]))
    assert len(compared) == 12
    compared.sort()
    highest = 0.0
    for rank, (p, corrected) in enumerate(compared):
        highest = max(highest, min(1.0, (12 - rank) * p))
        assert corrected == pytest.approx(highest)


def test_the_best_of_a_column_is_bold() -> None:
    found = cells(only(table_2([of(GRID)])))
    bold = {name for name, row in found.items() if row["10 % (100) accuracy"].bold}
    means = {name: scores(name.partition(" + ")[0], 100, name.partition(" + ")[2]).mean() for name in found if
             found[name]["10 % (100) accuracy"].text != "missing"}  # fmt: skip
    assert bold == {max(means, key=lambda name: means[name])} == {f"graphcut + {ADAPTIVE}"}


def test_findings_say_what_is_not_better_than_random() -> None:
    table = only(table_2([of(GRID)]))
    text = " ".join(table.findings)
    row = cells(table)["kmeans-prototypes"]["10 % (100) p"]
    assert row.numbers["holm"] > 0.05
    assert f"10 %: not better than random: kmeans-prototypes (p = {row.text})" in text
    assert "10 %: better than random: graphcut (p" in text
    assert "10 %: worse than random: herding (p" in text
    assert "corrected for the 12 comparisons of the table (Holm)" in " ".join(table.caption)


def test_the_protocol_is_in_the_caption() -> None:
    table = only(table_2([of(GRID)]))
    assert table.caption[0] == (
        "toy (1,000 images, 2 classes), convnet3-small, recipe quick (300 iterations, batch 64), prior balanced, cpu, last "
        "epoch, seeds 0 to 3."
    )
    assert table.protocol["training"] == "300 iterations"
    best = replace(of(GRID), epoch="best", seeds=(0, 2))
    assert only(table_2([best])).caption[0].endswith("cpu, best epoch, chosen on test labels, seeds 0, 2.")
    assert "Table 2 of the paper has no figures of toy, so none are shown." in table.caption
    options = only(table_2([section(toy_cells(dataset=replace(TOY, options={"modes": 9})))]))
    assert options.caption[0].startswith("toy (modes=9) (1,000 images, 2 classes), ")


def test_one_seed_claims_nothing() -> None:
    table = only(table_2([of([cell for cell in GRID if cell.seed == 0])]))
    assert not any(value.bold for row in table.rows for value in row)
    assert table.findings == (
        "10 %: one seed, no verdict: nothing is claimed.",
        "20 %: one seed, no verdict: nothing is claimed.",
    )
    assert "p" not in {head.text for head in table.heads}
    assert "±" not in " ".join(value.text for row in table.rows for value in row)
    assert cells(table)["graphcut"]["10 % (100) accuracy"].text.endswith(" (1)")
    assert "interval" not in " ".join(table.caption)


def test_differences_without_spread_claim_nothing() -> None:
    def alike(cell: Cell) -> dict[str, Any]:
        return result([0.5 + GAIN[cell.method]] * 2, [50, 50], cell.key)

    grid = [cell for cell in GRID if cell.method in ("random", "graphcut") and not cell.variant]
    table = only(table_2([section(grid, alike)]))
    assert table.findings[0] == "10 %: no spread, no verdict: graphcut."
    assert cells(table)["graphcut"]["10 % (100) vs random"].text == "+3.0"


def test_what_is_missing_is_seen_and_has_a_command() -> None:
    left_out = [
        cell for cell in GRID if (cell.method == "herding" and (cell.seed > 1 or cell.label == "20 %")) or
        (cell.method == "graphcut" and cell.variant and cell.label == "10 %")
    ]  # fmt: skip
    wanted = [cell for cell in GRID if cell in left_out]
    table = only(table_2([of(GRID, left_out)], "my results", ["graphcut", "herding"]))
    assert table.incomplete
    found = texts(table)
    assert found["herding"]["20 % (200) accuracy"] == "missing"
    assert found["herding"]["10 % (100) accuracy"].endswith("(2)")
    assert found[f"graphcut + {ADAPTIVE}"]["10 % (100) accuracy"] == "missing"
    assert "herding at 10 % (2)" in table.findings[-1]
    made_by = {cell.key for line in table.commands for cell in planned(line, TOY)}
    assert {cell.key for cell in wanted} <= made_by
    assert all("--results 'my results'" in line for line in table.commands)
    whole = only(table_2([of(GRID)], methods=["graphcut", "herding"]))
    assert not whole.incomplete
    assert whole.commands == ()


def test_commands_make_the_methods_that_were_never_measured() -> None:
    table = only(table_2([of([replace(cell, dataset=SHAPED) for cell in GRID])]))
    made_by = [cell for line in table.commands for cell in planned(line, SHAPED)]
    assert {cell.method for cell in made_by} == set(TABLE_2) - {"graphcut", "herding"}
    assert {cell.variant for cell in made_by if cell.method == "dqas"} == {"", ADAPTIVE}
    assert {cell.label for cell in made_by} == {"10 %", "20 %"}
    assert {cell.seed for cell in made_by} == {0, 1, 2, 3}


def test_methods_can_be_chosen() -> None:
    names = list(texts(only(table_2([of(GRID)], methods=["graphcut"]))))
    assert names == ["random", "graphcut", f"graphcut + {ADAPTIVE}"]
    assert list(texts(only(table_2([of(GRID)], methods=[f"graphcut + {ADAPTIVE}"])))) == ["random", f"graphcut + {ADAPTIVE}"]
    with pytest.raises(UserError, match="unknown method in these results 'graphcot': did you mean 'graphcut'"):
        table_2([of(GRID)], methods=["graphcot"])


def test_settings_that_names_do_not_tell_are_added() -> None:
    grid = toy_cells(["graphcut"], ratios=[0.1], seeds=2)
    wide = toy_cells(["graphcut"], ratios=[0.1], seeds=2, refine_share=0.3)
    names = list(texts(only(table_2([section([*grid, *wide])], methods=["graphcut"]))))
    assert names == [
        "random",
        "graphcut",
        f"graphcut + {ADAPTIVE} (refine share 0.1)",
        f"graphcut + {ADAPTIVE} (refine share 0.3)",
    ]


def test_what_is_compared_is_said_where_it_is_not_the_mean() -> None:
    grid = toy_cells(["graphcut"], ratios=[0.1], seeds=3, goal="worst")
    name = "graphcut + adaptive (worst) + error-reduction"
    found = texts(only(table_2([section(grid)], methods=["graphcut"])))
    assert found[name]["10 % (100) vs random"].endswith("(worst)")


def test_every_protocol_has_its_own_table() -> None:
    other = [replace(cell, model="resnet18") for cell in GRID]
    grid = [*GRID, *other]
    tables = table_2(tabulate(grid, {cell.key: made(cell) for cell in grid}))
    assert [table.protocol["model"] for table in tables] == ["convnet3-small", "resnet18"]


# --- the paper's column ------------------------------------------------------------------------------------------------------


def cifar(reference: DatasetReference = CIFAR10, methods: Sequence[str] = ("graphcut", "dq", "dqas")) -> list[Cell]:
    return toy_cells(list(methods), reference, ratios=[0.1, 0.15], seeds=3)


def test_the_papers_figures_stand_beside_ours() -> None:
    table = only(table_2([of(cifar())]))
    found = cells(table)
    labels = {row.label: row for row in paper().comparisons[2, "cifar10"].rows}
    assert found["graphcut | GC [14]"]["10 % (5,000) paper"].text == "76.6"
    assert found["herding | Herding [33]"]["10 % (5,000) accuracy"].missing
    beside = {name.partition(" | ")[2]: row for name, row in found.items() if " | " in name}
    assert set(beside) == set(labels)
    for name, row in beside.items():
        printed = {head: value.text for head, value in row.items() if head.endswith("paper")}
        assert list(printed.values()) == [f"{one:.1f}" for one in labels[name].figures.values()]
    assert f"dqas + {ADAPTIVE} | Ours" in found
    assert found["dqas"]["10 % (5,000) paper"].text == ""  # the paper has no such row
    assert not any(head.endswith("paper") for head in found["dqas"] if head.startswith("15 %"))
    assert found["graphcut | GC [14]"]["1 % (500) accuracy"].missing
    bold = [name for name, row in found.items() if row["5 % (2,500) paper"].bold]
    assert bold == ["dq | DQ [39]"]


def test_contradictions_are_footnotes() -> None:
    table = only(table_2([of(cifar())]))
    marks = {row[1].text: row[1].marks for row in table.rows if row[1].text}
    notes = {name: " ".join(table.footnotes[mark - 1] for mark in own) for name, own in marks.items()}
    assert "batches of 16" in notes["DQ [39]"]
    assert "83.79" in notes["DQ [39]"]
    assert "above the accuracy of training on all data" in notes["Ours"]
    assert notes["GC [14]"] == ""
    assert sorted(mark for own in marks.values() for mark in own) == list(range(1, len(table.footnotes) + 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "parquet:/some/where/cifar10-jpeg"}, "cifar10-jpeg is not CIFAR-10: its pixels went through JPEG."),
        ({"name": "folder:/data/cifar10"}, "cifar10 is not CIFAR-10: that is only what its folder is called."),
        ({"options": {"test_from": "digits"}}, "cifar10 is not CIFAR-10: it is loaded with options."),
        ({}, ""),
    ],
)
def test_what_is_not_the_papers_dataset_is_said(change: dict[str, Any], words: str) -> None:
    table = only(table_2([of(cifar(replace(CIFAR10, **change)))]))
    caption = " ".join(table.caption)
    assert words in caption
    assert ("is not CIFAR-10" in caption) == bool(words)
    assert "ResNet-18, 200 epochs, batch 128" in caption
    assert texts(table)["graphcut | GC [14]"]["10 % (5,000) paper"] == "76.6"


@pytest.mark.parametrize("change", [{"name": "parquet:/x/cifar10-jpeg-10k"}, {"images": 10_000}, {"name": "shapes"}])
def test_other_datasets_have_no_column_of_the_paper(change: dict[str, Any]) -> None:
    table = only(table_2([of(cifar(replace(CIFAR10, **change)))]))
    assert not any("paper" in head.text for head in table.heads)
    assert "of the paper has no figures of" in table.caption[-1]
    assert table.footnotes == ()


# --- Table 3 -----------------------------------------------------------------------------------------------------------------


def test_table_3_compares_with_even_counts() -> None:
    table = only(table_3([of(GRID)]))
    found = cells(table)
    assert list(found)[:2] == ["dqas", f"dqas + {ADAPTIVE}"]
    ours, even = scores("graphcut", 100, ADAPTIVE), scores("graphcut", 100)
    test = stats.ttest_rel(ours, even)
    row = found[f"graphcut + {ADAPTIVE}"]
    assert row["10 % (100) vs even"].numbers["p"] == pytest.approx(test.pvalue)
    assert row["10 % (100) vs even"].numbers["mean"] == pytest.approx(100 * (ours - even).mean())
    assert found["graphcut"]["10 % (100) vs even"].text == ""
    assert any(one.startswith("10 %: better than even counts: ") for one in table.findings)
    assert any("--method dqas" in line and "--adaptive" in line for line in table.commands)


def test_table_3_says_where_even_counts_were_kept() -> None:
    def kept(cell: Cell) -> dict[str, Any]:
        return {**usual(replace(cell, allocator="uniform")), "training": f"{cell.method} {cell.budget} {cell.seed}"}

    table = only(table_3([section(toy_cells(["graphcut"], ratios=[0.1]), kept)]))
    assert f"10 %: kept even counts: graphcut + {ADAPTIVE}." in table.findings


def test_table_3_beside_the_papers() -> None:
    table = only(table_3([of(cifar(methods=["dqas"]))]))
    found = texts(table)
    assert found["dqas | DQAS w/o AS"]["10 % (5,000) paper"] == "83.79"
    assert found[f"dqas + {ADAPTIVE} | DQAS"]["12.5 % (6,250) paper"] == "88.49"
    assert found["dqas | DQAS w/o AS"]["7.5 % (3,750) accuracy"] == "missing"
    assert "Table 4 has the same five figures" in table.footnotes[0]


# --- Table 4 -----------------------------------------------------------------------------------------------------------------


def test_table_4_compares_the_pipelines() -> None:
    grid = toy_cells(["dq", "dqas"], SHAPED, ratios=[0.1], seeds=4)
    whole = toy_cells(["dq", "dqas"], SHAPED, ratios=[0.1], seeds=4, patches={"keep": True}, allocators=[], refiner=None)
    moved = toy_cells(["dqas"], SHAPED, ratios=[0.1], seeds=4, bins_on="original", allocators=[], refiner=None)
    table = only(table_4([of([*grid, *whole, *moved])]))
    found = cells(table)
    assert list(found) == ["dq", "dqas", "dqas (bins on original)", "dq (whole images)", "dqas (whole images)"]
    test = stats.ttest_rel(scores("dqas", 100, grid=grid), scores("dq", 100, grid=grid))
    for name in ("dqas", "dqas (bins on original)", "dqas (whole images)"):
        assert found[name]["10 % (100) vs dq"].numbers["p"] == pytest.approx(test.pvalue)
    assert found["dq"]["10 % (100) vs dq"].text == ""
    assert not table.incomplete


def test_table_4_without_results() -> None:
    table = only(table_4([of([replace(cell, dataset=SHAPED) for cell in GRID])]))
    assert texts(table) == {
        "dq": {"10 % (100) accuracy": "missing", "20 % (200) accuracy": "missing"},
        "dqas": {"10 % (100) accuracy": "missing", "20 % (200) accuracy": "missing"},
    }
    [line] = table.commands
    assert {cell.method for cell in planned(line, SHAPED)} == {"random", "dq", "dqas"}


def test_table_4_has_the_papers_rows_under_their_own_names() -> None:
    found = texts(only(table_4([of(cifar(methods=["dq", "dqas"]))])))
    assert found["DQAS Basic"]["5 % (2,500) paper"] == "78.47"
    assert found["DQ w/o AS"]["5 % (2,500) paper"] == "76.79"
    assert "5 % (2,500) paper" not in found["dq"]


# --- by number ---------------------------------------------------------------------------------------------------------------


def test_tables_by_number() -> None:
    titles = [only(build(number, [of(GRID)])).title for number in range(1, 6)]
    assert [title.partition(":")[0] for title in titles] == [f"Table {number}" for number in range(1, 6)]
    with pytest.raises(UserError, match="there is no table 9: the paper has tables 1 to 5"):
        build(9, [of(GRID)])
    with pytest.raises(UserError, match="table 4 compares dq with dqas, not graphcut"):
        build(4, [of(GRID)], methods=["graphcut"])
