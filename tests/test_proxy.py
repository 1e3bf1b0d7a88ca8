"""The proxies of an allocator: what is held out, what is trained on, and what the answer is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dqas_plugin import proxy
from dqas_plugin.data import BoolArray, ImageDataset, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.models import convnet3_small
from dqas_plugin.proxy import HeldOut, even_draw, probe_evaluator, training_evaluator
from dqas_plugin.recipes import Recipe
from dqas_plugin.scores import class_scores

LABELS = np.repeat(np.arange(3), [60, 40, 30])
EVEN = np.array([10, 10, 10])
NOBODY = np.zeros(len(LABELS), dtype=bool)


def clusters(spread: tuple[float, ...] = (1.0, 1.0, 1.0), labels: IntArray = LABELS) -> torch.Tensor:
    """Features of three Gaussian classes."""
    draws = np.random.default_rng(0)
    centres = np.array([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
    noise = draws.normal(size=(len(labels), 4)) * np.array(spread)[labels][:, None]
    return torch.from_numpy(centres[labels] + noise).float()


def in_order(counts: IntArray, without: BoolArray) -> IntArray:
    """The first free samples of every class."""
    return np.concatenate([np.flatnonzero((LABELS == label) & ~without)[:count] for label, count in enumerate(counts)])


def test_held_out_images_are_within_bounds_and_never_those_of_the_network() -> None:
    used = NOBODY.copy()
    used[even_draw(LABELS, EVEN, 0)] = True
    held_out = HeldOut.of(LABELS, EVEN, used)
    assert held_out.sizes.tolist() == [12, 8, 6]  # a fifth
    for seed in range(5):
        mask = held_out.draw(seed)
        assert np.bincount(LABELS[mask], minlength=3).tolist() == held_out.sizes.tolist()
        assert not (mask & used).any()
    assert (held_out.draw(1) == held_out.draw(1)).all()
    pairs = [(held_out.draw(one) & held_out.draw(one + 100)).sum() / held_out.sizes.sum() for one in range(40)]
    assert held_out.overlap == pytest.approx(np.mean(pairs), abs=0.05)
    assert (held_out.draw(1) != held_out.draw(2)).any()


def test_large_budgets_leave_as_much_to_choose_from_as_is_held_out() -> None:
    assert HeldOut.of(LABELS, np.array([50, 36, 30]), NOBODY).sizes.tolist() == [5, 2, 1]


def test_a_class_too_small_to_hold_out_is_named() -> None:
    labels = np.array([0, 0, 0, 0, 1])
    used = np.array([False, False, False, False, True])
    with pytest.raises(UserError, match="class 1 has 1 images, too few to hold some out"):
        HeldOut.of(labels, np.array([1, 1]), used)


def test_even_draw_takes_at_most_half_of_a_class() -> None:
    drawn = even_draw(LABELS, np.array([10, 30, 30]), 0)
    assert np.bincount(LABELS[drawn], minlength=3).tolist() == [10, 20, 15]
    assert drawn.tolist() == even_draw(LABELS, np.array([10, 30, 30]), 0).tolist()
    assert drawn.tolist() != even_draw(LABELS, np.array([10, 30, 30]), 1).tolist()


def test_class_scores_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]], dtype=torch.float64)
    scores = class_scores(logits, torch.tensor([0, 1, 1]), 3)
    assert scores.accuracy[:2].tolist() == [1.0, 0.5]
    assert scores.loss[0] == pytest.approx(-2 + np.log(np.exp(2) + 2))
    assert np.isnan(scores.accuracy[2])


@pytest.mark.parametrize("prior", ["balanced", "empirical"])
def test_the_probe_is_logistic_regression_on_what_was_picked(prior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against scikit-learn, with the features as they are: same held-out images, same picks, weights for the prior."""
    monkeypatch.setattr(proxy, "_PENALTIES", (1.0,))
    features, held_out = clusters((1.0, 1.0, 2.0)), HeldOut.of(LABELS, EVEN, NOBODY)
    evaluate = probe_evaluator(features, LABELS, in_order, held_out, EVEN, prior, fourier=False)
    counts = np.array([20, 6, 4])
    held = held_out.draw(7)
    chosen = in_order(counts, held)
    mapped = proxy.Standardiser.of(features, 64)(features).numpy()
    model = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8, max_iter=5000).fit(mapped[chosen], LABELS[chosen])
    expected = mapped[held] @ model.coef_.T  # scikit-learn cannot add the prior to the logits
    found = evaluate(counts, 7)
    if prior == "empirical":
        accuracy = [np.mean(expected[LABELS[held] == one].argmax(1) == one) for one in range(3)]
        assert found.accuracy == pytest.approx(accuracy, abs=0.02)
    else:
        plain = probe_evaluator(features, LABELS, in_order, held_out, EVEN, "empirical", fourier=False)(counts, 7)
        assert found.accuracy[2] > plain.accuracy[2]  # the rare class is no longer held back
    assert found.accuracy.tolist() == evaluate(counts, 7).accuracy.tolist()


def test_fourier_features_approximate_the_gaussian_kernel() -> None:
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)))
    mapped = proxy.fourier_features(points, 20_000)
    kernel = torch.exp(-torch.cdist(points, points).square() / 2)
    assert (mapped @ mapped.T - kernel).abs().max() < 0.05
    assert torch.equal(mapped, proxy.fourier_features(points, 20_000))


def test_the_probe_knows_only_what_it_has_seen_something_near_of() -> None:
    """Classes of many unrelated modes need samples of each, which a linear layer on few features could not show."""
    labels = np.repeat([0, 1], 400)
    draws = np.random.default_rng(0)
    modes = draws.normal(size=(2, 30, 6))
    features = torch.from_numpy(modes[labels, draws.integers(0, 30, 800)] + draws.normal(scale=0.1, size=(800, 6))).float()

    def pick(counts: IntArray, without: BoolArray) -> IntArray:
        return np.concatenate([np.flatnonzero((labels == one) & ~without)[:count] for one, count in enumerate(counts)])

    held_out = HeldOut.of(labels, np.array([10, 10]), np.zeros(800, dtype=bool))
    found = {}
    for fourier in (False, True):
        evaluate = probe_evaluator(features, labels, pick, held_out, np.array([10, 10]), "balanced", fourier=fourier)
        few, many = (np.mean([evaluate(np.array([one, one]), seed).mean for seed in range(3)]) for one in (10, 200))
        found[fourier] = many - few
    assert found[True] > found[False] + 0.05, found


def test_more_samples_of_a_class_help_it() -> None:
    features, held_out = clusters((1.0, 1.0, 3.0)), HeldOut.of(LABELS, EVEN, NOBODY)
    evaluate = probe_evaluator(features, LABELS, in_order, held_out, EVEN, "empirical")
    few, many = (np.mean([evaluate(np.array([10, 10, one]), seed).accuracy[2] for seed in range(8)]) for one in (2, 18))
    assert many > few


def test_training_sees_neither_the_held_out_nor_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    images = torch.from_numpy(draws.integers(0, 256, (len(LABELS), 1, 8, 8), dtype=np.uint8))
    images[:, 0, 0, 0] = torch.arange(len(LABELS), dtype=torch.uint8)  # each image carries its index
    data = ImageDataset(images, torch.from_numpy(LABELS), ("a", "b", "c"), "toy", mirror=False)
    held_out = HeldOut.of(LABELS, EVEN, NOBODY)
    seen: dict[str, set[int]] = {}
    real = proxy.train

    def spying(build: Any, chosen: ImageDataset, *arguments: Any, test: ImageDataset, **options: Any) -> Any:
        seen["train"] = set(chosen.images[:, 0, 0, 0].tolist())
        seen["test"] = set(test.images[:, 0, 0, 0].tolist())
        return real(build, chosen, *arguments, test=test, **options)

    monkeypatch.setattr(proxy, "train", spying)
    recipe = Recipe("short", iterations=3, batch=8, precision="fp32")
    scores = training_evaluator(data, convnet3_small, recipe, in_order, held_out, "cpu")(np.array([6, 5, 4]), 3)
    assert seen["train"] == set(in_order(np.array([6, 5, 4]), held_out.draw(3)).tolist())
    assert seen["test"] == set(np.flatnonzero(held_out.draw(3)).tolist())
    assert not seen["train"] & seen["test"]
    assert scores.accuracy.shape == (3,)
