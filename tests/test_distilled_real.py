"""The real programs write distilled sets of a few images, and what is read is those images, bit for bit.

They run where their checkouts are named: ``DC_HOME``, ``DREAM_HOME``, ``MTT_HOME``, ``DATM_HOME``, ``DDRANKING_HOME``. Each
starts from real images and takes no step that changes them, so that every pixel is known through all that they do to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import registering
from dqas_adapters import distilled as adapter
from dqas_adapters.distilled.dream import Formation, decoded
from dqas_adapters.distilled.pixels import plain_scale
from dqas_adapters.distilled.whitening import fit
from dqas_plugin import ImageDataset, load_dataset
from dqas_plugin.data import TrainOnly
from dqas_plugin.exporting import export

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("real_distillation.py")
PER_CLASS = 12


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    yield from registering.registered(adapter, "distilled")


def run(program: str, variable: str, real: ImageDataset, out: Path, *arguments: str) -> str:
    """Run one of them, which finds the images of ``real`` as CIFAR-10; what it printed."""
    home = os.environ.get(variable)
    if not home:
        pytest.skip(f"{variable} does not name a checkout")
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "real.npz", images=real.images.numpy(), labels=real.labels.numpy())
    command = [sys.executable, str(SCRIPT), program, home, str(out / "real.npz"), str(out), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def real() -> ImageDataset:
    """Ten classes that a network can tell apart, mixed; every image another."""
    draws = np.random.default_rng(0)
    labels = draws.permutation(np.repeat(np.arange(10), PER_CLASS))
    plans = np.kron(draws.integers(60, 196, (10, 3, 4, 4)), np.ones((8, 8)))
    images = np.clip(plans[labels] + draws.normal(0, 35, (len(labels), 3, 32, 32)), 0, 255).astype(np.uint8)
    return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), tuple("abcdefghij"), "few/train")


def assert_real(data: ImageDataset, real: ImageDataset, per_class: int, within: int = 0) -> None:
    """Every image is one of the real ones of its class, and no two are the same."""
    assert data.labels.tolist() == [label for label in range(10) for _ in range(per_class)]
    found = []
    for image, label in zip(data.images, data.labels, strict=True):
        away = (real.images.int() - image.int()).abs().amax(dim=(1, 2, 3))
        assert int(away.min()) <= within
        found.append(int(away.argmin()))
        assert int(real.labels[found[-1]]) == int(label)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(("program", "method", "per_class", "runs"), [("main.py", "DC", 1, 2), ("main_DM.py", "DM", 10, 1)])
def test_condensation(tmp_path: Path, real: ImageDataset, program: str, method: str, per_class: int, runs: int) -> None:
    run(program, "DC_HOME", real, tmp_path, method, str(per_class), str(runs))
    path = tmp_path / f"res_{method}_CIFAR10_ConvNet_{per_class}ipc.pt"
    for one in range(runs):
        data = load_dataset(f"dc:{path}", run=one).train
        assert_real(data, real, per_class)
    assert any("as the file's name says" in one for one in data.notes)


@pytest.mark.parametrize(("factor", "decode", "per_class"), [(1, "single", 5), (2, "multi", 3)])
def test_dream(tmp_path: Path, real: ImageDataset, factor: int, decode: str, per_class: int) -> None:
    """Its ``condense`` writes the file and its ``test.py`` decodes it: so do we, from the file and ``args.txt`` alone."""
    run("dream", "DREAM_HOME", real, tmp_path, str(factor), decode, str(per_class))
    data = load_dataset(f"dream:{tmp_path}").train
    assert "as args.txt says" in " ".join(data.notes)
    if factor == 1:
        assert_real(data, real, per_class)
        return
    stored, labels = torch.load(tmp_path / "data40.pt", weights_only=True)
    np.savez(tmp_path / "stored.npz", images=stored.numpy(), labels=labels.numpy())
    run("dream-decode", "DREAM_HOME", real, tmp_path, str(factor), decode)
    theirs = np.load(tmp_path / "decoded.npz")
    assert np.array_equal(data.labels.numpy(), theirs["labels"])
    assert np.array_equal(data.images.numpy(), np.rint(theirs["images"].clip(0, 1) * np.float32(255)).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "factor", "decode"), [(32, 3, "single"), (32, 5, "multi"), (28, 3, "multi"), (28, 2, "single")]
)
def test_decoding_as_dream(tmp_path: Path, real: ImageDataset, size: int, factor: int, decode: str) -> None:
    images = np.random.default_rng(0).random((6, 3, size, size), dtype=np.float32)
    labels = np.repeat(np.arange(3), 2)
    np.savez(tmp_path / "stored.npz", images=images, labels=labels)
    run("dream-decode", "DREAM_HOME", real, tmp_path, str(factor), decode)
    theirs = np.load(tmp_path / "decoded.npz")
    formation = Formation(factor, decode == "multi")
    pixels, every = decoded(torch.from_numpy(images), labels.astype(np.int64), plain_scale(""), formation)
    assert np.array_equal(every, theirs["labels"])
    assert np.array_equal(pixels.numpy(), np.rint(theirs["images"] * np.float32(255)).astype(np.uint8))


def test_mtt_without_whitening(tmp_path: Path, real: ImageDataset) -> None:
    run("mtt", "MTT_HOME", real, tmp_path, "3", "normalised")
    data = load_dataset(f"mtt:{tmp_path}/logged_files/CIFAR10/run", normalisation="cifar10").train
    assert_real(data, real, 3)


def test_mtt_with_whitening(tmp_path: Path, real: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whitened by kornia in their code, and taken back by ours."""
    pytest.importorskip("kornia", reason="kornia is not installed")
    run("mtt", "MTT_HOME", real, tmp_path, "3", "zca")
    folder = tmp_path / "logged_files" / "CIFAR10" / "run"
    monkeypatch.setattr("dqas_adapters.distilled.mtt.load_dataset", lambda *_: TrainOnly(real))
    monkeypatch.setattr("dqas_adapters.distilled.family.load_dataset", lambda *_: TrainOnly(real))
    data = load_dataset(f"mtt:{folder}", zca_from="few").train
    assert_real(data, real, 3)
    again = load_dataset(f"mtt:{folder}/images_zca_0.pt").train  # their own inverse
    assert torch.equal(again.images, data.images)


def test_datm(tmp_path: Path, real: ImageDataset) -> None:
    run("datm", "DATM_HOME", real, tmp_path, "3", "normalised")
    folder = tmp_path / "logged_files" / "CIFAR10" / "3" / "ConvNet" / "run" / "Normal"
    logits = torch.load(folder / "labels_best.pt", weights_only=True).detach()
    data = load_dataset(f"datm:{folder}", normalisation="cifar10").train
    assert_real(data, real, 3)
    assert data.targets is not None
    pairs = {image.numpy().tobytes(): row for image, row in zip(data.images, data.targets, strict=True)}
    stored = torch.load(folder / "images_best.pt", weights_only=True).detach()
    mean, deviation = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    shown = (stored * deviation.view(3, 1, 1) + mean.view(3, 1, 1)).mul(255).round().to(torch.uint8)
    for image, row in zip(shown, logits, strict=True):
        assert torch.allclose(pairs[image.numpy().tobytes()], torch.softmax(row, dim=0), atol=1e-6)
    assert any(one.startswith("the learning rate learned for these images is 0.01 ") for one in data.notes)


def test_kornia_on_images_of_this_size(real: ImageDataset) -> None:
    kornia = pytest.importorskip("kornia", reason="kornia is not installed")
    small = torch.nn.functional.avg_pool2d(real.images.float(), 2).to(torch.uint8)
    theirs = kornia.enhance.ZCAWhitening(eps=0.1, compute_inv=True).fit(small.float() / 255)
    assert torch.allclose(fit(small).undo(theirs(small.float() / 255)), small.float() / 255, atol=1e-4)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_dd_ranking_trains_on_what_is_exported(tmp_path: Path, real: ImageDataset, kind: str) -> None:
    """The real images, exported, are what it makes of the real images itself; and its networks learn from them."""
    pytest.importorskip("kornia", reason="kornia is not installed, which DD-Ranking imports")
    targets = 0.9 * torch.nn.functional.one_hot(real.labels, 10).float() + 0.01 if kind == "soft" else None
    data = ImageDataset(real.images, real.labels, real.classes, "cifar10/train", targets=targets)
    export("dc", TrainOnly(data), None, tmp_path / "set")
    run("dd-ranking", "DDRANKING_HOME", real, tmp_path, kind)
    scores = np.load(tmp_path / "scores.npz")
    assert scores["accuracy"] > 80
    theirs = scores["real"][np.argsort(real.labels.numpy(), kind="stable")]
    assert np.allclose(torch.load(tmp_path / "set" / "images.pt", weights_only=True).numpy(), theirs, atol=1e-6)
    if targets is not None:  # its loss sees the probabilities that were exported, not a softmax of them
        entropy = -float((targets * targets.log()).sum(dim=1).mean())
        assert np.load(tmp_path / "entropy.npz")["entropy"] == pytest.approx(entropy, rel=1e-5)
