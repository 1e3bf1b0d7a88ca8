"""Tiny ImageNet (Stanford CS231n, http://cs231n.stanford.edu/tiny-imagenet-200.zip) in its own folder layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dqas_plugin.data import DatasetSplits
from dqas_plugin.datasets.cache import cached_splits
from dqas_plugin.datasets.decode import EncodedImages
from dqas_plugin.datasets.files import ImageFile, existing_folder, image_files, listing_key
from dqas_plugin.datasets.folder import file_batches
from dqas_plugin.errors import UserError
from dqas_plugin.untrusted import read_bytes

_NAME = "tiny-imagenet"
_FOLDER = "tiny-imagenet-200"
_CLASSES = 200
_LONGEST = 1 << 24  # bytes of the annotations; theirs are 350,000


def load(root: Path | None) -> DatasetSplits:
    """100,000 training and 10,000 validation images of 64x64, 200 classes; the validation split is the test split.

    The validation images all lie in one folder, and their classes are in ``val_annotations.txt``: a loader that takes
    folders for classes sees *one* class there. So both splits are checked to have 200 distinct labels. A label is the
    rank of the sorted WordNet id, which is also the class name.

    Args:
        root: the folder that holds ``tiny-imagenet-200``, or that folder itself; default ``./data``.

    Raises:
        UserError: files are missing, or a split does not have 200 classes.
    """
    base = _find(existing_folder(root or "data", _NAME))
    train, train_ids = _train_files(base)
    val, val_ids = _val_files(base)
    classes = tuple(sorted(set(train_ids)))
    for part, ids in (("train", train_ids), ("val", val_ids)):
        _require_200(base / part, ids, classes)
    files = train + val
    rank = {wnid: label for label, wnid in enumerate(classes)}
    # The annotations decide the labels, so they are part of the key.
    key = listing_key(_NAME, files, {"train": len(train), "val": val_ids})

    def source() -> EncodedImages:
        labels = np.array([rank[one] for one in train_ids + val_ids], dtype=np.int64)
        return EncodedImages(classes, labels, np.arange(len(files)) >= len(train), lambda: file_batches(base, files))

    return cached_splits(_NAME, key, source)


def _find(root: Path) -> Path:
    for base in (root / _FOLDER, root):
        if (base / "train").is_dir() and (base / "val").is_dir():
            return base
    raise UserError(
        f"{_NAME} is not in {root}: unpack tiny-imagenet-200.zip there, or name the folder that holds {_FOLDER} with --root"
    )


def _train_files(base: Path) -> tuple[list[ImageFile], list[str]]:
    files, _ = image_files(base, base / "train")
    return files, [one.relative.split("/")[1] for one in files]  # train/<wnid>/images/x.JPEG


def _val_files(base: Path) -> tuple[list[ImageFile], list[str]]:
    annotations = base / "val" / "val_annotations.txt"
    try:
        lines = read_bytes(annotations, _LONGEST).decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {annotations} ({type(error).__name__}): unpack tiny-imagenet-200.zip again") from error
    rows = [line.split("\t") for line in lines if line.strip()]
    if any(len(row) < 2 for row in rows):
        raise UserError(f"{annotations} is not a table of file names and WordNet ids: unpack tiny-imagenet-200.zip again")
    wnid = {f"val/images/{row[0]}": row[1] for row in rows}
    files, _ = image_files(base, base / "val")
    present = {one.relative for one in files}
    for odd in sorted(present ^ wnid.keys())[:1]:
        what = "has no line in" if odd in present else "is missing but named by"
        raise UserError(f"{base / odd} {what} {annotations}: unpack tiny-imagenet-200.zip again")
    return files, [wnid[one.relative] for one in files]


def _require_200(folder: Path, ids: list[str], classes: tuple[str, ...]) -> None:
    found = set(ids)
    if len(found) != _CLASSES or found != set(classes):
        shared = len(found & set(classes))
        raise UserError(
            f"{folder} has {len(found)} distinct classes, {shared} of them those of train; Tiny ImageNet has {_CLASSES}: "
            "unpack tiny-imagenet-200.zip again (other data of this kind load with folder:PATH)"
        )
