"""Refiners spend the last part of the budget on single samples, whatever their class.

``error-reduction`` adds those that lower the expected error (:mod:`~dqas_plugin.refinement.rounds`), by a score that foresees a
training of the last layer with each of them (:mod:`~dqas_plugin.refinement.scorers`), or after a training of the network with
each of them (:mod:`~dqas_plugin.refinement.retrained`). ``random`` is the control.
"""

from __future__ import annotations

from collections.abc import Callable

from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.refinement.drawn import random_refiner
from dqas_plugin.refinement.retrained import retrained_changes, retrained_error_change, retraining_years
from dqas_plugin.refinement.rounds import error_reduction, error_reduction_refiner
from dqas_plugin.refinement.scorers import SCORERS, expected_error_change

__all__ = [
    "SCORERS",
    "error_reduction",
    "error_reduction_refiner",
    "expected_error_change",
    "random_refiner",
    "retrained_changes",
    "retrained_error_change",
    "retraining_years",
]


@hookimpl
def dqas_register_refiners(register: Callable[..., None]) -> None:
    """Register the built-in refiners."""
    register(random_refiner)
    register(error_reduction_refiner)
