"""ZCA whitening as trajectory matching uses it, fitted, applied and taken back.

Of images in 0..1, flattened: mean m and covariance S (divided by N - 1) of the training images, S = U diag(s) U';
``z = (x - m) U diag((s + eps)^-1/2) U'`` with eps = .1. As eps is added, nothing is lost, and
``x = z U diag((s + eps)^1/2) U' + m``. ``kornia.enhance.ZCAWhitening(eps=0.1, compute_inv=True)`` computes the same in float32
by singular value decomposition.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.cache_entry import cached_entry, entry_key, map_array
from dqas_plugin.data import FloatArray, ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.paths import cache_folder

EPS = 0.1
_CHUNK = 2048
_DOUBLE = 4096  # values an image up to which the decomposition is done in float64; 12,288 of them would take 5 GB
_VERSION = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted whitening.

    Attributes:
        shape: of an image, (channels, height, width).
        count: how many images it was fitted on.
        mean: float32 ``[d]``.
        forward: float32 ``[d, d]``, symmetric.
        inverse: float32 ``[d, d]``, symmetric.
        eps: what was added to the eigenvalues.
    """

    shape: tuple[int, int, int]
    count: int
    mean: Tensor
    forward: Tensor
    inverse: Tensor
    eps: float = EPS

    def apply(self, values: Tensor) -> Tensor:
        """Whiten float32 ``[B, C, H, W]`` in 0..1."""
        return ((values.flatten(1) - self.mean) @ self.forward).reshape(values.shape)

    def undo(self, values: Tensor) -> Tensor:
        """Take it back: whitened float32 ``[B, C, H, W]`` to values in 0..1."""
        return (values.flatten(1) @ self.inverse + self.mean).reshape(values.shape)


def fit(images: Tensor, eps: float = EPS) -> Whitening:
    """Fit a whitening.

    Args:
        images: uint8 ``[N, C, H, W]``, at least two.
        eps: added to the eigenvalues of the covariance of values in 0..1.
    """
    channels, height, width = images.shape[1:]
    mean, covariance = _moments(images)
    values, vectors = np.linalg.eigh(covariance)
    roots = np.sqrt(np.maximum(values, 0) + eps)  # the covariance is singular where images are few, up to rounding

    def matrix(diagonal: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(((vectors * diagonal) @ vectors.T).astype(np.float32))

    forward, inverse = matrix(1 / roots), matrix(roots)
    return Whitening((channels, height, width), len(images), torch.from_numpy(mean.astype(np.float32)), forward, inverse, eps)


def whitening_of(data: ImageDataset) -> Whitening:
    """The whitening fitted on a dataset, from the cache if it is there.

    Args:
        data: the training images.

    Raises:
        UserError: fewer than two images, or the cache cannot be written.
    """
    if len(data) < 2:
        raise UserError(f"{data.name} has {len(data)} images, and whitening needs at least 2: name another dataset")
    key = entry_key({"whitening": _VERSION, "dataset": data.fingerprint, "eps": EPS})

    def fill(folder: Path) -> dict[str, Any]:
        _log.info("fitting the whitening of %s (%d values an image)", data.name, data.images[0].numel())
        found = fit(data.images)
        for part in ("mean", "forward", "inverse"):
            np.save(folder / f"{part}.npy", getattr(found, part).numpy())
        return {"count": found.count}

    def read(folder: Path, meta: dict[str, Any]) -> Whitening:
        mean, forward, inverse = (map_array(folder / f"{part}.npy") for part in ("mean", "forward", "inverse"))
        return Whitening(data.image_shape, int(meta["count"]), mean, forward, inverse)

    return cached_entry(cache_folder("whitening") / key, f"the whitening of {data.name}", fill, read)


def _moments(images: Tensor) -> tuple[FloatArray, npt.NDArray[Any]]:
    """Mean float64 ``[d]`` and covariance ``[d, d]`` of values in 0..1."""
    size = images[0].numel()
    total = np.zeros(size)
    for start in range(0, len(images), _CHUNK):
        total += images[start : start + _CHUNK].flatten(1).numpy().sum(axis=0, dtype=np.int64)
    mean = total / (255 * len(images))
    covariance = np.zeros((size, size), dtype=np.float64 if size <= _DOUBLE else np.float32)
    centre = mean.astype(np.float32)
    for start in range(0, len(images), _CHUNK):
        values = images[start : start + _CHUNK].flatten(1).numpy() / np.float32(255) - centre
        covariance += values.T @ values
    covariance /= len(images) - 1
    return mean, covariance
