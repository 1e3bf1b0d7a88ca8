"""Means over seeds, paired differences, and what may be claimed of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_NO_SPREAD = 1e-12  # rounding of means of accuracies


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (``n - 1``; None for a single value) of ``n`` values."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of ``n`` paired differences with its t interval.

    ``low`` and ``high`` are None where there is no interval: a single pair, or differences all alike, of which nothing
    can be said about chance.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


def summarise(values: Iterable[float]) -> Summary | None:
    """Mean and standard deviation; None without values."""
    array = np.array(list(values), dtype=np.float64)
    if not array.size:
        return None
    deviation = float(array.std(ddof=1)) if array.size > 1 else None
    return Summary(float(array.mean()), deviation, int(array.size))


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """``ours - theirs`` over the seeds that both have, with the 95 % interval of its mean; None without a common seed.

    Student's t with ``n - 1`` degrees of freedom: ``mean ± t * s / sqrt(n)``.
    """
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    differences = np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs], dtype=np.float64)
    n = int(differences.size)
    if not n:
        return None
    mean = float(differences.mean())
    deviation = float(differences.std(ddof=1)) if n > 1 else 0.0
    if deviation <= _NO_SPREAD:
        return Difference(mean, None, None, n)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * deviation / n**0.5
    return Difference(mean, mean - half, mean + half, n)


def verdict(difference: Difference) -> str:
    """What the difference to even counts shows, in words."""
    if difference.n < 2:
        return "one seed, no verdict"
    if difference.low is None or difference.high is None:
        return "no spread, no verdict"
    if difference.low > 0:
        return "better than uniform"
    return "worse than uniform" if difference.high < 0 else "not better than uniform"
