"""Patches, which of them are dropped, how informative they are, and the picture of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.models import ConvNet, Network, convnet3, convnet3_small, resnet18, timm_network
from dqas_plugin.quantization import patches as module
from dqas_plugin.quantization.contact_sheet import contact_sheet
from dqas_plugin.quantization.informativeness import grad_cam, saliency
from dqas_plugin.quantization.patches import PatchedImages, from_patches, kept, pixel_mask, to_patches

Shape = tuple[int, int, int]


def pictures(count: int = 6, shape: Shape = (3, 8, 12), seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8))


# Arithmetic


@pytest.mark.parametrize(
    ("height", "size"),
    [(8, 2), (16, 2), (28, 4), (32, 4), (64, 8), (96, 8), (128, 16), (224, 16), (512, 16), (27, 3), (7, 1), (1, 1)],
)
def test_default_patch_size(height: int, size: int) -> None:
    assert module.default_patch_size(height) == size
    assert height % size == 0


def test_default_patch_size_divides_both_sides() -> None:
    assert module.default_patch_size(32, 48) == 4
    assert module.default_patch_size(32, 34) == 2
    assert module.default_patch_size(32, 31) == 1
    assert module.default_patch_size(45, 60) == 3


@given(st.integers(1, 400), st.floats(0, 1, exclude_max=True))
def test_ratios(patches: int, rate: float) -> None:
    if round(patches * rate) == patches:
        with pytest.raises(UserError, match=f"leaves none of {patches} patches"):
            module.keep_ratio(patches, rate)
        return
    held = kept(torch.rand(2, patches), rate).sum(dim=1)
    assert held.tolist() == [patches - round(patches * rate)] * 2
    assert module.keep_ratio(patches, rate) == int(held[0]) / patches


@pytest.mark.parametrize("rate", [-0.1, 1.0, 25.0, float("nan")])
def test_drop_rates_out_of_range(rate: float) -> None:
    with pytest.raises(UserError, match="at least 0 and below 1, not"):
        kept(torch.rand(2, 4), rate)


def test_the_line_of_ratios() -> None:
    line = module.describe_ratio(0.125, 64, 0.25)
    assert line == "sample ratio 12.5 % × patch keep ratio 75 % = data keep ratio 9.375 %"
    assert "× patch keep ratio 100 % = data keep ratio 10 %" in module.describe_ratio(0.1, 64, 0)
    assert "patch keep ratio 75.5102 %" in module.describe_ratio(0.1, 49, 0.25)  # what is kept, not what was asked for


# Cutting up and putting together


@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_patches_come_back(count: int, channels: int, rows: int, columns: int, size: int) -> None:
    shape = (channels, rows * size, columns * size)
    images = pictures(count, shape)
    cut = to_patches(images, size)
    assert cut.shape == (count, rows * columns, channels, size, size)
    assert torch.equal(from_patches(cut, shape), images)
    assert module.patch_count(shape, size) == rows * columns
    assert module.patch_size(shape, rows * columns) == size


def test_order_of_patches() -> None:
    images = pictures()
    cut = to_patches(images, 4)
    assert torch.equal(cut[:, 0], images[:, :, :4, :4])
    assert torch.equal(cut[:, 1], images[:, :, :4, 4:8])
    assert torch.equal(cut[:, 5], images[:, :, 4:, 8:])


def test_pixel_mask() -> None:
    keep = kept(torch.rand(5, 6), 0.5)
    cut = to_patches(pixel_mask(keep, (3, 8, 12))[:, None], 4)
    assert torch.equal(cut, keep[:, :, None, None, None].expand_as(cut))


def test_sizes_that_do_not_fit() -> None:
    images = pictures()
    with pytest.raises(UserError, match=r"patches of 3 pixels do not divide images of 8x12: choose one of 1, 2, 4$"):
        to_patches(images, 3)
    with pytest.raises(UserError, match="at least 1 pixel wide, not 0"):
        to_patches(images, 0)
    with pytest.raises(UserError, match="6 patches of 3x4x4 do not make an image of 3x12x12"):
        from_patches(to_patches(images, 4), (3, 12, 12))
    for patches in (0, 5, 7, 23):
        with pytest.raises(UserError, match=f"do not consist of {patches} square patches"):
            module.patch_size((3, 8, 12), patches)


# Dropping


def test_the_lowest_are_dropped() -> None:
    scores = torch.from_numpy(np.random.default_rng(3).permutation(8 * 20).reshape(8, 20).astype(np.float32))
    keep = kept(scores, 0.25)
    for row, held in zip(scores.tolist(), keep.tolist(), strict=True):
        assert sorted(row)[:5] == sorted(one for one, stays in zip(row, held, strict=True) if not stays)


def test_ties_go_at_the_lowest_position_and_nan_first() -> None:
    assert kept(torch.zeros(1, 4), 0.5).tolist() == [[False, False, True, True]]
    assert kept(torch.tensor([[2.0, 1, 1, 1, 3]]), 0.4).tolist() == [[True, False, False, True, True]]
    assert kept(torch.tensor([[0.0, -5, torch.nan, 7]]), 0.25).tolist() == [[True, True, False, True]]
    assert kept(torch.rand(3, 4), 0).all()


def test_patched_images() -> None:
    images = pictures(9)
    keep = kept(torch.rand(9, 24, generator=torch.Generator().manual_seed(1)), 0.3)
    some = PatchedImages.of(images, keep)
    assert some.patches.shape == (9, 17, 3, 2, 2)
    assert (len(some), some.size, some.nbytes) == (9, 2, 9 * 17 * 12 + 9 * 3)
    holes, known = some.visible()
    assert torch.equal(known, pixel_mask(keep, (3, 8, 12)))
    assert torch.equal(holes, images * known[:, None])
    assert torch.equal(PatchedImages.of(holes, keep).patches, some.patches)
    assert len(PatchedImages.of(images[:0], keep[:0])) == 0


def test_patched_images_that_make_no_sense() -> None:
    images, keep = pictures(2), kept(torch.rand(2, 6), 0.5)
    uneven = keep.clone()
    uneven[1] = True
    with pytest.raises(UserError, match="equally many"):
        PatchedImages.of(images, uneven)
    some = PatchedImages.of(images, keep)
    with pytest.raises(UserError, match="must name its 3 patches"):
        PatchedImages(some.patches, uneven, some.shape)
    with pytest.raises(UserError, match="at least one"):
        PatchedImages.of(images, torch.zeros_like(keep))
    with pytest.raises(UserError, match="do not belong to images"):
        PatchedImages(some.patches, keep, (3, 12, 12))


# Informativeness


def test_saliency_by_hand() -> None:
    images = pictures(3)
    found = saliency(images, 4).scores
    wide = images.double().numpy()
    energy = np.zeros((3, 8, 12))
    for row in range(8):
        for column in range(12):
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= r < 8 and 0 <= c < 12:
                    energy[:, row, column] += ((wide[:, :, row, column] - wide[:, :, r, c]) ** 2).sum(axis=1) / 2
    expected = energy.reshape(3, 2, 4, 3, 4).mean(axis=(2, 4)).reshape(3, 6)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    assert saliency(images[:0], 4).scores.shape == (0, 6)


class Pixels(Network):
    """Features are the mean of every channel, so that the map is the image itself and weights are the head's."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(weights.shape[1], nn.Linear(weights.shape[1], weights.shape[0]))
        self.map = nn.Identity()
        with torch.no_grad():
            self.head.weight.copy_(weights)

    def features(self, x: Tensor) -> Tensor:
        result: Tensor = self.map(x).mean(dim=(2, 3))
        return result


def test_grad_cam_of_a_network_whose_map_is_the_image() -> None:
    network = Pixels(torch.tensor([[1.0, -2.0], [-1.0, 0.5]]))
    images, labels = pictures(8, (2, 8, 12)), torch.arange(8) % 2
    found = grad_cam(network, images, labels, 4)
    maps = (network.normalise(images) * network.head.weight[labels][:, :, None, None]).sum(dim=1).detach() / 96
    expected = functional.avg_pool2d(torch.where(maps > 0, maps, maps / 1000), 4).flatten(1)
    torch.testing.assert_close(found.scores, expected)
    assert found.method == "Grad-CAM at map, 8x12"
    opposite = grad_cam(network, images, 1 - labels, 4).scores
    assert not torch.allclose(found.scores, opposite)


def built(build: Callable[[Shape, int], Network], shape: Shape = (3, 16, 16), classes: int = 4) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = build(shape, classes)
    network.set_normalisation(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3]))
    return network


@pytest.mark.parametrize("build", [convnet3, convnet3_small])
def test_grad_cam_by_hand(build: Callable[[Shape, int], Network]) -> None:
    network = built(build).eval()
    assert isinstance(network, ConvNet)
    images, labels = pictures(5, (3, 16, 16)), torch.tensor([0, 1, 2, 3, 0])
    last = max(place for place, one in enumerate(network.body) if isinstance(one, nn.ReLU)) + 1
    expected = []
    for image, label in zip(images, labels.tolist(), strict=True):
        activation = network.body[:last](network.normalise(image[None])).detach().requires_grad_(True)
        network.head(network.body[last:](activation))[0, label].backward()
        assert activation.grad is not None
        weights = activation.grad.mean(dim=(2, 3), keepdim=True)
        found = (weights * activation).sum(dim=1, keepdim=True).detach()
        found = found.clamp_min(0) + found.clamp_max(0) / 1000
        large = functional.interpolate(found, size=(16, 16), mode="bilinear")
        expected.append(functional.avg_pool2d(large, 4).flatten())
    network.zero_grad()
    found_all = grad_cam(network, images, labels, 4)
    torch.testing.assert_close(found_all.scores, torch.stack(expected), rtol=1e-3, atol=1e-7)
    assert found_all.method == f"Grad-CAM at body.{last - 1}, 4x4"
    assert found_all.scores.std(dim=1).min() > 0


@pytest.mark.parametrize(
    ("build", "where"),
    [
        (resnet18, "Grad-CAM at body.layer4, 2x2"),
        (lambda shape, classes: timm_network("resnet18", shape, classes), "Grad-CAM at body.layer2, 2x2"),
        (lambda shape, classes: timm_network("vit_tiny_patch16_224", (3, 224, 224), classes), "gradient by the pixels"),
    ],
)
def test_the_map_is_found(build: Callable[[Shape, int], Network], where: str) -> None:
    network = built(build)
    side = 224 if where.startswith("gradient") else 16
    found = grad_cam(network, pictures(2, (3, side, side)), torch.tensor([0, 1]), side // 4)
    assert where in found.method
    assert found.scores.shape == (2, 16)
    assert found.scores.isfinite().all()


class Flat(Network):
    """No map at all; the gradient by the pixels is the weight of the label."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape[0], nn.Linear(int(np.prod(shape)), classes))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_without_a_map_it_is_the_gradient_by_the_pixels() -> None:
    network = built(Flat)
    labels = torch.tensor([2, 0])
    found = grad_cam(network, pictures(2, (3, 16, 16)), labels, 4)
    slopes = network.head.weight.detach()[labels].reshape(2, 3, 16, 16).abs().sum(dim=1, keepdim=True)
    torch.testing.assert_close(found.scores, functional.avg_pool2d(slopes, 4).flatten(1))
    assert found.method == "gradient by the pixels: the network has no map for Grad-CAM"


def test_neither_batches_nor_the_mode_change_it() -> None:
    network = built(convnet3_small)
    network.head.bias.requires_grad_(False)
    before = {name: one.clone() for name, one in network.state_dict().items()}
    images, labels = pictures(7, (3, 16, 16)), torch.arange(7) % 4
    whole = grad_cam(network, images, labels, 4).scores
    torch.testing.assert_close(grad_cam(network, images, labels, 4, batch=2).scores, whole)
    rough = grad_cam(network, images, labels, 4, precision="bf16").scores
    assert float(np.corrcoef(rough.flatten(), whole.flatten())[0, 1]) > 0.9
    assert network.training
    assert network.head.weight.requires_grad
    assert not network.head.bias.requires_grad
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    assert not any(one._forward_hooks for one in network.modules())
    assert grad_cam(network, images[:0], labels[:0], 4).scores.shape == (0, 16)


def test_mistakes_of_scores() -> None:
    network, images, labels = built(convnet3_small), pictures(2, (3, 16, 16)), torch.tensor([0, 1])
    with pytest.raises(UserError, match="do not divide"):
        grad_cam(network, images, labels, 5)
    with pytest.raises(UserError, match="do not divide"):
        saliency(images, 5)
    with pytest.raises(UserError, match="batch of Grad-CAM"):
        grad_cam(network, images, labels, 4, batch=0)
    with pytest.raises(UserError, match="as many labels"):
        grad_cam(network, images, labels[:1], 4)
    with pytest.raises(UserError, match="label 4 is not among the 4 classes"):
        grad_cam(network, images, labels + 3, 4)


# The picture


@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet(tmp_path: Path, channels: int) -> None:
    images = pictures(7, (channels, 8, 8))
    labels = torch.tensor([0, 2, 0, 2, 2, 0, 0])
    data = ImageDataset(images, labels, ("Übel\n½", "none", "✓" * 200), "toy/train")
    keep = kept(torch.rand(7, 4), 0.25)
    rebuilt = 255 - images
    path = contact_sheet(tmp_path / "new" / "sheet.png", data, keep, rebuilt, per_class=2)
    with Image.open(path) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    scale, across = 12, 96
    assert sheet.shape == (16 + 18 + 2 * (18 + across + 16), 16 + 2 * (3 * across + 8 + 16), 3)
    for row, column, index in ((0, 0, 0), (0, 1, 2), (1, 0, 1), (1, 1, 3)):
        top, left = 16 + 18 + row * (18 + across + 16) + 18, 16 + column * (3 * across + 24)
        tiles = [sheet[top : top + across, left + k * (across + 4) : left + k * (across + 4) + across] for k in range(3)]
        original, middle, last = (tile[scale // 2 :: scale, scale // 2 :: scale].transpose(2, 0, 1) for tile in tiles)
        np.testing.assert_array_equal(original, np.broadcast_to(images[index].numpy(), (3, 8, 8)))
        np.testing.assert_array_equal(last, np.broadcast_to(rebuilt[index].numpy(), (3, 8, 8)))
        known = pixel_mask(keep[index : index + 1], (channels, 8, 8))[0].numpy()
        np.testing.assert_array_equal(middle[:, known], original[:, known])
        assert np.isin(middle[:, ~known], (200, 225)).all()


def test_contact_sheet_of_many_classes_and_mistakes(tmp_path: Path) -> None:
    images = pictures(60, (1, 8, 8))
    data = ImageDataset(images, torch.arange(60), tuple(map(str, range(60))), "toy/train")
    keep = torch.ones(60, 4, dtype=torch.bool)
    with Image.open(contact_sheet(tmp_path / "a.png", data, keep, images, most_classes=10)) as picture:
        assert picture.height == 34 + 10 * 130
    with pytest.raises(UserError, match="do not belong to images"):
        contact_sheet(tmp_path / "b.png", data, keep[:3], images)
    with pytest.raises(UserError, match="at least one image"):
        contact_sheet(tmp_path / "b.png", data, keep, images, per_class=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        contact_sheet(tmp_path / "file" / "b.png", data, keep, images)
