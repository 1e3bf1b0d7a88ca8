"""The control that every refiner has to beat."""

from __future__ import annotations

import numpy as np

from dqas_plugin.contracts import refiner
from dqas_plugin.data import IntArray
from dqas_plugin.signals import Signals


@refiner("random", title="the control: any samples not selected yet, drawn uniformly")
def random_refiner(signals: Signals, selected: IntArray, budget: int, rng: np.random.Generator) -> IntArray:
    """Draw ``budget`` of the samples that are not selected; what every other refiner has to beat.

    Args:
        signals: only the number of samples is read.
        selected: int64 ``[K]``, dataset indices.
        budget: how many to add.
        rng: random numbers.

    Returns:
        int64 ``[budget]`` dataset indices.
    """
    free = np.setdiff1d(np.arange(len(signals.labels)), selected)
    return rng.choice(free, budget, replace=False)
