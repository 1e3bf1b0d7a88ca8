"""Rules that let a few weighted samples stand for the gradient of all.

Orthogonal matching pursuit: the sample whose gradient points most along what is still missing is picked, the coefficients of
all picks are fitted anew (with a ridge), and so on. With ``K_ij = <g_i, g_j>``, picks S and the target's products ``c_i``, what
is missing has the products ``c - K_S (K_SS + ridge I)⁻¹ c_S``. Neither gradients nor K are written out: a pick appends one
column to ``V = K_S L⁻ᵀ``, L being the Cholesky factor of the matrix in brackets, for one product with the features and one
with V.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor

from dqas_plugin.contracts import Bounds, Size, Weighted, selector
from dqas_plugin.data import BoolArray, FloatArray, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.gradients import LastLayerGradients, with_bias
from dqas_plugin.methods import ordering
from dqas_plugin.methods.neighbours import at_least_one
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.signals import View

_TIE = 1e-12  # products closer than this share of the highest at the start are equal: rounding of float64
_RIDGE = 1e-10  # the least ridge, as a share of the longest squared gradient: below it the fit is rounding
_SIGN = 1e-14  # weights below this share of the largest are 0
_SLOPE = 1e-16  # and slopes: sums that all but cancel, whose rounding is far below that of their terms
_PATIENCE = 3  # exchanges in a row that do not lower how many weights are wrong, before the slow way is taken


def least_bytes(size: Size) -> int:
    """What matching a class takes: V and the features in float64, and then six matrices over the picks."""
    pursuit = size.samples * (size.budget + size.width + 2 * size.classes + 4)
    return 8 * max(pursuit, 6 * size.budget * size.budget)


@selector(
    "gradmatch",
    title="GradMatch: weighted samples that sum to the gradient of all",
    family="gradient",
    needs={"gradients"},
    source="Killamsetty et al., ICML 2021; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: gradients of the own class's output, their sum as the target, ridge .5; DeepCore: of all, their mean, 1",
    memory=least_bytes,
)
def gradmatch(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    batch: Annotated[int, Bounds(1)] | None = ordering.DEEPCORE_BATCH,
    ridge: Annotated[float, Bounds(0, above=True)] | None = None,
    compat: Compat = "deepcore",
) -> Weighted:
    """Orthogonal matching pursuit of the gradient of the whole class, with weights of at least 0.

    ``deepcore``: gradients of the last layer, of the mean loss of a batch, toward their mean. The first pick is fitted without
    the ridge. Weights minimise ``|(K_SS + ridge I) w - c_S|``; a single pick weighs 1.

    ``paper``: gradients of the output of the own class only (the program's ``PerClassPerGradient``), of single samples, toward
    their sum. Weights minimise ``|Σ_S w g - target|² + ridge |w|²``. So the paper's algorithm 2; its program CORDS deviates: it
    drops picks on the way whose coefficient falls below 0, picks from the picked too, after which it stands still, and draws
    what is then missing at random with weight 1.

    No pick depends on how many follow, only the weights do: the choice of k samples is the first k of the choice of more.
    Samples that end with weight 0 stay, so that there are ``budget`` of them; DeepCore returns fewer.

    Args:
        view: one class.
        budget: how many.
        rng: not used, nothing is random.
        batch: samples in a batch, for ``deepcore``: gradients come out shorter by its size, and longer in a last, shorter
            batch. With the ridge of 1 that decides how far the fit goes. None: all in one.
        ridge: added to the diagonal of K; above 0. None: 1 for ``deepcore``, .5 for ``paper`` (its setting for CIFAR-10). It is
            at least 1e-10 of the longest squared gradient.
        compat: ``deepcore`` or ``paper``.

    Returns:
        positions in the order of picking, int64, and their weights, float64; equal products go to the lowest position.

    Raises:
        UserError: for a batch below 1 or a ridge that is not above 0 and finite.
    """
    deepcore = ordering.is_deepcore("gradmatch", compat)
    wanted = (1.0 if deepcore else 0.5) if ridge is None else ridge
    if not 0.0 < wanted < math.inf:
        raise UserError(f"ridge of gradmatch must be a number above 0, not {ridge}")
    if deepcore:
        size = None if batch is None else at_least_one("batch", batch)
        atoms = view.gradients.scaled(ordering.batch_scale(len(view), size))
        products = atoms.along(atoms.total() / max(1, len(view)))
    else:
        atoms = view.gradients.of_output(view.label)
        products = atoms.along(atoms.total())
    # Where gradients are so long that float64 has no digit left for the ridge, rounding would decide everything.
    least = max(wanted, _RIDGE * float(atoms.squared_norms.max())) if len(view) else wanted
    picks = pursue(atoms, products, least, budget, first_plain=deepcore)
    fitted = nonnegative_least_squares if deepcore else _ridge_weights
    weights = np.ones(len(picks)) if deepcore and len(picks) < 2 else fitted(*_system(atoms, products, picks, least))
    return Weighted(picks, weights)


def pursue(atoms: LastLayerGradients, products: Tensor, ridge: float, budget: int, *, first_plain: bool) -> IntArray:
    """Pick the highest product with what is missing of the target, again and again.

    Args:
        atoms: gradients of n samples.
        products: theirs with the target, float64 ``[n]``.
        ridge: added to the diagonal when coefficients are fitted.
        budget: how many to pick; n at most.
        first_plain: the second pick follows a fit of the first without the ridge.

    Returns:
        positions in the order of picking, int64; equal products go to the lowest position.
    """
    if atoms.features.device.type != "cpu":
        return pursue_on_device(atoms, products, ridge, budget, first_plain=first_plain).cpu().numpy()
    pool = _Pool(atoms, products, ridge, min(budget, len(atoms)))
    picks = [pool.pick(plain=first_plain and not turn) for turn in range(min(budget, len(atoms)))]
    return np.array(picks, dtype=np.int64)


class _Pool:
    """The samples that are left, in the first ``size`` rows of every array."""

    def __init__(self, atoms: LastLayerGradients, products: Tensor, ridge: float, budget: int) -> None:
        self.size, self.done, self.ridge = len(atoms), 0, ridge
        self.residuals: FloatArray = atoms.residuals.numpy().copy()
        self.inputs: FloatArray = with_bias(atoms.features).numpy()
        self.basis = np.empty((self.size, budget))  # V
        self.position = np.arange(self.size)
        self.missing: FloatArray = products.numpy().copy()
        self.gain = self.missing.copy()
        self.tie = _TIE * float(np.abs(self.gain).max(initial=0.0))

    def pick(self, *, plain: bool) -> int:
        """Take the best sample out, and fit; ``plain``: without the ridge, as far as the next pick is concerned."""
        gain = self.gain[: self.size]
        near = np.flatnonzero(gain >= gain.max() - self.tie)
        best = int(near[self.position[near].argmin()])
        position = int(self.position[best])
        column = self._column(best)  # K of those left with the pick
        self._append(best, column)
        if plain and column[best] > 0:
            gain -= column * (gain[best] / column[best])
        else:
            gain[:] = self.missing[: self.size]
        self._remove(best)
        return position

    def _column(self, row: int) -> FloatArray:
        result: FloatArray = self.inputs[: self.size] @ self.inputs[row]
        result *= self.residuals[: self.size] @ self.residuals[row]
        return result

    def _append(self, row: int, column: FloatArray) -> None:
        """The next column of V, and what is missing after it."""
        size, done = self.size, self.done
        known = self.basis[:size, :done]
        own = known[row].copy()
        # Never below the ridge but for rounding.
        diagonal = math.sqrt(max(float(column[row]) - float(own @ own), 0.0) + self.ridge)
        fresh = (column - known @ own) / diagonal
        self.basis[:size, done] = fresh
        self.missing[:size] -= fresh * (self.missing[row] / diagonal)
        self.done += 1

    def _remove(self, row: int) -> None:
        """Put the last row in the place of this one."""
        self.size -= 1
        last = self.size
        for working in (self.position, self.missing, self.gain, self.residuals, self.inputs):
            working[row] = working[last]
        self.basis[row, : self.done] = self.basis[last, : self.done]


def pursue_on_device(atoms: LastLayerGradients, products: Tensor, ridge: float, budget: int, *, first_plain: bool) -> Tensor:
    """As :func:`pursue`, on the device of the gradients and without waiting for it; int64 ``[budget]`` on the device."""
    count = len(atoms)
    residuals, inputs = atoms.residuals, with_bias(atoms.features)
    places = torch.arange(count, device=products.device)
    picks = places.new_zeros(min(budget, count))
    basis = products.new_zeros(count, len(picks))  # V
    taken = torch.zeros_like(places, dtype=torch.bool)
    missing, gain = products.clone(), products.clone()
    tie = products.abs().amax() * _TIE if count else 0.0
    for turn in range(len(picks)):
        gain.masked_fill_(taken, -torch.inf)
        pick = torch.where(gain >= gain.amax() - tie, places, count).amin().view(1)  # argmax promises no order on ties
        picks[turn : turn + 1] = pick
        taken.index_fill_(0, pick, True)
        column = (inputs @ inputs.index_select(0, pick)[0]) * (residuals @ residuals.index_select(0, pick)[0])
        own = basis.index_select(0, pick)[0, :turn]
        length = column.index_select(0, pick)
        diagonal = ((length - own @ own).clamp(min=0.0) + ridge).sqrt()
        fresh = (column - basis[:, :turn] @ own) / diagonal
        basis[:, turn] = fresh
        missing = missing - fresh * (missing.index_select(0, pick) / diagonal)
        if first_plain and not turn:  # a pick of length 0 leaves all as it was
            gain = products - column * (products.index_select(0, pick) / torch.where(length > 0, length, 1.0))
        else:
            gain = missing.clone()
    return picks


def _system(atoms: LastLayerGradients, products: Tensor, picks: IntArray, ridge: float) -> tuple[FloatArray, FloatArray]:
    """``K_SS + ridge I`` and ``c_S`` of the picks."""
    chosen = torch.from_numpy(picks).to(products.device)
    some = atoms.subset(chosen)
    inputs = with_bias(some.features)
    matrix = (inputs @ inputs.T).mul_(some.residuals @ some.residuals.T)
    matrix.diagonal().add_(ridge)
    return matrix.cpu().numpy(), products[chosen].cpu().numpy()


def _ridge_weights(matrix: FloatArray, target: FloatArray) -> FloatArray:
    """The ``w`` of at least 0 that minimises ``w·matrix w - 2 w·target``."""
    factor = scipy.linalg.cholesky(matrix)  # upper
    return nonnegative_least_squares(factor, scipy.linalg.solve_triangular(factor, target, trans=1))


def nonnegative_least_squares(matrix: FloatArray, target: FloatArray) -> FloatArray:
    """The ``w`` of at least 0 that minimises ``|matrix w - target|``, as ``scipy.optimize.nnls`` finds it.

    Block principal pivoting (Kim and Park, SIAM Journal on Scientific Computing 2011) from all weights free, which here is
    often the answer already: a handful of factorisations, where the active set of ``nnls`` grows by one weight a step. Where
    many weights are 0 the exchanges may come to nothing, and ``nnls`` has to find them.

    Args:
        matrix: float64 ``[k, k]``, regular.
        target: float64 ``[k]``.
    """
    weights = np.asarray(np.linalg.solve(matrix, target), dtype=np.float64)
    return weights if (weights >= 0).all() else _Pivoting(matrix, target).solved()


class _Pivoting:
    """Which weights are free, and their exchange with those held at 0."""

    def __init__(self, matrix: FloatArray, target: FloatArray) -> None:
        self.matrix, self.target = matrix, target
        self.normal, self.right = matrix.T @ matrix, matrix.T @ target
        self.free = np.ones(len(target), dtype=np.bool_)

    def solved(self) -> FloatArray:
        """The weights."""
        fewest, waiting = len(self.target) + 1, 0
        while waiting <= _PATIENCE:
            weights = self._fitted()
            wrong = self._wrong(weights)
            count = int(wrong.sum())
            if not count:
                return np.maximum(weights, 0.0)
            waiting = 0 if count < fewest else waiting + 1
            fewest = min(fewest, count)
            self.free ^= wrong
        result: FloatArray = scipy.optimize.nnls(self.matrix, self.target)[0]
        return result

    def _fitted(self) -> FloatArray:
        """The free weights fitted whatever their sign, the others 0."""
        weights = np.zeros(len(self.target))
        inside = np.flatnonzero(self.free)
        some = self.matrix[:, inside]
        try:
            factor = scipy.linalg.cho_factor(self.normal[np.ix_(inside, inside)])
            found = scipy.linalg.cho_solve(factor, self.right[inside])
            # The normal equations have lost half of the digits: once more, for what is left.
            weights[inside] = found + scipy.linalg.cho_solve(factor, some.T @ (self.target - some @ found))
        except np.linalg.LinAlgError:
            weights[inside] = scipy.linalg.lstsq(some, self.target)[0]
        return weights

    def _wrong(self, weights: FloatArray) -> BoolArray:
        """Free weights below 0, and weights held at 0 that the error falls with."""
        slopes = self.matrix.T @ (self.matrix @ weights - self.target)
        below = self.free & (weights < -_SIGN * np.abs(weights).max(initial=0.0))
        result: BoolArray = below | (~self.free & (slopes < -_SLOPE * np.abs(self.right).max(initial=0.0)))
        return result
