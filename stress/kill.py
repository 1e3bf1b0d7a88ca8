"""Kill the real program at random moments until it is done, and compare with an undisturbed run, bit for bit.

    python stress/kill.py --times 50 [--folder DIR] [--seed 0] [--damage 0.2]

Each kill is one of: SIGKILL to the driver, to one worker, or to all at once; Ctrl-C; and for ``dqas select`` and
``dqas quantize`` SIGKILL. After some kills of a bench a file of the cache or a selection is damaged too, as a power cut may
do it. Counted are finished cells that were lost, done twice, or came out otherwise; processes and half-written files that were
left behind; and tracebacks. All of these must be 0.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

import common
import killing

DIGITS = ["--dataset", "digits", "--ratio", "0.05", "--iterations", "5"]
METHODS = ["--method", "graphcut,moderate,margin", "--adaptive", "--allocator-option", "iterations=2"]
BENCH = ["bench", *DIGITS, *METHODS, "--seeds", "2", "--jobs", "2"]
SELECT = ["select", *DIGITS, "--method", "graphcut", "--force"]
QUANTIZE = ["quantize", *DIGITS, "--no-adaptive"]
WAYS = ("driver", "worker", "group", "ctrl-c")
MOST = 1800  # seconds of one run


class Round:
    """One grid, killed until it is done."""

    def __init__(self, folder: Path, precision: Path, draws: random.Random, longest: float, damage: float) -> None:
        self.results, self.cache, self.draws = folder / "results", folder / "cache", draws
        self.longest, self.damage = longest, damage
        self.told: Counter[str] = Counter()
        self.cache.mkdir(parents=True)
        # bf16 or fp32 is measured once for a machine; a measurement under load may come out otherwise
        shutil.copytree(precision, self.cache / "precision")

    def finish(self, kills: int) -> None:
        """Kill at most so often, then let it finish; note what was wrong."""
        while True:
            before, selections = killing.rows(self.results), killing.whole_selections(self.results)
            mark = uuid.uuid4().hex
            child = common.program(*BENCH, "--results", self.results, cache=self.cache, mark=mark)
            way = self._kill(child, mark) if self.told["kills"] < kills else None
            try:
                out, err = child.communicate(timeout=MOST)
            except subprocess.TimeoutExpired:
                self.told["hung"] += 1
                os.killpg(child.pid, signal.SIGKILL)
                out, err = child.communicate()
            self._check(before, selections, mark, out + err)
            if child.returncode == 0:
                return
            if way is None and child.returncode != 1:  # 1: a cell whose worker was killed twice
                raise SystemExit(f"the bench ends with {child.returncode}: {err}")
            if self.draws.random() < self.damage and killing.damage(killing.damageable(self.results, self.cache), self.draws):
                self.told["damaged"] += 1

    def _kill(self, child: subprocess.Popen[str], mark: str) -> str | None:
        """Wait a random time and kill; in what way, if there was something to kill."""
        deadline = time.monotonic() + self.draws.uniform(0.2, self.longest)
        way = self.draws.choice(WAYS)
        while time.monotonic() < deadline:
            if child.poll() is not None:
                return None
            time.sleep(0.02)
        if way == "driver":
            child.kill()
        elif way == "ctrl-c":
            os.killpg(child.pid, signal.SIGINT)
        elif way == "group":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            workers = [one for one in killing.marked(mark) if one != child.pid]
            if not workers:
                child.kill()
                way = "driver"
            else:
                try:
                    os.kill(self.draws.choice(workers), signal.SIGKILL)
                except ProcessLookupError:
                    return None
        self.told["kills"] += 1
        self.told[way] += 1
        return way

    def _check(self, before: killing.Rows, selections: dict[str, int], mark: str, said: str) -> None:
        deadline = time.monotonic() + 60
        while killing.marked(mark) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.told["orphans"] += len(killing.marked(mark))
        after, later = killing.rows(self.results), killing.whole_selections(self.results)
        self.told["lost"] += len(before.keys() - after.keys())
        self.told["twice"] += sum(after[key] != before[key] for key in before.keys() & after.keys())
        self.told["twice"] += sum(later.get(name) != changed for name, changed in selections.items())
        if "Traceback" in said:
            self.told["tracebacks"] += 1
            print(said, flush=True)


def killed_command(
    command: list[str], folder: Path, longest: float, kills: int, draws: random.Random
) -> tuple[Counter[str], Path]:
    """``dqas select`` or ``dqas quantize``, killed so often, and then let finish; counts, and where the result is."""
    told: Counter[str] = Counter()
    out = folder / ("s.npz" if command[0] == "select" else "quantized")
    while True:
        child = common.program(*command, "--out", out, cache=folder / "cache")
        if told["kills"] < kills:
            try:
                child.wait(draws.uniform(0.2, longest))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                told["kills"] += 1
        _, err = child.communicate(timeout=MOST)
        told["tracebacks"] += "Traceback" in err
        if child.returncode == 0:
            break
        told["half-written"] += out.exists()
    told["left"] = len(killing.leftovers(folder))
    return told, out


def contents(out: Path) -> dict[str, bytes]:
    """What must be equal of a selection or of a quantized dataset."""
    import numpy as np

    files = [out] if out.is_file() else sorted(one for one in out.rglob("*") if one.is_file())
    found = {}
    for one in files:
        if one.suffix == ".npz":
            with np.load(one) as arrays:
                found |= {name: arrays[name].tobytes() for name in arrays if name != "meta"}  # it has the seconds
        else:
            found[one.name] = one.read_bytes()
    return found


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills of a bench; a quarter as many of the two other commands")
    parser.add_argument("--most", type=int, default=10, help="kills before a run may finish")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--damage", type=float, default=0.2, help="share of kills after which a file is damaged")
    parser.add_argument("--within", type=float, default=0.2, help="latest moment of a kill, in undisturbed runs")
    parser.add_argument("--folder", type=Path, help="kept afterwards; default: a temporary one")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="dqas-kill-"))
    draws, started = random.Random(given.seed), time.monotonic()

    calm = folder / "undisturbed"
    child = common.program(*BENCH, "--results", calm / "results", cache=calm / "cache")
    _, err = child.communicate(timeout=MOST)
    if child.returncode:
        raise SystemExit(err)
    longest = time.monotonic() - started
    expected = killing.figures(calm / "results")
    print(f"undisturbed: {len(expected)} cells in {longest:.0f} s", flush=True)

    total: Counter[str] = Counter()
    while total["kills"] < given.times:
        here = Round(folder / str(total["rounds"]), calm / "cache" / "precision", draws, given.within * longest, given.damage)
        here.finish(min(given.most, given.times - total["kills"]))
        found = killing.figures(here.results)
        here.told["unequal"] = sum(found.get(key) != one for key, one in expected.items()) + len(found.keys() - expected.keys())
        here.told["left"] = len(killing.leftovers(here.results, here.cache))
        here.told["rounds"] = 1
        total += here.told
        print(dict(total), f"{time.monotonic() - started:.0f} s", flush=True)
    rows = [{"command": "bench", "cells": len(expected), **_row(total)}]
    for command in (SELECT, QUANTIZE):
        calm_told, calm_out = killed_command(command, folder / f"{command[0]}-undisturbed", 1, 0, draws)
        told, out = killed_command(command, folder / command[0], given.within * longest, given.times // 4, draws)
        told["unequal"] = contents(out) != contents(calm_out)
        rows.append({"command": command[0], **_row(told + calm_told)})
    common.show(rows)
    print(f"{time.monotonic() - started:.0f} s, in {folder}")


def _row(told: Counter[str]) -> dict[str, int]:
    wrong = ("lost", "twice", "unequal", "half-written", "left", "orphans", "hung", "tracebacks")
    return {name: told[name] for name in ("rounds", "kills", *WAYS, "damaged", *wrong)}


if __name__ == "__main__":
    main()
