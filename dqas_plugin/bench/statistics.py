"""Means over seeds, paired differences, and what may be claimed of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isnan, sqrt

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
ONE_SEED = "one seed, no verdict"
_NO_SPREAD = 1e-12  # rounding of means of accuracies
_MANY = 16  # seeds from which on NumPy is faster than exact sums; the twelfth digit may differ

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (``n - 1``; None for a single value) of ``n`` values."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of ``n`` paired differences with its t interval, and the two-sided p value of the paired t test.

    ``low``, ``high`` and ``p`` are None where there is no interval: a single pair, or differences all alike, of which nothing
    can be said about chance.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None = None


def summarise(values: Iterable[float]) -> Summary | None:
    """Mean and standard deviation; None without values."""
    numbers = [float(one) for one in values]  # a few, which NumPy takes longer for
    n = len(numbers)
    if not n:
        return None
    mean = fsum(numbers) / n
    deviation = sqrt(fsum([(one - mean) ** 2 for one in numbers]) / (n - 1)) if n > 1 else None
    return Summary(mean, deviation, n)


def summaries(values: FloatArray) -> tuple[Summary | None, ...]:
    """Of every column of ``[n, C]``, without its NaN; None for a column with nothing else."""
    if len(values) < _MANY or np.isnan(values).any():
        return tuple(summarise(one for one in column if not isnan(one)) for column in values.T.tolist())
    means, deviations = values.mean(axis=0).tolist(), values.std(axis=0, ddof=1).tolist()
    return tuple(Summary(mean, deviation, len(values)) for mean, deviation in zip(means, deviations, strict=True))


def paired_difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """``ours - theirs`` over the seeds that both have, with the 95 % interval of its mean; None without a common seed.

    Student's t with ``n - 1`` degrees of freedom: ``mean ± t * s / sqrt(n)``.
    """
    differences = np.array([ours[seed] - theirs[seed] for seed in ours if seed in theirs], dtype=np.float64)
    n = int(differences.size)
    if not n:
        return None
    return _difference(float(differences.mean()), float(differences.std(ddof=1)) if n > 1 else 0.0, n)


def paired_differences(differences: FloatArray) -> list[Difference | None]:
    """The same of every column of differences ``[n, C]``, without its NaN; None for a column with nothing else."""
    if len(differences) < 2 or np.isnan(differences).any():
        columns = [dict(enumerate(one for one in column if not isnan(one))) for column in differences.T.tolist()]
        return [paired_difference(column, dict.fromkeys(column, 0.0)) for column in columns]
    rows = np.ascontiguousarray(differences.T)  # summed as a single one is
    means, deviations = rows.mean(axis=1).tolist(), rows.std(axis=1, ddof=1).tolist()
    return [_difference(*one, len(differences)) for one in zip(means, deviations, strict=True)]


def _difference(mean: float, deviation: float, n: int) -> Difference:
    from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

    if deviation <= _NO_SPREAD:
        return Difference(mean, None, None, n)
    error = deviation / n**0.5
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    return Difference(mean, mean - half, mean + half, n, 2 * float(stdtr(n - 1, -abs(mean) / error)))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values, corrected for their number by Holm's method; None, of a comparison without a test, stays and is not counted.

    The chance of any false claim among those below ``1 - CONFIDENCE`` is then at most that.
    """
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        corrected[place] = highest
    return corrected


def verdict(difference: Difference, than: str = "uniform", p: float | None = None) -> str:
    """What a difference shows, in words: ``not better than random (p = 0.23)``.

    Args:
        difference: of the one to the other.
        than: what the other is called.
        p: its p value, corrected where there are several comparisons; then it decides, and is told. Without it the interval
            decides.
    """
    if difference.n < 2:
        return ONE_SEED
    if difference.low is None or difference.high is None:
        return "no spread, no verdict"
    beyond = difference.low > 0 or difference.high < 0 if p is None else p < 1 - CONFIDENCE
    word = "not better" if not beyond else "better" if difference.mean > 0 else "worse"
    return f"{word} than {than}" + ("" if p is None else f" ({told_p(p)})")


def told_p(p: float) -> str:
    """``p = 0.23``, with two digits that count, and ``p < 0.001`` below that."""
    return "p < 0.001" if p < 0.001 else f"p = {_two_digits(p)}"


def _two_digits(p: float) -> str:
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}" if p >= 0.01 else f"{p:.4f}"
