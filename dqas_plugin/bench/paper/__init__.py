"""The figures that the paper prints, as data: ``figures.toml`` beside this file has every one of Tables 1 to 5.

They appear beside measured numbers, never mixed with them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class PaperDataset:
    """A dataset of the paper.

    Attributes:
        key: as the tables of the file call it.
        title: as the paper calls it.
        same: its name in this program.
        images: of the training split.
        classes: how many.
        protocol: how the paper trained on it.
        class_names: of every class; empty: not told.
        alike: names of datasets that its figures are put beside, and what keeps them from being it.
    """

    key: str
    title: str
    same: str
    images: int
    classes: int
    protocol: str
    class_names: tuple[str, ...] = ()
    alike: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperRow:
    """A row of Tables 2 to 4.

    Attributes:
        name: as printed.
        figures: accuracy in %, by ratio in %.
        method: of this program, if it is known which is meant.
        variant: what is added to that method.
        reference: number in the paper's list, or None.
    """

    name: str
    figures: Mapping[float, float]
    method: str | None = None
    variant: str = ""
    reference: int | None = None

    @property
    def label(self) -> str:
        """Name and reference, as printed."""
        return self.name if self.reference is None else f"{self.name} [{self.reference}]"


@dataclass(frozen=True)
class Comparison:
    """Table 2 (on one dataset), 3 or 4.

    Attributes:
        title: as printed.
        dataset: key of the dataset.
        ratios: of the columns, in %.
        rows: in their order.
        decimals: as printed.
    """

    title: str
    dataset: str
    ratios: tuple[float, ...]
    rows: tuple[PaperRow, ...]
    decimals: int


@dataclass(frozen=True)
class ClassWise:
    """Table 1: accuracy of every class in %, by images per class."""

    title: str
    method: str
    dataset: str
    columns: tuple[str, ...]
    rows: Mapping[int, tuple[float, ...]]


@dataclass(frozen=True)
class Cost:
    """Table 5: GPU hours of condensing, by name; ``ratio`` in %."""

    title: str
    dataset: str
    ratio: float
    device: str
    hours: Mapping[str, float]
    references: Mapping[str, int]


@dataclass(frozen=True)
class Note:
    """What contradicts a table. Without ``rows`` it belongs to all of it; without ``datasets`` to it on all of them."""

    tables: tuple[int, ...]
    text: str
    rows: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paper:
    """All of it. ``comparisons`` are by number of the table and dataset; ``common`` is true of every figure."""

    common: str
    datasets: Mapping[str, PaperDataset]
    comparisons: Mapping[tuple[int, str], Comparison]
    classes: ClassWise
    cost: Cost
    notes: tuple[Note, ...]

    def notes_of(self, table: int, dataset: str) -> list[Note]:
        """What is to be said of that table on that dataset."""
        return [one for one in self.notes if table in one.tables and (not one.datasets or dataset in one.datasets)]


@cache
def paper() -> Paper:
    """The figures, read once."""
    content = tomllib.loads(files(__package__).joinpath("figures.toml").read_text(encoding="utf-8"))
    methods = content["methods"]
    comparisons = {(2, key): _comparison(content["table_2"], part, key, methods) for key, part in content["table_2"].items()
                   if isinstance(part, dict)}  # fmt: skip
    for number in (3, 4):
        part = content[f"table_{number}"]
        comparisons[number, part["dataset"]] = _comparison(part, part, part["dataset"], methods)
    return Paper(
        common=content["common"],
        datasets={key: PaperDataset(key=key, **_frozen(one)) for key, one in content["datasets"].items()},
        comparisons=comparisons,
        classes=_class_wise(content["table_1"]),
        cost=_cost(content["table_5"]),
        notes=tuple(Note(**_frozen(one)) for one in content["notes"]),
    )


def _frozen(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


def _comparison(
    table: Mapping[str, Any], part: Mapping[str, Any], dataset: str, methods: Mapping[str, Mapping[str, Any]]
) -> Comparison:
    ratios = tuple(float(one) for one in part["ratios"])
    rows = (
        PaperRow(name, dict(zip(ratios, figures, strict=True)), **methods.get(name, {}))
        for name, figures in part["rows"].items()
    )
    return Comparison(table["title"], dataset, ratios, tuple(rows), part["decimals"])


def _class_wise(table: Mapping[str, Any]) -> ClassWise:
    rows = {int(count): tuple(figures) for count, figures in table["rows"].items()}
    method = f"{table['method']} [{table['reference']}]"
    return ClassWise(table["title"], method, table["dataset"], tuple(table["columns"]), rows)


def _cost(table: Mapping[str, Any]) -> Cost:
    hours = {name: one["hours"] for name, one in table["rows"].items()}
    references = {name: one["reference"] for name, one in table["rows"].items() if "reference" in one}
    return Cost(table["title"], table["dataset"], table["ratio"], table["device"], hours, references)
