"""A masked autoencoder that rebuilds dropped patches: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.

The modules have the names of the authors' release, so that its weights load strictly (``mae_weights.py``), and are made of
timm's transformer blocks. Which patches are dropped is given, not drawn: dataset quantization drops the least informative
ones (Zhou et al., "Dataset Quantization", ICCV 2023, section 4.3).

Small images have a small one, trained on the training set itself (``mae_training.py``). It starts from the harmonic filling:
the decoder sees what was filled in and predicts what to add to it, nothing at first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from dqas_plugin.errors import UserError
from dqas_plugin.models import Shape
from dqas_plugin.precision import autocast
from dqas_plugin.quantization.harmonic import harmonic
from dqas_plugin.quantization.patches import pixel_mask

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_EPSILON = 1e-6  # of the layer normalisations, as published
_SMALLEST_GRID = 2  # patches along a side: what fills a hole has to come from somewhere


@dataclass(frozen=True)
class MaeShape:
    """Sizes of a masked autoencoder.

    Attributes:
        image: (channels, height, width).
        patch: side of a patch in pixels.
        width: of the encoder, a multiple of 4 and of ``heads``.
        depth: blocks of the encoder.
        heads: attention heads of the encoder.
        decoder_width: of the decoder, a multiple of 4 and of ``decoder_heads``.
        decoder_depth: its blocks.
        decoder_heads: its attention heads.
        mlp_ratio: width of the hidden layer of a block over that of the block.
        residual: whether it corrects a filling that it is given, rather than invent what was dropped.
    """

    image: Shape
    patch: int
    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    mlp_ratio: float = 4.0
    residual: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Patches from top to bottom and from left to right."""
        _, height, width = self.image
        return height // self.patch, width // self.patch

    @property
    def patches(self) -> int:
        """P, patches of an image."""
        return math.prod(self.grid)


class MaskedAutoencoder(nn.Module):
    """Encoder of the patches that are there, decoder of all of them.

    Weights are initialised as in the release: Xavier uniform, tokens normal with .02, positions sine and cosine and fixed.
    ``mean`` and ``std`` (``[C]``, in units of 0..1) belong to the images it was trained on; they are no part of the
    state dict, as in the release.

    Args:
        shape: its sizes.
    """

    cls_token: nn.Parameter
    mask_token: nn.Parameter
    mean: Tensor
    std: Tensor

    def __init__(self, shape: MaeShape) -> None:
        super().__init__()
        self.shape = shape
        channels, height, width = shape.image
        pixels = shape.patch**2 * channels
        wide, narrow = shape.width, shape.decoder_width
        self.patch_embed = PatchEmbed((height, width), shape.patch, channels, wide, strict_img_size=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, wide))
        self.pos_embed = nn.Parameter(positions(wide, shape.grid)[None], requires_grad=False)
        self.blocks = nn.ModuleList(_block(wide, shape.heads, shape.mlp_ratio) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(wide, eps=_EPSILON)
        self.decoder_embed = nn.Linear(wide, narrow)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, narrow))
        self.decoder_pos_embed = nn.Parameter(positions(narrow, shape.grid)[None], requires_grad=False)
        decoder = (_block(narrow, shape.decoder_heads, shape.mlp_ratio) for _ in range(shape.decoder_depth))
        self.decoder_blocks = nn.ModuleList(decoder)
        self.decoder_norm = nn.LayerNorm(narrow, eps=_EPSILON)
        self.decoder_pred = nn.Linear(narrow, pixels)
        # Patches overlap here: the surroundings of a hole say most about it, and attention takes long to learn where they are.
        self.fill_embed = nn.Conv2d(channels + 1, narrow, 3 * shape.patch, shape.patch, shape.patch) if shape.residual else None
        self.register_buffer("mean", torch.zeros(channels), persistent=False)
        self.register_buffer("std", torch.ones(channels), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        projection = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(projection.view(len(projection), -1))  # like a linear layer, which it is
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)
        if self.shape.residual:
            nn.init.zeros_(self.decoder_pred.weight)  # the first prediction is the filling itself

    def set_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Remember the statistics of the training data, both ``[C]`` in units of 0..1."""
        self.mean = mean.to(self.cls_token.device, torch.float32, copy=True)
        self.std = std.to(self.cls_token.device, torch.float32, copy=True)

    def normalise(self, images: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` with values 0..255 as float32, ``(images / 255 - mean) / std``."""
        return (images.float() / 255 - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalise(self, pixels: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`: float32, not rounded, not clipped."""
        return (pixels.float() * self.std[:, None, None] + self.mean[:, None, None]) * 255

    def forward(self, pixels: Tensor, keep: Tensor) -> Tensor:
        """The predicted patches, kept ones among them.

        Args:
            pixels: normalised images, float ``[B, C, H, W]``. What stands in dropped patches is ignored, unless the shape
                is ``residual``: then it is the filling that is corrected.
            keep: bool ``[B, P]``, row by row; as many kept in every image, at least one. Another grid than the
                autoencoder's own needs pixels of its size: positions are interpolated then.

        Returns:
            float ``[B, P, patch * patch * C]``, in the order of :func:`patchify`.
        """
        grid = (pixels.shape[2] // self.shape.patch, pixels.shape[3] // self.shape.patch)
        kept = kept_positions(keep)
        return self._decode(self._encode(pixels, kept, grid), pixels, kept, keep, grid)

    def _encode(self, pixels: Tensor, kept: Tensor, grid: tuple[int, int]) -> Tensor:
        """Class token and kept patches, float ``[B, 1 + K, width]``."""
        place = self._interpolated(self.pos_embed, grid)
        tokens = self.patch_embed(pixels) + place[:, 1:]
        tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        first = (self.cls_token + place[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([first.to(tokens.dtype), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        result: Tensor = self.norm(tokens)
        return result

    def _decode(self, encoded: Tensor, pixels: Tensor, kept: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
        """All patches, float ``[B, P, patch * patch * C]``."""
        tokens = self.decoder_embed(encoded)
        wide = kept[..., None].expand(-1, -1, tokens.shape[2])
        every = self.mask_token.to(tokens.dtype).expand(len(keep), keep.shape[1], -1)
        if self.fill_embed is not None:
            seen = _finer(keep, grid, self.shape.patch).view(-1, 1, *pixels.shape[2:])
            filling = self.fill_embed(torch.cat([pixels, seen.to(pixels.dtype)], dim=1))
            every = every + filling.flatten(2).transpose(1, 2).to(every.dtype)
        every = every.scatter(1, wide, tokens[:, 1:])
        tokens = torch.cat([tokens[:, :1], every], dim=1) + self._interpolated(self.decoder_pos_embed, grid)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        predicted: Tensor = self.decoder_pred(self.decoder_norm(tokens))[:, 1:]
        return predicted if self.fill_embed is None else patchify(pixels, self.shape.patch) + predicted

    def _interpolated(self, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """Position embeddings of another grid, bicubic; the same ones for the autoencoder's own."""
        own = self.shape.grid
        if grid == own:
            return places
        spatial = places[:, 1:].reshape(1, *own, -1).permute(0, 3, 1, 2)
        spatial = functional.interpolate(spatial, grid, mode="bicubic", align_corners=False)
        return torch.cat([places[:, :1], spatial.flatten(2).transpose(1, 2)], dim=1)


def _block(width: int, heads: int, mlp_ratio: float) -> nn.Module:
    norm: Any = partial(nn.LayerNorm, eps=_EPSILON)
    block: nn.Module = Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm)
    return block


def positions(width: int, grid: tuple[int, int]) -> Tensor:
    """Sine and cosine of column and row at ``width / 4`` frequencies, after one row of zeros for the class token.

    The release has columns in the first half.

    Args:
        width: of a token, a multiple of 4.
        grid: patches from top to bottom and from left to right.

    Returns:
        float32 ``[1 + P, width]``.
    """
    rows, columns = grid
    quarter = width // 4
    frequencies = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row = torch.arange(rows, dtype=torch.float64).repeat_interleave(columns)
    column = torch.arange(columns, dtype=torch.float64).repeat(rows)
    angles = [place[:, None] * frequencies for place in (column, row)]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table]).float()


def patchify(pixels: Tensor, patch: int) -> Tensor:
    """Images ``[B, C, H, W]`` as ``[B, P, patch * patch * C]``: patches row by row, inside them row, column, channel."""
    batch, channels, height, width = pixels.shape
    parts = pixels.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return parts.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patchify`, ``[B, C, H, W]``."""
    batch, (rows, columns) = len(patches), grid
    parts = patches.reshape(batch, rows, columns, patch, patch, -1)
    return parts.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch, columns * patch)


def kept_positions(keep: Tensor) -> Tensor:
    """Where ``keep``, bool ``[B, P]``, is true: int64 ``[B, K]``, ascending.

    Raises:
        UserError: if images keep different numbers of patches, or none.
    """
    count = int(keep[0].sum()) if len(keep) else 0
    if not bool((keep.sum(1) == count).all()) or (len(keep) and count == 0):
        raise UserError("a masked autoencoder needs as many kept patches in every image, at least one: drop an equal share")
    return keep.nonzero()[:, 1].view(len(keep), count)


def small_mae(image_shape: Shape, patch: int, *, residual: bool = True) -> MaskedAutoencoder:
    """An autoencoder for images of 8 to 64 pixels that trains in minutes on a CPU, not trained yet.

    Args:
        image_shape: (channels, height, width).
        patch: side of a patch in pixels.
        residual: whether it corrects the harmonic filling; else it predicts the pixels, as published.

    Raises:
        UserError: if the patch does not divide the image, or there would be one patch along a side.
    """
    _, height, width = image_shape
    if patch < 1 or height % patch or width % patch:
        raise UserError(f"patches of {patch} pixels do not divide images of {height} x {width}: choose a divisor of both")
    if min(height, width) // patch < _SMALLEST_GRID:
        raise UserError(
            f"patches of {patch} pixels leave nothing to rebuild {height} x {width} images from: choose smaller ones"
        )
    return MaskedAutoencoder(MaeShape(image_shape, patch, 64, 2, 2, 96, 2, 3, residual=residual))


def reconstruct(mae: MaskedAutoencoder, images: Tensor, keep: Tensor, *, batch: int = 256, precision: str = "fp32") -> Tensor:
    """The images with their dropped patches rebuilt, uint8 ``[N, C, H, W]`` on the CPU; visible patches are pasted back.

    Images of another size than the autoencoder's are brought to a size at which a patch is as many of its patches as fit best
    (bilinear; 8 x 8 patches of 32-pixel images become 16 x 16 of a 224-pixel one's), and back. Their holes are filled
    harmonically before, so that the enlarged image tells nothing of what was dropped. A mask of the autoencoder's own grid
    that does not divide the image is taken at the autoencoder's size, as DQ's release does with 14 x 14 patches on CIFAR: then
    nothing can be pasted back at the image's own size, and visible patches are as the enlarging left them.

    Grey images become RGB for an autoencoder of colours, and grey again.

    Args:
        mae: the autoencoder; it computes where it is.
        images: uint8 ``[N, C, H, W]``.
        keep: bool ``[N, P]``, row by row; as many kept in every image.
        batch: images at a time.
        precision: ``fp32`` or ``bf16``.

    Raises:
        UserError: a mask, channels or a size that does not fit.
    """
    _, channels, height, width = images.shape
    if keep.dtype != torch.bool or keep.ndim != 2 or len(keep) != len(images):
        raise UserError(
            f"the mask of {len(images)} images must be bool [{len(images)}, P], not {keep.dtype} {tuple(keep.shape)}"
        )
    if channels not in (1, mae.shape.image[0]):
        raise UserError(f"the autoencoder is for images of {mae.shape.image[0]} channels, not {channels}: convert the images")
    plan = _Plan.of(mae.shape, (channels, height, width), keep.shape[1])
    result = torch.empty_like(images, device="cpu", memory_format=torch.contiguous_format)
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        result[part] = _rebuilt(mae, images[part].cpu(), keep[part].cpu(), plan, precision)
    return result


@dataclass(frozen=True)
class _Plan:
    """How images of some size go through an autoencoder.

    Attributes:
        size: height and width at which they go through.
        times: patches of the autoencoder along a side of a patch of the image.
        aligned: whether patches of the image are whole pixels.
    """

    size: tuple[int, int]
    times: int
    aligned: bool

    @staticmethod
    def of(shape: MaeShape, image: Shape, patches: int) -> _Plan:
        _, height, width = image
        rows = math.isqrt(max(0, patches * height // width))
        columns = patches // rows if rows else 0
        aligned = rows > 0 and rows * columns == patches and height % rows == 0 and width % columns == 0
        if aligned and height // rows == width // columns:
            times = max(1, round(shape.grid[0] / rows))
            return _Plan((rows * times * shape.patch, columns * times * shape.patch), times, True)
        if patches == shape.patches:
            return _Plan(shape.image[1:], 1, False)
        raise UserError(
            f"images of {height}x{width} do not consist of {patches} square patches, nor has the autoencoder so many: "
            "give another patch size"
        )


def _rebuilt(mae: MaskedAutoencoder, images: Tensor, keep: Tensor, plan: _Plan, precision: str) -> Tensor:
    """A batch, uint8."""
    place, own = mae.cls_token.device, mae.shape
    _, channels, height, width = images.shape
    resized = (height, width) != plan.size
    filled = harmonic(images, keep) if plan.aligned and (resized or own.residual) else images
    pixels = filled.expand(-1, own.image[0], -1, -1).to(place, torch.float32)
    if resized:
        pixels = _resize(pixels, plan.size)
    grid = (plan.size[0] // own.patch, plan.size[1] // own.patch)
    fine = _finer(keep, (grid[0] // plan.times, grid[1] // plan.times), plan.times).to(place)
    with torch.no_grad():
        with autocast(precision, place):
            predicted = mae(mae.normalise(pixels), fine)
        rebuilt = mae.denormalise(unpatchify(predicted.float(), own.patch, grid))
    seen = _finer(fine, grid, own.patch).view(-1, 1, *plan.size)
    rebuilt = torch.where(seen, pixels, rebuilt.clamp(0, 255))
    if resized:
        rebuilt = _resize(rebuilt, (height, width))
    if channels != own.image[0]:
        rebuilt = rebuilt.mean(1, keepdim=True)
    whole = rebuilt.round().clamp(0, 255).to("cpu", torch.uint8)
    return torch.where(pixel_mask(keep, (channels, height, width))[:, None], images, whole) if plan.aligned else whole


def _resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)


def _finer(keep: Tensor, grid: tuple[int, int], times: int) -> Tensor:
    """The mask ``[B, P]`` on a grid with ``times`` squares along a side of every one, ``[B, P * times * times]``."""
    rows, columns = grid
    wide = keep.view(-1, rows, 1, columns, 1).expand(-1, -1, times, -1, times)
    return wide.reshape(len(keep), -1)
