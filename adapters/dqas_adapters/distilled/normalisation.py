"""The constants that programs for dataset distillation subtract and divide by before they optimise images.

Read from their sources. They disagree on CIFAR-100: DatasetCondensation (DC, DSA, DM) and DC-BENCH use its own statistics, all
that came after trajectory matching (MTT, DATM, DD-Ranking; DREAM too) those of CIFAR-10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

NormalisationName = Literal[
    "auto", "none", "cifar10", "cifar100", "svhn", "mnist", "fashion-mnist", "tiny-imagenet", "imagenet"
]

UNMIRRORED = frozenset({"mnist", "svhn"})
"""Datasets of digits: mirrored they are something else."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of every channel, for values in 0..1."""

    name: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return len(self.mean)

    def apply(self, values: Tensor) -> Tensor:
        """``(values - mean) / deviation``, float32 ``[B, C, H, W]``."""
        mean, deviation = self._constants()
        return (values - mean) / deviation

    def undo(self, values: Tensor) -> Tensor:
        """``values * deviation + mean``, float32 ``[B, C, H, W]``."""
        mean, deviation = self._constants()
        return values * deviation + mean

    def __str__(self) -> str:
        mean, deviation = (", ".join(f"{one:g}" for one in row) for row in (self.mean, self.deviation))
        return f"{self.name} (mean {mean}; deviation {deviation})"

    def _constants(self) -> tuple[Tensor, Tensor]:
        mean, deviation = (torch.tensor(one, dtype=torch.float32).view(1, -1, 1, 1) for one in (self.mean, self.deviation))
        return mean, deviation


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_COMMON = {
    "cifar10": _CIFAR10,
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2861,), (0.3530,)),
    "tiny-imagenet": _IMAGENET,
    "imagenet": _IMAGENET,
}
_OWN_CIFAR100 = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))

CONDENSATION = {name: Normalisation(name, *one) for name, one in (_COMMON | {"cifar100": _OWN_CIFAR100}).items()}
"""As in VICO-UoE/DatasetCondensation (utils.py, ``get_dataset``) and justincui03/dc_benchmark."""

TRAJECTORIES = {name: Normalisation(name, *one) for name, one in (_COMMON | {"cifar100": _CIFAR10}).items()}
"""As in GeorgeCazenavette/mtt-distillation, NUS-HPC-AI-Lab/DATM and DD-Ranking, and lyq312318224/DREAM."""
