"""Algorithm 1 of Zhao et al., "Dataset Quantization with Active Learning based Adaptive Sampling", ECCV 2024, section 3.3."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from dqas_plugin.allocation.problem import Allocation, AllocationProblem
from dqas_plugin.contracts import Bounds, allocator
from dqas_plugin.data import FloatArray
from dqas_plugin.errors import unknown_name
from dqas_plugin.seeding import derive, generator

INITS = ("random", "uniform")


def _evaluations(num_classes: int, *, iterations: int = 50, **others: object) -> int:
    """One of the even split and one an iteration, whatever the number of classes and the other options."""
    return 1 + iterations


@allocator("paper", title="Algorithm 1 as printed", source="Zhao et al., ECCV 2024", evaluations=_evaluations)
def paper(
    problem: AllocationProblem,
    *,
    iterations: Annotated[int, Bounds(0)] = 50,
    lower_bound: Annotated[float, Bounds(0, 1)] = 0.5,
    init: Literal["random", "uniform"] = "random",
    reset: bool = True,
) -> Allocation:
    """Algorithm 1, literally: the last iterate counts, nothing is compared with the even split.

    Fractions start at U[0, 1] and are normalised after each iteration; a class whose best accuracy is below the lower bound
    is drawn anew from U[0, 1] (into a vector that sums to 1: it then holds a large part of the budget for a while). Line 13
    samples from the even split, of which no class could ever exceed its even count; it is read as sampling from the class.

    Args:
        problem: what to allocate.
        iterations: ``max_iter``; the cost is one evaluation more.
        lower_bound: ``lb``.
        init: ``random`` as printed, or ``uniform``.
        reset: whether lines 9-10 are obeyed.
    """
    if init not in INITS:
        raise unknown_name("init", init, INITS)
    rng = generator(problem.seed, "allocation", "paper")
    even = problem.uniform()
    first = problem.evaluate_many([(even, derive(problem.seed, "paper", 0))], "paper: even split")[0]
    start = rng.random(problem.num_classes) if init == "random" else even.astype(np.float64)
    bound = lower_bound if reset else 0.0
    fractions = iterate(problem, start, first.accuracy, rng, iterations=iterations, lower_bound=bound)
    return problem.allocation(problem.counts(fractions), "algorithm 1")


def iterate(
    problem: AllocationProblem,
    start: FloatArray,
    best: FloatArray,
    rng: np.random.Generator,
    *,
    iterations: int,
    lower_bound: float = 0.0,
    tolerance: float = 0.0,
) -> FloatArray:
    """Lines 5-13: more samples for classes that fall below the best accuracy they have reached.

    Args:
        problem: what to allocate.
        start: float ``[C]``, first fractions, of any scale.
        best: float ``[C]``, accuracies of the even split.
        rng: of the resets.
        iterations: at most so many evaluations.
        lower_bound: classes never better than this are drawn anew; 0 for no resets.
        tolerance: stop once no fraction moves more than this, in logs.

    Returns:
        float64 ``[C]``, the last fractions, summing to 1.
    """
    fractions = start / start.sum()
    for step in range(1, iterations + 1):
        counts = problem.counts(fractions)
        job = (counts, derive(problem.seed, "paper", step))
        accuracy = problem.evaluate_many([job], f"paper: iteration {step}")[0].accuracy
        best = np.maximum(best, accuracy)
        updated = fractions * (1 + (best - accuracy))
        low = best < lower_bound
        updated[low] = rng.random(int(low.sum()))
        updated /= updated.sum()
        moved = np.abs(np.log(updated / fractions)).max()
        fractions = updated
        if moved < tolerance:
            break
    return np.asarray(fractions, dtype=np.float64)
