"""Tensors for DD-Ranking and DC-BENCH: in the units and the order in which they train."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import registering
from distilled import CIFAR, pictures
from dqas_adapters import distilled as adapter
from dqas_plugin import ImageDataset, Selection, UserError, load_dataset
from dqas_plugin.data import TrainOnly
from dqas_plugin.exporting import export


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    yield from registering.registered(adapter, "distilled")


def some(name: str, channels: int = 3, targets: torch.Tensor | None = None) -> TrainOnly:
    """Twelve images of three classes, mixed."""
    pixels, labels = pictures(4, channels=channels)
    order = torch.from_numpy(np.random.default_rng(3).permutation(12))
    images = torch.from_numpy(pixels)[order]
    soft = None if targets is None else targets[order]
    return TrainOnly(ImageDataset(images, labels[order], ("a", "b", "c"), f"{name}/train", targets=soft))


def tensors(folder: Path, end: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = (torch.load(folder / f"{kind}{end}.pt", weights_only=True) for kind in ("images", "labels"))
    return images, labels


OWN = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))


@pytest.mark.parametrize(
    ("name", "style", "constants"),
    [
        ("cifar10", "dd-ranking", CIFAR),
        ("cifar10", "dc-benchmark", CIFAR),
        ("cifar100", "dd-ranking", CIFAR),  # DD-Ranking normalises both alike
        ("cifar100", "dc-benchmark", OWN),
        ("tiny-imagenet", "dd-ranking", ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
    ],
)
def test_images_are_normalised_and_in_class_order(tmp_path: Path, name: str, style: str, constants: Any) -> None:
    splits = some(name)
    export("dc", splits, None, tmp_path / "out", style=style)
    images, labels = tensors(tmp_path / "out", "_best" if style == "dc-benchmark" else "")
    order = np.argsort(splits.train.labels.numpy(), kind="stable")
    expected = v2.Normalize(*map(list, constants))(splits.train.images[order].float() / 255)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert torch.allclose(images, expected, atol=1e-6)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    record = json.loads((tmp_path / "out" / "dqas.json").read_text())
    assert record["counts"] == [4, 4, 4]
    assert record["classes"] == ["a", "b", "c"]
    assert f"mean {constants[0][0]:g}" in record["values"]


def test_a_selection_is_put_into_class_order(tmp_path: Path) -> None:
    splits = some("cifar10")
    labels = splits.train.labels.numpy()
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(3)]
    extra = int(np.flatnonzero(labels == 0)[2])  # as a refiner adds it
    chosen = Selection(np.array([*first, extra]), np.array([2, 1, 1]), np.array([1, 2, 3, 4], dtype=np.float32))
    export("dc", splits, chosen, tmp_path / "out", normalisation="none")
    images, found = tensors(tmp_path / "out")
    assert found.tolist() == [0, 0, 1, 2]
    expected = splits.train.images[[first[0], extra, first[1], first[2]]]
    assert torch.equal((images * 255).round().to(torch.uint8), expected)
    assert Selection.load(tmp_path / "out" / "selection.npz").indices.tolist() == chosen.indices.tolist()


def test_soft_labels_are_written_as_logits(tmp_path: Path) -> None:
    """Both of DD-Ranking's losses take the softmax of what they are given."""
    targets = torch.softmax(3 * torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    targets[2] = torch.tensor([1.0, 0, 0])
    splits = some("cifar10", targets=targets)
    export("dc", splits, None, tmp_path / "out")
    _, logits = tensors(tmp_path / "out")
    assert logits.dtype == torch.float32
    order = np.argsort(splits.train.labels.numpy(), kind="stable")
    assert splits.train.targets is not None
    assert torch.allclose(torch.softmax(logits, dim=1), splits.train.targets[order], atol=1e-6)
    export("dc", splits, None, tmp_path / "hard", style="dc-benchmark")
    assert tensors(tmp_path / "hard", "_best")[1].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    targets = torch.softmax(
        torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) + 5 * torch.eye(3).repeat_interleave(4, 0), 1
    )
    splits = some("cifar10", targets=targets)
    export("dc", splits, None, tmp_path / "out")
    back = load_dataset(f"datm:{tmp_path / 'out'}", normalisation="cifar10").train
    order = np.argsort(splits.train.labels.numpy(), kind="stable")
    assert torch.equal(back.images, splits.train.images[order])
    assert back.targets is not None
    assert splits.train.targets is not None
    assert torch.allclose(back.targets, splits.train.targets[order], atol=1e-6)
    export("dc", splits, None, tmp_path / "bench", style="dc-benchmark")
    back = load_dataset(f"mtt:{tmp_path / 'bench'}", normalisation="cifar10").train
    assert torch.equal(back.images, splits.train.images[order])
    assert back.targets is None


def test_whitened_images(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    export("dc", digits, None, tmp_path / "out", zca_from="digits")
    images, _ = tensors(tmp_path / "out")
    covariance = np.cov(images.flatten(1).double().numpy(), rowvar=False)
    real = np.linalg.eigvalsh(np.cov(digits.train.images.flatten(1).double().numpy() / 255, rowvar=False))
    assert np.allclose(np.linalg.eigvalsh(covariance), np.sort(real / (real + 0.1)), atol=1e-5)
    back = load_dataset(f"mtt:{tmp_path / 'out'}", zca_from="digits").train
    order = np.argsort(digits.train.labels.numpy(), kind="stable")
    assert torch.equal(back.images, digits.train.images[order])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mine", {}, "normalisation is not known for mine/train: give one of cifar10, svhn"),
        ("cifar10", {"normalisation": "mnist"}, "'mnist' is for 1 channels, and cifar10/train has 3"),
        ("cifar10", {"normalisation": "cifar10", "zca_from": "digits"}, "whitened or normalised, not both"),
        ("cifar10", {"zca_from": "digits"}, r"zca_from=digits has images of \(1, 8, 8\), and cifar10/train of \(3, 8, 8\)"),
        ("cifar10", {"style": "dc"}, "unknown style 'dc'"),
        ("cifar10", {"styles": "dc"}, "unknown option of the exporter 'dc' 'styles'"),
    ],
)
def test_options_that_are_wrong(tmp_path: Path, name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        export("dc", some(name), None, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
