"""``dqas table`` of a hundred thousand finished cells, as a whole process: seconds on the wall and of processor time.

    python stress/hundred_thousand.py [--cells 100000] [--folder DIR --keep] [--only one-table,100-classes,300-budgets,many]

Four folders of made-up results: ``one-table`` (10 classes) and ``100-classes``: all cells are of one table, 80 rows with
hundreds of seeds; ``300-budgets``: one table of 4,800 rows; ``many``: hundreds of tables, of which one is asked for. The goal
is 2 s on an idle core; each call is made three times and the fastest is shown. Writing a folder takes a minute or two.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import common
from dqas_plugin.bench import Cell
from load_problem import fill, many_tables, one_table

GOAL, TIMES = 2.0, 3
FOLDERS: Mapping[str, Callable[[int], list[Cell]]] = {
    "one-table": one_table,
    "100-classes": lambda cells: one_table(cells, classes=100),
    "300-budgets": lambda cells: one_table(cells, budgets=300),
    "many": many_tables,
}
PARTS = {"many": ["--dataset", "set-7"]}


def call(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of a call, on the wall and of processor time."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    child = common.program(*arguments, cache=folder, stdout=subprocess.DEVNULL)
    _, err = child.communicate()
    if child.returncode:
        sys.exit(err)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the results go")
    parser.add_argument("--keep", action="store_true", help="leave them there, and use what is there")
    parser.add_argument("--only", default=",".join(FOLDERS), help="which folders")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    temporary = tempfile.TemporaryDirectory(prefix="hundred-thousand-", dir=options.folder)
    rows = []
    with temporary as folder:
        home = options.folder if options.keep else Path(folder)
        for name in options.only.split(","):
            results = home / name
            if not results.exists():
                started = time.perf_counter()
                fill(results, FOLDERS[name](options.cells))
                print(f"{name}: written in {time.perf_counter() - started:.0f} s", flush=True)
            for number in range(1, 6):
                arguments = ["table", str(number), "--results", str(results), *PARTS.get(name, [])]
                wall, processor = min(call(arguments, Path(folder)) for _ in range(TIMES))
                mark = "" if wall <= GOAL else "!"
                rows.append({"results": name, "table": number, "s": f"{wall:.2f}{mark}", "s of processor": f"{processor:.2f}"})
    common.show(rows)
    sys.exit(0 if all("!" not in row["s"] for row in rows) else 1)


if __name__ == "__main__":
    main()
