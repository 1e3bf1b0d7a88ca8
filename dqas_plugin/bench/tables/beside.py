"""Which figures of the paper belong beside a section, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dqas_plugin.bench.evidence import short_name
from dqas_plugin.bench.paper import Comparison, PaperDataset, PaperRow, paper
from dqas_plugin.bench.table import Section


@dataclass(frozen=True)
class Beside:
    """The paper's dataset that a section is compared with.

    Attributes:
        dataset: of the paper.
        why_not: what keeps the section's dataset from being it; empty: it is that dataset.
    """

    dataset: PaperDataset
    why_not: str = ""


_CHANGED = "it is loaded with options"
_NAMESAKE = "that is only what its folder is called"


def beside(section: Section) -> Beside | None:
    """The paper's dataset, if its figures may stand beside the section's: it is the same, or known to be much alike."""
    changed = bool(section.rows[0].cell.dataset.options)
    name = short_name(section.dataset)
    for one in paper().datasets.values():
        if (section.images, section.classes) != (one.images, one.classes):
            continue
        if section.dataset == one.same and not changed:
            return Beside(one)
        if name in one.alike:
            return Beside(one, one.alike[name])
        if name == one.same:
            return Beside(one, _CHANGED if section.dataset == one.same else _NAMESAKE)
    return None


def about_paper(section: Section, found: Beside | None, table: str) -> str:
    """A sentence for the caption: what the paper's column is, or why there is none."""
    if found is None:
        return f"{table} of the paper has no figures of {section.dataset}, so none are shown."
    said = f"paper: its figures of {found.dataset.title} ({found.dataset.protocol}; {paper().common})."
    if not found.why_not:
        return said
    return f"{said} {short_name(section.dataset)} is not {found.dataset.title}: {found.why_not}."


def comparison_of(number: int, found: Beside | None) -> Comparison | None:
    """The paper's table, on that dataset, if it has one."""
    return None if found is None else paper().comparisons.get((number, found.dataset.key))


def budget_of_ratio(ratio: float, section: Section) -> int:
    """Images that a ratio of the paper, in %, comes to."""
    return round(section.images * ratio / 100)


class Footnotes:
    """Numbers the footnotes of a table in the order in which they are asked for."""

    def __init__(self, table: int, dataset: str) -> None:
        self._notes = paper().notes_of(table, dataset)
        self.texts: list[str] = []

    def of(self, row: str) -> tuple[int, ...]:
        """Marks of a row of the paper, by its printed name."""
        return tuple(self._number(note.text) for note in self._notes if row in note.rows)

    def _number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def row_of(rows: Sequence[PaperRow], method: str, variant: str, detail: str) -> PaperRow | None:
    """The paper's row of a way of choosing; settings that are not usual have none."""
    return next((one for one in rows if (one.method, one.variant) == (method, variant) and not detail), None)
