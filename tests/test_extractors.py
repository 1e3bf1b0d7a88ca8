"""Features of timm's networks: against timm itself, and with files that are wrong or hostile."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from dqas_plugin import select
from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.extractors import Extractor, extract, resolve
from dqas_plugin.models import convnet3_small
from dqas_plugin.recipes import Recipe
from dqas_plugin.trained_signals import compute_signals

NAME = "test_resnet"  # timm's own tiny network for tests: 160 pixels
RECIPE = Recipe("tiny", iterations=6, batch=16, lr=0.05, precision="fp32", proxy_epochs=1)


def dataset(channels: int = 3, count: int = 12) -> ImageDataset:
    draws = np.random.default_rng(0)
    images = torch.from_numpy(draws.integers(0, 256, (count, channels, 8, 8), dtype=np.uint8))
    return ImageDataset(images, torch.arange(count) % 2, ("a", "b"), "toy")


@pytest.fixture(scope="module")
def reference() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(NAME, pretrained=False).eval()


@pytest.fixture
def weights(reference: Any, tmp_path: Path) -> Path:
    torch.save(reference.state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def features(text: str, data: ImageDataset) -> torch.Tensor:
    return torch.cat(list(extract(text, data)))


def test_they_are_what_timm_gives(reference: Any, weights: Path) -> None:
    data = dataset()
    configuration = timm.data.resolve_data_config({}, model=reference)
    mean, std = (torch.tensor(configuration[key])[:, None, None] for key in ("mean", "std"))
    size = configuration["input_size"][1:]
    pixels = torch.nn.functional.interpolate(data.images / 255, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = reference.forward_head(reference.forward_features((pixels - mean) / std), pre_logits=True)
    found = features(f"timm:{NAME}@{weights}", data)
    assert torch.allclose(found, expected, atol=1e-5)
    assert resolve(f"timm:{NAME}@{weights}").width == found.shape[1]
    parts = list(extract(f"timm:{NAME}@{weights}", data, batch=5))
    assert [len(one) for one in parts] == [5, 5, 2]
    assert torch.allclose(torch.cat(parts), found, atol=1e-5)
    assert (found.dtype, found.requires_grad) == (torch.float32, False)


def test_grey_images_have_features_too(weights: Path) -> None:
    grey = dataset(channels=1)
    colour = ImageDataset(grey.images.expand(-1, 3, -1, -1).contiguous(), grey.labels, grey.classes, "toy")
    assert torch.allclose(features(f"timm:{NAME}@{weights}", grey), features(f"timm:{NAME}@{weights}", colour), atol=1e-5)


def test_files_of_other_forms(reference: Any, weights: Path, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": reference.state_dict()}, tmp_path / "wrapped.pth")
    save_file(reference.state_dict(), tmp_path / "safe.safetensors")
    expected = features(f"timm:{NAME}@{weights}", dataset())
    for file in ("wrapped.pth", "safe.safetensors"):
        assert torch.equal(features(f"timm:{NAME}@{tmp_path / file}", dataset()), expected)


def test_the_last_layer_may_be_for_other_classes_or_missing(reference: Any, weights: Path, tmp_path: Path) -> None:
    state = {key: one for key, one in reference.state_dict().items() if not key.startswith("fc.")}
    torch.save(state, tmp_path / "headless.pt")
    torch.save({"model": {**state, "fc.weight": torch.zeros(7, 96), "fc.bias": torch.zeros(7)}}, tmp_path / "seven.pt")
    expected = features(f"timm:{NAME}@{weights}", dataset())
    for file in ("headless.pt", "seven.pt"):
        assert torch.equal(features(f"timm:{NAME}@{tmp_path / file}", dataset()), expected)
    del state["conv1.0.weight"]
    torch.save(state, tmp_path / "incomplete.pt")
    with pytest.raises(UserError, match="does not hold the weights"):
        features(f"timm:{NAME}@{tmp_path / 'incomplete.pt'}", dataset())


def test_random_weights_on_the_way_leave_the_generator_alone(weights: Path) -> None:
    before = torch.get_rng_state()
    features(f"timm:{NAME}@{weights}", dataset())
    assert torch.equal(torch.get_rng_state(), before)


def test_images_of_other_channels_are_refused(weights: Path) -> None:
    with pytest.raises(UserError, match="not 4 channels"):
        features(f"timm:{NAME}@{weights}", dataset(channels=4))


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_hostile_file_is_refused_and_nothing_in_it_runs(tmp_path: Path, form: str) -> None:
    mark, file = tmp_path / "mark", tmp_path / "weights.pt"
    if form == "torch":
        torch.save({"state_dict": Hostile(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(UserError, match="cannot be read as weights"):
        features(f"timm:{NAME}@{file}", dataset())
    assert not mark.exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    for content in ({"a": torch.zeros(2)}, [1, 2], torch.zeros(3)):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(UserError, match=rf"does not hold the weights of timm:{NAME}"):
            features(f"timm:{NAME}@{tmp_path / 'other.pt'}", dataset())
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read as weights"):
        features(f"timm:{NAME}@{tmp_path / 'empty.safetensors'}", dataset())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resnet18", "write proxy, timm:NAME or timm:NAME@FILE"),
        ("timm:", "write proxy"),
        ("timm:resnet18@", "write proxy"),
        ("timm:resnet19", "did you mean"),
        ("timm:resnet18@nowhere.pt", "no file nowhere.pt"),
        ("timm:resnet18.a1_in2k", "unknown weights of timm:resnet18 'a1_in2k': did you mean 'a1_in1k'"),
    ],
)
def test_a_wrong_name_is_answered(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve(text)


def test_weights_that_cannot_be_had_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UserError, match=rf"cannot be had .ConnectionError.*timm:{NAME}@FILE"):
        features(f"timm:{NAME}", dataset())


def test_signals_take_them_for_geometry_and_keep_the_proxys_for_gradients(weights: Path) -> None:
    data, name = dataset(), f"timm:{NAME}@{weights}"
    plain = compute_signals(data, "small", convnet3_small, RECIPE, 0)
    found = compute_signals(data, "small", convnet3_small, RECIPE, 0, needs=frozenset({"features"}), features=name)
    assert torch.equal(found.features, features(name, data))  # type: ignore[arg-type]
    assert torch.equal(found.view(0).gradients.features, plain.view(0).features)
    assert torch.equal(found.view(0).gradients.residuals, plain.view(0).gradients.residuals)
    assert found.proxy["seconds"] > plain.proxy["seconds"]
    unread = compute_signals(data, "small", convnet3_small, RECIPE, 0, needs=frozenset({"logits"}), features=name)
    assert torch.equal(unread.features, plain.features)  # type: ignore[arg-type]


def test_a_mistake_shows_before_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dqas_plugin.trained_signals.train", None)
    (tmp_path / "empty.pt").write_bytes(b"")
    for name, said in (("timm:resnet19", "did you mean"), (f"timm:{NAME}@{tmp_path / 'empty.pt'}", "cannot be read")):
        with pytest.raises(UserError, match=said):
            compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, features=name)


def test_numbers_that_are_not_finite_are_not_kept(reference: Any, tmp_path: Path, own_cache: Path) -> None:
    state = {key: one * torch.nan if key == "conv1.0.weight" else one for key, one in reference.state_dict().items()}
    torch.save(state, tmp_path / "broken.pt")
    with pytest.raises(UserError, match="not finite"):
        compute_signals(dataset(), "small", convnet3_small, RECIPE, 0, features=f"timm:{NAME}@{tmp_path / 'broken.pt'}")
    assert list(own_cache.glob("features/*/values.npy")) == []


def test_they_are_computed_once_for_the_same_weights(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    extract = Extractor.features

    def counting(self: Extractor, *arguments: Any, **options: Any) -> Any:
        counted.append(self.name)
        return extract(self, *arguments, **options)

    monkeypatch.setattr(Extractor, "features", counting)
    copy = tmp_path / "copy.pt"
    copy.write_bytes(weights.read_bytes())
    for file in (weights, copy):
        compute_signals(
            dataset(), "small", convnet3_small, RECIPE, 0, needs=frozenset({"features"}), features=f"timm:{NAME}@{file}"
        )
    assert counted == [NAME]


def test_a_selection_records_them(weights: Path) -> None:
    name = f"timm:{NAME}@{weights}"
    chosen = select(dataset(), "graphcut:eq7", budget=4, recipe=RECIPE, features=name)
    assert chosen.provenance["features"] == name
