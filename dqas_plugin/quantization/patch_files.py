"""A quantised set on disk: parquet in the column layout of the Hugging Face hub, which ``parquet:PATH`` loads and trains on.

Two forms. *Images*: the rebuilt images as PNG, which anything reads. *Patches*: only what is kept, without loss, in columns:

* ``patches``: bytes of the kept patches in the order of their positions, ``[C, K, size, size]``; with three channels red and
  blue first lose green, then every pixel the one to its left, and the first of a row the one above it, all modulo 256 (a
  fifth smaller than PNG once zstd has been over the column);
* ``mask``: one bit a patch, the highest bit of the first byte first (``numpy.packbits``);
* ``label``;
* ``targets``: soft labels, float32, one number a class, in either form, if the images have them.

The entry ``dqas`` of the schema's metadata, JSON, says which form it is, whether images may be mirrored, and of patches: the
image shape, patch size, patches kept, drop rate, and what rebuilds the images. They are rebuilt once, into the cache.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from dqas_plugin.data import BoolArray, ImageDataset
from dqas_plugin.datasets.decode import BATCH, Encoded, Pixels
from dqas_plugin.datasets.encode import picture
from dqas_plugin.datasets.files import file_digest
from dqas_plugin.errors import UserError
from dqas_plugin.models import Shape
from dqas_plugin.paths import atomic_file
from dqas_plugin.quantization.patches import PatchedImages, patch_count
from dqas_plugin.untrusted import parsed_json

if TYPE_CHECKING:
    from dqas_plugin.quantization.mae import MaskedAutoencoder

KEY = b"dqas"
"""Entry of the schema's metadata."""

_VERSION = 1
_SMALL = 1 << 16  # pixels of an image, of which one patch may be enough
_MOST_DROPPED = 64  # patches of a larger one for each that is there
_AT_ONCE = 1 << 28  # bytes of images that are rebuilt at once
_FACTOR = 1 << 31  # bytes of the equations of one image
_LABEL = "label"
TARGETS = "targets"
"""Column of soft labels."""


@dataclass(frozen=True)
class PatchFormat:
    """What is needed to make images of the rows of a file.

    Attributes:
        shape: (channels, height, width) of the images.
        size: pixels a side of a patch.
        kept: patches of an image that are there.
        drop_rate: what was asked for, 0..1.
        mae: weights of the masked autoencoder that rebuilds the images, relative to the file or absolute; None: harmonic.
        mae_digest: hash of that file.
    """

    shape: Shape
    size: int
    kept: int
    drop_rate: float
    mae: str | None = None
    mae_digest: str | None = None

    @property
    def patches(self) -> int:
        """P, patches of a whole image."""
        return patch_count(self.shape, self.size)


class Written(NamedTuple):
    """A file that was written: where, how many images, and bytes on disk."""

    path: Path
    images: int
    bytes: int


class Rebuild(NamedTuple):
    """How images are rebuilt: ``name`` goes into cache keys, ``note`` (if any) is for people."""

    name: str
    note: str | None
    function: Callable[[Tensor, Tensor], Tensor]


def write_images(folder: Path, data: ImageDataset, *, split: str = "train") -> Written:
    """Write ``data`` as PNG images, with its soft labels if it has any, into ``folder/<split>-00000-of-00001.parquet``.

    Args:
        folder: made if it is missing.
        data: grey or RGB.
        split: ``train`` or ``test``.

    Raises:
        UserError: other channels, other files of that split are there already, or the file cannot be written.
    """
    _check_channels(data.image_shape)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = _schema(data, [pa.field("image", kind)], {"form": "images"}, {"image": {"_type": "Image"}})

    def column(rows: slice) -> list[pa.Array]:
        images = data.images[rows].numpy()
        return [pa.array([{"bytes": _png(one), "path": None} for one in images], kind)]

    return _write(folder, split, schema, data, column)


def write_patches(
    folder: Path,
    data: ImageDataset,
    patched: PatchedImages,
    *,
    drop_rate: float,
    mae: Path | None = None,
    split: str = "train",
) -> Written:
    """Write the kept patches of a dataset into ``folder/<split>-00000-of-00001.parquet``.

    Args:
        folder: made if it is missing.
        data: labels, soft labels, class names and whether images may be mirrored; its images are not read.
        patched: one row an image of ``data``.
        drop_rate: what was asked for, 0..1, for people.
        mae: weights file of the masked autoencoder that shall rebuild the images (inside ``folder`` or elsewhere); None:
            harmonic inpainting.
        split: ``train`` or ``test``.

    Raises:
        UserError: see :func:`write_images`; also patches of other images, and weights that cannot be read.
    """
    _check_channels(patched.shape)
    if len(patched) != len(data) or patched.shape != data.image_shape:
        raise UserError(
            f"{data.name}: {len(patched)} images of {patched.shape} in patches cannot be its {len(data)} of {data.image_shape}"
        )
    kind = PatchFormat(patched.shape, patched.size, int(patched.patches.shape[1]), drop_rate)
    if mae is not None:
        inside = mae.resolve().is_relative_to(folder.resolve())
        place = os.path.relpath(mae.resolve(), folder.resolve()) if inside else str(mae.resolve())
        kind = replace(kind, mae=place, mae_digest=file_digest(mae))
    fields = [pa.field("patches", pa.binary()), pa.field("mask", pa.binary())]
    schema = _schema(data, fields, {"form": "patches", **asdict(kind)}, {})

    def columns(rows: slice) -> list[pa.Array]:
        coded = _coded(patched.patches[rows].numpy())
        masks = np.packbits(patched.mask[rows].numpy(), axis=1)
        return [pa.array([row.tobytes() for row in one], pa.binary()) for one in (coded, masks)]

    return _write(folder, split, schema, data, columns)


def recorded(path: Path) -> dict[str, Any]:
    """What the schema's metadata of a parquet file says under :data:`KEY`; empty if it says nothing or is not JSON.

    Raises:
        pa.ArrowException, OSError: the file cannot be read.
    """
    try:
        found = parsed_json((pq.read_schema(path).metadata or {})[KEY])
    except (KeyError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def patch_format(path: Path, record: Mapping[str, Any]) -> PatchFormat | None:
    """The format of a file of patches whose record this is; None if it does not hold patches.

    Raises:
        UserError: the record does not describe patches of images.
    """
    if record.get("form") != "patches":
        return None
    if record.get("version") != _VERSION:
        raise UserError(f"{path} was written by another version of this program: write it again, or update the program")
    try:
        channels, height, width = (int(one) for one in record["shape"])
        texts = [None if record.get(one) is None else str(record[one]) for one in ("mae", "mae_digest")]
        rate = float(record["drop_rate"])
        found = PatchFormat((channels, height, width), int(record["size"]), int(record["kept"]), rate, *texts)
        fits = channels in (1, 3) and 0 < height * width <= (Image.MAX_IMAGE_PIXELS or np.inf)
        fits = fits and 0 < found.kept <= found.patches and min(height, width) > 0
        fits = fits and (height * width <= _SMALL or found.patches <= _MOST_DROPPED * found.kept)
    except (KeyError, TypeError, ValueError, OverflowError, UserError):
        fits = False
    if not fits:
        raise UserError(f"{path} does not say of what images its patches are (metadata '{KEY.decode()}'): write it again")
    return found


def rebuilding(path: Path, kind: PatchFormat) -> Rebuild:
    """What rebuilds the images of a file: the masked autoencoder that it names if that is there, else harmonic inpainting.

    Raises:
        UserError: the weights are there but do not fit.
    """
    if kind.mae is None:
        return Rebuild("harmonic", None, _harmonic)
    weights = path.parent / kind.mae
    reason = "is not there"
    if weights.is_file():
        if file_digest(weights) == kind.mae_digest:
            return Rebuild(f"mae {kind.mae_digest}", None, _Autoencoder(weights))
        reason = "has changed"
    return Rebuild("harmonic", f"rebuilt by harmonic inpainting: the masked autoencoder {kind.mae} {reason}", _harmonic)


def rebuilt(path: Path, kind: PatchFormat, rebuild: Rebuild) -> Iterator[list[Encoded]]:
    """The images of a file of patches, as many at once as decoding likes, in a plain format (PPM).

    Raises:
        UserError: a row does not hold the patches that its mask names; it is named.
        pa.ArrowException, OSError: the file cannot be read.
    """
    file = pq.ParquetFile(path, pre_buffer=False)
    for name in ("patches", "mask"):
        if name not in file.schema_arrow.names or not pa.types.is_binary(file.schema_arrow.field(name).type):
            raise UserError(f"{path} has no column '{name}' of bytes: write the file again")
    row = 0
    at_once = min(BATCH, max(1, _AT_ONCE // math.prod(kind.shape)))
    for batch in file.iter_batches(at_once, columns=["patches", "mask"]):
        contents, masks = (batch.column(name).to_pylist() for name in ("patches", "mask"))
        mask = _masks(path, row, kind, masks)
        coded = _joined(path, row, contents, kind.kept * kind.shape[0] * kind.size**2, "patches")
        patches = _decoded(coded.reshape(-1, kind.shape[0], kind.kept, kind.size, kind.size))
        patched = PatchedImages(torch.from_numpy(patches), torch.from_numpy(mask), kind.shape)
        images = rebuild.function(patched.visible()[0], patched.mask).numpy()
        yield [Encoded(f"{path} row {row + offset}", _ppm(one)) for offset, one in enumerate(images)]
        row += len(contents)


def _harmonic(images: Tensor, keep: Tensor) -> Tensor:
    from dqas_plugin.quantization.harmonic import harmonic  # compiles: only where something is rebuilt

    return harmonic(images, keep)


class _Autoencoder:
    """Rebuilds by the masked autoencoder of a file, which is read when the first image is."""

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        self.loaded: MaskedAutoencoder | None = None

    def __call__(self, images: Tensor, keep: Tensor) -> Tensor:
        from dqas_plugin.quantization.mae import reconstruct
        from dqas_plugin.quantization.mae_weights import load_mae

        self.loaded = self.loaded or load_mae(self.weights)
        return reconstruct(self.loaded, images, keep)


def _masks(path: Path, row: int, kind: PatchFormat, masks: Sequence[bytes | None]) -> BoolArray:
    packed = _joined(path, row, masks, -(-kind.patches // 8), "mask")
    mask: BoolArray = np.unpackbits(packed, axis=1, count=kind.patches).astype(np.bool_)
    if len(wrong := np.flatnonzero(mask.sum(axis=1) != kind.kept)):
        raise UserError(f"{path} row {row + wrong[0]}: its mask does not name {kind.kept} patches; write the file again")
    columns = kind.shape[2] // kind.size
    missing = kind.size * (~mask).reshape(len(mask), -1, columns).sum(axis=2)  # pixels of each row of patches, [rows, …]
    if len(wrong := np.flatnonzero(8 * kind.size * missing.sum(axis=1) * 2 * missing.max(axis=1, initial=0) > _FACTOR)):
        raise UserError(f"{path} row {row + wrong[0]}: its patches are too few to rebuild the image from; load smaller images")
    return mask


def _joined(path: Path, row: int, contents: Sequence[bytes | None], length: int, column: str) -> Pixels:
    """Equally long contents of rows as one array, uint8 ``[rows, length]``."""
    for offset, one in enumerate(contents):
        if one is None or len(one) != length:
            held = "nothing" if one is None else f"{len(one)} bytes"
            raise UserError(f"{path} row {row + offset}: column '{column}' holds {held}, not {length}; write the file again")
    return np.frombuffer(b"".join(one for one in contents if one is not None), dtype=np.uint8).reshape(-1, length)


def _coded(patches: Pixels) -> Pixels:
    """Differences of ``[N, K, C, size, size]``, as ``[N, C * K * size * size]``."""
    values = np.moveaxis(patches, 2, 1).copy()
    if values.shape[1] == 3:
        values[:, ::2] -= values[:, 1:2]
    left = np.diff(values, axis=4)
    above = np.diff(values[..., :1], axis=3)
    values[..., 1:] = left
    values[..., 1:, :1] = above
    return values.reshape(len(values), values[0].size if len(values) else 0)


def _decoded(values: Pixels) -> Pixels:
    """The patches ``[N, K, C, size, size]`` of their differences, ``[N, C, K, size, size]``."""
    first = np.cumsum(values[..., :1], axis=3, dtype=np.uint8)  # modulo 256
    found = np.cumsum(np.concatenate([first, values[..., 1:]], axis=4), axis=4, dtype=np.uint8)
    if found.shape[1] == 3:
        found[:, ::2] += found[:, 1:2]
    return np.ascontiguousarray(np.moveaxis(found, 1, 2))


def _schema(data: ImageDataset, fields: list[pa.Field], record: dict[str, Any], features: dict[str, Any]) -> pa.Schema:
    names = {_LABEL: {"names": list(data.classes), "_type": "ClassLabel"}}
    metadata = {
        "huggingface": json.dumps({"info": {"features": features | names}}),
        KEY: json.dumps({"version": _VERSION, "mirror": data.mirror} | record),
    }
    soft = [] if data.targets is None else [pa.field(TARGETS, pa.list_(pa.float32(), data.num_classes))]
    return pa.schema([*fields, pa.field(_LABEL, pa.int64()), *soft], metadata)


def _write(
    folder: Path, split: str, schema: pa.Schema, data: ImageDataset, columns: Callable[[slice], list[pa.Array]]
) -> Written:
    """Whole or not at all; a block of rows is in memory at a time."""
    target = folder / f"{split}-00000-of-00001.parquet"
    if others := sorted(one.name for one in folder.glob(f"{split}*.parquet") if one != target):
        raise UserError(f"{folder} holds {others[0]} already, which would be loaded too: choose another folder")
    with (
        atomic_file(target) as whole,
        pq.ParquetWriter(whole, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for start in range(0, len(data), BATCH):
            rows = slice(start, start + BATCH)
            labels = [pa.array(data.labels[rows].numpy(), pa.int64())]
            if data.targets is not None:
                soft = pa.array(data.targets[rows].numpy().ravel(), pa.float32())
                labels.append(pa.FixedSizeListArray.from_arrays(soft, data.num_classes))
            writer.write_batch(pa.record_batch([*columns(rows), *labels], schema=schema))
    return Written(target, len(data), target.stat().st_size)


def _check_channels(shape: Shape) -> None:
    if shape[0] not in (1, 3):
        raise UserError(f"images of {shape[0]} channels cannot be written: only grey (1) and RGB (3)")


def _png(pixels: Pixels) -> bytes:
    buffer = BytesIO()
    picture(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _ppm(pixels: Pixels) -> bytes:
    channels, height, width = pixels.shape
    return b"P%d %d %d 255\n" % (6 if channels == 3 else 5, width, height) + np.moveaxis(pixels, 0, 2).tobytes()
