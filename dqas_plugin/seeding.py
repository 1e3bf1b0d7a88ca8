"""The one place that turns a seed into random numbers.

A seed is always scoped by what it is used for (``generator(seed, "rank", class_index)``), so that two consumers of the
same user-facing seed never share a stream and adding a consumer never shifts another one. No global generator is touched.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

Scope = str | int


def derive(seed: int, *scope: Scope) -> int:
    """A 63-bit seed that depends on ``seed`` and on every element of ``scope``, the same on every machine."""
    text = "\x1f".join([str(int(seed)), *(f"{type(part).__name__}:{part}" for part in scope)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *scope: Scope) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng(derive(seed, *scope))


def torch_generator(seed: int, *scope: Scope, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose, on ``device``."""
    return torch.Generator(device=device).manual_seed(derive(seed, *scope))
