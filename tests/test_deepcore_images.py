"""The images, networks and settings of DeepCore's benchmark as ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms

from deepcore_runs import CLASSES, HOMES, STANDIN, Pictures, command_line
from dqas_adapters.deepcore import benchmark, images
from dqas_adapters.deepcore.checkout import Checkout
from dqas_adapters.deepcore.mending import mended_methods
from dqas_adapters.deepcore.networks import Borrowed, device_of, networks_of, recipe_of
from dqas_plugin.errors import UserError
from dqas_plugin.models import Network
from dqas_plugin.plugins import plugins


class Shaped(Pictures):
    """Colour images of random pixels with ``data`` in some layout."""

    def __init__(self, layout: Callable[[Any], Any], transform: Any = None) -> None:
        self.pixels = np.random.default_rng(2).integers(0, 256, (9, 3, 5, 4), dtype=np.uint8)
        self.data = layout(self.pixels)
        self.targets = torch.arange(9) % CLASSES
        self.classes = ["a", "b", "c"]
        usual = [transforms.ToTensor(), transforms.Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])]
        self.transform = transforms.Compose([*usual, *([] if transform is None else [transform])])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(self.pixels[place].transpose(1, 2, 0)), int(self.targets[place])


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "channels last, as CIFAR": lambda pixels: pixels.transpose(0, 2, 3, 1).copy(),
    "channels first, as SVHN": lambda pixels: pixels,
    "none": lambda pixels: None,
    "other images": lambda pixels: 255 - pixels,
    "another number": lambda pixels: pixels[:5],
    "floats": lambda pixels: pixels.astype(np.float32),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_are_those_of_the_training_set(layout: str) -> None:
    dataset = Shaped(LAYOUTS[layout])
    found = images.image_dataset(dataset, "x", mirror=True)
    assert torch.equal(found.images, torch.from_numpy(dataset.pixels))
    assert found.images.is_contiguous()
    assert (found.labels.tolist(), found.classes, found.mirror) == ([0, 1, 2] * 3, ("a", "b", "c"), True)


def test_grey_images_without_a_channel() -> None:
    dataset = Pictures()
    assert torch.equal(images.image_dataset(dataset, "x", mirror=False).images[:, 0], torch.from_numpy(dataset.data))


def test_the_transform_decides_what_the_images_are() -> None:
    """As DeepCore's permuted MNIST, or its Tiny-ImageNet at half the size."""
    dataset = Shaped(LAYOUTS["channels first, as SVHN"], transforms.Lambda(lambda image: image.flip(2)[:, :4]))
    assert torch.equal(
        images.image_dataset(dataset, "x", mirror=True).images, torch.from_numpy(dataset.pixels).flip(3)[:, :, :4]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.arange(8)}, r"'targets' must be one whole number for each of the 9 images, not int64 \(8,\)"),
        ({"targets": torch.full((9,), 3)}, r"'targets' lie outside 0\.\.2, the 3 classes"),
        ({"targets": torch.rand(9)}, r"'targets' must be one whole number"),
        ({"transform": transforms.ToTensor(), "pixels": np.full((9, 3, 5, 4), 7.5, np.float32)}, r"pixels lie in 7\.5\.\.7\.5"),
        (
            {"transform": transforms.ToTensor(), "pixels": np.full((9, 3, 5, 4), np.nan, np.float32)},
            r"pixels lie in nan\.\.nan",
        ),
        ({"transform": lambda pixels: pixels}, r"its images must be tensors \[C, H, W\], not ndarray"),
    ],
)
def test_training_sets_that_cannot_be_used(change: dict[str, Any], message: str) -> None:
    dataset = Shaped(LAYOUTS["none"])
    for name, value in change.items():
        setattr(dataset, name, value)
    with pytest.raises(UserError, match=message):
        images.image_dataset(dataset, "x", mirror=True)


def test_labels_that_contradict_each_other() -> None:
    class Contrary(Shaped):
        def __getitem__(self, place: int) -> tuple[Tensor, int]:
            return super().__getitem__(place)[0], 2

    with pytest.raises(UserError, match="image 0 has the label 2, but 'targets' says 0"):
        images.image_dataset(Contrary(LAYOUTS["none"]), "x", mirror=True)


def test_images_that_do_not_fit_are_refused_before_they_are_read() -> None:
    class ImageNet(Dataset[tuple[Tensor, int]]):
        targets, classes, transform = np.zeros(1_281_167, np.int64), ["a"], None
        read = 0

        def __len__(self) -> int:
            return 1_281_167

        def __getitem__(self, place: int) -> tuple[Tensor, int]:
            self.read += 1
            return torch.zeros(3, 224, 224), 0

    dataset = ImageNet()
    with pytest.raises(UserError, match=r"its images take 179\.6 GiB as 8-bit pixels, more than the 16\.0 GiB"):
        images.image_dataset(dataset, "x", mirror=True)
    assert dataset.read == 3


@pytest.fixture(params=HOMES)
def modules(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The imported methods and networks of a checkout."""
    with benchmark._stand_ins():
        yield Checkout.at(request.param).modules


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_networks_are_those_of_the_checkout(modules: Any, shape: tuple[int, int, int]) -> None:
    names = ["MLP"] if modules.nets.__file__.startswith(str(STANDIN)) else ["MLP", "LeNet", "AlexNet", "VGG11"]
    for name in names:
        with networks_of(modules.nets) as called:
            found = plugins().models["deepcore-network"].function(called(name).partition(":")[2], shape, 10)
        assert isinstance(found, Network)
        found.to("cpu", memory_format=torch.channels_last)
        found.eval()
        x = torch.rand(4, *shape).to(memory_format=torch.channels_last)
        assert torch.equal(found(x), found.body(x.clone(memory_format=torch.contiguous_format)))
        assert found.features(x).shape == (4, found.head.in_features)
        with torch.no_grad():
            assert not found.features(x).requires_grad
        found(x).sum().backward()
        assert all(one.grad is not None for one in found.head.parameters())
    assert "deepcore-network" not in plugins().models


def test_a_network_without_a_linear_end_is_refused() -> None:
    body = nn.Conv2d(1, 2, 1)
    body.get_last_layer = lambda: body  # type: ignore[assignment]
    with pytest.raises(UserError, match="Conv2d ends in a Conv2d, not a linear layer"):
        Borrowed(1, body)


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_that_flatten_with_view(channels: int) -> None:
    """Ours keep channels last, which ``view`` cannot flatten; DeepCore's LeNet, AlexNet and MobileNet do so."""

    class Flattening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(channels, 4, 3), nn.Linear(4 * 36, 3)
            self.embedding_recorder, self.no_grad = SimpleNamespace(embedding=None), False

        def get_last_layer(self) -> nn.Linear:
            return self.last

        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(not self.no_grad):
                self.embedding_recorder.embedding = self.first(x).view(len(x), -1)
                return self.last(self.embedding_recorder.embedding)

    network = Borrowed(channels, Flattening())
    network.to("cpu", memory_format=torch.channels_last)
    pixels = network.normalise(torch.randint(0, 256, (5, channels, 8, 8), dtype=torch.uint8))
    expected = network.head(network.body.first(pixels.contiguous()).reshape(5, -1))
    torch.testing.assert_close(network(pixels), expected)


def test_what_is_cached_belongs_to_the_source_of_the_networks(tmp_path: Path) -> None:
    nets = ModuleType("nets")
    nets.__file__ = str(tmp_path / "__init__.py")
    (tmp_path / "mlp.py").write_text("first")
    with networks_of(nets) as called:
        before = called("MLP")
        assert before.startswith("deepcore-network:MLP@")
        assert before == called("MLP")
        (tmp_path / "mlp.py").write_text("second")
        assert called("MLP") != before


def test_settings_follow_the_command_line() -> None:
    found, note = recipe_of(command_line(dataset="CIFAR10", epochs=7, train_batch=32, lr=0.3, momentum=0.5, nesterov=False))
    assert (found.epochs, found.batch, found.lr, found.momentum, found.nesterov) == (7, 32, 0.3, 0.5, False)
    assert (found.crop, found.flip, found.prior, note) == (True, True, "empirical", None)
    plain_ = recipe_of(command_line(dataset="MNIST", scheduler="StepLR"))
    assert (plain_[0].crop, plain_[0].flip) == (False, False)
    assert plain_[1] == "class counts are measured with a cosine schedule, not with StepLR"
    other, note = recipe_of(command_line(optimizer="Adam"))
    assert (other.iterations, other.prior) == (1000, "empirical")
    assert note == "class counts are measured with SGD (recipe 'fast'), not with Adam"
    assert device_of(command_line(device="cuda", gpu=[2, 3])) == "cuda:2"
    assert device_of(command_line(device="cuda")) == "cuda"
    assert device_of(command_line(gpu=[2])) == "cpu"


def test_addresses_of_weights_are_there_for_the_call(modules: Any) -> None:
    from torchvision.models import ResNet18_Weights, inception, mobilenetv3, resnet, vgg

    owners = (resnet, vgg, inception, mobilenetv3)
    with mended_methods(modules):
        assert all(owner.model_urls["resnet18"] == ResNet18_Weights.IMAGENET1K_V1.url for owner in owners)
        assert {"vgg16_bn", "mobilenet_v3_large", "inception_v3_google", "wide_resnet50_2"} <= set(resnet.model_urls)
    assert not any(hasattr(owner, "model_urls") for owner in owners)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_forgetting_counts_the_same_on_the_cpu(modules: Any) -> None:
    """What it counts is moved to the CPU, for the sake of GPUs."""

    def counted() -> Any:
        method = modules.methods.Forgetting(Pictures(), command_line(selection_lr=0.3), 0.25, 5, epochs=3, balance=True)
        return method.select()

    without = counted()
    with mended_methods(modules):
        found = counted()
    assert torch.equal(without["scores"], found["scores"])
    assert without["scores"].any()
    assert without["indices"].tolist() == found["indices"].tolist()
