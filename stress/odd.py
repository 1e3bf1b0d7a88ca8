"""Every method on every odd folder, even and with each kind of adaptive sampling, through the real commands; then all tables.

Usage: python stress/odd.py [--minutes 60] [--only FOLDER] [--methods NAMES] [--commands select,bench,quantize,tables]

Prints how often each folder was worked on, refused in a sentence, or worse; exit status 1 if anything was worse. A command
that takes longer than 20 seconds is told.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from odd_problem import ALLOWED, FOLDERS, Odd, methods, outcome

EFFORT = {"repeats": 1, "directions": 2, "iterations": 1, "screen": 1, "finalists": 1, "confirm": 2}
_SMALL = [part for name, value in EFFORT.items() for part in ("--allocator-option", f"{name}={value}")]
MODES = {
    "plain": [],
    "adaptive": ["--allocator", "adaptive", *_SMALL],
    "error-reduction": ["--refiner", "error-reduction"],
    "both": ["--adaptive", *_SMALL],
}
FEW = ["random", "graphcut", "moderate", "margin"]
"""Methods for folders that take long, or are odd only until they are read."""

BENCHED = ["graphcut", "moderate", "margin", "craig", "gradmatch", "el2n"]
"""Methods that are benched: of each kind of signals, and with weights."""

Call = tuple[str, list[str]]


@dataclass
class Matrix:
    """What came of the commands, by folder."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    said: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def run(self, name: str, odd: Odd, what: str, arguments: list[str]) -> str:
        """Do it, and note what came of it."""
        begun = time.monotonic()
        kind, text = outcome(arguments)
        if kind == "refused" and not (odd.refused or any(words in text for words in ALLOWED)):
            kind = "refused?"
        if kind == "ok" and odd.refused:
            kind = "not refused"
        self.counts[name][kind] += 1
        if time.monotonic() - begun > 20:
            print(f"  {time.monotonic() - begun:.0f} s: {name}: {what}", flush=True)
        if kind not in ("ok", "refused"):
            print(f"  {kind}: {name}: {what}: {text[-3000:]}", flush=True)
        elif kind == "refused":
            self.said[name][text.removeprefix("dqas: error: ").partition(": ")[0][-90:]] += 1
        return kind

    def show(self) -> bool:
        """The table; whether all is well."""
        kinds = ["ok", "refused", *sorted({kind for one in self.counts.values() for kind in one} - {"ok", "refused"})]
        print("folder".ljust(22), *(one.rjust(11) for one in kinds))
        for name, one in self.counts.items():
            print(name.ljust(22), *(str(one[kind]).rjust(11) for kind in kinds))
        total: Counter[str] = sum(self.counts.values(), Counter())
        print("all".ljust(22), *(str(total[kind]).rjust(11) for kind in kinds))
        for name, told in self.said.items():
            for text, count in told.most_common():
                print(f"  {name}: {count} x {text}")
        return len(kinds) == 2


def selections(odd: Odd, folder: Path, out: Path, chosen: list[str]) -> Iterator[Call]:
    """``dqas select`` with every method in every mode."""
    for mode, more in MODES.items():
        for method in chosen:
            target = out / f"{mode}-{method.replace(':', '-')}.npz"
            budget = ["--aipc", str(odd.aipc), "--out", str(target)]
            yield f"select {mode} {method}", ["select", *odd.arguments(folder), "--method", method, *budget, *more]


def benches(odd: Odd, folder: Path, out: Path, chosen: list[str]) -> Iterator[Call]:
    """``dqas bench`` in every mode, with a few methods: what comes after the selection is the same for all."""
    usable = [one for one in BENCHED if one in chosen]
    for mode, more in MODES.items():
        grid = ["--aipc", str(odd.aipc), "--seeds", "1", "--jobs", "1", "--results", str(out / "results")]
        yield f"bench {mode}", ["bench", *odd.arguments(folder), "--method", ",".join(usable), *grid, *more]


def tables(odd: Odd, folder: Path, out: Path, chosen: list[str]) -> Iterator[Call]:
    """All tables in all formats, all figures, and the report."""
    results = ["--results", str(out / "results")]
    if odd.refused:
        return
    for table in "12345":
        for form in ("plain", "md", "latex", "csv", "html"):
            yield f"table {table} {form}", ["table", table, *results, "--format", form]
    for figure in ("1", "3", "curves"):
        yield f"figure {figure}", ["figure", figure, *results, "--out", str(out / f"{figure}.png")]
    yield "report", ["report", *results, "--out", str(out / "report.html")]


def quantizations(odd: Odd, folder: Path, out: Path, chosen: list[str]) -> Iterator[Call]:
    """``dqas quantize`` with both pipelines; a masked autoencoder once, since it takes long."""
    ways = {
        "dqas harmonic": ["--rebuild", "harmonic"],
        "dqas whole": ["--no-patches"],
        "dqas one bin": ["--rebuild", "harmonic", "--bins", "1"],
        "dqas even": ["--rebuild", "harmonic", "--bins", "1", "--no-adaptive"],
        "dq harmonic": ["--pipeline", "dq", "--rebuild", "harmonic"],
        "dq one bin": ["--pipeline", "dq", "--rebuild", "harmonic", "--bins", "1", "--rebuilt"],
        "dq mae": ["--pipeline", "dq", "--rebuild", "mae", "--bins", "1"],
    }
    for what, more in ways.items():
        if "mae" in more and (odd.heavy or len(list(folder.glob("train/*"))) > 3):
            continue
        target = ["--aipc", str(odd.aipc), "--out", str(out / what.replace(" ", "-"))]
        yield f"quantize {what}", ["quantize", *odd.arguments(folder), *target, *more]


COMMANDS = {"select": selections, "bench": benches, "tables": tables, "quantize": quantizations}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", action="append", choices=FOLDERS, help="a folder; may be repeated")
    parser.add_argument("--methods", help="by comma; default: all")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    given = parser.parse_args()
    matrix, end = Matrix(), time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as place:
        os.environ["DQAS_CACHE"] = f"{place}/cache"
        for number, (name, odd) in enumerate(sorted(FOLDERS.items(), key=lambda one: one[1].heavy)):
            if given.only and name not in given.only:
                continue
            folder, out = Path(place) / f"odd{number}", Path(place) / f"out{number}"
            out.mkdir()
            (Path(place) / "cache").mkdir(exist_ok=True)
            odd.write(folder)
            chosen = given.methods.split(",") if given.methods else FEW if odd.heavy or odd.alike else methods()
            begun = time.monotonic()
            for command in given.commands.split(","):
                for what, arguments in COMMANDS[command](odd, folder, out, chosen):
                    if time.monotonic() < end:
                        matrix.run(name, odd, what, arguments)
            print(f"{name}: {dict(matrix.counts[name])}, {time.monotonic() - begun:.0f} s", flush=True)
    if time.monotonic() >= end:
        print(f"stopped after {given.minutes:g} minutes")
    return 0 if matrix.show() else 1


if __name__ == "__main__":
    sys.exit(main())
