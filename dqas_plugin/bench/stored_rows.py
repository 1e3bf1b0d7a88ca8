"""Rows of a folder of results, which may be somebody else's: what is in them is checked before tables are made of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from dqas_plugin.bench.grid import Cell
from dqas_plugin.defaults import GOALS
from dqas_plugin.errors import UserError
from dqas_plugin.quantization.settings import BINS_ON

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
    "Mapping": (Mapping,),
    "dict": (Mapping,),
    "tuple": (tuple, list),
}
"""Classes of the values that an annotation of a field allows."""


def checked_cell(content: Mapping[str, Any]) -> Cell:
    """The cell of a stored configuration.

    Raises:
        ValueError: if it does not describe one.
    """
    try:
        cell = Cell.from_configuration(content)
        sound = all(_sound(part) for part in (cell, cell.dataset, cell.recipe, cell.patches) if part is not None)
        sound = sound and (cell.quantization is None or cell.quantization["bins_on"] in BINS_ON)
    except (LookupError, TypeError, AttributeError, ValueError, UserError) as error:
        raise ValueError("a row describes no cell") from error
    names = cell.dataset.class_names or ()
    named = all(isinstance(one, str) for one in names) and len(names) in (0, cell.dataset.classes)
    if not sound or not named or cell.goal not in GOALS or cell.dataset.classes < 1 or cell.dataset.images < 1:
        raise ValueError("a row describes no cell")
    return cell


def check_result(result: Mapping[str, Any], classes: int) -> None:
    """Refuse a result of which no table can be made.

    Raises:
        ValueError: if so.
    """
    try:
        for epoch in ("accuracy", "best"):
            found = result[epoch]
            _check_numbers(found["classes"], classes, none=True)
            _check_numbers([found[one] for one in ("mean", "worst", "natural")], 3, none=False)
        _check_numbers(result["counts"], classes, none=False)
        _check_numbers([*result["seconds"].values()], len(result["seconds"]), none=False)
        sound = isinstance(result["training"], str) and all(isinstance(one, str) for one in result["seconds"])
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("a row is no result") from error
    if not sound:
        raise ValueError("a row is no result")


def is_shown(result: Mapping[str, Any], classes: int) -> bool:
    """Whether a table can be made of a result."""
    try:
        check_result(result, classes)
    except ValueError:
        return False
    return True


def _check_numbers(values: Any, count: int, *, none: bool) -> None:
    if not isinstance(values, list) or len(values) != count:
        raise ValueError("a row has other classes than its dataset")
    for one in values:
        if one is None and none:
            continue
        if type(one) not in (int, float) or not -1e300 < one < 1e300 or not math.isfinite(one):
            raise ValueError("a row has something else than numbers in it")


def _sound(part: Any) -> bool:
    kind: Any = type(part)
    return all(_fits(getattr(part, name), kinds) for name, kinds in _kinds_of(kind))


@cache
def _kinds_of(kind: Any) -> tuple[tuple[str, tuple[type, ...]], ...]:
    """The fields of a class whose annotations are understood, and the classes of what they may hold."""
    found = []
    for one in fields(kind):
        names = [part.strip().removesuffix("[]") for part in re.sub(r"\[.*?\](?=\s*\||$)", "[]", str(one.type)).split("|")]
        if all(name in _KINDS for name in names):
            found.append((one.name, tuple(allowed for name in names for allowed in _KINDS[name])))
    return tuple(found)


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds) and _printable(value)


def _printable(value: Any) -> bool:
    """Numbers without end cannot be printed, nor those that are none compared."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or abs(value) < 2**63
