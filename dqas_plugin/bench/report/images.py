"""Contact sheets: images of each class that were picked at even counts, those picked otherwise, and some of the rest."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dqas_plugin.bench.evidence import short_name
from dqas_plugin.bench.report.classes import moved_most
from dqas_plugin.bench.report.markup import Html, tag, together
from dqas_plugin.bench.report.pairs import Pair, telling
from dqas_plugin.bench.table import Row
from dqas_plugin.errors import DqasError

if TYPE_CHECKING:
    from dqas_plugin.data import ImageDataset, IntArray
    from dqas_plugin.selection import Selection

PAGE = 3_500_000
"""Characters that all pictures of a page may have together."""

_CLASSES = 10
_IMAGES = 8  # of a class, in each strip
_SIDE = 40  # pixels of an image, at most
_SHOWN = 36  # pixels of the page that an image takes, at least


class NoPicturesError(Exception):
    """Why there are no pictures, in one sentence."""


def contact_sheet(found: Sequence[Pair], selections: Callable[[str], Path], room: int) -> Html:
    """The pictures of the most telling pair.

    Args:
        found: pairs of a table.
        selections: where the selection of a cell lies, by its key.
        room: characters that the pictures may have.

    Raises:
        NoPicturesError: if something is missing, with what it is.
    """
    pair = telling(found)
    if pair is None:
        raise NoPicturesError("There are no pictures: nothing is compared with even class counts.")
    seed = _seed(pair)
    train = _images(pair.other)
    even, other = (_selection(row, seed, train, selections) for row in pair)
    labels = moved_most(pair, _CLASSES)
    rows = together(_class(train, label, even, other, pair.other.variant) for label in labels)
    if len(rows) > room:
        raise NoPicturesError(
            "The pictures are left out, to keep the page small: name this dataset with --dataset to see them."
        )
    few = (
        f" The {len(labels)} classes whose numbers of images changed most are shown." if len(labels) < train.num_classes else ""
    )
    said = (
        f"{pair.title}, seed {seed}: up to {_IMAGES} images in each strip, evenly spread over the picks in their order, and "
        f"drawn at random from those that neither picked.{few}"
    )
    return together([tag("p", None, said), tag("div", {"class": "sheets"}, rows)])


def _seed(pair: Pair) -> int:
    common = sorted(set(pair.even.seeds) & set(pair.other.seeds))
    if not common:
        raise NoPicturesError("There are no pictures: the two selections have no seed in common.")
    return common[0]


def _images(row: Row) -> ImageDataset:
    """The training images, if they can be loaded and are those of the results."""
    from dqas_plugin.bench.cell import load
    from dqas_plugin.datasets.download import no_downloads

    name = short_name(row.cell.dataset.name)
    try:
        with no_downloads():
            train = load(row.cell.dataset).train
    except Exception as error:  # a loader may be anybody's, and the page is of use without pictures
        reason = str(error) if isinstance(error, DqasError) else f"{type(error).__name__}: {error}"
        raise NoPicturesError(f"There are no pictures: {name} cannot be loaded here ({reason.strip().rstrip('.')}).") from error
    if train.image_shape[0] not in (1, 3):
        raise NoPicturesError(f"There are no pictures: the images of {name} have {train.image_shape[0]} channels.")
    return train


def _selection(row: Row, seed: int, train: ImageDataset, selections: Callable[[str], Path]) -> Selection:
    from dqas_plugin.selection import Selection

    try:
        return Selection.load(selections(replace(row.cell, seed=seed).key), train)
    except DqasError as error:
        raise NoPicturesError(f"There are no pictures: {str(error).strip().rstrip('.')}.") from error


def _class(train: ImageDataset, label: int, even: Selection, other: Selection, variant: str) -> Html:
    """A heading and three strips."""
    everything = np.flatnonzero(train.labels.numpy() == label)
    picks = [one.indices[train.labels.numpy()[one.indices] == label] for one in (even, other)]
    left = np.setdiff1d(everything, np.concatenate(picks))
    name = train.classes[label]
    strips = [
        *(_strip(train, some, _spread(some), title, name) for some, title in zip(picks, ("even counts", variant), strict=True)),
        _strip(train, left, _drawn(left, label), "left", name),
    ]
    return tag("div", {"class": "sheet"}, tag("h4", None, name), *strips)


def _spread(picks: IntArray) -> IntArray:
    places = np.unique(np.linspace(0, len(picks) - 1, min(_IMAGES, len(picks))).round().astype(int))
    return picks[places] if len(picks) else picks


def _drawn(left: IntArray, label: int) -> IntArray:
    from dqas_plugin.seeding import generator

    count = min(_IMAGES, len(left))
    return np.sort(generator(0, "contact sheet", str(label)).choice(left, count, replace=False)) if count else left


def _strip(train: ImageDataset, some: IntArray, shown: IntArray, title: str, name: str) -> Html:
    told = f"{title}: {len(some):,}"
    if not len(shown):
        return tag("figure", None, tag("figcaption", None, told), tag("span", {"class": "nothing"}, "none"))
    picture, width, height = _picture(train, shown)
    scale = max(1, -(-_SHOWN // train.image_shape[1]))
    attributes = {
        "src": f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        "width": width * scale,
        "height": height * scale,
        "alt": f"{len(shown)} of {len(some):,} images of class {name}, {title}",
    }
    return tag("figure", None, tag("figcaption", None, told), tag("img", attributes))


def _picture(train: ImageDataset, shown: IntArray) -> tuple[bytes, int, int]:
    """A PNG of images side by side, a clear pixel between them; its bytes, width and height in pixels."""
    from PIL import Image

    from dqas_plugin.datasets.encode import picture

    tiles = [picture(train.images[int(index)].numpy()) for index in shown]
    for tile in tiles:
        tile.thumbnail((_SIDE, _SIDE))
    width, height = tiles[0].size
    strip = Image.new("LA" if tiles[0].mode == "L" else "RGBA", ((width + 1) * _IMAGES - 1, height))  # all of one scale
    for place, tile in enumerate(tiles):
        strip.paste(tile.convert(strip.mode), (place * (width + 1), 0))
    file = io.BytesIO()
    strip.save(file, "PNG", optimize=True)
    return file.getvalue(), *strip.size
