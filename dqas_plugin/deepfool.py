"""DeepFool: how far every image is from the nearest decision boundary of a network.

Moosavi-Dezfooli, Fawzi and Frossard, CVPR 2016, algorithm 2: walk to the boundary of the linearised network, again and again,
until the class changes. As in DeepCore the way is measured in normalised pixels, without the paper's overshoot, which only
scales it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dqas_plugin.models import Network
from dqas_plugin.precision import resolve_device

MAX_ITERATIONS = 50
_NUMBERS = 2**23  # of the images of a batch: 32 MB, and a few times that for what the network keeps


def perturbations(
    network: Network,
    images: Tensor,
    *,
    device: torch.device | str | None = None,
    batch: int | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Tensor:
    """Squared length of the way to where the predicted class changes, float32 ``[N]`` on the CPU.

    One forward pass, and one backward pass to the pixels for every class, per iteration and image that has not arrived; most
    arrive after two or three. An image that no change of pixels would move gets the largest number there is; one that has not
    arrived after ``max_iterations`` gets the way it went.

    Args:
        network: it is moved to ``device`` if one is given; its mode and what it learns are restored.
        images: uint8 ``[N, channels, H, W]``.
        device: where to compute; default: where the network is.
        batch: images at a time; default: as many as take about 32 MB.
        max_iterations: of the walk.
    """
    place = network.head.weight.device if device is None else resolve_device(device)
    network.to(place)
    learning = [one for one in network.parameters() if one.requires_grad]
    training = network.training
    network.eval().requires_grad_(False)
    size = batch or max(1, min(1000, _NUMBERS // max(1, images[:1].numel())))
    try:
        parts = [
            _walk(network, images[start : start + size].to(place), max_iterations) for start in range(0, len(images), size)
        ]
        return torch.cat(parts).cpu() if parts else torch.empty(0)
    finally:
        network.train(training)
        for one in learning:
            one.requires_grad_(True)


def _walk(network: Network, images: Tensor, max_iterations: int) -> Tensor:
    """The squared lengths of one batch, float32 ``[B]``."""
    pixels = network.normalise(images)
    with torch.no_grad():
        first = network(pixels).argmax(dim=1)
    way = torch.zeros_like(pixels)
    lengths = torch.zeros(len(images), device=pixels.device)
    open_ = torch.arange(len(images), device=pixels.device)  # images that have not arrived
    for _ in range(max_iterations):
        step, stuck = _step(network, pixels, first)
        way += step
        pixels = pixels + step
        lengths[open_] = torch.where(stuck, torch.finfo(torch.float32).max, way.flatten(1).square().sum(dim=1))
        with torch.no_grad():
            left = (network(pixels).argmax(dim=1) == first) & ~stuck
        pixels, first, way, open_ = pixels[left], first[left], way[left], open_[left]
        if not len(open_):
            break
    return lengths


def _step(network: Network, pixels: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """To the nearest boundary of the linearised network, float32 ``[B, channels, H, W]``; and which images have none."""
    pixels = pixels.detach().requires_grad_(True)
    logits = network(pixels)
    own = logits.gather(1, first[:, None]).squeeze(1)
    (own_slope,) = torch.autograd.grad(own.sum(), pixels, retain_graph=True)
    gaps = (logits - own[:, None]).detach().abs()
    nearest = torch.full_like(own, torch.inf).detach()
    step = torch.zeros_like(own_slope)
    classes = logits.shape[1]
    for label in range(classes):
        (slope,) = torch.autograd.grad(logits[:, label].sum(), pixels, retain_graph=label < classes - 1)
        slope -= own_slope
        norm = slope.flatten(1).norm(dim=1)
        distance = torch.where((norm > 0) & (first != label), gaps[:, label] / norm, torch.inf)
        nearer = distance < nearest
        nearest = torch.where(nearer, distance, nearest)
        scale = torch.where(nearer, distance / norm, 0.0)[:, None, None, None]
        step = torch.where(nearer[:, None, None, None], slope * scale, step)
    return step, nearest.isinf()
