"""Time and memory of ranking 10,000 to 1,000,000 samples, a tenth of every class.

The samples have 512 features and are those of the first 10, 100 or 1,000 classes of a problem of 1,000, 1,000 samples a class
in mixed order, so that they have 1,000 logits whatever their number: all input grows with it, and what is linear has an
exponent of 1. Features (2 GB for the million) and logits (4 GB) are memory-mapped from temporary files, removed in the end.

    python benchmarks/scale.py                                            # some minutes, 6 GB of disk
    python benchmarks/scale.py --sizes 10000,100000 --methods graphcut,k-center
    python benchmarks/scale.py --cifar       # all of 10 classes of 5,000 by GraphCut, in memory; goal: 10 s on two cores

Every measurement has a process of its own. Its peak is of anonymous memory (RssAnon, read every 2 ms: what the process itself
allocated, without pages of the mapped files, which the system can drop), beyond what the imports took; only Linux tells.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from common import chunks, clustered, head, made_up, status
from dqas_plugin.errors import UserError
from dqas_plugin.signals import Signals

WIDTH, LOGITS, PER_CLASS, SHARE = 512, 1000, 1000, 0.1
SIZES = (10_000, 100_000, 1_000_000)
METHODS = ("graphcut:eq7", "graphcut", "k-center", "herding", "margin", "entropy", "least-confidence", "random")
CIFAR, CIFAR_METHODS, CIFAR_GOAL = (10, 5000), ("graphcut:eq7", "graphcut"), 10.0
_CHUNK = 10_000
_INTERVAL = 0.002  # seconds between two looks at the memory

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        method: what ranks.
        size: how many samples.
        folder: where the files are; None: ten classes of 5,000 in memory, ranked completely.
    """

    method: str
    size: int
    folder: Path | None


class Measured(NamedTuple):
    """What came of it.

    Attributes:
        signals: seconds to make (and check) the signals.
        rank: seconds to rank.
        peak: megabytes beyond the imports, of both.
        notes: what the ranking says of approximations.
    """

    signals: float
    rank: float
    peak: float
    notes: list[str]


def mixed_labels(sizes: list[int]) -> Array:
    """Labels in mixed order, of which the first ``size`` are of the first ``size / 1000`` classes, int64."""
    draws = np.random.default_rng(0)
    blocks = zip([0, *sizes], sizes, strict=False)
    return np.concatenate([draws.permutation(np.arange(start, end) // PER_CLASS) for start, end in blocks])


def write_files(folder: Path, sizes: list[int], logits: bool) -> None:
    """Make features, labels and logits of the largest problem, a part at a time."""
    count = sizes[-1]
    needed = 4 * count * (WIDTH + (LOGITS if logits else 0))
    if shutil.disk_usage(folder).free < 1.1 * needed:
        sys.exit(f"{folder} has no room for {needed / 1e9:.1f} GB: name another with --folder, or fewer samples with --sizes")
    labels = mixed_labels(sizes)
    np.save(folder / "labels.npy", labels)
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, (count, WIDTH))
    outputs = np.lib.format.open_memmap(folder / "logits.npy", "w+", np.float32, (count, LOGITS)) if logits else None
    weight, bias = head(WIDTH, LOGITS)
    for part in chunks(count, _CHUNK):
        made = clustered(part.stop - part.start, WIDTH, seed=part.start)
        features[part] = made
        if outputs is not None:
            outputs[part] = made @ weight.T + bias
            outputs[np.arange(part.start, part.stop), labels[part]] += 2.0  # the network mostly knows
    features.flush()


def read_files(folder: Path, size: int) -> Signals:
    """The signals of the first ``size`` samples, memory-mapped."""

    def rows(name: str) -> Array | None:
        path = folder / name
        # Copied on writing, which nobody does: torch shares only memory that it might write to.
        return np.load(path, mmap_mode="c")[:size] if path.exists() else None

    labels = np.load(folder / "labels.npy")[:size]
    return Signals.from_arrays(rows("features.npy"), rows("logits.npy"), labels, num_classes=LOGITS)


def in_memory() -> Callable[[], Signals]:
    """What makes signals of arrays that are there already: ten classes of 5,000."""
    problem = made_up([CIFAR[1]] * CIFAR[0], WIDTH, CIFAR[0])
    _ = problem.logits
    return problem.signals


class Watch:
    """The highest anonymous memory while it is entered, in MB, beyond what was there before."""

    def __init__(self) -> None:
        self.before = self.peak = status("RssAnon")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.peak = max(self.peak, status("RssAnon")) - self.before

    def _look(self) -> None:
        while not self._over.wait(_INTERVAL):
            self.peak = max(self.peak, status("RssAnon"))


def measure(task: Task, answers: Any) -> None:
    """Do it, in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    from dqas_plugin.ranking import rank

    rank(made_up([50], 8, 2).signals(), task.method, counts=[20, 0])  # loads and compiles what it needs
    load = partial(read_files, task.folder, task.size) if task.folder else in_memory()
    with Watch() as watch:
        started = time.perf_counter()
        signals = load()
        made = time.perf_counter()
        counts = np.bincount(signals.labels.numpy(), minlength=signals.num_classes)
        if task.folder is not None:
            counts = np.round(SHARE * counts).astype(np.int64)
        ranking = rank(signals, task.method, counts=counts)
        ended = time.perf_counter()
    assert [len(one) for one in ranking.order] == counts.tolist()
    answers.send(Measured(made - started, ended - made, watch.peak, list(ranking.provenance["notes"])))


def run(task: Task) -> Measured:
    """Measure in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        answer: Measured = ours.recv()
    except EOFError:
        sys.exit(f"{task.method} with {task.size:,} samples failed")
    finally:
        process.terminate()
        process.join()
    return answer


def needs_logits(methods: list[str]) -> bool:
    """Whether any of them reads logits."""
    from dqas_plugin.ranking import as_selector

    return any(as_selector(name)[0].needs & {"logits", "gradients"} for name in methods)


def grow(methods: list[str], sizes: list[int], folder: Path, logits: bool) -> None:
    """The table over all sizes."""
    started = time.perf_counter()
    write_files(folder, sizes, logits)
    print(f"{WIDTH} features and {LOGITS} logits, memory-mapped (made in {time.perf_counter() - started:.0f} s); {PER_CLASS} "
          f"samples a class, {SHARE:.0%} of each ranked; {threads()} threads; exponents of seconds between sizes")  # fmt: skip
    heads = "".join(f"{f'{size:,}':>12} s {'peak MB':>8}" for size in sizes)
    print(f"{'':18}{heads}   exponents")
    checking = []
    for method in methods:
        print(f"{method:18}", end="", flush=True)
        found = []
        for size in sizes:
            found.append(run(Task(method, size, folder)))
            print(f"{found[-1].rank:14.2f} {found[-1].peak:8.0f}", end="", flush=True)
        ratios = zip(itertools.pairwise(sizes), itertools.pairwise([one.rank for one in found]), strict=True)
        print("   " + " ".join(f"{math.log(b / a) / math.log(n / m):5.2f}" for (m, n), (a, b) in ratios))
        checking.append(found[-1].signals)
        for note in dict.fromkeys(note for one in found for note in one.notes):
            print(f"  {note}")
    print(f"making the signals, not counted above, took up to {max(checking):.1f} s for {sizes[-1]:,}: every number is checked")


def cifar(methods: list[str]) -> None:
    """Ten classes of 5,000, ranked completely."""
    classes, each = CIFAR
    print(f"{classes} classes of {each}, {WIDTH} features, {classes} logits, ranked completely; {threads()} threads")
    print(f"{'':18}{'seconds':>10} {'goal':>6} {'peak MB':>8}")
    for method in methods:
        found = run(Task(method, classes * each, None))
        goal = f"{CIFAR_GOAL:6.0f}{' ' if found.rank <= CIFAR_GOAL else '!'}" if method in CIFAR_METHODS else "      -"
        print(f"{method:18}{found.rank:10.2f} {goal}{found.peak:8.0f}", flush=True)
        for note in found.notes:
            print(f"  {note}")


def threads() -> int:
    import torch

    return torch.get_num_threads()


def whole_classes(text: str) -> list[int]:
    """Sizes as people type them, ascending."""
    sizes = sorted({int(one) for one in text.split(",")})
    if sizes[0] < PER_CLASS or sizes[-1] > LOGITS * PER_CLASS or any(size % PER_CLASS for size in sizes):
        raise argparse.ArgumentTypeError(f"whole classes of {PER_CLASS}, {LOGITS} at most")
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=whole_classes, default=list(SIZES), help="how many samples, e.g. 10000,100000")
    parser.add_argument(
        "--methods", help=f"which methods (default: {','.join(METHODS)}; {','.join(CIFAR_METHODS)} with --cifar)"
    )
    parser.add_argument("--folder", type=Path, help="where the temporary files go")
    parser.add_argument("--cifar", action="store_true", help="50,000 samples of 10 classes, ranked completely")
    options = parser.parse_args()
    default = CIFAR_METHODS if options.cifar else METHODS
    methods = options.methods.split(",") if options.methods else list(default)
    try:
        logits = needs_logits(methods)
    except UserError as error:
        parser.error(str(error))
    if options.cifar:
        cifar(methods)
        return
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: sys.exit("ended"))  # an exit that removes the files
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as folder:
        grow(methods, options.sizes, Path(folder), logits)


if __name__ == "__main__":
    main()
