"""``hf:DIR``: a ``Dataset`` or ``DatasetDict`` that was saved to disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dqas_adapters.hugging_face.saved import DICT, INFO, STATE, TARGETS, Saved, read_json
from dqas_adapters.record import RECORD
from dqas_plugin.data import BoolArray, DatasetSplits, IntArray, TrainOnly
from dqas_plugin.datasets.cache import cached_splits
from dqas_plugin.datasets.decode import Encoded, EncodedImages
from dqas_plugin.datasets.files import content_key, dataset_name, existing_folder
from dqas_plugin.datasets.folder import TEST_NAMES
from dqas_plugin.datasets.splits import check_size, require_every_class, stratified_test_mask
from dqas_plugin.errors import UserError


def load(
    path: str,
    *,
    image: str | None = None,
    label: str | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    size: int | None = None,
    test_share: float = 0.0,
    seed: int = 0,
    mirror: bool = True,
) -> DatasetSplits:
    """Images and labels of a saved dataset; decoded once into the cache (key: all bytes of its files, and these options).

    Class names come from a ``ClassLabel``; labels that are plain integers count from 0 and have none. A column ``targets`` with
    a list of C probabilities a row becomes the soft labels of the training split.

    Args:
        path: the folder of a ``Dataset`` or a ``DatasetDict``.
        image: the column of images; default: the only one of type ``Image``.
        label: the column of labels; default: the only ``ClassLabel``, else the only one of integers; of several the one called
            ``label``, ``labels`` or ``fine_label``.
        train_split: default: ``train``, or the only one.
        test_split: default: the first of ``test``, ``val``, ``valid`` and ``validation`` that is there.
        size: resize every image to ``size x size`` (bilinear, antialiased); None demands one size.
        test_share: part of each class that is kept for testing if there is no test split; 0: there is none (``TrainOnly``).
        seed: of that split.
        mirror: whether a mirrored image still belongs to its class. Where this program wrote that it does not, it does not.

    Raises:
        UserError: nothing there, damaged or missing files, no such split or column, bad labels, a damaged image; file and field
            are named.
    """
    root = existing_folder(path, "hf")
    name = dataset_name(root)
    check_size(size, name)
    splits, unused = _splits(root, train_split, test_split)
    saved = [Saved.open(root, one, image, label) for one in splits]
    divided = len(saved) == 1 and test_share > 0
    if divided and TARGETS in saved[0].features:
        raise UserError(f"hf: {root} has soft labels (column '{TARGETS}') and cannot be divided: leave test_share out")
    options: dict[str, object] = {"size": size, "columns": [(one.image, one.label) for one in saved]}
    options |= {"test_share": test_share, "seed": seed} if divided else {}
    files = [(f"{place} {one.name}", one) for place, part in enumerate(saved) for one in (part.folder / INFO, *part.files)]

    def source() -> EncodedImages:
        labels = [one.labels() for one in saved]
        classes, joined = _classes(saved, labels), np.concatenate(labels)
        in_test = np.arange(len(joined)) >= len(labels[0])
        if divided:
            in_test = stratified_test_mask(joined, classes, test_share, seed, name)
        _check_classes(joined, in_test, classes, name)
        return EncodedImages(classes, joined, in_test, lambda: _batches(saved), _notes(saved[0], unused, divided))

    mirror = mirror and _may_mirror(root)
    found = cached_splits(name, content_key("hf", files, options), source, size=size, mirror=mirror)
    return _with_targets(found, saved[0]) if TARGETS in saved[0].features else found


def _splits(root: Path, train: str | None, test: str | None) -> tuple[list[str], list[str]]:
    """The splits that are read, the training split first, and the others; "" is the root itself."""
    if not (root / DICT).is_file():
        if not (root / STATE).is_file():
            raise UserError(f"hf: {root} has neither {DICT} nor {STATE}: name a folder that save_to_disk of datasets wrote")
        if wrong := train or test:
            raise UserError(f"hf: {root} is a single split, so there is no '{wrong}': leave train_split and test_split out")
        return [""], []
    names = read_json(root / DICT).get("splits")
    if not isinstance(names, list) or not names or not all(isinstance(one, str) and one for one in names):
        raise UserError(f"{root / DICT}: 'splits' must be a list of names; save the dataset again")
    for option, split in (("train_split", train), ("test_split", test)):
        if split is not None and split not in names:
            raise UserError(f"hf: {root} has the splits {', '.join(names)}, not '{split}': change {option}")
    train = train or (names[0] if len(names) == 1 else "train")
    if train not in names:
        raise UserError(f"hf: {root} has the splits {', '.join(names)}: say with train_split which one is trained on")
    if test == train:
        raise UserError(f"hf: {root}: train_split and test_split are both '{train}'; test on other images")
    test = test or next((one for one in TEST_NAMES if one in names and one != train), None)
    used = [train] if test is None else [train, test]
    return used, [one for one in names if one not in used]


def _may_mirror(root: Path) -> bool:
    return not (root / RECORD).is_file() or read_json(root / RECORD).get("mirror") is not False


def _batches(saved: Sequence[Saved]) -> Iterator[list[Encoded]]:
    for one in saved:
        yield from one.images()


def _classes(saved: Sequence[Saved], labels: Sequence[IntArray]) -> tuple[str, ...]:
    """The class names of all splits, which must be the same."""
    names = {one.classes for one in saved}
    if len(names) > 1:
        places = " and ".join(str(one.folder / INFO) for one in saved)
        raise UserError(
            f"{places} give '{saved[0].label}' different classes: give both splits the same names in the same order"
        )
    known = names.pop()
    rows = sum(len(one) for one in labels)
    for one, values in zip(saved, labels, strict=True):
        highest, row = int(values.max()), int(values.argmax())
        if known is not None and highest >= len(known):
            raise UserError(
                f"{one.folder} row {row} has the label {highest}, but '{one.label}' has {len(known)} classes: mend it"
            )
        if known is None and highest >= rows:  # also keeps a label like 10^12 from making as many names
            raise UserError(f"{one.folder} row {row} has the label {highest}, with {rows} images in all: count labels from 0")
    return known or tuple(str(one) for one in range(max(int(one.max()) for one in labels) + 1))


def _check_classes(labels: IntArray, in_test: BoolArray, classes: Sequence[str], name: str) -> None:
    require_every_class(labels[~in_test], classes, f"{name}/train")
    if in_test.any():
        require_every_class(labels[in_test], classes, f"{name}/test")


def _notes(train: Saved, unused: Sequence[str], divided: bool) -> tuple[str, ...]:
    notes = [f"the split '{one}' was not used" for one in unused]
    if not train.named:
        notes.append(f"labels are the numbers of the column '{train.label}'")
    if train.others:
        notes.append(f"columns that were not used: {', '.join(train.others)}")
    if divided:
        notes.append("no test split: every class was split by seed")
    return tuple(notes)


def _with_targets(found: DatasetSplits, train: Saved) -> DatasetSplits:
    """The splits with the soft labels of the training images."""
    targets = torch.from_numpy(train.targets(found.train.num_classes))
    data = replace(found.train, targets=targets, digest=None)
    return TrainOnly(data) if isinstance(found, TrainOnly) else DatasetSplits(data, found.test)
