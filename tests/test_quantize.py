"""Dataset quantization from end to end: what DQ and DQAS do in which order, what is written, and what loads again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import toys
from dqas_cli.main import cli
from dqas_plugin import load_dataset
from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.quantization import rebuilding
from dqas_plugin.quantization.harmonic import harmonic
from dqas_plugin.quantization.informativeness import saliency
from dqas_plugin.quantization.patches import kept
from dqas_plugin.quantization.quantize import Plan, plan_of, quantize
from dqas_plugin.quantization.rebuilding import rebuilt_dataset
from dqas_plugin.quantization.settings import PatchSettings
from dqas_plugin.recipes import recipe
from dqas_plugin.selection import Selection

SHORT = recipe("quick").with_(iterations=4, proxy_epochs=1)
QUICK = PatchSettings(0.25, scores="saliency", rebuild="harmonic")


def toy(counts: tuple[int, ...] = (30, 24, 20), seed: int = 0) -> ImageDataset:
    return toys.toy(counts, seed)


def small(plan: Plan, data: ImageDataset | None = None, **options: Any) -> Any:
    return quantize(data or toy(), plan, **{"aipc": 6, "model": "convnet3-small", "recipe": SHORT, **options})


def no_network(*_: Any) -> Any:
    raise AssertionError("this is not needed, or in the cache")


def test_the_rebuilt_images_are_what_the_parts_make_of_them() -> None:
    data = toy()
    found = rebuilt_dataset(data, QUICK, no_network, identity="")
    keep = kept(saliency(data.images, 2).scores, 0.25)
    assert torch.equal(found.keep, keep)
    assert torch.equal(found.data.images, harmonic(data.images, keep))
    assert torch.equal(found.data.labels, data.labels)
    assert found.data.fingerprint != data.fingerprint


def test_the_second_time_comes_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = rebuilt_dataset(toy(), QUICK, no_network, identity="")
    monkeypatch.setattr("dqas_plugin.quantization.rebuilding.harmonic", no_network)
    again = rebuilt_dataset(toy(), QUICK, no_network, identity="another network, which saliency does not read")
    assert torch.equal(first.data.images, again.data.images)
    with pytest.raises(AssertionError):
        rebuilt_dataset(toy(), PatchSettings(0.5, scores="saliency", rebuild="harmonic"), no_network, identity="")


def test_fewer_patches_buy_more_images() -> None:
    found = small(plan_of("dqas", QUICK, adaptive=False))
    assert len(found.selection.indices) == round(6 * 3 / 0.75)
    assert found.ratio == "sample ratio 32.4324 % × patch keep ratio 75 % = data keep ratio 24.3243 %"
    assert found.selection.provenance["data_ratio"] == found.ratio
    whole = small(plan_of("dqas", None, adaptive=False))
    assert len(whole.selection.indices) == 18
    assert whole.rebuilt is None


def test_bins_are_made_of_what_the_plan_says() -> None:
    reconstructed = small(plan_of("dqas", QUICK, adaptive=False))
    original = small(plan_of("dqas", QUICK, adaptive=False, bins_on="original"))
    none = small(plan_of("dqas", None, adaptive=False), aipc=8)
    assert sorted(original.selection.indices) == sorted(none.selection.indices)  # the same features, the same bins
    assert sorted(reconstructed.selection.indices) != sorted(original.selection.indices)
    for found in (reconstructed, original):  # whatever the bins, rebuilt images are trained on
        assert torch.equal(found.images.images, found.rebuilt.data.images[torch.from_numpy(found.selection.indices)])


def test_the_selection_is_one_of_the_original() -> None:
    found = small(plan_of("dqas", QUICK, adaptive=False))
    original = toy()
    assert (found.selection.provenance["dataset"], found.selection.provenance["fingerprint"]) == ("toy", original.fingerprint)
    assert found.selection.provenance["ratio"] == pytest.approx(24 / 74)


def test_options_reach_the_allocator_and_the_refiner() -> None:
    how: dict[str, Any] = {"allocator_options": {"screen": 2}, "refiner_options": {"rounds": 1, "diversity": None}}
    plan = plan_of("dqas", QUICK, **how)
    assert (plan.allocator_options, plan.refiner_options) == tuple(how.values())
    told = small(plan).selection.provenance
    assert (told["allocator_options"], told["refiner_options"]) == tuple(how.values())
    for kind, options in how.items():
        for pipeline, adaptive in (("dq", True), ("dqas", False)):
            with pytest.raises(UserError, match=f"have no {kind.partition('_')[0]}, so not its option"):
                plan_of(pipeline, QUICK, adaptive=adaptive, **{kind: options})


def test_mistakes_are_known_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqas_plugin.quantization.quantize.trained_network", no_network)
    for options, words in (
        ({"allocator_options": {"screeen": 2}}, "did you mean 'screen'"),
        ({"refiner_options": {"round": 2}}, "did you mean 'rounds'"),
        ({"refiner_options": {"scorer": "retrain", "trainings": 9}}, "would train 53 networks"),  # 22 of 74 are chosen before
    ):
        with pytest.raises(UserError, match=words):
            small(plan_of("dqas", QUICK, **options))


def test_the_training_of_an_autoencoder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def later() -> float:
        now[0] += 7.0
        return now[0]

    monkeypatch.setattr("dqas_plugin.told.time.monotonic", later)
    said: list[str] = []
    settings = PatchSettings(0.25, scores="saliency", rebuild="mae", mae_steps=5)
    rebuilt_dataset(toy(), settings, no_network, identity="", report=said.append)
    steps = [one for one in said if one.startswith("training the autoencoder: ")]
    assert [one.partition(" steps, ")[0] for one in steps] == [f"training the autoencoder: {step} of 5" for step in (2, 4)]
    assert all(one.endswith(" dB") for one in steps)


def test_the_training_of_an_autoencoder_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and later, when autoencoder and images come from the cache."""
    real = rebuilding.trained_mae
    monkeypatch.setattr(rebuilding, "trained_mae", lambda *args, **options: replace(real(*args, **options), seconds=5000.0))
    settings = PatchSettings(0.25, scores="saliency", rebuild="mae", mae_steps=3)
    first, again = (rebuilt_dataset(toy(), settings, no_network, identity="") for _ in range(2))
    assert 5000 < first.seconds == again.seconds < 5100
    assert rebuilt_dataset(toy(), QUICK, no_network, identity="").seconds < 100


def test_the_pipelines_of_figure_2() -> None:
    assert plan_of("dq", QUICK) == Plan(QUICK, "original", objective="dq")
    assert plan_of("dqas", QUICK) == Plan(QUICK, "reconstructed", "adaptive", "error-reduction", 0.1)
    assert plan_of("dqas", QUICK, refine_share=0).refiner is None


@pytest.mark.parametrize("as_images", [False, True])
def test_what_is_written_loads_and_is_what_was_chosen(tmp_path: Path, as_images: bool) -> None:
    data, test = toy(), toy((9, 9, 9), 1)
    found = small(plan_of("dqas", QUICK, adaptive=False), data)
    written = found.write(tmp_path / "out", test, rebuilt=as_images)
    loaded: DatasetSplits = load_dataset(f"parquet:{tmp_path / 'out'}")
    assert torch.equal(loaded.train.images, found.images.images)
    assert torch.equal(loaded.train.labels, data.labels[torch.from_numpy(found.selection.indices)])
    assert torch.equal(loaded.test.images, test.images)
    assert loaded.train.classes == data.classes
    assert all(one.path.stat().st_size == one.bytes for one in written)
    assert (tmp_path / "out" / "contact-sheet.png").stat().st_size > 0
    selection = Selection.load(tmp_path / "out" / "selection.npz", data)
    assert selection.indices.tolist() == found.selection.indices.tolist()
    assert [one.name for one in tmp_path.iterdir()] == ["out"]  # no temporary folder is left


def test_an_autoencoder_travels_with_its_patches(tmp_path: Path) -> None:
    settings = PatchSettings(0.25, scores="saliency", rebuild="mae", mae_steps=2)
    found = small(plan_of("dqas", settings, adaptive=False))
    found.write(tmp_path / "out", toy((9, 9, 9), 1))
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    loaded = load_dataset(f"parquet:{tmp_path / 'elsewhere'}")
    assert torch.equal(loaded.train.images, found.images.images)


def test_a_full_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    found = small(plan_of("dq", None))
    with pytest.raises(UserError, match="not an empty folder: choose another name"):
        found.write(tmp_path, toy((9, 9, 9), 1))
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (PatchSettings(1.0), "drop rate must be at least 0 and below 1"),
        (PatchSettings(size=3), "patches of 3 pixels do not divide images of 8x8"),
        (PatchSettings(scores="grad-can"), "did you mean 'grad-cam'?"),
        (PatchSettings(rebuild="harmonics"), "did you mean 'harmonic'?"),
        (PatchSettings(rebuild="harmonic", mae_weights=Path("w.pt")), "of use with rebuild 'mae' only"),
    ],
)
def test_mistakes_in_settings(settings: PatchSettings, words: str) -> None:
    with pytest.raises(UserError) as caught:
        settings.of(toy().image_shape)
    assert words in str(caught.value)


def test_too_much_and_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqas_plugin.quantization.quantize.trained_network", no_network)  # known before any training
    with pytest.raises(UserError, match=r"lower the ratio to 0\.75"):
        small(plan_of("dqas", QUICK), aipc=None, ratio=0.8)
    with pytest.raises(UserError, match="class 'class 2' has 20 samples, too few for 21 bins"):
        small(plan_of("dqas", QUICK, bins=21))
    with pytest.raises(UserError, match="did you mean 'dqas'"):
        plan_of("dqaz", QUICK)
    with pytest.raises(UserError, match="did you mean 'original'"):
        plan_of("dq", QUICK, bins_on="originals")


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "small"
    common = ["quantize", "--dataset", "digits", "--iterations", "4", "--rebuild", "harmonic", "--out", str(out)]
    done = CliRunner().invoke(cli, [*common, "--ratio", "0.2", "--no-adaptive"])
    assert done.exit_code == 0, done.output
    assert "sample ratio 26.7038 % × patch keep ratio 75 % = data keep ratio 20.0278 %" in done.output
    assert sorted(one.name for one in out.iterdir()) == [
        "contact-sheet.png",
        "selection.npz",
        "test-00000-of-00001.parquet",
        "train-00000-of-00001.parquet",
    ]
    again = CliRunner().invoke(cli, [*common, "--ratio", "0.2"])
    assert again.exit_code == 2
    assert "not an empty folder: choose another name" in again.output
