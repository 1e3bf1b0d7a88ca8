"""Two runs of the toy grid on one folder of results and one cache at once, and readers meanwhile.

    python tests/toy_crowd.py FOLDER READERS [ROUNDS]

Prints what came of it as JSON: how many cells there are, were trained, and differ from those of a run alone; how often
readers looked, and what they complained of.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

import killing
import toy_grid
from dqas_cli.main import cli
from dqas_plugin.bench import Steps, Store, run
from dqas_plugin.bench.cell import Task

COMMANDS = (["table", "2"], ["report"], ["figure", "curves"], ["table", "1"])


def bench(folder: Path, number: int) -> None:
    """The grid; notes what it trains."""
    os.environ["DQAS_CACHE"] = str(folder / "cache")

    def train(task: Task) -> dict[str, object]:
        with (folder / f"trained-{number}").open("a") as file:
            file.write(f"{task.cell.key}\n")
        time.sleep(0.01)
        return toy_grid.train(task)

    steps = Steps(toy_grid.prepare, toy_grid.select, toy_grid.read_selection, train)
    outcome = run(toy_grid.cells(), folder / "results", jobs=1, steps=steps, finished=lambda *_: None)
    assert outcome.failures == []
    assert len(outcome.results) == len(toy_grid.cells())


def reader(folder: Path, number: int) -> None:
    """Look at the results until there are no more benches; cells must never become fewer."""
    seen = 0
    while not (folder / "done").exists():
        if not Store.exists(folder / "results"):
            time.sleep(0.002)
            continue
        if number % 2:
            with Store(folder / "results") as store:
                count = len(list(store.cells()))
            assert count >= seen, f"{seen} cells, and then {count}"
            seen = count
        else:
            out = [] if number % 4 else ["--out", str(folder / f"out-{number}.html")]
            chosen = COMMANDS[1] if out else COMMANDS[0]
            result = CliRunner().invoke(cli, [*chosen, "--results", str(folder / "results"), *out])
            told = result.stderr.strip().splitlines()
            unready = "no finished cell" in result.stderr or "has no results" in result.stderr
            assert result.exit_code == 0 or unready, told
            assert not unready or seen == 0, "there were results before"
            seen = max(seen, int(not unready))
        with (folder / f"looked-{number}").open("a") as file:
            file.write(".")


def forked(call: Callable[[Path, int], None], folder: Path, number: int) -> int:
    """The call in a process of its own; what it raises is written to a file."""
    child = os.fork()
    if child == 0:
        try:
            call(folder, number)
        except BaseException:
            (folder / f"trouble-{call.__name__}-{number}").write_text(traceback.format_exc())
        finally:
            os._exit(0)
    return child


def crowd(folder: Path, readers: int) -> dict[str, object]:
    """All at once; counts."""
    folder.mkdir(parents=True)
    looking = [forked(reader, folder, number) for number in range(readers)]
    for child in [forked(bench, folder, number) for number in range(2)]:
        os.waitpid(child, 0)
    (folder / "done").touch()
    for child in looking:
        os.waitpid(child, 0)
    trained = [(folder / f"trained-{number}").read_text().split() for number in range(2)]
    return {
        "trained": sum(map(len, trained)),
        "looked": sum(len(one.read_text()) for one in folder.glob("looked-*")),
        "trouble": [one.read_text() for one in sorted(folder.glob("trouble-*"))],
        "left": len(killing.leftovers(folder)),
    }


def main() -> None:
    """See above."""
    folder, readers = Path(sys.argv[1]), int(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    toy_grid.once(folder / "alone")
    expected = killing.figures(folder / "alone" / "results")
    for number in range(rounds):
        here = folder / f"crowd-{number}"
        told = crowd(here, readers)
        found = killing.figures(here / "results")
        told |= {"cells": len(found), "unequal": sum(found.get(key) != one for key, one in expected.items())}
        sys.stdout.write(f"{json.dumps(told)}\n")


if __name__ == "__main__":
    main()
