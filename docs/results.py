"""Measured results as a page: ``python docs/results.py [TITLE=]FOLDER …`` collects them, cog prints the tables.

What is collected under a title (that of the dataset, where none is given) replaces what was there; the rest stays.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dqas_plugin.bench.evidence import short_name
from dqas_plugin.bench.statistics import Difference, paired_difference, summarise
from dqas_plugin.bench.store import Store

DATA = Path(__file__).resolve().parent / "results.json"
PAPER_TABLE_3 = {"DQAS w/o AS": (76.79, 83.79), "DQAS": (77.41, 86.11)}
PAPER_TABLE_4 = {"DQAS Basic": (78.47, 82.94), "DQ w/o AS": (76.79, 83.79)}
"""The paper's figures at 5 % and 10 %, as printed: CIFAR-10, ResNet-18, 200 epochs, best epoch."""


class Row(NamedTuple):
    """What was compared: a method, how dropped patches were rebuilt, what chose the class counts and the last samples."""

    method: str
    rebuilt: str
    adaptive: bool
    refined: bool

    @property
    def label(self) -> str:
        """As the tables print it."""
        parts = [self.method, *([f"a quarter of the patches dropped ({self.rebuilt})"] if self.rebuilt else [])]
        added = [*(["class counts"] if self.adaptive else []), *(["error reduction"] if self.refined else [])]
        return " + ".join([", ".join(parts), *added])

    @property
    def plain(self) -> Row:
        """The same without adaptive sampling: what it is compared with."""
        return self._replace(adaptive=False, refined=False)


RANDOM = Row("random", rebuilt="", adaptive=False, refined=False)
Scores = dict[int, float]
"""Accuracy in percent, by seed."""


def collect(folders: Iterable[str]) -> None:
    """Write :data:`DATA` from results folders, with titles or without: one entry a cell."""
    entries: list[dict[str, Any]] = []
    for one in folders:
        title, _, folder = one.rpartition("=")
        with Store.existing(folder) as store:
            entries += [_entry(cell, result, title) for cell, result in store.cells()]
    titles = {one["title"] for one in entries}
    entries += [one for one in json.loads(DATA.read_text()) if one["title"] not in titles]
    entries.sort(key=lambda one: json.dumps(one, sort_keys=True))
    DATA.write_text("[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in entries) + "\n]\n")


def _entry(cell: Any, result: dict[str, Any], title: str) -> dict[str, Any]:
    patches = (cell.quantization or {}).get("patches")
    dataset = short_name(cell.dataset.name)
    return {
        "title": title or dataset,
        "dataset": dataset,
        "images": cell.dataset.images,
        "budget": cell.budget,
        "method": cell.method,
        "rebuilt": {"mae": "autoencoder", "harmonic": "harmonic"}[patches["rebuild"]] if patches else "",
        "allocator": cell.allocator,
        "refiner": cell.refiner,
        "share": cell.refine_share if cell.refiner else None,
        "seed": cell.seed,
        "accuracy": round(100 * result["accuracy"]["mean"], 2),
        "worst": round(100 * result["accuracy"]["worst"], 2),
        "best": round(100 * result["best"]["mean"], 2),
        "model": cell.model,
        "recipe": cell.recipe.name,
    }


def page() -> str:
    """Every dataset's table, with a caption that says how it was measured."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in json.loads(DATA.read_text()):
        groups[one["title"]].append(one)
    return "\n" + "\n".join(_section(name, entries) for name, entries in sorted(groups.items()))


def _section(name: str, entries: list[dict[str, Any]]) -> str:
    scores: dict[int, dict[Row, Scores]] = defaultdict(lambda: defaultdict(dict))
    for one in entries:
        row = Row(one["method"], one["rebuilt"], one["allocator"] != "uniform", one["refiner"] is not None)
        scores[one["budget"]][row][one["seed"]] = one["accuracy"]
    first = entries[0]
    shares = sorted({one["share"] for one in entries} - {None})
    caption = (
        f"{first['dataset']}: {first['images']:,} training images, {first['model']}, recipe {first['recipe']}, last epoch, "
        f"class-mean accuracy, mean ± standard deviation (seeds); differences are paired by seed, with 95 % intervals; "
        f"share of error reduction {', '.join(f'{one:g}' for one in shares)}."
    )
    tables = [table(budget, first["images"], scores[budget]) for budget in sorted(scores)]
    return f"## {name}\n\n{caption}\n\n" + "\n".join(tables)


def table(budget: int, images: int, scores: dict[Row, Scores]) -> str:
    """All rows at a budget, with what they are compared with."""
    title = f"**{100 * budget / images:.3g} % of the images ({budget:,})**\n\n"
    head = "| | accuracy | against random | against even counts |\n|---|---|---|---|\n"
    return title + head + "\n".join(_lines(scores)) + "\n"


def _lines(scores: dict[Row, Scores]) -> Iterator[str]:
    """A line of a table for every row: accuracy, and paired differences to random and to even counts."""
    order = {"random": 0, "graphcut": 1, "dq": 2, "dqas": 3}
    for row in sorted(scores, key=lambda one: (order.get(one.method, 9), one.rebuilt, one.adaptive, one.refined)):
        random = "" if row == RANDOM else difference(paired_difference(scores[row], scores.get(RANDOM, {})))
        even = "" if row == row.plain else difference(paired_difference(scores[row], scores.get(row.plain, {})))
        yield f"| {row.label} | {accuracy(scores[row])} | {random} | {even} |"


def accuracy(scores: Scores) -> str:
    """Mean, standard deviation and number of seeds."""
    found = summarise(scores.values())
    assert found is not None
    spread = "" if found.std is None else f" ± {found.std:.1f}"
    return f"{found.mean:.1f}{spread} ({found.n})"


def difference(found: Difference | None) -> str:
    """The difference, bold where its interval is without zero."""
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.mean:+.1f}"
    text = f"{found.mean:+.1f} [{found.low:.1f}, {found.high:.1f}]"
    return f"**{text}**" if found.low > 0 or found.high < 0 else text


def paper() -> str:
    """Tables 3 and 4 of the paper at the same ratios."""
    rows = [f"| {name} | {five} | {ten} |" for table in (PAPER_TABLE_3, PAPER_TABLE_4) for name, (five, ten) in table.items()]
    return "\n| | 5 % | 10 % |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("usage: python docs/results.py RESULTS-FOLDER …")
    collect(sys.argv[1:])
