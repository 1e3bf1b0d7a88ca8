"""Does the probe tell what class counts do? Its answer beside that of a linear probe and of real training.

On the generated dataset ``shapes``, whose hard classes need samples of many modes: budget is moved from the easy half of the
classes to the hard half, and the other way, and each proxy says how much that changes the class-mean accuracy. Real training
is scored on the test split, the probes on training images that were held out.

    python benchmarks/probe.py            # 6 seeds
    python benchmarks/probe.py --quick    # 2 seeds, about a minute

Prints mean and standard error over seeds in points, and what one answer costs. Trainings use one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from dqas_plugin import load_dataset
from dqas_plugin.data import BoolArray, DatasetSplits, IntArray
from dqas_plugin.models import convnet3_small
from dqas_plugin.proxy import HeldOut, even_draw, probe_evaluator
from dqas_plugin.recipes import Recipe
from dqas_plugin.seeding import generator
from dqas_plugin.trained_signals import compute_signals
from dqas_plugin.training import train

CLASSES, PER_CLASS = 6, 40
RECIPE = Recipe("short", iterations=120, batch=32, lr=0.05, nesterov=True, warmup=0.1, precision="fp32")
EVEN = np.full(CLASSES, PER_CLASS)
MOVES = {"22 easy, 58 hard": [22, 22, 22, 58, 58, 58], "58 easy, 22 hard": [58, 58, 58, 22, 22, 22]}
HOLD_OUTS = 6

Mean = Callable[[IntArray], float]


def random_picks(labels: IntArray, seed: int) -> Callable[[IntArray, BoolArray], IntArray]:
    """The first free samples of every class in a random order."""
    order = [generator(seed, "order", label).permutation(np.flatnonzero(labels == label)) for label in range(CLASSES)]

    def pick(counts: IntArray, without: BoolArray) -> IntArray:
        return np.concatenate([one[~without[one]][:count] for one, count in zip(order, counts, strict=True)])

    return pick


def proxies(data: DatasetSplits, seed: int) -> dict[str, Mean]:
    """Class-mean accuracy of class counts, by each proxy."""
    labels = data.train.labels.numpy()
    used = even_draw(labels, EVEN, seed)
    signals = compute_signals(data.train, "convnet3-small", convnet3_small, RECIPE, seed, trained_on=used)
    assert signals.features is not None
    never = np.isin(np.arange(len(labels)), used)
    held_out, pick = HeldOut.of(labels, EVEN, never), random_picks(labels, seed)

    def probe(fourier: bool) -> Mean:
        assert signals.features is not None
        evaluate = probe_evaluator(signals.features, labels, pick, held_out, EVEN, "balanced", fourier=fourier)
        return lambda counts: float(np.mean([evaluate(counts, one).mean for one in range(HOLD_OUTS)]))

    def real(counts: IntArray) -> float:
        chosen = data.train.subset(pick(counts, np.zeros(len(labels), dtype=bool)))
        result = train(convnet3_small, chosen, RECIPE, seed, test=data.test, evaluations=1)
        assert result.last is not None
        return result.last.mean

    return {"linear probe": probe(False), "probe": probe(True), "real training": real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("shapes", classes=CLASSES, modes=50, per_class=800, test_per_class=500)
    seeds = 2 if options.quick else 6
    changes: dict[tuple[str, str], list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(seeds):
        for name, accuracy in proxies(data, seed).items():
            base = accuracy(EVEN)
            for move, counts in MOVES.items():
                started = time.perf_counter()
                changes.setdefault((name, move), []).append(100 * (accuracy(np.array(counts)) - base))
                seconds.setdefault(name, []).append(time.perf_counter() - started)
    print(f"shapes, {CLASSES} classes, {PER_CLASS} images a class, {seeds} seeds: change of class-mean accuracy, points")
    print(f"{'':14} {'  '.join(f'{move:>18}' for move in MOVES)}  seconds an answer")
    for name, spent in seconds.items():
        told = [np.array(changes[name, move]) for move in MOVES]
        row = "  ".join(f"{one.mean():+10.2f} ± {one.std(ddof=1) / len(one) ** 0.5:5.2f}" for one in told)
        calls = HOLD_OUTS if name != "real training" else 1
        print(f"{name:14} {row}  {np.mean(spent) / calls:17.2f}")


if __name__ == "__main__":
    main()
