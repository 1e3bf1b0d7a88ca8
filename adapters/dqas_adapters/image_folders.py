"""``images:PATH``: distilled images as class folders of JPEG or PNG files, without a test split (SRe2L, RDED).

What their programs write, by their code:

* SRe2L (VILA-Lab/SRe2L; Yin, Xing, Shen, NeurIPS 2023): ``new{class:03d}/class{class:03d}_id{image:03d}.jpg``;
* RDED (LINs-lab/RDED; Sun et al., CVPR 2024): ``{class:05d}/class{class:05d}_id{image:05d}.jpg``.

Both number the classes of the dataset that was distilled in its own order; of ImageNet and Tiny ImageNet that is the order of
WordNet ids. Both train with soft labels that a teacher gives to every crop, which are no part of the images: here an image has
the label of its folder. Paths joined by ``+`` are a family of sets of different size, as for other distilled sets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dqas_plugin.errors import UserError
from dqas_plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from dqas_plugin.data import DatasetSplits, ImageDataset
    from dqas_plugin.datasets.folder import ClassFiles

_NUMBERED = re.compile(r"(\D*)(\d{1,18})", re.ASCII)


def load(
    path: str,
    *,
    size: int | None = None,
    classes_from: str | None = None,
    data_root: str | None = None,
    mirror: bool = True,
) -> DatasetSplits:
    """Images in ``PATH/CLASS/`` as a dataset without a test split, decoded once into the cache.

    Classes are in the order of the numbers of their folders (``00000``, ``new000``), or of their sorted names (WordNet ids);
    images in the order of their names; of several sets the smallest comes first, and each begins where the label decreases.

    Args:
        path: the folder of the class folders, or several joined by ``+``.
        size: resize every image to ``size x size`` (bilinear, antialiased); None demands one size.
        classes_from: dataset that was distilled, whose class names they take (needed for a test on it): folders with those
            names, or folders numbered from 0 in the order of its classes. None: the names of the folders.
        data_root: folder with that dataset's files.
        mirror: whether a mirrored image still belongs to its class, unless that dataset says that it does not.

    Raises:
        UserError: a folder of something else, sets that do not go together, class names of other classes, a damaged image,
            mixed sizes; the file or folder is named.
    """
    from dqas_adapters.distilled.family import paths_in
    from dqas_plugin.data import TrainOnly
    from dqas_plugin.datasets.cache import cached_splits
    from dqas_plugin.datasets.decode import EncodedImages
    from dqas_plugin.datasets.files import dataset_name, existing_folder, listing_key
    from dqas_plugin.datasets.folder import file_batches
    from dqas_plugin.datasets.splits import check_size

    roots = [Path(os.path.abspath(existing_folder(one, "images"))) for one in paths_in(path, lambda one: [one])]
    original = None if classes_from is None else _original(classes_from, data_root, size)
    base = Path(os.path.commonpath(roots))
    sets = sorted(((root, _scanned(base, root, original, classes_from)) for root in roots), key=lambda one: len(one[1].files))
    for one, other in pairwise(sets):
        _check_pair(*one, *other)
    name = "+".join(dataset_name(root) for root, _ in sets)
    check_size(size, name)
    classes = sets[0][1].classes if original is None else original.classes
    files = [file for _, one in sets for file in one.files]
    labels = np.concatenate([np.array(one.labels, dtype=np.int64) for _, one in sets])
    counts = [np.bincount(one.labels).tolist() for _, one in sets]
    key = listing_key("images", files, {"size": size, "classes": classes, "counts": counts})

    def source() -> EncodedImages:
        return EncodedImages(classes, labels, np.zeros(len(labels), dtype=bool), lambda: file_batches(base, files))

    train = cached_splits(name, key, source, size=size, mirror=mirror and (original is None or original.mirror)).train
    notes = _notes([one for _, one in sets], original, classes_from)
    return TrainOnly(replace(train, notes=(*notes, *train.notes)))


def _original(name: str, data_root: str | None, size: int | None) -> ImageDataset:
    """The dataset that was distilled; its images get the same size where they have to get one."""
    from dqas_plugin.lookup import load_dataset
    from dqas_plugin.plugins import plugins

    resized = size is not None and "size" in plugins().datasets[name.partition(":")[0]].options
    options: dict[str, Any] = {"size": size} if resized else {}
    return load_dataset(name, data_root, **options).train


def _scanned(base: Path, root: Path, original: ImageDataset | None, classes_from: str | None) -> ClassFiles:
    """The files of one set, its first class first."""
    from dqas_plugin.datasets.folder import TEST_NAMES, class_files, class_folders

    folders = class_folders(root)
    splits = [one.name for one in folders if one.name in ("train", *TEST_NAMES)]
    if splits:
        raise UserError(f"{root} has a folder '{splits[0]}', a split: name the folder of the class folders, or use folder:PATH")
    if len(folders) == 1:
        raise UserError(f"{root} has one folder only, '{folders[0].name}': name the folder that holds the class folders")
    ordered = _numbered(folders) or folders
    found = class_files(base, ordered if original is None else _of_classes(root, ordered, original.classes, str(classes_from)))
    depth = len(root.relative_to(base).parts) + 2
    for file in found.files:
        if len(file.relative.removeprefix("./").split("/")) > depth:
            raise UserError(
                f"{base / file.relative} lies deeper than in a class folder of {root}: name the folder that holds the class "
                "folders, or use folder:PATH with test_share=0"
            )
    return found


def _numbered(folders: Sequence[Path]) -> list[Path] | None:
    """Folders in the order of their numbers, if all have the same name but for the number."""
    matches = [_NUMBERED.fullmatch(one.name) for one in folders]
    parts = [(one[1], int(one[2])) for one in matches if one]
    numbers = [number for _, number in parts]
    if len(parts) < len(folders) or len({prefix for prefix, _ in parts}) > 1 or len(set(numbers)) < len(numbers):
        return None
    return [folders[place] for place in np.argsort(numbers)]


def _of_classes(root: Path, folders: Sequence[Path], classes: Sequence[str], name: str) -> list[Path]:
    """The folder of every class of the dataset that was distilled: by name, or else by number."""
    if len(folders) != len(classes):
        raise UserError(
            f"{root} has {len(folders)} class folders and {name} has {len(classes)} classes: classes_from must name the "
            "dataset that was distilled"
        )
    named = {one.name: one for one in folders}
    if named.keys() == set(classes):
        return [named[one] for one in classes]
    ordered = _numbered(folders)
    numbers = [] if ordered is None else [int(re.findall(r"\d+", one.name)[-1]) for one in ordered]
    if ordered is None or numbers != list(range(len(classes))):
        odd = next(one for one in classes if one not in named)
        raise UserError(
            f"{root} has no folder for the class '{odd}' of {name}, and its folders ('{folders[0].name}' …) are not numbered "
            f"0..{len(classes) - 1}: rename them, or name another dataset as classes_from"
        )
    return ordered


def _check_pair(root: Path, one: ClassFiles, next_root: Path, other: ClassFiles) -> None:
    """Refuse two sets that are no family."""
    odd = sorted(set(one.classes) ^ set(other.classes))
    if odd:
        lacking = root if odd[0] in other.classes else next_root
        raise UserError(f"{lacking} lacks the class folder '{odd[0]}' of the other set: name sets of the same dataset")
    if len(one.files) == len(other.files):
        raise UserError(f"{root} and {next_root} both hold {len(one.files)} images: name one set of each size")


def _notes(sets: Sequence[ClassFiles], original: ImageDataset | None, classes_from: str | None) -> tuple[str, ...]:
    """What was assumed."""
    from dqas_adapters.distilled.family import per_class, told_sizes

    first = sets[0]
    held = told_sizes([per_class(one.labels) for one in sets], len(first.classes))
    notes = [held, "an image has the label of its folder: soft labels that a teacher gave to crops are not read"]
    if original is not None and first.classes != original.classes:
        ours, theirs = (f"'{one.classes[0]}' to '{one.classes[-1]}'" for one in (first, original))
        notes.append(f"the folders {ours} are taken for the classes of {classes_from} in its order, {theirs}")
    others = sum(one.others for one in sets)
    if others:
        notes.append(f"{others:,} files without an image ending were left out")
    return tuple(notes)


@hookimpl
def dqas_register_datasets(register: Callable[..., None]) -> None:
    """Register the reader."""
    register("images", load, title="class folders of distilled images (SRe2L, RDED); several: PATH+PATH", takes_path=True)
