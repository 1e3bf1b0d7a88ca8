"""Images rebuilt by DQ's program, ``{label}/{index}.png``: read in the order of their index, and written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dqas_adapters.dq.layout import image_name
from dqas_plugin.data import DatasetSplits, ImageDataset, IntArray
from dqas_plugin.datasets.cache import cached_splits
from dqas_plugin.datasets.decode import EncodedImages
from dqas_plugin.datasets.encode import check_pictures, picture
from dqas_plugin.datasets.files import ImageFile, dataset_name, existing_folder, image_files, listing_key, subfolders
from dqas_plugin.datasets.folder import file_batches
from dqas_plugin.datasets.splits import check_size
from dqas_plugin.errors import UserError

_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


def load_images(
    path: str,
    *,
    size: int | None = None,
    mirror: bool = True,
    gaps: bool = False,
    classes_from: str | None = None,
    data_root: str | None = None,
) -> DatasetSplits:
    """Images ``{label}/{index}.png`` in the order of their index: sample k is the image of index k.

    Torchvision's ``ImageFolder``, with which DQ's own evaluation reads them, orders them by label and by name as text.
    Decoded once into the cache. There is no test split.

    Args:
        path: the folder of the folders 0, 1, … C-1.
        size: resize every image to ``size x size`` (bilinear, antialiased); None demands one size.
        mirror: whether a mirrored image still belongs to its class.
        gaps: take images of some indices only; sample k is then the one of the k-th index, and indices into the whole dataset
            do not fit.
        classes_from: dataset whose class names they take (needed for a test on it); None: the labels.
        data_root: folder with the files of that dataset.

    Raises:
        UserError: folders that are not 0..C-1, a file that is not named by its index, an index twice or with two labels,
            missing ones without ``gaps``, a damaged image, mixed sizes; the file is named.
    """
    root = existing_folder(path, "images of DQ")
    name = dataset_name(root)
    check_size(size, name)
    folders = _label_folders(root)
    found, others = _images(root, folders)
    notes = _notes(root, found, others, gaps)
    classes = _class_names(root, len(folders), classes_from, data_root)
    files = [one.file for one in found]
    key = listing_key("dq-images", files, {"size": size, "classes": classes})

    def source() -> EncodedImages:
        labels = np.array([one.label for one in found], dtype=np.int64)
        return EncodedImages(classes, labels, np.zeros(len(labels), dtype=bool), lambda: file_batches(root, files), notes)

    return cached_splits(name, key, source, size=size, mirror=mirror)


class _Image(NamedTuple):
    number: int
    label: int
    file: ImageFile


def write_images(folder: Path, data: ImageDataset, indices: IntArray) -> None:
    """Write images as ``{label}/{index}.png`` into ``folder``, which is made.

    Args:
        folder: where to.
        data: the images.
        indices: int64 ``[K]``, which of them.

    Raises:
        UserError: for images that are neither grey nor RGB, or have soft labels, which folders cannot hold.
    """
    check_pictures(data)
    if data.targets is not None:
        raise UserError(f"{data.name} has soft labels, which folders of images cannot hold: leave images=true out")
    labels = data.labels.numpy()[indices]
    for label in range(data.num_classes):  # a class without images too: ImageFolder would number the others anew in silence
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
    for index, label in zip(indices.tolist(), labels.tolist(), strict=True):
        picture(data.images[index].numpy()).save(folder / str(label) / image_name(index))


def _label_folders(root: Path) -> list[Path]:
    """The folder of every label."""
    found: dict[int, Path] = {}
    for one in subfolders(root):
        if not _NUMBER.fullmatch(one.name):
            raise UserError(
                f"{one}: the folders of DQ's CIFAR-10 images are named by label, 0, 1 and so on; name the folder that holds "
                "those, or read folders with other names as folder:PATH"
            )
        found[int(one.name)] = one
    for label in range(len(found)):
        if label not in found:
            raise UserError(f"{root} has {len(found)} folders of labels but no folder '{label}': labels must be 0..C-1")
    if not found:
        raise UserError(f"{root} has no folders of labels: name the folder that holds 0, 1 and so on")
    return [found[label] for label in range(len(found))]


def _images(root: Path, folders: list[Path]) -> tuple[list[_Image], int]:
    """All images by index, and how many other files there are."""
    found: dict[int, _Image] = {}
    others = 0
    for label, folder in enumerate(folders):
        files, strange = image_files(root, folder)
        if not files:
            raise UserError(f"{folder} has no images: add those of label {label}")
        others += strange
        for one in files:
            index = _index(root, one)
            if index in found:
                raise UserError(
                    f"{root / one.relative} and {found[index].file.relative} have the same index: every index is one image "
                    "of one label; remove the wrong one"
                )
            found[index] = _Image(index, label, one)
    return [found[index] for index in sorted(found)], others


def _index(root: Path, file: ImageFile) -> int:
    _, *parents, name = file.relative.split("/")
    stem = name.rpartition(".")[0]
    if parents or not _NUMBER.fullmatch(stem):
        raise UserError(f"{root / file.relative}: the images of DQ are named label/index.png, such as 3/42.png; rename it")
    return int(stem)


def _notes(root: Path, found: list[_Image], others: int, gaps: bool) -> tuple[str, ...]:
    notes = [f"{others:,} files without an image ending were left out"] if others else []
    last = found[-1].number
    if last != len(found) - 1:
        if not gaps:
            missing = next(place for place, one in enumerate(found) if place != one.number)
            raise UserError(
                f"{root} has {len(found):,} images with indices up to {last}, and none of index {missing}: add the missing "
                "ones, or set the option gaps=true to number them anew in the order of their indices"
            )
        notes.append(f"{len(found):,} images of indices up to {last}, numbered anew in that order")
    return tuple(notes)


def _class_names(root: Path, count: int, classes_from: str | None, data_root: str | None) -> tuple[str, ...]:
    if classes_from is None:
        return tuple(str(label) for label in range(count))
    from dqas_plugin.lookup import load_dataset

    names = load_dataset(classes_from, data_root).train.classes
    if len(names) != count:
        raise UserError(f"{root} has {count} labels but {classes_from} has {len(names)} classes: change classes_from")
    return names
