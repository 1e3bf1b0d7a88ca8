"""Learning curves per class and the class counts that they advise.

Accuracy of class c on n of its samples: ``acc_c(n) = a_c - b_c * n^-g_c``, fitted to trainings on even counts of growing size.
Same idea: Tae & Whang, "Slice Tuner", SIGMOD 2021. The curves ignore that classes compete, so what they advise is a
*proposal*, to be measured before use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dqas_plugin.allocation.rounding import water_fill
from dqas_plugin.data import FloatArray, IntArray

_EXPONENTS = np.geomspace(0.05, 1.5, 30)  # g: from hardly levelling off to levelled off at once
_LEAST = 1 / 4  # of the even share that a class keeps: below that nothing was measured
_HALVINGS = 60


@dataclass(frozen=True, eq=False)
class Curves:
    """Fitted curves of C classes.

    Attributes:
        ceiling: a, float64 ``[C]``, at most 1.
        drop: b, float64 ``[C]``, not negative.
        exponent: g, float64 ``[C]``.
    """

    ceiling: FloatArray
    drop: FloatArray
    exponent: FloatArray

    def accuracy(self, counts: FloatArray) -> FloatArray:
        """Predicted accuracy [C] at the given counts [C]."""
        return np.asarray(self.ceiling - self.drop * counts**-self.exponent, dtype=np.float64)

    def advise(self, budget: int, capacity: IntArray, importance: FloatArray) -> FloatArray:
        """Real-valued counts [C] at which one more sample gains every class the same, weighted by ``importance`` [C].

        The slope ``w b g n^-(g+1)`` falls with n, so that the counts of equal slope are ``(w b g / slope)^(1/(g+1))``; the
        slope at which they sum to the budget is found by bisection.
        """
        least = np.minimum(_LEAST * budget / len(capacity), capacity)
        upper = capacity.astype(np.float64)
        strength = np.log(np.maximum(importance * self.drop * self.exponent, 1e-12))

        def counts(log_slope: float) -> FloatArray:
            return np.asarray(np.clip(np.exp((strength - log_slope) / (self.exponent + 1)), least, upper), dtype=np.float64)

        low, high = -60.0, 10.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if counts(middle).sum() > budget else (low, middle)
        return water_fill(counts(high), budget, least, upper)


def fit_curves(counts: FloatArray, accuracy: FloatArray) -> Curves:
    """Least squares under ``a <= 1`` and ``b >= 0``, on a grid of exponents.

    Args:
        counts: float ``[P, C]``, samples of each class in each of P trainings.
        accuracy: float ``[P, C]``.
    """
    x = counts[None] ** -_EXPONENTS[:, None, None]  # [G, P, C]
    y = np.broadcast_to(accuracy, x.shape)
    centred = x - x.mean(axis=1, keepdims=True)
    spread = np.maximum((centred**2).sum(axis=1), 1e-300)
    drop = np.maximum(-(centred * y).sum(axis=1) / spread, 0.0)  # [G, C]
    ceiling = y.mean(axis=1) + drop * x.mean(axis=1)
    capped = ceiling > 1
    drop = np.where(capped, ((1 - y) * x).sum(axis=1) / (x**2).sum(axis=1), drop)
    ceiling = np.minimum(ceiling, 1.0)
    residual = ((y - (ceiling[:, None] - drop[:, None] * x)) ** 2).sum(axis=1)  # [G, C]
    best = residual.argmin(axis=0)
    classes = np.arange(accuracy.shape[1])
    return Curves(ceiling[best, classes], drop[best, classes], _EXPONENTS[best])
