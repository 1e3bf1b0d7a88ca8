"""The signals of a trained network: the training, and the cache of its outputs."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from dqas_plugin import cache_entry
from dqas_plugin import trained_signals as module
from dqas_plugin.data import ImageDataset
from dqas_plugin.deepfool import perturbations
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.models import Network, convnet3_small
from dqas_plugin.recipes import Recipe
from dqas_plugin.seeding import derive
from dqas_plugin.signals import Signals
from dqas_plugin.trained_signals import compute_signals
from dqas_plugin.training import EpochReport, outputs, train

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

    @pytest.mark.parametrize(
        "damage", ["features.npy", "logits.npy", "margins.npy", "network.pt", "meta.json", "pickle", "shape"]
    )
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
        cache_entry._write_checksums(folder)

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


class TestCourse:
    @pytest.mark.parametrize("rows", [1, 20, 4096])
    def test_it_is_margin_and_error_of_what_was_said_in_training(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        """Three batches of an epoch, one or several worked out at once, against each sample's own logits in float64."""
        monkeypatch.setattr(module, "_ROWS", rows)
        data, steps = dataset(), list[tuple[Any, Any]]()
        found = compute_signals(data, "small", convnet3_small, RECIPE, 3)
        train(
            convnet3_small,
            data,
            RECIPE.for_proxy(),
            derive(3, "proxy"),
            record=lambda positions, logits: steps.append((positions.tolist(), logits.double().numpy().copy())),
        )
        assert len(steps) == 6
        margins, errors = (np.full((36, 2), np.nan) for _ in range(2))
        for step, (positions, logits) in enumerate(steps):
            for position, row in zip(positions, logits, strict=True):
                label = int(data.labels[position])
                wide = np.exp(row - row.max())
                margins[position, step // 3] = row[label] - np.delete(row, label).max()
                errors[position, step // 3] = np.linalg.norm(wide / wide.sum() - np.eye(4)[label])
        assert found.margins is not None
        assert found.errors is not None
        assert found.margins.dtype == found.errors.dtype == torch.float32
        np.testing.assert_allclose(found.margins.numpy(), margins, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.errors.numpy(), errors, rtol=1e-6)
        again = compute_signals(data, "small", convnet3_small, RECIPE, 3)
        assert again.margins is not None
        assert torch.equal(again.margins, found.margins)

    def test_none_of_a_training_on_some(self) -> None:
        found = compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, trained_on=np.arange(20))
        assert (found.margins, found.errors) == (None, None)

    def test_methods_read_it(self) -> None:
        found = compute_signals(dataset(), "small", convnet3_small, RECIPE, 0)
        assert found.view(1).margins.shape == found.view(1).errors.shape == (9, 2)

    def test_a_single_class_has_finite_margins(self) -> None:
        found = compute_signals(dataset(counts=(20,)), "small", convnet3_small, RECIPE, 0)
        assert found.margins is not None
        assert found.margins.isfinite().all()


NEEDS = frozenset({"perturbations"})


class TestPerturbations:
    def test_they_are_deepfools_of_the_trained_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, networks = dataset(), list[Network]()

        def spy(*arguments: Any, **options: Any) -> Any:
            networks.append((result := train(*arguments, **options)).network)
            return result

        monkeypatch.setattr(module, "train", spy)
        found = compute_signals(data, "small", convnet3_small, RECIPE, 0, needs=NEEDS)
        assert found.perturbations is not None
        assert torch.equal(found.perturbations, perturbations(networks[0], data.images))
        assert len(networks) == 1

    def test_only_when_needed_and_only_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data, build, counted = dataset(), Counting(), list[int]()

        def count(network: Network, images: torch.Tensor, **options: Any) -> torch.Tensor:
            counted.append(len(images))
            return perturbations(network, images, **options)

        monkeypatch.setattr(module, "perturbations", count)
        plain = compute_signals(data, "small", build, RECIPE, 0, needs=frozenset({"features", "dynamics"}))
        assert plain.perturbations is None
        assert counted == []
        torch.manual_seed(5)
        before = torch.get_rng_state()
        first = compute_signals(data, "small", build, RECIPE, 0, needs=NEEDS)
        assert torch.equal(torch.get_rng_state(), before)  # the network is built again, the training is not made again
        again = compute_signals(data, "small", build, RECIPE, 0, needs=NEEDS)
        other = compute_signals(data, "small", build, RECIPE, 1, needs=NEEDS)
        assert counted == [36, 36]
        assert first.proxy["seconds"] == again.proxy["seconds"] > plain.proxy["seconds"]
        assert torch.equal(first.perturbations, again.perturbations)  # type: ignore[arg-type]
        assert not torch.equal(first.perturbations, other.perturbations)  # type: ignore[arg-type]

    @pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 cut off"])
    def test_a_network_that_cannot_be_read_is_named(self, own_cache: Path, content: bytes) -> None:
        compute_signals(dataset(), "small", convnet3_small, RECIPE, 0)
        (path,) = own_cache.glob("signals/*/network.pt")
        path.write_bytes(content)
        cache_entry._write_checksums(path.parent)  # as if it had been written so
        with pytest.raises(UserError, match=r"network\.pt cannot be read back: delete its folder"):
            compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, needs=NEEDS)
        assert list(own_cache.glob("perturbations/*/values.npy")) == []

    def test_a_damaged_network_is_trained_again(self, own_cache: Path) -> None:
        first = compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, needs=NEEDS).perturbations
        (path,) = own_cache.glob("signals/*/network.pt")
        content = path.read_bytes()
        path.write_bytes(content[:5000] + bytes(64) + content[5064:])  # zeros in the middle of the weights
        shutil.rmtree(own_cache / "perturbations")
        again = compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, needs=NEEDS).perturbations
        assert torch.equal(first, again)  # type: ignore[arg-type]

    def test_a_damaged_entry_is_computed_again(self, own_cache: Path) -> None:
        first = compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, needs=NEEDS).perturbations
        assert first is not None
        expected = first.clone()
        (path,) = own_cache.glob("perturbations/*/values.npy")
        np.save(path, np.zeros(3, np.float32))
        cache_entry._write_checksums(path.parent)
        again = compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, needs=NEEDS).perturbations
        assert again is not None
        assert torch.equal(again, expected)


class TestRuns:
    def test_they_are_trainings_with_other_seeds_each_kept_by_itself(self) -> None:
        data, build = dataset(), Counting()
        found = compute_signals(data, "small", build, RECIPE, 0, repeat=3)
        assert (build.built, len(found.runs)) == (3, 2)
        alone = [compute_signals(data, "small", build, RECIPE, seed) for seed in (0, *(derive(0, "repeat", i) for i in (1, 2)))]
        assert build.built == 3
        assert all(same_outputs(one, two) for one, two in zip((found, *found.runs), alone, strict=True))
        assert not any(same_outputs(found, one) for one in found.runs)
        assert not same_outputs(*found.runs)
        assert found.proxy["seconds"] == pytest.approx(sum(one.proxy["seconds"] for one in alone))
        assert [len(one) for one in found.view(0).runs] == [12] * 3
        assert len(compute_signals(data, "small", build, RECIPE, 0, repeat=2).runs) == 1
        assert build.built == 3

    def test_at_least_one(self) -> None:
        with pytest.raises(UserError, match="at least one training"):
            compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, repeat=0)


def same_outputs(first: Signals, second: Signals) -> bool:
    assert first.features is not None
    assert first.logits is not None
    assert second.features is not None
    assert second.logits is not None
    return torch.equal(first.features, second.features) and torch.equal(first.logits, second.logits)
