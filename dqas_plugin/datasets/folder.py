"""``folder:PATH``: image files, one folder per class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dqas_plugin.data import DatasetSplits
from dqas_plugin.datasets.cache import cached_splits
from dqas_plugin.datasets.decode import BATCH, Encoded, EncodedImages
from dqas_plugin.datasets.files import ImageFile, dataset_name, existing_folder, image_files, listing_key, subfolders
from dqas_plugin.datasets.splits import check_size, stratified_test_mask
from dqas_plugin.errors import UserError

TEST_NAMES = ("test", "val", "valid", "validation")
"""Names of a test split, the preferred one first."""


def load(path: str, *, size: int | None = None, test_share: float = 0.2, seed: int = 0, mirror: bool = True) -> DatasetSplits:
    """Images in ``PATH/train/CLASS/`` and ``PATH/test/CLASS/`` (or ``val``, ``valid``, ``validation``), or in ``PATH/CLASS/``.

    Without a test folder, every class is split by seed. Decoded once into the cache (key: paths, lengths and times of
    change of the files, and these options). Classes are numbered in the order of their sorted names.

    Args:
        path: the folder; a folder ``train`` in it, if there is one, holds the training classes.
        size: resize every image to ``size x size`` (bilinear, antialiased); None demands one size.
        test_share: part of each class that is kept for testing if there is no test folder; 0: there is no test split.
        seed: of that split.
        mirror: whether a mirrored image still belongs to its class.

    Raises:
        UserError: missing or empty folders, a class without images, a damaged image, mixed sizes; the file is named.
    """
    root = existing_folder(path, "folder")
    name = dataset_name(root)
    check_size(size, name)
    train_folder, test_folder = _split_folders(root)
    train = class_files(root, class_folders(train_folder))
    test = class_files(root, class_folders(test_folder)) if test_folder else None
    _check_classes(train, test, train_folder, test_folder)
    options = {"size": size} if test else {"size": size, "test_share": test_share, "seed": seed}
    files = train.files + (test.files if test else [])
    notes = _notes(root, train, test, test_share > 0)
    key = listing_key("folder", files, options | {"train": len(train.files)})

    def source() -> EncodedImages:
        labels = np.array(train.labels + (test.labels if test else []), dtype=np.int64)
        if test:
            in_test = np.arange(len(labels)) >= len(train.labels)
        else:
            in_test = stratified_test_mask(labels, train.classes, test_share, seed, name)
        return EncodedImages(train.classes, labels, in_test, lambda: file_batches(root, files), notes)

    return cached_splits(name, key, source, size=size, mirror=mirror)


@dataclass(frozen=True)
class ClassFiles:
    """What class folders hold: their names, files and labels in the same order, and how many files are no images."""

    classes: tuple[str, ...]
    files: list[ImageFile]
    labels: list[int]
    others: int


def file_batches(root: Path, files: Sequence[ImageFile]) -> Iterator[list[Encoded]]:
    """The files as encoded images, :data:`BATCH` at a time; nothing is read here."""
    for start in range(0, len(files), BATCH):
        paths = [root / one.relative for one in files[start : start + BATCH]]
        yield [Encoded(str(one), one) for one in paths]


def _split_folders(root: Path) -> tuple[Path, Path | None]:
    tests = [root / one for one in TEST_NAMES if (root / one).is_dir()]
    if not (root / "train").is_dir():
        if tests and len(subfolders(root)) == len(tests):
            raise UserError(f"{root} has '{tests[0].name}' but no folder 'train': add it, or name a folder of class folders")
        return root, None
    filled = [one for one in tests if subfolders(one)]  # a test folder of unlabelled files is of no use
    return root / "train", next(iter(filled + tests), None)


def class_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted by name.

    Raises:
        UserError: if there are none.
    """
    folders = subfolders(folder)
    if not folders:
        raise UserError(f"{folder} has no class folders: put the images of each class into a folder of its own inside it")
    return folders


def class_files(root: Path, folders: Sequence[Path]) -> ClassFiles:
    """The images of every class, sorted by name; the first folder is class 0.

    Args:
        root: what paths are relative to.
        folders: one for each class.

    Raises:
        UserError: for a class without images.
    """
    files: list[ImageFile] = []
    labels: list[int] = []
    others = 0
    for label, one in enumerate(folders):
        found, strange = image_files(root, one)
        if not found:
            what = f"none of its {strange} files is an image" if strange else "it is empty"
            raise UserError(f"class folder {one} has no images ({what}): add some or remove the folder")
        files += found
        labels += [label] * len(found)
        others += strange
    return ClassFiles(tuple(one.name for one in folders), files, labels, others)


def _check_classes(train: ClassFiles, test: ClassFiles | None, train_folder: Path, test_folder: Path | None) -> None:
    if test is None or train.classes == test.classes:
        return
    odd = sorted(set(train.classes) ^ set(test.classes))
    lacking = test_folder if odd[0] in train.classes else train_folder
    raise UserError(
        f"{lacking} lacks the class '{odd[0]}' ({len(odd)} classes differ): both splits need the same class folders"
    )


def _notes(root: Path, train: ClassFiles, test: ClassFiles | None, split: bool) -> tuple[str, ...]:
    notes = []
    others = train.others + (test.others if test else 0)
    if others:
        notes.append(f"{others:,} files without an image ending were left out")
    if test is None:
        notes.append("no test folder" + (": every class was split by seed" if split else ""))
    return tuple(notes)
