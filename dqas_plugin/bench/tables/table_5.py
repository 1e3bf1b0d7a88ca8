"""Table 5: what every step costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from dqas_plugin.bench import render
from dqas_plugin.bench.evidence import short_name
from dqas_plugin.bench.paper import paper
from dqas_plugin.bench.reproduce import RESULTS, commands
from dqas_plugin.bench.table import SECONDS, Row, Section
from dqas_plugin.bench.tables import wording
from dqas_plugin.bench.tables.beside import Footnotes, about_paper, beside, budget_of_ratio
from dqas_plugin.bench.tables.lines import Line, budgets_of, lines_of, only, unmeasured
from dqas_plugin.bench.tables.parts import Head, Table, Value

_TRAINING, _PIXELS = "training", "pixels"
_CONDENSING = tuple(step for step in SECONDS if step != _TRAINING)
_SHARED = (
    "What several cells share (training the network behind the features, judging and rebuilding images) is done once and "
    "counted in full for each; the network that judges is counted where it is first trained. Jobs that run side by side slow "
    "each other down, which is not taken out."
)
_NOT_RECORDED = Value("not recorded", missing=True)


def table_5(sections: Iterable[Section], results: Path | str = RESULTS, methods: Sequence[str] = ()) -> list[Table]:
    """Seconds of each step, measured, and the hours that the paper has.

    Args:
        sections: of :func:`dqas_plugin.bench.evidence.read`; each gets a table.
        results: folder that they come from, for the commands.
        methods: only these, by any name that a row goes by; otherwise all.

    Raises:
        UserError: for a method that is neither in the results nor in the paper's table.
    """
    return [_table(section, methods, results) for section in sections]


def _table(section: Section, methods: Sequence[str], results: Path | str) -> Table:
    lines = lines_of(section)
    usual = unmeasured(section, "dqas", adaptive=True)
    if not any(line.variant == usual.variant and line.method == usual.method and not line.detail for line in lines):
        lines.append(usual)
    lines = only(lines, methods)
    budgets = _wanted(section)
    rows, absent = [], []
    for line in lines:
        rows += [_measured(line, line.rows[budget]) for budget in sorted(line.rows)]
        if line.name == usual.name:
            left = {budget: label for budget, label in budgets.items() if budget not in line.rows}
            absent += line.missing(left, section.seeds)
            rows += [_missing(line, f"{label} ({budget:,})") for budget, label in left.items()]
    count = len(rows)
    printed, notes = _printed(section)
    hours = "GPU hours" if section.device == "cuda" else "hours"
    heads = [Head("method", label=True), Head("images", label=True)]
    heads += [Head(one) for one in ("seeds", *_CONDENSING, "condensing", hours, _TRAINING)]
    return Table(
        title="Table 5: cost of every step",
        caption=_caption(section, bool(printed)),
        protocol=wording.protocol(section),
        heads=tuple(heads),
        rows=(*rows, *printed),
        rules=(count,) if printed else (),
        findings=tuple(wording.seeds_short([(line.name, row) for line in lines for row in line.rows.values()], section)),
        footnotes=tuple(notes),
        commands=tuple(map(str, commands(absent, results))),
    )


def _wanted(section: Section) -> dict[int, str]:
    """Budgets at which the paper's own method should be there: the paper's where the dataset is its, else all."""
    cost = paper().cost
    return {budget_of_ratio(cost.ratio, section): f"{cost.ratio:g} %"} if _has_hours(section) else budgets_of(section)


def _has_hours(section: Section) -> bool:
    found = beside(section)
    return found is not None and found.dataset.key == paper().cost.dataset


def _measured(line: Line, row: Row) -> tuple[Value, ...]:
    lost = _drops_patches(row) and not row.seconds.get(_PIXELS)
    steps = [_NOT_RECORDED if lost and step == _PIXELS else _seconds(row.seconds.get(step, 0.0)) for step in _CONDENSING]
    total = sum(row.seconds.get(step, 0.0) for step in _CONDENSING)
    sums = [_NOT_RECORDED, _NOT_RECORDED] if lost else [_seconds(total), _hours(total / 3600)]
    head = (Value(line.name), Value(f"{row.label} ({row.budget:,})"), Value(str(len(row.seeds)), numbers={"n": len(row.seeds)}))
    return (*head, *steps, *sums, _seconds(row.seconds.get(_TRAINING, 0.0)))


def _drops_patches(row: Row) -> bool:
    return row.cell.quantization is not None and row.cell.quantization["patches"] is not None


def _missing(line: Line, label: str) -> tuple[Value, ...]:
    blank = [wording.EMPTY] * len(_CONDENSING)
    return (Value(line.name), Value(label), Value("0", numbers={"n": 0}), *blank, *[wording.MISSING] * 2, wording.EMPTY)


def _printed(section: Section) -> tuple[list[tuple[Value, ...]], list[str]]:
    """The rows of the paper, and their footnotes."""
    if not _has_hours(section):
        return [], []
    cost = paper().cost
    notes = Footnotes(5, cost.dataset)
    rows = []
    for name, hours in cost.hours.items():
        reference = f" [{cost.references[name]}]" if name in cost.references else ""
        label = Value(f"paper: {name}{reference}", marks=notes.of(name))
        blank = [wording.EMPTY] * (len(_CONDENSING) + 2)
        images = Value(f"{cost.ratio:g} % ({budget_of_ratio(cost.ratio, section):,})")
        rows.append((label, images, *blank, Value(f"{hours:.1f}", numbers={"hours": hours}), wording.EMPTY))
    return rows, notes.texts


def _caption(section: Section, beside_paper: bool) -> tuple[str, ...]:
    cost = paper().cost
    place = "one GPU, so seconds are GPU-seconds" if section.device == "cuda" else "the processor"
    theirs = about_paper(section, None, "Table 5")
    if beside_paper:
        found = beside(section)
        theirs = f"paper: GPU hours on an {cost.device}, as printed."
        if found is not None and found.why_not:
            theirs += f" {short_name(section.dataset)} is not {found.dataset.title}: {found.why_not}."
    return (
        wording.protocol_in_words(section),
        f"Seconds of wall time on {place}, mean over seeds. Condensing: all steps but the training of the final network.",
        _SHARED,
        theirs,
    )


def _seconds(value: float) -> Value:
    return Value(render.seconds(value), numbers={"seconds": value})


def _hours(value: float) -> Value:
    text = f"{value:.1f}" if value >= 10 else f"{value:.3f}" if value >= 0.001 or not value else "< 0.001"
    return Value(text, numbers={"hours": value})
