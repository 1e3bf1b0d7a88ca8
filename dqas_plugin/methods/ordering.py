"""What all methods share: the one place that sorts, and the two meanings of a method's name."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.data import IntArray
from dqas_plugin.errors import unknown_name

Compat = Literal["deepcore", "paper"]
"""``deepcore``: what the released DeepCore picks. ``paper``: the method as its own authors published it."""

DEEPCORE_BATCH = 256  # its default number of samples at a time


def is_deepcore(method: str, compat: str) -> bool:
    """Whether the released DeepCore is to be followed.

    Raises:
        UserError: for another word than the two of :data:`Compat`.
    """
    if compat not in ("deepcore", "paper"):
        raise unknown_name(f"compat of {method}", compat, ("deepcore", "paper"))
    return compat == "deepcore"


def variants() -> dict[str, dict[str, str]]:
    """The variants of a method that has nothing but ``compat``."""
    return {"deepcore": {"compat": "deepcore"}, "paper": {"compat": "paper"}}


def highest_first(scores: Tensor | npt.NDArray[np.float64]) -> IntArray:
    """Positions by falling score, int64; equal scores keep their order, and NaN comes last."""
    values = scores.detach().cpu().numpy() if isinstance(scores, Tensor) else scores
    return np.argsort(-values.astype(np.float64), kind="stable").astype(np.int64)


def lowest_first(scores: Tensor | npt.NDArray[np.float64]) -> IntArray:
    """Positions by rising score, as :func:`highest_first`."""
    return highest_first(-scores)


def batch_scale(count: int, batch: int | None) -> Tensor:
    """One over the size of the batch that each sample is in, when so many are taken in turn; float64 ``[count]``.

    DeepCore takes gradients of the *mean* loss of a batch, so that those of a last, shorter batch come out longer. None: all
    samples are one batch.
    """
    size = min(batch or count, count)
    scale = torch.full((count,), 1.0 / max(1, size), dtype=torch.float64)
    if size and (rest := count % size):
        scale[count - rest :] = 1.0 / rest
    return scale
