"""Rules that look at how every sample went during the training: its margin and its error in every epoch."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from dqas_plugin.contracts import Bounds, selector
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.methods import ordering
from dqas_plugin.methods.neighbours import at_least_one
from dqas_plugin.signals import View

Keep = Literal["hard", "easy"]
Score = Literal["aum", "forgetting", "el2n"]

_EARLY = 10  # epochs that EL2N looks at


@selector(
    "el2n",
    title="EL2N: far from right early in the training",
    family="training dynamics",
    needs={"dynamics"},
    source="Paul, Ganguli, Dziugaite, NeurIPS 2021",
    differs="its authors average over ten trainings at one early epoch, this over the first epochs of one",
)
def el2n(view: View, budget: int, rng: np.random.Generator, *, epochs: Annotated[int, Bounds(1)] = _EARLY) -> IntArray:
    """Order by the mean error in the first epochs, highest first.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.
        epochs: how many epochs; all there are if it is more.

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    return ordering.highest_first(early_error(view.errors, at_least_one("epochs", epochs)))


@selector(
    "forgetting",
    title="Forgetting: often right, then wrong again",
    family="training dynamics",
    needs={"dynamics"},
    source="Toneva et al., ICLR 2019",
    differs="its authors leave open which of equally often forgotten samples goes first, this takes the lower mean margin",
)
def forgetting(view: View, budget: int, rng: np.random.Generator) -> IntArray:
    """Order by the number of forgetting events, highest first; samples that were never right come before all.

    Counts are small whole numbers, so most samples share theirs: among those the lower mean margin goes first, the rule of
    :func:`aum`.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    hardest = ordering.lowest_first(area_under_margin(view.margins))
    events = forgetting_events(view.margins).cpu().numpy()
    return hardest[ordering.highest_first(events[hardest])]


@selector(
    "aum",
    title="AUM: small margins throughout the training",
    family="training dynamics",
    needs={"dynamics"},
    source="Pleiss et al., NeurIPS 2020",
    variants={"hard": {"keep": "hard"}, "easy": {"keep": "easy"}},
    differs="its authors look for wrong labels and drop the hard samples (keep=easy); as a selection rule they are kept",
)
def aum(view: View, budget: int, rng: np.random.Generator, *, keep: Keep = "hard") -> IntArray:
    """Order by the area under the margin.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.
        keep: ``hard``: lowest mean margin first. ``easy``: highest first.

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    areas = area_under_margin(view.margins)
    if keep == "hard":
        return ordering.lowest_first(areas)
    if keep == "easy":
        return ordering.highest_first(areas)
    raise unknown_name("keep of aum", keep, ("hard", "easy"))


@selector(
    "ccs",
    title="CCS: all difficulties alike, but for the hardest",
    family="training dynamics",
    needs={"dynamics"},
    source="Zheng et al., ICLR 2023; haizhongzheng/Coverage-centric-coreset-selection",
    differs="the released program takes all classes together, and for AUM sums margins of probabilities, not of logits",
)
def ccs(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    score: Score = "aum",
    prune: Annotated[float, Bounds(0, 1)] = 0.3,
    strata: Annotated[int, Bounds(1)] = 50,
    epochs: Annotated[int, Bounds(1)] = _EARLY,
) -> IntArray:
    """Coverage-centric coreset selection: the budget goes evenly to strata of the score, without the hardest samples.

    The samples of lowest mean margin are left out. The range of the scores of the rest is cut into strata of equal width. As
    published, each stratum, from the smallest to the largest, takes all it has or an equal share of what is left of the
    budget; within a stratum samples are drawn at random. Here the strata take turns, the largest first, each with its next
    sample in random order: for every budget that is the same, down to who gets the remainder (the largest; among equally
    large ones chance decides), and the choice of k samples is the first k of the choice of more.

    What was left out comes last, the easiest of it first: a budget above the rest so leaves out fewer.

    Args:
        view: one class (the authors take the whole dataset together).
        budget: how many; all are ranked.
        rng: of the draws within a stratum, and of the order of equally large ones.
        score: what the strata divide: ``aum``, ``forgetting`` events or ``el2n``.
        prune: share of the samples that is left out, in 0..1. The authors tune it for every rate and dataset; the default is
            what their program's description takes to keep 10 % of CIFAR-10 or ImageNet (.2 for 20 % of ImageNet).
        strata: how many.
        epochs: of ``el2n``.

    Returns:
        all positions, best first, int64.

    Raises:
        UserError: for a share outside 0..1 or an unknown score.
    """
    if not 0.0 <= prune <= 1.0:
        raise UserError(f"prune of ccs must be a share in 0..1, not {prune}")
    bins = at_least_one("strata", strata)
    easiest = ordering.highest_first(area_under_margin(view.margins))
    kept = len(view) - int(prune * len(view))
    inside, outside = easiest[:kept], easiest[kept:]
    scores = training_score(view, score, at_least_one("epochs", epochs), "score of ccs").cpu().numpy()
    first, draw = rng.permutation(bins), rng.permutation(len(view))
    return np.concatenate([inside[_in_turns(_stratum(scores[inside], bins), first, draw[inside])], outside])


def training_score(view: View, score: str, epochs: int, option: str) -> Tensor:
    """``aum``, ``forgetting`` events or ``el2n`` of every sample, float64 ``[n]``; ``option`` is for messages."""
    if score == "aum":
        return area_under_margin(view.margins)
    if score == "forgetting":
        return forgetting_events(view.margins)
    if score == "el2n":
        return early_error(view.errors, epochs)
    raise unknown_name(option, score, ("aum", "forgetting", "el2n"))


def _stratum(scores: FloatArray, count: int) -> IntArray:
    """The stratum of every score, of so many of equal width between the lowest and the highest, int64."""
    low, high = scores.min(initial=np.inf), scores.max(initial=-np.inf)
    if not low < high:
        return np.zeros(len(scores), dtype=np.int64)
    places: IntArray = np.floor((scores - low) / (high - low) * count).astype(np.int64)
    return np.minimum(places, count - 1)


def _in_turns(stratum: IntArray, first: IntArray, draw: IntArray) -> IntArray:
    """Places, where every stratum gives one sample a turn, in the order of its draws.

    The largest stratum has its turn first; among equally large ones that of the lower number ``first``.
    """
    sizes = np.bincount(stratum)
    together = np.lexsort((draw, stratum))
    turn = np.empty_like(together)
    turn[together] = np.arange(len(stratum)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.lexsort((first[stratum], -sizes[stratum], turn)).astype(np.int64)


def forgetting_events(margins: Tensor) -> Tensor:
    """How often a sample went from right to wrong between epochs; E for one that was never right, float64 ``[n]``.

    E is more than can be counted, so that samples never learned come out as the most forgotten (Toneva et al., ICLR 2019,
    count them as infinitely often forgotten, and their program as E times).

    Args:
        margins: ``[n, E]``; above 0 means right.
    """
    right = margins > 0
    events = (right[:, :-1] & ~right[:, 1:]).sum(dim=1)
    return events.masked_fill(~right.any(dim=1), margins.shape[1]).double()


def area_under_margin(margins: Tensor) -> Tensor:
    """Mean margin over the epochs, float64 ``[n]`` (Pleiss et al., NeurIPS 2020, equation 1).

    Args:
        margins: ``[n, E]``.
    """
    return margins.double().mean(dim=1)


def early_error(errors: Tensor, epochs: int) -> Tensor:
    """EL2N: mean of ``|p - y|`` over the first epochs, float64 ``[n]`` (Paul, Ganguli, Dziugaite, NeurIPS 2021).

    Args:
        errors: ``[n, E]``.
        epochs: how many; all there are if it is more.
    """
    return errors[:, :epochs].double().mean(dim=1)
