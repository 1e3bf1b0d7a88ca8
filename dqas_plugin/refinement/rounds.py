"""Expected error reduction: add the samples that lower the expected error, some at a time.

All at once, as printed in the paper, is worse than drawing them: what is best alone is much alike. So they are added in
rounds, after each of which the last layer is fitted anew, and within a round a candidate counts for less the nearer its
last-layer gradient lies to that of one already taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.contracts import Bounds, refiner
from dqas_plugin.data import IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.gradients import residuals_of
from dqas_plugin.methods.ordering import lowest_first
from dqas_plugin.recipes import Prior
from dqas_plugin.refinement.last_layer import Fitted, Problem, positions
from dqas_plugin.refinement.retrained import retrained_changes
from dqas_plugin.refinement.scorers import check, choose_l2
from dqas_plugin.signals import Signals
from dqas_plugin.threads import single_threads
from dqas_plugin.told import Told

Changes = Callable[[IntArray], npt.ArrayLike]
"""A scorer of one's own: the selected dataset indices -> float ``[N]``, read where a sample is not selected."""

Scorer = Literal["kap2nd", "influence", "gradient", "ridge", "retrain"]
"""Of the refiner: those of :data:`~dqas_plugin.refinement.scorers.SCORERS`, and a training with every candidate."""

_SHORTLIST = 4  # so many times as many candidates as a round adds are compared with each other
_ROUNDS, _SIZE = 10, 100


def error_reduction(
    features: npt.ArrayLike | Tensor,
    labels: npt.ArrayLike | Tensor,
    selected: npt.ArrayLike,
    budget: int,
    *,
    l2: float | None = 1.0,
    scorer: str | Changes = "kap2nd",
    rounds: int | None = None,
    diversity: bool | None = True,
    stop: bool = True,
    exclude_self: bool = False,
    num_classes: int | None = None,
    prior: str = "empirical",
    report: Callable[[str], None] | None = None,
) -> IntArray:
    """Samples to add to a selection, those that lower the expected error, in the order in which they were taken.

    Args:
        features: float ``[N, d]``.
        labels: whole numbers ``[N]``.
        selected: indices ``[K]``, or a mask ``[N]``.
        budget: how many to add, at most.
        l2: strength of the penalty; None: chosen before the first round, see
            :func:`~dqas_plugin.refinement.scorers.expected_error_change`.
        scorer: one of :data:`~dqas_plugin.refinement.scorers.SCORERS`, or a function ``f(selected) -> [N]`` of one's own, such
            as a partial :func:`~dqas_plugin.refinement.retrained.retrained_error_change`.
        rounds: how many; default: 10, or one for every 100 samples (or for as many as there are classes) if more.
            ``rounds=1, diversity=False`` is the paper.
        diversity: of the 4 k candidates with the lowest changes dE, a round takes k one after the other by the largest
            ``-dE_i (1 - max_j K_ij^2)`` over those j that it has taken, K the cosine of last-layer gradients.
        stop: leave out what does not lower the error, so that there may be fewer than ``budget``.
        exclude_self: a candidate leaves the pool that it is scored on.
        num_classes: C; default: as many as there are labels.
        prior: of the training loss, see :func:`~dqas_plugin.refinement.scorers.expected_error_change`.
        report: told of every round.

    Returns:
        int64 dataset indices, at most ``budget``; exactly that many, as far as there are, with ``stop=False``.

    Raises:
        UserError: for an unknown scorer or prior, rounds below 1, a budget below 0, arrays that do not fit.
    """
    score = check(scorer if isinstance(scorer, str) else "kap2nd", l2)
    if budget < 0 or (rounds is not None and rounds < 1):
        raise UserError(f"rounds must be at least 1 and the budget at least 0, not {rounds} and {budget}")
    problem = Problem.of(features, labels, selected, num_classes, prior)
    chosen = positions("selected", selected, len(problem.labels))
    first, end = len(chosen), min(len(chosen) + budget, len(problem.labels))
    if end == first:
        return chosen[:0]
    strength = choose_l2(problem, chosen) if l2 is None else l2
    wanted = rounds or max(_ROUNDS, -(-budget // max(_SIZE, problem.num_classes)))
    start: Tensor | None = None
    for turn in range(wanted):
        count = -(-(end - len(chosen)) // (wanted - turn))
        if not count:
            break
        fitted = problem.fitted(chosen, strength, start=start)
        if isinstance(scorer, str):
            changes = score(fitted, exclude_self).cpu()
        else:
            changes = torch.as_tensor(np.asarray(scorer(chosen), dtype=np.float64))[fitted.pool.cpu()]
        taken = _round(fitted, changes, count, diversity=bool(diversity), stop=stop)
        if report is not None:
            done = len(chosen) - first + len(taken)
            report(f"round {turn + 1} of {wanted}: expected error {fitted.pool_loss:.4f}, {done} of {budget} samples added")
        if not len(taken):
            break
        chosen, start = np.concatenate([chosen, fitted.pool.cpu().numpy()[taken]]), fitted.weights
    return chosen[first:]


def _trainings(selected: int, pool: int, budget: int, settings: Mapping[str, Any]) -> int:
    """Networks that the refiner trains: one of what is selected and one with each candidate, every round."""
    if settings["scorer"] != "retrain":
        return 0
    total, rounds = 0, settings["rounds"] or 1
    for turn in range(min(rounds, budget)):
        total += 1 + pool
        count = -(-budget // (rounds - turn))
        pool, budget = pool - count, budget - count
    return total


@refiner(
    "error-reduction",
    title="single samples that lower the expected error most, in rounds",
    source="Zhao et al., ECCV 2024, Equations 5-6; Roy and McCallum, ICML 2001",
    needs={"features", "logits"},
    trainings=_trainings,
)
def error_reduction_refiner(
    signals: Signals,
    selected: IntArray,
    budget: int,
    rng: np.random.Generator,
    *,
    l2: Annotated[float, Bounds(0, above=True)] | None = 1.0,
    scorer: Scorer = "kap2nd",
    rounds: Annotated[int, Bounds(1)] | None = None,
    diversity: bool | None = True,
    stop: bool = True,
    exclude_self: bool = False,
    prior: Prior | None = None,
    trainings: Annotated[int, Bounds(0)] = 1000,
) -> IntArray:
    """Add samples by :func:`error_reduction` on the features of the signals as they are given.

    Args:
        signals: features and labels are read. Best of a network that was trained on the selection alone: on what a network has
            seen, the pool's loss says little.
        selected: int64 ``[K]``, dataset indices.
        budget: how many to add, at most.
        rng: unused; nothing is drawn.
        l2: strength of the last layer's penalty; None: chosen by the loss on the pool.
        scorer: ``kap2nd``, ``influence``, ``gradient`` or ``ridge``; or ``retrain``: the paper read literally, which trains a
            network with every candidate (with ``diversity=None``, to the letter). For tiny pools.
        rounds: default: 10, or one for every 100 samples (or for as many as there are classes) if those are more; 1 for
            ``retrain``.
        diversity: whether those of one round should differ.
        stop: leave out what does not lower the error.
        exclude_self: a candidate leaves the pool that it is scored on.
        prior: of the training that follows, ``balanced`` or ``empirical``; default: what its recipe says, and ``balanced``
            without one.
        trainings: how many networks ``retrain`` may train. Before anything is trained, more are refused with the years that
            they would take (:class:`dqas_plugin.refining.Refinement`).

    Returns:
        int64 dataset indices, at most ``budget``: fewer where nothing more lowers the error.

    Raises:
        UserError: for ``retrain`` with signals that do not say how networks are trained; as :func:`error_reduction`.
    """
    changes: str | Changes = scorer
    if scorer == "retrain":
        if signals.trainer is None:
            raise UserError(
                "the scorer 'retrain' trains networks, and these signals do not say how (signals.trainer): refine in a "
                "selection, or call dqas_plugin.refinement.retrained_error_change"
            )
        changes, rounds = retrained_changes(signals.trainer, exclude_self=exclude_self), rounds or 1
    features = signals.features if signals.head_inputs is None else signals.head_inputs
    assert features is not None  # it is needed, so it is there
    return error_reduction(
        features,
        signals.labels.to(features.device),
        selected,
        budget,
        l2=l2,
        scorer=changes,
        rounds=rounds,
        diversity=diversity,
        stop=stop,
        exclude_self=exclude_self,
        num_classes=signals.num_classes,
        prior=prior or ("balanced" if signals.trainer is None else signals.trainer.recipe.prior),
        report=None if signals.trainer is None else Told("error reduction", signals.trainer.report).say,
    )


def diverse(inputs: Tensor, residuals: Tensor, changes: Tensor, count: int) -> IntArray:
    """The picks of a round, best first: the largest ``-dE_i (1 - max_j K_ij^2)`` over those taken, one after the other.

    Where dE is above 0, being near to one taken makes it count for more, not less.

    Args:
        inputs: x, ``[m, d]``.
        residuals: r, ``[m, C]``; the gradient of a candidate is x r'.
        changes: dE, ``[m]``.
        count: at most m.

    Returns:
        int64 ``[count]``.
    """
    inputs = torch.nn.functional.normalize(inputs.float())
    residuals = torch.nn.functional.normalize(residuals.float())
    gains = -changes.to(inputs)
    nearest = torch.zeros_like(gains)
    taken = torch.empty(count, dtype=torch.int64, device=gains.device)
    worth = gains.clone()
    for turn in range(count):
        best = worth.argmax()
        taken[turn] = best
        row = best[None]
        cosines = (inputs @ inputs[row].T)[:, 0] * (residuals @ residuals[row].T)[:, 0]
        nearest = torch.maximum(nearest, cosines.square().clamp_max_(1.0))
        worth = gains - gains.abs() * nearest
        worth[taken[: turn + 1]] = -torch.inf
    return taken.cpu().numpy()


def _round(fitted: Fitted, changes: Tensor, count: int, *, diversity: bool, stop: bool) -> IntArray:
    """Positions in the pool that a round takes, ``count`` at most."""
    order = lowest_first(changes)
    if stop:
        order = order[: int((changes < 0).sum())]
    count = min(count, len(order))
    if not diversity or not count:
        return order[:count]
    shortlist = order[: _SHORTLIST * count]
    rows = torch.from_numpy(shortlist).to(fitted.pool.device)
    candidates = fitted.problem.rows(fitted.pool[rows], fitted.problem.features.dtype)
    residuals = residuals_of(fitted.pool_logits(rows, candidates) + fitted.prior, fitted.pool_labels[rows])
    inputs = candidates.float()
    with single_threads():  # small products, one after the other
        return shortlist[diverse(inputs, residuals, changes[torch.from_numpy(shortlist)], count)]
