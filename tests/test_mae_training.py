"""Training of the small masked autoencoder, its files, and its cache."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.quantization import mae_training
from dqas_plugin.quantization.mae import IMAGENET_MEAN, MaeShape, MaskedAutoencoder, reconstruct, small_mae
from dqas_plugin.quantization.mae_training import (
    MaeProgress,
    compare,
    decibels,
    psnr,
    random_masks,
    train_mae,
    trained_mae,
)
from dqas_plugin.quantization.mae_weights import load_mae, save_mae
from gratings import BASE, draws, gratings, noise, shaken


def dataset(count: int = 60) -> ImageDataset:
    return ImageDataset(gratings(count, 8), torch.arange(count) % 2, ("a", "b"), "gratings")


# --- training -------------------------------------------------------------------------------------------------------


def test_random_masks_drop_as_many_everywhere_and_every_patch_as_often() -> None:
    keep = random_masks(4000, 10, 0.3, draws())
    assert (keep.sum(1) == 7).all()
    assert (keep.float().mean(0) - 0.7).abs().max() < 5 * math.sqrt(0.21 / 4000)


def test_psnr_counts_dropped_pixels_alone() -> None:
    images = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    keep = torch.tensor([[True, True, True, False], [False, True, True, True]])
    rebuilt = images.clone()
    rebuilt[0, :, 2:, 2:] += 4  # dropped: an error of 4 in one of two holes, 0 in the other
    rebuilt[1, :, 2:, 2:] += 90  # kept
    assert psnr(images, rebuilt, keep) == pytest.approx(10 * math.log10(255**2 / 8))
    assert psnr(images, images, keep) == math.inf
    assert decibels(255**2) == 0


@pytest.mark.parametrize("residual", [True, False])
def test_training_learns_what_is_in_the_images(residual: bool) -> None:
    reports: list[MaeProgress] = []
    options: dict[str, Any] = {"steps": 60, "precision": "fp32", "residual": residual, "on_progress": reports.append}
    mae = train_mae(gratings(64, 8), 2, **options)
    assert not mae.training
    assert not any(one.requires_grad for one in mae.parameters())
    ours, theirs = compare(mae, gratings(200, 8, seed=1), 0.25)
    untrained, _ = compare(small_mae((3, 8, 8), 2, residual=residual), gratings(200, 8, seed=1), 0.25)
    assert ours > untrained + 2
    if residual:
        assert ours > theirs + 2
    assert reports[-1].step == reports[-1].steps == 60
    assert len(reports) == 50
    assert reports[-1].psnr > reports[0].psnr + 2


def test_the_psnr_of_a_report_is_in_grey_levels() -> None:
    """The first step's is that of the filling, before anything is learnt."""
    images = gratings(128, 8)
    reports: list[MaeProgress] = []
    train_mae(images, 2, steps=1, precision="fp32", on_progress=reports.append)
    _, theirs = compare(small_mae((3, 8, 8), 2), images, 0.25)
    assert reports[0].psnr == pytest.approx(theirs, abs=0.5)


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second, other = (train_mae(gratings(64, 8), 2, steps=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.decoder_pred.weight, other.decoder_pred.weight)


def test_one_channel_few_images_and_oblong_ones_train() -> None:
    images = gratings(3, 12, channels=1)[:, :, :8]
    mae = train_mae(images, 4, steps=2, precision="fp32", drop_rate=0.5)
    assert mae.shape.grid == (2, 3)
    keep = random_masks(3, 6, 0.5, draws())
    assert reconstruct(mae, images, keep).shape == (3, 1, 8, 12)


def test_bf16_trains_and_rebuilds() -> None:
    images, keep = gratings(64, 8), random_masks(64, 16, 0.25, draws())
    mae = train_mae(images, 2, steps=3, precision="bf16")
    assert mae.decoder_pred.weight.dtype == torch.float32
    low, high = (reconstruct(mae, images, keep, precision=one) for one in ("bf16", "fp32"))
    assert (low.int() - high.int()).abs().max() <= 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 3}, "do not divide"),
        ({"patch": 8}, "leaves none|smaller ones|drops no patch"),
        ({"drop_rate": 1.0}, "drop rate"),
        ({"drop_rate": 0.0}, "nothing to learn"),
        ({"steps": 0}, "at least 1 step"),
        ({"device": "nowhere"}, "not available"),
        ({"images": torch.zeros(0, 3, 8, 8, dtype=torch.uint8)}, "without images"),
    ],
)
def test_mistakes_in_training_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_mae(**{"images": gratings(4, 8), "patch": 2, "steps": 1, "precision": "fp32"} | options)


@pytest.mark.parametrize(("patch", "message"), [(3, "do not divide"), (0, "do not divide"), (8, "smaller ones")])
def test_patches_that_do_not_fit_are_told(patch: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_mae((3, 8, 8), patch)


# --- files and cache ------------------------------------------------------------------------------------------------


def test_files_of_ours_come_back_whole(tmp_path: Path) -> None:
    mae = shaken(small_mae((3, 8, 12), 4))
    mae.set_normalisation(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6]))
    save_mae(mae, tmp_path / "mae.pth")
    back = load_mae(tmp_path / "mae.pth")
    assert back.shape == mae.shape
    images, keep = noise(3, 3, 8, 12), random_masks(3, 6, 0.3, draws())
    assert torch.equal(reconstruct(back, images, keep), reconstruct(mae, images, keep))


def test_files_of_others_are_normalised_as_imagenet(tmp_path: Path) -> None:
    torch.save({"model": MaskedAutoencoder(BASE).state_dict()}, tmp_path / "weights.pth")
    mae = load_mae(tmp_path / "weights.pth")
    assert mae.mean.tolist() == pytest.approx(list(IMAGENET_MEAN))
    assert mae.std.device.type == "cpu"


class Foreign:
    """Something that only unpickling can bring back."""


def without(state: dict[str, Tensor], *starts: str) -> dict[str, Any]:
    return {"model": {name: one for name, one in state.items() if not name.startswith(starts)}}


def test_files_that_are_no_autoencoder_are_told(tmp_path: Path) -> None:
    state = MaskedAutoencoder(BASE).state_dict()
    narrow = MaskedAutoencoder(MaeShape((3, 8, 8), 2, 64, 1, 2, 32, 1, 2)).state_dict()
    cases: list[tuple[Any, str]] = [
        ({"model": Foreign()}, "could run code"),
        ([1, 2], "no weights under 'model'"),
        ({"model": {}}, "no weights under 'model'"),
        ({"model": {"epoch": 3}}, "no weights under 'model'"),
        ({"model": nn.Linear(2, 2).state_dict()}, "no masked autoencoder .it lacks patch_embed"),
        (without(state, "decoder", "mask_token"), "has no decoder"),
        (without(state, "mask_token"), "does not fit.*mask_token"),
        ({"model": state | {"head.weight": torch.zeros(2, 768)}}, "does not fit.*head.weight"),
        ({"model": state | {"norm.bias": torch.zeros(3)}}, "does not fit.*norm.bias"),
        ({"model": state | {"pos_embed": torch.zeros(1, 16, 768)}}, "another shape"),
        ({"model": narrow}, "width 64 and 32"),
        ({"model": state, "dqas": {"shape": {"image": [3, 8, 8]}}}, "another version"),
    ]
    path = tmp_path / "weights.pth"
    for content, message in cases:
        torch.save(content, path)
        with pytest.raises(UserError, match=message) as caught:
            load_mae(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"not weights at all")
    with pytest.raises(UserError, match="could run code"):
        load_mae(path)
    for missing in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(UserError, match="cannot be read as a masked autoencoder's weights"):
            load_mae(missing)


def test_the_cache_keeps_it_and_its_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset()
    made = trained_mae(data, 2, steps=2)
    assert math.isfinite(made.psnr)
    assert made.wins == (made.psnr > made.harmonic)
    assert load_mae(made.path).shape == made.mae.shape

    def never(*_: object, **__: object) -> MaskedAutoencoder:
        raise AssertionError("trained again")

    monkeypatch.setattr(mae_training, "train_mae", never)
    again = trained_mae(data, 2, steps=2)
    assert (again.psnr, again.harmonic, again.seconds) == (made.psnr, made.harmonic, made.seconds)
    assert torch.equal(again.mae.decoder_pred.weight, made.mae.decoder_pred.weight)
    for other in ({"steps": 3}, {"seed": 1}, {"drop_rate": 0.5}, {"residual": False}):
        with pytest.raises(AssertionError, match="trained again"):
            trained_mae(data, 2, **{"steps": 2} | other)  # type: ignore[arg-type]


def test_the_images_it_is_judged_by_are_not_those_it_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Tensor] = {}

    def remember(images: Tensor, patch: int, **_: object) -> MaskedAutoencoder:
        seen["trained"] = images
        return small_mae((3, 8, 8), patch)

    def judge(_: object, images: Tensor, *__: object) -> tuple[float, float]:
        seen["judged"] = images
        return 2.0, 1.0

    monkeypatch.setattr(mae_training, "train_mae", remember)
    monkeypatch.setattr(mae_training, "compare", judge)
    data = dataset(60)
    assert trained_mae(data, 2).wins
    both = torch.cat([seen["trained"], seen["judged"]])
    assert len(seen["judged"]) == 6
    assert {one.numpy().tobytes() for one in both} == {one.numpy().tobytes() for one in data.images}
    with pytest.raises(UserError, match="at least 2 images"):
        trained_mae(dataset(1), 2)
