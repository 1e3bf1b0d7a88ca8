"""What a table shows, in sentences, first things first."""

from __future__ import annotations

from collections.abc import Sequence

from dqas_plugin.bench import render
from dqas_plugin.bench.report.verdicts import BETTER, NOTHING_SAID, UNDECIDED, WORSE, Judged
from dqas_plugin.bench.statistics import Difference, told_p
from dqas_plugin.bench.table import KEPT_EVEN, SAME, Section

_OF = {"mean": "", "worst": " of the worst class", "natural": " of all test images"}


def headlines(name: str, found: Sequence[Judged]) -> list[str]:
    """What the comparisons with even counts show.

    Args:
        name: what the table is called.
        found: its comparisons.
    """
    if not found:
        return [f"On {name}, nothing is compared with even class counts yet; dqas bench --adaptive does that."]
    return [_single(name, found[0])] if len(found) == 1 else [_several(name, found), *_others(found)]


def unfinished(section: Section) -> list[str]:
    """Which rows have fewer seeds than others."""
    rows = [row for row in section.rows if len(row.seeds) < len(section.seeds)]
    if not rows:
        return []
    listed = "; ".join(f"{row.name} at {row.label}: {len(row.seeds)} of {len(section.seeds)}" for row in rows[:6])
    more = f"; and {len(rows) - 6} more" if len(rows) > 6 else ""
    return [f"Not every row has all seeds: {listed}{more}."]


def _single(name: str, one: Judged) -> str:
    row = one.row
    what, of = f"On {name}, {row.name} at {row.label}", _OF[row.measure]
    told = render.difference(one.against)
    chance = "" if one.p is None else f" ({told_p(one.p)})"
    if one.verdict in (BETTER, WORSE):
        does = "gains" if one.verdict == BETTER else "loses"
        return f"{what}: adaptive sampling {does} {told} points{of} against even counts{chance}."
    if one.verdict == UNDECIDED:
        return f"{what}: no difference from even counts beyond chance, {told} points{of}{chance}."
    if one.verdict in (KEPT_EVEN, SAME):
        return f"{what}: {one.verdict}, so nothing changes."
    return f"{what}: {told} points{of} against even counts; {one.verdict}: run more seeds."


def _several(name: str, found: Sequence[Judged]) -> str:
    what, total = f"On {name}, adaptive sampling", len(found)
    better, worse, undecided = (_of(found, said) for said in (BETTER, WORSE, UNDECIDED))
    if better or worse:
        parts = [
            f"{word} in {_out_of(some, total)} ({_range(some)})" if some else f"{word} in none"
            for word, some in (("better than even counts", better), ("worse", worse))
        ]
        return f"{what} is {parts[0]} and {parts[1]}."
    if undecided:
        return (
            f"{what} shows no difference from even counts beyond chance in {_out_of(undecided, total)} ({_range(undecided)})."
        )
    silent = _of(found, *NOTHING_SAID)
    if len(silent) == total:
        return f"{what} was compared with even counts {total} times ({_range(silent)}), without a verdict: run more seeds."
    return f"{what} was compared with even counts {total} times, without a verdict."


def _others(found: Sequence[Judged]) -> list[str]:
    """The comparisons of which the first sentence says nothing."""
    undecided, silent = _of(found, UNDECIDED), _of(found, *NOTHING_SAID)
    kept = _of(found, KEPT_EVEN, SAME)
    told = []
    if undecided and (_of(found, BETTER, WORSE)):
        told.append(f"{len(undecided)} show{_s(undecided)} no difference beyond chance ({_range(undecided)}).")
    if kept:
        told.append(f"{len(kept)} kept even counts or the same images, so nothing changes there.")
    if silent and len(silent) < len(found):
        told.append(f"{len(silent)} allow{_s(silent)} no verdict ({_range(silent)}): run more seeds.")
    return told


def _s(found: Sequence[Judged]) -> str:
    return "s" if len(found) == 1 else ""


def _out_of(some: Sequence[Judged], total: int) -> str:
    if len(some) == total:
        return "both comparisons" if total == 2 else f"all {total} comparisons"
    return f"{len(some)} of {total} comparisons"


def _of(found: Sequence[Judged], *verdicts: str) -> list[Judged]:
    return [one for one in found if one.verdict in verdicts]


def _range(found: Sequence[Judged]) -> str:
    """``+1.2 [0.3, 2.1] points``, or from the lowest to the highest: ``+1.2 to +3.4 points``."""
    if len(found) == 1:
        return f"{render.difference(found[0].against)} points"
    means = [one.against.mean for one in found]
    ends = [render.difference(Difference(end, None, None, 1)) for end in (min(means), max(means))]
    return f"{' to '.join(dict.fromkeys(ends))} points"
