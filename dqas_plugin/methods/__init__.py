"""The selection rules, one family a file, each a plain function of arrays that returns positions, best first."""

from __future__ import annotations

from collections.abc import Callable

from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.methods.bilevel import glister
from dqas_plugin.methods.centres import contextual_diversity, k_center
from dqas_plugin.methods.coverage import craig, facility_location
from dqas_plugin.methods.dynamics import aum, ccs, el2n, forgetting
from dqas_plugin.methods.geometry import herding, moderate
from dqas_plugin.methods.gradient_norm import grand
from dqas_plugin.methods.graphcut import graphcut
from dqas_plugin.methods.local import cal, d2
from dqas_plugin.methods.matching import gradmatch
from dqas_plugin.methods.prototypes import kmeans_prototypes
from dqas_plugin.methods.uncertainty import deepfool, entropy, least_confidence, margin
from dqas_plugin.methods.uniform_random import uniform_random

_BUILT_IN = (
    uniform_random,
    contextual_diversity,
    herding,
    k_center,
    grand,
    cal,
    deepfool,
    craig,
    gradmatch,
    glister,
    least_confidence,
    entropy,
    margin,
    facility_location,
    graphcut,  # so far the rows of Table 2 of the paper, in its order
    el2n,
    forgetting,
    aum,
    moderate,
    ccs,
    d2,
    kmeans_prototypes,
)


@hookimpl
def dqas_register_selectors(register: Callable[..., None]) -> None:
    """The built-in selection methods."""
    for one in _BUILT_IN:
        register(one)
