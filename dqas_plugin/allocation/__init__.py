"""How many samples of each class: allocators and the one call that runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dqas_plugin.allocation.adaptive import adaptive
from dqas_plugin.allocation.even import proportional, uniform
from dqas_plugin.allocation.paper import paper
from dqas_plugin.allocation.problem import Allocation, AllocationProblem, Evaluate, Gain, Mapper
from dqas_plugin.contracts import Allocator
from dqas_plugin.defaults import GOALS
from dqas_plugin.errors import PluginError
from dqas_plugin.hookspecs import hookimpl

__all__ = [
    "GOALS",
    "Allocation",
    "AllocationProblem",
    "Evaluate",
    "Gain",
    "Mapper",
    "allocate",
    "dqas_register_allocators",
    "expected_evaluations",
]


def allocate(
    name: str | Allocator,
    evaluate: Evaluate,
    capacity: npt.ArrayLike,
    budget: int,
    *,
    seed: int = 0,
    goal: str = "mean",
    frequencies: npt.ArrayLike | None = None,
    overlap: float = 0.0,
    mapper: Mapper = map,
    **options: Any,
) -> Allocation:
    """Split a budget over the classes.

    Args:
        name: a registered allocator (``uniform``, ``proportional``, ``paper``, ``adaptive`` …) or one itself.
        evaluate: ``f(counts int64 [C], seed) -> ClassScores``: train on these class counts, score every class on data that
            is neither in the training set nor the test set.
        capacity: whole numbers ``[C]``, samples available.
        budget: samples to take.
        seed: of everything random in the allocator; evaluations get seeds derived from it.
        goal: ``mean``, ``natural`` or ``worst``.
        frequencies: ``[C]``, shares of the classes where the network will be used; default: the capacities' shares.
        overlap: share of the held-out data that evaluations with different seeds have in common: 0 for fresh data, below 1.
        mapper: how to run independent evaluations, like the built-in ``map`` with two iterables.
        options: of the allocator.

    Returns:
        counts that sum to the budget, each between one and its capacity; how they were found; every evaluation.

    Raises:
        UserError: an unknown allocator, goal or option; a budget that cannot be met; an evaluation that is not a number.
        PluginError: an allocator that breaks its contract.
    """
    record = _resolve(name, options)
    shares = np.zeros(0) if frequencies is None else np.asarray(frequencies, dtype=np.float64)
    problem = AllocationProblem(evaluate, np.asarray(capacity), budget, seed, goal, shares, overlap, mapper)
    return _checked(record(problem, **options), record.name, problem)


def expected_evaluations(name: str | Allocator, num_classes: int, **options: Any) -> int | None:
    """The most evaluations that an allocator makes: 0 for those that train nothing, None where its author did not say.

    Raises:
        UserError: an unknown allocator or option.
    """
    record = _resolve(name, options)
    if not record.trains:
        return 0
    return record.evaluations(num_classes, **options) if record.evaluations else None


@hookimpl
def dqas_register_allocators(register: Callable[..., None]) -> None:
    """Add the built-in rules."""
    for one in (uniform, proportional, paper, adaptive):
        register(one)


def _resolve(name: str | Allocator, options: dict[str, Any]) -> Allocator:
    """The allocator of that name, once it is known to have these options."""
    from dqas_plugin.plugins import check_options, plugins  # which imports this package to register it

    record = name if isinstance(name, Allocator) else plugins().allocators[name]
    check_options(record, "allocator", options)
    return record


def _checked(allocation: Allocation, name: str, problem: AllocationProblem) -> Allocation:
    """The allocation with int64 counts and its history, or an error that names the allocator."""
    if not isinstance(allocation, Allocation):
        raise PluginError(f"allocator '{name}' returned a {type(allocation).__name__}, not an Allocation")
    counts = np.asarray(allocation.counts)
    if counts.shape != problem.capacity.shape or counts.dtype.kind not in "iu":
        raise PluginError(f"allocator '{name}' must return {problem.num_classes} whole numbers, not {counts}")
    if counts.sum() != problem.budget:
        raise PluginError(f"allocator '{name}' spent {counts.sum()} of a budget of {problem.budget}")
    outside = np.flatnonzero((counts < 1) | (counts > problem.capacity))
    if len(outside):
        one = outside[0]
        raise PluginError(f"allocator '{name}' gave class {one} {counts[one]} samples, outside 1..{problem.capacity[one]}")
    history = allocation.history or problem.history
    return replace(
        allocation,
        counts=counts.astype(np.int64),
        history=history,
        evaluations=max(allocation.evaluations, len(problem.history)),
    )
