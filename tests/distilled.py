"""Distilled sets as their programs write them, by the same calls of ``torch.save``; and files that nobody should believe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Pixels = npt.NDArray[np.uint8]

CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def pictures(per_class: int, classes: int = 3, channels: int = 3, size: int = 8, seed: int = 0) -> tuple[Pixels, Tensor]:
    """Images of the full range in class order, uint8 ``[N, C, H, H]``, and int64 labels."""
    draws = np.random.default_rng(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    return draws.integers(0, 256, (len(labels), channels, size, size), dtype=np.uint8), labels


def normalised(pixels: Pixels, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """As ``ToTensor`` and ``Normalize`` do it, one channel after the other."""
    values = pixels.astype(np.float64) / 255
    for channel, (one, other) in enumerate(zip(mean, deviation, strict=True)):
        values[:, channel] = (values[:, channel] - one) / other
    return torch.from_numpy(values.astype(np.float32))


def plain(pixels: Pixels) -> Tensor:
    """Values in 0..1."""
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def save_dc(path: Path, *runs: tuple[Tensor, Any]) -> Path:
    """As DC and DM save: every run, and accuracies that NumPy computed."""
    accuracies = {"ConvNet": [np.float64(0.25)] * len(runs)}
    torch.save({"data": [[images, labels] for images, labels in runs], "accs_all_exps": accuracies}, path)
    return path


def save_dream(path: Path, images: Tensor, labels: Any) -> Path:
    """As DREAM saves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save([images, labels], path)
    return path


def save_mtt(folder: Path, images: Tensor, labels: Any, rate: Any = None, end: str = "_best") -> Path:
    """As MTT saves; with a learning rate, as DATM."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(images, folder / f"images{end}.pt")
    torch.save(labels, folder / f"labels{end}.pt")
    if rate is not None:
        torch.save(rate, folder / f"lr{end}.pt")
    return folder


class Hostile:
    """Unpickled without care, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return (_leave, (str(self.mark),))


def _leave(mark: str) -> None:
    Path(mark).touch()


def enormous(*shape: int) -> Tensor:
    """One number that claims to be many."""
    return torch.zeros(1).expand(*shape)
