"""What the script of the page draws: accuracies and differences of every row, as data with their texts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dqas_plugin.bench import render
from dqas_plugin.bench.report.verdicts import MEASURES, Judged, word
from dqas_plugin.bench.statistics import Difference, Summary
from dqas_plugin.bench.table import Row, Section

COLOURS, SHAPES, DASHES = 7, 5, 4
"""How many of each the page has; ``random`` is grey, even counts are hollow."""

_FEW = 8  # series that are shown at first, at most

_ACCURACIES = {"mean": "accuracy", "worst": "worst", "natural": "natural"}


def curves(section: Section, found: list[Judged]) -> dict[str, Any]:
    """Series (one for every name in the table) with their points, in JSON-able values.

    A point is ``{"x": number of the budget, MEASURE: [middle, low, high, text]}`` in points of 100; low and high are one
    standard deviation away, or the ends of the interval of a difference, and None where there is none.
    """
    budgets = sorted({row.budget for row in section.rows})
    labels = {row.budget: row.label for row in reversed(section.rows)}
    differ = {row.measure for row in section.rows if row.versus_uniform is not None}
    offered = [{"key": key, "name": name.capitalize(), "unit": "%"} for key, name in MEASURES.items()]
    if differ:
        offered.append({"key": "gain", "name": "Difference to even counts", "unit": "points"})
    return {
        "budgets": [{"label": labels[budget], "images": budget} for budget in budgets],
        "measures": offered,
        "series": _series(section, budgets, {id(one.row): one for one in found}),
    }


def _series(section: Section, budgets: list[int], comparisons: dict[int, Judged]) -> list[dict[str, Any]]:
    named: dict[str, list[Row]] = {}
    places: Counter[tuple[str, int]] = Counter()
    for row in section.rows:
        if row.accuracy is None:
            continue
        places[row.name, row.budget] += 1  # two rows may differ in what their name does not tell
        number = places[row.name, row.budget]
        named.setdefault(row.name if number == 1 else f"{row.name} ({number})", []).append(row)
    bases = list(dict.fromkeys(rows[0].base for rows in named.values() if rows[0].method != "random"))
    variants = ["", *dict.fromkeys(rows[0].variant for rows in named.values() if rows[0].variant)]
    shown = _shown_first([rows[0].base for rows in named.values()])
    found = []
    for name, rows in named.items():
        look = 0 if rows[0].method == "random" else bases.index(rows[0].base)
        variant = variants.index(rows[0].variant)
        found.append(
            {
                "name": name,
                "colour": "grey" if rows[0].method == "random" else f"c{look % COLOURS}",
                "shape": (max(0, variant - 1) + 2 * (look // COLOURS)) % SHAPES,
                "dash": variant and 1 + (variant - 1) % (DASHES - 1),
                "shown": rows[0].base in shown,
                "points": [_point(row, budgets, comparisons.get(id(row))) for row in rows],
            }
        )
    return found


def _shown_first(bases: list[str]) -> set[str]:
    """The first methods, each with all that is added to it, as long as there are few."""
    counts = Counter(bases)
    shown, total = set[str](), 0
    for base in counts:
        total += counts[base]
        if shown and total > _FEW:
            break
        shown.add(base)
    return shown


def _point(row: Row, budgets: list[int], comparison: Judged | None) -> dict[str, Any]:
    point: dict[str, Any] = {"x": budgets.index(row.budget), "seeds": len(row.seeds)}
    for key, field in _ACCURACIES.items():
        summary: Summary | None = getattr(row, field)
        if summary is not None:
            ends = (None, None) if summary.std is None else (summary.mean - summary.std, summary.mean + summary.std)
            point[key] = [*_hundredfold(summary.mean, *ends), f"{render.summary(summary)} %"]
    if comparison is not None:
        against: Difference = comparison.against
        text = f"{render.difference(against)} points, {word(comparison.verdict)}"
        point["gain"] = [*_hundredfold(against.mean, against.low, against.high), text]
    return point


def _hundredfold(*values: float | None) -> list[float | None]:
    return [None if value is None else round(100 * value, 3) for value in values]
