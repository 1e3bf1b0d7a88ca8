"""A million images by the real path: parquet shards, decoded into the cache, signals, class counts, refinement, selection.

What is measured is the command that a user types,

    dqas select --dataset parquet:DIR --method graphcut --adaptive --ratio 0.1 --out s.npz

as a process of its own, cold and then again with everything in the cache. Seconds are those between the lines that it says;
memory is its highest anonymous memory (RssAnon, looked at every 10 ms from outside; only Linux tells) in every stage: what the
process itself allocated, without pages of mapped files, which the system can drop. The goal is 4 GB.

    python benchmarks/million.py --folder DIR                             # two hours or more on two cores, 12 GB of disk
    python benchmarks/million.py --folder DIR --samples 100000            # minutes
    python benchmarks/million.py --folder DIR --keep -- --refiner none    # what follows -- goes to dqas select

The images are made up: every class has a pattern of its own, of which an image shows a shifted, dimmed and noisy copy, and
classes differ in how noisy. Shards and cache go into a folder in ``--folder`` and are removed unless they are kept.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from common import status
from dqas_plugin.selection import Selection

TEST_SHARE = 0.01
SHARD = 10_000  # images
GOAL = 4000.0  # MB
_INTERVAL = 0.01  # seconds between two looks at the memory
_SHIFT = 2  # pixels

Bytes = npt.NDArray[np.uint8]


def patterns(classes: int, size: int) -> npt.NDArray[np.float32]:
    """A smooth pattern of each class, float32 ``[C, size, size, 3]`` around 0."""
    draws = np.random.default_rng(0)
    coarse = draws.normal(0, 60, (classes, 4, 4, 3)).astype(np.float32)
    places = np.linspace(0, 3, size)
    low = np.minimum(places.astype(int), 2)
    share = (places - low).astype(np.float32)[:, None, None]
    rows = coarse[:, low] * (1 - share) + coarse[:, low + 1] * share
    share = share.reshape(1, 1, size, 1)
    return rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share


def drawn(labels: npt.NDArray[np.int64], shapes: npt.NDArray[np.float32], seed: int) -> Bytes:
    """Images of these classes, uint8 ``[N, size, size, 3]``."""
    draws = np.random.default_rng([1, seed])
    found = shapes[labels]
    for one, shift in enumerate(draws.integers(-_SHIFT, _SHIFT + 1, (len(labels), 2))):
        found[one] = np.roll(found[one], shift, axis=(0, 1))
    noise = 15 + 75 * (labels / len(shapes)).astype(np.float32)  # the last classes are the hardest
    found *= draws.uniform(0.4, 1.2, (len(labels), 1, 1, 1)).astype(np.float32)
    found += noise[:, None, None, None] * draws.standard_normal(found.shape, np.float32)
    return np.clip(found + 128, 0, 255).astype(np.uint8)


def encoded(image: Bytes) -> bytes:
    """The image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", compress_level=1)
    return file.getvalue()


def write_shards(folder: Path, split: str, count: int, classes: int, size: int) -> None:
    """``train-00000-of-00100.parquet`` and so on, as the Hugging Face hub has them; every class as often."""
    shapes = patterns(classes, size)
    labels = np.random.default_rng(2).permutation(np.arange(count) % classes)
    names = {"names": [f"class {one}" for one in range(classes)], "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": names}
    kind = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    shards = -(-count // SHARD)
    for shard in range(shards):
        part = labels[shard * SHARD : (shard + 1) * SHARD]
        images = drawn(part, shapes, shard + (0 if split == "train" else shards + 10**6))
        rows = [{"bytes": encoded(one), "path": None} for one in images]
        table = pa.table({"image": pa.array(rows, kind.field("image").type), "label": pa.array(part)}, kind)
        pq.write_table(table, folder / f"{split}-{shard:05}-of-{shards:05}.parquet", row_group_size=1000)


@dataclass
class Stage:
    """What the command did between two of its lines.

    Attributes:
        name: the line that it began with.
        seconds: how long.
        peak: highest anonymous memory, in MB.
        mapped: highest memory in pages of files.
    """

    name: str
    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    peak: float = 0.0
    mapped: float = 0.0


class Watched:
    """A running command, whose lines tell one stage from the next."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.stages = [Stage("load: decode and map the images")]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._look, daemon=True)

    def follow(self) -> list[Stage]:
        """Wait for the end."""
        self._thread.start()
        assert self.process.stderr is not None
        for line in self.process.stderr:
            text = line.strip()
            print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)
            if ":" not in text and text.startswith(("training", "ranking", "measuring", "refining")):
                self._close()
                self.stages.append(Stage(text))
        status = self.process.wait()
        self._close()
        self._thread.join()
        if status:
            sys.exit(f"the command ended with status {status}")
        return self.stages

    def _close(self) -> None:
        self.stages[-1].seconds = time.perf_counter() - self.stages[-1].started

    def _look(self) -> None:
        while self.process.poll() is None:
            stage = self.stages[-1]
            try:
                stage.peak = max(stage.peak, status("RssAnon", self.process.pid))
                stage.mapped = max(stage.mapped, status("RssFile", self.process.pid))
            except (OSError, StopIteration):  # it has ended
                return
            time.sleep(_INTERVAL)


def measure(title: str, command: list[str], environment: dict[str, str], out: Path) -> None:
    """Run the command and print a row for each stage."""
    print(f"\n{title}: {' '.join(command[3:])}")
    stages = Watched(command, environment).follow()
    print(f"{'seconds':>9} {'peak MB':>8} {'mapped MB':>10}  stage")
    for one in stages:
        print(f"{one.seconds:9.1f} {one.peak:8.0f} {one.mapped:10.0f}  {one.name}")
    peak = max(one.peak for one in stages)
    print(f"{sum(one.seconds for one in stages):9.1f} {peak:8.0f}{'!' if peak > GOAL else ' '}{'':10} altogether")
    print(f"by its own account: {told(out)}")


def told(out: Path) -> str:
    """What the selection says of how it was made."""
    chosen = Selection.load(out)
    seconds = ", ".join(f"{step} {value:,.1f} s" for step, value in chosen.provenance["seconds"].items())
    found = chosen.provenance["allocation"]
    how = f"{found['chosen'] or chosen.provenance['allocator']} after {found['evaluations']} evaluations"
    return f"{seconds}; {len(chosen):,} images, {chosen.counts.min()} to {chosen.counts.max()} a class; counts: {how}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--size", type=int, default=16, help="side of an image in pixels")
    parser.add_argument("--folder", type=Path, required=True, help="where shards and cache go")
    parser.add_argument("--keep", action="store_true", help="leave them there, and use what is there")
    parser.add_argument("--cold-only", action="store_true", help="do not measure again with everything cached")
    parser.add_argument("more", nargs="*", help="after --: further options of dqas select")
    options = parser.parse_args()
    name = f"images-{options.samples}-{options.classes}-{options.size}"
    home = options.folder / name if options.keep else Path(tempfile.mkdtemp(prefix="million-", dir=options.folder))
    shards = home / "shards"
    try:
        if not shards.exists():
            started = time.perf_counter()
            part = home / "part"
            part.mkdir(parents=True)
            write_shards(part, "train", options.samples, options.classes, options.size)
            write_shards(part, "test", max(options.classes, round(TEST_SHARE * options.samples)), options.classes, options.size)
            part.rename(shards)
            print(f"{options.samples:,} images of {options.classes} classes written in {time.perf_counter() - started:.0f} s")
        out = home / "s.npz"
        command = [sys.executable, "-m", "dqas_cli", "select", "--dataset", f"parquet:{shards}", "--method", "graphcut"]
        command += ["--adaptive", "--ratio", "0.1", "--out", str(out), "--force", *options.more]
        environment = {**os.environ, "DQAS_CACHE": str(home / "cache")}
        for title in ("cold",) if options.cold_only else ("cold", "cached"):
            measure(title, command, environment, out)
    finally:
        if not options.keep:
            shutil.rmtree(home)


if __name__ == "__main__":
    main()
