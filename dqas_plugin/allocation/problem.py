"""What an allocator is asked, and what it answers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dqas_plugin.allocation.rounding import round_counts
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.defaults import GOALS
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.scores import ClassScores

Evaluate = Callable[[IntArray, int], ClassScores]
"""Trains on the given class counts and scores every class: ``f(counts int64 [C], seed)``. Equal seeds are *paired*: they
share whatever is random (held-out images, initial weights), so that differences between counts stand out."""

_SOFTNESS = 0.05  # accuracy by which a class may lie above the lowest and still matter to the goal "worst"


Mapper = Callable[[Evaluate, Iterable[IntArray], Iterable[int]], Iterable[ClassScores]]
"""Like the built-in ``map`` with two iterables: results in the order of the input, however they are computed."""


@dataclass(frozen=True)
class Gain:
    """Paired difference of the goal to even counts, in accuracy (0.01 is one point).

    Attributes:
        mean: candidate minus uniform.
        error: standard error of ``mean`` over the paired seeds.
    """

    mean: float
    error: float

    def bound(self, confidence: float) -> float:
        """Lower confidence bound: the mean less ``confidence`` standard errors."""
        return self.mean - confidence * self.error


@dataclass(frozen=True, eq=False)
class Allocation:
    """Class counts, and how they came about.

    Attributes:
        counts: int64 ``[C]``.
        history: one JSON-able record an evaluation: purpose, counts, seed, accuracy per class, objective.
        chosen: name of the proposal that the counts come from.
        step: how far from uniform (0) to that proposal (1), in log counts.
        gain: measured difference to uniform, where it was measured.
        evaluations: how many evaluations it took.
    """

    counts: IntArray
    history: list[dict[str, Any]] = field(default_factory=list)
    chosen: str = ""
    step: float = 1.0
    gain: Gain | None = None
    evaluations: int = 0


@dataclass(frozen=True, eq=False)
class AllocationProblem:
    """A budget to be split over classes. Checks its values; every evaluation through it is checked and recorded.

    Attributes:
        evaluate: trains and scores (see :data:`Evaluate`); allocators call :meth:`evaluate_many` instead.
        capacity: int64 ``[C]``, samples available, at least one a class.
        budget: samples to take, at least one a class.
        seed: of everything random in the allocator.
        goal: one of :data:`dqas_plugin.defaults.GOALS`.
        frequencies: float64 ``[C]``, share of each class where the network will be used, summing to 1; empty: as capacity.
        overlap: share of the held-out images that evaluations with different seeds have in common, 0 to below 1
            (see :meth:`gain`).
        mapper: runs the independent evaluations of a stage; the built-in ``map``, or a pool's.
        history: the evaluations so far (see :class:`Allocation`).

    Raises:
        UserError: a budget that cannot be met, an empty class, an unknown goal, frequencies that are none.
    """

    evaluate: Evaluate
    capacity: IntArray
    budget: int
    seed: int = 0
    goal: str = "mean"
    frequencies: FloatArray = field(default_factory=lambda: np.zeros(0))
    overlap: float = 0.0
    mapper: Mapper = map
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise unknown_name("goal", self.goal, GOALS)
        if not 0.0 <= self.overlap < 1.0:
            raise UserError(f"overlap is a share of the held-out images, at least 0 and below 1, not {self.overlap}")
        object.__setattr__(self, "capacity", _checked_capacity(self.capacity))
        object.__setattr__(self, "budget", _checked_budget(self.budget, self.capacity))
        shares = self.frequencies if np.size(self.frequencies) else self.capacity
        object.__setattr__(self, "frequencies", _checked_frequencies(shares, self.num_classes))

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.capacity)

    def uniform(self, budget: int | None = None) -> IntArray:
        """Counts as even as the capacities allow, int64 ``[C]``, of the whole budget or of a smaller one."""
        return self.counts(np.ones(self.num_classes), budget)

    def counts(self, shares: FloatArray, budget: int | None = None) -> IntArray:
        """Whole counts in proportion to ``shares`` [C], between one and the capacity (see ``rounding.py``)."""
        return round_counts(shares, self.budget if budget is None else budget, self.capacity)

    def objective(self, scores: ClassScores) -> float:
        """The goal's value, to be maximised."""
        if self.goal == "natural":
            return float(self.frequencies @ scores.accuracy)
        return scores.worst if self.goal == "worst" else scores.mean

    def importance(self, accuracy: FloatArray) -> FloatArray:
        """How much each class's accuracy counts towards the goal: its (for ``worst``, smoothed) gradient, float64 ``[C]``."""
        if self.goal == "natural":
            return self.frequencies
        distance = (accuracy - accuracy.min()) / _SOFTNESS if self.goal == "worst" else np.zeros(self.num_classes)
        weights = np.exp(-distance)
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    def evaluate_many(self, jobs: Sequence[tuple[IntArray, int]], purpose: str) -> list[ClassScores]:
        """Run independent evaluations, check and record them.

        Args:
            jobs: pairs of counts (int64 ``[C]``, between one and the capacity, of any sum) and seed.
            purpose: what they are for; kept in the history.

        Returns:
            One result a job, in order.

        Raises:
            ValueError: counts outside their bounds.
            UserError: an evaluation of the wrong shape, or not a number.
        """
        for counts, _ in jobs:
            if counts.shape != self.capacity.shape or (counts < 1).any() or (counts > self.capacity).any():
                raise ValueError(f"counts outside 1..capacity: {counts}")
        results = []
        outcomes = self.mapper(self.evaluate, [counts.copy() for counts, _ in jobs], [seed for _, seed in jobs])
        for (counts, seed), outcome in zip(jobs, outcomes, strict=True):
            scores = _checked_scores(outcome, self.num_classes)
            results.append(scores)
            self.history.append(
                {
                    "purpose": purpose,
                    "counts": counts.tolist(),
                    "seed": seed,
                    "accuracy": scores.accuracy.tolist(),
                    "objective": self.objective(scores),
                }
            )
        return results

    def gain(self, candidate: Sequence[ClassScores], reference: Sequence[ClassScores]) -> Gain:
        """Paired difference of the goal between two lists of results with the same seeds.

        The goal is taken of the mean over seeds (the lowest class of *one* small sample is mostly noise), the standard error
        by the jackknife over seeds, which for goals linear in the accuracies is the ordinary paired one. One seed: infinite.

        Seeds that share held-out images repeat each other's luck, which their spread does not show; the error is widened by
        what that is expected to hide: ``s² (1/k + overlap / (1 - overlap))`` for k seeds (Nadeau and Bengio, Machine Learning
        2003).
        """
        both = np.stack([[scores.accuracy for scores in side] for side in (candidate, reference)])  # [2, seeds, C]
        total, seeds = both.sum(axis=1), both.shape[1]
        mean = self._difference(total / seeds)
        if seeds < 2:
            return Gain(mean, float("inf"))
        without = np.array([self._difference((total - both[:, one]) / (seeds - 1)) for one in range(seeds)])
        spread = float(np.sqrt((seeds - 1) / seeds * np.sum((without - without.mean()) ** 2)))
        return Gain(mean, spread * float(np.sqrt(1 + seeds * self.overlap / (1 - self.overlap))))

    def _difference(self, accuracy: FloatArray) -> float:
        """Goal of row 0 minus goal of row 1."""
        first, second = (self.objective(ClassScores(row, np.zeros_like(row))) for row in accuracy)
        return first - second

    def allocation(self, counts: IntArray, chosen: str, step: float = 1.0, gain: Gain | None = None) -> Allocation:
        """The answer, with the history of this problem."""
        return Allocation(counts, self.history, chosen, step, gain, len(self.history))


def _checked_capacity(capacity: npt.ArrayLike) -> IntArray:
    array = np.asarray(capacity)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
        raise UserError(f"capacity must be one whole number per class, not {capacity!r}")
    empty = np.flatnonzero(array < 1)
    if len(empty):
        raise UserError(f"class {empty[0]} has no samples to choose from: remove it, or add images to it")
    return array.astype(np.int64)


def _checked_budget(budget: int, capacity: IntArray) -> int:
    try:
        number = operator.index(budget)
    except TypeError:
        raise UserError(f"the budget must be a whole number of samples, not {budget}") from None
    if number < len(capacity):
        raise UserError(f"a budget of {number} is less than one sample for each of {len(capacity)} classes: ask for more")
    if number > capacity.sum():
        raise UserError(f"a budget of {number} exceeds the {capacity.sum()} samples that there are: ask for fewer")
    return number


def _checked_frequencies(frequencies: npt.ArrayLike, classes: int) -> FloatArray:
    shares = np.asarray(frequencies, dtype=np.float64)
    if shares.shape != (classes,) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise UserError(f"class frequencies must be {classes} numbers, none negative and not all zero")
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _checked_scores(scores: ClassScores, classes: int) -> ClassScores:
    """The same as float64, or an error that says what is wrong with it."""
    accuracy, loss = (np.asarray(one, dtype=np.float64) for one in (scores.accuracy, scores.loss))
    if accuracy.shape != (classes,) or loss.shape != (classes,):
        raise UserError(f"evaluate must score {classes} classes, not accuracy {accuracy.shape} and loss {loss.shape}")
    bad = np.flatnonzero(np.isnan(accuracy) | np.isnan(loss))
    if len(bad):
        raise UserError(f"evaluate gave NaN for class {bad[0]}: has training diverged, or has it no held-out images?")
    if (accuracy < 0).any() or (accuracy > 1).any():
        raise UserError(f"evaluate must give accuracies in 0..1, not {accuracy.min():g}..{accuracy.max():g}")
    return ClassScores(accuracy, loss)
