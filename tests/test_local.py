"""Cal and D2 against their definitions written out in float64, and Cal against the picks of the real DeepCore."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from dqas_plugin.errors import UserError
from dqas_plugin.methods.local import cal, d2, divergences
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals, View

Array = npt.NDArray[Any]
RNG = np.random.default_rng(0)


def signals(seed: int, count: int, width: int = 5, classes: int = 4, epochs: int = 12) -> Signals:
    draws = np.random.default_rng(seed)
    return Signals.from_arrays(
        draws.normal(size=(count, width)).astype(np.float32),
        draws.normal(size=(count, classes)).astype(np.float32) * 3,
        np.zeros(count, np.int64),
        num_classes=classes,
        margins=(draws.normal(size=(count, epochs)) + 2 * draws.normal(size=(count, 1))).astype(np.float32),
        errors=draws.uniform(0, 1.4, (count, epochs)).astype(np.float32),
    )


def sorted_neighbours(features: Array) -> tuple[list[list[int]], Array]:
    """Every sample's others by distance, the first of the sorted row left out, and all squared distances."""
    wide = features.astype(np.float64)
    squares = np.square(wide[:, None] - wide[None]).sum(axis=2)
    return [np.argsort(row, kind="stable")[1:].tolist() for row in squares], squares


def probabilities(logits: Array) -> Array:
    wide = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return wide / wide.sum(axis=1, keepdims=True)


def literal_cal(features: Array, logits: Array, neighbours: int, *, symmetric: bool) -> list[float]:
    order, _ = sorted_neighbours(features)
    p = probabilities(logits)
    scores = []
    for one, row in enumerate(order):
        near = [(entropy(p[one], p[x]) + entropy(p[x], p[one])) / 2 if symmetric else entropy(p[x], p[one]) for x in row]
        scores.append(float(np.mean(near[:neighbours])) if near else 0.0)
    return scores


@given(seed=st.integers(0, 10_000), count=st.integers(1, 15), neighbours=st.integers(1, 12))
@settings(deadline=None, max_examples=20)
def test_cal_follows_its_definitions(seed: int, count: int, neighbours: int) -> None:
    whole = signals(seed, count)
    view = whole.view(0)
    features, logits = view.features.numpy(), view.logits.numpy()
    scores = np.array(literal_cal(features, logits, neighbours, symmetric=True))
    assert cal(view, count, RNG, neighbours=neighbours).tolist() == np.argsort(scores, kind="stable").tolist()
    scores = np.array(literal_cal(features, logits, neighbours, symmetric=False))
    expected = np.argsort(-scores, kind="stable").tolist()
    assert cal(view, count, RNG, neighbours=neighbours, compat="paper").tolist() == expected


def test_cal_takes_ten_neighbours_and_the_other_end_in_the_paper() -> None:
    view = signals(1, 60).view(0)
    assert cal(view, 9, RNG).tolist() == cal(view, 9, RNG, neighbours=10).tolist() != cal(view, 9, RNG, neighbours=9).tolist()
    assert not set(cal(view, 6, RNG)[:6]) & set(cal(view, 6, RNG, compat="paper")[:6])


def test_divergences_are_finite_where_probabilities_round_to_nothing() -> None:
    logits = torch.tensor([[3e38, -3e38, 0.0], [-3e38, 3e38, 0.0], [0.0, 0.0, 0.0]])
    for symmetric in (True, False):
        found = divergences(logits, torch.tensor([[1], [2], [0]]), symmetric=symmetric)
        assert found.isfinite().all()
        assert (found > 1e38).any()


def test_divergences_of_known_outputs() -> None:
    logits = torch.tensor([[0.0, 0.0], [np.log(3.0), 0.0]])
    swapped = torch.tensor([[1], [0]])
    first, second = np.log(0.5 / 0.75) / 2 + np.log(0.5 / 0.25) / 2, 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    np.testing.assert_allclose(divergences(logits, swapped, symmetric=False), [second, first], rtol=1e-6)
    np.testing.assert_allclose(divergences(logits, swapped, symmetric=True), [(first + second) / 2] * 2, rtol=1e-6)
    assert divergences(logits, torch.zeros((2, 0), dtype=torch.int64), symmetric=True).tolist() == [0, 0]


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_cal_picks_those_of_the_real_deepcore(shared: Path, fraction: float) -> None:
    golden = np.load(shared / "golden/deepcore_picks.npz")
    logits = golden["features"] @ golden["weight"].T + golden["bias"]
    whole = Signals.from_arrays(golden["features"], logits, golden["labels"])
    expected = golden[f"cal@{fraction}"]
    found = rank(whole, cal, counts=[round(fraction * len(whole.members(label))) for label in range(4)], seed=7)
    for label, order in enumerate(found.order):
        assert set(order) == set(expected[golden["labels"][expected] == label])


def literal_scores(view: View, difficulty: str) -> list[float]:
    margins, errors = view.margins.double().numpy(), view.errors.double().numpy()
    if difficulty == "forgetting":
        right = margins > 0
        events = [sum(was and not now for was, now in itertools.pairwise(row)) for row in right]
        return [float(count if any(row) else len(row)) for count, row in zip(events, right, strict=True)]  # or never learned
    if difficulty == "aum":
        means = margins.mean(axis=1)
        return (means.max() - means).tolist()  # type: ignore[no-any-return]
    return errors[:, :10].mean(axis=1).tolist()  # type: ignore[no-any-return]


def literal_d2(
    view: View, difficulty: str = "forgetting", k: int = 5, forward: float = 1.0, reverse: float = 0.1, *, squared: bool = True
) -> list[int]:
    """Both passes of messages, one after the other."""
    count = len(view)
    _, lengths = sorted_neighbours(view.features.numpy())
    lists = [[int(x) for x in np.argsort(lengths[one], kind="stable") if x != one][:k] for one in range(count)]
    lengths = lengths if squared else np.sqrt(lengths)
    joined = [[x for x in range(count) if x in lists[one] or one in lists[x]] for one in range(count)]
    start = literal_scores(view, difficulty)
    scores = [start[i] + sum(np.exp(-forward * lengths[i, j]) * start[j] for j in joined[i]) for i in range(count)]
    near = 1e-11 * max(map(abs, scores))
    picks: list[int] = []
    while len(picks) < count:
        left = [one for one in range(count) if one not in picks]
        highest = max(scores[one] for one in left)
        pick = next(one for one in left if scores[one] >= highest - near)
        for j in joined[pick]:
            scores[j] -= np.exp(-reverse * lengths[pick, j]) * scores[pick]
        picks.append(pick)
    return picks


@given(seed=st.integers(0, 10_000), count=st.integers(1, 25), k=st.integers(1, 7), data=st.data())
@settings(deadline=None, max_examples=60)
def test_d2_follows_its_definition(seed: int, count: int, k: int, data: st.DataObject) -> None:
    view = signals(seed, count).view(0)
    difficulty = data.draw(st.sampled_from(["forgetting", "aum", "el2n"]))
    forward, reverse = data.draw(st.sampled_from([0.0, 0.3, 1.0])), data.draw(st.sampled_from([0.0, 0.1, 2.0]))
    squared = data.draw(st.booleans())
    found = d2(
        view,
        count,
        RNG,
        difficulty=difficulty,
        neighbours=k,
        gamma_forward=forward,
        gamma_reverse=reverse,
        squared=squared,
    )
    assert found.tolist() == literal_d2(view, difficulty, k, forward, reverse, squared=squared)


def test_d2_by_default_is_that_of_cifar10() -> None:
    view = signals(3, 50, width=2).view(0)
    assert d2(view, 50, RNG).tolist() == literal_d2(view) != literal_d2(view, squared=False)
    assert d2(view, 7, RNG).tolist() == literal_d2(view)[:7]


def test_d2_of_copies_takes_the_lowest_position_first() -> None:
    whole = signals(4, 8).subset(np.arange(32) % 8)
    assert d2(whole.view(0), 32, RNG, difficulty="aum").tolist() == literal_d2(whole.view(0), "aum")


def test_d2_without_messages_is_difficulty_alone() -> None:
    view = signals(5, 40).view(0)
    alone = np.argsort(-np.array(literal_scores(view, "aum")), kind="stable").tolist()
    far = {"gamma_forward": 1e9, "gamma_reverse": 1e9}
    assert d2(view, 40, RNG, difficulty="aum", **far).tolist() == alone != d2(view, 40, RNG, difficulty="aum").tolist()


def test_d2_spreads_its_picks() -> None:
    draws = np.random.default_rng(6)
    group = np.repeat(np.arange(5), 8)
    features = (20 * draws.normal(size=(5, 3))[group] + 0.1 * draws.normal(size=(40, 3))).astype(np.float32)
    margins = (group[:, None] + 0.1 * draws.uniform(size=(40, 3))).astype(np.float32)  # the hardest are all of group 0
    whole = Signals.from_arrays(features, None, np.zeros(40, np.int64), margins=margins, errors=np.abs(margins))
    found = d2(whole.view(0), 5, RNG, difficulty="aum")
    assert len(set(group[found])) >= 3
    assert set(group[np.argsort(margins.mean(axis=1))[:5]]) == {0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"difficulty": "forgeting"}, "forgetting"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
        ({"gamma_forward": -1.0}, "gamma_forward must be a number of at least 0, not -1"),
        ({"gamma_reverse": float("nan")}, "gamma_reverse must be a number"),
    ],
)
def test_mistakes_with_d2_are_answered(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        d2(signals(0, 9).view(0), 3, RNG, **options)


def test_mistakes_with_cal_are_answered() -> None:
    with pytest.raises(UserError, match="neighbours must be at least 1"):
        cal(signals(0, 9).view(0), 3, RNG, neighbours=0)
    with pytest.raises(UserError, match="paper"):
        cal(signals(0, 9).view(0), 3, RNG, compat="papr")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    whole = signals(7, 120)
    for selector in (cal, d2):
        here, there = (rank(one, selector, counts=[50, 0, 0, 0]) for one in (whole, whole.to("cuda")))
        assert here.order[0].tolist() == there.order[0].tolist()
