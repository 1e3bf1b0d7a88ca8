"""Sets of DREAM and IDC (lyq312318224/DREAM): ``data.pt`` or ``data{iteration}.pt``, ``[images, labels]`` in a list.

Liu et al., ICCV 2023 (DREAM); Kim et al., ICML 2022 (IDC). Images are stored in 0..1, not normalised. With a factor f every
stored image is a grid of f x f smaller ones, which are cut out and enlarged before a network sees them (multi-formation).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dqas_adapters.distilled.family import DistilledSet, joined, named_file, paths_in
from dqas_adapters.distilled.labels import class_order, read_labels
from dqas_adapters.distilled.normalisation import TRAJECTORIES, UNMIRRORED, NormalisationName
from dqas_adapters.distilled.pixels import Scale, as_bytes, checked_values, normalised_scale, plain_scale, stored_images
from dqas_adapters.foreign import read_torch
from dqas_plugin.data import DatasetSplits, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.untrusted import parsed_json, read_bytes

_WHAT = "a set of DREAM"
_REMEDY = "normalisation=NAME"
_FOLDER = re.compile(r"_factor(\d{1,3})(_multi)?(?:_|$)")
_LEAST_CELL = 4  # pixels
_MOST = 8  # highest factor; what a file claims must not multiply images without end, and theirs are 2 to 5
_LONGEST = 1 << 20  # bytes of args.txt; theirs is of about 3,000


class Formation(NamedTuple):
    """How images are packed: a factor, whether 1..factor count together, and who says so."""

    factor: int
    multi: bool
    source: str = ""


def load(
    path: str,
    *,
    factor: int | None = None,
    decode: Literal["auto", "single", "multi"] = "auto",
    normalisation: NormalisationName = "auto",
    classes_from: str | None = None,
    data_root: str | None = None,
    mirror: bool = True,
    in_order: bool = True,
    check: bool = True,
) -> DatasetSplits:
    """Distilled images as a dataset without a test split.

    Args:
        path: a file, a folder with ``data.pt``, or several joined by ``+``.
        factor: every stored image packs ``factor x factor`` of them; None: as ``args.txt`` beside the file or the folder's name
            says, else 1.
        decode: ``single``: the cells of that grid; ``multi``: those of the grids of 1, 2 … factor together; ``auto``: as
            ``args.txt`` or the folder's name says, else single.
        normalisation: of the stored values; ``auto``: none, which is how their program stores them.
        classes_from: dataset whose class names they take (needed for a test on it); None: numbers.
        data_root: folder with that dataset's files.
        mirror: whether a mirrored image still belongs to its class.
        in_order: refuse labels that are not in class order; false: sort them.
        check: refuse values that contradict what is assumed about them.

    Raises:
        UserError: a file that is something else, damaged, or holds wrong data; it is named, and the field in it.
    """
    files = paths_in(path, lambda one: [named_file(one, "data.pt", "data*.pt", _WHAT)] if one.is_dir() else [one])
    sets = [_read(one, factor, decode, normalisation, in_order, check) for one in files]
    return joined(sets, classes_from, data_root, mirror and normalisation not in UNMIRRORED)


def cells(images: Tensor, factor: int) -> Tensor:
    """Cut images into a grid and enlarge every cell to the size of the whole.

    Args:
        images: float32 ``[N, C, H, H]`` in 0..1; where H cannot be divided by the factor, .5 is added below and at the right.
        factor: cells in a row and in a column.

    Returns:
        float32 ``[factor * factor * N, C, H, H]``: the first cell of every image, the second of every image … row by row;
        resized bilinearly between pixel centres (``align_corners=False``), without antialiasing.
    """
    if factor == 1:
        return images
    count, channels, size, _ = images.shape
    side = -(-size // factor)
    beyond = side * factor - size
    padded = functional.pad(images, (0, beyond, 0, beyond), value=0.5)
    grid = padded.reshape(count, channels, factor, side, factor, side)
    cut = grid.permute(2, 4, 0, 1, 3, 5).reshape(-1, channels, side, side)
    return functional.interpolate(cut, size=(size, size), mode="bilinear", align_corners=False)


def decoded(images: Tensor, labels: IntArray, scale: Scale, formation: Formation) -> tuple[Tensor, IntArray]:
    """All images that the stored ones pack, class after class.

    Args:
        images: ``[N, C, H, H]`` as stored, in class order.
        labels: int64 ``[N]``.
        scale: how they are stored.
        formation: how they are packed.

    Returns:
        uint8 ``[N * k, C, H, H]`` and int64 ``[N * k]``, with k = factor^2, or 1 + 4 + … + factor^2; within a class in the
        order of factors, and within a factor in that of :func:`cells`.
    """
    factors = range(1, formation.factor + 1) if formation.multi else (formation.factor,)
    times = sum(one * one for one in factors)
    pixels = torch.empty((len(images) * times, *images.shape[1:]), dtype=torch.uint8)
    place = 0
    for members in np.split(np.arange(len(labels)), np.flatnonzero(np.diff(labels)) + 1):
        values = scale.undo(images[members[0] : members[-1] + 1].float())
        for one in factors:
            found = as_bytes(cells(values, one))
            pixels[place : place + len(found)] = found
            place += len(found)
    return pixels, np.repeat(labels, times)  # labels are in class order, and every class grows alike


def _read(path: Path, factor: int | None, decode: str, normalisation: str, in_order: bool, check: bool) -> DistilledSet:
    content = read_torch(path, _WHAT)
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise UserError(f"{path} is not {_WHAT}: it must be a list of images and labels; name another file")
    images = stored_images(content[0], path, "the first part")
    labels = read_labels(content[1], path, "the second part", len(images)).classes
    formation = _formation(path, factor, decode)
    _check_formation(formation, images, path)
    order = class_order(labels, path, "the second part", in_order)
    constants = TRAJECTORIES.get(normalisation)
    scale = normalised_scale(constants, images, path, _REMEDY) if constants else plain_scale(_REMEDY)
    notes = checked_values(images, scale, path, check)
    if order is not None:
        images, labels = images[torch.from_numpy(order)], labels[order]
    pixels, every = decoded(images, labels, scale, formation)
    name = path.resolve().parent.name if path.stem.startswith("data") else path.stem
    return DistilledSet(path, name or path.stem, pixels, every, None, (_told(formation), *notes))


def _formation(path: Path, factor: int | None, decode: str) -> Formation:
    """What the user says; else what stands beside the file; else one image each."""
    if factor is not None and (decode != "auto" or factor == 1):
        return Formation(factor, decode == "multi")
    stated = _stated(path) or Formation(1, False, " (assumed: nothing beside the file says otherwise; option factor=)")
    source = stated.source if factor is None else ""
    chosen = stated.factor if factor is None else factor
    return Formation(chosen, stated.multi if decode == "auto" else decode == "multi", source)


def _stated(path: Path) -> Formation | None:
    """What ``args.txt``, which their program writes into the same folder, or the name of that folder says."""
    described = path.parent / "args.txt"
    if described.is_file():
        return _of_arguments(described)
    if found := _FOLDER.search(path.resolve().parent.name):
        return Formation(int(found[1]), bool(found[2]), f", as the folder's name says ({path.resolve().parent.name})")
    return None


def _of_arguments(path: Path) -> Formation:
    try:
        arguments: Any = parsed_json(read_bytes(path, _LONGEST))
        factor, kind = arguments["factor"], arguments.get("decode_type", "single")
        if not isinstance(factor, int):
            raise ValueError("factor is not a whole number")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read as the arguments of DREAM ({error}): give factor= and decode=single or multi"
        ) from error
    return Formation(max(1, factor), kind == "multi", f", as {path.name} says")


def _check_formation(formation: Formation, images: Tensor, path: Path) -> None:
    height, width = images.shape[2:]
    most = max(1, min(_MOST, height // _LEAST_CELL))
    if not 1 <= formation.factor <= most:
        raise UserError(
            f"{path}: factor must be between 1 and {most}, so that cells of images of {height} pixels keep {_LEAST_CELL}, "
            f"not {formation.factor}{formation.source}"
        )
    if formation.factor > 1 and height != width:
        raise UserError(f"{path}: images of {height}x{width} cannot be cut into cells, only square ones: give factor=1")


def _told(formation: Formation) -> str:
    factor, multi, source = formation
    if factor == 1:
        return f"every stored image is one image{source}"
    kind = f"grids of 1 to {factor} in a row together" if multi else f"a grid of {factor}x{factor}"
    return f"every stored image was cut into {kind}{source}"
