"""Encoded images to pixels: many threads, one batch in memory at a time.

Conversions are few and always counted, so that a dataset can say what was done to it: palette and other colour spaces
become RGB, transparency is laid on white, grey images among colour ones become RGB, and ``size`` resizes (bilinear with
antialiasing). Images of more than 8 bits a channel are refused, because how to scale them is not ours to guess. Of an
animation the first frame counts; EXIF orientation is not applied.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dqas_plugin.data import BoolArray, IntArray
from dqas_plugin.errors import UserError

Pixels = npt.NDArray[np.uint8]

BATCH = 1024
"""Encoded images that a source should hand over at once: 50 MB decoded at 128x128, enough work for every thread."""

AT_A_STEP = 16
"""Rows that are taken out of a column of encoded images at once: a small file can hold one large value for many rows."""

_HELD = 1 << 26  # bytes of encoded images that wait to be decoded: photographs of megabytes come in smaller batches
_AT_ONCE = 1 << 28  # bytes of pixels that are decoded at once, however many images a source hands over
_CHUNK = 32  # images per task: the overhead of a task is then small beside decoding
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # not all that Pillow knows: EPS would start Ghostscript


class Encoded(NamedTuple):
    """One image file: how to name it in a message, and its bytes or its path."""

    where: str
    data: bytes | Path


class Decoded(NamedTuple):
    """Pixels ``[C, H, W]`` with C = 1 (grey) or 3 (RGB), and the conversions that were made."""

    pixels: Pixels
    conversions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """A labelled source of encoded images, in a fixed order.

    Attributes:
        classes: one name per class.
        labels: int64 ``[N]``.
        in_test: bool ``[N]``, which images belong to the test split.
        batches: opens the source anew and yields its images in the order of ``labels``, at most about :data:`BATCH` at once.
        notes: what people should know about the source.
        targets: soft labels of the training images (those not in the test split, in their order), float32 ``[T, C]``, or None.
    """

    classes: tuple[str, ...]
    labels: IntArray
    in_test: BoolArray
    batches: Callable[[], Iterator[Sequence[Encoded]]]
    notes: tuple[str, ...] = field(default=())
    targets: npt.NDArray[np.float32] | None = None


def in_batches(images: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """What a source hands over: :data:`BATCH` images at once, or fewer large ones."""
    batch: list[Encoded] = []
    held = 0
    for one in images:
        batch.append(one)
        held += len(one.data) if isinstance(one.data, bytes) else 0
        if len(batch) >= BATCH or held >= _HELD:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def decode_batches(batches: Iterable[Sequence[Encoded]], size: int | None) -> Iterator[list[Decoded]]:
    """Decode batch after batch on all cores (Pillow releases the interpreter lock while it decodes).

    Args:
        batches: encoded images.
        size: side length to resize to, or None: then every image must have the size of the first one.

    Raises:
        UserError: an image is damaged, not an image, deeper than 8 bits, too large, or of another size; it is named.
    """
    decode_some: Callable[[Sequence[Encoded]], list[Decoded]] | None = None
    at_once = _CHUNK
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for batch in batches:
            if decode_some is None and batch:
                first = _Reference(batch[0].where, _shape(batch[0]))
                decode_some = partial(_decode_some, size=size, first=first)
                width, height = first.shape if size is None else (size, size)
                at_once = min(BATCH, max(1, _AT_ONCE // (3 * width * height)))
            for start in range(0, len(batch), at_once):
                some = batch[start : start + at_once]
                chunks = [some[place : place + _CHUNK] for place in range(0, len(some), _CHUNK)]
                yield [one for part in pool.map(decode_some, chunks) for one in part]  # type: ignore[arg-type]  # set above


@contextmanager
def without_size_warnings() -> Iterator[None]:
    """Silence Pillow's warnings around the decoding (main thread).

    Too large images are refused here, by name. What else it warns of, such as odd metadata, leaves the pixels as they are.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


class _Reference(NamedTuple):
    """The image that all others must match in size."""

    where: str
    shape: tuple[int, int]  # width, height


def _decode_some(items: Sequence[Encoded], size: int | None, first: _Reference) -> list[Decoded]:
    return [_decode(item, size, first) for item in items]


def _decode(item: Encoded, size: int | None, first: _Reference) -> Decoded:
    with _opened(item) as image:
        if size is None and image.size != first.shape:
            raise UserError(
                f"{item.where} is {_times(image.size)} pixels but {first.where} is {_times(first.shape)}: "
                f"make them one size, or set the option size (size={min(first.shape)}) to resize all images"
            )
        plain, conversions = _plain(image, item.where)
        if size is not None and plain.size != (size, size):
            plain = plain.resize((size, size), Image.Resampling.BILINEAR)  # Pillow antialiases when it makes smaller
            conversions = (*conversions, f"images were resized to {size}x{size} (bilinear)")
        pixels = np.asarray(plain)
    return Decoded(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0), conversions)


def _plain(image: Image.Image, where: str) -> tuple[Image.Image, tuple[str, ...]]:
    """``image`` in mode L or RGB, loaded."""
    if image.mode in ("I", "F") or image.mode.startswith("I;") or _stored_deep(image):
        raise UserError(f"{where} has more than 8 bits a channel: convert it to an 8-bit image first")
    if image.has_transparency_data:
        laid = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return laid.convert("RGB"), ("images with transparency were laid on white",)
    if image.mode in ("1", "L"):
        return image.convert("L"), ()
    if image.mode == "RGB":
        image.load()
        return image, ()
    kind = "palette" if image.mode == "P" else image.mode
    return image.convert("RGB"), (f"{kind} images became RGB",)


def _stored_deep(image: Image.Image) -> bool:
    """Whether the file holds 16 bits a channel that Pillow would quietly cut to 8 (colour PNG and TIFF)."""
    return any(";16" in str(part) for tile in getattr(image, "tile", ()) for part in tile)


def _shape(item: Encoded) -> tuple[int, int]:
    with _opened(item) as image:
        return image.size


@contextmanager
def _opened(item: Encoded) -> Iterator[Image.Image]:
    try:
        source = BytesIO(item.data) if isinstance(item.data, bytes) else item.data
        with Image.open(source, formats=_known_formats()) as image:
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{_times(image.size)} pixels are too many")
            yield image
    except UserError:
        raise
    except Exception as error:  # decoders raise whatever they stumble over: OSError, SyntaxError, struct.error, KeyError …
        raise UserError(f"{item.where} cannot be decoded ({_reason(error)}): mend or remove it") from error


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(one for one in _FORMATS if one in Image.OPEN)  # a Pillow built without WebP must not fail here


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return " ".join(str(error).split()) or type(error).__name__


def _times(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"
