"""Generated patterns on which the right class counts are known: the control of every allocator.

A *mode* is one smooth random pattern. An easy class has a single mode, so a handful of samples show all there is; a hard
class has many unrelated ones, and a mode that is missing from the training set cannot be guessed. With k samples of a
class of m modes about ``1 - exp(-k / m)`` of them are seen: moving budget from easy to hard classes must help.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from dqas_plugin.data import DatasetSplits, FloatArray, ImageDataset, IntArray
from dqas_plugin.datasets.decode import Pixels
from dqas_plugin.errors import UserError
from dqas_plugin.seeding import generator

_FREQUENCIES = 4  # cosines per axis that make a pattern: smooth at any size, and 15 numbers tell patterns apart
_CONTRAST = 45.0  # grey levels of one standard deviation of a pattern
_SHIFT = 1  # pixels that a sample may move in either direction


def load(
    root: Path | None,
    *,
    classes: int = 10,
    modes: int = 60,
    easy_share: float = 0.5,
    per_class: int = 400,
    test_per_class: int = 100,
    size: int = 16,
    noise: float = 15.0,
    seed: int = 0,
) -> DatasetSplits:
    """Grey images ``[N, 1, size, size]``; the first ``easy_share`` of the classes have one mode, the others ``modes``.

    Args:
        root: not used; the data are generated.
        classes: number of classes, at least 2.
        modes: patterns of a hard class.
        easy_share: part of the classes that are easy, 0..1 (rounded to whole classes).
        per_class: training images of each class.
        test_per_class: test images of each class.
        size: side length in pixels, at least 8.
        noise: standard deviation of the pixel noise, grey levels of 0..255.
        seed: same seed, same images.

    Raises:
        UserError: an option lies outside its range.
    """
    sizes = {"per_class": (per_class, 1), "test_per_class": (test_per_class, 1), "size": (size, 8)}
    _check({"classes": (classes, 2), "modes": (modes, 1)} | sizes, easy_share, noise)
    easy = round(classes * easy_share)
    names = tuple(f"easy-{i}" if i < easy else f"hard-{i - easy}" for i in range(classes))
    modes_of = np.where(np.arange(classes) < easy, 1, modes)
    patterns = _patterns(int(modes_of.sum()), size, seed)

    def split(part: str, count: int) -> ImageDataset:
        labels = np.repeat(np.arange(classes, dtype=np.int64), count)
        images = _samples(patterns, modes_of, labels, noise=noise, rng=generator(seed, "shapes", part))
        return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), names, f"shapes/{part}", mirror=False)

    return DatasetSplits(split("train", per_class), split("test", test_per_class))


def _check(lowest: Mapping[str, tuple[int, int]], easy_share: float, noise: float) -> None:
    """Refuse an option out of range; ``lowest`` has the value of each whole number and the least it may be."""
    for option, (value, least) in lowest.items():
        if value < least:
            raise UserError(f"shapes: {option} must be at least {least}, not {value}")
    if not 0.0 <= easy_share <= 1.0:
        raise UserError(f"shapes: easy_share must lie in 0..1, not {easy_share}")
    if not 0.0 <= noise < float("inf"):
        raise UserError(f"shapes: noise must be 0 or more grey levels, not {noise}")


def _patterns(count: int, size: int, seed: int) -> FloatArray:
    """Smooth random fields of zero mean and unit deviation, float64 ``[count, size + 2, size + 2]`` (room for the shift)."""
    side = size + 2 * _SHIFT
    position = (np.arange(side) + 0.5) / side
    cosines = np.cos(np.pi * np.outer(position, np.arange(_FREQUENCIES)))  # [side, F]
    weights = generator(seed, "shapes", "patterns").normal(size=(count, _FREQUENCIES, _FREQUENCIES))
    weights[:, 0, 0] = 0.0  # the constant: brightness must not tell classes apart
    fields = np.einsum("yf,cfg,xg->cyx", cosines, weights, cosines)
    scaled: FloatArray = (fields - fields.mean(axis=(1, 2), keepdims=True)) / fields.std(axis=(1, 2), keepdims=True)
    return scaled


def _samples(patterns: FloatArray, modes_of: IntArray, labels: IntArray, *, noise: float, rng: np.random.Generator) -> Pixels:
    """One image per label: a random mode of its class, moved by at most a pixel, with noise; uint8 ``[N, 1, size, size]``."""
    size = patterns.shape[1] - 2 * _SHIFT
    first = np.concatenate([[0], np.cumsum(modes_of)[:-1]])
    mode = first[labels] + rng.integers(0, modes_of[labels])
    top, left = rng.integers(0, 2 * _SHIFT + 1, size=(2, len(labels), 1, 1))
    rows, columns = top + np.arange(size)[:, None], left + np.arange(size)
    clean = 127.5 + _CONTRAST * patterns[mode[:, None, None], rows, columns]
    noisy = clean + noise * rng.normal(size=clean.shape)
    images: Pixels = np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)[:, None]
    return images
