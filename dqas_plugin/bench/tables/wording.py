"""Numbers and protocols as the tables tell them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from dqas_plugin.bench import render
from dqas_plugin.bench.statistics import Difference, Summary, told_p
from dqas_plugin.bench.table import Row, Section
from dqas_plugin.bench.tables.parts import Number, Value

MISSING = Value("missing", missing=True)
EMPTY = Value()
OURS = "Accuracy: class-mean test accuracy in %, mean ± standard deviation (number of seeds)."
BOLD = "Bold: the best mean of a column."


def protocol(section: Section) -> dict[str, str]:
    """What all numbers of a section have in common, by name."""
    recipe = section.settings
    length = "" if recipe is None else f"{recipe.epochs} epochs" if recipe.epochs else f"{recipe.iterations} iterations"
    batch = "" if recipe is None else str(recipe.batch)
    return {
        "dataset": render.dataset(section),
        "images": str(section.images),
        "classes": str(section.classes),
        "model": section.model,
        "recipe": section.recipe,
        "training": length,
        "batch": batch,
        "prior": section.prior,
        "device": section.device,
        "epoch": section.epoch,
        "seeds": told_seeds(section.seeds),
    }


def protocol_in_words(section: Section) -> str:
    """The same as a sentence."""
    one = protocol(section)
    training = ", ".join(part for part in (one["training"], f"batch {one['batch']}" if one["batch"] else "") if part)
    epoch = "last epoch" if section.epoch == "last" else "best epoch, chosen on test labels"
    word = "seed" if len(section.seeds) == 1 else "seeds"
    return (
        f"{one['dataset']} ({section.images:,} images, {section.classes} classes), {section.model}, recipe {section.recipe}"
        f"{f' ({training})' if training else ''}, prior {section.prior}, {section.device}, {epoch}, {word} {one['seeds']}."
    )


def told_seeds(seeds: Sequence[int]) -> str:
    """``0 to 4`` or ``0, 2, 5``."""
    if len(seeds) > 2 and all(after == before + 1 for before, after in pairwise(seeds)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def accuracy(value: Summary | None, bold: bool = False) -> Value:
    """``83.1 ± 0.4 (5)``."""
    if value is None:
        return MISSING
    return Value(f"{render.summary(value)} ({value.n})", bold=bold, numbers=percent(value) | {"n": value.n})


def percent(value: Summary) -> dict[str, Number]:
    """Mean and standard deviation in %."""
    mean = 100 * value.mean
    return {"mean": mean} if value.std is None else {"mean": mean, "std": 100 * value.std}


def difference(value: Difference | None, measure: str = "mean") -> Value:
    """``+1.2 [0.3, 2.1]`` in points; what is compared is said where it is not the class mean."""
    if value is None:
        return EMPTY
    numbers: dict[str, Number] = {"mean": 100 * value.mean, "n": value.n}
    if value.low is not None and value.high is not None and value.p is not None:
        numbers |= {"low": 100 * value.low, "high": 100 * value.high, "p": value.p}
    return Value(render.difference(value) + ("" if measure == "mean" else f" ({measure})"), numbers=numbers)


def p_value(value: float | None) -> Value:
    """A p value that is corrected for the number of comparisons."""
    return EMPTY if value is None else Value(told_p(value).removeprefix("p = ").removeprefix("p "), numbers={"holm": value})


def published(value: float | None, decimals: int, bold: bool = False) -> Value:
    """A figure of the paper."""
    return EMPTY if value is None else Value(f"{value:.{decimals}f}", bold=bold, numbers={"mean": value})


def best(values: Sequence[Summary | None]) -> list[bool]:
    """Which are the highest as they are shown; none where there is nothing to compare, or a single seed."""
    shown = [None if one is None else round(100 * one.mean, 1) for one in values]
    known = [one for one in shown if one is not None]
    if len(known) < 2 or min(one.n for one in values if one is not None) < 2:
        return [False] * len(shown)
    highest = max(known)
    return [one == highest for one in shown]


def seeds_short(rows: Sequence[tuple[str, Row]], section: Section) -> list[str]:
    """A sentence on rows with fewer seeds than the section has."""
    short = [f"{name} at {row.label} ({len(row.seeds)})" for name, row in rows if len(row.seeds) < len(section.seeds)]
    return [f"Fewer seeds than the {len(section.seeds)} of the others: {', '.join(short)}."] if short else []
