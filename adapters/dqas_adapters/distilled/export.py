"""Images as tensors for benchmarks of distilled sets: DD-Ranking, and DC-BENCH (justincui03/dc_benchmark).

Both train on a tensor of images as it is, in the units in which they read real images: normalised, or whitened. Both want class
order; labels that DD-Ranking is not given it makes up from the place of an image, the same number of each class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dqas_adapters.distilled.normalisation import CONDENSATION, TRAJECTORIES, Normalisation, NormalisationName
from dqas_adapters.distilled.pixels import CHUNK
from dqas_adapters.distilled.whitening import Whitening, whitening_of
from dqas_adapters.record import origin, write_record
from dqas_plugin.cache_entry import write_weights
from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.lookup import load_dataset
from dqas_plugin.selection import Selection

_FORMAT = "option of the format 'dc'"
_LEAST = 1e-12  # probability below which logits are not written: -27.6 rather than minus infinity


def write(
    splits: DatasetSplits,
    selection: Selection | None,
    out: Path,
    *,
    style: Literal["dd-ranking", "dc-benchmark"] = "dd-ranking",
    normalisation: NormalisationName = "auto",
    zca_from: str | None = None,
    data_root: str | None = None,
) -> None:
    """Write the chosen training images in class order; test images are those of the benchmark.

    ``dd-ranking``: ``images.pt`` (float32 ``[N, C, H, W]``) and ``labels.pt`` (int64 ``[N]``, or for soft labels their
    logarithms, float32 ``[N, C]``, since its losses take the softmax). ``dc-benchmark``: ``images_best.pt`` and
    ``labels_best.pt`` (int64 ``[N]``), as its reader of trajectory matching (TM) loads them. Weights of a selection have no
    place in these formats; the selection is written beside them.

    Args:
        splits: the dataset.
        selection: which training images; None: all.
        out: an empty folder.
        style: for which benchmark.
        normalisation: of the values; ``auto``: that of the dataset; ``none``: values in 0..1.
        zca_from: whiten instead, fitted on the training images of this dataset (DD-Ranking's ``use_zca``).
        data_root: folder with that dataset's files.

    Raises:
        UserError: ``auto`` for a dataset that these programs do not know, or a normalisation or whitening of other images.
    """
    chosen = np.arange(len(splits.train)) if selection is None else selection.indices
    labels = splits.train.labels.numpy()[chosen]
    data = splits.train.subset(chosen[np.argsort(labels, kind="stable")])
    if zca_from is not None and normalisation not in ("auto", "none"):
        raise UserError(f"{_FORMAT}: images are whitened or normalised, not both: give zca_from or normalisation")
    if zca_from is not None:
        images, told = _whitened(data, zca_from, data_root)
    else:
        images, told = _normalised(data, _table(style), normalisation)
    soft = None if style == "dc-benchmark" else data.targets
    end = "_best" if style == "dc-benchmark" else ""
    write_weights(images, out / f"images{end}.pt")
    write_weights(data.labels if soft is None else _logits(soft), out / f"labels{end}.pt")
    record: dict[str, Any] = {
        **origin(splits.train),
        "classes": data.classes,
        "counts": data.class_sizes.tolist(),
        "values": told,
        "labels": "classes [N]" if soft is None else "logits of soft labels [N, C]",
    }
    write_record(out, record, selection)


def _table(style: str) -> dict[str, Normalisation]:
    """DC-BENCH has CIFAR-100's own statistics, DD-Ranking uses those of CIFAR-10 for it."""
    return CONDENSATION if style == "dc-benchmark" else TRAJECTORIES


def _normalised(data: ImageDataset, table: dict[str, Normalisation], asked: str) -> tuple[Tensor, str]:
    name = data.name.partition("/")[0] if asked == "auto" else asked
    if name == "none":
        return _converted(data.images, None), "0..1"
    if name not in table:
        raise UserError(f"{_FORMAT}: normalisation is not known for {data.name}: give one of {', '.join(table)}, or none")
    constants = table[name]
    if constants.channels != data.image_shape[0]:
        raise UserError(
            f"{_FORMAT}: normalisation '{name}' is for {constants.channels} channels, "
            f"and {data.name} has {data.image_shape[0]}: give another, or none"
        )
    return _converted(data.images, constants), f"normalised as {constants}"


def _whitened(data: ImageDataset, name: str, data_root: str | None) -> tuple[Tensor, str]:
    whitening = whitening_of(load_dataset(name, data_root).train)
    if whitening.shape != data.image_shape:
        raise UserError(
            f"{_FORMAT}: zca_from={name} has images of {whitening.shape}, and {data.name} of {data.image_shape}: "
            "name the dataset that they come from"
        )
    return _converted(data.images, whitening), f"whitened (ZCA, eps {whitening.eps:g}, fitted on {name})"


def _converted(images: Tensor, how: Normalisation | Whitening | None) -> Tensor:
    """uint8 ``[N, C, H, W]`` to float32, some at a time."""
    found = torch.empty(images.shape, dtype=torch.float32)
    for start in range(0, len(images), CHUNK):
        values = images[start : start + CHUNK].float() / 255
        found[start : start + len(values)] = values if how is None else how.apply(values)
    return found


def _logits(targets: Tensor) -> Tensor:
    """Numbers whose softmax the soft labels are."""
    return targets.clamp_min(_LEAST).log()
