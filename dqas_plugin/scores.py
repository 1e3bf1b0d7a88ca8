"""What an evaluation says of every class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dqas_plugin.data import FloatArray


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Per-class result of evaluating one trained model.

    Attributes:
        accuracy: float64 ``[C]``, in 0..1.
        loss: float64 ``[C]``, mean negative log-likelihood (nats).
    """

    accuracy: FloatArray
    loss: FloatArray

    @property
    def mean(self) -> float:
        """Class-mean accuracy."""
        return float(np.mean(self.accuracy))

    @property
    def worst(self) -> float:
        """Accuracy of the lowest class."""
        return float(np.min(self.accuracy))
