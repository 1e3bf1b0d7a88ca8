"""DeepFool: how far every image is from the nearest decision boundary of a network.

Moosavi-Dezfooli, Fawzi and Frossard, CVPR 2016, algorithm 2: walk to the boundary of the linearised network, again and again,
until the class changes. As in DeepCore the way is measured in normalised pixels, without the paper's overshoot, which only
scales it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dqas_plugin.errors import UserError
from dqas_plugin.models import Network, frozen
from dqas_plugin.precision import autocast, resolve_device
from dqas_plugin.told import Told
from dqas_plugin.training import repeatable

MAX_ITERATIONS = 50
_FARTHEST = torch.finfo(torch.float32).max
_ARRIVED = 1e-6  # a step of this share of the way so far is the rounding of a boundary that is reached
_NUMBERS = 2**23  # of the images of a batch: 32 MB, and a few times that for what the network keeps
_BATCH = {"cpu": 128, "cuda": 1000}  # at most; on a CPU, what a network keeps of more images leaves the caches


def perturbations(
    network: Network,
    images: Tensor,
    *,
    device: torch.device | str | None = None,
    batch: int | None = None,
    max_iterations: int = MAX_ITERATIONS,
    candidates: int | None = None,
    precision: str = "fp32",
    report: Callable[[str], None] | None = None,
) -> Tensor:
    """Squared length of the way to where the predicted class changes, float32 ``[N]`` on the CPU.

    One forward pass, and one backward pass to the pixels for every other class, per iteration and image that has not arrived;
    most arrive after two or three. Without the overshoot some end on the boundary itself, where rounding decides the class and
    steps are as small as it: they have arrived too. An image that no change of pixels would move gets the largest number
    there is; one that has not arrived after ``max_iterations`` gets the way it went.

    Args:
        network: it is moved to ``device`` if one is given; its mode and what it learns are restored.
        images: uint8 ``[N, channels, H, W]``.
        device: where to compute; default: where the network is.
        batch: images at a time; default: 128 (1,000 on a GPU), fewer of large ones.
        max_iterations: of the walk.
        candidates: how many classes are looked at, those of the highest logits at the start, the predicted one among them (10
            in the program of the authors); None: all, as in DeepCore, which takes 100 times as long for 1,000 classes.
        precision: ``fp32`` or ``bf16``.
        report: told now and then how many images are done.

    Raises:
        UserError: a batch or iterations below 1, candidates below 2, or a device that is not there.
    """
    for option, value, least in (("batch", batch, 1), ("max_iterations", max_iterations, 1), ("candidates", candidates, 2)):
        if value is not None and value < least:
            raise UserError(f"{option} of DeepFool must be at least {least}, not {value}")
    place = network.head.weight.device if device is None else resolve_device(device)
    network.to(place)
    size = batch or max(1, min(_BATCH.get(place.type, 128), _NUMBERS // max(1, images[:1].numel())))
    told = Told("DeepFool", report)
    walk = _Walk(network, max_iterations, candidates, precision)
    with frozen(network), repeatable(place):
        parts = []
        for start in range(0, len(images), size):
            parts.append(walk(images[start : start + size].to(place)).cpu())
            told.done(min(start + size, len(images)), len(images))
    return torch.cat(parts) if parts else torch.empty(0)


class _Walk:
    """The walk of a batch of images; ``[B]`` below are those that have not arrived."""

    def __init__(self, network: Network, max_iterations: int, candidates: int | None, precision: str) -> None:
        self.network, self.max_iterations, self.candidates, self.precision = network, max_iterations, candidates, precision

    def __call__(self, images: Tensor) -> Tensor:
        """The squared lengths, float32."""
        pixels = self.network.normalise(images)
        first, others = self._classes(pixels)
        way = torch.zeros_like(pixels)
        lengths = torch.zeros(len(images), dtype=torch.float64, device=pixels.device)
        open_ = torch.arange(len(images), device=pixels.device)
        for _ in range(self.max_iterations):
            step, stuck = self._step(pixels, first, others)
            way, pixels = way + step, pixels + step
            walked = _length(way)
            lengths[open_] = torch.where(stuck, _FARTHEST, walked.square())
            going = ~stuck & (_length(step) > _ARRIVED * walked)
            with torch.no_grad():
                going &= self._logits(pixels).argmax(dim=1) == first
            pixels, first, others, way, open_ = (one[going] for one in (pixels, first, others, way, open_))
            if not len(open_):
                break
        return lengths.nan_to_num(_FARTHEST).clamp_max(_FARTHEST).float()

    def _logits(self, pixels: Tensor) -> Tensor:
        with autocast(self.precision, pixels.device):
            logits: Tensor = self.network(pixels)
        return logits.float()

    def _classes(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The predicted class, int64 ``[B]``, and the others that are looked at, ascending, int64 ``[B, K]``."""
        with torch.no_grad():
            logits = self._logits(pixels)
        first = logits.argmax(dim=1)
        count = logits.shape[1] - 1 if self.candidates is None else min(self.candidates, logits.shape[1]) - 1
        masked = logits.scatter(1, first[:, None], -torch.inf)
        return first, masked.topk(count, dim=1).indices.sort(dim=1).values

    def _step(self, pixels: Tensor, first: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """To the nearest boundary of the linearised network, ``[B, channels, H, W]``; and which images have none, ``[B]``."""
        pixels = pixels.detach().requires_grad_(True)
        logits = self._logits(pixels)
        gaps = logits.gather(1, others) - logits.gather(1, first[:, None])
        nearest = torch.full((len(pixels),), torch.inf, dtype=torch.float64, device=pixels.device)
        step = torch.zeros_like(pixels, requires_grad=False)
        last = others.shape[1] - 1
        for rank in range(last + 1):
            (slope,) = torch.autograd.grad(gaps[:, rank].sum(), pixels, retain_graph=rank < last)
            norm = _length(slope)
            distance = torch.where(norm > 0, gaps[:, rank].detach().double().abs() / norm, torch.inf)
            nearer = distance < nearest
            nearest = torch.where(nearer, distance, nearest)
            scale = (distance / norm)[:, None, None, None]
            step = torch.where(nearer[:, None, None, None], (slope * scale).float(), step)
        return step, nearest.isinf() | ~step.isfinite().flatten(1).all(dim=1)


def _length(values: Tensor) -> Tensor:
    """Length of each image's part, float64 ``[B]``: in float32 a small one would be lost."""
    lengths: Tensor = torch.linalg.vector_norm(values, dim=(1, 2, 3), dtype=torch.float64)
    return lengths
