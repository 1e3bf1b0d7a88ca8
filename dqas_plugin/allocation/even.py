"""Class counts that need no training."""

from __future__ import annotations

from dqas_plugin.allocation.problem import Allocation, AllocationProblem
from dqas_plugin.contracts import allocator


@allocator("uniform", title="The same count for every class", trains=False)
def uniform(problem: AllocationProblem) -> Allocation:
    """Even counts; what a class with too few samples cannot take goes evenly to the others."""
    return problem.allocation(problem.uniform(), "uniform", step=0.0)


@allocator("proportional", title="Counts in proportion to the class frequencies", trains=False)
def proportional(problem: AllocationProblem) -> Allocation:
    """Counts like the frequencies given, or like the class sizes of the training set."""
    return problem.allocation(problem.counts(problem.frequencies), "proportional")
