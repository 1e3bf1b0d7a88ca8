"""The default allocator: several proposals, and a measurement that decides whether any of them beats even counts.

In three stages: *propose* (``proposals.py``); *screen* candidates on the lines from even counts to the proposals with a few
paired seeds; *confirm* the best few with fresh seeds, and adopt one only if its gain over even counts exceeds its standard
error. The fresh seeds are what keeps the best of many noisy candidates from being chosen for its luck.

The defaults come from synthetic worlds (10 classes, 400 and 2,000 evaluation images, 60 seeds). ``probe`` took 92 % of the
best possible gain of 6.4 points (flat and steep classes), 77 to 88 % of 1.2 points, and lost .01 points on average where even
counts are best (it returned them in 65 to 76 % of the runs). Fewer finalists or confirming seeds lose part of the gain;
fitting a parabola along each line changed nothing; Algorithm 1 as a proposal added nothing that the others did not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Literal

import numpy as np

from dqas_plugin.allocation.problem import Allocation, AllocationProblem, Gain
from dqas_plugin.allocation.proposals import FRACTIONS, propose
from dqas_plugin.contracts import Bounds, allocator
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import unknown_name
from dqas_plugin.seeding import derive

STEPS = (0.25, 0.5, 0.75, 1.0)
"""How far to go from even counts (0, always measured) to a proposal (1), in log counts."""

_LEAST_SHARE = 1e-9  # a proposal may give nothing to a class; its logarithm must exist


@dataclass(frozen=True)
class Effort:
    """How many evaluations each stage of ``adaptive`` may spend; see there."""

    repeats: int
    directions: int
    iterations: int
    screen: int
    finalists: int
    confirm: int


EFFORTS: Mapping[str, Effort] = MappingProxyType(
    {
        "probe": Effort(repeats=2, directions=8, iterations=10, screen=2, finalists=5, confirm=8),
        "train": Effort(repeats=1, directions=0, iterations=0, screen=1, finalists=2, confirm=6),
    }
)
"""``probe`` for evaluations below a second (at most 126), ``train`` for real trainings (at most 36)."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Class counts ``[C]`` on the line from even counts to a proposal."""

    proposal: str
    step: float
    counts: IntArray


def _evaluations(num_classes: int, *, effort: str = "probe", confidence: float = 1.0, **numbers: int | None) -> int:
    """Upper bound. Counts that two candidates share are measured once, an Algorithm 1 that settles stops early, and one of
    the proposals is for the goal ``natural`` only.
    """
    plan = _plan(effort, numbers)
    proposals = 3 + bool(plan.directions) + bool(plan.iterations)
    proposing = len(FRACTIONS) * plan.repeats + 2 * plan.directions + plan.iterations
    return proposing + (1 + proposals * len(STEPS)) * plan.screen + (1 + plan.finalists) * plan.confirm


@allocator(
    "adaptive",
    title="Even counts, or a proposal that is measured to be better",
    source="proposals: Zhao et al., ECCV 2024; Tae & Whang, SIGMOD 2021",
    evaluations=_evaluations,
)
def adaptive(
    problem: AllocationProblem,
    *,
    effort: Literal["probe", "train"] = "probe",
    repeats: Annotated[int, Bounds(1)] | None = None,
    directions: Annotated[int, Bounds(0)] | None = None,
    iterations: Annotated[int, Bounds(0)] | None = None,
    screen: Annotated[int, Bounds(1)] | None = None,
    finalists: Annotated[int, Bounds(1)] | None = None,
    confirm: Annotated[int, Bounds(2)] | None = None,
    confidence: Annotated[float, Bounds(0)] = 1.0,
) -> Allocation:
    """Measure proposals against even counts; keep even counts unless one is better by more than its standard error.

    Args:
        problem: what to allocate.
        effort: ``probe`` or ``train``: presets of the numbers that follow, each of which may be set on its own.
        repeats: trainings at each of the 5 sizes of the learning curves (cost: 5 each).
        directions: directions in which the response to moving samples between classes is measured (cost: 2 each; 0: none).
        iterations: of Algorithm 1 from even counts, at most (cost: 1 each, one after the other; 0: none).
        screen: paired seeds for every candidate (cost: 1 + 4 a proposal, each).
        finalists: candidates measured again with fresh seeds.
        confirm: how many fresh seeds (cost: 1 + finalists, each).
        confidence: standard errors by which the gain must exceed 0.

    Returns:
        the counts, the proposal's name and step, and the gain over even counts on the fresh seeds.

    Raises:
        UserError: an unknown effort, a number that is too small.
    """
    numbers = {"repeats": repeats, "directions": directions, "iterations": iterations}
    plan = _plan(effort, {**numbers, "screen": screen, "finalists": finalists, "confirm": confirm})
    even = Candidate("uniform", 0.0, problem.uniform())
    if problem.num_classes in (1, problem.budget) or problem.budget == problem.capacity.sum():
        return problem.allocation(even.counts, even.proposal, even.step)  # there is nothing to choose
    proposals = propose(problem, repeats=plan.repeats, directions=plan.directions, iterations=plan.iterations)
    candidates = _lines(problem, even, proposals)
    screened = _measure(problem, even, candidates, plan.screen, "screen")
    order = np.argsort([-gain.mean for gain in screened], kind="stable")
    best = [candidates[place] for place in order[: plan.finalists]]
    measured = list(zip(best, _measure(problem, even, best, plan.confirm, "confirm"), strict=True))
    chosen, gain = _settle(even, measured, confidence)
    return problem.allocation(chosen.counts, chosen.proposal, chosen.step, gain)


def _settle(even: Candidate, measured: Sequence[tuple[Candidate, Gain]], confidence: float) -> tuple[Candidate, Gain]:
    """Of the candidates surely better than even counts and within one standard error of the best, the nearest to even counts.

    (Breiman's one-standard-error rule.) Evaluations are proxies, whose worth falls with the distance from what is known.
    """
    better = [(candidate, gain) for candidate, gain in measured if gain.bound(confidence) > 0]
    if not better:
        return even, Gain(0.0, 0.0)
    _, top = max(better, key=lambda one: one[1].bound(confidence))
    near = [one for one in better if one[1].mean >= top.mean - top.error]
    return min(near, key=lambda one: float(np.abs(np.log(one[0].counts / even.counts)).mean()))


def _plan(effort: str, numbers: Mapping[str, int | None]) -> Effort:
    """The preset with the numbers that are not None; unknown ones are a TypeError."""
    if effort not in EFFORTS:
        raise unknown_name("effort", effort, EFFORTS)
    return replace(EFFORTS[effort], **{name: number for name, number in numbers.items() if number is not None})


def _lines(problem: AllocationProblem, even: Candidate, proposals: Mapping[str, FloatArray]) -> list[Candidate]:
    """Candidates between even counts and every proposal, each set of counts once."""
    start = np.log(even.counts)
    seen = {even.counts.tobytes()}
    found = []
    for name, shares in proposals.items():
        end = np.log(np.maximum(shares / shares.sum(), _LEAST_SHARE) * problem.budget)
        for step in STEPS:
            counts = problem.counts(np.exp((1 - step) * start + step * end))
            if counts.tobytes() not in seen:
                seen.add(counts.tobytes())
                found.append(Candidate(name, step, counts))
    return found


def _measure(
    problem: AllocationProblem, even: Candidate, candidates: Sequence[Candidate], seeds: int, purpose: str
) -> list[Gain]:
    """Gain of every candidate over even counts with common seeds, fresh for each purpose."""
    if not candidates:
        return []
    numbers = [derive(problem.seed, purpose, place) for place in range(seeds)]
    jobs = [(one.counts, number) for one in (even, *candidates) for number in numbers]
    results = problem.evaluate_many(jobs, purpose)
    reference, *groups = [results[start : start + seeds] for start in range(0, len(results), seeds)]
    return [problem.gain(group, reference) for group in groups]
