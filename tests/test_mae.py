"""The masked autoencoder: the layout of the release, an independent implementation, and what it may see."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dqas_plugin.errors import UserError
from dqas_plugin.quantization.harmonic import harmonic
from dqas_plugin.quantization.mae import (
    MaeShape,
    MaskedAutoencoder,
    kept_positions,
    patchify,
    positions,
    reconstruct,
    small_mae,
    unpatchify,
)
from dqas_plugin.quantization.mae_training import random_masks
from dqas_plugin.quantization.mae_weights import _shape_of, load_mae
from dqas_plugin.quantization.patches import pixel_mask
from gratings import BASE, draws, gratings, noise, shaken

# --- layout ---------------------------------------------------------------------------------------------------------


def test_patches_row_by_row_and_channels_last_inside() -> None:
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    for image, patch, row, column, channel in ((0, 0, 0, 0, 0), (1, 4, 1, 0, 2), (1, 5, 0, 1, 1)):
        at = images[image, channel, patch // 3 * 2 + row, patch % 3 * 2 + column]
        assert patches[image, patch, (row * 2 + column) * 3 + channel] == at
    assert torch.equal(unpatchify(patches, 2, (2, 3)), images)


def test_positions_by_their_definition() -> None:
    table = positions(8, (2, 3))
    assert table.shape == (7, 8)
    assert not table[0].any()
    for row in range(2):
        for column in range(3):
            angles = [place / 10_000 ** (k / 2) for place in (column, row) for k in range(2)]
            expected = [f(x) for pair in (angles[:2], angles[2:]) for f in (math.sin, math.cos) for x in pair]
            assert table[1 + row * 3 + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_kept_positions_ascend_and_must_be_as_many_everywhere() -> None:
    keep = torch.tensor([[True, False, True], [False, True, True]])
    assert kept_positions(keep).tolist() == [[0, 2], [1, 2]]
    for wrong in ([[True, False, True], [True, True, True]], [[False, False], [False, False]]):
        with pytest.raises(UserError, match="as many kept patches"):
            kept_positions(torch.tensor(wrong))


def test_another_grid_interpolates_positions_and_its_own_leaves_them() -> None:
    mae = small_mae((3, 8, 8), 2)
    assert mae._interpolated(mae.pos_embed, (4, 4)) is mae.pos_embed
    wide = mae._interpolated(torch.cat([mae.pos_embed[:, :1], torch.ones_like(mae.pos_embed[:, 1:])], dim=1), (8, 4))
    assert wide.shape == (1, 33, 64)
    assert torch.allclose(wide[:, 1:], torch.ones(1, 32, 64))


# --- the release ----------------------------------------------------------------------------------------------------


def block_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {}
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for layer, size in layers.items():
        sizes |= {f"{name}.{layer}.weight": size, f"{name}.{layer}.bias": size[:1]}
    for layer in ("norm1", "norm2"):
        sizes |= {f"{name}.{layer}.weight": (width,), f"{name}.{layer}.bias": (width,)}
    return sizes


def released() -> dict[str, tuple[int, ...]]:
    """Names and shapes in ``mae_visualize_vit_large_ganloss.pth``, written down from the authors' model."""
    sizes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, 1024), "pos_embed": (1, 197, 1024), "mask_token": (1, 1, 512)}
    sizes |= {
        "decoder_pos_embed": (1, 197, 512),
        "patch_embed.proj.weight": (1024, 3, 16, 16),
        "patch_embed.proj.bias": (1024,),
    }
    for name, size in {"norm": (1024,), "decoder_norm": (512,)}.items():
        sizes |= {f"{name}.weight": size, f"{name}.bias": size}
    for name, shape in {"decoder_embed": (512, 1024), "decoder_pred": (768, 512)}.items():
        sizes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for number in range(24):
        sizes |= block_shapes(f"blocks.{number}", 1024)
    for number in range(8):
        sizes |= block_shapes(f"decoder_blocks.{number}", 512)
    return sizes


def test_the_release_fits_strictly() -> None:
    state = {name: torch.empty(size, device="meta") for name, size in released().items()}
    shape = _shape_of(Path("release.pth"), state)
    assert shape == MaeShape((3, 224, 224), 16, 1024, 24, 16, 512, 8, 16)
    assert shape.patches == 196
    with torch.device("meta"):
        mae = MaskedAutoencoder(shape)
    assert {name: tuple(one.shape) for name, one in mae.state_dict().items()} == released()
    mae.load_state_dict(state, strict=True, assign=True)


def from_transformers(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of ``ViTMAEForPreTraining`` (any version) under the names of the release."""
    state: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    named = {"cls_token": "cls_token", "position_embeddings": "pos_embed", "patch_embeddings.projection": "patch_embed.proj"}
    named |= {"layernorm": "norm"}
    inner = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "o_proj": "attn.proj",
        "attention.output.dense": "attn.proj",
    }
    inner |= {"fc1": "mlp.fc1", "fc2": "mlp.fc2", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2"}
    for name, value in theirs.items():
        path = name.removeprefix("vit.").removeprefix("embeddings.").removeprefix("encoder.")
        decoder = path.startswith("decoder.")
        path = path.removeprefix("decoder.").replace("decoder_layers.", "layers.").replace("layer.", "layers.")
        if path.startswith("layers."):
            _, number, rest = path.split(".", 2)
            stem, kind = rest.rsplit(".", 1)
            block = f"{'decoder_' if decoder else ''}blocks.{number}"
            which = next(
                (
                    one
                    for one in ("q", "k", "v")
                    if stem.endswith((f"{one}_proj", {"q": "query", "k": "key", "v": "value"}[one]))
                ),
                None,
            )
            if which is not None:
                parts.setdefault(f"{block}.attn.qkv.{kind}", {})[which] = value
                continue
            target = next(new for old, new in inner.items() if stem.endswith(old))
            state[f"{block}.{target}.{kind}"] = value
        else:
            stem = next((old for old in named if path.startswith(old)), None)
            state[path if stem is None else named[stem] + path[len(stem) :]] = value
    return state | {name: torch.cat([one["q"], one["k"], one["v"]]) for name, one in parts.items()}


@pytest.mark.filterwarnings("ignore")  # theirs
def test_predicts_what_transformers_does(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra 'test' brings transformers, which is not there")
    config = transformers.ViTMAEConfig(
        hidden_size=768,
        num_hidden_layers=1,
        num_attention_heads=12,
        intermediate_size=3072,
        layer_norm_eps=1e-6,
        image_size=32,
        patch_size=8,
        decoder_num_attention_heads=16,
        decoder_hidden_size=64,
        decoder_num_hidden_layers=2,
        decoder_intermediate_size=256,
        mask_ratio=0.25,
    )
    theirs = shaken(transformers.ViTMAEForPreTraining(config))
    torch.save({"model": from_transformers(theirs.state_dict())}, tmp_path / "weights.pth")
    mae = load_mae(tmp_path / "weights.pth")
    assert mae.shape == BASE

    pixels = torch.randn(5, 3, 32, 32, generator=draws(1))
    keep = random_masks(5, 16, 0.25, draws(2))
    with torch.no_grad():
        expected = theirs(pixels, noise=(~keep) + torch.arange(16) / 100).logits
        found = mae(pixels, keep)
        others = mae(pixels, random_masks(5, 16, 0.25, draws(3)))
    assert expected.std() > 0.05
    assert (found - expected).abs().max() < 1e-4 * expected.std()
    assert (others - expected).abs().max() > 0.1 * expected.std()


# --- what it may see ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("size", "patches"), [(16, 16), (32, 64), (12, 9), (16, 64)])
def test_nothing_of_a_dropped_patch_is_seen_and_visible_ones_are_pasted_back(size: int, patches: int, residual: bool) -> None:
    mae = shaken(small_mae((3, 16, 16), 4, residual=residual))
    images, keep = noise(4, 3, size, size), random_masks(4, patches, 0.25, draws())
    known = pixel_mask(keep, (3, size, size))[:, None]
    others = torch.where(known, images, noise(4, 3, size, size, seed=9))
    rebuilt = reconstruct(mae, images, keep)
    assert rebuilt.dtype == torch.uint8
    assert rebuilt.shape == images.shape
    assert torch.equal(rebuilt.where(known, images), images)
    assert torch.equal(reconstruct(mae, others, keep), rebuilt)
    assert torch.equal(reconstruct(mae, images, keep, batch=3), rebuilt)
    assert not torch.equal(rebuilt, images)


def test_the_kept_patches_do_matter_to_it() -> None:
    mae = shaken(small_mae((3, 16, 16), 4, residual=False))
    keep = random_masks(1, 16, 0.25, draws()).expand(2, -1)
    known = pixel_mask(keep, (3, 16, 16))[:, None].expand(-1, 3, -1, -1)
    first, second = reconstruct(mae, noise(2, 3, 16, 16), keep)
    assert not torch.equal(first[~known[0]], second[~known[0]])


def test_pixels_are_those_of_the_prediction() -> None:
    """Without any resizing: (prediction * std + mean) * 255, patch by patch."""
    mae = shaken(small_mae((3, 16, 16), 4, residual=False))
    mae.set_normalisation(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.1, 0.2, 0.3]))
    images, keep = noise(2, 3, 16, 16), random_masks(2, 16, 0.5, draws())
    scaled = (images.double() / 255 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    with torch.no_grad():
        predicted = mae(scaled.float(), keep).view(2, 4, 4, 4, 4, 3)
    rebuilt = reconstruct(mae, images, keep)
    image, patch = next((i, p) for i in range(2) for p in range(16) if not keep[i, p])
    for channel, (mean, std) in enumerate([(0.4, 0.1), (0.5, 0.2), (0.6, 0.3)]):
        expected = (predicted[image, patch // 4, patch % 4, :, :, channel] * std + mean) * 255
        rows, columns = slice(patch // 4 * 4, patch // 4 * 4 + 4), slice(patch % 4 * 4, patch % 4 * 4 + 4)
        found = rebuilt[image, channel, rows, columns].float()
        assert (found - expected.clamp(0, 255)).abs().max() < 0.51


def test_grey_images_go_through_an_autoencoder_of_colours() -> None:
    mae = shaken(small_mae((3, 16, 16), 4))
    images, keep = noise(3, 1, 16, 16), random_masks(3, 16, 0.25, draws())
    colours = reconstruct(mae, images.expand(-1, 3, -1, -1), keep).float().mean(1, keepdim=True)
    assert (reconstruct(mae, images, keep).float() - colours).abs().max() <= 1
    with pytest.raises(UserError, match="not 2"):
        reconstruct(mae, noise(3, 2, 16, 16), keep)


def test_a_grid_that_does_not_divide_the_image_is_taken_at_the_autoencoders_size() -> None:
    mae = shaken(small_mae((3, 20, 20), 4, residual=False))
    images, keep = gratings(2, 32), random_masks(2, 25, 0.2, draws())
    rebuilt = reconstruct(mae, images, keep)
    assert rebuilt.shape == images.shape
    assert not torch.equal(rebuilt, images)
    with pytest.raises(UserError, match="do not consist of 26"):
        reconstruct(mae, images, torch.ones(2, 26, dtype=torch.bool))


def test_masks_of_another_kind_are_refused() -> None:
    mae = small_mae((3, 8, 8), 2)
    for wrong in (torch.ones(2, 16), torch.ones(3, 16, dtype=torch.bool), torch.ones(16, dtype=torch.bool)):
        with pytest.raises(UserError, match="must be bool"):
            reconstruct(mae, noise(2, 3, 8, 8), wrong)


def test_an_untrained_correction_is_the_harmonic_filling() -> None:
    images, keep = gratings(5), random_masks(5, 16, 0.25, draws())
    assert torch.equal(reconstruct(small_mae((3, 16, 16), 4), images, keep), harmonic(images, keep))
