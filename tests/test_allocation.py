"""The call ``allocate``: contracts, mistakes, the rules without training, Algorithm 1 against a literal transcription."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from dqas_plugin.allocation import (
    Allocation,
    AllocationProblem,
    Evaluate,
    allocate,
    dqas_register_allocators,
    expected_evaluations,
)
from dqas_plugin.allocation.adaptive import adaptive
from dqas_plugin.allocation.even import proportional, uniform
from dqas_plugin.allocation.paper import paper
from dqas_plugin.allocation.problem import Gain
from dqas_plugin.allocation.rounding import round_counts
from dqas_plugin.contracts import Allocator, allocator
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.scores import ClassScores
from dqas_plugin.seeding import generator

CAPACITY = [40, 40, 40, 8]
BUILT_IN = (uniform, proportional, paper, adaptive)


def learn(counts: IntArray, seed: int) -> ClassScores:
    """Four classes, of which the last two stay below one half for long; a little noise."""
    accuracy = np.array([0.95, 0.9, 0.8, 0.7]) - np.array([0.1, 0.5, 1.5, 0.8]) * counts**-0.5
    noise = np.random.default_rng(seed % 2**32).normal(size=4) * 0.02
    accuracy = np.clip(accuracy + noise, 0, 1)
    return ClassScores(accuracy, 1 - accuracy)


def never(counts: IntArray, seed: int) -> ClassScores:
    raise AssertionError("evaluated")


def test_uniform_is_even_under_the_capacities() -> None:
    allocation = allocate(uniform, never, CAPACITY, 50)
    assert allocation.counts.tolist() == [14, 14, 14, 8]
    assert (allocation.chosen, allocation.step, allocation.gain, allocation.evaluations) == ("uniform", 0.0, None, 0)


def test_proportional_follows_the_capacities_or_the_frequencies() -> None:
    assert allocate(proportional, never, CAPACITY, 32).counts.tolist() == [10, 10, 10, 2]
    assert allocate(proportional, never, CAPACITY, 40, frequencies=[7, 1, 1, 1]).counts.tolist() == [28, 4, 4, 4]
    assert allocate(proportional, never, CAPACITY, 20, frequencies=[0, 0, 0.5, 0.5]).counts.tolist() == [1, 1, 10, 8]


@pytest.mark.parametrize("rule", BUILT_IN, ids=lambda rule: rule.name)
@pytest.mark.parametrize("budget", [4, 5, 17, 90, 127, 128])
@pytest.mark.parametrize("goal", ["mean", "natural", "worst"])
def test_every_rule_meets_every_budget(rule: Allocator, budget: int, goal: str) -> None:
    allocation = allocate(rule, learn, CAPACITY, budget, goal=goal, frequencies=[4, 3, 2, 1])
    assert allocation.counts.dtype == np.int64
    assert allocation.counts.sum() == budget
    assert (allocation.counts >= 1).all()
    assert (allocation.counts <= CAPACITY).all()
    assert allocation.evaluations == len(allocation.history)
    expected = expected_evaluations(rule, 4)
    assert expected is not None
    assert allocation.evaluations <= expected


@pytest.mark.parametrize("rule", BUILT_IN, ids=lambda rule: rule.name)
def test_built_ins_are_registered_by_name(rule: Allocator) -> None:
    found: list[Allocator] = []
    dqas_register_allocators(found.append)
    assert rule in found
    by_name = allocate(rule.name, learn, CAPACITY, 50, seed=3)
    np.testing.assert_array_equal(by_name.counts, allocate(rule, learn, CAPACITY, 50, seed=3).counts)


def test_history_is_json_and_complete() -> None:
    calls: list[tuple[list[int], int]] = []

    def evaluate(counts: IntArray, seed: int) -> ClassScores:
        calls.append((counts.tolist(), seed))
        return learn(counts, seed)

    allocation = allocate(paper, evaluate, CAPACITY, 50, iterations=3)
    history = json.loads(json.dumps(allocation.history))
    assert [(one["counts"], one["seed"]) for one in history] == calls
    assert [one["purpose"] for one in history] == ["paper: even split", *(f"paper: iteration {i}" for i in (1, 2, 3))]
    assert history[0]["objective"] == pytest.approx(np.mean(history[0]["accuracy"]))
    assert allocation.evaluations == 4


def test_evaluations_run_through_the_mapper_and_cannot_change_the_counts() -> None:
    stages: list[int] = []

    def backwards(function: Evaluate, counts: Iterable[IntArray], seeds: Iterable[int]) -> list[ClassScores]:
        jobs = list(zip(counts, seeds, strict=True))
        stages.append(len(jobs))
        return [function(*job) for job in reversed(jobs)][::-1]

    def greedy(counts: IntArray, seed: int) -> ClassScores:
        scores = learn(counts, seed)
        counts += 1000
        return scores

    allocation = allocate(adaptive, greedy, CAPACITY, 50, mapper=backwards)
    np.testing.assert_array_equal(allocation.counts, allocate(adaptive, learn, CAPACITY, 50).counts)
    assert sum(stages) == allocation.evaluations


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 3}, "a budget of 3 is less than one sample for each of 4 classes"),
        ({"budget": 129}, "a budget of 129 exceeds the 128 samples"),
        ({"budget": -5}, "less than one sample"),
        ({"budget": 20.5}, "must be a whole number of samples, not 20.5"),
        ({"capacity": [40, 0, 40, 8]}, "class 1 has no samples"),
        ({"capacity": []}, "one whole number per class"),
        ({"capacity": [1.5, 2.5]}, "one whole number per class"),
        ({"goal": "wurst"}, "unknown goal 'wurst': did you mean 'worst'?"),
        ({"frequencies": [1, 2, 3]}, "class frequencies must be 4 numbers"),
        ({"frequencies": [1, 1, 1, -1]}, "none negative"),
        ({"frequencies": [0, 0, 0, 0]}, "not all zero"),
        ({"frequencies": [1, 1, 1, np.nan]}, "class frequencies"),
        ({"name": "adaptve"}, "unknown allocator 'adaptve': did you mean 'adaptive'"),
        ({"iteratons": 3}, "unknown option of the allocator 'paper' 'iteratons': did you mean 'iterations'?"),
        ({"iterations": -1}, "iterations of the allocator 'paper' must be at least 0, not -1"),
        ({"init": "unform"}, "unknown init 'unform': did you mean 'uniform'?"),
        ({"name": "adaptive", "effort": "prob"}, "unknown effort 'prob': did you mean 'probe'?"),
        ({"name": "adaptive", "confirm": 1}, "confirm of the allocator 'adaptive' must be at least 2, not 1"),
        ({"name": "adaptive", "repeats": 0}, "repeats of the allocator 'adaptive' must be at least 1, not 0"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"name": "paper", "evaluate": learn, "capacity": CAPACITY, "budget": 50, **changes}
    with pytest.raises(UserError) as error:
        allocate(**arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("accuracy", "loss", "message"),
    [
        ([0.5] * 3, [1.0] * 3, "must score 4 classes"),
        ([0.5] * 4, 1.0, "must score 4 classes"),
        ([0.5, np.nan, 0.5, 0.5], [1.0] * 4, "NaN for class 1"),
        ([0.5] * 4, [1, 1, 1, np.nan], "NaN for class 3"),
        ([50.0] * 4, [1.0] * 4, "accuracies in 0..1, not 50..50"),
    ],
)
def test_evaluations_that_are_none(accuracy: Any, loss: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        allocate(paper, lambda counts, seed: ClassScores(np.array(accuracy), np.array(loss)), CAPACITY, 50)


def test_errors_of_the_evaluation_pass_through() -> None:
    def broken(counts: IntArray, seed: int) -> ClassScores:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        allocate(adaptive, broken, CAPACITY, 50)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([20, 20, 5, 4], "allocator 'mine' spent 49 of a budget of 50"),
        ([30, 20, 0, 0], "allocator 'mine' gave class 2 0 samples, outside 1..40"),
        ([10, 10, 10, 20], "allocator 'mine' gave class 3 20 samples, outside 1..8"),
        ([25, 25], "allocator 'mine' must return 4 whole numbers"),
        ([20.0, 20.0, 5.0, 5.0], "allocator 'mine' must return 4 whole numbers"),
    ],
)
def test_plugins_that_break_the_contract_are_named(counts: list[float], message: str) -> None:
    mine = allocator("mine")(lambda problem: Allocation(np.array(counts)))
    with pytest.raises(PluginError, match=message):
        allocate(mine, never, CAPACITY, 50)


def test_a_plugin_that_returns_something_else() -> None:
    with pytest.raises(PluginError, match="allocator 'mine' returned a list"):
        allocate(allocator("mine")(lambda problem: [1, 2]), never, CAPACITY, 50)


def test_a_plugin_gets_history_and_count_for_nothing() -> None:
    @allocator("mine")
    def mine(problem: AllocationProblem, *, extra: int = 1) -> Allocation:
        counts = problem.uniform()
        problem.evaluate_many([(counts, seed) for seed in range(extra)], "look")
        return Allocation(counts)

    allocation = allocate(mine, learn, CAPACITY, 50, extra=3)
    assert allocation.evaluations == 3
    assert [one["purpose"] for one in allocation.history] == ["look"] * 3
    assert expected_evaluations(mine, 4) is None


def test_expected_evaluations() -> None:
    assert expected_evaluations("uniform", 10) == 0
    assert expected_evaluations("paper", 10) == 51
    assert expected_evaluations("paper", 10, iterations=7) == 8
    assert expected_evaluations("paper", 10, reset=False, init="uniform") == 51
    assert expected_evaluations("adaptive", 10) == 126
    assert expected_evaluations("adaptive", 10, effort="train") == 36
    with pytest.raises(UserError, match="did you mean 'effort'"):
        expected_evaluations("adaptive", 10, efort="train")


# The problem's helpers


def test_objectives() -> None:
    scores = ClassScores(np.array([0.9, 0.5, 0.7, 0.1]), np.zeros(4))
    values = {
        goal: AllocationProblem(never, np.array(CAPACITY), 50, goal=goal, frequencies=np.array([7.0, 1, 1, 1])).objective(
            scores
        )
        for goal in ("mean", "natural", "worst")
    }
    assert values == pytest.approx({"mean": 0.55, "natural": 0.76, "worst": 0.1})


def test_frequencies_default_to_the_capacities() -> None:
    problem = AllocationProblem(never, np.array(CAPACITY), 50)
    assert problem.frequencies == pytest.approx(np.array(CAPACITY) / 128)


@pytest.mark.parametrize("counts", [[0, 20, 20, 8], [20, 20, 20, 9], [20, 20, 20]])
def test_counts_outside_the_bounds_are_never_evaluated(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        AllocationProblem(never, np.array(CAPACITY), 50).evaluate_many([(np.array(counts), 0)], "test")


def test_gain_is_the_paired_difference_with_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 6, 4))

    def scores(rows: FloatArray) -> list[ClassScores]:
        return [ClassScores(row, row) for row in rows]

    gain = AllocationProblem(never, np.array(CAPACITY), 50).gain(scores(first), scores(second))
    difference = (first - second).mean(axis=1)
    assert gain.mean == pytest.approx(difference.mean())
    assert gain.error == pytest.approx(difference.std(ddof=1) / np.sqrt(6))
    assert gain.bound(2.0) == pytest.approx(gain.mean - 2 * gain.error)


def test_gain_of_the_lowest_class_is_taken_of_the_means() -> None:
    problem = AllocationProblem(never, np.array([9, 9]), 8, goal="worst")
    noisy = [ClassScores(np.array(row), np.zeros(2)) for row in ([0.2, 0.8], [0.8, 0.2])]
    steady = [ClassScores(np.array([0.45, 0.45]), np.zeros(2))] * 2
    assert problem.gain(noisy, steady).mean == pytest.approx(0.05)  # 0.5 each on average, though 0.2 each time


def test_one_seed_proves_nothing() -> None:
    problem = AllocationProblem(never, np.array(CAPACITY), 50)
    one = [ClassScores(np.ones(4), np.zeros(4))]
    assert problem.gain(one, one) == Gain(0.0, float("inf"))


# Algorithm 1


def transcription(seed: int, budget: int, iterations: int, lb: float) -> tuple[list[list[int]], int]:
    """Algorithm 1 line by line, with lists and loops; the counts of every iteration, and how often line 10 was reached."""
    rng = generator(seed, "allocation", "paper")
    classes, capacity = range(len(CAPACITY)), np.array(CAPACITY)

    def g(rho: list[float]) -> list[int]:
        return [int(one) for one in round_counts(np.array(rho), budget, capacity)]

    a = list(noiseless(np.array(g([1.0] * len(CAPACITY))), 0).accuracy)  # lines 1, 2
    rho = [rng.random() for _ in classes]  # line 3
    rho = [one / sum(rho) for one in rho]
    d = [g(rho)]  # line 4
    i, resets = 0, 0
    while i < iterations:  # line 5
        a_i = noiseless(np.array(d[i]), 0).accuracy  # line 6
        for c in classes:  # line 7
            a[c] = max(a[c], a_i[c])  # line 8
            if a[c] < lb:  # line 9
                rho[c] = rng.random()  # line 10
                resets += 1
            else:
                rho[c] = rho[c] * (1 + (a[c] - a_i[c]))  # line 12
        rho = [one / sum(rho) for one in rho]
        d.append(g(rho))  # line 13
        i += 1
    return d, resets


def noiseless(counts: IntArray, seed: int) -> ClassScores:
    accuracy = np.array([0.95, 0.9, 0.8, 0.7]) - np.array([0.1, 0.5, 1.5, 0.8]) * counts**-0.5
    return ClassScores(np.clip(accuracy, 0, 1), np.zeros(4))


@pytest.mark.parametrize("seed", range(5))
def test_paper_is_algorithm_1(seed: int) -> None:
    expected, resets = transcription(seed, 60, 50, 0.5)
    assert resets > 0
    allocation = allocate(paper, noiseless, CAPACITY, 60, seed=seed)
    assert [one["counts"] for one in allocation.history[1:]] == expected[:-1]
    assert allocation.counts.tolist() == expected[-1]  # the last iterate, whatever it is worth
    other, _ = transcription(seed, 60, 12, 0.2)
    assert allocate(paper, noiseless, CAPACITY, 60, seed=seed, iterations=12, lower_bound=0.2).counts.tolist() == other[-1]


def test_paper_without_resets_equals_a_bound_of_zero() -> None:
    expected, resets = transcription(1, 60, 20, 0.0)
    assert resets == 0
    assert allocate(paper, noiseless, CAPACITY, 60, seed=1, iterations=20, reset=False).counts.tolist() == expected[-1]


def test_paper_from_even_counts_stays_even_while_nothing_changes() -> None:
    def flat(counts: IntArray, seed: int) -> ClassScores:
        return ClassScores(np.full(4, 0.8), np.zeros(4))

    even = allocate(paper, flat, CAPACITY, 50, init="uniform").counts
    assert even.tolist() == [14, 14, 14, 8]
    assert allocate(paper, flat, CAPACITY, 50, init="random").counts.tolist() != even.tolist()


def test_paper_evaluates_with_a_new_seed_each_iteration() -> None:
    allocation = allocate(paper, learn, CAPACITY, 50, iterations=5)
    assert len({one["seed"] for one in allocation.history}) == 6


@pytest.mark.parametrize(("scored", "pool"), [(10, 100), (50, 100), (80, 100)])
def test_overlapping_held_out_images_widen_the_error_to_what_it_is(scored: int, pool: int) -> None:
    """Draw pools of images again and again: the error told by eight overlapping subsets is the spread that pools cause."""
    rng = np.random.default_rng(0)
    problem = AllocationProblem(never, np.array([10, 10]), 10, overlap=scored / pool)
    none = ClassScores(np.full(2, 0.5), np.zeros(2))
    means, told = [], []
    for _ in range(400):
        values = rng.normal(scale=0.05, size=pool)  # what the candidate gains on each image of the pool
        subsets = [rng.choice(values, scored, replace=False).mean() for _ in range(8)]
        gain = problem.gain([ClassScores(np.full(2, 0.5 + one), np.zeros(2)) for one in subsets], [none] * 8)
        means.append(gain.mean)
        told.append(gain.error**2)
    assert np.sqrt(np.mean(told)) == pytest.approx(np.std(means), rel=0.12)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, float("nan")])
def test_an_impossible_overlap_is_refused(overlap: float) -> None:
    with pytest.raises(UserError, match="overlap is a share"):
        AllocationProblem(never, np.array(CAPACITY), 50, overlap=overlap)
