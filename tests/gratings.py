"""Images and autoencoders for the tests of the masked autoencoder."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.quantization.mae import MaeShape, MaskedAutoencoder

BASE = MaeShape((3, 32, 32), 8, width=768, depth=1, heads=12, decoder_width=64, decoder_depth=2, decoder_heads=16)
"""As wide as ViT-B, or nothing would tell its heads; otherwise as small as can be."""


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gratings(count: int, size: int = 16, channels: int = 3, seed: int = 0) -> Tensor:
    """Waves across the whole image, uint8 ``[count, channels, size, size]``: what a hole hides continues on its other side."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    angle, phase = chance.uniform(0, math.pi, (count, 1, 1)), chance.uniform(0, 2 * math.pi, (count, 1, 1))
    wave = np.sin(1.3 * (rows * np.sin(angle) + columns * np.cos(angle)) + phase)
    grey = np.repeat(wave[:, None], channels, axis=1)
    return torch.from_numpy((127.5 + 110 * grey + chance.normal(0, 4, grey.shape)).clip(0, 255).astype(np.uint8))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws(seed))


def shaken(mae: MaskedAutoencoder, seed: int = 0) -> MaskedAutoencoder:
    """Every weight random, positions, biases and scales among them."""
    chance = draws(seed)
    with torch.no_grad():
        for one in mae.parameters():
            one.copy_(torch.randn(one.shape, generator=chance) * 0.2 / max(1, one.shape[-1] ** 0.5 / 8))
    return mae.eval()
