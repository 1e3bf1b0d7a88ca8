"""Half an hour of one GPU: adaptive against even class counts, all selectors, the paper's recipe, batch sizes, quantization.

Each step is a command of ``dqas``, in the order of what matters most; results are kept by cell, so a stop costs one training
at most, and the same command goes on when there is time again.

    bash benchmarks/gpu.sh PATH/cifar10-jpeg [--minutes 30] [--jobs 6] [--out docs/results] [--work gpu-run]
    bash benchmarks/gpu.sh --tiny

Writes ``gpu.json`` (``gpu-tiny.json``) into ``--out``: hardware, versions, commands with their time, the figures of every
cell, and the stages of quantization.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dqas_plugin.bench import Store
from dqas_plugin.paths import atomic_file
from dqas_plugin.selection import Selection
from dqas_plugin.versions import versions

NO_PATCHES = "--no-patches"  # whole images: what is dropped of an image is measured apart


@dataclass
class Step:
    """A command, and what became of it."""

    name: str
    words: list[str]
    state: str = "open"
    seconds: float = 0.0
    stages: list[list[Any]] = field(default_factory=list)

    def as_dict(self, names: dict[str, str]) -> dict[str, Any]:
        """For the record, with names for the folders of this machine."""
        command = named(shlex.join(["dqas", *self.words]), names)
        stages = [[at, named(line, names)] for at, line in self.stages]
        return {"name": self.name, "command": command, "state": self.state, "seconds": self.seconds, "stages": stages}


def named(text: str, names: dict[str, str]) -> str:
    for folder, name in names.items():
        text = text.replace(folder, name)
    return text


def folders(options: argparse.Namespace) -> dict[str, str]:
    """What the record calls the folders."""
    places = [options.work] if options.data is None else [options.work, options.data]
    return {str(one): one.name for one in places}


def steps(options: argparse.Namespace) -> list[Step]:
    """The commands, those first whose answer is wanted most."""
    if options.tiny:
        data, network, place = ["--dataset", "digits"], ["--model", "convnet3-small"], ["--device", "cpu"]
        short, whole = ["--recipe", "quick", "--iterations", "20"], ["--recipe", "quick", "--iterations", "40"]
        patches = ["--rebuild", "harmonic"]
    else:
        data, network, place = ["--dataset", f"parquet:{options.data}"], ["--model", "resnet18"], ["--device", "cuda"]
        short, whole = ["--recipe", "paper", "--epochs", "30"], ["--recipe", "paper"]
        patches = []  # an autoencoder is trained for them, once for all
    seeds = "2" if options.tiny else "3"
    common = [*data, *network, *place]

    def bench(name: str, *words: str, times: str = seeds, how: list[str] = short) -> Step:
        more = ["--seeds", times, "--jobs", str(options.jobs), "--results", str(options.work / "results")]
        return Step(name, ["bench", *words, *how, *common, *more])

    def compared(ratio: str) -> list[str]:
        return ["--method", "graphcut,dq", NO_PATCHES, "--adaptive", "--ratio", ratio]

    def batches(size: str) -> Step:
        return bench(f"random, batches of {size}", "--method", "random", "--ratio", "0.05,0.1", "--batch", size)

    quantized = ["--ratio", "0.6", *short, *common, *patches, "--out", str(options.work / "quantized")]
    return [
        Step("quantization, stage by stage", ["quantize", "--pipeline", "dqas", *quantized]),
        bench("adaptive against even counts, 5 and 10 %", *compared("0.05,0.1")),
        batches("16"),
        batches("128"),
        bench("adaptive against even counts, 20 %", *compared("0.2")),
        bench("all selectors", "--method", "all", NO_PATCHES, "--ratio", "0.1", times="1"),
        bench("adaptive against even counts, 50 %", *compared("0.5")),
        bench("without a quarter of the patches", "--method", "dq,dqas", "--adaptive", "--ratio", "0.1", *patches),
        bench("the paper's recipe", *compared("0.05"), how=whole),
    ]


def carry_out(step: Step, limit: float, logs: Path) -> None:
    """Run the command for so many seconds at most; its output goes to a log, with the time before each line."""
    started = time.perf_counter()
    out = step.words[step.words.index("--out") + 1] if "--out" in step.words else None
    if out and Path(out).exists():
        step.state = "done"
        return
    command = [sys.executable, "-u", "-m", "dqas_cli", *step.words]
    step.state, step.stages = "failed", []
    with (logs / f"{step.name}.log").open("a", encoding="utf-8") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        timer = threading.Timer(max(1.0, limit), child.send_signal, [signal.SIGINT])
        timer.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                at = round(time.perf_counter() - started, 1)
                log.write(f"{at:8.1f} {line}")
                if out:
                    step.stages.append([at, line.strip()])
            status = child.wait()
            step.state = {0: "done", 130: "stopped"}.get(status, "failed")
        except KeyboardInterrupt:  # the child heard it, too
            step.state = "stopped"
            child.wait()
            raise
        finally:
            timer.cancel()
            step.seconds = round(step.seconds + time.perf_counter() - started, 1)


def record(options: argparse.Namespace, found: list[Step]) -> dict[str, Any]:
    """All that is known so far."""
    content: dict[str, Any] = {
        "what": "digits, to try the commands" if options.tiny else f"CIFAR-10 as {options.data.name}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "jobs": options.jobs,
        "steps": [step.as_dict(folders(options)) for step in found],
        "cells": [],
    }
    if Store.exists(options.work / "results"):
        with Store(options.work / "results") as store:
            content["cells"] = [figures(cell, result) for cell, result in store.cells()]
    chosen = options.work / "quantized" / "selection.npz"
    if chosen.exists():
        content["quantization_seconds"] = dict(Selection.load(chosen).provenance["seconds"])
    return content


def figures(cell: Any, result: dict[str, Any]) -> dict[str, Any]:
    """A cell: accuracies in percent."""
    scores = {name: round(100 * result["accuracy"][name], 2) for name in ("mean", "worst", "natural")}
    return {
        "dataset": Path(cell.dataset.name).name,
        "budget": cell.budget,
        "method": cell.method,
        "detail": cell.detail,
        "variant": cell.variant,
        "seed": cell.seed,
        "model": cell.model,
        "recipe": cell.recipe.name,
        "device": cell.device,
        **scores,
        "best": round(100 * result["best"]["mean"], 2),
        "precision": result["precision"],
        "seconds": {name: round(value, 2) for name, value in result["seconds"].items()},
    }


def hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_properties(one) for one in range(torch.cuda.device_count())]
    return {
        "gpus": [f"{one.name}, {one.total_memory / 2**30:.0f} GiB" for one in gpus],
        "driver": torch.version.cuda,
        "processor": processor(),
        "processors": os.cpu_count(),
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def earlier(path: Path, found: list[Step], names: dict[str, str]) -> None:
    """Take over what an earlier start of the same commands did."""
    known = {one["command"]: one for one in json.loads(path.read_text())["steps"]} if path.exists() else {}
    for step in found:
        if (before := known.get(step.as_dict(names)["command"])) is not None:
            step.state, step.seconds, step.stages = before["state"], before["seconds"], before["stages"]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, help="folder of CIFAR-10 as parquet files")
    parser.add_argument("--tiny", action="store_true", help="digits on the processor")
    parser.add_argument("--minutes", type=float, default=30.0, help="of all steps together, those of earlier starts included")
    parser.add_argument("--jobs", type=int, default=6, help="trainings that share the GPU")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where the JSON goes")
    parser.add_argument("--work", type=Path, help="where results and logs go (default: gpu-run, gpu-run-tiny)")
    options = parser.parse_args()
    if (options.data is None) == (not options.tiny):
        parser.error("give the folder of the data, or --tiny")
    options.work = options.work or Path("gpu-run-tiny" if options.tiny else "gpu-run")
    return options


def main() -> int:
    options = parsed()
    found = steps(options)
    path = options.out / ("gpu-tiny.json" if options.tiny else "gpu.json")
    earlier(path, found, folders(options))
    logs = options.work / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for step in found:
        left = 60 * options.minutes - sum(one.seconds for one in found)
        if step.state == "done" or left <= 0:
            print(f"{step.name}: {step.state}, {step.seconds:.0f} s", flush=True)
            continue
        print(f"{step.name} …", flush=True)
        try:
            carry_out(step, left, logs)
        except KeyboardInterrupt:
            return 130
        finally:
            with atomic_file(path) as temporary:
                temporary.write_text(json.dumps(record(options, found), indent=1, ensure_ascii=False) + "\n")
        print(f"{step.name}: {step.state}, {step.seconds:.0f} s", flush=True)
    print(f"figures: {path}; logs: {logs}")
    return 1 if any(step.state == "failed" for step in found) else 0


if __name__ == "__main__":
    sys.exit(main())
