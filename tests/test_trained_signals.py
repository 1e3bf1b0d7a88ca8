"""The signals of a trained network: the training, and the cache of its outputs."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from dqas_plugin import trained_signals as module
from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.models import Network, convnet3_small
from dqas_plugin.recipes import Recipe
from dqas_plugin.trained_signals import compute_signals
from dqas_plugin.training import EpochReport, outputs

RECIPE = Recipe("tiny", iterations=6, batch=16, lr=0.05, precision="fp32", proxy_epochs=2)


def dataset(seed: int = 0, counts: tuple[int, ...] = (12, 9, 0, 15)) -> ImageDataset:
    draws = np.random.default_rng(seed)
    labels = draws.permutation(np.repeat(np.arange(len(counts)), counts))
    images = (draws.integers(0, 100, (len(labels), 1, 8, 8)) + 40 * labels[:, None, None, None]).astype(np.uint8)
    names = tuple(f"class {one}" for one in range(len(counts)))
    return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), names, "toy", mirror=False)


class Counting:
    """Builds the small ConvNet and counts how often."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self, shape: tuple[int, int, int], classes: int) -> Network:
        self.built += 1
        return convnet3_small(shape, classes)


class TestComputed:
    def test_they_are_what_the_network_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, networks = dataset(), []

        def spy(*arguments: Any, **options: Any) -> Any:
            result = train(*arguments, **options)
            networks.append((arguments[1:3], result))
            return result

        train = module.train
        monkeypatch.setattr(module, "train", spy)
        found = compute_signals(data, "small", convnet3_small, RECIPE, 3)
        (((trained, recipe), result),) = networks
        assert trained is data
        assert (recipe.epochs, recipe.iterations) == (2, None)
        features, logits = (torch.cat(one) for one in zip(*outputs(result.network, data), strict=True))
        assert found.features is not None
        assert found.logits is not None
        assert torch.equal(found.features, features)
        assert torch.equal(found.logits, logits)
        assert found.labels is data.labels
        assert found.images is data.images
        hit = (logits.argmax(dim=1) == data.labels).numpy()
        expected = [None if label == 2 else pytest.approx(hit[data.labels.numpy() == label].mean()) for label in range(4)]
        assert found.proxy["accuracy"] == expected
        assert found.proxy["seconds"] > 0

    def test_training_happens_once(self) -> None:
        build, reports = Counting(), list[EpochReport]()
        first = compute_signals(dataset(), "small", build, RECIPE, 0, on_epoch=reports.append)
        seen = len(reports)
        again = compute_signals(dataset(), "small", build, RECIPE.with_(name="other name"), 0, on_epoch=reports.append)
        assert (build.built, len(reports)) == (1, seen)
        assert seen > 0
        assert first.features is not None
        assert again.features is not None
        assert torch.equal(first.features, again.features)
        assert first.proxy == again.proxy

    def test_whatever_matters_makes_another_entry(self) -> None:
        build = Counting()
        data = dataset()
        calls: list[dict[str, Any]] = [
            {},
            {"data": dataset(1)},
            {"model": "other"},
            {"recipe": RECIPE.with_(lr=0.04)},
            {"seed": 1},
            {"trained_on": np.arange(20)},
            {"trained_on": np.arange(21)},
        ]
        for change in calls:
            given: dict[str, Any] = {"data": data, "model": "small", "build": build, "recipe": RECIPE, "seed": 0, **change}
            compute_signals(**given)
            compute_signals(**given)
        assert build.built == len(calls)

    def test_only_some_images_are_trained_on_but_all_are_described(self) -> None:
        data = dataset()
        chosen = np.flatnonzero(data.labels.numpy() == 0)
        found = compute_signals(data, "small", convnet3_small, RECIPE.with_(iterations=40), 0, trained_on=chosen)
        assert len(found) == len(data)
        assert found.proxy["accuracy"] == [1.0, None, None, None]
        assert found.proxy["steps"] == 40  # the recipe itself, not its short form

    def test_they_are_mapped_and_no_write_reaches_the_file(self, own_cache: Path) -> None:
        found = compute_signals(dataset(), "small", convnet3_small, RECIPE, 0)
        (path,) = own_cache.glob("signals/*/features.npy")
        before = path.read_bytes()
        assert found.features is not None
        found.features.fill_(7)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("damage", ["features.npy", "logits.npy", "meta.json", "pickle", "shape"])
    def test_a_damaged_entry_is_computed_again(self, own_cache: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
        build = Counting()
        first = compute_signals(dataset(), "small", build, RECIPE, 0)
        assert first.features is not None
        expected = first.features.clone()
        (folder,) = (one.parent for one in own_cache.glob("signals/*/features.npy"))
        self.break_(folder, damage)
        with caplog.at_level(logging.WARNING):
            again = compute_signals(dataset(), "small", build, RECIPE, 0)
        assert build.built == 2
        assert again.features is not None
        assert torch.equal(again.features, expected)
        assert "damaged" in caplog.text

    def break_(self, folder: Path, damage: str) -> None:
        features = folder / "features.npy"
        if damage == "pickle":
            np.save(features, np.array([{}]), allow_pickle=True)
        elif damage == "shape":
            np.save(features, np.zeros((3, 3), np.float32))
        else:
            (folder / damage).write_bytes((folder / damage).read_bytes()[:-1])
            return
        meta = json.loads((folder / "meta.json").read_text())
        meta["lengths"]["features.npy"] = features.stat().st_size
        (folder / "meta.json").write_text(json.dumps(meta))

    def test_a_stop_half_way_leaves_nothing(self, own_cache: Path) -> None:
        def stop(report: EpochReport) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, on_epoch=stop)
        assert [one for one in (own_cache / "signals").iterdir() if one.is_dir()] == []

    def test_only_one_of_many_trains(self) -> None:
        build, data, barrier = Counting(), dataset(), Barrier(3)

        def call(_: int) -> int:
            barrier.wait(timeout=30)
            return len(compute_signals(data, "small", build, RECIPE, 0))

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(call, range(3))) == [36] * 3
        assert build.built == 1

    def test_a_network_of_nonsense_is_reported(self, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "outputs", lambda *_, **__: iter([(torch.full((36, 128), torch.nan), torch.zeros(36, 4))]))
        with pytest.raises(DqasError, match="not finite"):
            compute_signals(dataset(), "small", convnet3_small, RECIPE, 0)
        assert list(own_cache.glob("signals/*/features.npy")) == []

    def test_a_device_that_is_not_there(self) -> None:
        with pytest.raises(UserError, match="cuda:99"):
            compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, device="cuda:99")
