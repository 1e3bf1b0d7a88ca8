"""Rankings that are there already, which only have to fit: plain indices, or somebody's ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.request import SelectionRequest
from dqas_plugin.selection import Ranking


def ranking_of(indices: npt.NDArray[Any], data: ImageDataset) -> Ranking:
    """A ranking that keeps the order of plain indices, class by class.

    Raises:
        UserError: unless they are different indices into ``data``.
    """
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or len(np.unique(indices)) != len(indices):
        raise UserError("indices to be cut must be one row of different whole numbers")
    if len(indices) and not (0 <= indices.min() and indices.max() < len(data)):
        raise UserError(f"indices to be cut must lie in 0..{len(data) - 1}, the images of {data.name}")
    labels = data.labels.numpy()[indices]
    return Ranking(tuple(indices[labels == label].astype(np.int64) for label in range(data.num_classes)), "indices")


def within(ranking: Ranking, request: SelectionRequest) -> Ranking:
    """The ranking without what may not be selected.

    Raises:
        UserError: if it is not one of the request's images, or would be cut although it belongs together.
    """
    data = request.data
    if len(ranking.order) != data.num_classes:
        raise UserError(f"the ranking has {len(ranking.order)} classes but {data.name} has {data.num_classes}")
    for label, one in enumerate(ranking.order):
        if len(one) and (one.max() >= len(data) or (data.labels.numpy()[one] != label).any()):
            raise UserError(f"the ranking of class {label} holds other samples than {data.name} has: load its own dataset")
    if request.candidates is None:
        return ranking
    if _belongs_together(ranking):
        raise UserError(f"{_told(ranking)}, so it cannot be restricted to some candidates: rank again")
    kept = tuple(one[np.isin(one, request.candidates)] for one in ranking.order)
    return Ranking(kept, ranking.method, ranking.nested, None, ranking.provenance)


def check_whole(ranking: Ranking, wanted: int) -> None:
    """Refuse to take a part of a ranking that belongs together, or more than it has.

    Args:
        ranking: one that is there already.
        wanted: samples that are to be taken of it.

    Raises:
        UserError: if so.
    """
    whole = int(ranking.capacity.sum())
    if _belongs_together(ranking) and wanted != whole:
        raise UserError(
            f"{_told(ranking)}, {whole:,} samples, and {wanted:,} are to be taken of it: choose a budget that takes all, or "
            "rank again"
        )


def _belongs_together(ranking: Ranking) -> bool:
    """Whether the choice, or its weights, are those of these very samples."""
    return not ranking.nested or ranking.weights is not None


def _told(ranking: Ranking) -> str:
    return f"the ranking '{ranking.method}' {'has weights that hold' if ranking.weights is not None else 'holds'} as a whole"
