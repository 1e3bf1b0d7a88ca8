"""The image half of dataset quantization: which patches of every image are kept, and the images rebuilt from them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.cache_entry import ArrayFile, cached_entry, entry_key, map_array
from dqas_plugin.data import ImageDataset, at_once
from dqas_plugin.datasets.files import file_digest
from dqas_plugin.models import Network
from dqas_plugin.paths import cache_folder
from dqas_plugin.plugins import announce_epoch
from dqas_plugin.quantization.harmonic import harmonic
from dqas_plugin.quantization.informativeness import PatchScores, grad_cam, saliency
from dqas_plugin.quantization.mae import reconstruct
from dqas_plugin.quantization.mae_training import MaeProgress, trained_mae
from dqas_plugin.quantization.mae_weights import load_mae
from dqas_plugin.quantization.patches import kept
from dqas_plugin.quantization.settings import PatchSettings
from dqas_plugin.told import Told

_FORMAT = 1
_CHUNK, _NUMBERS = 2048, 2**25  # images rebuilt at once; fewer of large ones


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """What is left of a dataset, and what it looks like.

    Attributes:
        keep: bool ``[N, P]``.
        data: the rebuilt images, with the labels of the original ones.
        scores: how patches were judged, for people.
        mae: weights file of the autoencoder that rebuilt them, or None.
        seconds: that it took, now or earlier; with the training of the autoencoder, if that was ours.
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
    report: Callable[[str], None] | None = None,
) -> Rebuilt:
    """Drop the least informative patches of every image, and rebuild the images; kept in the cache.

    Args:
        data: the original images.
        settings: see :class:`PatchSettings`.
        network: gives the trained proxy, called only for Grad-CAM that is not in the cache.
        identity: what that network depends on, part of the cache's key.
        device: where to compute.
        report: told what is done.

    Raises:
        UserError: see :meth:`PatchSettings.of`; weights of another shape; a cache that cannot be written.
    """
    settings = settings.of(data.image_shape)
    weights, training = _weights(data, settings, device, report)
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
            step = at_once(data.image_shape, _CHUNK, _NUMBERS)
            for start in range(0, len(data), step):
                rows = slice(start, start + step)
                images, mask = data.images[rows], keep[rows]
                file.write((harmonic(images, mask) if mae is None else reconstruct(mae, images, mask)).cpu().numpy())
                told.done(min(start + step, len(data)), len(data))
        return {"scores": found.method, "seconds": time.perf_counter() - started}

    def read(folder: Path, meta: dict[str, Any]) -> Rebuilt:
        keep, images = map_array(folder / "keep.npy"), map_array(folder / "images.npy")
        if keep.shape[:1] != data.labels.shape or images.shape != data.images.shape:
            raise ValueError("arrays of other shapes than the dataset's")
        found = replace(data, images=images, name=f"{data.name} rebuilt", digest=None)
        return Rebuilt(keep, found, str(meta["scores"]), weights, float(meta["seconds"]) + training)

    return cached_entry(cache_folder("patches") / entry_key(described), f"the patches of {data.name}", fill, read)


def _described(settings: PatchSettings) -> list[Any]:
    """What the result depends on, in values that JSON knows; weights are described by their content."""
    return [str(one) for name, one in asdict(settings).items() if name not in ("mae_weights", "mae_steps")]


def _weights(
    data: ImageDataset, settings: PatchSettings, device: torch.device | str, report: Callable[[str], None] | None
) -> tuple[Path | None, float]:
    """The file of the autoencoder, trained now if there is none, and the seconds of that training, now or earlier.

    One autoencoder serves all seeds, as a released one does.
    """
    if settings.rebuild != "mae":
        return None, 0.0
    if settings.mae_weights is not None:
        load_mae(settings.mae_weights)  # what is mistaken shows before anything is computed
        return settings.mae_weights, 0.0
    assert settings.size is not None
    if report is not None:
        report(f"training a masked autoencoder for {settings.mae_steps:,} steps, if the cache has none")
    told = Told("training the autoencoder", report, "steps")

    def tell(progress: MaeProgress) -> None:
        told.done(progress.step, progress.steps, _quality(progress.psnr))
        announce_epoch(progress)

    rate = max(settings.drop_rate, 0.1)
    found = trained_mae(data, settings.size, steps=settings.mae_steps, device=device, drop_rate=rate, on_progress=tell)
    if report is not None:
        words = "better than" if found.wins else "no better than"
        report(f"the autoencoder rebuilds unseen images {_quality(found.psnr)}, {words} harmonic {_quality(found.harmonic)}")
    return found.path, found.seconds


def _quality(psnr: float) -> str:
    """Of rebuilt pixels; there is no error to measure where all images are one colour."""
    return f"at {psnr:.2f} dB" if math.isfinite(psnr) else "without error"


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
