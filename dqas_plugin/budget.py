"""Budget arithmetic: ratio, average images per class or a number of images, checked once and in one place."""

from __future__ import annotations

import math

from dqas_plugin.errors import UserError


def budget_of(
    size: int, num_classes: int, *, ratio: float | None = None, aipc: float | None = None, budget: int | None = None
) -> int:
    """The number of images that a ratio (part of the training set), an AIPC (paper, Eq. 9) or a number means.

    Args:
        size: images to choose from.
        num_classes: C.
        ratio: above 0, at most 1; the budget is ``round(ratio * size)``.
        aipc: above 0; the budget is ``round(aipc * num_classes)``.
        budget: the number itself.

    Raises:
        UserError: if not exactly one is given, it is out of range, or it comes to less than one image a class.
    """
    given = {"ratio": ratio, "aipc": aipc, "budget": budget}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise UserError(f"give exactly one of ratio, aipc and budget, not {len(named) or 'none'} of them")
    name, value = next(iter(named.items()))
    if not math.isfinite(value) or value <= 0 or (name == "ratio" and value > 1):
        allowed = "above 0 and at most 1" if name == "ratio" else "above 0"
        raise UserError(f"the {name} must be {allowed}, not {value:g}")
    number = round({"ratio": size, "aipc": num_classes, "budget": 1}[name] * value)
    if number < num_classes:
        raise UserError(
            f"{name} {value:g} comes to {number} images, less than one for each of the {num_classes} classes: "
            f"raise it to at least {_least(name, size, num_classes)}"
        )
    if number > size:
        raise UserError(f"{name} {value:g} comes to {number:,} images, more than the {size:,} that there are: lower it")
    return number


def _least(name: str, size: int, num_classes: int) -> str:
    if name == "ratio":
        return f"{math.ceil(num_classes / size * 1e4) / 1e4:g}"
    return "1" if name == "aipc" else str(num_classes)
