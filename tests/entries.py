"""A cache entry that takes no time, and whose content is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dqas_plugin.cache_entry import ArrayFile, cached_entry, map_array, write_weights

LARGE = 1 << 20  # bytes of the arrays here, where "large" means more than 1,000


class Entry:
    """A cache entry of a large array and of a few numbers; counts how often it is built."""

    def __init__(self, folder: Path) -> None:
        self.path, self.built = folder / "entry", 0

    def open(self) -> float:
        return cached_entry(self.path, "the toy", self.fill, self.read)

    def fill(self, folder: Path) -> dict[str, Any]:
        self.built += 1
        with ArrayFile(folder / "values.npy", (LARGE // 4,), np.float32) as file:
            file.write(np.ones(LARGE // 4))
        write_weights({"a": torch.arange(5)}, folder / "network.pt")
        return {"more": 0.5}

    def read(self, folder: Path, meta: dict[str, Any]) -> float:
        return float(map_array(folder / "values.npy").sum()) + float(meta["more"])


VALUE = LARGE // 4 + 0.5
