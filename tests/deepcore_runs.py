"""What the tests around DeepCore's benchmark share: checkouts, a small training set, files."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from dqas_adapters.deepcore.checkout import HOME
from dqas_plugin.data import ImageDataset

STANDIN = Path(__file__).parent / "deepcore_standin"
REAL = os.environ.get(HOME)
ABSENT = pytest.mark.skipif(not REAL, reason=f"{HOME} names no checkout of the real DeepCore")
HOMES = [pytest.param(STANDIN, id="stand-in"), pytest.param(Path(REAL or ".").resolve(), id="real", marks=ABSENT)]
"""The folders with main.py that tests run on."""

CLASSES, SIZE = 3, 24


class Pictures(Dataset[tuple[Tensor, int]]):
    """Digits of three classes as torchvision keeps grey images: an array ``data`` and a transform."""

    def __init__(self, size: int = SIZE) -> None:
        found = load_digits(n_class=CLASSES)
        rows = np.sort(np.concatenate([np.flatnonzero(found.target == label)[:size] for label in range(CLASSES)]))
        self.data = np.round(found.images[rows] * (255 / 16)).astype(np.uint8)
        self.targets = torch.from_numpy(found.target[rows].astype(np.int64))
        self.classes = ["zero", "one", "two"]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.3], [0.4])])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(self.data[place]), int(self.targets[place])


def command_line(**changes: Any) -> SimpleNamespace:
    """What the benchmark's argument parser gives, as far as methods and adapter read it."""
    training = {"optimizer": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True, "batch": 16}
    given = {"dataset": "Digits", "model": "MLP", "channel": 1, "im_size": (8, 8), "num_classes": CLASSES}
    given |= {"device": "cpu", "gpu": None, "workers": 0, "print_freq": 1000, "epochs": 3, "train_batch": 16}
    given |= {"scheduler": "CosineAnnealingLR", **training, **{f"selection_{key}": value for key, value in training.items()}}
    return SimpleNamespace(**{**given, "selection_test_interval": 0, "selection_test_fraction": 1.0, **changes})


def training_images() -> ImageDataset:
    """The training images of the benchmark's small dataset."""
    found = load_digits()
    pixels = np.round(found.images[:400] * (255 / 16)).astype(np.uint8)
    names = tuple(map(str, range(10)))
    return ImageDataset(
        torch.from_numpy(pixels)[:, None], torch.from_numpy(found.target[:400].astype(np.int64)), names, "digits"
    )


def checkpoint(
    folder: Path, name: str = "CIFAR10_ResNet18_Herding_exp2_epoch200_2021-08-01 12:00:00.000000_0.1_unknown", **c: Any
) -> Path:
    """A file as ``main.py`` writes it with only the subset; ``c`` changes its contents."""
    state = {
        "exp": 2,
        "subset": {"indices": np.array([3, 0, 7])},
        "sel_args": {"epochs": 40, "balance": True, "greedy": "Lazy"},
    }
    torch.save({**state, **c}, folder / f"{name}.ckpt")
    return folder / f"{name}.ckpt"


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.mark}",))
