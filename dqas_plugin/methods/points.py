"""Features as points around their mean, for rules that look at distances.

Distances are translation invariant, and orders do not depend on the unit: around the mean and with norms of at most 1 nothing
cancels and nothing overflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.gradients import in_chunks
from dqas_plugin.methods.greedy import Factors


@dataclass(frozen=True, eq=False)
class Points:
    """``(features - centre) / scale``, whose rows have norm 1 at most.

    Attributes:
        features: float ``[n, d]`` as given.
        centre: their mean, float64 ``[d]``.
        scale: the largest distance from it; 1 if there is none.
        squares: squared norms of the points, float64 ``[n]``.
    """

    features: Tensor
    centre: Tensor
    scale: float
    squares: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Points:
        """The points of at least one row of features."""
        centre = mean_of(features)
        squares = squared_distances(features, centre)
        scale = float(squares.max().sqrt()) or 1.0
        return cls(features, centre, scale, squares / scale**2)

    def rows(self) -> Tensor:
        """All of them, float64 ``[n, d]``."""
        return (self.features.double() - self.centre).div_(self.scale)

    def factors(self) -> Factors:
        """Factors of their inner products, for features in main memory."""
        # NumPy from here on: loops alternate with products, and two pools of spinning threads get in each other's way.
        plain, middle = self.features.numpy(), self.centre.numpy()

        def right(rows: IntArray) -> FloatArray:
            result: FloatArray = (plain[rows] - middle) / self.scale
            return result

        return Factors(np.ones((len(plain), 1)), right, self.features)


def mean_of(features: Tensor) -> Tensor:
    """Mean row, float64 ``[d]``."""
    return torch.stack([part.sum(dim=0) for part in in_chunks(features)]).sum(dim=0) / len(features)


def squared_distances(features: Tensor, centre: Tensor) -> Tensor:
    """Squared distance of every row from a point, float64 ``[n]``."""
    return torch.cat([(part - centre).square_().sum(dim=1) for part in in_chunks(features)])
