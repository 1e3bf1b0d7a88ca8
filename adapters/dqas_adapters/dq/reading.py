"""Bins and selections of DQ's program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dqas_adapters.dq.layout import bin_files, named_fraction
from dqas_adapters.dq.origin import check_spread, check_written_for
from dqas_adapters.foreign import check_indices, read_npy, whole_numbers
from dqas_adapters.record import origin
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.quantization.bins import draw_in_turn
from dqas_plugin.seeding import generator
from dqas_plugin.selection import Ranking, Selection

_ENOUGH_IN_BIN = 20  # a bin may have one image of a class too many or too few
_ENOUGH_CHOSEN = 200  # a draw from each of ten bins may be rounded by half an image in the same direction


def load_bins(path: str | Path, data: ImageDataset, *, seed: int = 0, check_order: bool = True) -> Ranking:
    """The bins in a folder as a ranking that takes from all of them in turn (``quantization.bins.draw_in_turn``).

    So the first k of a class are nearly equally many of each bin for every k. DQ's sampler draws the same share of each bin,
    which comes to the same where bins are equally large.

    Args:
        path: folder with ``select_indices_{DATASET}_exp{k}.npy``, k = 0, 1, …; other files in it are passed over.
        data: the training images that they belong to.
        seed: of the draws from the bins.
        check_order: refuse bins over which the classes are spread as by chance: the images are then in another order.

    Returns:
        a ranking of what is in the bins, class by class.

    Raises:
        UserError: bins that are missing, no rows of whole numbers, or not of these images; an image that is in two bins.
    """
    folder = Path(path)
    bins = read_bins(folder, data, check_order=check_order)
    parts = [_by_class(one, data) for one in bins]
    order = tuple(
        draw_in_turn(parts_of_class, generator(seed, "dq-bins", label))
        for label, parts_of_class in enumerate(zip(*parts, strict=True))
    )
    sizes = [len(one) for one in bins]
    provenance = {"path": str(folder), "seed": seed, "bins": sizes, **origin(data)}
    return Ranking(order, "dq-bins", provenance=provenance)


def read_bins(folder: Path, data: ImageDataset, *, check_order: bool = True) -> list[IntArray]:
    """What is in each bin, dataset indices, int64, as they stand in the files.

    Args:
        folder: as for :func:`load_bins`, like the others.
        data: the images.
        check_order: see there.

    Raises:
        UserError: see there.
    """
    files = bin_files(folder)
    bins = [_indices(one, data, "a bin of DQ", "the bin") for one in files]
    if not sum(map(len, bins)):
        raise UserError(f"{folder}: all of its {len(bins)} bins are empty; name another folder")
    _check_disjoint(files, bins, len(data))
    own = [check_written_for(one, data) for one in files]  # each is checked, whatever the others say
    if not all(own) and check_order:
        labels = data.labels.numpy()
        table = np.array([np.bincount(labels[one], minlength=data.num_classes) for one in bins])
        check_spread(folder, table, data, _ENOUGH_IN_BIN)
    return bins


def load_selection(path: str | Path, data: ImageDataset, *, check_order: bool = True) -> Selection:
    """A selection, class after class; within a class in the order of the file.

    Args:
        path: ``select_indices_{DATASET}_{fraction}.npy``, or another name.
        data: the training images that it belongs to.
        check_order: refuse a selection over which the classes are spread as by chance: the images are then in another order.

    Raises:
        UserError: a file that is no row of whole numbers, or not of these images; it is empty, or names an image twice.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{file} is a folder: name a file in it, or import its bins as dq-bins")
    indices = _indices(file, data, "a selection of DQ", "the selection")
    if not len(indices):
        raise UserError(f"{file} holds no indices: name another file")
    labels = data.labels.numpy()[indices]
    counts = np.bincount(labels, minlength=data.num_classes).astype(np.int64)
    if not check_written_for(file, data) and check_order:
        check_spread(file, counts[None], data, _ENOUGH_CHOSEN)
    provenance = {
        "method": "dq",
        "path": str(file),
        "budget": len(indices),
        "ratio": len(indices) / len(data),
        **origin(data),
    }
    if named := named_fraction(file):
        provenance["named"] = {"dataset": named[0], "fraction": named[1]}
    return Selection(indices[np.argsort(labels, kind="stable")], counts, None, provenance)


def _by_class(indices: IntArray, data: ImageDataset) -> list[IntArray]:
    """What there is of each class, in the order given."""
    labels = data.labels.numpy()[indices]
    ends = np.bincount(labels, minlength=data.num_classes).cumsum()
    return np.split(indices[np.argsort(labels, kind="stable")], ends[:-1])


def _indices(path: Path, data: ImageDataset, what: str, field: str) -> IntArray:
    found = whole_numbers(read_npy(path, what), path, field)
    check_indices(found, data, path, field)
    return found


def _check_disjoint(files: Sequence[Path], bins: Sequence[IntArray], samples: int) -> None:
    """Refuse an image that is in two bins, which would be drawn twice."""
    holder = np.full(samples, -1, dtype=np.int64)
    for number, one in enumerate(bins):
        if (taken := holder[one] >= 0).any():
            index = int(one[taken][0])
            raise UserError(
                f"{files[number]}: the bin holds the sample {index}, which is in {files[holder[index]].name}, too: bins must "
                "not overlap; name a folder with the bins of one run"
            )
        holder[one] = number
