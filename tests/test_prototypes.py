"""k-means prototypes on clusters that are known, and on samples that are hard to cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from dqas_plugin.errors import UserError
from dqas_plugin.methods import prototypes
from dqas_plugin.methods.prototypes import kmeans_prototypes, nearest_squares
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals, View

Array = npt.NDArray[Any]


def view(features: Array) -> View:
    return Signals.from_arrays(features, None, np.zeros(len(features), np.int64)).view(0)


def picks(features: Array, seed: int = 0, **options: Any) -> list[int]:
    return kmeans_prototypes(view(features), len(features), np.random.default_rng(seed), **options).tolist()


def blobs(seed: int, sizes: tuple[int, ...] = (30, 20, 50)) -> tuple[Array, Array]:
    """Three groups far apart, of different spread; and the distance of every sample from the mean of its group."""
    draws = np.random.default_rng(seed)
    groups = [draws.normal(60 * one, 1 + one, (size, 4)).astype(np.float32) for one, size in enumerate(sizes)]
    away = [np.linalg.norm(one.astype(np.float64) - one.astype(np.float64).mean(axis=0), axis=1) for one in groups]
    mixed = draws.permutation(sum(sizes))
    return np.concatenate(groups)[mixed], np.concatenate(away)[mixed]


@pytest.mark.parametrize("seed", range(4))
def test_clusters_that_are_known(seed: int) -> None:
    features, away = blobs(seed)
    easy = picks(features, seed, clusters=3)
    assert easy == np.argsort(away).tolist()
    assert picks(features, seed, clusters=3, keep="hard") == easy[::-1]
    assert picks(features * np.float32(2.0**40), seed, clusters=3) == easy


def test_the_variants_and_the_defaults() -> None:
    features, _ = blobs(1)
    assert kmeans_prototypes.variants == {"easy": {"keep": "easy"}, "hard": {"keep": "hard"}}
    assert picks(features) == picks(features, clusters=10, keep="easy") != picks(features, clusters=9)


def test_the_seed_decides_and_nothing_else() -> None:
    features = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    assert picks(features, 1) == picks(features, 1) != picks(features, 2)


def test_one_cluster_is_the_mean() -> None:
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    away = np.linalg.norm(features - features.astype(np.float64).mean(axis=0), axis=1)
    assert picks(features, clusters=1) == np.argsort(away).tolist()


def test_as_many_clusters_as_different_samples() -> None:
    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)[np.arange(15) % 6]
    assert picks(features, clusters=6) == picks(features, clusters=40) == list(range(15))  # every one is a prototype
    assert sorted(picks(features, clusters=5)) == list(range(15))


few_values = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 25), st.integers(1, 3)), elements=st.integers(-2, 2).map(lambda one: one / 3)
)


@given(features=few_values, clusters=st.integers(1, 12), bits=st.booleans(), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_samples_that_are_hard_to_cluster_give_no_warning(features: Array, clusters: int, bits: bool, seed: int) -> None:
    if bits:  # near-copies
        features = np.nextafter(features, np.random.default_rng(seed).choice([-9, 9], features.shape).astype(np.float32))
    found = picks(features, seed, clusters=clusters)
    assert sorted(found) == list(range(len(features)))
    sets: dict[bytes, list[int]] = {}
    for place in found:
        sets.setdefault(features[place].tobytes(), []).append(place)
    assert all(one == sorted(one) for one in sets.values())  # copies keep their order


def test_nearest_squares() -> None:
    draws = np.random.default_rng(0)
    points, centres = draws.normal(size=(50, 5)), draws.normal(size=(7, 5))
    np.testing.assert_allclose(nearest_squares(points, centres), np.square(cdist(points, centres)).min(axis=1))


def test_a_large_class_is_clustered_in_parts_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    features, away = blobs(2, (300, 200, 500))
    whole = picks(features, clusters=3)
    monkeypatch.setattr(prototypes, "LARGE", 999)
    window = view(features)
    found = kmeans_prototypes(window, 1000, np.random.default_rng(0), clusters=3)
    assert window.notes == ["kmeans-prototypes found the clusters of 1,000 images from random parts of them"]
    assert whole == np.argsort(away).tolist()
    assert len(set(found[:100].tolist()) & set(whole[:100])) > 50
    assert len(set(found[-100:].tolist()) & set(whole[-100:])) > 50


def test_every_class_has_its_own_clusters() -> None:
    features, away = blobs(3)
    signals = Signals.from_arrays(np.concatenate([features, -features]), None, np.repeat([0, 1], 100))
    order = rank(signals, "kmeans-prototypes", counts=[100, 100], clusters=3).order
    assert order[0].tolist() == np.argsort(away).tolist() == (order[1] - 100).tolist()


@pytest.mark.parametrize(("options", "word"), [({"keep": "esay"}, "easy"), ({"clusters": 0}, "clusters must be at least 1")])
def test_mistakes_are_answered(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        picks(np.ones((3, 2), np.float32), **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_features_on_a_gpu() -> None:
    features, _ = blobs(0)
    there = Signals.from_arrays(torch.from_numpy(features).cuda(), None, np.zeros(100, np.int64)).view(0)
    assert kmeans_prototypes(there, 100, np.random.default_rng(0)).tolist() == picks(features)
