"""Files that DQ's scripts go on from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from dqas_adapters.dq.binning import bins_of
from dqas_adapters.dq.images import write_images
from dqas_adapters.dq.layout import (
    BINS,
    IMAGE_FOLDER,
    IMAGES,
    bin_file,
    dataset_label,
    imagefolder_positions,
    selection_file,
)
from dqas_adapters.dq.origin import describe
from dqas_plugin.contracts import Bounds
from dqas_plugin.data import DatasetSplits, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.selection import Selection


def write(
    splits: DatasetSplits,
    selection: Selection | None,
    out: Path,
    *,
    bins: bool = False,
    bins_from: str = "",
    images: bool = False,
    imagefolder: bool = False,
    dataset: str = "",
    fraction: Annotated[float, Bounds(0, 1, above=True)] | None = None,
    drop_weights: bool = False,
    device: str = "cpu",
) -> None:
    """Write a selection, and more if wanted, as DQ's program names and reads them.

    Always ``select_indices_{DATASET}_{fraction}.npy``: int64 ``[K]``, positions in the dataset, for ``--select_indices`` of
    ``validate_cifar.py`` without ``--data_dir`` and ``--select-indices`` of its ``train.py``; with it ``selection.npz``, and
    ``dqas.json``, by which this program knows the files again.

    Args:
        splits: the dataset.
        selection: which of its training images; None: all.
        out: an empty folder.
        bins: write ``bins/select_indices_{DATASET}_exp{k}.npy`` too, for ``--selection_path`` of ``quantize_bin.py``, which
            reads every file there. They are those that the selection was drawn from (:func:`.binning.bins_of`).
        bins_from: write those in this folder, which the selection was drawn from.
        images: write the selected images as ``images/{label}/{index}.png`` too, for ``--data_dir`` of ``validate_cifar.py``
            without ``--select_indices``.
        imagefolder: write ``imagefolder/select_indices_{DATASET}_{fraction}.npy`` too: positions in torchvision's
            ``ImageFolder`` of all images ``{label}/{index}.png``. With those, and ``--data_dir`` with what
            ``quantize_pixel.py`` made of the whole dataset, ``validate_cifar.py`` trains on the images selected.
        dataset: what stands for the dataset in the names; default: its own name (``CIFAR10`` for ``cifar10``).
        fraction: what stands for the fraction; default: the share selected.
        drop_weights: write a selection that has loss weights, which DQ's files cannot hold.
        device: where the bins are worked out, if they have to be: that of the selection.

    Raises:
        UserError: weights, names that do not do, bins that the selection was not drawn from, images that cannot be written.
    """
    data = splits.train
    label = dataset_label(data, dataset)
    name = selection_file(label, _fraction(fraction, selection, len(data)))
    if selection is not None and selection.weights is not None and not drop_weights:
        raise UserError("the selection has loss weights, which DQ's files cannot hold: set drop_weights=true to lose them")
    bins = bins or bool(bins_from)
    if selection is None and bins:
        raise UserError(
            "bins are those that a selection was drawn from: choose one with --method bins or dq, or leave them out"
        )
    found = bins_of(selection, data, bins_from=bins_from, device=device) if selection is not None and bins else []
    indices = np.arange(len(data), dtype=np.int64) if selection is None else selection.indices
    files = [_written(out / name, indices)]
    if bins:
        files += write_bins(out / BINS, found, label)
    if imagefolder:
        files.append(_written(out / IMAGE_FOLDER / name, imagefolder_positions(data.labels.numpy())[indices]))
    if images:
        write_images(out / IMAGES, data, indices)
    if selection is not None:
        selection.save(out / "selection.npz")
    describe(out, data, files)


def write_bins(folder: Path, bins: Sequence[IntArray], dataset: str) -> list[Path]:
    """Write bins into ``folder``, which is made; nothing else should be in it.

    Args:
        folder: where to.
        bins: dataset indices in each bin, int64, the first bin first.
        dataset: what stands for the dataset in the names.

    Returns:
        the files.
    """
    return [_written(folder / bin_file(dataset, number), one) for number, one in enumerate(bins)]


def _fraction(wanted: float | None, selection: Selection | None, samples: int) -> float:
    share = 1.0 if selection is None else len(selection) / samples
    return share if wanted is None else wanted


def _written(path: Path, values: IntArray) -> Path:
    path.parent.mkdir(exist_ok=True)
    np.save(path, values.astype("<i8"), allow_pickle=False)
    return path
