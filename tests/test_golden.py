"""Every pick of the real DeepCore, of the same numbers and seed (its arrays are beside the checkout, not part of it)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dqas_plugin.plugins import plugins
from dqas_plugin.ranking import rank
from dqas_plugin.selection import Ranking
from dqas_plugin.signals import Signals

NAMES = {
    "herding": "herding",
    "kcenter": "k-center",
    "contextual-diversity": "contextual-diversity",
    "grand": "grand",
    "cal": "cal",
    "craig": "craig",
    "gradmatch": "gradmatch",
    "glister": "glister",
    "least-confidence": "least-confidence",
    "entropy": "entropy",
    "margin": "margin",
    "facility-location": "facility-location",
    "graphcut": "graphcut",
    "graphcut-lazy": "graphcut",  # its other optimiser, which picks the same
}
"""What the arrays call a method, and what it is called here."""

NEAR_TIES = {"craig", "facility-location"}
"""Where one pick a class may differ: two gains that only float32 can tell apart, as test_coverage.py shows for each of them."""

every_array = pytest.mark.parametrize(("array", "fraction"), [(name, fraction) for name in NAMES for fraction in (0.1, 0.3)])


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(shared / "golden/deepcore_picks.npz", allow_pickle=False) as file:
        return dict(file)


def ranked(golden: dict[str, npt.NDArray[Any]], method: str, fraction: float, **options: Any) -> Ranking:
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    signals = Signals.from_arrays(golden["features"], logits, golden["labels"])
    counts = [round(fraction * size) for size in np.bincount(golden["labels"])]
    return rank(signals, method, counts=counts, seed=7, **options)


@every_array
def test_picks_are_those_of_the_real_deepcore(golden: dict[str, npt.NDArray[Any]], array: str, fraction: float) -> None:
    ranking = ranked(golden, NAMES[array], fraction)
    expected = golden[f"{array}@{fraction}"]
    for label, order in enumerate(ranking.order):
        theirs = expected[golden["labels"][expected] == label]
        assert len(order) == len(theirs)
        assert len(set(order.tolist()) - set(theirs.tolist())) <= (array in NEAR_TIES)


@pytest.mark.parametrize("fraction", [0.1, 0.3])
@pytest.mark.parametrize("array", ["craig", "gradmatch"])
def test_weights_are_those_of_the_real_deepcore(golden: dict[str, npt.NDArray[Any]], array: str, fraction: float) -> None:
    ranking = ranked(golden, array, fraction)
    assert ranking.weights is not None
    ours = dict(zip(np.concatenate(ranking.order).tolist(), np.concatenate(ranking.weights).tolist(), strict=True))
    theirs = dict(zip(golden[f"{array}@{fraction}"].tolist(), golden[f"{array}@{fraction}.weights"].tolist(), strict=True))
    common = ours.keys() & theirs.keys()
    assert len(common) >= len(theirs) - (array in NEAR_TIES) * len(ranking.order)
    if array == "craig":  # what a differing pick stands for, its neighbours stand for there
        close = sum(abs(ours[one] - theirs[one]) <= 1 for one in common)
        assert close == len(common)
    else:
        assert {one: ours[one] for one in common} == pytest.approx({one: theirs[one] for one in common}, rel=2e-5)


def test_the_first_centre_is_that_of_the_real_deepcore(golden: dict[str, npt.NDArray[Any]]) -> None:
    for method in ("k-center", "contextual-diversity"):
        assert [int(order[0]) for order in ranked(golden, method, 0.1).order] == golden["kcenter.first"].tolist()


@every_array
def test_compat_is_deepcore_unless_said_otherwise(golden: dict[str, npt.NDArray[Any]], array: str, fraction: float) -> None:
    plain, named = ranked(golden, NAMES[array], fraction), ranked(golden, NAMES[array], fraction, compat="deepcore")
    assert [one.tolist() for one in plain.order] == [one.tolist() for one in named.order]


def test_no_array_is_forgotten(golden: dict[str, npt.NDArray[Any]]) -> None:
    arrays = {key.partition("@")[0] for key in golden if "@" in key}
    assert arrays == set(NAMES)
    assert set(NAMES.values()) <= set(plugins().selectors)
