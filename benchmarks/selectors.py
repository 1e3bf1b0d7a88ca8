"""Speed and memory of the selection methods, each against a literal implementation of the algorithm it stands for.

The literal one is the usual one: greedy over a dense matrix of similarities, whose sums are taken anew for every pick. Both get
the same features in the same run, in turns, and must pick the same samples. The other yardstick is one matrix-vector product
(float32, all features) per pick: what reading the features once a pick costs, here and now.

    python benchmarks/selectors.py            # one class of 5,000 samples, 512 features, 2,500 picks
    python benchmarks/selectors.py --quick    # under a minute
    python benchmarks/selectors.py --threads 1

The last line is the headline: the geometric mean over the methods of literal time over ours.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from dqas_plugin.signals import View

    Array = npt.NDArray[Any]

CLASSES = 10


def step_aside() -> None:
    """Leave the name ``selectors`` to the standard library, whose module of that name ``subprocess`` needs.

    A script's own folder comes first on the path, so without this neither this file nor its neighbours could import torch.
    """
    path = sys.path.copy()
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [one for one in path if os.path.abspath(one) != here]
    sys.modules.pop("selectors", None)
    importlib.import_module("selectors")
    sys.path[:] = path


step_aside()


@dataclass(frozen=True)
class Contest:
    """One row of the table.

    Attributes:
        name: the method, with its variant.
        prepare: the literal algorithm's first step: ``prepare(view)`` gives what ``greedy`` reads.
        greedy: the literal algorithm's loop: ``greedy(prepared, budget)`` gives the picks in order.
    """

    name: str
    prepare: Callable[[View], Array]
    greedy: Callable[[Array, int], list[int]]


def distances(view: View) -> Array:
    """Minus the squared Euclidean distances of all pairs, float64 ``[n, n]``.

    With one bin equation 7 is 2 Σ over the picked - Σ over all of the distances: the other objective with this similarity.
    """
    import numpy as np

    points = view.features.double().numpy()
    points = points - points.mean(axis=0)
    squares = np.square(points).sum(axis=1)
    result: Array = 2 * points @ points.T - squares[:, None] - squares
    return result


def similarities(view: View) -> Array:
    """.5 + .5 cos of all pairs of last-layer gradients, written out (``[n, C (d + 1)]``), float64 ``[n, n]``."""
    import numpy as np

    logits = view.logits.double().numpy()
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    residuals = chances / chances.sum(axis=1, keepdims=True)
    residuals[:, view.label] -= 1
    bias = np.ones((len(view), 1))
    gradients = (residuals[:, :, None] * np.concatenate([view.features.double().numpy(), bias], axis=1)[:, None]).reshape(
        len(view), -1
    )
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    result: Array = 0.5 + 0.5 * gradients @ gradients.T
    return result


def greedy_graphcut(similarity: Array, budget: int) -> list[int]:
    """-2 Σ over the picked + Σ over all, for every sample that is left, anew for every pick."""
    import numpy as np

    everything = similarity.sum(axis=1)
    selected = np.zeros(len(similarity), dtype=bool)
    picks: list[int] = []
    for _ in range(budget):
        left = np.flatnonzero(~selected)
        gains = -2 * similarity[np.ix_(left, np.flatnonzero(selected))].sum(axis=1) + everything[left]
        picks.append(int(left[gains.argmax()]))
        selected[picks[-1]] = True
    return picks


CONTESTS = (
    Contest("graphcut:eq7", distances, greedy_graphcut),
    Contest("graphcut:deepcore", similarities, greedy_graphcut),
)


def one_class(count: int, width: int) -> View:
    """A class with features like those of a network: not negative, of several clusters, with a head that mostly knows it."""
    import numpy as np

    from dqas_plugin.signals import Signals

    draws = np.random.default_rng(0)
    centres = draws.normal(size=(12, width))
    features = np.maximum(centres[draws.integers(0, 12, count)] + 0.7 * draws.normal(size=(count, width)), 0)
    logits = features @ draws.normal(size=(width, CLASSES)) / math.sqrt(width) + 2 * (np.arange(CLASSES) == 0)
    return Signals.from_arrays(features, logits, np.zeros(count, np.int64), num_classes=CLASSES).view(0)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def products(view: View, budget: int) -> None:
    """One matrix-vector product per pick, nothing else."""
    features = view.features.numpy()
    for position in range(budget):
        features @ features[position]


def peak_megabytes(work: Callable[[], object]) -> float:
    """Most memory that NumPy and Python held at once during ``work``, beyond what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def compare(contest: Contest, view: View, budget: int, repeats: int) -> float:
    """Print one row; literal time over ours."""
    import numpy as np

    from dqas_plugin.ranking import as_selector

    selector, options = as_selector(contest.name)
    result: dict[str, list[int]] = {}

    def ours() -> None:
        chosen = selector(view, budget, np.random.default_rng(0), **options)
        result["ours"] = [int(one) for one in chosen]

    def literal() -> None:
        result["literal"] = contest.greedy(contest.prepare(view), budget)

    selector(view, min(8, budget), np.random.default_rng(0), **options)  # warm up: what views compute once is computed now
    turns = [(seconds(lambda: products(view, budget)), seconds(ours)) for _ in range(repeats)]
    once = seconds(literal)
    product, own = (statistics.median(one) for one in zip(*turns, strict=True))
    per_product = statistics.median(two / one for one, two in turns)
    memory = peak_megabytes(ours)
    if result["ours"] != result["literal"]:
        first = next(i for i, pair in enumerate(zip(result["ours"], result["literal"], strict=True)) if pair[0] != pair[1])
        sys.exit(f"{contest.name}: other picks than those of the literal algorithm, from number {first + 1} on")
    row = f"{own:8.3f} {once:10.2f} {once / own:8.1f} {product:11.3f} {per_product:12.2f} {memory:10.1f}"
    print(f"{contest.name:20} {row}   equal ({budget})", flush=True)
    return float(once / own)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples, under a minute")
    parser.add_argument("--threads", type=int, help="threads of the matrix products (default: the libraries' own choice)")
    parser.add_argument("--only", help="methods whose name contains this")
    options = parser.parse_args()
    if options.threads:  # NumPy's library reads this when it is loaded, hence the imports inside functions
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads)))
    count, budget, repeats = (2000, 1000, 3) if options.quick else (5000, 2500, 5)
    view = one_class(count, 512)
    import torch

    megabytes = view.features.nbytes / 1e6
    print(
        f"{count} samples, 512 features ({megabytes:.1f} MB; all pairs in float32: {4e-6 * count * count:.0f} MB), "
        f"{CLASSES} classes, {budget} picks, {options.threads or torch.get_num_threads()} threads"
    )
    heads = f"{'ours, s':>8} {'literal, s':>10} {'ratio':>8} {'products, s':>11} {'per product':>12} {'peak, MB':>10}"
    print(f"{'':20} {heads}   picks")
    chosen = [one for one in CONTESTS if not options.only or options.only in one.name]
    ratios = [compare(one, view, budget, repeats) for one in chosen]
    print(f"geometric mean ratio {statistics.geometric_mean(ratios):.1f}")


if __name__ == "__main__":
    main()
