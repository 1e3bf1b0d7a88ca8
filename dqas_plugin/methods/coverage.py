"""Facility location: every sample of the class shall have a similar one among the picked.

``facility-location``: similarity of last-layer gradients by their angle. ``craig``: by their distance, with a weight for every
pick, the number of samples that it stands for.

All pairs take 8 n² bytes. Above ``max_memory`` only the similarities of each sample to its nearest are kept, and said so.
Craig's all pairs are in float32 first (:mod:`~dqas_plugin.methods.distance_cover`), and in float64 where that is not enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.contracts import Bounds, Size, Weighted, memory_text, selector
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.gradients import LastLayerGradients, in_chunks, squared_lengths
from dqas_plugin.methods import ordering
from dqas_plugin.methods.copies import first_copies
from dqas_plugin.methods.greedy_coverage import MANY, cover, cover_by_neighbours, cover_on_device
from dqas_plugin.methods.neighbours import BLOCK, at_least_one, block_rows
from dqas_plugin.methods.ordering import Compat
from dqas_plugin.signals import View

NEIGHBOURS = 100

_SAME = 1e-14  # squared distances below this share of the squared lengths are rounding
_FLOOR = 1e-6  # DeepCore's least distance
_ENTRY = 40  # bytes a kept similarity takes at the peak: its value, its position, and the sorted places of all positions


def dense_bytes(count: int) -> int:
    """What all pairs of ``count`` samples take, and the blocks they are made of."""
    return 8 * count * count + _blocks(count)


def sparse_bytes(count: int, neighbours: int = NEIGHBOURS) -> int:
    """What the nearest of each of ``count`` samples take, and the blocks they are found in."""
    return _ENTRY * count * min(neighbours, count) + _blocks(count)


def needed_bytes(size: Size) -> int:
    """What covering a class takes: all pairs if they fit the limit, else the nearest."""
    dense = dense_bytes(size.samples)
    return dense if dense <= size.limit else sparse_bytes(size.samples, size.options.get("neighbours", NEIGHBOURS))


def _blocks(count: int) -> int:
    return 4 * min(max(BLOCK, 8 * count), 8 * count * count)


@selector(
    "facility-location",
    title="Facility location: a similar one for every sample",
    family="submodular",
    needs={"gradients"},
    source="Iyer et al., ALT 2021; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: the same",
    memory=needed_bytes,
)
def facility_location(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    neighbours: Annotated[int, Bounds(1)] = NEIGHBOURS,
    compat: Compat = "deepcore",
) -> IntArray:
    """Greedy maximisation of ``Σ_i max_{p picked} (.5 + .5 cos(g_p, g_i))`` over last-layer gradients.

    The cosine to a gradient of length 0 counts as 0.

    Args:
        view: one class.
        budget: how many.
        rng: not used, nothing is random.
        neighbours: how many similarities of each sample are kept where all pairs take more than ``view.max_memory``.
        compat: ``deepcore`` and ``paper`` are the same.

    Returns:
        positions in the order of picking, int64; equal gains go to the lowest position.

    Raises:
        UserError: if even the neighbours take more than the memory.
    """
    ordering.is_deepcore("facility-location", compat)
    return _covered(view, angles(view.gradients), budget, neighbours, "facility-location").picks


@selector(
    "craig",
    title="Craig: samples whose weighted gradients stand for all",
    family="gradient",
    needs={"gradients"},
    source="Mirzasoleiman et al., ICML 2020; PatrickZH/DeepCore",
    variants=ordering.variants(),
    differs="paper: distances of p - y alone, weights that sum to the class size; DeepCore: of whole gradients, weights + 1",
    memory=needed_bytes,
)
def craig(
    view: View,
    budget: int,
    rng: np.random.Generator,
    *,
    batch: Annotated[int, Bounds(1)] | None = ordering.DEEPCORE_BATCH,
    neighbours: Annotated[int, Bounds(1)] = NEIGHBOURS,
    compat: Compat = "deepcore",
) -> Weighted:
    """Facility location on how near the gradients are, ``s = max distance - distance``; each pick weighs what it stands for.

    ``deepcore``: gradients of the last layer, of the mean loss of a batch; weights are 1 + the number of samples whose nearest
    pick it is. (It also adds 1e-3 to every similarity, which no choice depends on.) ``paper``: distances of ``p - y``, which
    bound those of all gradients up to a constant; weights are that number.

    Args:
        view: one class.
        budget: how many.
        rng: not used, nothing is random.
        batch: samples in a batch, for ``deepcore``: gradients in a last, shorter batch come out longer. None: all in one.
        neighbours: how many similarities of each sample are kept where all pairs take more than ``view.max_memory``.
        compat: ``deepcore`` or ``paper``.

    Returns:
        positions in the order of picking, int64, and their weights, float64; equal gains go to the lowest position, and a
        sample between two picks to the lower.

    Raises:
        UserError: if even the neighbours take more than the memory.
    """
    if ordering.is_deepcore("craig", compat):
        scale = ordering.batch_scale(len(view), None if batch is None else at_least_one("batch", batch))
        picks, shares = _near(view, view.gradients.scaled(scale), _FLOOR, budget, neighbours)
        return Weighted(picks, 1.0 + shares)
    residuals = LastLayerGradients(view.gradients.residuals, view.gradients.features[:, :0])
    return Weighted(*_near(view, residuals, 0.0, budget, neighbours))


def _near(view: View, gradients: LastLayerGradients, floor: float, budget: int, neighbours: int) -> tuple[IntArray, FloatArray]:
    """Picks near all gradients, and how many each is the nearest to."""
    at_least_one("neighbours", neighbours)
    count = len(gradients)
    if count >= MANY and gradients.features.device.type == "cpu" and dense_bytes(count) <= view.max_memory:
        from dqas_plugin.methods.distance_cover import cover_distances  # compiles

        covered = cover_distances(gradients, floor, budget)
        if covered is not None:
            return covered.picks, covered.shares
    found = _covered(view, distances(gradients, floor), budget, neighbours, "craig")
    return found.picks, _shares(found)


@dataclass(frozen=True, eq=False)
class Closeness:
    """How close every two of n samples are, by blocks.

    Attributes:
        block: float64 ``[len(rows), len(columns)]`` of rows and columns, slices or positions.
        copies: for every sample the first one that is equal to it, int64 ``[n]``.
        relative: whether similarities are how far closeness is above its least; otherwise they are the closeness itself.
        device: of the blocks.
    """

    block: Callable[[slice, slice | Tensor], Tensor]
    copies: IntArray
    relative: bool
    device: torch.device

    def __len__(self) -> int:
        return len(self.copies)

    def matrix(self) -> Tensor:
        """Similarities of all pairs, float64 ``[n, n]``, symmetric; rows of equal samples are equal to the last digit."""
        count, step = len(self), block_rows(len(self))
        result = _empty(count, self.device)
        for start in range(0, count, step):
            block = self.block(slice(start, start + step), slice(start, count))
            result[start : start + step, start:] = block
            result[start + step :, start : start + step] = block[:, step:].T
        later, first = torch.from_numpy(np.flatnonzero(self.copies != np.arange(count))), torch.from_numpy(self.copies)
        for start in range(0, len(later), step):
            part = later[start : start + step]
            result[part] = result[first[part]]
            result[:, part] = result[:, first[part]]
        return result.sub_(result.min()) if self.relative and count else result

    def nearest(self, count: int) -> tuple[Tensor, Tensor]:
        """Positions (int32) and similarities (float64) of the ``count`` closest of every sample, ``[n, count]`` each."""
        # Kept arrays are made first: small ones made in between would leave the freed blocks too short for the next.
        values = torch.empty(len(self), count, dtype=torch.float64, device=self.device)
        positions, lowest = torch.empty_like(values, dtype=torch.int32), values.new_full((), torch.inf)
        step = block_rows(len(self))
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            block = self.block(rows, slice(None))
            values[rows], positions[rows] = block.topk(count)
            torch.minimum(lowest, block.min(), out=lowest)
        return positions, values.sub_(lowest) if self.relative else values


def _empty(count: int, device: torch.device) -> Tensor:
    """Room for all pairs; on a processor NumPy asks for large pages, of which far fewer have to be made."""
    if device.type == "cpu":
        return torch.from_numpy(np.empty((count, count)))
    return torch.empty(count, count, dtype=torch.float64, device=device)


def angles(gradients: LastLayerGradients) -> Closeness:
    """``.5 + .5 cos`` of the gradients."""
    lengths = gradients.residuals.norm(dim=1, keepdim=True)
    left = gradients.residuals / torch.where(lengths > 0, lengths, 1.0)  # (n, C)
    half, right = left / 2, _directions(gradients.features)

    def block(rows: slice, columns: slice | Tensor) -> Tensor:
        return (half[rows] @ left[columns].T).mul_(right[rows] @ right[columns].T).add_(0.5)

    return Closeness(block, first_copies(gradients.residuals, gradients.features), False, left.device)


def distances(gradients: LastLayerGradients, floor: float = _FLOOR) -> Closeness:
    """Minus the distance of the gradients; at least ``floor``."""
    left = gradients.residuals * squared_lengths(gradients.features).add_(1.0).sqrt_()[:, None]  # times |[φ, 1]|
    copies = first_copies(left, gradients.features)
    return Closeness(_distance_block(left, _directions(gradients.features), floor * floor), copies, True, left.device)


def _distance_block(left: Tensor, right: Tensor, least: float) -> Callable[[slice, slice | Tensor], Tensor]:
    """Minus distances of ``left ⊗ right``; the rows of ``right`` have length 1."""
    lengths, minus = left.square().sum(dim=1), -2.0 * left

    def block(rows: slice, columns: slice | Tensor) -> Tensor:
        squares = (minus[rows] @ left[columns].T).mul_(right[rows] @ right[columns].T)
        sums = lengths[rows, None] + lengths[columns]
        squares += sums
        squares.masked_fill_(squares <= sums.mul_(_SAME), 0.0)
        return squares.clamp_(min=least).sqrt_().neg_()

    return block


def _directions(features: Tensor) -> Tensor:
    """``[φ, 1]`` of length 1, float64 ``[n, d + 1]``."""
    result = features.new_ones((len(features), features.shape[1] + 1), dtype=torch.float64)
    at = 0
    for part in in_chunks(features):
        result[at : at + len(part), :-1] = part
        at += len(part)
    return result.div_(squared_lengths(features).add_(1.0).sqrt_()[:, None])


@dataclass(frozen=True, eq=False)
class _Cover:
    """Picks in their order, and the closeness of any of the ``count`` samples to any samples."""

    picks: IntArray
    block: Callable[[slice, Tensor], Tensor]
    device: torch.device
    count: int


def _covered(view: View, closeness: Closeness, budget: int, neighbours: int, method: str) -> _Cover:
    """Cover the class by all pairs, or by the neighbours of each where that takes too much memory."""
    count, kept = len(closeness), min(at_least_one("neighbours", neighbours), len(closeness))
    if dense_bytes(count) <= view.max_memory or not count:
        matrix = closeness.matrix()
        on_cpu = matrix.device.type == "cpu"
        picks = cover(matrix.numpy(), budget) if on_cpu else cover_on_device(matrix, budget).cpu().numpy()
        return _Cover(picks, lambda rows, columns: matrix[rows][:, columns], closeness.device, count)
    if sparse_bytes(count, kept) > view.max_memory:
        raise UserError(
            f"{method} with {kept} neighbours of each of {count:,} images needs {memory_text(sparse_bytes(count, kept))}: "
            f"raise --max-memory (max_memory), or lower neighbours"
        )
    view.note(
        f"{method} compared each of {count:,} images with its {kept} nearest only: all pairs would take "
        f"{memory_text(dense_bytes(count))}, more than the {memory_text(view.max_memory)} allowed (max_memory)"
    )
    positions, values = closeness.nearest(kept)
    picks = cover_by_neighbours(positions.cpu().numpy(), values.cpu().numpy(), budget)
    return _Cover(picks, closeness.block, closeness.device, count)


def _shares(found: _Cover) -> FloatArray:
    """How many samples each pick is the closest to, float64, in the order of the picks; between two, the lower position."""
    chosen = np.sort(found.picks)
    shares = np.zeros(len(chosen))
    columns = torch.from_numpy(chosen).to(found.device)
    places = torch.arange(len(chosen), device=found.device)
    step = block_rows(len(chosen))
    for start in range(0, found.count if len(chosen) else 0, step):
        values = found.block(slice(start, start + step), columns)
        closest = torch.where(values >= values.amax(dim=1, keepdim=True), places, len(chosen)).amin(dim=1)
        shares += torch.bincount(closest, minlength=len(chosen)).cpu().numpy()
    return shares[np.searchsorted(chosen, found.picks)]
