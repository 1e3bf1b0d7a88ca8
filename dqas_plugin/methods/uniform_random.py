"""The baseline of every table: samples drawn uniformly, without looking at them."""

from __future__ import annotations

import numpy as np

from dqas_plugin.contracts import selector
from dqas_plugin.data import IntArray
from dqas_plugin.signals import View


@selector("random", title="Random: uniformly drawn samples", family="baseline")
def uniform_random(view: View, budget: int, rng: np.random.Generator) -> IntArray:
    """Positions of ``budget`` samples in random order, int64."""
    return rng.permutation(len(view)).astype(np.int64)[:budget]
