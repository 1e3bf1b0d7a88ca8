"""How networks are trained here: what a refiner needs that trains some of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy.typing as npt
import torch

from dqas_plugin.data import ImageDataset
from dqas_plugin.precision import Build
from dqas_plugin.recipes import Recipe


@dataclass(frozen=True, eq=False)
class Trainer:
    """The arguments of every training of a selection.

    Attributes:
        data: all images, those of the signals that it comes with.
        build: makes the network.
        recipe: how it is trained.
        seed: of the selection.
        device: where to train.
        report: told what is done.
    """

    data: ImageDataset
    build: Build
    recipe: Recipe
    seed: int
    device: torch.device | str = "cpu"
    report: Callable[[str], None] | None = None

    def subset(self, indices: npt.ArrayLike) -> Trainer:
        """The same for these images only."""
        return replace(self, data=self.data.subset(indices))
