"""Weights of masked autoencoders in files: the authors' release, and our own.

``mae_visualize_vit_large_ganloss.pth`` of https://github.com/facebookresearch/mae holds ``{"model": state dict}``: ViT-L/16 at
224 pixels with a decoder of 8 blocks of width 512. Files are never unpickled (``weights_only``).
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dqas_plugin.cache_entry import write_weights
from dqas_plugin.errors import UserError
from dqas_plugin.quantization.mae import IMAGENET_MEAN, IMAGENET_STD, MaeShape, MaskedAutoencoder
from dqas_plugin.torch_files import read_torch

RELEASE = "mae_visualize_vit_large_ganloss.pth"
"""The weights that dataset quantization uses."""

_HEADS = {768: 12, 1024: 16, 1280: 16}  # of ViT-B, L and H; nothing in the weights tells
_DECODER_HEADS = 16  # of every release
_WIDEST = 1 << 16  # no layer, image or standard deviation is larger
_TELLING = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight", "decoder_embed.weight")
_OURS = "dqas"  # what a file of ours says beside the weights


def save_mae(mae: MaskedAutoencoder, path: Path) -> None:
    """Write weights, shape and normalisation, in the layout of the release with a few more entries."""
    about = {"shape": asdict(mae.shape), "mean": mae.mean.tolist(), "std": mae.std.tolist()}
    weights = {name: one.detach().cpu().contiguous() for name, one in mae.state_dict().items()}
    write_weights({"model": weights, _OURS: about}, path)


def load_mae(path: Path) -> MaskedAutoencoder:
    """The autoencoder in a file, in evaluation mode, on the CPU.

    Its sizes are read off the weights. Those of others are taken to be trained on images normalised with the mean and
    standard deviation of ImageNet and to predict pixels (``norm_pix_loss`` False, which the weights do not tell: those trained
    with it, the ``…_full`` files of the release, predict patches without their mean and contrast and rebuild grey mush).

    Raises:
        UserError: no such file, another kind of file, weights without decoder or with layers that do not belong to it.
    """
    path = Path(path)
    state, about = _content(path)
    shape = _shape_of(path, state) if about is None else _own_shape(path, about)
    _check_shape(path, shape, state)
    with torch.device("meta"):  # no second copy of the weights
        mae = MaskedAutoencoder(shape)
    try:
        mae.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit a masked autoencoder of its size: {_short(error)}") from error
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if about is None else (_statistics(path, about, one) for one in ("mean", "std"))
    mae.set_normalisation(torch.tensor(mean), torch.tensor(std))
    return mae.float().eval().requires_grad_(False)


def _content(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The state dict of a file, and what a file of ours says beside it."""
    content = read_torch(path, f"a masked autoencoder's weights, e.g. {RELEASE}")
    state = content.get("model") if isinstance(content, dict) else None
    sound = isinstance(state, dict) and all(isinstance(k, str) and isinstance(one, Tensor) for k, one in state.items())
    if not isinstance(state, dict) or not state or not sound:
        raise UserError(f"{path} holds no weights under 'model': give a masked autoencoder's, e.g. {RELEASE}")
    about = content.get(_OURS)
    if about is not None and not isinstance(about, dict):
        raise _other_version(path)
    return state, about


def _own_shape(path: Path, about: dict[str, Any]) -> MaeShape:
    try:
        shape = MaeShape(**about["shape"] | {"image": tuple(about["shape"]["image"])})
    except (TypeError, KeyError, ValueError) as error:
        raise _other_version(path) from error
    whole = [shape.patch, shape.width, shape.depth, shape.heads, shape.decoder_width, shape.decoder_depth, shape.decoder_heads]
    sound = len(shape.image) == 3 and all(type(one) is int for one in [*whole, *shape.image])
    if not sound or type(shape.mlp_ratio) not in (int, float) or type(shape.residual) is not bool:
        raise _other_version(path)
    return shape


def _statistics(path: Path, about: dict[str, Any], name: str) -> list[float]:
    """Mean or standard deviation, one number for each channel."""
    values = about.get(name)
    channels = about["shape"]["image"][0]
    if not isinstance(values, list) or len(values) != channels or not all(type(one) in (int, float) for one in values):
        raise _other_version(path)
    if not all(-_WIDEST < one < _WIDEST for one in values):
        raise _other_version(path)
    return [float(one) for one in values]


def _other_version(path: Path) -> UserError:
    return UserError(f"{path} was written by another version of this program: let it be trained again")


def _check_shape(path: Path, shape: MaeShape, state: dict[str, Tensor]) -> None:
    """Refuse sizes that no autoencoder has, or that these weights are not enough for, before one is built."""
    channels, height, width = shape.image
    sides = (channels, height, width, shape.patch, shape.width, shape.heads, shape.decoder_width, shape.decoder_heads)
    possible = (
        all(1 <= one <= _WIDEST for one in sides)
        and min(height, width) >= shape.patch
        and shape.width % 4 == shape.width % shape.heads == 0
        and shape.decoder_width % 4 == shape.decoder_width % shape.decoder_heads == 0
        and 0 < shape.mlp_ratio < _WIDEST
    )
    if not possible or min(shape.depth, shape.decoder_depth) < 0 or shape.depth + shape.decoder_depth > len(state):
        raise UserError(f"{path} describes no masked autoencoder that its weights would be enough for: give e.g. {RELEASE}")


def _shape_of(path: Path, state: dict[str, Tensor]) -> MaeShape:
    """Sizes of an autoencoder of the release, whose images are square."""
    missing = [name for name in _TELLING if name not in state]
    if missing:
        what = "has no decoder" if missing[0].startswith("decoder") else f"lacks {missing[0]}"
        raise UserError(f"{path} is no masked autoencoder (it {what}): give weights that can rebuild images, e.g. {RELEASE}")
    projection, places = state["patch_embed.proj.weight"], state["pos_embed"]
    hidden, narrow = state["blocks.0.mlp.fc1.weight"], state["decoder_embed.weight"]
    side = math.isqrt(max(0, places.shape[1] - 1)) if places.ndim == 3 else 0
    if projection.ndim != 4 or hidden.ndim != 2 or narrow.ndim != 2 or side < 1 or side**2 + 1 != places.shape[1]:
        raise UserError(f"{path} has layers of another shape than a masked autoencoder of square images: give e.g. {RELEASE}")
    width, channels, patch, _ = projection.shape
    heads = _HEADS.get(width)
    if heads is None or len(narrow) % _DECODER_HEADS:
        known = ", ".join(map(str, _HEADS))
        raise UserError(f"{path} is an autoencoder of width {width} and {len(narrow)}: only {known} of the release are known")
    return MaeShape(
        image=(channels, side * patch, side * patch),
        patch=patch,
        width=width,
        depth=_blocks(state, "blocks"),
        heads=heads,
        decoder_width=len(narrow),
        decoder_depth=_blocks(state, "decoder_blocks"),
        decoder_heads=_DECODER_HEADS,
        mlp_ratio=len(hidden) / width,
    )


def _blocks(state: dict[str, Tensor], name: str) -> int:
    """One more than the highest number of a block."""
    return 1 + max(
        (int(found[1]) for one in state if (found := re.match(rf"{name}\.(\d{{1,9}})\.", one, re.ASCII))), default=-1
    )


def _short(error: RuntimeError) -> str:
    """The first thing that torch complains of, on one line."""
    lines = str(error).splitlines()[1:]
    return " ".join(lines[0].split())[:200] if lines else str(error)
