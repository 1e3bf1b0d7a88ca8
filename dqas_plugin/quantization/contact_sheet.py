"""A picture of what quantization does: original, kept patches and rebuilt image side by side, a few of every class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dqas_plugin.data import ImageDataset
from dqas_plugin.datasets.decode import Pixels
from dqas_plugin.errors import UserError
from dqas_plugin.paths import atomic_file
from dqas_plugin.quantization.patches import pixel_mask

_SIDE = 96  # pixels of a small image on the sheet, at least
_GAP = 4  # between the three of an image
_SPACE = 16  # between images and around them
_LINE = 18  # height of a line of text
_COLUMNS = ("original", "kept", "rebuilt")
_BACKGROUND, _INK = (255, 255, 255), (40, 40, 40)
_HATCH = np.array([200, 225], dtype=np.uint8)  # the two greys of what was dropped


def contact_sheet(
    path: Path, data: ImageDataset, keep: Tensor, rebuilt: Tensor, *, per_class: int = 3, most_classes: int = 50
) -> Path:
    """Write a PNG with a row for every class: its name, then original, kept patches (the rest hatched) and rebuilt image.

    Small images are enlarged by a whole number, without smoothing.

    Args:
        path: of the picture; its folder is made if it is missing.
        data: the original images, grey or RGB.
        keep: bool ``[N, P]``, the patches of each that are kept.
        rebuilt: uint8, as ``data.images``.
        per_class: the first so many images of every class.
        most_classes: so many classes are shown, evenly spread over all that have images.

    Raises:
        UserError: arrays that do not belong together, no images, fewer than 1 per class, or the file cannot be written.
    """
    if keep.shape[:1] != data.labels.shape or rebuilt.shape != data.images.shape:
        raise UserError(
            f"{data.name}: a mask {tuple(keep.shape)} and rebuilt images {tuple(rebuilt.shape)} "
            f"do not belong to images {tuple(data.images.shape)}"
        )
    if per_class < 1 or most_classes < 1 or len(data) == 0:
        raise UserError("a contact sheet needs at least one image of at least one class")
    present = np.flatnonzero(data.class_sizes)
    shown = present[np.unique(np.linspace(0, len(present) - 1, min(most_classes, len(present))).round().astype(int))]
    labels = data.labels.numpy()
    rows = [(data.classes[one], np.flatnonzero(labels == one)[:per_class]) for one in shown.tolist()]
    sheet = _drawn(data, keep, rebuilt, rows)
    with atomic_file(path) as whole:
        sheet.save(whole, "PNG", optimize=True)
    return path


def _drawn(data: ImageDataset, keep: Tensor, rebuilt: Tensor, rows: list[tuple[str, npt.NDArray[np.intp]]]) -> Image.Image:
    _, height, width = data.image_shape
    scale = max(1, -(-_SIDE // min(height, width)))
    across, down = width * scale, height * scale
    triple = 3 * across + 2 * _GAP
    columns = max(len(some) for _, some in rows)
    size = (_SPACE + columns * (triple + _SPACE), _SPACE + _LINE + len(rows) * (_LINE + down + _SPACE))
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column in range(columns):
        for place, title in enumerate(_COLUMNS):
            draw.text((_SPACE + column * (triple + _SPACE) + place * (across + _GAP), 6), title, _INK, font)
    for row, (name, some) in enumerate(rows):
        top = _SPACE + _LINE + row * (_LINE + down + _SPACE)
        draw.text((_SPACE, top), _plain(name), _INK, font)
        for column, index in enumerate(some.tolist()):
            known = pixel_mask(keep[index : index + 1], data.image_shape)[0].numpy()
            tiles = _tiles(data.images[index].numpy(), known, rebuilt[index].numpy(), scale)
            for place, tile in enumerate(tiles):
                left = _SPACE + column * (triple + _SPACE) + place * (across + _GAP)
                sheet.paste(Image.fromarray(tile), (left, top + _LINE))
    return sheet


def _tiles(original: Pixels, known: npt.NDArray[np.bool_], rebuilt: Pixels, scale: int) -> tuple[Pixels, Pixels, Pixels]:
    """Three pictures uint8 ``[scale * H, scale * W, 3]`` of two ``[C, H, W]`` and the pixels that are kept, ``[H, W]``."""
    first, last = _enlarged(original, scale), _enlarged(rebuilt, scale)
    there = known.repeat(scale, axis=0).repeat(scale, axis=1)[..., None]
    stripes = np.add.outer(np.arange(first.shape[0]), np.arange(first.shape[1])) // 4 % 2
    middle: Pixels = np.where(there, first, _HATCH[stripes][..., None])
    return first, middle, last


def _enlarged(pixels: Pixels, scale: int) -> Pixels:
    colours = np.broadcast_to(np.moveaxis(pixels, 0, 2), (*pixels.shape[1:], 3))  # grey is repeated
    found: Pixels = colours.repeat(scale, axis=0).repeat(scale, axis=1)
    return found


def _plain(name: str) -> str:
    """What Pillow's smallest font can draw, on one line."""
    return " ".join(name.split()).encode("latin-1", "replace").decode("latin-1")[:60]
