"""The selection rules, one family a file, each a plain function of arrays that returns positions, best first."""

from __future__ import annotations

from collections.abc import Callable

from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.methods import (
    bilevel,
    coverage,
    dynamics,
    gradient_norm,
    local,
    matching,
    uncertainty,
)
from dqas_plugin.methods.graphcut import graphcut
from dqas_plugin.methods.uniform_random import uniform_random

_BUILT_IN = (
    uniform_random,
    *gradient_norm.SELECTORS,
    *matching.SELECTORS,
    *bilevel.SELECTORS,
    *uncertainty.SELECTORS,
    *coverage.SELECTORS,
    graphcut,
    *dynamics.SELECTORS,
    *local.SELECTORS,
)


@hookimpl
def dqas_register_selectors(register: Callable[..., None]) -> None:
    """The built-in selection methods."""
    for one in _BUILT_IN:
        register(one)
