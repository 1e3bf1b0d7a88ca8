"""Networks of timm from end to end, trained or as givers of features, on grey and colour images of 8 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner

from dqas_cli.main import cli
from dqas_plugin import ImageDataset, Selection, UserError, select
from dqas_plugin.models import timm_network
from dqas_plugin.recipes import Recipe

RECIPE = Recipe("tiny", iterations=3, batch=8, lr=0.02, precision="fp32", proxy_epochs=1)
SMALL = ("test_resnet", "test_efficientnet", "test_byobnet", "test_nfnet", "test_mambaout")  # timm's own, for tests
TOO_DEEP = ("test_vit", "test_convnext", "test_maxvit")  # patches or windows larger than what 8 pixels leave them
KNOWN = [name for name in TOO_DEEP if timm.is_model(name)]  # the last came with a later release than the oldest that is allowed


def toy(channels: int, count: int = 24) -> ImageDataset:
    draws = np.random.default_rng(channels)
    images = torch.from_numpy(draws.integers(0, 256, (count, channels, 8, 8), dtype=np.uint8))
    return ImageDataset(images, torch.arange(count) % 3, ("a", "b", "c"), "toy")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random ones of a network for 160 pixels in colour."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SMALL)
def test_small_ones_learn_images_of_8_pixels(name: str, channels: int) -> None:
    """A method that reads features, logits and gradients, on a network that was trained."""
    chosen = select(toy(channels), "graphcut", budget=6, model=f"timm:{name}", recipe=RECIPE)
    assert chosen.counts.tolist() == [2, 2, 2]
    assert chosen.provenance["model"] == f"timm:{name}"


@pytest.mark.parametrize("method", ["deepfool", "grand", "forgetting", "herding"])
def test_every_kind_of_signal_comes_from_them(method: str) -> None:
    options = {"repeat": 2} if method == "grand" else {}
    chosen = select(toy(3), method, budget=6, model="timm:test_resnet", recipe=RECIPE, **options)
    assert len(chosen) == 6


def test_counts_are_found_by_training_them() -> None:
    chosen = select(toy(1), "random", budget=9, adaptive=True, proxy="train", model="timm:test_resnet", recipe=RECIPE)
    assert chosen.counts.sum() == 9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", KNOWN)
def test_those_that_need_larger_images_say_so(name: str, channels: int) -> None:
    words = f"model 'timm:{name}' cannot take images of {channels}x8x8: choose another model or resize the images"
    with pytest.raises(UserError, match=words):
        timm_network(name, (channels, 8, 8), 3)
    assert timm_network(name, (channels, 32, 32), 3).features(torch.zeros(2, channels, 32, 32)).ndim == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_features_come_from_a_network_for_larger_images(weights: Path, channels: int) -> None:
    """Where the network cannot learn such images, it still sees them: they are resized to what it was made for."""
    chosen = select(toy(channels), "k-center", budget=6, recipe=RECIPE, features=f"timm:test_vit@{weights}")
    assert chosen.counts.tolist() == [2, 2, 2]
    other = select(toy(channels), "k-center", budget=6, recipe=RECIPE)
    assert chosen.indices.tolist() != other.indices.tolist()


def test_both_work_from_the_command_line(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.npz"
    call = ["select", "--method", "graphcut:eq7", "--aipc", "2", "--iterations", "2", "--device", "cpu", "--out", str(out)]
    done = CliRunner().invoke(cli, [*call, "--model", "timm:test_resnet", "--features", f"timm:test_vit@{weights}"])
    assert done.exit_code == 0, done.output
    assert Selection.load(out).provenance["features"] == f"timm:test_vit@{weights}"
    done = CliRunner().invoke(cli, [*call, "--force", "--model", "timm:test_convnext"])
    assert done.exit_code != 0
    assert "cannot take images of 1x8x8" in done.output + str(done.exception)
