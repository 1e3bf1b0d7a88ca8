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
        UserError: if it is not one of the request's images, or has weights, which belong to a whole ranking.
    """
    data = request.data
    if len(ranking.order) != data.num_classes:
        raise UserError(f"the ranking has {len(ranking.order)} classes but {data.name} has {data.num_classes}")
    for label, one in enumerate(ranking.order):
        if len(one) and (one.max() >= len(data) or (data.labels.numpy()[one] != label).any()):
            raise UserError(f"the ranking of class {label} holds other samples than {data.name} has: load its own dataset")
    if request.candidates is None:
        return ranking
    if ranking.weights is not None:
        raise UserError("a ranking with weights cannot be restricted to some candidates: rank again")
    kept = tuple(one[np.isin(one, request.candidates)] for one in ranking.order)
    return Ranking(kept, ranking.method, ranking.nested, None, ranking.provenance)
