"""A grid whose cells take no time but write all files that real ones write: cache entries, selections, results.

    python tests/toy_grid.py FOLDER KILLS SEED [DAMAGE]

Runs it once undisturbed, and then, in other folders, kills it at random moments until it is finished, so often that there
were that many kills; after each, with a probability of ``DAMAGE``, a file is damaged as well. Prints what came of it as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import killing
from dqas_plugin.bench import Cell, DatasetReference, Steps, plan, run
from dqas_plugin.bench.cell import Chosen, Preparation, Task, read_selection
from dqas_plugin.cache_entry import ArrayFile, cached_entry, map_array
from dqas_plugin.paths import cache_folder
from dqas_plugin.seeding import generator
from dqas_plugin.selection import Selection

DIGITS = DatasetReference("digits", "0123", images=1438, classes=10, mirror=False)
PAUSE = 0.001  # seconds of every step, so that kills come between all of them


def cells() -> list[Cell]:
    """18 of them."""
    return plan(DIGITS, ["graphcut", "moderate"], ratios=[0.05, 0.1], allocators=["adaptive"], seeds=2)[:18]


def signals(cell: Cell) -> Any:
    """An array that cells share, from the cache."""

    def fill(folder: Path) -> dict[str, Any]:
        values = generator(cell.seed, "toy").normal(size=(50, 400)).astype(np.float32)
        with ArrayFile(folder / "values.npy", values.shape, np.float32) as file:
            for block in np.split(values, 5):
                file.write(block)
                time.sleep(PAUSE)
        return {"seed": cell.seed}

    return cached_entry(
        cache_folder("toy") / str(cell.seed), "the toy", fill, lambda folder, _: map_array(folder / "values.npy")
    )


def prepare(preparation: Preparation) -> None:
    """Fill the cache."""
    for task in preparation.tasks:
        signals(task.cell)


def select(task: Task) -> Chosen:
    """A random selection that depends on the cell and on the cache."""
    start = int(abs(float(signals(task.cell).sum())) * 1000)
    chosen = np.sort(generator(start, task.cell.key).choice(1438, task.cell.images, replace=False))
    time.sleep(PAUSE)
    Selection(chosen, np.bincount(chosen % 10, minlength=10), None, {"seconds": {"selection": time.time()}}).save(task.path)
    return read_selection(task.path)


def train(task: Task) -> dict[str, Any]:
    """Figures that depend on the selection."""
    digest = hashlib.blake2b(Selection.load(task.path).indices.tobytes()).digest()
    time.sleep(PAUSE)
    accuracy = {
        "mean": digest[0] / 256,
        "worst": digest[1] / 512,
        "natural": digest[0] / 256,
        "classes": [digest[2] / 256] * 10,
    }
    return {"accuracy": accuracy, "best": accuracy, "seconds": time.time(), "precision": "fp32", "steps": 3, "versions": {}}


STEPS = Steps(prepare, select, read_selection, train)


def once(folder: Path) -> None:
    """The grid in this process, with a cache of its own in the folder."""
    os.environ["DQAS_CACHE"] = str(folder / "cache")
    outcome = run(cells(), folder / "results", jobs=1, steps=STEPS, finished=lambda *_: None)
    assert outcome.failures == []


def forked(folder: Path) -> int:
    """The same in a process of its own, which shares what is imported; its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sys.stderr.flush()
            once(folder)
            status = 0
        finally:
            os._exit(status)
    return child


def killed_round(folder: Path, longest: float, draws: random.Random, damage: float) -> dict[str, int]:
    """Kill and run again until it is finished; counts."""
    told = {"kills": 0, "damaged": 0, "lost": 0, "twice": 0}
    while True:
        before, selections = killing.rows(folder / "results"), killing.whole_selections(folder / "results")
        child = forked(folder)
        time.sleep(draws.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        after = killing.rows(folder / "results")
        told["lost"] += len(before.keys() - after.keys())
        told["twice"] += sum(after[key] != before[key] for key in before.keys() & after.keys())
        later = killing.whole_selections(folder / "results")
        told["twice"] += sum(later.get(name) != changed for name, changed in selections.items())
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            if later.keys() == {f"{cell.key}.npz" for cell in cells()}:
                return told
            continue  # it was finished before a selection was damaged
        told["kills"] += 1
        if draws.random() < damage:
            files = killing.damageable(folder / "results", folder / "cache")
            told["damaged"] += killing.damage(files, draws) is not None


def main() -> None:
    """See above."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    damage = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    draws = random.Random(seed)
    once(folder / "undisturbed")
    started = time.perf_counter()
    os.waitpid(forked(folder / "again"), 0)
    longest = (time.perf_counter() - started) / 2  # a run that is killed twice on average
    expected = killing.figures(folder / "undisturbed" / "results")
    told = {"cells": len(expected), "rounds": 0, "kills": 0, "damaged": 0, "lost": 0, "twice": 0, "unequal": 0, "left": 0}
    while told["kills"] < kills:
        here = folder / str(told["rounds"])
        for name, count in killed_round(here, longest, draws, damage).items():
            told[name] += count
        told["rounds"] += 1
        found = killing.figures(here / "results")
        told["unequal"] += sum(found.get(key) != one for key, one in expected.items()) + len(found.keys() - expected.keys())
        told["left"] += len(killing.leftovers(here))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
