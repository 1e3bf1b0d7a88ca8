"""What every registered selection method must do, whatever it selects by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dqas_plugin.contracts import SIGNALS, Selector, Weighted
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import plugins
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals, View

COUNT, WIDTH, CLASSES, EPOCHS = 60, 6, 3, 5
Array = npt.NDArray[Any]
TIES = {"craig"}
"""Methods with equal gains in any data: two samples that are each other's nearest gain as much from one as from the other."""

STORED = {"distilled-family"}
"""Methods whose samples are in their best order when they are stored."""

DEGENERATE: dict[str, Callable[[Array], Array]] = {
    "random": lambda one: one,
    "identical": lambda one: np.broadcast_to(one[:1], one.shape).copy(),
    "zero": np.zeros_like,
    "two points": lambda one: one[np.arange(len(one)) % 2],
    "huge": lambda one: one if one.dtype == np.uint8 else one * np.float32(1e15),
    "tiny": lambda one: one if one.dtype == np.uint8 else one * np.float32(1e-15),
}


def cases() -> Iterator[Any]:
    """Every method, and every variant of it; what is another program has tests of its own."""
    for name, selector in plugins().selectors.items():
        if selector.version:
            continue
        yield pytest.param(selector, {}, id=name)
        for variant, options in selector.variants.items():
            yield pytest.param(selector, dict(options), id=f"{name}:{variant}")


every_method = pytest.mark.parametrize(("selector", "options"), list(cases()))


def signals(selector: Selector | None = None, seed: int = 0, kind: str = "random") -> Signals:
    """Signals of 20 samples in each of 3 classes; those that the selector does not declare are absent."""
    draws = np.random.default_rng(seed)
    values = {
        "features": draws.normal(size=(COUNT, WIDTH)).astype(np.float32),
        "logits": draws.normal(size=(COUNT, CLASSES)).astype(np.float32),
        "images": draws.integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8),
        "margins": draws.normal(size=(COUNT, EPOCHS)).astype(np.float32),
        "errors": draws.uniform(0, 1.4, (COUNT, EPOCHS)).astype(np.float32),
        "perturbations": draws.exponential(size=COUNT).astype(np.float32),
    }
    labels = draws.permutation(np.arange(COUNT) % CLASSES)
    return made(
        {name: DEGENERATE[kind](one) for name, one in values.items()}, labels, SIGNALS if selector is None else selector.needs
    )


def made(values: dict[str, Array], labels: Array, needs: frozenset[str]) -> Signals:
    """Signals of these arrays, of those that are needed."""
    known = set(needs) | ({"features", "logits"} if "gradients" in needs else set())
    known |= {"margins", "errors"} if "dynamics" in needs else set()
    given: dict[str, Any] = {name: values[name] if name in known else None for name in values}
    shared = {"features": given.pop("features"), "logits": given.pop("logits"), "labels": labels, "num_classes": CLASSES}
    runs = []
    if "runs" in needs:
        runs = [Signals.from_arrays(**{**shared, "logits": factor * shared["logits"]}) for factor in (0.5, 2.0)]
    return Signals.from_arrays(**shared, **given, runs=runs)


def picks(selector: Selector, view: View, budget: int, options: dict[str, Any], seed: int = 3) -> list[int]:
    answer = selector(view, budget, np.random.default_rng(seed), **options)
    positions = answer.positions if isinstance(answer, Weighted) else answer
    return [int(one) for one in np.asarray(positions)[:budget]]


@every_method
@pytest.mark.parametrize("budget", [1, 7, COUNT // CLASSES])
def test_gives_different_positions_of_the_class(selector: Selector, options: dict[str, Any], budget: int) -> None:
    chosen = picks(selector, signals(selector).view(1), budget, options)
    assert len(chosen) == len(set(chosen)) == budget
    assert set(chosen) <= set(range(COUNT // CLASSES))


@every_method
def test_the_same_seed_gives_the_same_answer(selector: Selector, options: dict[str, Any]) -> None:
    assert picks(selector, signals().view(0), 9, options) == picks(selector, signals().view(0), 9, options)


@every_method
def test_nested_means_that_fewer_are_the_first_of_more(selector: Selector, options: dict[str, Any]) -> None:
    if not selector.nested:
        pytest.skip("is asked again for every count")
    view = signals().view(2)
    longest = picks(selector, view, len(view), options)
    for budget in range(1, len(view)):
        assert picks(selector, view, budget, options) == longest[:budget]


@every_method
def test_a_class_of_one(selector: Selector, options: dict[str, Any]) -> None:
    whole = signals(selector)
    view = whole.view(0, whole.members(0)[4:5])
    options = {**options, "bins": 1} if "bins" in selector.options else options  # there must be a sample for each
    assert picks(selector, view, 1, options) == [0]


@every_method
@pytest.mark.parametrize("kind", [one for one in DEGENERATE if one != "random"])
@pytest.mark.parametrize("budget", [1, 8, COUNT // CLASSES])
def test_degenerate_samples_are_ranked_like_any(selector: Selector, options: dict[str, Any], kind: str, budget: int) -> None:
    view = signals(selector, kind=kind).view(1)
    answer = selector(view, budget, np.random.default_rng(0), **options)
    chosen = picks(selector, view, budget, options)
    assert len(set(chosen)) == budget
    assert set(chosen) <= set(range(len(view)))
    if isinstance(answer, Weighted):
        weights = np.asarray(answer.weights)
        assert np.isfinite(weights).all()
        assert (weights >= 0).all()


@every_method
def test_the_order_of_the_samples_does_not_matter(selector: Selector, options: dict[str, Any]) -> None:
    if selector.name in STORED:
        pytest.skip("takes samples as they are stored")
    whole = signals()
    view = whole.view(1)
    if picks(selector, view, 9, options, seed=3) != picks(selector, view, 9, options, seed=4):
        pytest.skip("draws samples by their position")
    if "first" in selector.options:  # the first centre is drawn by its position
        options = {**options, "first": 5}
    mixed = np.random.default_rng(1).permutation(COUNT)
    other = whole.subset(mixed).view(1)  # sample i of it is mixed[i] of the whole
    if "first" in options:
        options = {**options, "first": mixed[other.indices].tolist().index(view.indices[5])}
    again = mixed[other.indices][picks(selector, other, 9, options)]
    options = {**options, "first": 5} if "first" in options else options
    plain = view.indices[picks(selector, view, 9, options)]
    if selector.name in TIES:
        assert len(set(again) & set(plain)) >= 7
    else:
        assert again.tolist() == plain.tolist()


@every_method
def test_a_class_smaller_than_the_count_is_refused(selector: Selector, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"class 1 has 20 samples to choose from, not 21"):
        rank(signals(selector), selector, counts=[3, 21, 4], **options)


@every_method
def test_rank_gives_each_class_its_own(selector: Selector, options: dict[str, Any]) -> None:
    whole = signals(selector)
    found = rank(whole, selector, counts=[3, 20, 0], seed=2, **options)
    assert [len(one) for one in found.order] == [3, 20, 0]
    assert all((whole.labels.numpy()[one] == label).all() for label, one in enumerate(found.order))


@every_method
def test_candidates_are_a_class_of_their_own(selector: Selector, options: dict[str, Any]) -> None:
    whole = signals(selector)
    candidates = np.concatenate([whole.members(label)[::2] for label in range(CLASSES)])
    view = whole.view(1, candidates)
    alone = whole.subset(np.sort(candidates)).view(1)
    assert picks(selector, view, 6, options) == picks(selector, alone, 6, options)
    assert set(view.indices) == set(whole.members(1)[::2])


@every_method
def test_inputs_stay_as_they_are(selector: Selector, options: dict[str, Any]) -> None:
    whole = signals()
    before = arrays(whole)
    everything = replace(whole, labels=torch.zeros(COUNT, dtype=torch.int64))
    picks(selector, everything.view(0), 20, options)  # one class: the view shares the memory of the signals
    assert [one.tolist() for one in arrays(whole)] == [one.tolist() for one in before]


def arrays(whole: Signals) -> list[Array]:
    given = (whole.features, whole.logits, whole.images, whole.margins, whole.errors, whole.perturbations)
    assert all(one is not None for one in given)
    return [one.numpy().copy() for one in given if one is not None]


@every_method
def test_says_what_it_is(selector: Selector, options: dict[str, Any]) -> None:
    assert selector.title
    assert selector.family != "other"
    assert set(options) <= set(selector.options)


def test_random_is_uniform_and_depends_on_the_seed() -> None:
    selector, view = plugins().selectors["random"], signals().view(0)
    draws = np.array([picks(selector, view, 5, {}, seed) for seed in range(400)])
    share = np.bincount(draws.ravel(), minlength=len(view)) / len(draws)
    assert abs(share - 5 / len(view)).max() < 0.1  # 4.6 standard deviations
