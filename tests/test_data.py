"""ImageDataset and DatasetSplits: the data seam."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dqas_plugin.data import DatasetSplits, ImageDataset, content_digest
from dqas_plugin.errors import UserError


def make(
    labels: list[int], classes: tuple[str, ...] = ("a", "b", "c"), shape: tuple[int, ...] = (3, 4, 5), seed: int = 0
) -> ImageDataset:
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (len(labels), *shape), dtype=np.uint8))
    return ImageDataset(images, torch.tensor(labels, dtype=torch.int64), classes, "made/train")


def test_describes_itself() -> None:
    data = make([0, 2, 2, 1, 2])
    assert (len(data), data.num_classes, data.image_shape) == (5, 3, (3, 4, 5))
    assert data.class_sizes.tolist() == [1, 1, 3]
    assert data.class_sizes.dtype == np.int64


def test_class_sizes_count_classes_without_images() -> None:
    assert make([1, 1]).class_sizes.tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "must be uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "must be uint8 [N, C, H, W]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32), "labels must be int64 [2]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "labels must be int64 [2]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), "outside 0..1"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, -1]), "outside 0..1"),
    ],
)
def test_refuses_what_is_not_a_dataset(images: torch.Tensor, labels: torch.Tensor, words: str) -> None:
    with pytest.raises(UserError) as caught:
        ImageDataset(images, labels, ("a", "b"), "odd/train")
    assert words in str(caught.value)
    assert "odd/train" in str(caught.value)


def test_fingerprint_depends_on_pixels_labels_and_classes_only() -> None:
    data = make([0, 1, 2])
    assert data.fingerprint == make([0, 1, 2]).fingerprint
    one_pixel = data.images.clone()
    one_pixel[2, 2, 3, 4] ^= 1
    others = [
        ImageDataset(one_pixel, data.labels, data.classes, "made/train").fingerprint,
        make([0, 1, 1]).fingerprint,
        make([0, 1, 2], classes=("a", "b", "d")).fingerprint,
        make([0, 1, 2], shape=(3, 5, 4)).fingerprint,
    ]
    assert len({data.fingerprint, *others}) == 5
    renamed = ImageDataset(data.images, data.labels, data.classes, "another/name", mirror=False, notes=("x",))
    assert renamed.fingerprint == data.fingerprint


def test_fingerprint_does_not_depend_on_memory_layout() -> None:
    data = make([0, 1, 2])
    channels_last = data.images.contiguous(memory_format=torch.channels_last)
    assert content_digest(channels_last, data.labels, data.classes) == data.fingerprint


def test_a_known_digest_is_used() -> None:
    data = make([0, 1, 2])
    assert ImageDataset(data.images, data.labels, data.classes, "n", digest="known").fingerprint == "known"


def test_channel_statistics_are_those_of_all_pixels() -> None:
    data = make([0, 1, 2, 0])
    values = data.images.numpy().astype(np.float64) / 255
    mean, deviation = data.channel_statistics
    np.testing.assert_allclose(mean.numpy(), values.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(deviation.numpy(), values.std(axis=(0, 2, 3)), rtol=1e-5)


def test_channel_statistics_of_constant_channels_and_of_a_sample() -> None:
    constant = make([0, 1, 2], shape=(2, 4, 5))
    constant.images[:, 1] = 51
    mean, deviation = constant.channel_statistics
    assert mean[1] == pytest.approx(0.2)
    assert deviation[1] == pytest.approx(1e-3), "never 0: it is divided by"
    images = torch.zeros(25_000, 1, 1, 1, dtype=torch.uint8)
    images[::3] = 255  # 10,000 at most are read, every third here: only the white ones
    many = ImageDataset(images, torch.zeros(25_000, dtype=torch.int64), ("a",), "many")
    assert float(many.channel_statistics[0]) == 1.0


def test_subset_has_the_images_in_order_and_its_own_fingerprint() -> None:
    data = make([0, 1, 2, 0])
    part = data.subset([3, 1])
    assert part.labels.tolist() == [0, 1]
    assert torch.equal(part.images, data.images[[3, 1]])
    assert part.fingerprint != data.fingerprint
    part.images.zero_()
    assert data.images[3].any(), "a subset must be a copy"


def test_splits_must_agree() -> None:
    good = make([0, 1, 2])
    DatasetSplits(good, make([2, 1, 0], seed=1))
    with pytest.raises(UserError, match="different classes"):
        DatasetSplits(good, make([0, 1, 2], classes=("a", "b", "d")))
    with pytest.raises(UserError, match="resize"):
        DatasetSplits(good, make([0, 1, 2], shape=(1, 4, 5)))
    with pytest.raises(UserError, match="class 'b' has no images"):
        DatasetSplits(good, make([0, 2, 2]))


def test_a_name_that_is_no_text_is_refused() -> None:
    """A folder may be called by any bytes, which Python hands on as halves of characters; no file of ours could hold that."""
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    with pytest.raises(UserError, match=r"the name of the dataset 'd\\udcff' is no text in UTF-8: rename it"):
        ImageDataset(images, labels, ("a", "b"), "d\udcff")
    with pytest.raises(UserError, match=r"d: the class name 'b\\udcff' is no text in UTF-8: rename it"):
        ImageDataset(images, labels, ("a", "b\udcff"), "d")
