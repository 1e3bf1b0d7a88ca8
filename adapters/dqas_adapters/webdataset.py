"""``--format webdataset``: tar files of images for training from a stream, written by the package ``webdataset``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from dqas_adapters.extras import WEBDATASET
from dqas_adapters.record import origin, write_record
from dqas_plugin.contracts import Bounds
from dqas_plugin.data import DatasetSplits, ImageDataset, IntArray, TrainOnly
from dqas_plugin.datasets.encode import channels_last, check_pictures
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.seeding import generator
from dqas_plugin.selection import Selection, WeightArray


def write(
    splits: DatasetSplits, selection: Selection | None, out: Path, *, shard: Annotated[int, Bounds(1)] = 10_000, seed: int = 0
) -> None:
    """Write the chosen images and the test split, if there is one, as ``train-000000.tar`` … and ``test-000000.tar`` ….

    A sample is three files: ``.png`` (without loss), ``.cls`` (the label) and ``.json`` (``index`` in its split, ``label``,
    ``class``, ``weight`` if the selection has weights, ``targets`` if the images have soft labels). Training images come in
    random order, because what reads them shuffles only within a window and a selection is ordered by class.

    Args:
        splits: grey or RGB images.
        selection: which training images; None: all.
        out: an empty folder.
        shard: images in a tar file.
        seed: of the order.

    Raises:
        UserError: the package is not installed, or the images have other channels.
    """
    package = WEBDATASET.load()
    check_pictures(splits.train)
    indices = np.arange(len(splits.train)) if selection is None else selection.indices
    weights = None if selection is None else selection.weights
    order = generator(seed, "webdataset").permutation(len(indices))
    shuffled = None if weights is None else weights[order]
    record: dict[str, Any] = {
        **origin(splits.train),
        "classes": splits.train.classes,
        "mirror": splits.train.mirror,
        "train": _write_split(package, out, "train", splits.train, indices[order], shuffled, shard),
    }
    if not isinstance(splits, TrainOnly):
        record["test"] = _write_split(package, out, "test", splits.test, np.arange(len(splits.test)), None, shard)
    write_record(out, record, selection)


def _write_split(
    package: Any, out: Path, split: str, data: ImageDataset, indices: IntArray, weights: WeightArray | None, shard: int
) -> dict[str, Any]:
    """The shards of one split; what the record says of it."""
    names: list[str] = []
    for start in range(0, len(indices), shard):
        names.append(f"{split}-{len(names):06d}.tar")
        with (out / names[-1]).open("wb") as file, package.TarWriter(file, mtime=0) as tar:
            for place in range(start, min(start + shard, len(indices))):
                tar.write(_sample(data, int(indices[place]), None if weights is None else float(weights[place])))
    return {"images": len(indices), "shards": names}


def _sample(data: ImageDataset, index: int, weight: float | None) -> dict[str, Any]:
    pixels, label = data.images[index].numpy(), int(data.labels[index])
    facts: dict[str, Any] = {"index": index, "label": label, "class": data.classes[label]}
    if weight is not None:
        facts["weight"] = weight
    if data.targets is not None:
        facts["targets"] = data.targets[index].tolist()
    return {"__key__": f"{index:09d}", "png": channels_last(pixels), "cls": label, "json": facts}


@hookimpl
def dqas_register_exporters(register: Callable[..., None]) -> None:
    """Register the writer."""
    title = f"tar files for training from a stream ({WEBDATASET.install})"
    register("webdataset", write, title=title, ready=WEBDATASET.check)
