"""Where the numbers come from: data, training, versions, what it cost, and the commands that measure it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqas_plugin.bench.grid import Cell, hashed
from dqas_plugin.bench.report.markup import Html, tag, together
from dqas_plugin.bench.reproduce import commands
from dqas_plugin.bench.store import Store
from dqas_plugin.bench.table import Result, Section
from dqas_plugin.told import duration

_CHOOSING = ("selection", "allocation", "refinement")


@dataclass(frozen=True)
class Measured:
    """The finished cells of one table, with their results."""

    cells: tuple[Cell, ...]
    results: tuple[Result, ...]


def measured(folder: Path | str, sections: Sequence[Section]) -> list[Measured]:
    """For each of the tables."""
    parts = []
    with Store.existing(folder) as store:
        for section in sections:
            mine = list(store.cells_beside(section.rows[0].cell))
            parts.append(Measured(tuple(cell for cell, _ in mine), tuple(result for _, result in mine)))
    return parts


def cost(part: Measured) -> str:
    """How much was computed for a table, in a sentence; what cells share is counted once."""
    trainings = {result["training"]: _seconds(result, "training") for result in part.results}
    each = list(zip(part.cells, part.results, strict=True))
    features = {cell.signals_key: _seconds(result, "features") for cell, result in each}
    pixels = {hashed([cell.proxy_key, cell.quantization]): _seconds(result, "pixels") for cell, result in each}
    shared = sum(features.values()) + sum(pixels.values())
    choosing = sum(_seconds(result, step) for result in part.results for step in _CHOOSING)
    return (
        f"{len(part.cells):,} training sets, of which {len(trainings):,} differ: {_told(sum(trainings.values()))} of training, "
        f"{_told(choosing)} of choosing, and {_told(shared)} for features and rebuilt images that methods share, in the time "
        "of one process. The table has the seconds of one training set, mean over seeds."
    )


def _seconds(result: Result, step: str) -> float:
    return float(result.get("seconds", {}).get(step, 0.0))


def _told(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else "less than 1 s"


def protocol(section: Section, part: Measured) -> Html:
    """Data, network and recipe of a table, and what it was computed with."""
    dataset = section.rows[0].cell.dataset
    facts: dict[str, str] = {"dataset": section.dataset, "training images": f"{section.images:,}"}
    facts["classes"] = f"{section.classes:,}"
    facts |= {"image": " × ".join(map(str, dataset.shape))} if dataset.shape else {}
    facts |= {f"dataset option {name}": str(value) for name, value in sorted(dataset.options.items())}
    facts["fingerprint of the data"] = dataset.fingerprint
    facts |= {"network": section.model, "recipe": section.recipe}
    settings = section.settings.as_dict() if section.settings is not None else {}
    facts |= {name.replace("_", " "): _word(value) for name, value in settings.items() if name != "name" and value is not None}
    facts |= {"device": section.device, "seeds": ", ".join(map(str, section.seeds))}
    return _facts(facts)


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def environment(parts: Iterable[Measured]) -> Html:
    """Versions and arithmetic, with the number of cells where they are not the same for all."""
    found: dict[str, Counter[str]] = {}
    for part in parts:
        for result in part.results:
            told: Mapping[str, Any] = {**result.get("versions", {}), "arithmetic of the training": result.get("precision", "")}
            for name, value in told.items():
                found.setdefault(name, Counter())[str(value)] += 1
    facts = {}
    for name, counts in found.items():
        several = len(counts) > 1
        facts[name] = ", ".join(f"{value} ({count:,} cells)" if several else value for value, count in counts.items())
    return _facts({name: value for name, value in facts.items() if value})


def _facts(facts: Mapping[str, str]) -> Html:
    return tag(
        "dl",
        {"class": "facts"},
        *(tag("div", None, tag("dt", None, name), tag("dd", None, value)) for name, value in facts.items()),
    )


def reproduction(parts: Iterable[Measured], folder: Path | str) -> Html:
    """The commands that fill an empty folder with these results; where nothing is missing they print the tables again."""
    lines = [str(one) for part in parts for one in commands(part.cells, folder)]
    return together([tag("pre", {"tabindex": 0}, tag("code", None, "\n".join(lines)))])
