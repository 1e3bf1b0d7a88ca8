"""The picks of ``greedy.best_gains`` where the numbers are not in main memory: a GPU is never waited for between two picks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.methods.greedy import TIE
from dqas_plugin.recorded_steps import Repeated

_RECORD_PICKS = 50  # recording a pick takes as long as some tens of them


def best_gains_on_device(
    left: Tensor | None,
    right: Tensor,
    start: Tensor,
    step: Tensor,
    weight: float,
    budget: int,
    bin_sizes: Sequence[int] = (),
) -> Tensor:
    """As :func:`~dqas_plugin.methods.greedy.best_gains`, all in float64 and all on the device; O(n (a + b)) memory.

    Args:
        left: float64 ``[n, a]``; None: ones, as for plain features.
        right: float64 ``[n, b]``; rows ``left ⊗ right`` have norm 1 at most.
        start: float64 ``[n]``.
        step: float64 ``[n]``.
        weight: factor of K; may be negative.
        budget: how many to pick; n at most.
        bin_sizes: picks of each bin; what follows the last one is one more bin.

    Returns:
        positions in the order of picking, int64 ``[budget]`` on the device; equal gains go to the lowest position.
    """
    count, device = len(start), start.device
    picks = torch.zeros(min(budget, count), dtype=torch.int64, device=device)
    taken = torch.zeros(count, dtype=torch.bool, device=device)
    place = torch.zeros(1, dtype=torch.int64, device=device)  # of the next pick
    ends = set(np.cumsum(bin_sizes).tolist())
    gain, base = start.clone(), start.clone()

    def take() -> None:
        pick = first_highest(gain.masked_fill(taken, -torch.inf), absolute=TIE * abs(weight) * count)
        picks.index_copy_(0, place, pick)
        taken.index_fill_(0, pick, True)
        place.add_(1)
        product = right @ right.index_select(0, pick)[0]
        if left is not None:
            product *= left @ left.index_select(0, pick)[0]
        gain.add_(step)
        gain.sub_(weight * product)

    one = Repeated(take, device) if device.type == "cuda" and len(picks) >= _RECORD_PICKS else take
    for turn in range(len(picks)):
        if turn in ends:
            gain.add_(base).div_(2)
            base.copy_(gain)
        one()
    return picks


def first_highest(values: Tensor, *, absolute: float = 0.0, relative: float = 0.0) -> Tensor:
    """Lowest position of the values ``[n]`` that equal their maximum, int64 ``[1]`` on their device.

    ``argmax`` does not promise which of equal values it gives.

    Args:
        values: float ``[n]``.
        absolute: values so far below the maximum are equal to it.
        relative: and those below it by this share of it.
    """
    places = torch.arange(len(values), device=values.device)
    highest = values.max()
    return torch.where(values >= highest - absolute - relative * highest, places, len(values)).min().view(1)
