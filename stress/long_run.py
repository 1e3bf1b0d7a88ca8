"""A grid of a thousand cells: what the driver costs beside the steps, and whether memory, files and maps stay as they are.

    python stress/long_run.py [--cells 1000] [--folder DIR] [--jobs 2] [--only nothing,failing,real]

Three runs, each in a process of its own: steps that do nothing, trainings that all fail, and real ones (digits, a few steps of
training each). Shown for every hundredth part: anonymous memory, open files and maps of the driver, and the highest of its
workers. Goals: less than 50 ms a cell beside the steps, and in the last two thirds of a run no more than 20 MB more memory (the
results themselves among it) and no more files or maps than before, but for a few. Exit status 1 where one is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import common
from dqas_plugin.bench import STEPS, Cell, Steps, open_dataset, plan, run
from dqas_plugin.recipes import recipe
from load_problem import one_table
from load_steps import FAILING, IDLE, Usage, Watch, overhead

GOAL, MORE_MEMORY, MORE_FILES, MORE_MAPS = 50.0, 20.0, 4, 40
RATIOS = [0.02 * (one + 1) for one in range(10)]
METHODS = ("random", "graphcut", "herding", "margin", "moderate")


def real_cells(count: int) -> list[Cell]:
    """Cells of digits that take a moment each."""
    short = recipe("quick").with_(iterations=2, proxy_epochs=1, precision="fp32")
    seeds = -(-count // (len(RATIOS) * len(METHODS)))
    return plan(open_dataset("digits"), METHODS, ratios=RATIOS, seeds=seeds, recipe=short)[:count]


def go(kind: str, count: int, jobs: int, folder: Path) -> bool:
    """One run; whether the goals are met."""
    cells = real_cells(count) if kind == "real" else one_table(count, budgets=2)
    steps: Steps = {"real": STEPS, "failing": FAILING, "nothing": IDLE}[kind]
    if kind == "real":  # beside the steps of a part of them, in this process; then all, with workers
        few = cells[:: max(1, len(cells) // 100)]
        measured = overhead(few, folder / "few", steps)
    watch = Watch(max(1, count // 10))
    if kind == "real":
        run(cells, folder / "results", jobs=jobs, reporter=watch)
    else:
        measured = overhead(cells, folder / "results", steps, reporter=watch)
    logs = len(list((folder / "results" / "failures").glob("*.txt"))) if kind == "failing" else 0
    told = f", {logs} reports of failures" if kind == "failing" else ""
    print(f"\n{kind}: {len(cells)} cells, {measured.wall:.1f} ms a cell beside the steps, of which {measured.processor:.1f} ms "
          f"of processor time{told}")  # fmt: skip
    common.show([row(done, own, workers) for done, own, workers in watch.seen])
    return measured.wall <= GOAL and flat(watch) and (kind != "failing" or logs == len(cells))


def row(done: int, own: Usage, workers: list[Usage]) -> dict[str, object]:
    """A line of the table."""
    found = {"cells": done, "driver MB": f"{own.memory:.0f}", "files": own.files, "maps": own.maps}
    if workers:
        found |= {"worker MB": f"{max(one.memory for one in workers):.0f}", "its files": max(one.files for one in workers)}
        found |= {"its maps": max(one.maps for one in workers)}
    return found


def flat(watch: Watch) -> bool:
    """Whether nothing grew after the first third."""
    _, own, workers = watch.seen[len(watch.seen) // 3]
    _, own_last, workers_last = watch.seen[-1]
    pairs = [([own], [own_last]), *([(workers, workers_last)] if workers and workers_last else [])]
    return all(
        max(getattr(one, name) for one in later) - max(getattr(one, name) for one in before) <= more
        for before, later in pairs
        for name, more in (("memory", MORE_MEMORY), ("files", MORE_FILES), ("maps", MORE_MAPS))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="nothing,failing,real", help="which runs")
    parser.add_argument("--folder", type=Path, help="where results go; they are removed")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)  # the run itself
    options = parser.parse_args()
    if options.here:
        sys.exit(0 if go(options.only, options.cells, options.jobs, options.here) else 1)
    status = 0
    for kind in options.only.split(","):
        with tempfile.TemporaryDirectory(prefix="long-run-", dir=options.folder) as folder:
            command = [sys.executable, __file__, "--only", kind, "--here", folder]
            command += ["--cells", str(options.cells), "--jobs", str(options.jobs)]
            status |= subprocess.run(command, check=False).returncode
    print("\ngoals are met" if not status else "\na goal is missed")
    sys.exit(status)


if __name__ == "__main__":
    main()
