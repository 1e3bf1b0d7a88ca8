"""The real program on disks that are too small, on a disk that can only be read, and with a worker that is short of memory.

    python stress/disk.py [--folder DIR]

Needs root (it mounts small disks in memory) and Linux. Every command must end with status 2 and one sentence (or 1 and a
sentence, where a cell fails), leave nothing half-written, and, with room again, finish with the figures of an undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import common
import killing
import small_disk

SMALL = ["--dataset", "shapes", *(f"--dataset-option={one}" for one in ("classes=3", "per_class=30", "size=16"))]
SMALL += ["--iterations", "2"]
BENCH = ["bench", *SMALL, "--method", "graphcut", "--adaptive", "--allocator-option", "iterations=1"]
BENCH += ["--seeds", "2", "--ratio", "0.2,0.4"]
SELECT = ["select", *SMALL, "--method", "graphcut", "--ratio", "0.3"]
QUANTIZE = ["quantize", *SMALL, "--ratio", "0.3", "--no-adaptive", "--rebuild", "harmonic"]
SIZES = (4, 40, 150, 400)  # kilobytes of a disk


class Trials:
    """Runs commands and notes how they ended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, list[dict[str, object]]()

    def run(self, what: str, arguments: list[str], place: Path, cache: Path, good: tuple[int, ...] = (2,)) -> None:
        """Run it; ``place`` is where nothing half-written may be left."""
        child = common.program(*arguments, cache=cache)
        _, err = child.communicate(timeout=1800)
        last = (err.strip().splitlines() or [""])[-1]
        left = [one.name for one in place.rglob("*.part")]
        fault = "Traceback" in err or "fault of the program" in err or left or child.returncode not in good
        self.rows.append(
            {"where": what, "command": arguments[0], "status": child.returncode, "wrong": "WRONG" if fault else ""}
        )
        print(f"{what}: {arguments[0]}: {child.returncode}: {last[:300]} {left or ''}", flush=True)

    @contextmanager
    def disk(self, kilobytes: int) -> Iterator[Path]:
        """A small disk."""
        with small_disk.mounted(self.folder / "disk", kilobytes) as disk:
            yield disk


def full_disks(trials: Trials, results: Path, cache: Path) -> None:
    """For the results, the cache, temporary files, and what is written at last."""
    ok = (0, 1, 2)
    for size in SIZES:
        for jobs in ("1", "2"):
            with trials.disk(size) as disk:
                trials.run(f"results on {size} kB", [*BENCH, "--jobs", jobs, "--results", str(disk / "r")], disk, cache, (0, 2))
        with trials.disk(size) as disk:
            out = trials.folder / f"with-{size}"
            trials.run(f"cache on {size} kB", [*BENCH, "--jobs", "1", "--results", str(out)], disk, disk / "cache", ok)
        with trials.disk(size) as disk:
            out = trials.folder / f"quantized-{size}"
            trials.run(f"cache on {size} kB", [*QUANTIZE, "--out", str(out)], disk, disk / "cache", ok)
    shown = ["--results", str(results)]
    selection = next((results / "selections").glob("*.npz"))
    for size in (0, 8):
        with trials.disk(4 + size) as disk:
            (disk / "filling").write_bytes(bytes(4096))
            for arguments in (
                [*SELECT, "--out", f"{disk}/s.npz"],
                [*SELECT, "--format", "dc", "--format-option", "normalisation=none", "--out", f"{disk}/dc"],
                [*QUANTIZE, "--out", f"{disk}/q"],
                ["table", "2", *shown, "--out", f"{disk}/t.md"],
                *(["figure", "curves", *shown, "--out", f"{disk}/f.{end}"] for end in ("png", "svg", "pdf")),
                ["report", *shown, "--out", f"{disk}/r.html"],
                ["import", "selection", str(selection), "--out", f"{disk}/i.npz"],
            ):
                trials.run(f"--out with {size} kB", arguments, disk, cache, ok if size else (2,))
    with trials.disk(4) as disk:
        (disk / "filling").write_bytes(bytes(4096))
        os.environ["TMPDIR"] = str(disk)
        try:
            fresh = trials.folder / "without-temporary"
            for arguments in (
                [*BENCH, "--jobs", "2", "--results", str(fresh)],
                ["table", "2", *shown],
                ["report", *shown, "--out", f"{trials.folder}/r.html"],
                [*QUANTIZE, "--out", f"{trials.folder}/q"],
            ):
                trials.run("TMPDIR full", arguments, disk, cache, (0, 2))
        finally:
            del os.environ["TMPDIR"]


def read_only(trials: Trials, results: Path, cache: Path) -> None:
    """Results and cache on a disk that can only be read."""
    with trials.disk(20_000) as disk:
        shutil.copytree(results, disk / "r")
        shutil.copytree(cache, disk / "cache")
        small_disk.make_readonly(disk)
        shown = ["--results", str(disk / "r")]
        for arguments in (
            ["table", "2", *shown],
            ["table", "5", *shown],
            ["report", *shown, "--out", f"{trials.folder}/o.html"],
        ):
            trials.run("results read-only", arguments, disk, cache, (0,))
        trials.run("results read-only", [*BENCH, *shown], disk, cache)
        trials.run("cache read-only", [*SELECT, "--out", str(trials.folder / "o.npz")], disk, disk / "cache")


def little_memory(trials: Trials, expected: dict[str, list[object]], precision: Path) -> None:
    """One worker of two may take no more memory, from a moment on; the same command then does the rest."""
    results, cache = trials.folder / "starved", trials.folder / "starved-cache"
    cache.mkdir()
    shutil.copytree(precision, cache / "precision")
    mark, calls = uuid.uuid4().hex, [*BENCH, "--jobs", "2", "--results", str(results)]
    child = common.program(*calls, cache=cache, mark=mark)
    starved: set[int] = set()
    while child.poll() is None:
        for worker in sorted(set(killing.marked(mark)) - {child.pid} - starved)[-1:]:
            if len(starved) < 1 and (cache / "signals").is_dir():
                pages = int(Path(f"/proc/{worker}/statm").read_text().split()[0])
                resource.prlimit(worker, resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
                starved.add(worker)
        time.sleep(0.05)
    _, err = child.communicate()
    last = (err.strip().splitlines() or [""])[-1]
    wrong = "Traceback" in err or child.returncode not in (0, 1)
    row = {"where": "a starved worker", "command": "bench", "status": child.returncode, "wrong": "WRONG" * wrong}
    trials.rows.append(row)
    print(f"a starved worker: {child.returncode}: {last[:300]}", flush=True)
    trials.run("memory again", calls, results, cache, (0,))
    trials.rows[-1]["wrong"] = "" if killing.figures(results) == expected else "WRONG"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="kept afterwards; default: a temporary one")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="dqas-disk-"))
    folder.mkdir(parents=True, exist_ok=True)
    results, cache = folder / "undisturbed", folder / "cache"
    started = time.monotonic()
    child = common.program(*BENCH, "--jobs", "1", "--results", results, cache=cache, stdout=subprocess.DEVNULL)
    _, err = child.communicate()
    if child.returncode:
        raise SystemExit(err)
    trials = Trials(folder)
    full_disks(trials, results, cache)
    read_only(trials, results, cache)
    little_memory(trials, killing.figures(results), cache / "precision")
    common.show(trials.rows)
    wrong = sum(bool(one["wrong"]) for one in trials.rows)
    print(f"{len(trials.rows)} trials, {wrong} wrong; {time.monotonic() - started:.0f} s, in {folder}")


if __name__ == "__main__":
    main()
