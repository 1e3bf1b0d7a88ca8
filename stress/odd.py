"""Every method on every odd dataset through the real commands, and what came of it.

    python stress/odd.py [--only NAME] [--methods NAMES] [--minutes 60]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from click.testing import CliRunner
from odd_problem import FOLDERS, Odd, methods

EFFORT = {"repeats": 1, "directions": 2, "iterations": 1, "screen": 1, "finalists": 1, "confirm": 2}
SMALL = [part for name, value in EFFORT.items() for part in ("--allocator-option", f"{name}={value}")]
MODES = {
    "plain": [],
    "adaptive": ["--allocator", "adaptive", *SMALL],
    "error-reduction": ["--refiner", "error-reduction"],
    "both": ["--adaptive", *SMALL],
}


def outcome(arguments: list[str]) -> tuple[str, str]:
    """``ok``, ``refused`` (one sentence, status 2), ``failed`` (status 1) or ``crash``, and what was said."""
    from dqas_cli.main import cli

    result = CliRunner().invoke(cli, arguments)
    said = result.stderr.strip().splitlines()
    last = said[-1] if said else ""
    text = result.stdout + result.stderr
    if "nan" in re.findall(r"\bnan\b", text):
        last = "NaN in the output: " + last
        return "nan", text
    if any(one in text for one in "\x1b\x07\u202e"):
        return "raw", repr(text)
    if result.exit_code == 0:
        return "ok", ""
    if result.exit_code == 2 and last.startswith("dqas: error: "):
        return "refused", last
    if result.exit_code == 1 and last.startswith("dqas: error: ") and "fault of the program" not in last:
        return "failed", last
    return "crash", last + "".join(traceback.format_exception(result.exception) if result.exception else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append")
    parser.add_argument("--methods")
    parser.add_argument("--commands", default="select,bench,quantize")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--minutes", type=float, default=1e9)
    given = parser.parse_args()
    chosen = given.methods.split(",") if given.methods else methods()
    modes = given.modes.split(",")
    table: dict[str, Counter[str]] = defaultdict(Counter)
    said: dict[str, Counter[str]] = defaultdict(Counter)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        os.environ["DQAS_CACHE"] = f"{place}/cache"
        Path(f"{place}/cache").mkdir()
        for number, (name, odd) in enumerate(FOLDERS.items()):
            if given.only and name not in given.only:
                continue
            folder = Path(place) / f"odd{number}"
            folder.mkdir()
            odd.write(folder)
            begun = time.monotonic()
            for what, arguments in calls(odd, folder, Path(place) / f"out{number}", chosen, modes, given.commands.split(",")):
                if time.monotonic() - started > 60 * given.minutes:
                    break
                at = time.monotonic()
                kind, words = outcome(arguments)
                spent = time.monotonic() - at
                table[name][kind] += 1
                if spent > 20:
                    print(f"  SLOW {spent:.0f} s {name}: {what}", flush=True)
                if kind not in ("ok",):
                    short = words.replace(str(folder), "FOLDER").replace(str(place), "PLACE")
                    said[name][f"{kind}: {short}"] += 1
                    if kind not in ("refused",) and said[name][f"{kind}: {short}"] <= 3:
                        print(f"  {kind} {name}: {what}: {short}", flush=True)
            print(f"{name:22} {dict(table[name])} {time.monotonic() - begun:.0f} s", flush=True)
            for words, count in said[name].most_common():
                print(f"    {count} x {words[:700]}", flush=True)


def calls(odd: Odd, folder: Path, out: Path, chosen: list[str], modes: list[str], commands: list[str]):
    data = [*odd.arguments(folder), "--device", "cpu", "--iterations", "3"]
    if "select" in commands:
        for mode in modes:
            for method in chosen:
                target = out / f"{mode}-{method}.npz".replace(":", "-")
                target.parent.mkdir(exist_ok=True)
                yield f"select {mode} {method}", ["select", *data, "--method", method, "--aipc", str(odd.aipc), *MODES[mode], "--out", str(target)]
    if "bench" in commands:
        for mode in modes:
            for method in chosen:
                yield f"bench {mode} {method}", [
                    "bench", *data, "--method", method, "--aipc", str(odd.aipc), *MODES[mode], "--seeds", "1", "--jobs", "1", "--results", str(out / f"bench-{mode}"), "--rebuild", "harmonic",
                ]
    if "bench" in commands and out.exists():
        for mode in modes:
            for command in (["table", "1"], ["table", "2"], ["table", "3"], ["table", "4"], ["table", "5"]):
                for fmt in ("md", "latex", "csv", "html"):
                    yield f"{command} {fmt} {mode}", [*command, "--results", str(out / f"bench-{mode}"), "--format", fmt]
            for figure in ("1", "3"):
                yield f"figure {figure} {mode}", ["figure", figure, "--results", str(out / f"bench-{mode}"), "--out", str(out / f"f{figure}-{mode}.png")]
            yield f"report {mode}", ["report", "--results", str(out / f"bench-{mode}"), "--out", str(out / f"r-{mode}.html")]
    if "quantize" in commands:
        for pipeline in ("dqas", "dq"):
            for rebuild in ("harmonic", "mae"):
                for more in ([], ["--no-patches"]):
                    if more and rebuild == "mae":
                        continue
                    target = out / f"q-{pipeline}-{rebuild}-{len(more)}"
                    target.parent.mkdir(exist_ok=True)
                    yield f"quantize {pipeline} {rebuild} {more}", [
                        "quantize", *data, "--aipc", str(odd.aipc), "--pipeline", pipeline, *(["--rebuild", rebuild] if not more else more), "--out", str(target),
                    ]


if __name__ == "__main__":
    main()
