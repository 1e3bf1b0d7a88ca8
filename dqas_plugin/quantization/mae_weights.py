"""Weights of masked autoencoders in files: the authors' release, and our own.

``mae_visualize_vit_large_ganloss.pth`` of https://github.com/facebookresearch/mae holds ``{"model": state dict}``: ViT-L/16 at
224 pixels with a decoder of 8 blocks of width 512. Files are never unpickled (``weights_only``).
"""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dqas_plugin.errors import UserError
from dqas_plugin.quantization.mae import IMAGENET_MEAN, IMAGENET_STD, MaeShape, MaskedAutoencoder

RELEASE = "mae_visualize_vit_large_ganloss.pth"
"""The weights that dataset quantization uses."""

_HEADS = {768: 12, 1024: 16, 1280: 16}  # of ViT-B, L and H; nothing in the weights tells
_DECODER_HEADS = 16  # of every release
_TELLING = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight", "decoder_embed.weight")
_OURS = "dqas"  # what a file of ours says beside the weights


def save_mae(mae: MaskedAutoencoder, path: Path) -> None:
    """Write weights, shape and normalisation, in the layout of the release with a few more entries."""
    about = {"shape": asdict(mae.shape), "mean": mae.mean.tolist(), "std": mae.std.tolist()}
    weights = {name: one.detach().cpu().contiguous() for name, one in mae.state_dict().items()}
    torch.save({"model": weights, _OURS: about}, path)


def load_mae(path: Path) -> MaskedAutoencoder:
    """The autoencoder in a file, in evaluation mode, on the CPU.

    Its sizes are read off the weights. Those of others are taken to be trained on images normalised with the mean and
    standard deviation of ImageNet and to predict pixels (``norm_pix_loss`` False, which the weights do not tell: those trained
    with it, the ``…_full`` files of the release, predict patches without their mean and contrast and rebuild grey mush).

    Raises:
        UserError: no such file, another kind of file, weights without decoder or with layers that do not belong to it.
    """
    state, about = _content(Path(path))
    shape = _shape_of(path, state) if about is None else _own_shape(path, about)
    with torch.device("meta"):  # no second copy of the weights
        mae = MaskedAutoencoder(shape)
    try:
        mae.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit a masked autoencoder of its size: {_short(error)}") from error
    mean, std = (about["mean"], about["std"]) if about is not None else (IMAGENET_MEAN, IMAGENET_STD)
    mae.set_normalisation(torch.tensor(mean), torch.tensor(std))
    return mae.float().eval().requires_grad_(False)


def _content(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The state dict of a file, and what a file of ours says beside it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise UserError(f"cannot read the weights {path} ({error.strerror or error}): check --mae-weights") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not a file of weights that torch saved: give a masked autoencoder's, e.g. {RELEASE}"
        ) from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(one, Tensor) for one in state.values()):
        raise UserError(f"{path} holds no weights under 'model': give a masked autoencoder's, e.g. {RELEASE}")
    return state, content.get(_OURS)


def _own_shape(path: Path, about: Any) -> MaeShape:
    try:
        return MaeShape(**about["shape"] | {"image": tuple(about["shape"]["image"])})
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{path} was written by another version of this program: let it be trained again") from error


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
    return 1 + max((int(found[1]) for one in state if (found := re.match(rf"{name}\.(\d+)\.", one))), default=-1)


def _short(error: RuntimeError) -> str:
    """The first thing that torch complains of, on one line."""
    lines = str(error).splitlines()[1:]
    return " ".join(lines[0].split())[:200] if lines else str(error)
