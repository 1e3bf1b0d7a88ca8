"""Words and numbers that mean something in several places. Nothing heavy is imported to know them."""

from __future__ import annotations

DEFAULT_MODEL = "convnet3-small"
DEFAULT_RECIPE = "quick"

PROXIES = ("probe", "train")
"""What an allocator trains: a last layer, or the network."""

GOALS = ("mean", "natural", "worst")
"""What "better" means: class-mean accuracy, accuracy weighted by class frequencies, accuracy of the lowest class."""

ADAPTIVE = "error-reduction"
"""The refiner that is part of adaptive sampling (paper, section 3.3)."""

NONE = "none"
"""Stands for no refiner where there would be one."""

MAX_MEMORY = 4 * 2**30
"""What ranking may take, in bytes, beyond the signals, unless the user says otherwise."""
