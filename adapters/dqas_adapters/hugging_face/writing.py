"""``--format hf``: a ``DatasetDict``, written by the package ``datasets`` itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dqas_adapters.extras import HUGGING_FACE
from dqas_adapters.hugging_face.saved import TARGETS
from dqas_adapters.record import origin, write_record
from dqas_plugin.data import DatasetSplits, ImageDataset, IntArray, TrainOnly
from dqas_plugin.datasets.encode import check_pictures, picture
from dqas_plugin.errors import UserError
from dqas_plugin.selection import Selection, WeightArray


def write(splits: DatasetSplits, selection: Selection | None, out: Path) -> None:
    """Write the chosen images and the test split, if there is one, as a ``DatasetDict`` for ``datasets.load_from_disk``.

    Columns: ``image`` (PNG, without loss), ``label`` (a ``ClassLabel`` with the names), ``index`` (which image of its split it
    was), ``weight`` if the selection has weights, ``targets`` if the training images have soft labels; the test split has the
    weight 1 and the labels as targets. The folder also holds ``selection.npz``, as ``dqas select`` writes it.

    Args:
        splits: grey or RGB images.
        selection: which training images; None: all.
        out: an empty folder.

    Raises:
        UserError: the package is not installed, the images have other channels, or nothing can be written there.
    """
    datasets = HUGGING_FACE.load()
    check_pictures(splits.train)
    indices = np.arange(len(splits.train)) if selection is None else selection.indices
    rows = {"train": _Rows(splits.train, indices, None if selection is None else selection.weights, splits.train.targets)}
    if not isinstance(splits, TrainOnly):
        rows["test"] = _test_rows(splits.test, rows["train"])
    building = out / ".building"  # the package builds in its cache; this one is on the right disk and goes away
    with _quiet(datasets):
        try:
            whole = datasets.DatasetDict({name: _built(datasets, name, one, building) for name, one in rows.items()})
            whole.save_to_disk(str(out))
        except (datasets.exceptions.DatasetsError, OSError) as error:
            cause = error.__cause__ or error
            raise UserError(f"cannot write the dataset ({' '.join(str(cause).split())}): choose another folder") from error
    del whole  # it maps the files
    shutil.rmtree(building)
    record = origin(splits.train) | {"mirror": splits.train.mirror}  # what no column says
    write_record(out, record, selection)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of one split, made one at a time."""

    data: ImageDataset
    indices: IntArray
    weights: WeightArray | None
    targets: torch.Tensor | None

    def __call__(self) -> Iterator[dict[str, Any]]:
        labels = self.data.labels.numpy()
        for place, index in enumerate(self.indices.tolist()):
            row = {"image": picture(self.data.images[index].numpy()), "label": int(labels[index]), "index": index}
            if self.weights is not None:
                row["weight"] = float(self.weights[place])
            if self.targets is not None:
                row[TARGETS] = self.targets[index].numpy()
            yield row

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: the package names its cache by a hash of this pickled, and the cache is a new folder anyway."""
        return {}

    def features(self, datasets: Any) -> Any:
        """What the columns are."""
        columns = {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(self.data.classes)),
            "index": datasets.Value("int64"),
        }
        if self.weights is not None:
            columns["weight"] = datasets.Value("float32")
        if self.targets is not None:
            columns[TARGETS] = datasets.Sequence(datasets.Value("float32"), length=self.data.num_classes)
        return datasets.Features(columns)


def _test_rows(test: ImageDataset, train: _Rows) -> _Rows:
    """All of a test split, with the columns of the training split: a ``DatasetDict`` has one set of them."""
    weights = None if train.weights is None else np.ones(len(test), dtype=np.float32)
    targets = None if train.targets is None else functional.one_hot(test.labels, test.num_classes).float()
    return _Rows(test, np.arange(len(test)), weights, targets)


def _built(datasets: Any, name: str, rows: _Rows, cache: Path) -> Any:
    features = rows.features(datasets)
    return datasets.Dataset.from_generator(rows, features=features, cache_dir=str(cache / name), split=datasets.Split(name))


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without the bars of the package, which would be several and of rows nobody counts in."""
    if datasets.utils.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
