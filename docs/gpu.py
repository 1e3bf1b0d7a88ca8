"""What ``benchmarks/gpu.sh`` measured (``docs/results/gpu.json``) as tables, printed by cog into ``docs/gpu.md``."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from results import RANDOM, Row, Scores, accuracy, difference, table

from dqas_plugin.bench.statistics import paired_difference

DATA: dict[str, Any] = json.loads((Path(__file__).resolve().parent / "results" / "gpu.json").read_text())
IMAGES = 50_000
HOURS_OF_THE_PAPER = 32.5
"""Of CIFAR-10 at a ratio of .6 on an A5000 (Table 5)."""


def hardware() -> str:
    """The machine and its programs, in a sentence."""
    found, versions = DATA["hardware"], DATA["versions"]
    gpu, processors = ", ".join(found["gpus"]), found["processors"]
    programs = f"torch {versions['torch']}, Python {versions['python']}"
    return f"\n{DATA['what']}; {gpu}, {processors} processors ({found['processor']}), {programs}, {DATA['date'][:10]}.\n\n"


def stages() -> str:
    """When every stage of quantization began, and how long it took."""
    step = next(one for one in DATA["steps"] if one["stages"])
    begun = [(at, _STAGES[start]) for at, text in step["stages"] for start in _STAGES if text.startswith(start)]
    end = next(at for at, text in step["stages"] if text.startswith("saved"))
    rows = [f"| start, and decoding 60,000 images | {begun[0][0]:.0f} |"]
    for (at, stage), (following, _) in zip(begun, [*begun[1:], (end, "")], strict=True):
        rows.append(f"| {stage} | {following - at:.0f} |")
    share = 3600 * HOURS_OF_THE_PAPER / step["seconds"]
    whole = f"| **all** | **{step['seconds']:.0f}** |"
    told = f"The paper gives {HOURS_OF_THE_PAPER} hours on an A5000: {share:,.0f} times as long, on another card.\n\n"
    return f"\n`{step['command']}`\n\n| stage | s |\n|---|---|\n" + "\n".join([*rows, whole]) + f"\n\n{told}"


_STAGES = {
    "training a masked": "the autoencoder: 1,000 steps",
    "the autoencoder rebuilds": "the network for Grad-CAM: 10 epochs of 50,000",
    "judging": "Grad-CAM of 50,000 images, and rebuilding them from three quarters of their patches",
    "training the network": "the network that bins are made with, of the rebuilt images: 10 epochs",
    "ranking": "bins of all images",
    "measuring": "class counts, and for them a network trained on an even draw for 30 epochs",
    "refining": "error reduction: 4,000 images; files written",
}
"""How the program's line begins that tells of a stage, and what the stage is."""


def counts() -> str:
    """Adaptive against even class counts."""
    tables = [table(budget, IMAGES, scores) for budget, scores in sorted(_by_row("paper[epochs=30]").items())]
    return "\n" + "\n".join(tables) + "\n"


def batches() -> str:
    """Random images, trained in batches of 16 and of 128."""
    rows = []
    small, large = _by_row("paper[epochs=30,batch=16]"), _by_row("paper[epochs=30]")
    for budget in sorted(small):
        of_16, of_128 = small[budget][RANDOM], large[budget][RANDOM]
        found = difference(paired_difference(of_16, of_128))
        rows.append(f"| {100 * budget / IMAGES:.3g} % ({budget:,}) | {accuracy(of_16)} | {accuracy(of_128)} | {found} |")
    return "\n| images | batches of 16 | of 128 | difference |\n|---|---|---|---|\n" + "\n".join(rows) + "\n\n"


def _by_row(recipe: str) -> dict[int, dict[Row, Scores]]:
    scores: dict[int, dict[Row, Scores]] = defaultdict(lambda: defaultdict(dict))
    for one in DATA["cells"]:
        if one["recipe"] == recipe:
            row = Row(one["method"], "", "adaptive" in one["variant"], "error-reduction" in one["variant"])
            scores[one["budget"]][row][one["seed"]] = one["mean"]
    return scores


def state() -> str:
    """Which commands were run, and which were not."""
    rows = [f"| {one['name']} | {one['state']} | {one['seconds']:.0f} |" for one in DATA["steps"]]
    return "\n| command | state | s |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
