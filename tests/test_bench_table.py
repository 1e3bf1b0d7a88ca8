"""From results to a table: every number by hand, and the text as people see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dqas_plugin.bench import Cell, DatasetReference, Row, Section, markdown, plain, plan, tabulate

DIGITS = DatasetReference("digits", "0123", images=1438, classes=2, mirror=False)
CELLS = plan(DIGITS, ["graphcut"], ratios=[0.05], allocators=["adaptive"], seeds=3)

RANDOM = [(0.80, 0.60), (0.82, 0.64), (0.81, 0.62)]  # mean and lowest class of each seed
GRAPHCUT = [(0.83, 0.70), (0.84, 0.71), (0.82, 0.69)]
ADAPTIVE = [(0.85, 0.75), (0.87, 0.74), (0.83, 0.76)]


def result(
    mean: float, worst: float, training: str, counts: Sequence[int] = (36, 36), natural: float | None = None
) -> dict[str, Any]:
    return {
        "accuracy": {"mean": mean, "worst": worst, "natural": mean if natural is None else natural, "classes": []},
        "best": {"mean": mean + 0.01, "worst": worst, "natural": mean, "classes": []},
        "counts": list(counts),
        "seconds": {"features": 1.0, "selection": 0.25, "allocation": 2.0, "training": 100.0 * mean},
        "training": training,
    }


def results(cells: Sequence[Cell] = CELLS, kept_even: bool = False) -> dict[str, dict[str, Any]]:
    found = {}
    for cell in cells:
        rows = RANDOM if cell.method == "random" else ADAPTIVE if cell.variant and not kept_even else GRAPHCUT
        counts = (32, 40) if cell.variant and not kept_even else (36, 36)
        variant = "" if kept_even else cell.variant
        found[cell.key] = result(*rows[cell.seed], f"{cell.method} {variant} {cell.seed}", counts)
    return found


def rows(cells: Sequence[Cell], found: dict[str, dict[str, Any]]) -> tuple[Row, ...]:
    [section] = tabulate(cells, found)
    return section.rows


def test_records_by_hand() -> None:
    random, even, adaptive = rows(CELLS, results())
    assert [one.name for one in (random, even, adaptive)] == ["random", "graphcut", "graphcut + adaptive"]
    assert {(one.label, one.budget, one.seeds, one.planned) for one in (random, even, adaptive)} == {("5 %", 72, (0, 1, 2), 3)}
    assert random.accuracy is not None
    assert random.worst is not None
    assert (random.accuracy.mean, random.accuracy.std, random.accuracy.n) == (pytest.approx(0.81), pytest.approx(0.01), 3)
    assert (random.worst.mean, random.worst.std) == (pytest.approx(0.62), pytest.approx(0.02))
    assert adaptive.best is not None
    assert adaptive.best.mean == pytest.approx(0.86)
    assert random.versus_uniform is random.versus_random is even.versus_uniform is None
    for found, ours, theirs in (
        (even.versus_random, GRAPHCUT, RANDOM),
        (adaptive.versus_random, ADAPTIVE, RANDOM),
        (adaptive.versus_uniform, ADAPTIVE, GRAPHCUT),
    ):
        differences = np.array([one[0] - other[0] for one, other in zip(ours, theirs, strict=True)])
        low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
        assert found is not None
        assert found.n == 3
        assert (found.mean, found.low, found.high) == pytest.approx((differences.mean(), low, high))
    assert adaptive.verdict == "not better than uniform"
    assert (random.verdict, even.verdict) == ("", "")
    assert (even.fewest, even.most, adaptive.fewest, adaptive.most) == (36, 36, 32, 40)
    assert adaptive.seconds == pytest.approx(
        {"features": 1.0, "selection": 0.25, "allocation": 2.0, "refinement": 0.0, "pixels": 0.0, "training": 85.0}
    )


def test_the_goal_is_what_is_compared() -> None:
    cells = plan(DIGITS, ["graphcut"], ratios=[0.05], allocators=["adaptive"], seeds=3, goal="worst")
    *_, adaptive = rows(cells, results(cells))
    assert adaptive.measure == "worst"
    assert adaptive.versus_uniform is not None
    assert adaptive.versus_uniform.mean == pytest.approx(np.mean([0.05, 0.03, 0.07]))
    assert "+5.0 points of the worst class [0.0, 10.0] against even counts" in plain(tabulate(cells, results(cells)), 200)


def test_kept_even_counts() -> None:
    *_, adaptive = rows(CELLS, results(kept_even=True))
    assert adaptive.verdict == "kept even counts"
    assert adaptive.versus_uniform is not None
    assert adaptive.versus_uniform.mean == 0
    assert "graphcut + adaptive at 5 %: kept even counts, so nothing changes." in plain(
        tabulate(CELLS, results(kept_even=True))
    )


def test_even_counts_with_another_result_are_compared() -> None:
    """Only the same training counts as the same; a method may choose other images at the same counts."""
    found = results(kept_even=True)
    for cell in CELLS[-3:]:
        found[cell.key] = {**result(*ADAPTIVE[cell.seed], f"other {cell.seed}"), "counts": [36, 36]}
    assert rows(CELLS, found)[-1].verdict == "not better than uniform"


def test_a_refiner_that_changes_nothing() -> None:
    cells = [*CELLS[:6], *(replace(cell, refiner="eer") for cell in CELLS[3:6])]
    *_, refined = rows(cells, results(cells, kept_even=True))
    assert (refined.name, refined.verdict) == ("graphcut + eer", "same selection")


def test_one_seed_claims_nothing() -> None:
    cells = [cell for cell in CELLS if cell.seed == 0]
    text = plain(tabulate(cells, results(cells)), 200)
    assert rows(cells, results(cells))[-1].verdict == "one seed, no verdict"
    assert "+2.0 points against even counts: one seed, no verdict; run more seeds." in text
    assert "±" not in text.partition("5 % (")[2]
    assert "better" not in text.partition("5 % (")[2]


def test_better_and_worse() -> None:
    found = results()
    for cell in CELLS[-3:]:
        found[cell.key]["accuracy"]["mean"] = GRAPHCUT[cell.seed][0] + [0.011, 0.012, 0.013][cell.seed]
    assert rows(CELLS, found)[-1].verdict == "better than uniform"
    assert "graphcut + adaptive at 5 %: +1.2 points [1.0, 1.4] against even counts: better than uniform." in plain(
        tabulate(CELLS, found), 200
    )
    for cell in CELLS[-3:]:
        found[cell.key]["accuracy"]["mean"] = GRAPHCUT[cell.seed][0] - [0.011, 0.012, 0.013][cell.seed]
    assert rows(CELLS, found)[-1].verdict == "worse than uniform"


def test_missing_cells_say_so() -> None:
    found = results()
    del found[CELLS[3].key]  # graphcut, seed 0
    for cell in CELLS[-3:]:
        del found[cell.key]
    _, even, adaptive = rows(CELLS, found)
    assert even.seeds == (1, 2)
    assert even.versus_random is not None
    assert even.versus_random.n == 2
    assert (adaptive.accuracy, adaptive.versus_uniform, adaptive.verdict) == (None, None, "")
    text = plain(tabulate(CELLS, found))
    assert "graphcut at 5 %: 2 of 3 seeds are finished." in text
    assert "graphcut + adaptive at 5 %: 0 of 3 seeds are finished." in text
    assert "  + adaptive     missing" in text
    assert "missing" in plain(tabulate(CELLS, {}))
    assert "missing" in markdown(tabulate(CELLS, {}))


def test_datasets_models_and_recipes_are_apart() -> None:
    other = [replace(cell, model="resnet18") for cell in CELLS]
    sections = tabulate([*CELLS, *other], results([*CELLS, *other]))
    assert [one.model for one in sections] == ["convnet3-small", "resnet18"]
    assert [len(one.rows) for one in sections] == [3, 3]


def test_budgets_are_in_order() -> None:
    cells = plan(DIGITS, [], ratios=[0.1, 0.05], seeds=1)
    assert [one.label for one in rows(cells, results(cells))] == ["5 %", "10 %"]


GOLDEN = """\
digits (1,438 images, 2 classes), convnet3-small, recipe quick, prior balanced, cpu, 3 seeds

Last-epoch test accuracy in %: mean over classes ± standard deviation over seeds.
vs uniform: points against the same method with even class counts; vs random: against random images.
[low, high]: 95 % interval of the difference, paired over seeds. Above 0: better beyond chance.

5 % (72 images)  accuracy    worst class  vs uniform        vs random         verdict
random           81.0 ± 1.0  62.0 ± 2.0
graphcut         83.0 ± 1.0  70.0 ± 1.0                     +2.0 [-0.5, 4.5]
  + adaptive     85.0 ± 2.0  75.0 ± 1.0   +2.0 [-0.5, 4.5]  +4.0 [-0.3, 8.3]  not better

5 % (72 images)  images a class  features s  selection s  allocation s  training s
random           36              1.0         0.2          2.0           81.0
graphcut         36              1.0         0.2          2.0           83.0
  + adaptive     32–40           1.0         0.2          2.0           85.0

graphcut + adaptive at 5 %: +2.0 points [-0.5, 4.5] against even counts: not better than uniform."""


def test_plain_text() -> None:
    assert plain(tabulate(CELLS, results())) == GOLDEN


def test_it_fits_a_hundred_columns() -> None:
    cells = plan(DIGITS, ["graphcut"], ratios=[0.05, 0.1], allocators=["adaptive", "paper"], seeds=3)
    wild = {key: {**one, "accuracy": {**one["accuracy"], "mean": 0.9 - 0.4 * (number % 3 == 0)}} for number, (key, one) in
            enumerate(results(cells).items())}  # fmt: skip
    text = plain(tabulate(cells, wild))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert " verdict" in plain(tabulate(cells, results(cells)))


def test_verdicts_give_way_in_a_narrow_terminal() -> None:
    text = plain(tabulate(CELLS, results()), 84)
    assert " verdict" not in text
    assert max(len(line) for line in text.splitlines()) <= 84
    assert "better than uniform" in " ".join(text.split())


def test_markdown() -> None:
    text = markdown(tabulate(CELLS, results()))
    lines = text.splitlines()
    assert lines[0] == "**digits (1,438 images, 2 classes), convnet3-small, recipe quick, prior balanced, cpu, 3 seeds**"
    assert lines[4].startswith(
        "| budget | method | accuracy | worst class | vs uniform | vs random | verdict | images a class |"
    )
    assert lines[6] == "| 5 % (72) | random | 81.0 ± 1.0 | 62.0 ± 2.0 |  |  |  | 36 | 1.0 | 0.2 | 2.0 | 81.0 |"
    assert "| not better than uniform |" in lines[8]
    assert len({line.count("|") for line in lines[4:9]}) == 1


def test_uneven_test_sets_show_the_natural_accuracy() -> None:
    found = results()
    assert "natural" not in plain(tabulate(CELLS, found))
    for cell in CELLS:
        found[cell.key]["accuracy"]["natural"] = 0.9
    assert "natural" in plain(tabulate(CELLS, found))
    assert "90.0 ± 0.0" in plain(tabulate(CELLS, found))


def test_no_negative_zero() -> None:
    found = results()
    for cell in CELLS[-3:]:
        found[cell.key]["accuracy"]["mean"] = GRAPHCUT[cell.seed][0] - [0.0001, 0.0002, 0.0003][cell.seed]
    assert "-0.0" not in plain(tabulate(CELLS, found)).replace("[-0.0", "[")


def test_sections_are_records() -> None:
    [section] = tabulate(CELLS, results())
    assert isinstance(section, Section)
    assert (section.dataset, section.recipe, section.prior, section.seeds) == ("digits", "quick", "balanced", (0, 1, 2))
