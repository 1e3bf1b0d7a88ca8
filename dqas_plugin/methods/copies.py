"""Which samples are equal to an earlier one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dqas_plugin.data import IntArray

_WORDS = 2**20  # taken at once


def first_copies(*arrays: Tensor | npt.NDArray[Any]) -> IntArray:
    """For every row the position of the first one that is equal in all arrays ``[n, …]``, bit for bit; int64 ``[n]``.

    Rows are told apart by a linear hash of 64 bits; those with equal hashes are compared.
    """
    columns = [_words(one.detach().cpu().numpy() if isinstance(one, Tensor) else one) for one in arrays]
    hashes = sum(_hash(one, seed) for seed, one in enumerate(columns))
    _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    found: IntArray = first[place.reshape(-1)].astype(np.int64)
    later = np.flatnonzero(found != np.arange(len(found)))
    if all((one[later] == one[found[later]]).all() for one in columns):
        return found
    return _slowly(columns)


def _words(array: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """The bits of every row, ``[n, words]``."""
    flat = np.ascontiguousarray(array).reshape(len(array), math.prod(array.shape[1:]))
    return flat.view(np.uint32) if flat.dtype.itemsize % 4 == 0 else flat.astype(np.int64).view(np.uint32)


def _hash(words: npt.NDArray[np.uint32], seed: int) -> npt.NDArray[np.uint64]:
    """A sum of the words, each times an odd number of its own, modulo 2^64."""
    factors = np.random.default_rng(seed).integers(0, 2**63, words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    result = np.empty(len(words), dtype=np.uint64)
    step = max(1, _WORDS // max(1, words.shape[1]))
    for start in range(0, len(words), step):
        part = slice(start, start + step)
        result[part] = (words[part] * factors).sum(axis=1, dtype=np.uint64)
    return result


def _slowly(columns: list[npt.NDArray[np.uint32]]) -> IntArray:
    """By the rows themselves, where different ones have the same hash."""
    seen: dict[bytes, int] = {}
    keys = (b"".join(one.tobytes() for one in row) for row in zip(*columns, strict=True))
    return np.array([seen.setdefault(key, position) for position, key in enumerate(keys)], dtype=np.int64)
