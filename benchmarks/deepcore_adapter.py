"""DeepCore's own methods, through the adapter, beside ours of the same name: on real images, with one trained network.

    export PYTHONPATH=.:cli:adapters
    python benchmarks/deepcore_adapter.py --deepcore PATH [--images 1000] [--ratio 0.1] [--device cuda]

For each class of the checkout: whether it ran; how long its selection took, the passes of the images through the network
included, and how long ours took with ``compat=deepcore`` on what the network says of them, which all methods share; how many
of its picks are ours. Other picks are explained: they are worth the same in float64, or they are what an exact greedy search
finds among gradients whose ``p - y`` is rounded as DeepCore's float32 rounds it. What neither explains is marked.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")

SEED = 0
WORTH = 1e-4  # picks worth the same to this share are ties of float32
TIES = 2  # picks that are equal even then

NATIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "Cal": ("cal", {}),
    "ContextualDiversity": ("contextual-diversity", {}),
    "Craig": ("craig", {}),
    "DeepFool": ("deepfool", {}),
    "Entropy": ("entropy", {}),
    "FacilityLocation": ("facility-location", {}),
    "Forgetting": ("forgetting", {}),
    "Glister": ("glister", {}),
    "GradMatch": ("gradmatch", {}),
    "GraNd": ("grand", {"batch": 256}),
    "GraphCut": ("graphcut", {}),
    "Herding": ("herding", {}),
    "LeastConfidence": ("least-confidence", {}),
    "Margin": ("margin", {}),
    "Submodular": ("graphcut", {}),
    "Uncertainty": ("entropy", {}),
    "kCenterGreedy": ("k-center", {}),
}
"""Name there: name here, and the options that make it the same."""

OPTIONS: dict[str, dict[str, Any]] = {"GraNd": {"repeat": 1}}
"""Options of both."""

SAID = {
    "Full": "takes all samples, and was asked for all",
    "Uniform": "drawn at random",
    "LogDeterminant": "no counterpart: its gain grows with the likeness to what is picked",
    "Submodular": "GraphCut, the default of its command line",
    "Uncertainty": "Entropy, the default of its command line",
}
"""What is not seen from the figures."""

Order = tuple[npt.NDArray[np.int64], ...]


@dataclass
class Row:
    """One method.

    Attributes:
        name: there.
        theirs: seconds of DeepCore; NaN if it did not run.
        ours: seconds of ours; NaN without one.
        shared: picks in common.
        picked: picks of DeepCore.
        why: what there is to say.
    """

    name: str
    theirs: float = float("nan")
    ours: float = float("nan")
    shared: int | None = None
    picked: int = 0
    why: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """A line of the table."""
        agree = "" if self.shared is None else f"{self.shared}/{self.picked} = {self.shared / max(1, self.picked):.1%}"
        ran = "no" if np.isnan(self.theirs) else "yes"
        ours = "" if np.isnan(self.ours) else f"{self.ours:.3f}"
        theirs = "" if np.isnan(self.theirs) else f"{self.theirs:.2f}"
        return f"{self.name:<20} {ran:<4} {theirs:>10} {ours:>10}  {agree:<18} {'; '.join(self.why)}".rstrip()


class Contest:
    """Both on the same signals.

    Args:
        signals: with the network.
        counts: how many of each class.
        device: where both compute.
    """

    def __init__(self, signals: Any, counts: list[int], device: str) -> None:
        self.signals, self.counts = signals, counts
        self.placed = signals if device == "cpu" else signals.to(device)

    def row(self, name: str) -> Row:
        """DeepCore's and ours."""
        from dqas_plugin.errors import DqasError

        row = Row(name)
        own: dict[str, Any] = OPTIONS.get(name, {})
        wanted = [len(self.signals.members(label)) for label in range(len(self.counts))] if name == "Full" else self.counts
        row.why += [SAID[name]] if name in SAID else []
        try:
            theirs, row.theirs = self.ranked(f"deepcore:{name}", own, wanted)
        except DqasError as error:
            row.why.append(str(error))
            return row
        chosen = theirs.order
        if theirs.weights is not None:  # what was left out for its weight of 0 came in to make up the number
            chosen = tuple(one[weights > 0] for one, weights in zip(theirs.order, theirs.weights, strict=True))
        row.picked = sum(map(len, chosen))
        if row.picked < sum(wanted):
            row.why.append(f"DeepCore drops {sum(wanted) - row.picked} picks that end with weight 0")
        if name in NATIVE:
            native, options = NATIVE[name]
            mine, row.ours = self.ranked(native, {**own, **options}, wanted)
            row.shared = sum(len(np.intersect1d(*pair)) for pair in zip(mine.order, chosen, strict=True))
            if row.shared < row.picked:
                row.why.append(self.explained(name, mine.order, chosen))
        return row

    def ranked(self, method: str, options: dict[str, Any], counts: list[int]) -> tuple[Any, float]:
        """The ranking and its seconds; the first of two runs is for what is imported and compiled."""
        from dqas_plugin.ranking import rank

        for seed in (SEED + 1, SEED):
            started = time.perf_counter()
            found = rank(self.placed, method, counts=counts, seed=seed, **options)
            spent = time.perf_counter() - started
        return found, spent

    def explained(self, name: str, ours: Order, theirs: Order) -> str:
        """What the other picks are worth, or what they come from."""
        if name in SEARCHES:
            found = [SEARCHES[name](self.signals.view(label), count) for label, count in enumerate(self.counts)]
            same = sum(len(np.intersect1d(*pair)) for pair in zip(found, theirs, strict=True))
            picked = sum(map(len, theirs))
            mark = "" if same >= picked - TIES else "! "
            return (
                f"{mark}DeepCore rounds p - y to float32: an exact search among such gradients has {same}/{picked} of its picks"
            )
        worth = VALUES.get(name)
        if worth is None:
            return "! not explained"
        gaps, signs = [], []
        for label, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            view = self.signals.view(label, seed=SEED)
            value = worth(view)
            positions = [np.searchsorted(view.indices, one) for one in (mine, other)]
            if set(positions[0].tolist()) != set(positions[1].tolist()):
                a, b = (value(one.tolist()) for one in positions)
                gaps.append(abs(a - b) / max(abs(a), abs(b), 1e-300))
                signs.append(a >= b)
        worst = max(gaps)
        mark = "" if worst <= WORTH else "! "
        return f"{mark}in {len(gaps)} classes; worth in float64 differs by {worst:.1e} at most (ours no lower in {sum(signs)})"


Value = Callable[[list[int]], float]


def total(score: Callable[[Any], npt.NDArray[np.float64]]) -> Callable[[Any], Value]:
    """What a set of samples scores together."""

    def of(view: Any) -> Value:
        scores = np.asarray(score(view), dtype=np.float64)
        return lambda picks: float(scores[picks].sum())

    return of


def events(view: Any) -> npt.NDArray[np.float64]:
    """How often each sample was forgotten."""
    right = (view.margins.numpy() > 0).astype(np.int64)
    counted: npt.NDArray[np.float64] = (np.diff(right, axis=1) == -1).sum(axis=1).astype(np.float64)
    return counted


def craig(view: Any) -> Value:
    """How near the gradients of a class are to those of the picks."""
    from literal import WORTHS

    return WORTHS["craig"](view)


def rounded_cosines(view: Any) -> npt.NDArray[np.float64]:
    """Similarities of the gradients as torch makes them, ``p - y`` in float32, and from there on in float64; ``[n, n]``.

    Where the network is sure, ``p - 1`` is a difference of nearly equal numbers, and its last digits are all it has.
    """
    logits = view.logits.clone().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(logits, view.labels)
    residuals = torch.autograd.grad(loss, logits)[0].double()
    gradients = torch.cat([residuals, (residuals[:, :, None] * view.features.double()[:, None]).flatten(1)], dim=1)
    gradients /= gradients.norm(dim=1, keepdim=True)
    result: npt.NDArray[np.float64] = (0.5 + 0.5 * gradients @ gradients.T).numpy()
    return result


def search(gain: Callable[[npt.NDArray[np.float64], list[int]], npt.NDArray[np.float64]]) -> Any:
    """A greedy search that asks for every gain again at every pick; dataset indices."""

    def searched(view: Any, count: int) -> npt.NDArray[np.int64]:
        near, picks = rounded_cosines(view), list[int]()
        for _ in range(count):
            gains = gain(near, picks).copy()
            gains[picks] = -np.inf
            picks.append(int(gains.argmax()))
        found: npt.NDArray[np.int64] = view.indices[picks]
        return found

    return searched


def cut_gain(near: npt.NDArray[np.float64], picks: list[int]) -> npt.NDArray[np.float64]:
    gains: npt.NDArray[np.float64] = near.sum(axis=0) - 2 * near[picks].sum(axis=0)
    return gains


def location_gain(near: npt.NDArray[np.float64], picks: list[int]) -> npt.NDArray[np.float64]:
    reached = near[:, picks].max(axis=1, initial=0.0)
    gains: npt.NDArray[np.float64] = np.maximum(0.0, near - reached[:, None]).sum(axis=0)
    return gains


SEARCHES = {"GraphCut": search(cut_gain), "Submodular": search(cut_gain), "FacilityLocation": search(location_gain)}
"""Methods whose picks hang on digits that float32 does not have."""


VALUES: dict[str, Callable[[Any], Value]] = {
    "Craig": craig,
    "Forgetting": total(events),
    "DeepFool": total(lambda view: view.perturbations.double().numpy()),
    "LeastConfidence": total(lambda view: view.logits.double().amax(dim=1).numpy()),
}
"""What the picks of a class are worth, to tell ties from mistakes."""


def problem(images: int, ratio: float) -> tuple[Any, list[int], float]:
    """Signals of so many digits under a trained network, how many of each class are wanted, and seconds of the outputs."""
    from dqas_plugin import load_dataset
    from dqas_plugin.deepfool import perturbations
    from dqas_plugin.lookup import resolve_model
    from dqas_plugin.recipes import recipe
    from dqas_plugin.signals import Signals
    from dqas_plugin.trained_signals import compute_signals
    from dqas_plugin.training import outputs

    data = load_dataset("digits").train.subset(np.arange(images))
    model = "convnet3-small"
    needs = frozenset({"network", "dynamics"})
    found = compute_signals(data, model, resolve_model(model), recipe("quick"), SEED, needs=needs)
    started = time.perf_counter()
    pairs = list(outputs(found.network, data, batch=256))
    spent = time.perf_counter() - started
    features, logits = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    started = time.perf_counter()
    ways = perturbations(found.network, data.images)
    SAID["DeepFool"] = f"with ours {time.perf_counter() - started:.2f} s come before, for the perturbations, a signal"
    more = {"margins": found.margins, "errors": found.errors, "perturbations": ways}
    signals = Signals.from_arrays(features, logits, data.labels, data.images, network=found.network, **more)
    counts = [max(1, round(ratio * int(size))) for size in data.class_sizes]
    return signals, counts, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deepcore", type=Path, required=True, metavar="PATH", help="a checkout of PatrickZH/DeepCore")
    parser.add_argument("--images", type=int, default=1000, help="of scikit-learn's digits")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of every class")
    parser.add_argument("--device", default="cpu", help="where both compute: cpu, cuda")
    parser.add_argument("--only", help="methods whose name contains this")
    options = parser.parse_args()
    os.environ["DEEPCORE_HOME"] = str(options.deepcore.resolve())
    torch.set_num_threads(1)
    import dqas_adapters.deepcore as adapter
    from dqas_plugin.plugins import plugins

    if not any(one.startswith("deepcore:") for one in plugins().selectors):
        plugins().register(adapter, "deepcore")
    signals, counts, spent = problem(options.images, options.ratio)
    print(f"{options.images} digits, {sum(counts)} chosen ({min(counts)} to {max(counts)} a class, one thread); one pass "
          f"through the network takes {spent:.2f} s")  # fmt: skip
    print(f"{'DeepCore':<20} {'ran':<4} {'its s':>10} {'ours s':>10}  {'picks agree':<18} what differs")
    names = [one.partition(":")[2] for one in plugins().selectors if one.startswith("deepcore:")]
    contest, rows = Contest(signals, counts, options.device), []
    for name in names:
        if not options.only or options.only in name:
            rows.append(contest.row(name))
            print(rows[-1].text, flush=True)
    unknown = [row.name for row in rows if any("!" in one for one in row.why)]
    if unknown:
        sys.exit(f"other picks without ties to explain them: {', '.join(unknown)}")


if __name__ == "__main__":
    main()
