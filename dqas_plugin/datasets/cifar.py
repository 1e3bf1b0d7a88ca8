"""CIFAR-10 and CIFAR-100 through torchvision, which checks the MD5 of every file before it unpickles it.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.datasets.download import DEFAULT_ROOT, downloading


def load_cifar10(root: Path | None) -> DatasetSplits:
    """50,000 training and 10,000 test images ``[N, 3, 32, 32]``, 10 classes.

    Args:
        root: the folder that holds ``cifar-10-batches-py`` (default ``./data``); downloaded to it if missing.

    Raises:
        UserError: the files are neither there nor can be downloaded.
    """
    from torchvision.datasets import CIFAR10  # slow to import, so only when asked for

    return _load("cifar10", CIFAR10, root)


def load_cifar100(root: Path | None) -> DatasetSplits:
    """50,000 training and 10,000 test images ``[N, 3, 32, 32]``, 100 (fine) classes.

    Args:
        root: the folder that holds ``cifar-100-python`` (default ``./data``); downloaded to it if missing.

    Raises:
        UserError: the files are neither there nor can be downloaded.
    """
    from torchvision.datasets import CIFAR100

    return _load("cifar100", CIFAR100, root)


def _load(name: str, kind: Any, root: Path | None) -> DatasetSplits:
    base = Path(root or DEFAULT_ROOT).expanduser()
    try:
        train, test = _read(kind, base, download=False)
    except RuntimeError:  # torchvision's answer to files that are missing or have another MD5
        with downloading(name, base):
            train, test = _read(kind, base, download=True)
    return DatasetSplits(_split(name, "train", train), _split(name, "test", test))


def _read(kind: Any, base: Path, download: bool) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # The pickles were made by a NumPy of 2009, whose way to write a dtype current NumPy calls deprecated.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        return kind(str(base), train=True, download=download), kind(str(base), train=False, download=download)


def _split(name: str, split: str, data: Any) -> ImageDataset:
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()  # [N, 32, 32, 3] -> [N, 3, 32, 32]
    labels = torch.tensor(data.targets, dtype=torch.int64)
    return ImageDataset(images, labels, tuple(data.classes), f"{name}/{split}", mirror=True)
