"""A table as text: plain for a terminal, or Markdown. The numbers come from :mod:`dqas_plugin.bench.table`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from textwrap import fill

from dqas_plugin.bench.grid import with_options
from dqas_plugin.bench.statistics import Difference, Summary
from dqas_plugin.bench.table import KEPT_EVEN, SAME, SECONDS, Row, Section

_MEASURES = {"mean": "", "worst": " of the worst class", "natural": " of natural accuracy"}
_GAP = "  "
_VISIBLE = 0.001  # a tenth of a point


def plain(sections: Iterable[Section], width: int = 100) -> str:
    """The tables for a terminal: accuracies, then counts and times, then what they say in words.

    Args:
        sections: see :func:`dqas_plugin.bench.tabulate`.
        width: where verdicts do not fit into a line they are left to the words below the table.
    """
    return "\n\n".join(_plain_section(section, width) for section in sections)


def markdown(sections: Iterable[Section]) -> str:
    """One Markdown table per section, with its caption and the same words."""
    return "\n\n".join(_markdown_section(section) for section in sections)


def caption(section: Section) -> str:
    """What every number of the table has in common."""
    count = len(section.seeds)
    return (
        f"{dataset(section)} ({section.images:,} images, {section.classes} classes), {section.model}, recipe {section.recipe}, "
        f"prior {section.prior}, {section.device}, {count} seed{'s' if count != 1 else ''}"
    )


def dataset(section: Section) -> str:
    """What the images are, with the options that make them others: ``shapes (modes=9)``."""
    return with_options(section.dataset, section.options)


LEGEND = (
    "Last-epoch test accuracy in %: mean over classes ± standard deviation over seeds.",
    "vs uniform: points against the same method with even class counts; vs random: against random images.",
    "[low, high]: 95 % interval of the difference, paired over seeds. Above 0: better beyond chance.",
)


def sentences(section: Section) -> list[str]:
    """What the table shows of every way that is compared with even counts, and what is missing."""
    compared = [_sentence(row) for row in section.rows if row.versus_uniform is not None]
    missing = [
        f"{row.name} at {row.label}: {len(row.seeds)} of {row.planned} seeds are finished."
        for row in section.rows
        if len(row.seeds) < row.planned
    ]
    return compared + missing


def _sentence(row: Row) -> str:
    against = row.versus_uniform
    assert against is not None
    what = f"{row.name} at {row.label}"
    if row.verdict == KEPT_EVEN:
        return f"{what}: kept even counts, so nothing changes."
    if row.verdict == SAME:
        return f"{what}: chose the same images as without it."
    mean, _, interval = difference(against).partition(" ")
    points = f"{mean} points{_MEASURES[row.measure]} {interval}".rstrip()
    remedy = "; run more seeds" if "no verdict" in row.verdict else ""
    return f"{what}: {points} against even counts: {row.verdict}{remedy}."


def summary(value: Summary | None) -> str:
    """``83.1 ± 0.4`` in %, without the deviation for a single seed."""
    if value is None:
        return "missing"
    mean = f"{100 * value.mean:.1f}"
    return mean if value.std is None else f"{mean} ± {100 * value.std:.1f}"


def difference(value: Difference | None) -> str:
    """``+1.2 [0.3, 2.1]`` in points; empty if there is nothing to compare."""
    if value is None:
        return ""
    mean = f"{_points(value.mean):+.1f}"
    if value.low is None or value.high is None:
        return mean
    return f"{mean} [{_points(value.low):.1f}, {_points(value.high):.1f}]"


def _points(share: float) -> float:
    return round(100 * share, 1) + 0.0  # no "-0.0"


def seconds(value: float) -> str:
    """One decimal below 100."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def spread(row: Row) -> str:
    """Images of the smallest and of the largest class."""
    if row.fewest is None:
        return ""
    return f"{row.fewest}" if row.fewest == row.most else f"{row.fewest}–{row.most}"


def _short(verdict: str) -> str:
    return verdict.removesuffix(" than uniform").removesuffix(", no verdict")


def _accuracy_columns(row: Row) -> list[str]:
    return [
        summary(row.accuracy),
        summary(row.worst) if row.worst else "",
        difference(row.versus_uniform),
        difference(row.versus_random),
    ]


_ACCURACY_HEADS = ["accuracy", "worst class", "vs uniform", "vs random"]


def _other_columns(section: Section) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of counts and times; natural accuracy, refinement and pixels only where they say something."""
    rows = section.rows
    uneven = any(row.natural and row.accuracy and abs(row.natural.mean - row.accuracy.mean) >= _VISIBLE for row in rows)
    rare = ("refinement", "pixels")
    steps = [step for step in SECONDS if step not in rare or any(row.seconds.get(step) for row in rows)]
    heads = ["images a class", *(["natural"] if uneven else []), *(f"{step} s" for step in steps)]
    body = [
        [
            spread(row),
            *([summary(row.natural) if row.natural else ""] if uneven else []),
            *(seconds(row.seconds[step]) if step in row.seconds else "" for step in steps),
        ]
        for row in rows
    ]
    return heads, body


def _plain_section(section: Section, width: int) -> str:
    names = [_indented(row) for row in section.rows]
    accuracy = [[*_accuracy_columns(row), _short(row.verdict)] for row in section.rows]
    heads, other = _other_columns(section)
    parts = [
        wrapped([caption(section)], width),
        wrapped(LEGEND, width),
        _blocks(section, [*_ACCURACY_HEADS, "verdict"], names, accuracy, width),
        _blocks(section, heads, names, other, width),
        wrapped(sentences(section), width),
    ]
    return "\n\n".join(part for part in parts if part)


def wrapped(texts: Iterable[str], width: int) -> str:
    """Each text on lines of that many characters; names with hyphens stay whole."""
    return "\n".join(fill(text, width, subsequent_indent=_GAP, break_on_hyphens=False) for text in texts)


def _indented(row: Row) -> str:
    return f"  + {row.variant}" if row.variant else row.base


def _blocks(section: Section, heads: list[str], names: list[str], body: list[list[str]], width: int) -> str:
    """A table with one block per budget, whose headline is that of the first column."""
    lines: list[list[str]] = []
    for budget, rows in groupby(range(len(names)), key=lambda index: (section.rows[index].label, section.rows[index].budget)):
        headline = f"{budget[0]} ({budget[1]:,} images)"
        lines += [[headline, *heads], *([names[index], *body[index]] for index in rows), []]
    lines.pop()
    return _aligned(lines, width)


def _aligned(lines: Sequence[list[str]], width: int) -> str:
    columns = max(len(line) for line in lines)
    widths = [max(len(line[column]) for line in lines if line) for column in range(columns)]
    if sum(widths) + len(_GAP) * (columns - 1) > width and lines[0][-1] == "verdict":
        return _aligned([line[:-1] for line in lines], width)
    return "\n".join(_GAP.join(text.ljust(size) for text, size in zip(line, widths, strict=False)).rstrip() for line in lines)


def _markdown_section(section: Section) -> str:
    heads, other = _other_columns(section)
    heads = ["budget", "method", *_ACCURACY_HEADS, "verdict", *heads]
    lines = [heads, ["---"] * len(heads)]
    for row, more in zip(section.rows, other, strict=True):
        lines.append([f"{row.label} ({row.budget:,})", row.name, *_accuracy_columns(row), row.verdict, *more])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    words = "\n".join(f"- {one}" for one in sentences(section))
    return "\n\n".join(part for part in [f"**{caption(section)}**", " ".join(LEGEND), table, words] if part)
