"""The image half of dataset quantization: which patches of every image are kept, and the images rebuilt from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.cache_entry import ArrayFile, cached_entry, entry_key, map_array
from dqas_plugin.data import ImageDataset
from dqas_plugin.datasets.files import file_digest
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.models import Network, Shape
from dqas_plugin.paths import cache_folder
from dqas_plugin.plugins import announce_epoch
from dqas_plugin.quantization.harmonic import harmonic
from dqas_plugin.quantization.informativeness import PatchScores, grad_cam, saliency
from dqas_plugin.quantization.mae import reconstruct
from dqas_plugin.quantization.mae_training import STEPS, MaeProgress, trained_mae
from dqas_plugin.quantization.mae_weights import load_mae
from dqas_plugin.quantization.patches import default_patch_size, dropped_patches, keep_ratio, kept, patch_count
from dqas_plugin.told import Told

_FORMAT = 1
_CHUNK = 2048  # images rebuilt at once
SCORES = ("grad-cam", "saliency")
REBUILDS = ("harmonic", "mae")


@dataclass(frozen=True)
class PatchSettings:
    """Which patches are dropped, and how images are rebuilt.

    Attributes:
        drop_rate: share of the patches of every image, 0 up to but not including 1; DQ and DQAS drop a quarter.
        size: pixels a side of a patch; None: by the size of the images.
        scores: ``grad-cam`` of the proxy, as DQ, or ``saliency``, which needs no network.
        rebuild: ``harmonic`` inpainting, or a masked autoencoder (``mae``), trained on these images unless there are weights.
        mae_weights: its file.
        mae_steps: of its training.
    """

    drop_rate: float = 0.25
    size: int | None = None
    scores: str = "grad-cam"
    rebuild: str = "harmonic"
    mae_weights: Path | None = None
    mae_steps: int = STEPS

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
        size = default_patch_size(*shape[1:]) if self.size is None else self.size
        dropped_patches(patch_count(shape, size), self.drop_rate)
        return replace(self, size=size)

    def patches(self, shape: Shape) -> int:
        """How many an image has."""
        size = self.of(shape).size
        assert size is not None
        return patch_count(shape, size)

    def keep_ratio(self, shape: Shape) -> float:
        """Share of the patches that is kept; of ``round(P * drop_rate)`` dropped ones."""
        return keep_ratio(self.patches(shape), self.drop_rate)


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What is left of a dataset, and what it looks like.

    Attributes:
        keep: bool ``[N, P]``.
        data: the rebuilt images, with the labels of the original ones.
        scores: how patches were judged, for people.
        mae: weights file of the autoencoder that rebuilt them, or None.
        seconds: that it took, now or earlier.
    """

    keep: Tensor
    data: ImageDataset
    scores: str
    mae: Path | None
    seconds: float


def rebuilt_dataset(
    data: ImageDataset,
    settings: PatchSettings,
    network: Callable[[], Network],
    *,
    identity: str,
    device: torch.device | str = "cpu",
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> Rebuilt:
    """Drop the least informative patches of every image, and rebuild the images; kept in the cache.

    Args:
        data: the original images.
        settings: see :class:`PatchSettings`.
        network: gives the trained proxy, called only for Grad-CAM that is not in the cache.
        identity: what that network depends on, part of the cache's key.
        device: where to compute.
        seed: of the autoencoder's training.
        report: told what is done.

    Raises:
        UserError: see :meth:`PatchSettings.of`; weights of another shape; a cache that cannot be written.
    """
    settings = settings.of(data.image_shape)
    weights = _weights(data, settings, device, seed, report)
    described = [_FORMAT, data.fingerprint, *_described(settings), identity if settings.scores == "grad-cam" else ""]
    described.append("" if weights is None else file_digest(weights))

    def fill(folder: Path) -> dict[str, Any]:
        started = time.perf_counter()
        found = _scores(data, settings, network, device, report)
        keep = kept(found.scores, settings.drop_rate)
        with ArrayFile(folder / "keep.npy", tuple(keep.shape), np.bool_) as file:
            file.write(keep.numpy())
        mae = None if weights is None else load_mae(weights).to(device)
        told = Told("rebuilt images", report)
        with ArrayFile(folder / "images.npy", tuple(data.images.shape), np.uint8) as file:
            for start in range(0, len(data), _CHUNK):
                rows = slice(start, start + _CHUNK)
                images, mask = data.images[rows], keep[rows]
                file.write((harmonic(images, mask) if mae is None else reconstruct(mae, images, mask)).cpu().numpy())
                told.done(min(start + _CHUNK, len(data)), len(data))
        return {"scores": found.method, "seconds": time.perf_counter() - started}

    def read(folder: Path, meta: dict[str, Any]) -> Rebuilt:
        keep, images = map_array(folder / "keep.npy"), map_array(folder / "images.npy")
        if keep.shape[:1] != data.labels.shape or images.shape != data.images.shape:
            raise ValueError("arrays of other shapes than the dataset's")
        found = replace(data, images=images, name=f"{data.name} rebuilt", digest=None)
        return Rebuilt(keep, found, str(meta["scores"]), weights, float(meta["seconds"]))

    return cached_entry(cache_folder("patches") / entry_key(described), f"the patches of {data.name}", fill, read)


def _described(settings: PatchSettings) -> list[Any]:
    """What the result depends on, in values that JSON knows; weights are described by their content."""
    return [str(one) for name, one in asdict(settings).items() if name not in ("mae_weights", "mae_steps")]


def _weights(
    data: ImageDataset, settings: PatchSettings, device: torch.device | str, seed: int, report: Callable[[str], None] | None
) -> Path | None:
    """The file of the autoencoder, trained now if there is none."""
    if settings.rebuild != "mae":
        return None
    if settings.mae_weights is not None:
        load_mae(settings.mae_weights)  # what is mistaken shows before anything is computed
        return settings.mae_weights
    assert settings.size is not None
    if report is not None:
        report(f"training a masked autoencoder for {settings.mae_steps:,} steps, if the cache has none")
    told = Told("training the autoencoder", report, "steps")

    def tell(progress: MaeProgress) -> None:
        told.done(progress.step, progress.steps, f"{progress.psnr:.2f} dB")
        announce_epoch(progress)

    rate = max(settings.drop_rate, 0.1)
    found = trained_mae(
        data, settings.size, steps=settings.mae_steps, seed=seed, device=device, drop_rate=rate, on_progress=tell
    )
    if report is not None:
        words = "better than" if found.wins else "no better than"
        report(f"the autoencoder rebuilds unseen images at {found.psnr:.2f} dB, {words} harmonic at {found.harmonic:.2f} dB")
    return found.path


def _scores(
    data: ImageDataset,
    settings: PatchSettings,
    network: Callable[[], Network],
    device: torch.device | str,
    report: Callable[[str], None] | None,
) -> PatchScores:
    assert settings.size is not None
    if settings.scores == "saliency":
        return saliency(data.images, settings.size)
    trained = network()
    if report is not None:
        report("judging patches by Grad-CAM")
    return grad_cam(trained, data.images, data.labels, settings.size, device=device)
