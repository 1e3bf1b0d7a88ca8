"""What is kept of an image, as data: :class:`PatchSettings` says it, :mod:`dqas_plugin.quantization.rebuilding` does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dqas_plugin.errors import UserError, unknown_name

if TYPE_CHECKING:
    from dqas_plugin.models import Shape

USUAL_BINS = {"dq": "original", "dqas": "reconstructed"}
"""Whose features the bins of our own methods are made of."""

MAE_STEPS = 1000
"""Optimiser steps of an autoencoder by default: some minutes on one core for images of 32 pixels."""

SCORES = ("grad-cam", "saliency")
REBUILDS = ("harmonic", "mae")
BINS_ON = ("reconstructed", "original")


@dataclass(frozen=True)
class PatchSettings:
    """Which patches are dropped, and how images are rebuilt.

    Attributes:
        drop_rate: share of the patches of every image, 0 up to but not including 1; DQ and DQAS drop a quarter.
        size: pixels a side of a patch; None: by the size of the images.
        scores: ``grad-cam`` of the proxy, as DQ, or ``saliency``, which needs no network.
        rebuild: a masked autoencoder (``mae``), trained on these images unless there are weights, or ``harmonic`` inpainting.
        mae_weights: its file.
        mae_steps: of its training.
    """

    drop_rate: float = 0.25
    size: int | None = None
    scores: str = "grad-cam"
    rebuild: str = "mae"
    mae_weights: Path | None = None
    mae_steps: int = MAE_STEPS

    def of(self, shape: Shape) -> PatchSettings:
        """With the size that images of this shape get.

        Raises:
            UserError: for a size that does not divide them, a drop rate out of range, another word, or weights without ``mae``.
        """
        if self.scores not in SCORES:
            raise unknown_name("patch score", self.scores, SCORES)
        if self.rebuild not in REBUILDS:
            raise unknown_name("way to rebuild images", self.rebuild, REBUILDS)
        if self.mae_weights is not None and self.rebuild != "mae":
            raise UserError("weights of an autoencoder are of use with rebuild 'mae' only: choose it, or leave them out")
        from dqas_plugin.quantization.patches import default_patch_size, dropped_patches, patch_count  # which imports torch

        size = default_patch_size(*shape[1:]) if self.size is None else self.size
        dropped_patches(patch_count(shape, size), self.drop_rate)
        return replace(self, size=size)

    def patches(self, shape: Shape) -> int:
        """How many an image has."""
        from dqas_plugin.quantization.patches import patch_count

        size = self.of(shape).size
        assert size is not None
        return patch_count(shape, size)

    def keep_ratio(self, shape: Shape) -> float:
        """Share of the patches that is kept; of ``round(P * drop_rate)`` dropped ones."""
        from dqas_plugin.quantization.patches import keep_ratio

        return keep_ratio(self.patches(shape), self.drop_rate)
