"""How many images of each class, and how well each class is learnt: even counts beside others."""

from __future__ import annotations

from collections.abc import Sequence

from dqas_plugin.bench import render
from dqas_plugin.bench.report.markup import Html, tag, together
from dqas_plugin.bench.report.pairs import Pair, telling
from dqas_plugin.bench.report.sortable import Column, Entry, table
from dqas_plugin.bench.statistics import Summary
from dqas_plugin.bench.table import Section

_LINES = 1500  # of all tables of a section together
_FEWEST = 10  # lines of a table
_WIDTH, _HEIGHT = 150, 16  # of the picture of two counts, in pixels


def class_names(section: Section) -> list[str]:
    """Names of the classes; their numbers where they have none."""
    return list(section.class_names) or [str(label) for label in range(section.classes)]


def moved_most(pair: Pair, count: int) -> list[int]:
    """Those ``count`` classes whose numbers of images differ most, in the order of the classes."""
    changes = [abs(one.mean - other.mean) for one, other in zip(pair.other.counts, pair.even.counts, strict=True)]
    return sorted(sorted(range(len(changes)), key=lambda label: -changes[label])[:count])


def class_counts(section: Section, found: Sequence[Pair], identity: str) -> Html:
    """A panel for every pair; the script of the page shows one at a time."""
    if not found:
        return tag("p", None, "There is nothing beside even class counts yet.")
    shown = telling(found)
    most = max(_FEWEST, _LINES // len(found))
    panels, choices = [], []
    for number, pair in enumerate(found):
        name = f"{identity}-{number}"
        choices.append(tag("option", {"value": name, "selected": pair is shown}, pair.title))
        panels.append(tag("div", {"class": "panel", "id": name}, tag("h4", None, pair.title), *_panel(section, pair, most)))
    chooser = tag("label", {"class": "chooser needs-script"}, "Show ", tag("select", {"data-panels": identity}, *choices))
    return together([*([chooser] if len(found) > 1 else []), *panels])


def _panel(section: Section, pair: Pair, most: int) -> list[Html]:
    names = class_names(section)
    labels = moved_most(pair, most)
    largest = max(one.mean for row in pair for one in row.counts) or 1.0
    scored = bool(pair.even.classes) and bool(pair.other.classes)
    columns = [
        Column("class"),
        Column("even", number=True, hint="images at even counts, mean over seeds"),
        Column("chosen", number=True, hint=f"images with {pair.other.variant}, mean over seeds"),
        Column("images", number=True, hint="even counts above; sorted by the difference"),
    ]
    if scored:
        columns += [
            Column("accuracy, even", number=True, hint="in %"),
            Column("accuracy, chosen", number=True, hint=f"with {pair.other.variant}, in %"),
        ]
    rows = [_line(pair, names[label], label, largest, scored) for label in labels]
    left = len(names) - len(labels)
    said = f" The {len(labels)} classes whose numbers of images changed most; {left:,} others are left out." if left else ""
    key = [
        "Images a class, mean over seeds: ",
        _key("even"),
        " at even counts, ",
        _key("other"),
        f" with {pair.other.variant}.",
    ]
    return [tag("p", {"class": "note"}, *key, said), table(f"Classes: {pair.title}", columns, rows, "classes")]


def _key(name: str) -> Html:
    bar = tag("rect", {"class": name, "width": 18, "height": 6})
    return tag("svg", {"class": "key", "width": 18, "height": 6, "viewBox": "0 0 18 6", "aria-hidden": "true"}, bar)


def _line(pair: Pair, name: str, label: int, largest: float, scored: bool) -> list[Entry]:
    even, other = pair.even.counts[label], pair.other.counts[label]
    entries = [
        Entry(name),
        Entry(_count(even), even.mean),
        Entry(_count(other), other.mean),
        Entry(_bars(even.mean, other.mean, largest), other.mean - even.mean),
    ]
    if scored:
        entries += [_accuracy(row.classes[label]) for row in pair]
    return entries


def _accuracy(value: Summary | None) -> Entry:
    return Entry("no test images" if value is None else render.summary(value), None if value is None else value.mean)


def _count(value: Summary) -> str:
    return f"{value.mean:,.1f}".removesuffix(".0")


def _bars(even: float, other: float, largest: float) -> Html:
    lengths = [f"{_WIDTH * value / largest:.1f}" for value in (even, other)]
    size = {"width": _WIDTH, "height": _HEIGHT, "viewBox": f"0 0 {_WIDTH} {_HEIGHT}"}
    bars = [
        tag("rect", {"class": name, "x": 0, "y": top, "width": length, "height": 6})
        for name, top, length in zip(("even", "other"), (1, 9), lengths, strict=True)
    ]
    return tag("svg", {"class": "bars", "aria-hidden": "true", **size}, *bars)
