"""Built-in networks. Each is a :class:`Network`: features, then one linear layer, so that every method can read both.

ConvNet-3 is the network of the dataset-distillation literature (Zhao, Mopuri and Bilen, ICLR 2021; Gidaris and Komodakis,
CVPR 2018): three blocks of 3x3 convolution with 128 filters, instance normalisation, ReLU and 2x2 average pooling.
ResNet: He et al., CVPR 2016, with the stem for 32-pixel images of pytorch-cifar (3x3, stride 1, no pooling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.hookspecs import hookimpl

Shape = tuple[int, int, int]

_EPSILON = 1e-5  # the customary one of normalisation layers
_SUMMED_AT_ONCE = 2**21  # numbers: 8 MB in fp32


class Network(nn.Module):
    """Base of every network: ``features(x)`` gives float ``[B, d]`` of float ``[B, C, H, W]``, ``head`` maps them to logits.

    A network also carries the normalisation of its training data (buffers ``mean`` and ``std``, both ``[C]`` in units of
    0..1; 0 and 1 until training sets them), so that it can be applied to uint8 images by itself.

    Args:
        channels: channels of the images.
        head: the last layer, ``d`` features to ``num_classes`` logits.

    Attributes:
        recordable: whether every training step does the same operations, on the device alone: no decisions by numbers that it
            computed, no random numbers but torch's. Such steps are recorded on a GPU, and replayed.
    """

    recordable: ClassVar[bool] = False
    head: nn.Linear
    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, head: nn.Linear) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, float ``[B, d]``, of normalised images, float ``[B, C, H, W]``."""
        raise NotImplementedError(f"{type(self).__name__} must define features()")

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, num_classes]`` of normalised images."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def set_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Remember the statistics of the training data, both ``[C]`` in units of 0..1."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 ``[B, C, H, W]`` as the float32 the network was trained on, ``(images / 255 - mean) / std``, channels last."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        scale = (255.0 * self.std).reciprocal()
        return pixels.mul_(scale[:, None, None]).sub_((self.mean / self.std)[:, None, None])


class ConvNet(Network):
    """Blocks of 3x3 convolution, normalisation, ReLU and 2x2 pooling, then a linear head.

    Args:
        image_shape: (channels, height, width).
        num_classes: outputs.
        widths: filters of each block.
        normalisation: makes the normalisation layer of so many channels.
        pooling: the 2x2 pooling layer. It is left out where it would leave the next block a single pixel, on which
            instance normalisation is 0 whatever the image.
        average: average the last map over its pixels (features are ``[B, widths[-1]]``) rather than flatten it.
    """

    recordable = True

    def __init__(
        self,
        image_shape: Shape,
        num_classes: int,
        widths: tuple[int, ...],
        *,
        normalisation: Callable[[int], nn.Module],
        pooling: Callable[[int], nn.Module],
        average: bool,
    ) -> None:
        channels, height, width = image_shape
        layers: list[nn.Module] = []
        inputs = channels
        for block, filters in enumerate(widths):
            layers += [nn.Conv2d(inputs, filters, 3, padding=1), normalisation(filters), nn.ReLU(inplace=True)]
            inputs = filters
            if min(height, width) >= (2 if block == len(widths) - 1 else 4):
                layers.append(pooling(2))
                height, width = height // 2, width // 2
        if average:
            layers.append(nn.AdaptiveAvgPool2d(1))
            height = width = 1
        super().__init__(channels, nn.Linear(inputs * height * width, num_classes))
        self.body = nn.Sequential(*layers, nn.Flatten())

    def features(self, x: Tensor) -> Tensor:
        """The last map, averaged or flattened."""
        result: Tensor = self.body(x)
        return result


class InstanceNorm(nn.Module):
    """Instance normalisation with scale and shift (Ulyanov et al., arXiv 1607.08022), float ``[B, C, H, W]`` to the same.

    The layers of torch are slow on a CPU when channels come last (2 to 3 times for ConvNet-3 as a whole, in bf16), so there it
    has its own formula; elsewhere it is group normalisation with groups of one channel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Every channel of every image brought to mean 0 and variance 1 over its pixels, then scaled and shifted."""
        if x.device.type != "cpu":
            return functional.group_norm(x, len(self.weight), self.weight, self.bias, _EPSILON)
        result: Tensor = _InstanceNormOnCPU.apply(x, self.weight, self.bias)
        return result


class _InstanceNormOnCPU(torch.autograd.Function):
    """y = weight * (x - mean) / sqrt(variance + epsilon) + bias, written as one scale and one shift per image and channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)  # sums of bf16 are taken in fp32
        size = x.shape[2] * x.shape[3]
        sums, norms = [], []
        for part in _parts(x):
            values = part.to(wide)
            sums.append(values.sum((2, 3), keepdim=True))
            norms.append(torch.linalg.vector_norm(values, dim=(2, 3), keepdim=True))
        mean = torch.cat(sums) / size  # (B, C, 1, 1), as are squares, inverse, scale and shift
        squares = torch.cat(norms).square_() / size
        inverse = (squares - mean * mean).clamp_min_(0).add_(_EPSILON).rsqrt_()
        scale = weight[:, None, None] * inverse
        shift = bias[:, None, None] - mean * scale
        ctx.save_for_backward(x, weight, mean, inverse)
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With z the normalised x: dx = scale * (g - mean(g) - z * mean(g z)), dweight = sum(g z), dbias = sum(g)."""
        x, weight, mean, inverse = ctx.saved_tensors
        wide, size = mean.dtype, x.shape[2] * x.shape[3]
        sums, products = [], []
        for part, other in zip(_parts(gradient), _parts(x), strict=True):
            sums.append(part.sum((2, 3), keepdim=True, dtype=wide))
            products.append((part * other).sum((2, 3), keepdim=True, dtype=wide))
        total = torch.cat(sums)
        along = (torch.cat(products) - mean * total) * inverse  # sum(g z)
        scale = weight[:, None, None] * inverse
        slope = -scale * inverse * along / size
        offset = -scale * total / size - slope * mean
        inner = torch.addcmul(offset.to(x.dtype), x, slope.to(x.dtype))
        return inner.addcmul_(gradient, scale.to(x.dtype)), along.sum((0, 2, 3)), total.sum((0, 2, 3))


@contextmanager
def frozen(network: Network) -> Iterator[None]:
    """Evaluation, without gradients of what the network learns; both are as before afterwards."""
    learning = [one for one in network.parameters() if one.requires_grad]
    training = network.training
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        network.train(training)
        for one in learning:
            one.requires_grad_(True)


def _parts(x: Tensor) -> Iterator[Tensor]:
    """The batch ``x`` a few images at a time, for sums.

    A sum of bf16 in fp32 first makes an fp32 copy. One of the whole batch gets new pages from the system at every step, which
    takes longer than the sum; small ones reuse the same memory.
    """
    images = max(1, _SUMMED_AT_ONCE // math.prod(x.shape[1:]))
    for start in range(0, max(1, len(x)), images):
        yield x[start : start + images]


class ResidualNetwork(Network):
    """A torchvision ResNet with the stem for small images: 3x3 convolution of stride 1, no max pooling."""

    recordable = True

    def __init__(self, depth: int, image_shape: Shape, num_classes: int) -> None:
        import torchvision.models as zoo

        body = {18: zoo.resnet18, 50: zoo.resnet50}[depth](weights=None, num_classes=1)
        super().__init__(image_shape[0], nn.Linear(body.fc.in_features, num_classes))
        body.conv1 = nn.Conv2d(image_shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
        body.maxpool, body.fc = nn.Identity(), nn.Identity()
        self.body = body

    def features(self, x: Tensor) -> Tensor:
        """The last map, averaged over its pixels."""
        result: Tensor = self.body(x)
        return result


class TimmNetwork(Network):
    """Any classifier of timm (https://github.com/huggingface/pytorch-image-models) that ends in one linear layer."""

    def __init__(self, body: Any, channels: int, head: nn.Linear) -> None:
        super().__init__(channels, head)
        self.body = body

    def features(self, x: Tensor) -> Tensor:
        """What timm calls the pre-logits."""
        result: Tensor = self.body.forward_head(self.body.forward_features(x), pre_logits=True)
        return result


def convnet3(image_shape: Shape, num_classes: int) -> Network:
    """ConvNet-3 with 128 filters and instance normalisation; the features are the flattened last map (2,048 at 32 px)."""
    widths = (128, 128, 128)
    return ConvNet(image_shape, num_classes, widths, normalisation=InstanceNorm, pooling=nn.AvgPool2d, average=False)


def convnet3_small(image_shape: Shape, num_classes: int) -> Network:
    """Three blocks of 32, 64 and 128 filters with batch normalisation and max pooling, averaged to 128 features."""
    widths = (32, 64, 128)
    return ConvNet(image_shape, num_classes, widths, normalisation=nn.BatchNorm2d, pooling=nn.MaxPool2d, average=True)


def resnet18(image_shape: Shape, num_classes: int) -> Network:
    """ResNet-18 with the 32-pixel stem, 512 features."""
    return ResidualNetwork(18, image_shape, num_classes)


def resnet50(image_shape: Shape, num_classes: int) -> Network:
    """ResNet-50 with the 32-pixel stem, 2,048 features."""
    return ResidualNetwork(50, image_shape, num_classes)


def timm_network(name: str, image_shape: Shape, num_classes: int) -> Network:
    """The timm model ``name`` with fresh weights.

    Raises:
        UserError: if timm has no model of that name (with the nearest ones), if it does not end in one linear layer, or if
            it cannot take images of this shape.
    """
    body = _timm_body(name, image_shape, num_classes)
    head = body.get_classifier()
    if not isinstance(head, nn.Linear):
        raise UserError(f"model 'timm:{name}' does not end in one linear layer: choose another timm model")
    network = TimmNetwork(body, image_shape[0], head)
    _check_shape(name, network, image_shape)
    return network


def _timm_body(name: str, image_shape: Shape, num_classes: int) -> Any:
    import timm

    architecture = name.partition(".")[0]  # "resnet18.a1_in1k" names pretrained weights, which are not used
    if not timm.is_model(architecture):
        raise unknown_name("timm model", name, timm.list_models())
    channels, height, width = image_shape
    configuration = timm.get_pretrained_cfg(architecture)
    fixed: dict[str, Any] = {"img_size": (height, width)} if configuration and configuration.fixed_input_size else {}
    try:
        return timm.create_model(architecture, pretrained=False, in_chans=channels, num_classes=num_classes, **fixed)
    except (RuntimeError, TypeError, ValueError, AssertionError, ZeroDivisionError) as error:
        raise _unsuitable(name, image_shape) from error


def _check_shape(name: str, network: Network, image_shape: Shape) -> None:
    """Try one black image, so that a model too deep for small images is refused here and not in the middle of a run."""
    network.eval()
    try:
        with torch.no_grad():
            width = network.features(torch.zeros(1, *image_shape)).shape
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        raise _unsuitable(name, image_shape) from error
    network.train()
    if tuple(width) != (1, network.head.in_features):
        raise UserError(f"model 'timm:{name}' has no features in front of a linear layer: choose another timm model")


def _unsuitable(name: str, image_shape: Shape) -> UserError:
    channels, height, width = image_shape
    size = f"{channels}x{height}x{width}"
    return UserError(f"model 'timm:{name}' cannot take images of {size}: choose another model or resize the images")


@hookimpl
def dqas_register_models(register: Callable[..., None]) -> None:
    """The built-in networks."""
    register("convnet3", convnet3, title="ConvNet-3 of the distillation literature: 3 x 128 filters, instance normalisation")
    register("convnet3-small", convnet3_small, title="small and fast, for processors: 32-64-128 filters, batch normalisation")
    register("resnet18", resnet18, title="ResNet-18 with the stem for 32-pixel images")
    register("resnet50", resnet50, title="ResNet-50 with the stem for 32-pixel images")
    register("timm", timm_network, title="any classifier of timm by its name, with fresh weights", takes_name=True)
