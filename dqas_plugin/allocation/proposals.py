"""Where class counts might be better than even: proposals for ``adaptive``, each a guess that is measured before use."""

from __future__ import annotations

import numpy as np

from dqas_plugin.allocation.curves import fit_curves
from dqas_plugin.allocation.paper import iterate
from dqas_plugin.allocation.problem import AllocationProblem
from dqas_plugin.data import FloatArray
from dqas_plugin.scores import ClassScores
from dqas_plugin.seeding import derive, generator

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""Parts of the budget on which the learning curves are measured."""

_LEAST_ERROR = 0.01  # a class without errors keeps some samples
_SETTLED = 0.01  # Algorithm 1 stops when no class's share moves more than this, in logs
_NUDGE = 0.4  # log counts by which the response is measured: counts between 2/3 and 3/2 of even
_LONGEST = np.log(4.0)  # log counts by which the response proposal moves the class that it moves most


def propose(problem: AllocationProblem, *, repeats: int, directions: int, iterations: int) -> dict[str, FloatArray]:
    """All proposals by name, as positive shares ``[C]`` of any scale."""
    sizes, results = measure_curves(problem, repeats)
    accuracy = np.mean([one.accuracy for one in results[-repeats:]], axis=0)  # at the whole budget
    found = {"curves": curves(problem, sizes, results, accuracy), "difficulty": difficulty(problem, accuracy)}
    if problem.goal == "natural":
        found["frequencies"] = problem.frequencies
    if directions:
        found["response"] = response(problem, directions)
    if iterations:
        start = problem.uniform().astype(np.float64)
        rng = generator(problem.seed, "allocation", "adaptive")
        found["algorithm 1"] = iterate(problem, start, accuracy, rng, iterations=iterations, tolerance=_SETTLED)
    return found


def measure_curves(problem: AllocationProblem, repeats: int) -> tuple[FloatArray, list[ClassScores]]:
    """Train on even counts of growing size, ``repeats`` times each; sizes [P, C] and results, the whole budget last."""
    budgets = sorted({max(round(part * problem.budget), problem.num_classes) for part in FRACTIONS})
    jobs = [(problem.uniform(budget), derive(problem.seed, "curve", repeat)) for budget in budgets for repeat in range(repeats)]
    return np.array([counts for counts, _ in jobs], dtype=np.float64), problem.evaluate_many(jobs, "learning curve")


def curves(problem: AllocationProblem, sizes: FloatArray, results: list[ClassScores], accuracy: FloatArray) -> FloatArray:
    """Counts of equal marginal gain on the fitted learning curves."""
    fitted = fit_curves(sizes, np.array([one.accuracy for one in results]))
    return fitted.advise(problem.budget, problem.capacity, problem.importance(accuracy))


def difficulty(problem: AllocationProblem, accuracy: FloatArray) -> FloatArray:
    """Counts in proportion to the errors of each class (squared for the goal ``worst``).

    On the line from even counts this is ``errors^t``; the best power varies with the dataset.
    """
    errors = np.maximum(1 - accuracy, _LEAST_ERROR)
    if problem.goal == "worst":
        return errors**2
    return errors * problem.frequencies if problem.goal == "natural" else errors


def response(problem: AllocationProblem, directions: int) -> FloatArray:
    """Counts moved along the measured gradient of the goal with respect to log counts.

    Each direction takes from some classes what it gives to others, and is measured with its mirror image at the same seed.
    """
    even = problem.uniform().astype(np.float64)
    moves = _NUDGE * response_directions(problem, directions)
    jobs = []
    for number, move in enumerate(moves):
        seed = derive(problem.seed, "response", number)
        jobs += [(problem.counts(even * np.exp(side * move)), seed) for side in (1, -1)]
    results = problem.evaluate_many(jobs, "response")
    change = np.array([problem.gain([more], [less]).mean for more, less in zip(results[::2], results[1::2], strict=True)])
    gradient = np.linalg.lstsq(moves, change, rcond=None)[0]
    scale = np.abs(gradient).max()
    return even * np.exp(gradient / scale * _LONGEST) if scale > 0 else even


def response_directions(problem: AllocationProblem, number: int) -> FloatArray:
    """Random rows ``[number, C]`` that sum to 0 and have a root mean square of 1, orthogonal in blocks of C - 1."""
    rng = generator(problem.seed, "allocation", "response")
    size = problem.num_classes
    blocks = []
    for start in range(0, number, size - 1):
        rows = rng.standard_normal((size, min(size - 1, number - start)))
        blocks.append(np.linalg.qr(rows - rows.mean(axis=0))[0].T)
    return np.asarray(np.concatenate(blocks) * np.sqrt(size), dtype=np.float64)
