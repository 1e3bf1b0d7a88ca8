"""Bins of dataset quantization: GraphCut again and again on what is left of a class, and draws from all bins alike.

The first bin holds what GraphCut picks first of a class, the next one what it picks of the rest, and so on: early bins are
representative, late ones diverse. A subset takes the same number of each. Sources: Zhou et al., ICCV 2023 (DQ), sections 3.2
and 3.3; Zhao et al., ECCV 2024 (DQAS), equations 4, 7 and 8 (8 is 7 on features of the rebuilt images: give those).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Annotated, Literal

import numpy as np

from dqas_plugin.contracts import Bounds, Selector, selector
from dqas_plugin.data import IntArray
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.gradients import LastLayerGradients
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.methods.graphcut import graphcut_deepcore, graphcut_eq7
from dqas_plugin.methods.neighbours import at_least_one
from dqas_plugin.quantization.settings import USUAL_BINS
from dqas_plugin.signals import View

Objective = Literal["eq7", "deepcore", "dq"]
"""``eq7``: equation 7 of DQAS. ``deepcore``: DeepCore's GraphCut. ``dq``: that with the gradients that DQ's program takes."""

BINS = 10
"""As many as DQ and DQAS make."""

_WHOLE = 1e-5  # bins × fraction may miss 1 by this: DQ's program allows as much


@selector(
    "bins",
    title="Bins: GraphCut on what is left of the class, again and again; draws from all bins alike",
    family="quantization",
    needs={"features", "gradients"},
    source="Zhou et al., ICCV 2023 (DQ); DQAS, equations 4 and 7",
    variants={name: {"objective": name} for name in ("eq7", "deepcore", "dq")},
    differs="default: equation 7 of DQAS, distances of features; DQ's program: angles between gradients, softmax taken twice",
)
def bins_in_turn(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    bins: Annotated[int, Bounds(1)] = BINS,
    fraction: Annotated[float, Bounds(0, 1, above=True)] | None = None,
    objective: Objective = "eq7",
) -> IntArray:
    """All positions of a class, int64, such that every first k of them are nearly equally many of each bin.

    Args:
        view: one class.
        budget: how many; all are ranked, and what fills the bins does not depend on it.
        rng: of the draws from the bins.
        bins: how many.
        fraction: share of the class that a bin takes; None: all samples are spread evenly. What is in no bin comes last.
        objective: what fills the bins, ``eq7``, ``deepcore`` or ``dq``.

    Raises:
        UserError: for another objective, fewer bins than 1, a class with fewer samples than bins, or bins that would take more
            than there is.
    """
    return _in_turn(view, bins, objective, rng, fraction)


def _in_turn(view: View, bins: int, objective: Objective, rng: np.random.Generator, fraction: float | None = None) -> IntArray:
    order = draw_in_turn(graphcut_bins(view, bins, fraction=fraction, objective=objective), rng)
    rest = np.setdiff1d(np.arange(len(view)), order)
    return np.concatenate([order, rng.permutation(rest)])


def _quantizer(
    name: str, objective: Objective, needs: set[str], quantizes: str, title: str, source: str, differs: str
) -> Selector:
    """:func:`bins_in_turn` by one objective, of images whose patches are dropped; ``bench`` trains on the rebuilt ones."""

    def in_turn(view: View, budget: int, rng: np.random.Generator, *, bins: Annotated[int, Bounds(1)] = BINS) -> IntArray:
        return _in_turn(view, bins, objective, rng)

    make = selector(name, title=title, family="quantization", needs=needs, source=source, differs=differs, quantizes=quantizes)
    return make(in_turn)


dq = _quantizer(
    "dq",
    "dq",
    {"gradients"},
    USUAL_BINS["dq"],
    title="Dataset quantization: bins of the original images; a quarter of the patches dropped (by bench and quantize)",
    source="Zhou et al., ICCV 2023; magic-research/Dataset_Quantization",
    differs="features of the proxy, where DQ's program trains networks of its own for 10 epochs and more",
)
"""Bins as DQ fills them."""

dqas = _quantizer(
    "dqas",
    "eq7",
    {"features"},
    USUAL_BINS["dqas"],
    title="DQAS: bins of images rebuilt without a quarter of their patches (by bench and quantize; select: of whole images)",
    source="Zhao et al., ECCV 2024, section 3.4",
    differs="class counts and error reduction are options of their own: --adaptive, --refiner error-reduction",
)
"""Bins by Equation 8, for features of rebuilt images."""


def graphcut_bins(
    view: View, bins: int = BINS, *, fraction: float | None = None, objective: Objective = "eq7"
) -> tuple[IntArray, ...]:
    """Positions in each bin of a class in the order of picking, int64; equal gains go to the lowest position.

    Every bin is picked greedily for ``G``, where T is what no earlier bin holds and S what this one holds so far:

    * ``eq7``: ``G(x) = Σ_{p in S} |f(p) - f(x)|² - Σ_{p in T without S} |f(p) - f(x)|²`` on features;
    * ``deepcore``, ``dq``: ``G(x) = -2 Σ_{p in S} s(p, x) + Σ_{p in T} s(p, x)``, ``s = .5 + .5 cos`` of last-layer gradients.

    One matrix-vector product a pick, O(n d) memory (:mod:`dqas_plugin.methods.greedy`).

    Args:
        view: one class of n samples.
        bins: how many.
        fraction: as in :func:`bin_sizes`.
        objective: ``eq7`` reads the features, the others the gradients.

    Raises:
        UserError: as :func:`bins_in_turn`.
    """
    known: dict[str, Callable[[int, Sequence[int]], IntArray]] = {
        "eq7": lambda total, sizes: graphcut_eq7(view.features, total, sizes),
        "deepcore": lambda total, sizes: graphcut_deepcore(view.gradients, total, sizes),
        "dq": lambda total, sizes: graphcut_deepcore(softmax_twice(view.gradients, view.label), total, sizes),
    }
    if objective not in known:
        raise unknown_name("objective of bins", objective, known)
    sizes = bin_sizes(len(view), bins, fraction=fraction, name=f"class {view.label}")
    picks = known[objective](sum(sizes), sizes)
    return tuple(np.split(picks, np.cumsum(sizes)[:-1]))


def bin_sizes(count: int, bins: int = BINS, *, fraction: float | None = None, name: str = "the class") -> list[int]:
    """How many samples each bin takes.

    Args:
        count: samples of the class.
        bins: how many bins.
        fraction: share of the class that a bin takes, rounded as DQ's program does; if the bins are to hold all, the last one
            takes what is left. None: all samples, spread evenly, the first bins taking the remainder.
        name: of the class, for messages.

    Raises:
        UserError: for fewer bins than 1, more bins than samples, a fraction outside 0..1, or bins × fraction above 1.
    """
    at_least_one("the number of bins", bins)
    if count < bins:
        remedy = f"choose {count} bins or fewer" if count else "leave it out"
        raise UserError(f"{name} has {count} samples, too few for {bins} bins: {remedy}")
    if fraction is None:
        return [count // bins + (place < count % bins) for place in range(bins)]
    if not 0.0 < fraction <= 1.0:
        raise UserError(f"the fraction of a bin must be above 0 and at most 1, not {fraction}")
    if bins * fraction > 1.0 + _WHOLE:
        raise UserError(
            f"{bins} bins of {fraction:g} of a class each are {bins * fraction:.4g} times what there is: "
            f"choose fewer bins, or a fraction of at most {1 / bins:.4g}"
        )
    return _rounded_sizes(count, bins, fraction, name)


def _rounded_sizes(count: int, bins: int, fraction: float, name: str) -> list[int]:
    size = round(fraction * count)
    everything = abs(bins * fraction - 1.0) <= _WHOLE
    last = count - (bins - 1) * size if everything else size
    if size < 1 or last < 1 or (bins - 1) * size + last > count:
        raise UserError(f"{name} has {count} samples, too few for {bins} bins of {fraction:g} of it each: choose fewer bins")
    return [*[size] * (bins - 1), last]


def draw_in_turn(bins: Sequence[IntArray], rng: np.random.Generator) -> IntArray:
    """What is in the bins, drawn from one after the other: DQ's sampler for every number of samples at once.

    In every round each bin that is not empty gives one of its samples, drawn at random. The bins take turns in an order that
    is drawn anew for every round, so that the samples which do not make up a round favour no bin. So the first k are
    ``k // N`` or one more of each of N bins as long as none is empty, and within a bin all choices are equally likely.

    Args:
        bins: different positions in each bin, int64.
        rng: of the draws.

    Returns:
        all positions, int64.
    """
    drawn = [rng.permutation(one) for one in bins]
    rounds = max(map(len, drawn), default=0)
    turns = rng.permuted(np.tile(np.arange(len(drawn)), (rounds, 1)), axis=1)
    chosen = chain.from_iterable((drawn[one][turn] for one in row if turn < len(drawn[one])) for turn, row in enumerate(turns))
    return np.fromiter(chosen, dtype=np.int64)


def softmax_twice(gradients: LastLayerGradients, label: int) -> LastLayerGradients:
    """Gradients of ``cross_entropy(softmax(z), label)``, which takes a softmax of probabilities.

    DQ's program has a softmax in front of a loss that has its own (magic-research/Dataset_Quantization,
    ``dq/methods/submodular.py``; DeepCore has not). With p and q the softmax of z and of p, and ``u = q - y``, the residual in
    place of ``p - y`` is ``p (u - <p, u>)``.

    Args:
        gradients: of the plain loss, for samples of one class.
        label: that class.
    """
    plain = gradients.residuals
    probabilities = plain.clone()
    probabilities[:, label] += 1.0
    inner = probabilities.softmax(dim=1)
    inner[:, label] -= 1.0
    twice = probabilities * (inner - (probabilities * inner).sum(dim=1, keepdim=True))
    # The sum is 0. Of a well-fitted sample the label's own term would be a difference of almost equal numbers.
    twice[:, label] = 0.0
    twice[:, label] = -twice.sum(dim=1)
    return LastLayerGradients(twice, gradients.features)


@hookimpl
def dqas_register_selectors(register: Callable[..., None]) -> None:
    """The bins as a selection method, and as DQ and DQAS make them."""
    for one in (bins_in_turn, dq, dqas):
        register(one)
