"""scikit-learn's digits: the embedded default, no files and no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dqas_plugin.data import BoolArray, DatasetSplits, ImageDataset
from dqas_plugin.datasets.splits import stratified_test_mask

_SPLIT_SEED = 0
_TEST_SHARE = 0.2


def load(root: Path | None) -> DatasetSplits:
    """1,797 grey 8x8 digits; values 0..16 are spread over 0..255 (``round(v * 255 / 16)``), 80/20 stratified by a fixed seed.

    Args:
        root: not used; the data are part of scikit-learn.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998).
    """
    from sklearn.datasets import load_digits  # slow to import, and needed by this dataset alone

    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)[:, None]  # [N, 1, 8, 8]
    labels = bunch.target.astype(np.int64)
    classes = tuple(str(one) for one in range(10))
    in_test = stratified_test_mask(labels, classes, _TEST_SHARE, _SPLIT_SEED, "digits")

    def split(name: str, mask: BoolArray) -> ImageDataset:
        return ImageDataset(
            torch.from_numpy(images[mask]), torch.from_numpy(labels[mask]), classes, f"digits/{name}", mirror=False
        )

    return DatasetSplits(split("train", ~in_test), split("test", in_test))
