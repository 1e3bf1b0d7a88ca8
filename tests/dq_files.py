"""Files of DQ for tests, and small data that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import registering
from dqas_adapters import dq
from dqas_plugin import UserError
from dqas_plugin.data import ImageDataset


def registered() -> Iterator[None]:
    yield from registering.registered(dq, "dq")


def labelled(labels: Any, name: str = "toy/train") -> ImageDataset:
    """Images of one pixel."""
    labels = np.asarray(labels, dtype=np.int64)
    images = (torch.arange(len(labels)) % 251).to(torch.uint8)[:, None, None, None]
    return ImageDataset(images, torch.from_numpy(labels), tuple(f"class {one}" for one in range(labels.max() + 1)), name)


def shuffled_labels(classes: int, per_class: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), per_class))


def even_bins(labels: np.ndarray, count: int, seed: int = 0) -> list[np.ndarray]:
    """Bins such as DQ's: the same share of every class in each, one class after the other."""
    draws = np.random.default_rng(seed)
    parts = [np.array_split(draws.permutation(np.flatnonzero(labels == label)), count) for label in range(labels.max() + 1)]
    return [np.concatenate([np.sort(part[number]) for part in parts]) for number in range(count)]


def save_bins(folder: Path, bins: list[np.ndarray], dataset: str = "CIFAR10") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(bins):
        np.save(folder / f"select_indices_{dataset}_exp{number}.npy", one)
    return folder


def saved(path: Path, values: Any) -> Path:
    np.save(path, np.asarray(values))
    return path


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)
