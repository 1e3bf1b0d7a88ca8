"""What is computed on a GPU is what is computed on a processor; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import test_methods
from dqas_cli.main import cli
from dqas_plugin import load_dataset, select, training
from dqas_plugin.allocation import AllocationProblem
from dqas_plugin.augment import draw_shifts, shift
from dqas_plugin.contracts import Selector
from dqas_plugin.data import ImageDataset
from dqas_plugin.deepfool import perturbations
from dqas_plugin.logistic import fit
from dqas_plugin.models import Network, convnet3, convnet3_small, resnet18
from dqas_plugin.precision import Build
from dqas_plugin.proxy import HeldOut, probe_evaluator
from dqas_plugin.quantization.informativeness import grad_cam
from dqas_plugin.quantization.mae_training import train_mae
from dqas_plugin.recipes import recipe
from dqas_plugin.refinement import error_reduction
from dqas_plugin.training import TrainingResult, outputs, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

DIGITS = load_dataset("digits")
SHORT = recipe("quick").with_(iterations=80, batch=64)


def trained(build: Build = convnet3_small, data: ImageDataset = DIGITS.train, **more: Any) -> TrainingResult:
    return train(build, data, SHORT, 3, device="cuda", test=DIGITS.test, **more)


def same(one: TrainingResult, other: TrainingResult) -> None:
    for first, second in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("build", [convnet3_small, convnet3, resnet18])
def test_a_seed_gives_the_same_network(build: Build) -> None:
    same(trained(build), trained(build))


@pytest.mark.parametrize("build", [convnet3_small, convnet3, resnet18])
def test_recorded_steps_are_the_steps(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """With batches of two sizes, weights, and a prior."""
    rows = np.flatnonzero(DIGITS.train.labels.numpy() < 9)[:1000].tolist() + list(range(1300, 1399))
    data = DIGITS.train.subset(np.unique(rows))
    weights = torch.linspace(0.5, 2.0, len(data))
    assert len(data) % SHORT.batch
    recorded = trained(build, data, weights=weights)
    monkeypatch.setattr(training, "_RECORD_STEPS", 10**9)
    usual = trained(build, data, weights=weights)
    same(recorded, usual)
    assert [one["loss"] for one in recorded.history] == [one["loss"] for one in usual.history]


def test_soft_labels_and_the_course_of_a_recorded_training(monkeypatch: pytest.MonkeyPatch) -> None:
    data = DIGITS.train
    soft = torch.nn.functional.one_hot(data.labels, 10).float() * 0.9 + 0.01
    data = ImageDataset(data.images, data.labels, data.classes, data.name, mirror=data.mirror, targets=soft)
    seen: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    results = []
    for least in (50, 10**9):
        monkeypatch.setattr(training, "_RECORD_STEPS", least)
        noted: list[tuple[torch.Tensor, torch.Tensor]] = []
        results.append(trained(data=data, record=lambda where, logits, noted=noted: noted.append((where, logits))))
        seen.append(noted)
    same(*results)
    assert len(seen[0]) == SHORT.iterations
    for (where, logits), (there, others) in zip(*seen, strict=True):
        assert where.equal(there)
        torch.testing.assert_close(logits, others, rtol=0, atol=0)


def test_images_that_do_not_fit_come_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = trained()
    monkeypatch.setattr(training, "_RESIDENT", 0.0)
    same(resident, trained())


def test_a_network_that_is_not_recordable_learns_the_same() -> None:
    def build(shape: tuple[int, int, int], classes: int) -> Network:
        network = convnet3_small(shape, classes)
        vars(network)["recordable"] = False
        return network

    same(trained(), trained(build))


def test_it_learns_as_on_a_processor() -> None:
    on_gpu, on_cpu = (
        train(convnet3_small, DIGITS.train, SHORT, 0, device=one, test=DIGITS.test).last for one in ("cuda", "cpu")
    )
    assert on_gpu is not None
    assert on_cpu is not None
    assert on_gpu.mean == pytest.approx(on_cpu.mean, abs=0.05)


def test_images_are_moved_alike() -> None:
    images = torch.randint(0, 256, (100, 3, 9, 7), dtype=torch.uint8)
    moves = draw_shifts(100, 9, 7, crop=True, flip=True, generator=torch.Generator().manual_seed(1))
    assert shift(images.cuda(), moves).cpu().equal(shift(images, moves))


def features(count: int = 600, width: int = 12, classes: int = 4) -> tuple[torch.Tensor, np.ndarray]:
    draws = np.random.default_rng(0)
    labels = draws.permutation(np.arange(count) % classes)
    values = draws.normal(size=(count, width)) + 2 * draws.normal(size=(classes, width))[labels]
    return torch.from_numpy(values.astype(np.float32)), labels


def test_the_last_layer_is_fitted_alike() -> None:
    inputs, labels = features()
    wide, truth = inputs.double(), torch.from_numpy(labels)
    there = fit(wide.cuda(), truth.cuda(), 4, l2=0.1, tolerance=1e-6)
    torch.testing.assert_close(there.cpu(), fit(wide, truth, 4, l2=0.1, tolerance=1e-6), rtol=1e-4, atol=1e-5)


def test_the_probe_scores_alike() -> None:
    values, labels = features()
    even = np.full(4, 20)
    held_out = HeldOut.of(labels, even, np.zeros(len(labels), dtype=bool))

    def pick(counts: np.ndarray, without: np.ndarray) -> np.ndarray:
        parts = [np.flatnonzero((labels == label) & ~without)[:count] for label, count in enumerate(counts)]
        return np.concatenate(parts)

    found = []
    for device in ("cpu", "cuda"):
        ask = probe_evaluator(values.to(device), labels, pick, held_out, even, "balanced")
        problem = AllocationProblem(ask, np.bincount(labels), 80)
        found.append(problem.evaluate_many([(np.array([5, 30, 20, 25]), 1), (even, 2)], "test"))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.accuracy, other.accuracy, atol=0.02)
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-2)


@pytest.mark.parametrize("scorer", ["kap2nd", "influence", "gradient", "ridge"])
def test_error_reduction_adds_the_same(scorer: str) -> None:
    values, labels = features()
    selected = np.arange(0, 600, 12)
    here, there = (error_reduction(values.to(one), labels, selected, 40, scorer=scorer) for one in ("cpu", "cuda"))
    assert len(np.intersect1d(here, there)) >= 0.95 * len(here)


@test_methods.every_method
def test_methods_choose_alike(selector: Selector, options: dict[str, Any]) -> None:
    """Sums in another order may turn near ties."""
    signals = test_methods.signals()
    if "network" in selector.needs:
        pytest.skip("has no network here")
    here, there = (test_methods.picks(selector, one.view(1), 9, options) for one in (signals, signals.to("cuda")))
    assert len(set(here) & set(there)) >= 8


def test_deepfool_goes_as_far() -> None:
    network = train(convnet3_small, DIGITS.train, SHORT, 0).network
    images = DIGITS.train.images[:64]
    here = perturbations(network, images)
    there = perturbations(network.to("cuda"), images, device="cuda").cpu()
    assert float(((here - there).abs() < 0.05 * here.abs() + 1e-3).float().mean()) > 0.9


def test_grad_cam_scores_alike() -> None:
    network = train(convnet3_small, DIGITS.train, SHORT, 0).network
    images, labels = DIGITS.train.images[:64], DIGITS.train.labels[:64]
    here = grad_cam(network, images, labels, 2)
    there = grad_cam(network.to("cuda"), images, labels, 2, device="cuda")
    torch.testing.assert_close(here.scores, there.scores.cpu(), rtol=1e-2, atol=1e-3)


def test_the_autoencoder_is_trained() -> None:
    trained_mae = train_mae(DIGITS.train.images, 2, steps=20, seed=0, device="cuda")
    assert trained_mae is not None


def test_outputs_are_those_of_the_processor() -> None:
    network = train(convnet3_small, DIGITS.train, SHORT, 0).network
    here = torch.cat([logits for _, logits in outputs(network, DIGITS.test)])
    there = torch.cat([logits for _, logits in outputs(network, DIGITS.test, device="cuda")])
    torch.testing.assert_close(here, there, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("method", ["graphcut", "dqas", "random"])
def test_a_selection_with_class_counts_and_error_reduction(method: str) -> None:
    selection = select(DIGITS.train, method, ratio=0.1, adaptive=True, model="convnet3-small", recipe=SHORT, device="cuda")
    assert len(selection.indices) == round(0.1 * len(DIGITS.train))


def run(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_bench_shares_a_gpu(tmp_path: Path) -> None:
    words = ["--dataset", "digits", "--model", "convnet3-small", "--recipe", "quick", "--iterations", "60", "--ratio", "0.1"]
    where = ["--device", "cuda", "--jobs", "2", "--results", str(tmp_path / "r")]
    run("bench", "--method", "graphcut,dqas", "--adaptive", "--rebuild", "harmonic", "--seeds", "2", *words, *where)
    told = run("table", "2", "--results", str(tmp_path / "r"), "--format", "csv")
    assert "graphcut" in told


def test_quantize_writes_its_files(tmp_path: Path) -> None:
    words = ["--dataset", "digits", "--model", "convnet3-small", "--recipe", "quick", "--iterations", "60", "--ratio", "0.3"]
    run("quantize", "--pipeline", "dqas", *words, "--device", "cuda", "--rebuild", "harmonic", "--out", str(tmp_path / "q"))
    assert (tmp_path / "q" / "selection.npz").exists()


@pytest.mark.usefixtures("checkout")
def test_deepcores_methods_run_there() -> None:
    """All of its classes; they choose as they do on the processor, but for near ties."""
    from deepcore_problem import ranked
    from test_deepcore_in import NAMED, SCORES, SETS

    agreement: dict[str, float] = {}
    for name in sorted(SETS | SCORES | NAMED):
        here, there = (ranked(name, [6, 11, 4], device=one).order for one in ("cpu", "cuda"))
        agreement[name] = sum(len(np.intersect1d(*pair)) for pair in zip(here, there, strict=True)) / 21
    assert min(agreement.values()) > 0.8, agreement
