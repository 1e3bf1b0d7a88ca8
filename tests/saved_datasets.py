"""Datasets that the package ``datasets`` saved, for the tests of what reads and writes them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import registering
from dqas_adapters import hugging_face
from dqas_plugin import DatasetSplits, ImageDataset, load_dataset

datasets = pytest.importorskip("datasets", reason="the extra huggingface is not installed")

Pixels = npt.NDArray[np.uint8]


def registered() -> Iterator[None]:
    yield from registering.registered(hugging_face, "hugging-face")


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the network fails."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def quiet_saving() -> Iterator[None]:
    """The bars of the package are no part of what is tested."""
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def pixels(count: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Random images, uint8 ``[count, channels, 6, 5]``."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, 6, 5), dtype=np.uint8)


def pictures(images: Pixels) -> list[Image.Image]:
    return [Image.fromarray(one[0] if len(one) == 1 else np.ascontiguousarray(one.transpose(1, 2, 0))) for one in images]


def table(images: Pixels, labels: list[Any], names: list[str] | None = None, **more: list[Any]) -> Any:
    """A ``Dataset`` of the package with the columns image and label."""
    kind = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    columns: dict[str, Any] = {"image": datasets.Image(), "label": kind}
    columns |= {name: datasets.Value("int64") for name in more}
    return datasets.Dataset.from_dict({"image": pictures(images), "label": labels, **more}, features=datasets.Features(columns))


def as_read(images: Any) -> Pixels:
    """PIL images as uint8 ``[N, C, H, W]``."""
    arrays = [np.asarray(one) for one in images]
    return np.stack([one[None] if one.ndim == 2 else one.transpose(2, 0, 1) for one in arrays])


def load(path: Path, **options: Any) -> DatasetSplits:
    return load_dataset(f"hf:{path}", **options)


def resave(path: Path, kind: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the JSON of a split."""
    file = path / kind
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def small(channels: int = 3, **more: Any) -> ImageDataset:
    images = torch.from_numpy(pixels(8, channels))
    return ImageDataset(images, torch.arange(8) % 2, ("left", "right"), "small/train", **more)


def both(tmp_path: Path) -> Path:
    """A training split of three Arrow files and a test split, saved by the package."""
    train, test = (
        table(pixels(9), [0, 1, 2] * 3, ["ant", "bee", "cat"]),
        table(pixels(3, seed=1), [2, 1, 0], ["ant", "bee", "cat"]),
    )
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "both", num_shards={"train": 3, "test": 1})
    return tmp_path / "both"
