"""Images that DQ rebuilt, read in the order of their index."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dq_files import Hostile, refused, registered
from dqas_adapters.dq.images import load_images, write_images
from dqas_adapters.dq.layout import imagefolder_positions
from dqas_plugin import UserError, load_dataset
from dqas_plugin.data import TrainOnly

_registered = pytest.fixture(autouse=True)(registered)


def pixels(index: int, side: int = 6) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)


def picture(path: Path, index: int = 0, side: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(index, side)).save(path)
    return path


@pytest.fixture
def rebuilt(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Twelve images of three labels, as quantize_pixel.py writes them; their labels."""
    labels = np.array([2, 0, 1, 1, 0, 2, 2, 1, 0, 0, 1, 2])
    for index, label in enumerate(labels):
        picture(tmp_path / "rebuilt" / str(label) / f"{index}.png", index)
    return tmp_path / "rebuilt", labels


def test_images_come_in_the_order_of_their_index(rebuilt: tuple[Path, np.ndarray]) -> None:
    from torchvision.datasets import ImageFolder

    folder, labels = rebuilt
    splits = load_dataset(f"dq-images:{folder}")
    assert isinstance(splits, TrainOnly)
    data = splits.train
    assert data.labels.tolist() == labels.tolist()
    assert data.classes == ("0", "1", "2")
    assert data.name == "rebuilt/train"
    assert data.notes == ()
    for index in range(12):
        np.testing.assert_array_equal(data.images[index].numpy(), pixels(index).transpose(2, 0, 1))
    by_text = ImageFolder(str(folder))
    assert [int(Path(path).stem) for path, _ in by_text.samples] != list(range(12))
    for index, position in enumerate(imagefolder_positions(labels)):
        assert by_text.samples[position] == (str(folder / str(labels[index]) / f"{index}.png"), labels[index])
    with pytest.raises(UserError, match="has no test split"):
        _ = splits.test


def test_imagefolder_positions_of_many_labels(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    labels = np.concatenate([np.arange(12), np.arange(12), np.arange(12)])
    for index, label in enumerate(labels):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        (tmp_path / str(label) / f"{index}.png").touch()
    samples = ImageFolder(str(tmp_path)).samples
    positions = imagefolder_positions(labels)
    assert [int(Path(samples[position][0]).stem) for position in positions] == list(range(36))


def test_class_names_and_a_test_split_of_another_dataset(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    write_images(tmp_path / "digits", digits.train, np.arange(300))
    splits = load_dataset(f"dq-images:{tmp_path / 'digits'}", test_from="digits", classes_from="digits")
    assert splits.train.classes == digits.train.classes
    assert torch.equal(splits.train.images, digits.train.images[:300])
    assert torch.equal(splits.train.labels, digits.train.labels[:300])
    assert splits.test.fingerprint == digits.test.fingerprint
    picture(tmp_path / "three" / "0" / "0.png")
    message = refused(lambda: load_images(str(tmp_path / "three"), classes_from="digits"))
    assert "has 1 labels but digits has 10 classes" in message


def test_gaps_must_be_wanted(rebuilt: tuple[Path, np.ndarray]) -> None:
    folder, labels = rebuilt
    for index in (1, 6):
        (folder / str(labels[index]) / f"{index}.png").unlink()
    message = refused(lambda: load_images(str(folder)))
    assert "has 10 images with indices up to 11, and none of index 1" in message
    assert "gaps=true" in message
    data = load_images(str(folder), gaps=True).train
    kept = np.delete(np.arange(12), [1, 6])
    assert data.labels.tolist() == labels[kept].tolist()
    np.testing.assert_array_equal(data.images[5].numpy(), pixels(int(kept[5])).transpose(2, 0, 1))
    assert data.notes == ("10 images of indices up to 11, numbered anew in that order",)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header claims more than follows."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    parts = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BAD_IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda folder: folder.rename(folder.parent / "away"), "does not exist"),
    "two labels": (lambda folder: picture(folder / "1" / "0.png"), "0.png have the same index: every index is one image"),
    "two endings": (lambda folder: picture(folder / "2" / "0.jpg"), "have the same index"),
    "another name": (lambda folder: picture(folder / "1" / "cat.png"), "cat.png: the images of DQ are named label/index.png"),
    "leading zeros": (lambda folder: picture(folder / "1" / "012.png"), "012.png: the images of DQ are named"),
    "other digits": (lambda folder: picture(folder / "1" / "١٢.png"), "the images of DQ are named"),
    "negative": (lambda folder: picture(folder / "1" / "-1.png"), "-1.png: the images of DQ are named"),
    "deeper": (lambda folder: picture(folder / "1" / "sub" / "12.png"), "12.png: the images of DQ are named label/index.png"),
    "a label is missing": (lambda folder: picture(folder / "5" / "12.png"), "4 folders of labels but no folder '3'"),
    "a name for a label": (
        lambda folder: picture(folder / "cat" / "12.png"),
        "folders of DQ's CIFAR-10 images are named by label",
    ),
    "an empty label": (lambda folder: (folder / "3").mkdir(), "3 has no images"),
    "another size": (lambda folder: picture(folder / "1" / "12.png", side=7), "12.png is 7x7 pixels"),
    "damaged": (lambda folder: (folder / "0" / "1.png").write_bytes(b"\x89PNG"), "1.png cannot be decoded"),
    "a million million pixels": (
        lambda folder: (folder / "0" / "1.png").write_bytes(png_that_claims(10**6, 10**6)),
        "(1000000000000 pixels)",
    ),
    "a pickle": (
        lambda folder: (folder / "0" / "1.png").write_bytes(pickle.dumps(Hostile(folder / "it ran"))),
        "1.png cannot be decoded (not an image of a known format)",
    ),
    "16 bits": (
        lambda folder: Image.fromarray(np.full((6, 6), 4000, np.uint16)).save(folder / "0" / "1.png"),
        "1.png has more than 8 bits a channel",
    ),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_folders_that_are_none_of_dq(rebuilt: tuple[Path, np.ndarray], kind: str) -> None:
    folder, _ = rebuilt
    spoil, words = BAD_IMAGES[kind]
    spoil(folder)
    assert words in refused(lambda: load_images(str(folder)))
    assert not (folder / "it ran").exists()


def test_no_folders_of_labels(tmp_path: Path) -> None:
    assert "has no folders of labels" in refused(lambda: load_images(str(tmp_path)))


def test_options_of_images(rebuilt: tuple[Path, np.ndarray]) -> None:
    folder, _ = rebuilt
    (folder / "0" / "notes.txt").touch()
    data = load_dataset(f"dq-images:{folder}", size=3, mirror=False).train
    assert data.image_shape == (3, 3, 3)
    assert not data.mirror
    assert "1 files without an image ending were left out" in data.notes
