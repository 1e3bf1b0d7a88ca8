"""Loops as machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

ANY_ORDER = frozenset({"nnan", "nsz", "reassoc"})
"""Sums in any order, and no number is NaN. Infinities are allowed, and ``a b - c d`` is 0 where the products are equal."""


def compiled(*, fastmath: bool | frozenset[str]) -> Callable[[F], F]:
    """Make the function machine code on its first call, which takes seconds, and keep that beside its file or in the cache.

    It runs without Python's lock. What it calls must be in the same file: a kept one does not notice changes elsewhere.

    Args:
        fastmath: what the compiler may assume of floating-point numbers; True: that none is infinite or NaN, and any order.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath if isinstance(fastmath, bool) else set(fastmath)}

    def decorate(function: F) -> F:
        try:
            result: F = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # nowhere to keep it
            result = numba.njit(**options)(function)
        return result

    return decorate
