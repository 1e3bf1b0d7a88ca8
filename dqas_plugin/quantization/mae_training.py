"""Training of the small masked autoencoder on the images that it will rebuild, and how well it rebuilds others.

It has its own loop. The project's (``training.py``) trains classifiers by SGD: labels, class prior, augmentation and a linear
head. Here the target is the image itself, every batch needs masks and the harmonic filling of them, and transformers need Adam.
Masks are random, as many patches dropped as later; the loss is the squared error of dropped pixels alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dqas_plugin.cache_entry import cached_entry, entry_key
from dqas_plugin.data import ImageDataset, at_once
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.models import Network, Shape
from dqas_plugin.paths import cache_folder
from dqas_plugin.precision import autocast, resolve, resolve_device
from dqas_plugin.quantization.harmonic import harmonic
from dqas_plugin.quantization.mae import MaskedAutoencoder, patchify, reconstruct, small_mae
from dqas_plugin.quantization.mae_weights import load_mae, save_mae
from dqas_plugin.quantization.patches import dropped_patches, patch_count, pixel_mask
from dqas_plugin.quantization.settings import MAE_STEPS
from dqas_plugin.seeding import derive, torch_generator
from dqas_plugin.training import EpochReport, repeatable

_FORMAT = 1  # of the cache entries; a new number makes all old ones stale
_BATCH = 128
_BLOCK, _BLOCK_NUMBERS = 2048, 2**25  # images whose masks and fillings are made at once; fewer of large ones
_RATE = 1e-3
_WARMUP = 0.1  # share of the steps
_BETAS = (0.9, 0.95)  # He et al., table 8, as is the weight decay
_WEIGHT_DECAY = 0.05
_CLIP = 1.0
_HELD_OUT = 1000  # at most, to judge by
_FILE = "mae.pth"
_REPORTS = 50  # at most so many, but for the last


@dataclass(frozen=True)
class MaeProgress(EpochReport):
    """A report of a training under way. Its loss is the mean squared error of normalised dropped pixels.

    Attributes:
        psnr: of the dropped pixels since the last report, in dB, on images it is trained on.
    """

    psnr: float


OnProgress = Callable[[MaeProgress], None]


def random_masks(count: int, patches: int, drop_rate: float, draws: torch.Generator) -> Tensor:
    """Masks that keep the same number of random patches in every image, bool ``[count, patches]``."""
    dropped = dropped_patches(patches, drop_rate)
    order = torch.rand(count, patches, generator=draws).argsort(1)
    return torch.ones(count, patches, dtype=torch.bool).scatter_(1, order[:, :dropped], False)


def psnr(images: Tensor, rebuilt: Tensor, keep: Tensor) -> float:
    """Peak signal-to-noise ratio of the dropped pixels of all images together, in dB; infinite where nothing differs.

    (The mean over images of each one's own is higher, as smooth images have high ones: by .9 dB on CIFAR-10.)

    Args:
        images: the originals, uint8 ``[N, C, H, W]``.
        rebuilt: the same, rebuilt.
        keep: bool ``[N, P]``.
    """
    _, channels, height, width = images.shape
    dropped = ~pixel_mask(keep, (channels, height, width))
    total = 0
    for start in range(0, len(images), _BLOCK):
        part = slice(start, start + _BLOCK)
        error = (images[part].int() - rebuilt[part].int()).square_().sum(1)
        total += int(error[dropped[part]].sum())
    return decibels(total / max(1, int(dropped.sum()) * channels))


def decibels(squared_error: float) -> float:
    """PSNR of a mean squared error in squared grey levels of 0..255."""
    return 10 * math.log10(255**2 / squared_error) if squared_error > 0 else math.inf


def train_mae(
    images: Tensor,
    patch: int,
    *,
    steps: int = MAE_STEPS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    drop_rate: float = 0.25,
    residual: bool = True,
    precision: str = "auto",
    on_progress: OnProgress | None = None,
) -> MaskedAutoencoder:
    """Train a small autoencoder. The same arguments give the same one on the same CPU and thread count.

    Args:
        images: uint8 ``[N, C, H, W]``, of 8 to 64 pixels.
        patch: side of a patch in pixels.
        steps: optimiser steps of 128 images.
        seed: of initial weights, order and masks.
        device: where to train; the result stays there.
        drop_rate: share of the patches that is dropped.
        residual: whether it corrects the harmonic filling; else it predicts pixels, as published.
        precision: ``fp32``, ``bf16`` or ``auto``.
        on_progress: told of the training now and then.

    Raises:
        UserError: no images, no steps, a patch size or a drop rate that does not fit, a device that is not there.
        DqasError: if the loss stops being finite.
    """
    place = resolve_device(device)
    shape = _checked(images, patch, steps, drop_rate)
    kind = resolve(precision, lambda image, classes: _Probe(image, classes, patch, drop_rate, residual), shape, place)
    with torch.random.fork_rng(devices=[]), repeatable(place):
        torch.default_generator.manual_seed(derive(seed, "mae-weights"))
        mae = small_mae(shape, patch, residual=residual)
        mae.set_normalisation(*_statistics(images))
        _Run(mae.to(place).train(), images, steps, seed, place, kind, drop_rate).finish(on_progress)
    return mae.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class TrainedMae:
    """An autoencoder out of the cache, and whether it is worth its time.

    Attributes:
        mae: in evaluation mode, on the CPU.
        path: its file, which ``load_mae`` reads.
        psnr: of dropped pixels of images held out of its training, in dB.
        harmonic: that of harmonic inpainting on the same images and masks.
        seconds: that training and comparison took, now or earlier.
    """

    mae: MaskedAutoencoder
    path: Path
    psnr: float
    harmonic: float
    seconds: float

    @property
    def wins(self) -> bool:
        """Whether it rebuilds images it has not seen better than harmonic inpainting does."""
        return self.psnr > self.harmonic


def trained_mae(
    data: ImageDataset,
    patch: int,
    *,
    steps: int = MAE_STEPS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    drop_rate: float = 0.25,
    residual: bool = True,
    on_progress: OnProgress | None = None,
) -> TrainedMae:
    """As :func:`train_mae`, kept in the cache under a hash of everything it depends on.

    A tenth of the images, at most 1,000, are held out and rebuilt with random masks, to compare it with harmonic inpainting.

    Raises:
        UserError: what :func:`train_mae` raises, fewer than two images, or a cache that cannot be written.
    """
    kind = resolve_device(device).type
    settings = {"data": data.fingerprint, "patch": patch, "steps": steps, "seed": seed, "drop_rate": drop_rate}
    settings |= {"residual": residual, "device": kind, "torch": torch.__version__, "format": _FORMAT}

    def fill(folder: Path) -> dict[str, Any]:
        started = time.perf_counter()
        seen, unseen = _split(data.images, seed)
        options: dict[str, Any] = {"steps": steps, "seed": seed, "device": device, "drop_rate": drop_rate}
        mae = train_mae(seen, patch, residual=residual, on_progress=on_progress, **options)
        save_mae(mae, folder / _FILE)
        ours, theirs = compare(mae, unseen, drop_rate, seed)
        return {"settings": settings, "psnr": ours, "harmonic": theirs, "seconds": time.perf_counter() - started}

    def read(folder: Path, meta: dict[str, Any]) -> TrainedMae:
        path = folder / _FILE
        return TrainedMae(load_mae(path), path, float(meta["psnr"]), float(meta["harmonic"]), float(meta["seconds"]))

    return cached_entry(cache_folder("mae") / entry_key(settings), f"the autoencoder of {data.name}", fill, read)


def compare(mae: MaskedAutoencoder, images: Tensor, drop_rate: float, seed: int = 0) -> tuple[float, float]:
    """PSNR of dropped pixels, in dB: of the autoencoder and of harmonic inpainting, with the same random masks.

    Args:
        mae: the autoencoder.
        images: uint8 ``[N, C, H, W]``, of its size, not those it was trained on.
        drop_rate: share of the patches that is dropped.
        seed: of the masks.
    """
    keep = random_masks(len(images), mae.shape.patches, drop_rate, torch_generator(seed, "mae-comparison"))
    return psnr(images, reconstruct(mae, images, keep), keep), psnr(images, harmonic(images, keep), keep)


def _split(images: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Images to train on and images to judge by."""
    held = min(_HELD_OUT, len(images) // 10) or 1
    if len(images) < 2:
        raise UserError(f"an autoencoder needs at least 2 images to be trained and judged, not {len(images)}")
    order = torch.randperm(len(images), generator=torch_generator(seed, "mae-held-out"))
    return images[order[held:].sort().values], images[order[:held].sort().values]


def _checked(images: Tensor, patch: int, steps: int, drop_rate: float) -> Shape:
    """The shape of the images, once everything fits."""
    _, channels, height, width = images.shape
    if len(images) == 0:
        raise UserError("an autoencoder cannot be trained without images")
    if steps < 1:
        raise UserError(f"an autoencoder takes at least 1 step of training, not {steps}")
    if dropped_patches(patch_count((channels, height, width), patch), drop_rate) == 0:
        raise UserError(f"a drop rate of {drop_rate:g} drops no patch, so that there is nothing to learn: raise it")
    return channels, height, width


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the channels, as datasets know them."""
    labels = torch.zeros(len(images), dtype=torch.int64)
    return ImageDataset(images, labels, ("",), "images").channel_statistics


@dataclass(eq=False)
class _Run:
    """One training in progress."""

    mae: MaskedAutoencoder
    images: Tensor
    steps: int
    seed: int
    device: torch.device
    precision: str
    drop_rate: float

    def finish(self, on_progress: OnProgress | None) -> None:
        """Make all steps."""
        started = time.perf_counter()
        optimizer = self._optimizer()
        losses: list[Tensor] = []
        scale = float((255 * self.mae.std).square().mean())  # the loss is of normalised pixels
        for step, (pixels, target, keep) in enumerate(self._batches(), start=1):
            for group in optimizer.param_groups:
                group["lr"] = self._rate(step)
            losses.append(self._update(optimizer, pixels, target, keep))
            if step * _REPORTS // self.steps > (step - 1) * _REPORTS // self.steps:
                loss = self._finite(float(torch.stack(losses).mean()), step)
                losses.clear()
                if on_progress is not None:
                    seconds = time.perf_counter() - started
                    on_progress(MaeProgress(step, self.steps, loss, self._rate(step), seconds, decibels(loss * scale)))

    def _optimizer(self) -> torch.optim.AdamW:
        trained = [one for one in self.mae.parameters() if one.requires_grad]
        decays = [one for one in trained if one.ndim == 2]  # matrices; neither biases nor scales nor tokens
        others = [one for one in trained if one.ndim != 2]
        groups = [{"params": decays, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=_RATE, betas=_BETAS, fused=self.device.type in ("cpu", "cuda"))

    def _rate(self, step: int) -> float:
        """A linear rise, then half a cosine."""
        warmup = max(1, round(_WARMUP * self.steps))
        if step <= warmup:
            return _RATE * step / warmup
        return _RATE * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Filled images, originals (both normalised) and masks of every step, on the device."""
        draws = torch_generator(self.seed, "mae")
        patches, made = self.mae.shape.patches, 0
        batch = min(_BATCH, len(self.images))
        block = max(1, at_once(self.images.shape[1:], _BLOCK, _BLOCK_NUMBERS) // batch) * batch
        while True:
            order = torch.randperm(len(self.images), generator=draws)
            order = order[: len(order) // batch * batch]
            for chosen in torch.split(order, block):
                images = self.images[chosen]
                keep = random_masks(len(chosen), patches, self.drop_rate, draws)
                filled = harmonic(images, keep) if self.mae.shape.residual else images
                for parts in zip(*(torch.split(one, batch) for one in (filled, images, keep)), strict=True):
                    first, second, mask = (one.to(self.device) for one in parts)
                    yield self.mae.normalise(first), self.mae.normalise(second), mask
                    made += 1
                    if made == self.steps:
                        return

    def _update(self, optimizer: torch.optim.AdamW, pixels: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        """One optimiser step; the loss, still on the device."""
        with autocast(self.precision, self.device):
            predicted = self.mae(pixels, keep)
        error = (predicted.float() - patchify(target, self.mae.shape.patch)).square().mean(2)
        loss: Tensor = error[~keep].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.mae.parameters(), _CLIP)
        optimizer.step()
        return loss.detach()

    def _finite(self, loss: float, step: int) -> float:
        if not math.isfinite(loss):
            raise DqasError(f"training of the autoencoder diverged by step {step} of {self.steps} (the loss is {loss})")
        return loss


class _Probe(Network):
    """The autoencoder dressed as a classifier, for the probe that finds out whether bf16 pays here."""

    def __init__(self, image_shape: Shape, num_classes: int, patch: int, drop_rate: float, residual: bool) -> None:
        super().__init__(image_shape[0], nn.Linear(patch * patch * image_shape[0], num_classes))
        self.mae = small_mae(image_shape, patch, residual=residual)
        self.drop_rate = drop_rate

    def features(self, x: Tensor) -> Tensor:
        """The mean predicted patch, ``[B, patch * patch * C]``."""
        draws = torch.Generator().manual_seed(0)
        keep = random_masks(len(x), self.mae.shape.patches, self.drop_rate, draws)
        predicted: Tensor = self.mae(x, keep)
        return predicted.mean(1)
