"""Tar files for streaming: the package ``webdataset`` itself reads back every pixel that was written."""

from __future__ import annotations

import gc
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import registering
from dqas_adapters import webdataset as adapter
from dqas_plugin import DatasetSplits, ImageDataset, Selection, UserError, load_dataset
from dqas_plugin.data import TrainOnly
from dqas_plugin.exporting import export
from dqas_plugin.plugins import Plugins

package = pytest.importorskip("webdataset", reason="the extra webdataset is not installed")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    yield from registering.registered(adapter, "webdataset")


def small(channels: int = 3, count: int = 8, **more: Any) -> ImageDataset:
    draws = np.random.default_rng(channels)
    images = torch.from_numpy(draws.integers(0, 256, (count, channels, 6, 5), dtype=np.uint8))
    return ImageDataset(images, torch.arange(count) % 2, ("left", "right"), "small/train", **more)


def samples(folder: Path, split: str) -> list[dict[str, Any]]:
    """What the package reads, in the order of the files; images as arrays of 0..255."""
    urls = [str(one) for one in sorted(folder.glob(f"{split}-*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the package leaves closing the files to the collector
        found = list(package.WebDataset(urls, shardshuffle=False).decode("rgb8"))
        gc.collect()
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_the_package_reads_every_pixel_back(tmp_path: Path, channels: int) -> None:
    splits = DatasetSplits(small(channels), small(channels, count=4))
    written = export("webdataset", splits, None, tmp_path / "out", shard=3)
    names = [one.name for one in written]
    assert names == ["dqas.json", *(f"test-00000{one}.tar" for one in (0, 1)), *(f"train-00000{one}.tar" for one in (0, 1, 2))]
    for split, ours in (("train", splits.train), ("test", splits.test)):
        found = samples(tmp_path / "out", split)
        assert sorted(one["json"]["index"] for one in found) == list(range(len(ours)))
        for one in found:
            index = one["json"]["index"]
            pixels = np.broadcast_to(ours.images[index].numpy().transpose(1, 2, 0), (6, 5, 3))  # grey is decoded as RGB
            assert np.array_equal(one["png"], pixels)
            assert one["cls"] == one["json"]["label"] == int(ours.labels[index])
            assert one["json"]["class"] == ours.classes[one["cls"]]
    record = json.loads((tmp_path / "out" / "dqas.json").read_text())
    assert record["train"] == {"images": 8, "shards": names[3:]}
    assert record["classes"] == ["left", "right"]


def test_a_selection_comes_in_random_order_with_its_weights(tmp_path: Path) -> None:
    splits = load_dataset("digits")
    labels = splits.train.labels.numpy()
    indices = np.concatenate([np.flatnonzero(labels == label)[[3, 1]] for label in range(10)])
    chosen = Selection(indices, np.full(10, 2), np.linspace(0.5, 2, 20).astype(np.float32))
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        export("webdataset", splits, chosen, tmp_path / name, seed=seed)
    found = samples(tmp_path / "one", "train")
    order = [one["json"]["index"] for one in found]
    assert order != indices.tolist()
    assert sorted(order) == sorted(indices.tolist())
    weights = dict(zip(indices.tolist(), chosen.weights.tolist(), strict=True))  # type: ignore[union-attr]
    assert {one["json"]["index"]: one["json"]["weight"] for one in found} == weights
    first = (tmp_path / "one" / "train-000000.tar").read_bytes()
    assert first == (tmp_path / "same" / "train-000000.tar").read_bytes()
    assert first != (tmp_path / "other" / "train-000000.tar").read_bytes()
    assert "weight" not in samples(tmp_path / "one", "test")[0]["json"]
    assert Selection.load(tmp_path / "one" / "selection.npz", splits.train).indices.tolist() == indices.tolist()


def test_a_set_without_a_test_split_and_with_soft_labels(tmp_path: Path) -> None:
    targets = torch.tensor([[0.25, 0.75]] * 8)
    export("webdataset", TrainOnly(small(targets=targets)), None, tmp_path / "out")
    assert not list((tmp_path / "out").glob("test*"))
    assert all(one["json"]["targets"] == [0.25, 0.75] for one in samples(tmp_path / "out", "train"))
    assert "test" not in json.loads((tmp_path / "out" / "dqas.json").read_text())


@pytest.mark.parametrize(
    ("channels", "options", "words"),
    [
        (4, {}, r"images of 4 channels: only grey \(1\) and RGB \(3\)"),
        (3, {"shard": 0}, "shard of the exporter 'webdataset' must be at least 1, not 0"),
        (3, {"shards": 2}, "did you mean 'shard'"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, channels: int, options: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        export("webdataset", TrainOnly(small(channels)), None, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(UserError, match=r'needs the package webdataset: pip install "dqas\[webdataset\]"'):
        export("webdataset", TrainOnly(small()), None, tmp_path / "out")


def test_it_works_from_the_command_line(tmp_path: Path) -> None:
    from dqas_cli.main import cli

    call = ["select", "--method", "random", "--aipc", "3", "--format", "webdataset", "--format-option", "shard=20"]
    done = CliRunner().invoke(cli, [*call, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out").glob("train-*.tar"))) == 2
    assert len(samples(tmp_path / "out", "train")) == 30


def test_plugin_brings_an_exporter() -> None:
    host = Plugins(strangers=False)
    host.register(adapter, "webdataset")
    assert next(one for one in host.overview() if one.name == "webdataset").brings == {"exporters": ("webdataset",)}
    assert host.problems == []
