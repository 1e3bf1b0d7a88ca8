"""Fashion-MNIST: idx files, read here; downloaded by torchvision.

Source: H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST (arXiv:1708.07747). The idx format: http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.datasets.decode import Pixels
from dqas_plugin.datasets.download import DEFAULT_ROOT, downloading
from dqas_plugin.errors import UserError

_NAME = "fashion-mnist"
_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts the files
_PREFIXES = {"train": "train", "test": "t10k"}
_DEFLATE_LIMIT = 1100  # deflate makes data at most 1032 times smaller (zlib technical details), so a larger claim is a lie


def load(root: Path | None) -> DatasetSplits:
    """60,000 training and 10,000 test images, grey, 28x28.

    Args:
        root: a folder that holds the four idx files (plain or ``.gz``), or torchvision's layout
            ``FashionMNIST/raw`` below it; default ``./data``, then Debian's package ``dataset-fashion-mnist``.

    Raises:
        UserError: the files are neither there nor can be downloaded, or are damaged.
    """
    base = Path(root or DEFAULT_ROOT).expanduser()
    raw = base / "FashionMNIST" / "raw"
    candidates = [base, raw] + ([] if root else [_DEBIAN])
    folder = next((one for one in candidates if all(_find(one, f) for f in _file_names())), None)
    if folder is None:
        with downloading(_NAME, base):
            from torchvision.datasets import FashionMNIST

            FashionMNIST(str(base), download=True)
        folder = raw
    train, test = _split(folder, "train"), _split(folder, "test")
    if train.image_shape != test.image_shape:
        raise UserError(
            f"{_NAME}: {folder} has training images of {train.image_shape[1:]} pixels and test images of "
            f"{test.image_shape[1:]}: download them again"
        )
    return DatasetSplits(train, test)


def _file_names() -> list[str]:
    return [f"{prefix}-{kind}" for prefix in _PREFIXES.values() for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def _find(folder: Path, name: str) -> Path | None:
    return next((one for one in (folder / name, folder / f"{name}.gz") if one.is_file()), None)


def _split(folder: Path, split: str) -> ImageDataset:
    images_path, labels_path = (_find(folder, one) for one in _file_names() if one.startswith(_PREFIXES[split]))
    if images_path is None or labels_path is None:
        raise UserError(f"{_NAME}: {folder} lacks the {split} files; download them again")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} has {len(images)} images but {labels_path} has {len(labels)} labels: download both again"
        )
    if not len(labels) or labels.max() >= len(_CLASSES):
        raise UserError(f"{labels_path} must hold labels 0..{len(_CLASSES) - 1}: download the file of Fashion-MNIST again")
    if len(missing := np.setdiff1d(np.arange(len(_CLASSES)), labels)):
        raise UserError(f"{labels_path} has no image of class {missing[0]} ({_CLASSES[missing[0]]}): download it again")
    return ImageDataset(
        torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64)), _CLASSES, f"{_NAME}/{split}", mirror=True
    )


def read_idx(path: Path, dimensions: int) -> Pixels:
    """An idx file of unsigned bytes, plain or gzipped.

    Args:
        path: the file; gzipped if its name ends in ``.gz``.
        dimensions: expected number of dimensions (1 or 3).

    Returns:
        uint8 array with the dimensions that the file states.

    Raises:
        UserError: wrong magic number, a length that does not fit the header, or nothing in it.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            numbers = np.frombuffer(header[: len(header) // 4 * 4], dtype=">u4").tolist()
            if len(numbers) != 1 + dimensions or numbers[0] != 0x0800 + dimensions:  # 08: unsigned bytes
                raise UserError(f"{path} is not an idx file of {dimensions} dimensions of bytes: download it again")
            expected = math.prod(numbers[1:])
            if not expected:
                raise UserError(f"{path} is empty: its header promises nothing, {numbers[1:]}; download it again")
            # Checked before anything of that size is allocated.
            if expected > path.stat().st_size * (_DEFLATE_LIMIT if path.suffix == ".gz" else 1):
                raise UserError(f"{path} is truncated: its header promises {expected} bytes; download it again")
            content = file.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path} ({error}): download it again") from error
    if len(content) != expected:
        more = "more" if len(content) > expected else f"only {len(content)}"
        raise UserError(f"{path} is damaged: its header promises {expected} bytes but it holds {more}; download it again")
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(numbers[1:])
