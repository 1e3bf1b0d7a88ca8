"""Table 1, classes against budgets, and Table 5, the cost of every step, from results made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from scipy import stats

from bench_lines import planned
from dqas_plugin.bench import Cell, DatasetReference, Table
from dqas_plugin.bench.paper import paper
from dqas_plugin.bench.tables import table_1, table_5
from dqas_plugin.errors import UserError
from evidence_problem import TOY, result, section, toy_cells
from table_reading import cells, texts

CLASSES = paper().datasets["cifar10"].class_names
CIFAR10 = DatasetReference("cifar10", "c1", images=50_000, classes=10, shape=(3, 32, 32), class_names=CLASSES)
ADAPTIVE = "adaptive + error-reduction"


def of_class(cell: Cell, place: int) -> float:
    """Odd classes gain from more images, the others hardly."""
    rng = np.random.default_rng(crc32(f"{cell.method} {cell.variant} {cell.budget} {cell.seed} {place}".encode()))
    gain = cell.budget / cell.dataset.images if place % 2 else 0.0
    better = 0.05 if cell.method == "graphcut" else 0.0
    return float(0.5 + gain + better + 0.01 * cell.seed + rng.normal(0.0, 0.004))


def made(cell: Cell) -> dict[str, Any]:
    classes = cell.dataset.classes
    return result([of_class(cell, place) for place in range(classes)], [cell.budget // classes] * classes, cell.key)


def only(tables: Sequence[Table]) -> Table:
    [found] = tables
    return found


GRID = toy_cells(["graphcut"], seeds=4)


# --- Table 1 -----------------------------------------------------------------------------------------------------------------


def scores(method: str, budget: int, place: int) -> np.ndarray[Any, Any]:
    found = [cell for cell in GRID if (cell.method, cell.budget, cell.variant) == (method, budget, "")]
    return np.array([of_class(cell, place) for cell in sorted(found, key=lambda cell: cell.seed)])


def test_every_class_at_every_budget() -> None:
    found = cells(only(table_1([section(GRID, made)])))
    assert list(found)[:4] == ["random | 5 % (50)", "random | 10 % (100)", "random | 20 % (200)", "random | change"]
    for method in ("random", "graphcut"):
        for budget, label in ((50, "5 % (50)"), (200, "20 % (200)")):
            row = found[f"{method} | {label}"]
            for place, name in enumerate(("cat", "dog")):
                own = 100 * scores(method, budget, place)
                assert row[name].text == f"{own.mean():.1f} ± {own.std(ddof=1):.1f}"
            both = 100 * (scores(method, budget, 0) + scores(method, budget, 1)) / 2
            assert row["mean"].numbers["mean"] == pytest.approx(both.mean())
            assert row["seeds"].text == "4"


def test_change_is_paired_from_the_smallest_to_the_largest_budget() -> None:
    table = only(table_1([section(GRID, made)]))
    row = cells(table)["graphcut | change"]
    values = []
    for place, name in enumerate(("cat", "dog")):
        test = stats.ttest_rel(scores("graphcut", 200, place), scores("graphcut", 50, place))
        assert row[name].numbers["p"] == pytest.approx(test.pvalue)
        values.append(test.pvalue)
    assert values[0] > 0.05 > values[1] * 6
    [said] = [one for one in table.findings if one.startswith("graphcut, 5 % to 20 %: ")]
    assert "not better than 5 %: cat " in said
    assert "; better than 5 %: dog +14.9" in said
    assert "Holm over 6 comparisons" in said


def test_the_best_of_a_class_at_a_budget_is_bold() -> None:
    found = cells(only(table_1([section(GRID, made)], methods=["random", "graphcut"])))
    for label in ("5 % (50)", "10 % (100)", "20 % (200)"):
        for name in ("cat", "dog", "mean"):
            rows = {key: row[name] for key, row in found.items() if key.endswith(label)}
            shown = {key: value.text.partition(" ")[0] for key, value in rows.items()}
            best = {key for key in shown if float(shown[key]) == max(map(float, shown.values()))}
            assert {key for key, value in rows.items() if value.bold} == best != set(rows)
    alone = cells(only(table_1([section(GRID, made)], methods=["random"])))
    assert not any(value.bold for row in alone.values() for value in row.values())


def test_one_seed_or_budget_claims_nothing() -> None:
    table = only(table_1([section([cell for cell in GRID if cell.seed == 1], made)], methods=["graphcut"]))
    assert table.findings == (
        "graphcut, 5 % to 20 %: one seed, no verdict.",
        f"graphcut + {ADAPTIVE}, 5 % to 20 %: one seed, no verdict.",
    )
    assert "±" not in " ".join(value.text for row in table.rows for value in row)
    single = only(table_1([section([cell for cell in GRID if cell.budget == 50], made)], methods=["graphcut"]))
    assert not any("change" in name for name in cells(single))
    assert not any("change:" in one for one in single.caption)


def test_missing_budgets_and_methods() -> None:
    left_out = [cell for cell in GRID if cell.method == "graphcut" and not cell.variant and cell.budget == 100]
    table = only(table_1([section([cell for cell in GRID if cell not in left_out], made)], "r"))
    row = cells(table)["graphcut | 10 % (100)"]
    assert row["mean"].missing
    assert row["seeds"].text == "0"
    assert {cell.key for cell in left_out} <= {cell.key for line in table.commands for cell in planned(line, TOY)}
    with pytest.raises(UserError, match="unknown method in these results 'craig'"):
        table_1([section(GRID, made)], methods=["craig"])


def test_classes_without_test_images_have_no_accuracy() -> None:
    def lacking(cell: Cell) -> dict[str, Any]:
        return result([None, of_class(cell, 1)], [25, 25], cell.key)

    row = cells(only(table_1([section(GRID, lacking)])))["random | 5 % (50)"]
    assert (row["cat"].text, row["cat"].missing) == ("–", False)
    assert row["mean"].text == row["dog"].text


def test_many_classes_stand_below_each_other() -> None:
    many = DatasetReference("many", "m", images=5000, classes=50, class_names=tuple(f"class {one}" for one in range(50)))
    grid = toy_cells([], many, allocators=[], refiner=None, ratios=[0.1, 0.2], seeds=2)
    table = only(table_1([section(grid, made)]))
    found = texts(table)
    assert len(found) == 52
    assert [head.name for head in table.heads] == ["class", "random 10 % (500)", "random 20 % (1,000)", "random change"]
    own = 100 * np.array([of_class(cell, 7) for cell in grid if cell.budget == 500])
    assert found["class 7"]["random 10 % (500)"] == f"{own.mean():.1f} ± {own.std(ddof=1):.1f}"
    assert found["seeds"]["random change"] == "2"


def test_the_papers_rows_come_with_its_classes() -> None:
    grid = toy_cells(["graphcut"], CIFAR10, ratios=[0.05, 0.1], seeds=2)
    table = only(table_1([section(grid, made)]))
    rows = {name: row for name, row in texts(table).items() if name.startswith("paper: DREAM [21]")}
    assert next(iter(rows)) == "paper: DREAM [21] | 15 a class (150)"
    assert {name: list(map(float, row.values())) for name, row in rows.items()} == {
        f"paper: DREAM [21] | {count} a class ({10 * count})": list(figures) for count, figures in paper().classes.rows.items()
    }
    distilled = replace(CIFAR10, name="dream:/sets/ipc50", images=500, options={"test_from": "cifar10"})
    grid = toy_cells([], distilled, ratios=[1.0], seeds=2, allocators=[], refiner=None)
    assert any(name.startswith("paper:") for name in cells(only(table_1([section(grid, made)]))))
    assert not any(name.startswith("paper:") for name in cells(only(table_1([section(GRID, made)]))))


def test_what_is_not_cifar10_is_said() -> None:
    alike = replace(CIFAR10, name="parquet:/x/cifar10-jpeg")
    for build in (table_1, table_5):
        table = only(build([section(toy_cells(["graphcut"], alike, ratios=[0.1], seeds=2), made)]))
        assert table.caption[-1].endswith("cifar10-jpeg is not CIFAR-10: its pixels went through JPEG.")
        other = only(build([section(GRID, made)]))
        assert other.caption[-1].endswith("of the paper has no figures of toy, so none are shown.")


# --- Table 5 -----------------------------------------------------------------------------------------------------------------


def timed(cell: Cell) -> dict[str, Any]:
    """Seconds by step that no two steps share, and that grow with the seed."""
    seconds = {"features": 100.0, "selection": 10.0, "training": 2000.0}
    seconds |= {"allocation": 30.0, "refinement": 4.0} if cell.variant else {}
    seconds |= {"pixels": 500.0} if cell.patches is not None else {}
    return {**made(cell), "seconds": {step: value * (1 + cell.seed) for step, value in seconds.items()}}


SHAPED = replace(TOY, shape=(3, 32, 32))
STEPS = ("features", "selection", "allocation", "refinement", "pixels", "condensing", "hours", "training")


def test_cost_of_every_step() -> None:
    grid = toy_cells(["dq", "dqas"], SHAPED, ratios=[0.1], seeds=3)  # a mean of twice the seconds of seed 0
    table = only(table_5([section(grid, timed)]))
    found = texts(table)
    even, adaptive = found["dq | 10 % (100)"], found[f"dqas + {ADAPTIVE} | 10 % (100)"]
    assert [even[step] for step in STEPS] == ["200", "20.0", "0.0", "0.0", "1,000", "1,220", "0.339", "4,000"]
    assert [adaptive[step] for step in STEPS] == ["200", "20.0", "60.0", "8.0", "1,000", "1,288", "0.358", "4,000"]
    assert found["random | 10 % (100)"]["pixels"] == "0.0"
    assert even["seeds"] == "3"
    assert cells(table)["dq | 10 % (100)"]["hours"].numbers["hours"] == pytest.approx(1220 / 3600)
    assert not table.incomplete
    assert "on the processor" in table.caption[1]


def test_seconds_on_a_gpu_are_gpu_seconds() -> None:
    grid = [replace(cell, device="cuda") for cell in toy_cells(["dqas"], SHAPED, ratios=[0.1])]
    table = only(table_5([section(grid, timed)]))
    assert "GPU-seconds" in table.caption[1]
    assert "GPU hours" in {head.text for head in table.heads}


def test_older_results_have_no_seconds_for_pixels() -> None:
    def older(cell: Cell) -> dict[str, Any]:
        found = timed(cell)
        found["seconds"].pop("pixels", None)
        return found

    row = cells(only(table_5([section(toy_cells(["dq"], SHAPED, ratios=[0.1]), older)])))["dq | 10 % (100)"]
    assert {name for name, value in row.items() if value.text == "not recorded"} == {"pixels", "condensing", "hours"}


def test_the_papers_own_method_is_missing_until_it_is_measured() -> None:
    table = only(table_5([section(GRID, timed)]))
    row = cells(table)[f"dqas + {ADAPTIVE} | 10 % (100)"]
    assert row["condensing"].missing
    assert {cell.method for line in table.commands for cell in planned(line, SHAPED)} == {"random", "dqas"}
    assert not only(table_5([section(GRID, timed)], methods=["graphcut"])).incomplete


def test_published_hours() -> None:
    grid = toy_cells(["dqas"], CIFAR10, ratios=[0.1], seeds=2)
    table = only(table_5([section(grid, timed)]))
    found = texts(table)
    assert {name: row["hours"] for name, row in found.items() if name.startswith("paper:")} == {
        "paper: DC [38] | 60 % (30,000)": "924.2",
        "paper: DREAM [21] | 60 % (30,000)": "46.7",
        "paper: DQAS | 60 % (30,000)": "32.5",
    }
    assert found[f"dqas + {ADAPTIVE} | 60 % (30,000)"]["condensing"] == "missing"
    assert "--ratio 0.6 " in table.commands[0]
    assert "The column has no unit" in table.footnotes[0]
