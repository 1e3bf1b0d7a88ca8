"""``adaptive`` in worlds whose answer is known: it gains where classes differ, and keeps even counts where they do not.

A world is a set of learning curves; the oracle is found by exchanging samples between classes for as long as that helps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dqas_plugin.allocation import Allocation, AllocationProblem, Gain, allocate
from dqas_plugin.allocation.adaptive import Candidate, _settle, adaptive
from dqas_plugin.allocation.curves import Curves, fit_curves
from dqas_plugin.allocation.paper import paper
from dqas_plugin.allocation.proposals import response_directions
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.scores import ClassScores

CLASSES, BUDGET, EVEN = 10, 1000, 100
CAPACITY = np.full(CLASSES, 500)


@dataclass(frozen=True, eq=False)
class World:
    """Accuracy of class c is ``a_c - b_c n_c^-g_c - sum_j talk[c, j] log(n_j / mean n)``, measured on ``images`` a class.

    Equal seeds share the held-out images and the luck of the training; ``noise`` is what a training adds of its own.
    """

    a: FloatArray
    b: FloatArray
    g: FloatArray
    talk: FloatArray
    images: int = 100
    noise: float = 0.02

    def accuracy(self, counts: npt.ArrayLike) -> FloatArray:
        n = np.asarray(counts, dtype=np.float64)
        return np.asarray(np.clip(self.a - self.b * n**-self.g - self.talk @ np.log(n / n.mean()), 0, 1), dtype=np.float64)

    def evaluate(self, counts: IntArray, seed: int) -> ClassScores:
        assert (counts >= 1).all()
        assert (counts <= CAPACITY).all()
        common = np.random.default_rng([seed, 1])
        images, luck = common.random((CLASSES, self.images)), common.normal(size=CLASSES) * 0.01
        own = np.random.default_rng([seed, *counts.tolist()]).normal(size=CLASSES) * self.noise
        accuracy = (images < np.clip(self.accuracy(counts) + luck + own, 0, 1)[:, None]).mean(axis=1)
        return ClassScores(accuracy, 1 - accuracy)


def world(at_even: npt.ArrayLike, slope: npt.ArrayLike, talk: FloatArray | float = 0.0, power: float = 0.3) -> World:
    """Classes with the given accuracy and slope (accuracy per e-fold) at even counts."""
    level, steep = (np.broadcast_to(np.asarray(one, dtype=np.float64), CLASSES) for one in (at_even, slope))
    cross = np.broadcast_to(np.asarray(talk, dtype=np.float64), (CLASSES, CLASSES)) * (1 - np.eye(CLASSES))
    return World(level + steep / power, steep / power * EVEN**power, np.full(CLASSES, power), cross)


def half(first: float, second: float) -> FloatArray:
    return np.repeat([first, second], CLASSES // 2)


CONTROL = world(half(0.97, 0.5), half(0.0, 0.22), power=0.5)  # five classes have enough, five need more
FASHION = world(
    1 - np.array([0.2, 0.03, 0.3, 0.2, 0.3, 0.08, 0.5, 0.1, 0.05, 0.06]),
    [0.06, 0.01, 0.09, 0.06, 0.09, 0.02, 0.15, 0.03, 0.015, 0.02],
)
ALIKE = world(0.75, 0.08)
CROSS_TALK = world(
    half(0.9, 0.5), half(0.05, 0.12), talk=half(0.01, 0.07) / (CLASSES - 1)
)  # net, a sample of any class gains .04


def oracle(truth: World) -> float:
    """Best class-mean accuracy: pairwise exchanges of ever fewer samples from even counts."""
    counts = np.full(CLASSES, EVEN)
    for size in (40, 20, 10, 5):
        improved = True
        while improved:
            value = truth.accuracy(counts).mean()
            improved = False
            for giver in range(CLASSES):
                for taker in range(CLASSES):
                    moved = counts.copy()
                    moved[giver] -= size
                    moved[taker] += size
                    if moved.min() >= 1 and moved.max() <= CAPACITY[0] and truth.accuracy(moved).mean() > value + 1e-9:
                        value, counts, improved = truth.accuracy(moved).mean(), moved, True
    return float(truth.accuracy(counts).mean())


def run(truth: World, seed: int, **options: Any) -> Allocation:
    return allocate(adaptive, truth.evaluate, CAPACITY, BUDGET, seed=seed, **options)


def gains(truth: World, seeds: int, **options: Any) -> FloatArray:
    """True gain in class-mean accuracy over even counts, a seed each."""
    even = truth.accuracy(np.full(CLASSES, EVEN)).mean()
    return np.array([truth.accuracy(run(truth, seed, **options).counts).mean() - even for seed in range(seeds)])


# Where classes differ


def test_takes_most_of_the_gain_where_classes_differ() -> None:
    best = oracle(CONTROL) - CONTROL.accuracy(np.full(CLASSES, EVEN)).mean()
    found = gains(CONTROL, 10)
    assert best > 0.05
    assert found.mean() > 0.8 * best
    assert found.min() > 0.6 * best
    counts = run(CONTROL, 0).counts
    assert counts[5:].min() > counts[:5].max()


def test_beats_algorithm_1_where_classes_differ() -> None:
    literal = [
        CONTROL.accuracy(allocate(paper, CONTROL.evaluate, CAPACITY, BUDGET, seed=seed).counts).mean() for seed in range(5)
    ]
    assert gains(CONTROL, 5).mean() + CONTROL.accuracy(np.full(CLASSES, EVEN)).mean() > np.mean(literal)


def test_finds_a_gain_of_one_point() -> None:
    """About as much as hand-set counts gained on Fashion-MNIST."""
    best = oracle(FASHION) - FASHION.accuracy(np.full(CLASSES, EVEN)).mean()
    found = gains(FASHION, 10)
    assert 0.005 < best < 0.02
    assert found.mean() > 0.6 * best
    assert found.min() >= 0


def test_effort_for_real_trainings_gains_with_a_third_of_the_evaluations() -> None:
    found = run(CONTROL, 0, effort="train")
    assert found.evaluations <= 36
    assert gains(CONTROL, 8, effort="train").mean() > 0.6 * (oracle(CONTROL) - CONTROL.accuracy(np.full(CLASSES, EVEN)).mean())


def test_reports_a_gain_like_the_true_one() -> None:
    found = run(CONTROL, 0)
    assert found.gain is not None
    true = CONTROL.accuracy(found.counts).mean() - CONTROL.accuracy(np.full(CLASSES, EVEN)).mean()
    assert abs(found.gain.mean - true) < 4 * found.gain.error


def test_the_measured_response_sees_what_own_curves_cannot() -> None:
    """The hard classes learn fastest, but take more from the others than they gain."""
    truth = replace(world(half(0.9, 0.5), half(0.04, 0.12), talk=half(0.0, 0.15) / (CLASSES - 1)), images=200)
    assert gains(truth, 10).mean() > 0.001
    assert gains(truth, 10, directions=0).mean() < 0.0005


def test_response_directions_are_orthogonal_and_only_move_samples() -> None:
    rows = response_directions(AllocationProblem(CONTROL.evaluate, CAPACITY, BUDGET), 12)
    np.testing.assert_allclose(rows.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((rows**2).mean(axis=1), 1)
    np.testing.assert_allclose(rows[:9] @ rows[:9].T, CLASSES * np.eye(9), atol=1e-12)


# Where they do not


@pytest.mark.parametrize("truth", [ALIKE, CROSS_TALK], ids=["alike", "cross-talk"])
@pytest.mark.parametrize("images", [40, 200])
def test_stays_within_noise_of_even_counts_where_those_are_best(truth: World, images: int) -> None:
    found = gains(replace(truth, images=images), 32)
    assert found.mean() > -0.001
    assert found.min() > -0.01
    assert (found == 0).mean() > 0.5 or found.mean() > 0


def test_harder_is_not_the_same_as_short_of_samples() -> None:
    """Accuracies differ, slopes do not, as on CIFAR-10."""
    found = gains(world(half(0.85, 0.45), 0.08), 32)
    assert found.mean() > -0.001
    assert (found == 0).mean() > 0.5


def test_decides_on_fresh_seeds_only() -> None:
    found = run(CONTROL, 0)
    seeds = {purpose: {one["seed"] for one in found.history if one["purpose"] == purpose} for purpose in ("screen", "confirm")}
    assert len(seeds["screen"]) == 2
    assert len(seeds["confirm"]) == 8
    assert not seeds["screen"] & seeds["confirm"]
    for purpose, numbers in seeds.items():
        tried = [(tuple(one["counts"]), one["seed"]) for one in found.history if one["purpose"] == purpose]
        assert {seed for counts, seed in tried if set(counts) == {EVEN}} == numbers  # even counts with every seed
        assert len(set(tried)) == len(tried)
        assert len(tried) == len({counts for counts, _ in tried}) * len(numbers)


def test_more_confidence_adopts_less() -> None:
    adopted = {z: sum(run(FASHION, seed, confidence=z).chosen != "uniform" for seed in range(6)) for z in (0.0, 1.0, 50.0)}
    assert adopted[0.0] >= adopted[1.0] > adopted[50.0] == 0


# Goals


def test_goal_worst_raises_the_lowest_class() -> None:
    even = FASHION.accuracy(np.full(CLASSES, EVEN)).min()
    found = [FASHION.accuracy(run(FASHION, seed, goal="worst").counts).min() - even for seed in range(5)]
    assert np.mean(found) > 0.08
    assert min(found) > 0


def test_goal_natural_favours_the_frequent_class() -> None:
    frequencies = np.array([0.55, *[0.05] * 9])
    even = frequencies @ ALIKE.accuracy(np.full(CLASSES, EVEN))
    for seed in range(3):
        counts = run(ALIKE, seed, goal="natural", frequencies=frequencies).counts
        assert counts.argmax() == 0
        assert counts[0] > 1.5 * EVEN
        assert frequencies @ ALIKE.accuracy(counts) > even + 0.01


# Which of the confirmed candidates


def measured(*rows: tuple[list[int], float, float]) -> list[tuple[Candidate, Gain]]:
    return [(Candidate(f"proposal {place}", 1.0, np.array(counts)), Gain(*told)) for place, (counts, *told) in enumerate(rows)]


NONE = Candidate("uniform", 0.0, np.array([10, 10]))


def test_nothing_surely_better_keeps_even_counts() -> None:
    chosen, gain = _settle(NONE, measured(([5, 15], 0.02, 0.021), ([8, 12], -0.01, 0.001)), 1.0)
    assert chosen is NONE
    assert (gain.mean, gain.error) == (0.0, 0.0)


def test_of_equally_good_counts_the_nearest_to_even_are_chosen() -> None:
    rows = measured(([2, 18], 0.030, 0.005), ([7, 13], 0.026, 0.006), ([9, 11], 0.010, 0.004))
    assert _settle(NONE, rows, 1.0)[0] is rows[1][0]


def test_near_counts_must_be_surely_better_themselves() -> None:
    rows = measured(([2, 18], 0.030, 0.020), ([9, 11], 0.020, 0.021))
    assert _settle(NONE, rows, 1.0)[0] is rows[0][0]


# Bounds and repetition


def test_the_same_seed_gives_the_same_result() -> None:
    first, again, other = run(FASHION, 7), run(FASHION, 7), run(FASHION, 8)
    np.testing.assert_array_equal(first.counts, again.counts)
    assert first.history == again.history
    assert first.history != other.history


def test_tight_capacities_are_kept() -> None:
    capacity = np.array([500] * 5 + [120] * 5)  # the world asserts the bounds of CAPACITY; these are checked by allocate
    found = allocate(adaptive, CONTROL.evaluate, capacity, BUDGET)
    assert found.counts[5:].tolist() == [120] * 5
    assert all((np.array(one["counts"]) <= capacity).all() for one in found.history)
    assert all((np.array(one["counts"]) >= 1).all() for one in found.history)


@pytest.mark.parametrize(("capacity", "budget"), [([5, 5, 5], 3), ([5, 5, 5], 15), ([9], 4)])
def test_nothing_is_evaluated_where_there_is_nothing_to_choose(capacity: list[int], budget: int) -> None:
    def never(counts: IntArray, seed: int) -> ClassScores:
        raise AssertionError("evaluated")

    found = allocate(adaptive, never, capacity, budget)
    assert found.counts.sum() == budget
    assert (found.chosen, found.evaluations) == ("uniform", 0)


@pytest.mark.parametrize("classes", [2, 3, 120])
def test_other_numbers_of_classes(classes: int) -> None:
    need = np.arange(classes) % 2

    def evaluate(counts: IntArray, seed: int) -> ClassScores:
        noise = np.random.default_rng([seed, *counts.tolist()]).normal(size=classes) * 0.01
        accuracy = np.clip(0.9 - 1.5 * need * counts**-0.5 + noise, 0, 1)
        return ClassScores(accuracy, 1 - accuracy)

    found = allocate(adaptive, evaluate, np.full(classes, 100), 30 * classes)
    assert found.counts[need == 1].mean() > 1.3 * found.counts[need == 0].mean()


def test_perfect_and_hopeless_classes_are_no_trouble() -> None:
    def evaluate(counts: IntArray, seed: int) -> ClassScores:
        return ClassScores(np.array([1.0, 0.0, 1.0]), np.array([0.0, np.inf, 0.0]))

    found = allocate(adaptive, evaluate, [50, 50, 50], 60)
    assert found.counts.tolist() == [20, 20, 20]


# Learning curves


def test_curves_are_recovered() -> None:
    a, b, g = np.array([0.9, 0.8, 0.95, 0.7]), np.array([1.0, 0.5, 0.0, 2.0]), np.array([0.5, 0.2, 0.5, 1.0])
    sizes = np.repeat(np.array([[12.0], [25], [50], [75], [100]]), 4, axis=1)
    curves = fit_curves(sizes, a - b * sizes**-g)
    ahead = np.full(4, 200.0)
    np.testing.assert_allclose(curves.accuracy(ahead), a - b * ahead**-g, atol=0.005)
    assert (curves.ceiling <= 1).all()
    assert (curves.drop >= 0).all()


def test_curves_never_fall_nor_exceed_one() -> None:
    sizes = np.repeat(np.array([[12.0], [25], [50], [75], [100]]), 2, axis=1)
    curves = fit_curves(sizes, np.array([[0.9, 0.2], [0.8, 0.4], [0.7, 0.6], [0.65, 0.8], [0.6, 1.0]]))
    assert curves.drop[0] == 0
    assert curves.accuracy(np.full(2, 1e9))[1] <= 1


def test_advice_has_equal_slopes_between_the_bounds() -> None:
    curves = Curves(np.full(5, 0.95), np.array([0.0, 0.3, 1.0, 2.0, 9.0]), np.array([0.5, 0.3, 0.5, 0.5, 0.6]))
    capacity = np.array([900, 900, 900, 900, 150])
    importance = np.array([0.2, 0.2, 0.2, 0.1, 0.3])
    counts = curves.advise(500, capacity, importance)
    assert counts.sum() == pytest.approx(500)
    assert counts[0] == pytest.approx(25)  # a quarter of the even share, below which nothing was measured
    assert counts[4] == pytest.approx(150)
    slopes = (importance * curves.drop * curves.exponent * counts ** (-curves.exponent - 1))[1:4]
    assert slopes == pytest.approx(np.full(3, slopes[0]), rel=1e-6)
