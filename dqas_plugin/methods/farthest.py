"""Farthest-first traversal: again and again the sample that is farthest from its nearest pick (Gonzalez 1985).

Each pick costs one matrix-vector product over the samples that are left. The picks are still those of distances computed one by
one from the differences in float64: the product only narrows the choice down to the samples that its rounding cannot tell
apart, and only their distances to the picks that can be their nearest are computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.methods.greedy import product_rounding
from dqas_plugin.methods.greedy_on_device import first_highest
from dqas_plugin.methods.neighbours import block_rows, first_copies
from dqas_plugin.methods.points import mean_of, squared_distances

_TIE = 1e-13  # distances that differ by less than this share are equal: sums of the same terms in another order
_TINY = 1e-34  # products of numbers below the range of float32 are 0

Factor = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Metric:
    """A distance of n samples that is a sum less an inner product: ``D(x, p) = own_x + own_p - weight <left_x, right_p>``.

    Attributes:
        own: float64 ``[n]``.
        left: float32 or float64 ``[n, k]``.
        swap: ``right = swap(left)``, of one row ``[k]`` or many; the inner product is the same the other way round.
        weight: at most 2.
        norms: float64 ``[n]`` each, of the parts of a row: ``|<left_x, right_p>| <= norms_x · norms_p`` crosswise, see ``error``.
        exact: ``exact(rows, others)`` is the same distance of pairs from their differences, float64, in any unit.
        copies: for every sample the first one that is equal to it, int64 ``[n]``.
    """

    own: FloatArray
    left: Factor
    swap: Callable[[Factor], Factor]
    weight: float
    norms: tuple[FloatArray, FloatArray]
    exact: Callable[[IntArray, IntArray], FloatArray]
    copies: IntArray
