"""Speed and memory of expected error reduction: scoring all of a large pool, beside fitting the last layer anew for each.

The exact way, with which the scores are compared, is timed on a few candidates and counted up to all of them: the last layer is
fitted to the selection with the candidate, starting from the fit without it, and looks at the whole pool. It is fitted by the
same Newton's method as ours, so that the ratio is not one of programs but of methods.

    python benchmarks/refinement.py                  # 45,000 candidates, 5,000 selected, 10 and 100 classes; some minutes
    python benchmarks/refinement.py --quick          # a tenth of both; seconds
    python benchmarks/refinement.py --classes 100    # only that many

Goals: all candidates in less than 10 seconds with 10 classes and in less than 60 with 100, on two threads; memory in
proportion to what is there (full size: at most twice what features and logits take); the order of the exact way (Spearman of
at least .95).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from common import peak_megabytes, seconds
from dqas_plugin.refinement import SCORERS, error_reduction, expected_error_change
from dqas_plugin.refinement.last_layer import Fitted, Problem

GOALS = {10: 10.0, 100: 60.0}
"""Seconds for scoring all candidates."""

SPEARMAN = 0.95
L2 = 1.0


@dataclass(frozen=True)
class Scale:
    """Sizes of a run.

    Attributes:
        selected: samples in the selection.
        pool: candidates.
        width: of the features.
        exact: candidates that the exact way is timed on.
    """

    selected: int
    pool: int
    width: int
    exact: int


def made_up(scale: Scale, classes: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Features like those of a network that is mostly right: float32 ``[N, d]``, labels, selected indices.

    Few directions matter, classes have parts, and one label in twenty is wrong.
    """
    draws = np.random.default_rng(0)
    count = scale.selected + scale.pool
    labels = draws.integers(0, classes, count)
    spread = (1 / np.sqrt(np.arange(1, scale.width + 1))).astype(np.float32)
    parts = 0.75 * draws.standard_normal((classes, 4, scale.width), np.float32)
    features = draws.standard_normal((count, scale.width), np.float32)
    features += parts[labels, draws.integers(0, 4, count)]
    features *= spread
    np.maximum(features, 0.0, out=features)
    wrong = draws.random(count) < 0.05
    labels[wrong] = draws.integers(0, classes, wrong.sum())
    return torch.from_numpy(features), torch.from_numpy(labels), np.sort(draws.permutation(count)[: scale.selected])


def exact_change(fitted: Fitted, selected: np.ndarray, candidate: int, before: float) -> float:
    """What the candidate truly does."""
    grown = fitted.problem.fitted(np.append(selected, candidate), L2, start=fitted.weights, tolerance=1e-6)
    logits = torch.cat([part.double() @ grown.weights for _, part in fitted.blocks()])
    return float(functional.cross_entropy(logits, fitted.pool_labels)) - before


def steps(features: Tensor, labels: Tensor, selected: np.ndarray) -> Fitted:
    """Print what each step takes."""
    started = time.perf_counter()
    problem = Problem.of(features, labels, selected)
    fitted = problem.fitted(selected, L2)
    print(f"    fit                  {time.perf_counter() - started:8.2f} s")
    for name, attribute in (("gradient of the pool", "pool_gradient"), ("inverse Hessian", "response")):
        print(f"    {name:20} {seconds(lambda one=attribute: getattr(fitted, one)):8.2f} s")  # type: ignore[misc]
    for name, score in SCORERS.items():
        print(f"    {name:20} {seconds(lambda one=score: one(fitted, False)):8.2f} s")  # type: ignore[misc]
    return fitted


def run(scale: Scale, classes: int) -> bool:
    """Print all figures; whether the goals are met."""
    features, labels, selected = made_up(scale, classes)
    print(f"{scale.pool:,} candidates, {scale.selected:,} selected, {scale.width} features, {classes} classes")
    fitted = steps(features, labels, selected)
    logits = torch.cat([fitted.pool_logits(rows, part) for rows, part in fitted.blocks()])
    hit = float((logits.argmax(1) == fitted.pool_labels).double().mean())
    found: list[np.ndarray] = []
    taken = seconds(lambda: found.append(expected_error_change(features, labels, selected, l2=L2)))
    peak = peak_megabytes(lambda: expected_error_change(features, labels, selected, l2=L2))
    size = (features.nbytes + logits.nbytes) / 1e6
    goal = GOALS.get(classes, np.inf)
    print(f"  all of it {taken:.2f} s (goal {goal:.0f}), peak {peak:.0f} MB beside {size:.0f} MB of data; accuracy {hit:.2f}")

    pool = np.setdiff1d(np.arange(len(labels)), selected)
    tried = np.random.default_rng(1).choice(pool, scale.exact, replace=False)
    precise = fitted.problem.fitted(selected, L2, start=fitted.weights, tolerance=1e-6)
    before = precise.pool_loss
    truth: list[float] = []
    slow = seconds(lambda: truth.extend(exact_change(precise, selected, int(one), before) for one in tried)) / scale.exact
    rank = float(spearmanr(found[0][tried], truth)[0]) if scale.exact > 2 else np.nan
    print(
        f"  exact: {slow:.2f} s a candidate, {slow * scale.pool / 3600:.1f} h for all (counted up from {scale.exact}): "
        f"{slow * scale.pool / taken:,.0f} times as long; Spearman with it {rank:.3f}"
    )
    added = scale.selected // 10
    rounds = seconds(lambda: error_reduction(features, labels, selected, added, l2=L2, rounds=3))
    print(f"  a round of {added // 3} samples, fitted from the last one: {rounds / 3:.2f} s")
    return taken <= goal and rank >= SPEARMAN and (peak <= 2 * size or scale.pool < 45000)


def main() -> int:
    """Exit status 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description="Speed and memory of expected error reduction.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--classes", type=int, help="only so many classes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--exact", type=int, default=20, help="candidates that the exact way is timed on")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    scale = Scale(500, 4500, 512, given.exact) if given.quick else Scale(5000, 45000, 512, given.exact)
    met = [run(scale, classes) for classes in ((given.classes,) if given.classes else GOALS)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
