"""What every registered selection method must do, whatever it selects by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dqas_plugin.contracts import Selector, Weighted
from dqas_plugin.plugins import plugins
from dqas_plugin.signals import Signals, View

COUNT, WIDTH, CLASSES = 60, 6, 3


def cases() -> Iterator[Any]:
    """Every method, and every variant of it."""
    for name, selector in plugins().selectors.items():
        yield pytest.param(selector, {}, id=name)
        for variant, options in selector.variants.items():
            yield pytest.param(selector, dict(options), id=f"{name}:{variant}")


every_method = pytest.mark.parametrize(("selector", "options"), list(cases()))


def signals(selector: Selector | None = None, seed: int = 0) -> Signals:
    """Random signals; those that the selector does not declare are absent."""
    draws = np.random.default_rng(seed)
    needs = {"features", "logits", "gradients", "images"} if selector is None else selector.needs
    features = draws.normal(size=(COUNT, WIDTH)).astype(np.float32)
    logits = draws.normal(size=(COUNT, CLASSES)).astype(np.float32)
    images = draws.integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)
    return Signals.from_arrays(
        features if needs & {"features", "gradients"} else None,
        logits if needs & {"logits", "gradients"} else None,
        draws.permutation(np.arange(COUNT) % CLASSES),
        images if "images" in needs else None,
        num_classes=CLASSES,
    )


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
    assert picks(selector, view, 1, options) == [0]


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
    everything = Signals.from_arrays(whole.features, whole.logits, np.zeros(COUNT, np.int64), whole.images, num_classes=CLASSES)
    picks(selector, everything.view(0), 20, options)  # one class: the view shares the memory of the signals
    assert [one.tolist() for one in arrays(whole)] == [one.tolist() for one in before]


def arrays(whole: Signals) -> list[npt.NDArray[Any]]:
    assert whole.features is not None
    assert whole.logits is not None
    assert whole.images is not None
    return [one.numpy().copy() for one in (whole.features, whole.logits, whole.images)]


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
