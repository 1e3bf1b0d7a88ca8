"""Built-in networks: sizes that others published, shapes, and the one hand-written layer against torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dqas_plugin import models
from dqas_plugin.errors import UserError
from dqas_plugin.models import InstanceNorm, Network, Shape

BUILDERS = [models.convnet3, models.convnet3_small, models.resnet18]


def parameters(network: nn.Module) -> int:
    return sum(one.numel() for one in network.parameters())


def random_images(count: int, shape: Shape) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("build", "published"),
    [
        (models.resnet18, 11_173_962),  # pytorch-cifar
        (models.resnet50, 23_520_842),  # pytorch-cifar
        (models.convnet3, 320_010),  # the distillation literature
    ],
)
def test_parameter_counts(build: Any, published: int) -> None:
    assert parameters(build((3, 32, 32), 10)) == published


@pytest.mark.parametrize("build", [*BUILDERS, models.resnet50])
def test_head_of_features_is_forward(build: Any) -> None:
    network = build((3, 16, 16), 7).eval()
    with torch.no_grad():
        images = random_images(2, (3, 16, 16))
        features = network.features(images)
        by_hand = features @ network.head.weight.T + network.head.bias
        torch.testing.assert_close(network(images), by_hand)
    assert features.shape == (2, network.head.in_features)
    assert by_hand.shape == (2, 7)


@pytest.mark.parametrize("build", [models.convnet3, models.convnet3_small])
@pytest.mark.parametrize("side", [3, 5, 7, 8, 9, 16, 28, 33, 64])
def test_convnets_take_any_size_and_see_the_image(build: Any, side: int) -> None:
    """An instance norm over one pixel would make the features the same for all images."""
    network = build((1, side, side + 2), 3)
    features = network.features(random_images(2, (1, side, side + 2)))
    assert features.shape == (2, network.head.in_features)
    assert not torch.allclose(features[0], features[1])


@pytest.mark.parametrize(("side", "features"), [(8, 128), (16, 512), (32, 2048), (64, 8192)])
def test_convnet3_features_are_the_flattened_map(side: int, features: int) -> None:
    assert models.convnet3((3, side, side), 10).head.in_features == features


@pytest.mark.parametrize("at_once", [1, 2 * 5 * 6 * 4, models._SUMMED_AT_ONCE])
def test_instance_norm_is_torchs(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(models, "_SUMMED_AT_ONCE", at_once)  # one image, two of three, all of them
    layer = InstanceNorm(5).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = (random_images(3, (5, 6, 4)).double() * 3 + 2).to(memory_format=torch.channels_last).requires_grad_()
    theirs = functional.instance_norm(x, weight=layer.weight, bias=layer.bias)
    torch.testing.assert_close(layer(x), theirs)
    direction = random_images(3, (5, 6, 4)).flip(1).double()
    inputs = [x, layer.weight, layer.bias]
    for ours, expected in zip(
        torch.autograd.grad((layer(x) * direction).sum(), inputs),
        torch.autograd.grad((theirs * direction).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected)


def test_instance_norm_in_bf16_stays_near_fp32() -> None:
    layer = InstanceNorm(8)
    x = random_images(4, (8, 16, 16)) + 5  # a mean well above the deviation is where sums of squares lose digits
    exact = functional.instance_norm(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert float((rough.detach().float() - exact).abs().mean()) < 0.02


def test_normalise_is_the_definition() -> None:
    network = models.convnet3_small((3, 8, 8), 2)
    mean, std = torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.1, 0.25, 0.3])
    network.set_normalisation(mean, std)
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    expected = torch.stack([(images[:, c] / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    result = network.normalise(images)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert {"mean", "std"} <= set(network.state_dict())


def test_base_names_the_class_that_forgot_features() -> None:
    class Mine(Network):
        pass

    with pytest.raises(NotImplementedError, match="Mine must define features"):
        Mine(1, nn.Linear(2, 2)).features(torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet10t", (3, 32, 32)), ("vit_tiny_patch16_224", (1, 32, 48)), ("resnet18.a1_in1k", (3, 32, 32))]
)
def test_timm(name: str, shape: Shape) -> None:
    network = models.timm_network(name, shape, 6)
    network.eval()
    images = random_images(2, shape)
    with torch.no_grad():
        torch.testing.assert_close(network.head(network.features(images)), network.body(images))
        torch.testing.assert_close(network(images), network.body(images))
    assert network.head.out_features == 6
    assert len(list(network.parameters())) == len(list(network.body.parameters()))  # the head is counted once


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet81", (3, 32, 32), "unknown timm model 'resnet81': did you mean 'resnet"),
        ("levit_128s", (3, 224, 224), "does not end in one linear layer"),
        ("deit_tiny_distilled_patch16_224", (3, 32, 32), "does not end in one linear layer"),
        ("inception_v3", (3, 16, 16), "cannot take images of 3x16x16"),
    ],
)
def test_timm_errors(name: str, shape: Shape, message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.timm_network(name, shape, 5)


def test_all_are_registered() -> None:
    registered: dict[str, Any] = {}

    def register(name: str, build: Any, title: str = "", takes_name: bool = False) -> None:
        assert title
        registered[name] = (build, takes_name)

    models.dqas_register_models(register)
    assert set(registered) == {"convnet3", "convnet3-small", "resnet18", "resnet50", "timm"}
    assert [name for name, (_, takes_name) in registered.items() if takes_name] == ["timm"]
    assert registered["convnet3-small"][0]((1, 8, 8), 3)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
