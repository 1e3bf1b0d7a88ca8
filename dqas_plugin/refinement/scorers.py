"""Expected error change: what adding one more sample would do to the loss on everything that is not selected.

Nothing is retrained. The last layer is fitted once to the selection S (:mod:`~dqas_plugin.refinement.last_layer`), and what
a fit with one more sample would give follows from its gradient and its curvature. With x the input of the candidate, r = p - y
its residual, G the gradient of the mean loss of the pool R, and H the Hessian of the training loss:

* ``gradient``   -<x' G, r>: the first-order change by one gradient step of length 1 on the candidate. No curvature.
* ``influence``  -<x' V, r> with V = H^-1 G: the derivative by the candidate's weight at 0. Koh and Liang, ICML 2017.
* ``kap2nd``     -<x' V, u> + 1/2 k2 |u|^2: the whole step. The candidate's own curvature damps it, by its leverage
  k = x' A^-1 x: u = (I + k (diag p - p p'))^-1 r. The pool's curvature bends it: k2 = x' A^-1 Q A^-1 x. A and Q are the
  Hessians of S and R with one mean weight in place of the C x C blocks, so that nothing larger than d x d appears.
* ``ridge``      the squared loss of a ridge regression on one-hot labels, exactly (Sherman-Morrison).

Sources: Zhao et al., ECCV 2024, Equations 5 and 6; Roy and McCallum, ICML 2001. The printed Equation 6 lacks its minus sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.gradients import residuals_of
from dqas_plugin.refinement.last_layer import Fitted, Problem, positions

PENALTIES = (0.01, 0.1, 1.0, 10.0)
"""Strengths of the penalty tried with ``l2=None``."""


def expected_error_change(
    features: npt.ArrayLike | Tensor,
    labels: npt.ArrayLike | Tensor,
    selected: npt.ArrayLike,
    *,
    l2: float | None = 1.0,
    scorer: str = "kap2nd",
    exclude_self: bool = False,
    num_classes: int | None = None,
    prior: str = "empirical",
) -> npt.NDArray[np.float64]:
    """Change of the mean loss of the pool if one more sample joined the selection; below 0: it helps.

    Args:
        features: float ``[N, d]``, of all samples. They are centred on the mean of the selected and divided by the root of
            their mean squared distance from it (of that of all samples, where the selected are alike); the bias is penalised
            like the weights.
        labels: whole numbers ``[N]``.
        selected: indices ``[K]``, or a mask ``[N]``. The pool is everything else.
        l2: strength of the penalty ``l2 / 2 |W|^2`` beside the *sum* of the losses (:mod:`dqas_plugin.logistic`). None: that of
            :data:`PENALTIES` with the lowest loss on the pool.
        scorer: ``kap2nd`` (the default), ``influence``, ``gradient`` (only its order means something) or ``ridge`` (squared
            loss).
        exclude_self: the candidate leaves the pool: the change is that of the mean over all others.
        num_classes: C; default: as many as there are labels.
        prior: ``empirical``: plain loss. ``balanced``: the class frequencies of the selection are taken out of the training
            loss, as in :func:`dqas_plugin.losses.log_prior`; the change that the candidate makes in them is counted too.

    Returns:
        float64 ``[N]``; NaN where a sample is selected already.

    Raises:
        UserError: for an unknown scorer or prior, a penalty that is not above 0, arrays that do not fit, nothing selected.
    """
    score = check(scorer, l2)
    problem = Problem.of(features, labels, selected, num_classes, prior)
    chosen = positions("selected", selected, len(problem.labels))
    found = np.full(len(problem.labels), np.nan)
    if len(chosen) == len(found):
        return found
    fitted = problem.fitted(chosen, choose_l2(problem, chosen) if l2 is None else l2)
    found[fitted.pool.cpu().numpy()] = score(fitted, exclude_self).cpu().numpy()
    return found


def check(scorer: str, l2: float | None) -> Callable[[Fitted, bool], Tensor]:
    """The scorer of that name: changes float64 ``[r]`` of the pool.

    Raises:
        UserError: if there is none, or for a penalty that is not above 0.
    """
    if scorer not in SCORERS:
        raise unknown_name("scorer", scorer, SCORERS)
    if l2 is not None and not 0 < l2 < float("inf"):
        raise UserError(f"l2 must be above 0, not {l2}: choose one like 1, or None to have it chosen")
    return SCORERS[scorer]


def choose_l2(problem: Problem, selected: npt.NDArray[np.int64]) -> float:
    """That of :data:`PENALTIES` with which the last layer does best on the pool."""
    losses, start = {}, None
    for l2 in sorted(PENALTIES, reverse=True):  # strong ones are fitted fast, and lie near the next
        fitted = problem.fitted(selected, l2, start=start, tolerance=1e-2)
        losses[l2], start = fitted.pool_loss, fitted.weights
    return min(losses, key=lambda one: losses[one])


def damped(probabilities: Tensor, residuals: Tensor, leverage: Tensor) -> Tensor:
    """``u = (I + k (diag p - p p'))^-1 r`` of every sample, in O(C).

    Args:
        probabilities: p, ``[n, C]``.
        residuals: r, ``[n, C]``.
        leverage: k, ``[n]``, at least 0.

    Returns:
        ``[n, C]``.
    """
    shrink = 1 / (1 + leverage[:, None] * probabilities)
    shrunk = shrink * probabilities
    # 1 - k sum(p shrunk), written as a sum of what is positive
    slack = shrunk.sum(1, keepdim=True)
    return shrink * residuals + shrunk * (leverage[:, None] * (shrunk * residuals).sum(1, keepdim=True) / slack)


def _kap2nd(fitted: Fitted, exclude_self: bool) -> Tensor:
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(fitted.curvature))
    bending = inverse @ _pool_curvature(fitted) @ inverse
    grown = fitted.prior_response * torch.log((fitted.counts + 1).floor() / fitted.counts)
    found = []
    for rows, part in fitted.blocks():
        labels, logits = fitted.pool_labels[rows], fitted.pool_logits(rows, part)
        leverage, second = _forms(part, inverse), _forms(part, bending)
        trained = logits + fitted.prior
        step = damped(trained.softmax(1), residuals_of(trained, labels), leverage)
        along = (part @ fitted.response.to(part.dtype)).double()
        change = 0.5 * second * step.square().sum(1) - (along * step).sum(1) + grown[labels]
        if exclude_self:
            moved = functional.cross_entropy(logits - leverage[:, None] * step, labels, reduction="none")
            change = _without_own(fitted, change, moved - functional.cross_entropy(logits, labels, reduction="none"))
        found.append(change)
    return torch.cat(found)


def _influence(fitted: Fitted, exclude_self: bool) -> Tensor:
    grown = fitted.prior_response / fitted.counts
    return _first_order(
        fitted, fitted.response, exclude_self, torch.cholesky_inverse(torch.linalg.cholesky(fitted.curvature)), grown
    )


def _gradient(fitted: Fitted, exclude_self: bool) -> Tensor:
    return _first_order(
        fitted, fitted.pool_gradient, exclude_self, torch.eye(len(fitted.weights)), torch.zeros_like(fitted.prior)
    )


def _first_order(fitted: Fitted, direction: Tensor, exclude_self: bool, metric: Tensor, grown: Tensor) -> Tensor:
    """``-<x' direction, r>``; in its own loss the candidate sees ``-x' metric x |r|^2``."""
    found = []
    for rows, part in fitted.blocks():
        labels, logits = fitted.pool_labels[rows], fitted.pool_logits(rows, part)
        residuals = residuals_of(logits + fitted.prior, labels)
        change = grown[labels] - ((part @ direction.to(part.dtype)).double() * residuals).sum(1)
        if exclude_self:
            own = -_forms(part, metric) * (residuals * residuals_of(logits, labels)).sum(1)
            change = _without_own(fitted, change, own)
        found.append(change)
    return torch.cat(found)


def _ridge(fitted: Fitted, exclude_self: bool) -> Tensor:
    """All in float64, since it is exact."""
    classes, size = fitted.problem.num_classes, len(fitted.pool)
    gram = fitted.inputs.T @ fitted.inputs
    gram.diagonal().add_(fitted.l2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = inverse @ (fitted.inputs.T @ functional.one_hot(fitted.labels, classes).double())
    error = torch.zeros_like(weights)
    spread = torch.zeros_like(gram)
    for rows, part in fitted.blocks(torch.float64):
        error += part.T @ (functional.one_hot(fitted.pool_labels[rows], classes) - part @ weights)
        spread += part.T @ part
    bending, pulled = inverse @ spread @ inverse, inverse @ error
    found = []
    for rows, part in fitted.blocks(torch.float64):
        residuals = functional.one_hot(fitted.pool_labels[rows], classes) - part @ weights
        grown = 1 + _forms(part, inverse)  # s = 1 + x' A^-1 x
        squared = residuals.square().sum(1)
        change = _forms(part, bending) * squared / grown.square() - 2 / grown * (residuals * (part @ pulled)).sum(1)
        change = change / size
        found.append(_without_own(fitted, change, squared * (1 / grown.square() - 1)) if exclude_self else change)
    return torch.cat(found)


SCORERS: Mapping[str, Callable[[Fitted, bool], Tensor]] = {
    "kap2nd": _kap2nd,
    "influence": _influence,
    "gradient": _gradient,
    "ridge": _ridge,
}
"""Scorers by name: changes float64 ``[r]`` of the pool of a fitted last layer, with or without the candidate in the pool."""


def _forms(rows: Tensor, matrix: Tensor) -> Tensor:
    """``x' M x`` of every row of ``[n, d]``, float64 ``[n]``, at least 0 as for the M here."""
    return (rows @ matrix.to(rows)).mul_(rows).sum(1).double().clamp_min_(0)


def _pool_curvature(fitted: Fitted) -> Tensor:
    """Mean Hessian of the pool's losses without its classes, float64 ``[d + 1, d + 1]``."""
    total = torch.zeros_like(fitted.curvature)
    for rows, part in fitted.blocks():
        weight = (1 - fitted.pool_logits(rows, part).softmax(1).square().sum(1)).clamp_min_(0)
        total += (part.T @ (part * weight[:, None].to(part.dtype))).double()
    return total / (len(fitted.pool) * max(1, fitted.problem.num_classes - 1))


def _without_own(fitted: Fitted, change: Tensor, own: Tensor) -> Tensor:
    """The mean over all others, of a change of the mean over all and the change in the own loss."""
    return (len(fitted.pool) * change - own) / max(1, len(fitted.pool) - 1)
