"""Rules that look at a sample's nearest neighbours within the class.

``cal``: how far the network's answers differ between a sample and its neighbours.
``d2``: difficulty, spread over the graph of neighbours and taken back around every pick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from dqas_plugin.contracts import Bounds, selector
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.methods import ordering
from dqas_plugin.methods.dynamics import training_score
from dqas_plugin.methods.neighbours import at_least_one, nearest, nearest_others
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.signals import View

Difficulty = Literal["forgetting", "aum", "el2n"]

_EARLY = 10  # epochs whose errors make EL2N, in the released program
_TIE = 1e-12  # scores closer than this share of the highest are equal: sums of the same terms in another order


@selector(
    "cal",
    title="Cal: answers like those of the neighbours (paper: unlike)",
    family="boundary",
    needs={"features", "logits"},
    source="Margatina et al., EMNLP 2021; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: highest KL(neighbour, sample) first; DeepCore: lowest symmetric KL first",
)
def cal(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    neighbours: Annotated[int, Bounds(1)] = 10,
    compat: Compat = "deepcore",
) -> IntArray:
    """Order by how far the probabilities of the nearest neighbours in feature space differ, as :func:`divergences`.

    ``deepcore``: the lowest symmetric divergence first. ``paper``: contrastive samples first, those of the highest
    ``KL(p(neighbour) || p(sample))``.

    Args:
        view: one class.
        budget: how many; all are ranked.
        rng: not used, nothing is random.
        neighbours: how many nearest samples of the class are looked at, or what there is in a smaller one.
        compat: ``deepcore`` or ``paper``.

    Returns:
        all positions, best first, int64; equal scores keep their order.
    """
    symmetric = ordering.is_deepcore("cal", compat)
    # As in DeepCore: the first of the list goes, which is the sample itself or a copy of it.
    found = nearest(view.features, at_least_one("neighbours", neighbours) + 1).positions[:, 1:]
    scores = divergences(view.logits, found.to(view.logits.device), symmetric=symmetric)
    return ordering.lowest_first(scores) if symmetric else ordering.highest_first(scores)


def divergences(logits: Tensor, neighbours: Tensor, *, symmetric: bool) -> Tensor:
    """Mean divergence of the softmax outputs from those of the neighbours (nats), float64 ``[n]``; 0 without neighbours.

    Always finite: logarithms are taken before anything can round to 0.

    Args:
        logits: float ``[n, C]``.
        neighbours: positions, int64 ``[n, k]``.
        symmetric: ``½ KL(p || q) + ½ KL(q || p)``, q being a neighbour's; otherwise ``KL(q || p)``.
    """
    logarithms = logits.double().log_softmax(dim=1)
    probabilities = logarithms.exp()
    total = logarithms.new_zeros(len(logits))
    for others in neighbours.T:
        apart = logarithms[others] - logarithms
        share = (probabilities[others] - probabilities) / 2 if symmetric else probabilities[others]
        total += (share * apart).sum(dim=1)
    return total / max(1, neighbours.shape[1])


@selector(
    "d2",
    title="D2: difficult ones, and few of a neighbourhood",
    family="training dynamics",
    needs={"features", "dynamics"},
    source="Maharana, Yadav, Bansal, ICLR 2024; adymaharana/d2pruning",
    differs="the released program weighs edges by exp(-distance) (squared=False) and drops the hardest beforehand (see ccs)",
)
def d2(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    difficulty: Difficulty = "forgetting",
    neighbours: Annotated[int, Bounds(1)] = 5,
    gamma_forward: Annotated[float, Bounds(0)] = 1.0,
    gamma_reverse: Annotated[float, Bounds(0)] = 0.1,
    squared: bool = True,
) -> IntArray:
    """D2 pruning: message passing over the graph of nearest neighbours in feature space.

    Two samples are joined if one is among the nearest of the other. Forward: every score becomes
    ``s_i + Σ_j exp(-gamma_forward d_ij²) s_j`` over its neighbours. Reverse: the highest score is picked, and those of its
    neighbours fall by ``exp(-gamma_reverse d²)`` times that score.

    Args:
        view: one class.
        budget: how many.
        rng: not used, nothing is random.
        difficulty: the scores: ``forgetting`` events (those never learned count as the most forgotten), ``aum`` (how far the
            mean margin is below the highest of the class), or ``el2n`` (mean error in the first 10 epochs).
        neighbours: k of the graph.
        gamma_forward: how fast messages fade with the distance before picking.
        gamma_reverse: the same for what a pick takes from its neighbours.
        squared: whether the distance is squared.

    Returns:
        positions in the order of picking, int64; equal scores go to the lowest position.
    """
    found = nearest_others(view.features, at_least_one("neighbours", neighbours))
    length = found.squares if squared else found.squares.sqrt()
    graph = Graph.of(found.positions.cpu().numpy(), length.cpu().numpy())
    scores = difficulties(view, difficulty).cpu().numpy().astype(np.float64)
    scores = scores + graph.gathered(graph.weights("gamma_forward", gamma_forward), scores)
    return graph.picked(graph.weights("gamma_reverse", gamma_reverse), scores, budget)


def difficulties(view: View, kind: Difficulty) -> Tensor:
    """A score per sample from its training, higher for the harder, at least 0, float64 ``[n]``; kinds as in :func:`d2`."""
    scores = training_score(view, kind, _EARLY, "difficulty of d2")
    return scores.max() - scores if kind == "aum" else scores


@dataclass(frozen=True, eq=False)
class Graph:
    """Edges of an undirected graph over n samples, each in both directions, those of a sample in a row.

    Attributes:
        starts: where the edges of each sample begin, int64 ``[n + 1]``.
        sources: int64 ``[m]``, ascending.
        targets: int64 ``[m]``.
        lengths: float64 ``[m]``.
    """

    starts: IntArray
    sources: IntArray
    targets: IntArray
    lengths: FloatArray

    @classmethod
    def of(cls, positions: IntArray, lengths: FloatArray) -> Graph:
        """The graph that joins every sample to the ``positions [n, k]`` at these ``lengths [n, k]``, whoever lists whom."""
        count, width = positions.shape
        own = np.repeat(np.arange(count), width)
        low, high = np.minimum(own, positions.ravel()), np.maximum(own, positions.ravel())
        pairs, first = np.unique(low * count + high, return_index=True)
        ends, length = np.divmod(pairs, max(1, count)), lengths.ravel()[first]
        sources, targets = np.concatenate(ends), np.concatenate(ends[::-1])
        order = np.lexsort((targets, sources))
        starts = np.searchsorted(sources[order], np.arange(count + 1))
        return cls(starts, sources[order], targets[order], np.concatenate([length, length])[order])

    def weights(self, name: str, gamma: float) -> FloatArray:
        """``exp(-gamma length)`` of every edge, float64 ``[m]``.

        Raises:
            UserError: for a gamma (called ``name``) that is negative or not finite.
        """
        if not 0.0 <= gamma < np.inf:
            raise UserError(f"{name} must be a number of at least 0, not {gamma}")
        result: FloatArray = np.exp(-gamma * self.lengths)
        return result

    def gathered(self, weights: FloatArray, scores: FloatArray) -> FloatArray:
        """What the neighbours of every sample send it: ``Σ_j weight_ij score_j``, float64 ``[n]``."""
        sums = np.bincount(self.sources, weights=weights * scores[self.targets], minlength=len(scores))
        return np.asarray(sums, dtype=np.float64)

    def picked(self, weights: FloatArray, scores: FloatArray, budget: int) -> IntArray:
        """Pick the highest score again and again, each time lowering those of the neighbours by ``weight * score``."""
        scores = scores.copy()
        tie = _TIE * np.abs(scores).max(initial=0.0)
        picks: list[int] = []
        while len(picks) < min(budget, len(scores)):
            best = scores.max()
            pick = int((scores >= best - tie).argmax())
            edges = slice(self.starts[pick], self.starts[pick + 1])
            scores[self.targets[edges]] -= weights[edges] * scores[pick]
            scores[pick] = -np.inf
            picks.append(pick)
        return np.array(picks, dtype=np.int64)
