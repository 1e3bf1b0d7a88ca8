"""Speed and memory of the selection methods: ours, the algorithm as it is usually written, and the real DeepCore.

All three get the same features, logits and labels in the same run and must pick the same samples. ``literal.py`` has the usual
algorithms: greedy over dense matrices of all pairs, gradients written out, everything in float64, so that they also say which
picks are right. With ``--deepcore PATH`` a checkout of PatrickZH/DeepCore selects too, with its own classes
(``real_deepcore.py``); it computes in float32, and where that leads to other picks, their worth is compared.

The other yardstick is one matrix-vector product (float32, all features) per pick: what reading the features once a pick costs,
here and now. It is measured in turns with ours.

    python benchmarks/selectors.py                       # one class of 5,000 samples, 512 features; some minutes
    python benchmarks/selectors.py --deepcore PATH       # beside the real one; some minutes more
    python benchmarks/selectors.py --quick               # under a minute
    python benchmarks/selectors.py --only k-center --threads 1    # one thread, where other work shares the processor

Goals: at least 10 times as fast as DeepCore on greedy methods, no slower on the others, and so many products a pick at most.
The last line is the headline: the geometric mean over the methods of DeepCore's time over ours (without it, the literal's).
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common import Problem
    from dqas_plugin.signals import Signals

CLASSES, SMALL, WIDTH, SEED = 10, 20, 512, 7
GREEDY = 10.0
"""How many times as fast as DeepCore the greedy methods should be."""

PRODUCTS = {"graphcut:eq7": 3, "k-center": 4, "graphcut": 6, "herding": 6, "facility-location": 10, "craig": 12}
"""Matrix-vector products a pick at most."""

RATIOS = dict.fromkeys(
    ("k-center", "herding", "graphcut", "facility-location", "craig", "gradmatch", "glister", "contextual-diversity"), GREEDY
)
"""Ratio to DeepCore at least; 1 for the others."""

SHARES = {"gradmatch": 0.5}
"""Fewer picks for what takes the others too long: they solve a least-squares problem of all picks for every pick."""

OPTIONS: dict[str, dict[str, Any]] = {
    "grand": {"repeat": 1, "batch": 256},
    "d2": {"gamma_forward": 0.01, "gamma_reverse": 0.01},
}
"""What is not at its default: one training, DeepCore's batch, and messages that get as far as samples are apart."""

WORTH = 1e-6
"""Other picks than DeepCore's are ties in float32 if what all of them are worth differs by less than this share."""


def step_aside() -> None:
    """Leave the name ``selectors`` to the standard library, whose module of that name ``subprocess`` needs.

    A script's own folder comes first on the path, so without this neither this file nor its neighbours could import torch.
    """
    path = sys.path.copy()
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [one for one in path if os.path.abspath(one) != here]
    sys.modules.pop("selectors", None)
    importlib.import_module("selectors")
    sys.path[:] = path


step_aside()


@dataclass(frozen=True)
class Scale:
    """Sizes of a run.

    Attributes:
        samples: of the one class that matters; the others have a few, without which DeepCore does not work.
        picks: of it, where methods are compared.
        deep: of it, where products are counted.
        repeats: how often ours is timed.
    """

    samples: int
    picks: int
    deep: int
    repeats: int

    def fraction(self, name: str) -> float:
        """Share of every class that is picked."""
        return self.picks * SHARES.get(name, 1.0) / self.samples

    def counts(self, name: str) -> list[int]:
        """Samples to pick of every class."""
        return [round(self.fraction(name) * size) for size in self.sizes()]

    def sizes(self) -> list[int]:
        """Samples of every class."""
        return [self.samples, *[SMALL] * (CLASSES - 1)]


@dataclass
class Row:
    """What was measured of one method; NaN where nothing was."""

    name: str
    ours: float = math.nan
    literal: float = math.nan
    deepcore: float = math.nan
    products: float = math.nan
    peak: float = math.nan
    picks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: bool = False

    @property
    def text(self) -> str:
        """Its line of the table."""
        met = {
            "real": self.deepcore / self.ours >= RATIOS.get(self.name, 1.0),
            "products": self.products <= PRODUCTS.get(self.name, 0),
        }
        cells = [
            f"{self.name:20}",
            f"{self.ours:9.4f}",
            _number(self.literal, "10.3f"),
            _number(self.literal / self.ours, "7.1f"),
            _number(self.deepcore, "11.3f"),
            _number(self.deepcore / self.ours, "7.1f", met["real"]),
            _number(self.products, "9.2f", met["products"]),
            _number(PRODUCTS.get(self.name, math.nan), "4.0f"),
            _number(self.peak, "8.1f"),
        ]
        return f"{' '.join(cells)}   {', '.join(self.picks)}"


HEAD = (
    f"{'':20} {'ours, s':>9} {'literal, s':>10} {'ratio':>7} {'DeepCore, s':>11} {'ratio':>8} {'products':>10} {'goal':>4} "
    f"{'peak, MB':>8}   same picks"
)


def _number(value: float, form: str, met: bool | None = None) -> str:
    """A figure, or a dash where there is none; of one that has a goal, whether it is met."""
    text = "-".rjust(int(form.partition(".")[0])) if math.isnan(value) else format(value, form)
    if met is None:
        return text
    return text + (" " if met or math.isnan(value) else "!")


class Contest:
    """All methods on one problem."""

    def __init__(self, problem: Problem, scale: Scale, checkout: Path | None) -> None:
        self.problem, self.scale, self.checkout = problem, scale, checkout
        self.signals: Signals = problem.signals()

    def select(self, name: str, counts: list[int]) -> list[list[int]]:
        """Our choice: dataset indices of every class in the order of picking, without those of weight 0.

        One class after the other, with all threads. ``rank`` would give each thread a class; here only one is large.
        """
        from dqas_plugin.contracts import Weighted
        from dqas_plugin.ranking import as_selector
        from dqas_plugin.seeding import generator

        selector, options = as_selector(name)
        chosen = []
        for label, count in enumerate(counts):
            view = self.signals.view(label, seed=SEED)
            answer = selector(view, count, generator(SEED, "rank", label), **options, **OPTIONS.get(name, {})) if count else []
            if isinstance(answer, Weighted):
                answer = [one for one, weight in zip(answer.positions, answer.weights, strict=True) if weight > 0]
            chosen.append([int(view.indices[one]) for one in answer[:count]])
        return chosen

    def row(self, name: str) -> Row:
        """Measure one method."""
        from common import peak_megabytes, seconds

        counts, result = self.scale.counts(name), Row(name)
        self.select(name, [1] * CLASSES)  # compiles and loads what it needs
        chosen: list[list[list[int]]] = []
        spent = [seconds(lambda: chosen.append(self.select(name, counts))) for _ in range(self.scale.repeats)]
        result.ours = statistics.median(spent)
        result.peak = peak_megabytes(lambda: self.select(name, counts))
        self.against_literal(result, chosen[0])
        if self.checkout is not None:
            self.against_deepcore(result, chosen[0], self.checkout)
        if name in PRODUCTS:
            result.products = self.products(name)
        return result

    def against_literal(self, row: Row, chosen: list[list[int]]) -> None:
        """The same by the usual algorithm, and whether it picks the same."""
        import numpy as np
        from literal import DRAWN, LITERAL, STARTS

        from common import seconds

        if row.name not in LITERAL:
            return
        counts = self.scale.counts(row.name)
        views = [self.signals.view(label, seed=SEED) for label in range(CLASSES)]
        answers: list[list[int]] = []
        row.literal = seconds(lambda: answers.extend(map(LITERAL[row.name], views, counts)))
        found = [[int(view.indices[one]) for one in picks] for view, picks in zip(views, answers, strict=True)]
        if row.name in STARTS:
            row.picks.append("not compared: they depend on where it starts")
            return
        if row.name in DRAWN:
            groups = DRAWN[row.name](views[0])
            drawn = [np.bincount(groups[one[0]] + 1, minlength=groups.max() + 2) for one in (chosen, found)]
            row.picks.append("literal draws as many of every stratum")
            row.wrong |= bool(np.abs(drawn[0] - drawn[1]).max() > 1)
            return
        own, right = ({one for picks in choice for one in picks} for choice in (chosen, found))
        order = " in another order" if chosen != found and own == right else ""
        row.picks.append(f"literal {len(own & right)}/{len(right)}{order}")
        row.wrong |= own != right

    def against_deepcore(self, row: Row, chosen: list[list[int]], checkout: Path) -> None:
        """The same by the real one."""
        import real_deepcore

        if row.name not in real_deepcore.CLASSES:
            row.notes += [f"{row.name}: {why}" for name, why in real_deepcore.OMITTED.items() if name == row.name]
            return
        answer = real_deepcore.select(checkout, row.name, self.problem, self.scale.fraction(row.name), SEED)
        row.deepcore = answer.seconds
        own = {one for picks in chosen for one in picks}
        theirs = {int(one) for one in answer.indices}
        row.picks.append(f"DeepCore {len(own & theirs)}/{len(theirs)}")
        if own != theirs:
            row.wrong |= not self.worth_the_same(row, own, theirs)

    def worth_the_same(self, row: Row, own: set[int], theirs: set[int]) -> bool:
        """Whether other picks than DeepCore's are ties in its float32."""
        from literal import WORTHS

        size = self.scale.samples
        if row.name not in WORTHS or any(one >= size for one in own ^ theirs):
            return False
        worth = WORTHS[row.name](self.signals.view(0, seed=SEED))
        ours, other = (worth(sorted(one for one in picks if one < size)) for picks in (own, theirs))
        gap = (ours - other) / abs(other)
        row.notes.append(
            f"{row.name}: {len(own - theirs)} picks are other ones than DeepCore's, which sums in float32. The objective in "
            f"float64: ours {ours:.9g}, DeepCore's {other:.9g} ({gap:+.1e})"
        )
        return bool(abs(gap) <= WORTH)

    def products(self, name: str) -> float:
        """Time of ours over that of one matrix-vector product per pick."""
        from common import seconds

        counts = [self.scale.deep, *[0] * (CLASSES - 1)]
        features = self.problem.features.numpy()[: self.scale.samples]

        def multiply() -> None:
            for position in range(self.scale.deep):
                features @ features[position]

        turns = [(seconds(multiply), seconds(lambda: self.select(name, counts))) for _ in range(self.scale.repeats)]
        return statistics.median(own / product for product, own in turns)


def methods(only: str | None) -> list[str]:
    """Every registered method, and GraphCut's other objective."""
    from dqas_plugin.plugins import plugins

    names = [*plugins().selectors, "graphcut:eq7"]
    return sorted(name for name in names if not only or only in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples, under a minute")
    parser.add_argument("--deepcore", type=Path, metavar="PATH", help="a checkout of PatrickZH/DeepCore")
    parser.add_argument("--threads", type=int, help="threads of the matrix products (default: the libraries' own choice)")
    parser.add_argument("--only", help="methods whose name contains this")
    parser.add_argument("--picks", type=int, help="how many are picked where methods are compared")
    options = parser.parse_args()
    if options.threads:  # NumPy's library reads this when it is loaded, hence the imports inside functions
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads)))
    scale = Scale(2000, 200, 1000, 2) if options.quick else Scale(5000, 500, 2500, 3)
    if options.picks:
        scale = Scale(scale.samples, options.picks, scale.deep, scale.repeats)
    run(scale, options.deepcore, options.only)


def run(scale: Scale, checkout: Path | None, only: str | None) -> None:
    import torch

    from common import made_up

    problem = made_up(scale.sizes(), WIDTH, CLASSES)
    contest = Contest(problem, scale, checkout)
    fewer = "".join(f", {scale.counts(name)[0]} by {name}" for name in SHARES)
    print(f"a class of {scale.samples} samples, {WIDTH} features ({4e-6 * scale.samples * WIDTH:.1f} MB; all pairs in float32: "
          f"{4e-6 * scale.samples**2:.0f} MB), {CLASSES} logits, and {CLASSES - 1} classes of {SMALL}")  # fmt: skip
    print(f"{scale.picks} picks{fewer}; products are counted over {scale.deep} picks; {torch.get_num_threads()} threads; "
          f"! = goal missed")  # fmt: skip
    print(HEAD)
    rows: list[Row] = []
    for name in methods(only):
        rows.append(contest.row(name))
        print(rows[-1].text, flush=True)
    for note in (one for row in rows for one in row.notes):
        print(note)
    finish(rows, checkout is not None)


def finish(rows: list[Row], real: bool) -> None:
    """The headline, and whether the picks were right."""
    wrong = [row.name for row in rows if row.wrong]
    if wrong:
        sys.exit(f"other picks without ties to explain them: {', '.join(wrong)}")
    ratios = [(row.deepcore if real else row.literal) / row.ours for row in rows]
    known = [one for one in ratios if not math.isnan(one)]
    print(f"geometric mean ratio {statistics.geometric_mean(known) if known else math.nan:.1f}")


if __name__ == "__main__":
    main()
