"""Sets of DREAM, MTT and DATM: decoded, de-whitened, with soft labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import registering
from distilled import CIFAR, Hostile, enormous, normalised, pictures, plain, save_dream, save_mtt
from dqas_adapters import distilled as adapter
from dqas_adapters.distilled.dream import cells
from dqas_plugin import UserError, load_dataset
from dqas_plugin.data import ImageDataset, TrainOnly


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    yield from registering.registered(adapter, "distilled")


def load(form: str, path: Path | str, **options: Any) -> ImageDataset:
    splits = load_dataset(f"{form}:{path}", **options)
    assert isinstance(splits, TrainOnly)
    return splits.train


# DREAM


def literal_cells(images: np.ndarray, factor: int) -> list[np.ndarray]:
    """Cells cut and enlarged one pixel after the other: between the centres of pixels, the border repeated."""
    size = images.shape[-1]
    side = (size + factor - 1) // factor
    wide = np.full((*images.shape[:2], side * factor, side * factor), 0.5)
    wide[:, :, :size, :size] = images
    found = []
    for i in range(factor):
        for j in range(factor):
            for one in wide[:, :, i * side : (i + 1) * side, j * side : (j + 1) * side]:
                large = np.empty((len(one), size, size))
                for row in range(size):
                    for column in range(size):
                        y, x = (max((place + 0.5) * side / size - 0.5, 0) for place in (row, column))
                        top, left = int(y), int(x)
                        below, right = min(top + 1, side - 1), min(left + 1, side - 1)
                        upper = (1 - x + left) * one[:, top, left] + (x - left) * one[:, top, right]
                        lower = (1 - x + left) * one[:, below, left] + (x - left) * one[:, below, right]
                        large[:, row, column] = (1 - y + top) * upper + (y - top) * lower
                found.append(large)
    return found


@pytest.mark.parametrize(("size", "factor"), [(8, 2), (8, 3), (8, 5), (7, 2), (7, 7), (9, 4), (6, 1)])
def test_cells_are_cut_padded_and_enlarged(size: int, factor: int) -> None:
    images = np.random.default_rng(size).random((2, 3, size, size), dtype=np.float32)
    expected = np.stack(literal_cells(images.astype(np.float64), factor))
    found = cells(torch.from_numpy(images), factor)
    assert found.shape == (2 * factor * factor, 3, size, size)
    assert np.abs(found.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("decode", ["single", "multi"])
def test_all_images_that_are_packed_come_out_class_by_class(tmp_path: Path, decode: str) -> None:
    pixels, labels = pictures(2, size=12)
    data = load("dream", save_dream(tmp_path / "data.pt", plain(pixels), labels), factor=3, decode=decode)
    factors = [1, 2, 3] if decode == "multi" else [3]
    times = sum(one * one for one in factors)
    expected: list[np.ndarray] = []
    for start in (0, 2, 4):
        for factor in factors:
            expected += literal_cells(pixels[start : start + 2] / 255, factor)
    assert data.labels.tolist() == [label for label in range(3) for _ in range(2 * times)]
    assert np.abs(data.images.numpy() - 255 * np.stack(expected)).max() <= 0.5 + 1e-3  # to the nearest step
    assert data.notes[0] == f"{2 * times} images of each of 3 classes"
    assert data.notes[1].startswith("every stored image was cut into " + ("a grid of 3x3" if decode == "single" else "grids"))


def test_images_are_not_normalised_and_slightly_beyond_0_and_1(tmp_path: Path) -> None:
    pixels, labels = pictures(4)
    values = plain(pixels)
    values[pixels == 255] = 1.01
    values[pixels == 0] = -0.02
    data = load("dream", save_dream(tmp_path / "conv3in_ipc4" / "data.pt", values, labels))
    assert np.array_equal(data.images.numpy(), pixels)
    assert data.name == "conv3in_ipc4/train"
    assert "every stored image is one image (assumed: nothing beside the file says otherwise; option factor=)" in data.notes
    assert "values taken as pixels in 0..1, not normalised" in data.notes
    assert any("were clipped" in one for one in data.notes)
    shown = save_dream(tmp_path / "n" / "data.pt", normalised(pixels, *CIFAR), labels)
    with pytest.raises(UserError, match=r"outside -0\.5\.\.1\.5: give normalisation=NAME"):
        load("dream", shown)
    assert np.array_equal(load("dream", shown, normalisation="cifar100").images.numpy(), pixels)  # DREAM has one for both


def test_the_factor_is_read_where_it_is_written(tmp_path: Path) -> None:
    pixels, labels = pictures(1, size=12)
    named = tmp_path / "conv3in_grad_mse_nd2000_cut_niter2000_factor2_multi_lr0.005_mix_ipc1"
    data = load("dream", save_dream(named / "data2000.pt", plain(pixels), labels))
    assert len(data) == 3 * 5
    assert "as the folder's name says" in data.notes[1]
    assert len(load("dream", named, decode="single")) == 3 * 4
    assert len(load("dream", named, factor=1)) == 3
    described = named / "args.txt"
    described.write_text(json.dumps({"factor": 3, "decode_type": "single", "dataset": "cifar10"}))
    data = load("dream", named)
    assert len(data) == 3 * 9
    assert "as args.txt says" in data.notes[1]
    assert len(load("dream", named, factor=2)) == 3 * 4
    for broken in ("{", '{"factor": "2"}', "[]", '{"ipc": 1}', "[" * 100_000):
        described.write_text(broken)
        with pytest.raises(UserError, match=r"args\.txt cannot be read as the arguments of DREAM .*give factor="):
            load("dream", named)
        assert len(load("dream", named, factor=2, decode="multi")) == 3 * 5
    described.write_text('{"factor": 1000000, "decode_type": "multi"}')
    with pytest.raises(UserError, match=r"factor must be between 1 and 3, .* not 1000000, as args\.txt says"):
        load("dream", named)
    described.write_text(" " * (1 << 20) + "{}")
    with pytest.raises(UserError, match=r"args\.txt cannot be read .*more than 1,048,576 bytes"):
        load("dream", named)


def test_a_folder_must_say_which_file_it_means(tmp_path: Path) -> None:
    pixels, labels = pictures(1)
    for name in ("data40.pt", "data80.pt"):
        save_dream(tmp_path / name, plain(pixels), labels)
    with pytest.raises(UserError, match=r"there is several \(data40\.pt, data80\.pt …\): name the file"):
        load("dream", tmp_path)
    assert len(load("dream", tmp_path / "data80.pt")) == 3
    save_dream(tmp_path / "data.pt", plain(pictures(2)[0]), pictures(2)[1])
    assert len(load("dream", tmp_path)) == 6
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"a set of DREAM is a file data\.pt or data\*\.pt, and there is none"):
        load("dream", tmp_path / "empty")


@pytest.mark.parametrize("factor", [0, -1, 3, 10**9])
def test_factors_that_cannot_be(tmp_path: Path, factor: int) -> None:
    pixels, labels = pictures(1)
    with pytest.raises(
        UserError, match=r"factor must be between 1 and 2, so that cells of images of 8 pixels keep 4, not -?\d"
    ):
        load("dream", save_dream(tmp_path / "data.pt", plain(pixels), labels), factor=factor, decode="multi")


def test_other_files_are_no_sets_of_dream(tmp_path: Path) -> None:
    pixels, labels = pictures(2)
    for content in ({"data": 1}, [plain(pixels)], plain(pixels)):
        torch.save(content, tmp_path / "data.pt")
        with pytest.raises(UserError, match=r"data\.pt is not a set of DREAM: it must be a list of images and labels"):
            load("dream", tmp_path)
    oblong = plain(pictures(2, size=12)[0])[:, :, :10]
    with pytest.raises(UserError, match="10x12 cannot be cut into cells"):
        load("dream", save_dream(tmp_path / "data.pt", oblong, labels), factor=2)
    assert load("dream", tmp_path).image_shape == (3, 10, 12)
    with pytest.raises(
        UserError, match="the second part should be in class order, and image 2 is of class 1 after one of class 2"
    ):
        load("dream", save_dream(tmp_path / "data.pt", plain(pixels), labels.flip(0)))
    with pytest.raises(UserError, match="the second part has 6 labels for 5 images"):
        load("dream", save_dream(tmp_path / "data.pt", plain(pixels)[:5], labels))


def test_sorted_images_are_decoded_with_their_labels(tmp_path: Path) -> None:
    pixels, labels = pictures(2)
    order = [5, 0, 3, 1, 4, 2]
    data = load("dream", save_dream(tmp_path / "a.pt", plain(pixels[order]), labels[order]), factor=2, in_order=False)
    alone = load("dream", save_dream(tmp_path / "b.pt", plain(pixels[[0, 1, 3, 2, 5, 4]]), labels), factor=2)
    assert torch.equal(data.images, alone.images)
    assert torch.equal(data.labels, alone.labels)


# MTT and DATM


@pytest.mark.parametrize("form", ["mtt", "datm"])
def test_the_files_must_be_explained(tmp_path: Path, form: str) -> None:
    pixels, labels = pictures(4)
    folder = save_mtt(tmp_path / "run", normalised(pixels, *CIFAR), labels)
    with pytest.raises(UserError, match=r"does not say whether its images are whitened or normalised: give zca_from=NAME"):
        load(form, folder)
    for name in ("cifar10", "cifar100"):  # their code has one for both
        data = load(form, folder, normalisation=name)
        assert np.array_equal(data.images.numpy(), pixels)
        assert torch.equal(data.labels, labels)
        assert data.targets is None
    assert data.name == "run/train"
    assert np.array_equal(load(form, folder / "images_best.pt", normalisation="cifar10").images.numpy(), pixels)
    with pytest.raises(UserError, match="whitened or normalised, not both"):
        load(form, folder, normalisation="cifar10", zca_from="digits")


def whitened_digits(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first images of every digit, their labels, and the former whitened by SciPy's matrix square root."""
    import scipy.linalg

    real = load_dataset("digits").train
    chosen = np.concatenate([np.flatnonzero(real.labels.numpy() == label)[:count] for label in range(10)])
    values = real.images.double().flatten(1).numpy() / 255
    covariance = np.cov(values, rowvar=False)
    root = scipy.linalg.sqrtm(covariance + 0.1 * np.eye(64))
    white = (values[chosen] - values.mean(axis=0)) @ np.linalg.inv(root)
    return real.images[chosen], real.labels[chosen], torch.from_numpy(white.astype(np.float32)).reshape(-1, 1, 8, 8)


def test_the_whitening_is_taken_back(tmp_path: Path) -> None:
    images, labels, white = whitened_digits(3)
    folder = save_mtt(tmp_path / "run", white, labels)
    data = load("mtt", folder, zca_from="digits")
    assert torch.equal(data.images, images)
    assert data.classes == load_dataset("digits").train.classes
    assert "values whitened (ZCA, eps 0.1, fitted on the 1,438 training images of digits)" in data.notes
    assert "all values lay in 0..1" in data.notes  # up to rounding
    with pytest.raises(UserError, match=r"not normalised, but \d\d\.\d % of the pixels would lie outside -0\.5\.\.1\.5"):
        load("mtt", folder, normalisation="none")
    copy = save_mtt(tmp_path / "copy", plain(images.numpy()), labels)
    (copy / "images_best.pt").rename(copy / "images_zca_500.pt")
    (copy / "labels_best.pt").rename(copy / "labels_500.pt")
    assert torch.equal(load("mtt", copy, classes_from="digits").images, images)
    colour = save_mtt(tmp_path / "colour", plain(pictures(1)[0]), torch.arange(3))
    with pytest.raises(UserError, match=r"has images of \(3, 8, 8\) and digits of \(1, 8, 8\): zca_from must name"):
        load("mtt", colour, zca_from="digits")


def soft(per_class: int, classes: int = 3, seed: int = 0) -> torch.Tensor:
    """Logits that favour the class of their place."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(per_class * classes, classes, generator=draws) + 6 * torch.eye(classes).repeat_interleave(
        per_class, dim=0
    )


def test_soft_labels_become_targets(tmp_path: Path) -> None:
    """Saved as DATM does it: leaves that want gradients, and the learning rate."""
    pixels, labels = pictures(4)
    logits, rate = soft(4).requires_grad_(True), torch.tensor(0.0123456)
    folder = save_mtt(tmp_path / "run" / "Normal", normalised(pixels, *CIFAR), logits, rate)
    data = load("datm", folder, normalisation="cifar10")
    expected = np.exp(logits.detach().double().numpy())
    expected /= expected.sum(axis=1, keepdims=True)
    assert data.targets is not None
    assert np.abs(data.targets.numpy() - expected).max() < 1e-6
    assert torch.equal(data.labels, labels)
    assert "soft labels, taken as logits; their softmax is used" in data.notes
    assert "the learning rate learned for these images is 0.01235 (lr_best.pt)" in data.notes
    assert data.name == "run/train"


def test_probabilities_are_told_from_logits(tmp_path: Path) -> None:
    pixels, _ = pictures(4)
    shares = torch.softmax(soft(4), dim=1)
    folder = save_mtt(tmp_path, plain(pixels), shares)
    data = load("datm", folder, normalisation="none")
    assert data.targets is not None
    assert torch.allclose(data.targets, shares, atol=1e-6)
    assert "soft labels, taken as probabilities" in data.notes
    again = load("datm", folder, normalisation="none", soft_labels="logits")  # what their own loss would do
    assert again.targets is not None
    assert torch.allclose(again.targets, torch.softmax(shares, dim=1), atol=1e-6)
    torch.save(soft(4), tmp_path / "labels_best.pt")
    with pytest.raises(UserError, match=r"labels_best\.pt: the tensor has rows that are no probabilities"):
        load("datm", folder, normalisation="none", soft_labels="probabilities")


def test_an_image_counts_as_the_class_of_its_place(tmp_path: Path) -> None:
    pixels, labels = pictures(4)
    logits = soft(4)
    logits[5] = torch.tensor([9.0, 0, 0])
    data = load("datm", save_mtt(tmp_path / "a", plain(pixels), logits), normalisation="none")
    assert torch.equal(data.labels, labels)
    assert "1 soft labels favour another class than that of their place, which is what they count as" in data.notes
    uneven = load("datm", save_mtt(tmp_path / "b", plain(pixels[1:]), logits[1:]), normalisation="none", in_order=False)
    assert uneven.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    assert uneven.targets is not None
    assert uneven.targets[3].argmax() == 0
    order = torch.tensor([2, 9, 4, 0, 11, 7, 3, 8, 5, 1, 6, 10])  # no image is where it was, most in another class's place
    mixed = save_mtt(tmp_path / "c", plain(pixels[order]), soft(4)[order])
    with pytest.raises(UserError, match="should be in class order"):
        load("datm", mixed, normalisation="none")
    data = load("datm", mixed, normalisation="none", in_order=False)
    assert "images count as the class that their soft label favours" in data.notes
    assert torch.equal(data.labels, labels)
    back = order[torch.argsort(labels[order], stable=True)]
    assert np.array_equal(data.images.numpy(), pixels[back])
    assert data.targets is not None
    assert torch.allclose(data.targets, torch.softmax(soft(4)[back].double(), dim=1).float())


def not_a_number() -> torch.Tensor:
    """As DATM's own code makes it where no expert had an image right (0 / 0)."""
    labels = soft(4)
    labels[7] = torch.zeros(3) / 0
    return labels


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (not_a_number(), r"the soft label of image 7 in the tensor has values that are NaN"),
        (soft(3), "has 9 labels for 12 images"),
        (torch.zeros(12, 1), r"must be labels \[N\] or soft labels \[N, C\], not torch.float32 \(12, 1\)"),
        (torch.zeros(12, 3, dtype=torch.int64), "must be labels"),
        (torch.zeros(12, 3, 3), "must be one row of whole numbers"),
        (torch.eye(3)[[0] * 11 + [1]] * 9, r"class 2"),
        (enormous(12, 10**12), "more than the file holds"),
        (torch.arange(3).repeat_interleave(4).tolist(), None),
    ],
)
def test_labels_that_are_wrong(tmp_path: Path, labels: Any, words: str | None) -> None:
    folder = save_mtt(tmp_path, plain(pictures(4)[0]), labels)
    if words is None:
        assert len(load("datm", folder, normalisation="none")) == 12
        return
    with pytest.raises(UserError, match=words) as caught:
        load("datm", folder, normalisation="none")
    assert "labels_best.pt" in str(caught.value)


def test_files_beside_the_images(tmp_path: Path) -> None:
    pixels, labels = pictures(2)
    folder = save_mtt(tmp_path / "run", plain(pixels), labels)
    mark = tmp_path / "mark"
    for content, words in [
        (Hostile(mark), "lr_best.pt cannot be read as a learning rate: it asks for"),
        (torch.zeros(2), "must hold one positive number"),
        (torch.tensor(float("nan")), "must hold one positive number"),
        (torch.tensor(-1.0), "must hold one positive number"),
        ("fast", "must hold one positive number"),
    ]:
        torch.save(content, folder / "lr_best.pt")
        with pytest.raises(UserError, match=words):
            load("datm", folder, normalisation="none")
    torch.save(0.5, folder / "lr_best.pt")
    assert "0.5 (lr_best.pt)" in load("datm", folder, normalisation="none").notes[-1]
    torch.save(Hostile(mark), folder / "labels_best.pt")
    with pytest.raises(UserError, match=r"labels_best\.pt cannot be read as labels of a set of MTT or DATM: it asks for"):
        load("datm", folder, normalisation="none")
    assert not mark.exists()
    (folder / "labels_best.pt").unlink()
    with pytest.raises(UserError, match=r"images_best\.pt: its labels labels_best\.pt are not beside it"):
        load("mtt", folder, normalisation="none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"a set of MTT or DATM is a file images_best\.pt or images_\*\.pt, and there is none"):
        load("mtt", tmp_path / "empty", normalisation="none")


def test_a_family_with_soft_labels(tmp_path: Path) -> None:
    for per_class in (3, 1):
        save_mtt(tmp_path / f"ipc{per_class}", plain(pictures(per_class)[0]), soft(per_class))
    data = load("datm", f"{tmp_path}/ipc3+{tmp_path}/ipc1", normalisation="none")
    assert data.targets is not None
    expected = torch.softmax(torch.cat([soft(1), soft(3)]).double(), dim=1)
    assert torch.allclose(data.targets.double(), expected, atol=1e-6)
    save_mtt(tmp_path / "hard", plain(pictures(2)[0]), pictures(2)[1])
    with pytest.raises(UserError, match=r"ipc1.* has soft labels and .*hard.* has none: name sets of one method"):
        load("datm", f"{tmp_path}/hard+{tmp_path}/ipc1", normalisation="none")
