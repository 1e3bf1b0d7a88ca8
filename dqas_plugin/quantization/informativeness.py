"""How informative every patch of an image is: higher scores stay.

``grad_cam`` asks a trained network (Selvaraju et al., ICCV 2017): the channels of its last feature map are summed, each
weighted by the mean gradient of the logit of the label. ``saliency`` asks nobody: where the pixels change most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dqas_plugin.errors import UserError
from dqas_plugin.models import Network, frozen
from dqas_plugin.precision import autocast, resolve_device
from dqas_plugin.quantization.patches import patch_count
from dqas_plugin.training import repeatable

_NUMBERS = 2**20  # of the images of a batch on a CPU: what a network keeps of more leaves the caches
_BATCH = {"cpu": 256, "cuda": 1000}  # at most
_BELOW_ZERO = 1e-3  # of what speaks against the label: enough to order patches of which nothing speaks for it


class PatchScores(NamedTuple):
    """What a rule says of patches.

    Attributes:
        scores: float32 ``[N, P]``, higher is more informative; comparable within an image.
        method: how they came about, for people: ``Grad-CAM at body.8, 4x4`` …
    """

    scores: Tensor
    method: str


def saliency(images: Tensor, size: int) -> PatchScores:
    """Mean squared difference of neighbouring pixels in every patch, over both directions and all channels.

    The difference of a pixel and the next one counts half for each, so that a patch of one grey beside an edge counts too.

    Args:
        images: uint8 ``[N, C, H, W]``.
        size: pixels a side of a patch.

    Raises:
        UserError: ``size`` does not divide the images.
    """
    _check(images, size)
    step = max(1, _NUMBERS // max(1, images[:1].numel()))
    parts = [_energy(images[start : start + step].float(), size) for start in range(0, len(images), step)]
    scores = torch.cat(parts) if parts else _none(images, size)
    return PatchScores(scores, "mean squared difference of neighbouring pixels")


def grad_cam(
    network: Network,
    images: Tensor,
    labels: Tensor,
    size: int,
    *,
    device: torch.device | str | None = None,
    batch: int | None = None,
    precision: str = "fp32",
) -> PatchScores:
    """Mean of the class-activation map of the label in every patch, float32 ``[N, P]`` on the CPU.

    The map is that of the last layer whose output has pixels, before pooling, enlarged bilinearly to the image. As in Grad-CAM
    what speaks against the label counts as nothing, except that a thousandth of it is left to order patches that would all be
    0. A network without such a map (a transformer of tokens, a perceptron) is asked for the gradient of the logit by
    the pixels instead (Simonyan et al., 2014), summed over channels by magnitude; ``method`` then says so.

    Args:
        network: trained; it is moved to ``device`` if one is given; its mode and what it learns are restored.
        images: uint8 ``[N, C, H, W]``.
        labels: int64 ``[N]``.
        size: pixels a side of a patch.
        device: where to compute; default: where the network is.
        batch: images at a time.
        precision: ``fp32`` or ``bf16``.

    Raises:
        UserError: ``size`` does not divide the images, a batch below 1, labels that do not fit, or a device that is not there.
    """
    _check(images, size)
    if batch is not None and batch < 1:
        raise UserError(f"batch of Grad-CAM must be at least 1, not {batch}")
    if labels.shape != images.shape[:1]:
        raise UserError(f"{len(images)} images need as many labels, not {len(labels)}")
    if len(images) == 0:
        return PatchScores(_none(images, size), "no images")
    place = network.head.weight.device if device is None else resolve_device(device)
    network.to(place)
    step = batch or max(1, min(_BATCH.get(place.type, 256), _NUMBERS // images[0].numel()))
    with frozen(network), repeatable(place):
        layer = _last_map(network, images[:2].to(place))
        rule: Callable[[Tensor, Tensor], Tensor]
        if layer is None:
            rule, method = _InputGradient(network, precision), "gradient by the pixels: the network has no map for Grad-CAM"
        else:
            rule = _ClassActivation(network, layer, precision)
            method = f"Grad-CAM at {layer.name}, {layer.height}x{layer.width}"
        parts = []
        for start in range(0, len(images), step):
            some, wanted = (one[start : start + step].to(place) for one in (images, labels))
            parts.append(_patch_means(rule(some, wanted), size).cpu())
    return PatchScores(torch.cat(parts), method)


class _Layer(NamedTuple):
    """The layer whose map is read."""

    name: str
    module: nn.Module
    height: int
    width: int
    channels_last: bool


class _ClassActivation:
    """Grad-CAM of a batch: float32 ``[B, H, W]``."""

    def __init__(self, network: Network, layer: _Layer, precision: str) -> None:
        self.network, self.layer, self.precision = network, layer, precision

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def start_here(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            # The graph begins at the map: nothing in front of it is kept. Of a layer used twice the last map counts.
            seen[:] = [output.detach().requires_grad_(True)]
            return seen[0].clone()  # what follows may change it in place

        handle = self.layer.module.register_forward_hook(start_here)
        try:
            total = _label_logits(self.network, self.network.normalise(images), labels, self.precision)
        finally:
            handle.remove()
        (slope,) = torch.autograd.grad(total, seen[0])
        activation = _channels_first(seen[0].detach(), self.layer).float()
        weights = _channels_first(slope, self.layer).float().mean(dim=(2, 3), keepdim=True)
        found = functional.leaky_relu((activation * weights).sum(dim=1, keepdim=True), _BELOW_ZERO)
        return functional.interpolate(found, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


class _InputGradient:
    """Magnitude of the gradient by the pixels: float32 ``[B, H, W]``."""

    def __init__(self, network: Network, precision: str) -> None:
        self.network, self.precision = network, precision

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        pixels = self.network.normalise(images).requires_grad_(True)
        (slope,) = torch.autograd.grad(_label_logits(self.network, pixels, labels, self.precision), pixels)
        return slope.float().abs().sum(dim=1)


def _label_logits(network: Network, pixels: Tensor, labels: Tensor, precision: str) -> Tensor:
    """Sum over the batch: images do not see each other, so its gradient holds that of every image."""
    with torch.enable_grad(), autocast(precision, pixels.device):
        logits: Tensor = network(pixels)
    if int(labels.max()) >= logits.shape[1]:
        raise UserError(f"label {int(labels.max())} is not among the {logits.shape[1]} classes of the network")
    return logits.float().gather(1, labels[:, None]).sum()


def _channels_first(values: Tensor, layer: _Layer) -> Tensor:
    return values.movedim(3, 1) if layer.channels_last else values


def _last_map(network: Network, images: Tensor) -> _Layer | None:
    """The layer that is last to put out a map through which all of the network goes, pooling apart.

    None if there is none, or if the network goes on with tokens behind it.
    """
    found: list[_Layer] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or len(output) != len(images):
                return
            if output.ndim == 3 and output.shape[1] > 1:
                found.clear()
            elif output.ndim == 4 and not _pools(module) and (layer := _layer(name, module, output, network)):
                found.append(layer)

        return hook

    handles = [
        one.register_forward_hook(look(name)) for name, one in network.named_modules() if name and one is not network.head
    ]
    try:
        with torch.no_grad():
            network(network.normalise(images))
    finally:
        for handle in handles:
            handle.remove()
    return next((one for one in reversed(found) if _carries_all(network, images, one.module)), None)


def _carries_all(network: Network, images: Tensor, module: nn.Module) -> bool:
    """Whether every way from the pixels to the logits leads through the layer, unlike the inside of a residual block."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: output.detach())
    try:
        with torch.enable_grad():
            logits: Tensor = network(network.normalise(images).requires_grad_(True))
    finally:
        handle.remove()
    return not logits.requires_grad


def _layer(name: str, module: nn.Module, output: Tensor, network: Network) -> _Layer | None:
    width = network.head.in_features
    channels_last = output.shape[3] == width != output.shape[1]
    height, across = output.shape[1:3] if channels_last else output.shape[2:4]
    return _Layer(name, module, int(height), int(across), channels_last) if height * across > 1 else None


def _pools(module: nn.Module) -> bool:
    return "pool" in type(module).__name__.lower()


def _energy(pixels: Tensor, size: int) -> Tensor:
    energy = torch.zeros_like(pixels[:, 0])
    for axis in (2, 3):
        length = pixels.shape[axis]
        step = pixels.diff(dim=axis).square_().sum(dim=1).mul_(0.5)
        energy.narrow(axis - 1, 0, length - 1).add_(step)
        energy.narrow(axis - 1, 1, length - 1).add_(step)
    return _patch_means(energy, size).cpu()


def _patch_means(values: Tensor, size: int) -> Tensor:
    """Means of ``[B, H, W]`` over patches, ``[B, P]``."""
    return functional.avg_pool2d(values[:, None], size).flatten(1)


def _check(images: Tensor, size: int) -> None:
    channels, height, width = images.shape[1:]
    patch_count((channels, height, width), size)


def _none(images: Tensor, size: int) -> Tensor:
    return torch.empty(0, math.prod(images.shape[2:]) // size**2)
