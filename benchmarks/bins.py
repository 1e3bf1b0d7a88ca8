"""Speed and memory of GraphCut bins: ours, the usual algorithm, and the matrix-vector products alone.

One class is divided completely, by each objective. The usual algorithm is DeepCore's, in float64: the matrix of all pairs of
what is left, sums taken anew for every pick, once for every bin; both must pick the same, pick by pick. The products are one
of every sample that is left with each pick: what reading the features costs, here and now.

    python benchmarks/bins.py                       # a class of 5,000 samples, 512 features, ten bins; a few minutes
    python benchmarks/bins.py --samples 1000        # seconds
    python benchmarks/bins.py --no-literal          # without the usual algorithm
    python benchmarks/bins.py --cifar               # ten such classes by rank(), one thread for each class

Ends with an error where the picks differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import literal
import numpy as np
import numpy.typing as npt
import torch

from common import Problem, made_up, peak_megabytes, seconds
from dqas_plugin.quantization.bins import Objective, bin_sizes, draw_in_turn, graphcut_bins
from dqas_plugin.ranking import rank
from dqas_plugin.signals import View

CLASSES, WIDTH, REPEATS, CIFAR = 10, 512, 3, 5000

Array = npt.NDArray[Any]
HEAD = f"{'':10}{'ours, s':>9}{'products, s':>13}{'ratio':>7}{'peak, MB':>10}{'literal, s':>12}{'ratio':>7}   same picks"


@dataclass
class Row:
    """What was measured of one objective.

    Attributes:
        ours: seconds of the repetitions.
        products: seconds of the products, measured in turns with ours.
        peak: megabytes.
    """

    name: Objective
    ours: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)
    peak: float = 0.0

    @property
    def text(self) -> str:
        """The beginning of its line."""
        ours, products = statistics.median(self.ours), statistics.median(self.products)
        return f"{self.name:10}{ours:9.3f}{products:13.3f}{ours / products:7.2f}{self.peak:10.1f}"


def similarity(view: View, objective: Objective) -> Array:
    """What the objective sums, of all pairs, float64 ``[n, n]``."""
    if objective == "eq7":
        return literal.negative_distances(view.features.double().numpy())
    rows = literal.gradients(view) if objective == "deepcore" else gradients_of_dq(view)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    result: Array = 0.5 + 0.5 * rows @ rows.T
    return result


def gradients_of_dq(view: View) -> Array:
    """Last-layer gradients of a loss of softmaxes, by the chain rule, written out."""
    first = literal.softmax(view)
    second = np.exp(first)
    second /= second.sum(axis=1, keepdims=True)
    second[:, view.label] -= 1
    residuals = first * (second - (first * second).sum(axis=1, keepdims=True))
    inputs = np.concatenate([view.features.double().numpy(), np.ones((len(view), 1))], axis=1)
    result: Array = (residuals[:, :, None] * inputs[:, None]).reshape(len(view), -1)
    return result


def literal_bins(pairs: Array, sizes: list[int]) -> list[int]:
    """GraphCut on what is left, bin by bin."""
    left, found = np.arange(len(pairs)), []
    for size in sizes:
        picks = literal.graphcut(pairs[np.ix_(left, left)], size)
        found += left[picks].tolist()
        left = np.delete(left, picks)
    return found


def multiply(features: Array) -> None:
    """One product for every pick, of a matrix that loses a row with each."""
    for rows in range(len(features), 0, -1):
        features[:rows] @ features[0]


def measured(view: View, bins: int, objective: Objective) -> Row:
    """Ours and the products."""
    row, features = Row(objective), view.features.numpy()
    graphcut_bins(view, bins, objective=objective)  # computes the gradients, and loads what it needs
    for _ in range(REPEATS):
        row.products.append(seconds(lambda: multiply(features)))
        row.ours.append(seconds(lambda: graphcut_bins(view, bins, objective=objective)))
    row.peak = peak_megabytes(lambda: graphcut_bins(view, bins, objective=objective))
    return row


def one_class(problem: Problem, bins: int, compare: bool) -> None:
    """The table."""
    view = problem.signals().view(0)
    megabytes = 4e-6 * len(view) * WIDTH
    print(f"a class of {len(view)} samples, {WIDTH} features ({megabytes:.1f} MB), {CLASSES} logits, {bins} bins; "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    print(HEAD)
    wrong = []
    for objective in get_args(Objective):
        row = measured(view, bins, objective)
        print(row.text, end="", flush=True)
        if compare:
            own = np.concatenate(graphcut_bins(view, bins, objective=objective)).tolist()
            started = time.perf_counter()
            right = literal_bins(similarity(view, objective), bin_sizes(len(view), bins))
            spent = time.perf_counter() - started
            same = sum(one == other for one, other in zip(own, right, strict=True))
            print(f"{spent:12.2f}{spent / statistics.median(row.ours):7.1f}   {same}/{len(own)}", end="")
            wrong += [objective] if own != right else []
        print(flush=True)
    picked = graphcut_bins(view, bins)
    print(f"an order drawn from the bins: {1e3 * seconds(lambda: draw_in_turn(picked, np.random.default_rng(0))):.1f} ms")
    if wrong:
        sys.exit(f"other picks than the usual algorithm's: {', '.join(wrong)}")


def whole(problem: Problem, bins: int) -> None:
    """All classes, as the pipeline ranks them."""
    signals = problem.signals()
    counts = np.bincount(problem.labels.numpy(), minlength=CLASSES)
    print(f"{CLASSES} classes of {CIFAR}, {WIDTH} features, {bins} bins, ranked completely; {torch.get_num_threads()} threads")
    for objective in get_args(Objective):
        spent = seconds(partial(rank, signals, f"bins:{objective}", counts=counts, bins=bins))
        print(f"{objective:10}{spent:9.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=CIFAR, help="of the class")
    parser.add_argument("--bins", type=int, default=10, help="how many")
    parser.add_argument("--no-literal", action="store_true", help="without the usual algorithm")
    parser.add_argument("--cifar", action="store_true", help="50,000 samples of ten classes")
    options = parser.parse_args()
    if options.cifar:
        whole(made_up([CIFAR] * CLASSES, WIDTH, CLASSES), options.bins)
    else:
        one_class(made_up([options.samples], WIDTH, CLASSES), options.bins, not options.no_literal)


if __name__ == "__main__":
    main()
