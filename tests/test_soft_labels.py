"""Soft labels: what they must be, what a loss and a training make of them, and where they go with the images."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import toys
from dqas_plugin import select
from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.lookup import load_dataset, resolve_model
from dqas_plugin.losses import log_prior, training_loss
from dqas_plugin.models import convnet3_small
from dqas_plugin.proxy import HeldOut, training_evaluator
from dqas_plugin.quantization.patch_files import KEY, TARGETS, write_images
from dqas_plugin.quantization.quantize import plan_of, quantize
from dqas_plugin.quantization.rebuilding import rebuilt_dataset
from dqas_plugin.quantization.settings import PatchSettings
from dqas_plugin.recipes import Recipe
from dqas_plugin.trained_signals import compute_signals
from dqas_plugin.training import TrainingResult, evaluate, train

CLASSES = 3
SHORT = Recipe("short", iterations=6, batch=16, lr=0.05, precision="fp32", proxy_epochs=1)


def probabilities(count: int, classes: int = CLASSES, seed: int = 0) -> Tensor:
    """Random rows, some of them nearly certain."""
    return torch.softmax(2 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)), dim=1)


def hard(counts: tuple[int, ...] = (20, 16, 6)) -> ImageDataset:
    return toys.toy(counts)


def soft(seed: int = 0) -> ImageDataset:
    return replace(hard(), targets=probabilities(len(hard()), seed=seed))


def one_hot(data: ImageDataset) -> ImageDataset:
    return replace(data, targets=functional.one_hot(data.labels, data.num_classes).float())


# The loss


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_formula(smoothing: float) -> None:
    logits, targets, weights = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, 2.0]]), probabilities(2), torch.tensor([0.5, 1.5])
    prior = torch.tensor([0.4, -1.0, 0.1])
    expected = 0.0
    for row, target, weight in zip(logits.double(), targets.double(), (0.5, 1.5), strict=True):
        scores = [math.exp(a + b) for a, b in zip(row.tolist(), prior.double().tolist(), strict=True)]
        for score, share in zip(scores, target.tolist(), strict=True):
            expected -= weight / 2 * ((1 - smoothing) * share + smoothing / 3) * math.log(score / sum(scores))
    assert float(training_loss(logits, targets, prior, weights, smoothing)) == pytest.approx(expected, rel=1e-6)


def test_loss_is_that_of_torch() -> None:
    logits, targets = torch.randn(50, CLASSES, generator=torch.Generator().manual_seed(1)), probabilities(50)
    assert torch.equal(training_loss(logits, targets), functional.cross_entropy(logits, targets, reduction="none").mean())


def test_gradient_is_the_weighted_difference_of_probabilities() -> None:
    logits = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(2)).requires_grad_()
    targets, weights, prior = probabilities(5), torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]), torch.tensor([0.3, 0.0, -0.7])
    training_loss(logits, targets, prior, weights).backward()
    expected = weights[:, None] * (torch.softmax((logits + prior).double(), dim=1) - targets.double()) / 5
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), expected, rtol=1e-5, atol=1e-7)


def test_prior_is_the_mean_of_the_soft_labels() -> None:
    targets, weights = probabilities(40), torch.rand(40, generator=torch.Generator().manual_seed(3)) + 0.2
    mean = (targets.double() * weights.double()[:, None]).sum(dim=0) / weights.double().sum()
    torch.testing.assert_close(log_prior(targets, CLASSES, weights).double(), (3 * mean).log(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        log_prior(targets, CLASSES).double(), (3 * targets.double().mean(dim=0)).log(), rtol=1e-5, atol=1e-6
    )


def test_prior_counts_a_class_that_is_hardly_there_as_half_an_image() -> None:
    targets = torch.tensor([[0.999, 0.001, 0.0]] * 4)
    assert log_prior(targets, CLASSES)[1:].tolist() == pytest.approx([math.log(0.5 * 3 / 4)] * 2)


@pytest.mark.parametrize("weighted", [False, True])
def test_prior_of_certain_labels_is_that_of_labels(weighted: bool) -> None:
    labels = hard().labels
    weights = torch.linspace(0.5, 1.5, len(labels)) if weighted else None
    assert torch.equal(log_prior(functional.one_hot(labels, 4).float(), 4, weights), log_prior(labels, 4, weights))


# Training


def trained(data: ImageDataset, *, weights: Tensor | None = None, prior: str = "balanced") -> TrainingResult:
    return train(convnet3_small, data, SHORT.with_(prior=prior), seed=3, weights=weights)


def parameters(result: TrainingResult) -> Tensor:
    return torch.cat([one.flatten() for one in result.network.parameters()])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prior", ["balanced", "empirical"])
def test_certain_soft_labels_train_the_very_network_of_the_labels(weighted: bool, prior: str) -> None:
    weights = torch.linspace(0.5, 1.5, len(hard())) if weighted else None
    plain = trained(hard(), weights=weights, prior=prior)
    again = trained(one_hot(hard()), weights=weights, prior=prior)
    assert torch.equal(parameters(plain), parameters(again))


def test_a_step_minimises_the_loss_of_the_soft_labels_with_their_prior() -> None:
    data, weights, said = soft(), torch.linspace(0.5, 1.5, 42), []
    one = Recipe("one", iterations=1, batch=64, crop=False, label_smoothing=0.1, precision="fp32")
    result = train(convnet3_small, data, one, 0, weights=weights, record=lambda *both: said.append(both))
    ((places, logits),) = said
    assert data.targets is not None
    prior = log_prior(data.targets, CLASSES, weights)
    expected = training_loss(logits, data.targets[places], prior, weights[places], 0.1)
    assert result.history[0]["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert not torch.allclose(prior, log_prior(data.labels, CLASSES, weights), atol=1e-2)


def test_uncertain_ones_train_another() -> None:
    assert not torch.equal(parameters(trained(hard())), parameters(trained(soft())))
    assert not torch.equal(parameters(trained(soft(0))), parameters(trained(soft(1))))


def test_weights_and_prior_matter_to_soft_labels() -> None:
    plain = parameters(trained(soft()))
    assert not torch.equal(plain, parameters(trained(soft(), prior="empirical")))
    assert not torch.equal(plain, parameters(trained(soft(), weights=torch.linspace(0.5, 1.5, len(soft())))))


def test_it_is_the_soft_labels_that_are_learnt() -> None:
    """A cyclic shift of the classes in the soft labels is what the network says afterwards."""
    data = hard((20, 20, 20))
    shifted = replace(data, targets=functional.one_hot((data.labels + 1) % CLASSES, CLASSES).float())
    network = train(convnet3_small, shifted, Recipe("learn", iterations=40, batch=32, precision="fp32"), seed=0).network
    said = evaluate(network, replace(data, labels=(data.labels + 1) % CLASSES)).mean
    assert said > 0.9


def test_evaluation_is_by_labels() -> None:
    network = trained(hard()).network
    assert evaluate(network, soft()).accuracy.tolist() == evaluate(network, hard()).accuracy.tolist()
    assert evaluate(network, soft()).loss.tolist() == evaluate(network, hard()).loss.tolist()


def test_proxy_training_learns_them_too() -> None:
    def accuracy(data: ImageDataset) -> list[float]:
        labels, even = data.labels.numpy(), np.array([4, 4, 2])
        held = HeldOut.of(labels, even, np.zeros(len(labels), dtype=bool))
        picks = lambda counts, without: np.flatnonzero(~without)  # noqa: E731
        return [float(one) for one in training_evaluator(data, convnet3_small, SHORT, picks, held, "cpu")(even, 0).loss]

    assert accuracy(hard()) == accuracy(one_hot(hard()))
    assert accuracy(hard()) != accuracy(soft())


def test_signals_of_other_soft_labels_are_others() -> None:
    build = resolve_model("convnet3-small")
    found = [compute_signals(one, "convnet3-small", build, SHORT, 0).logits for one in (hard(), soft(0), soft(1), soft(0))]
    assert all(one is not None for one in found)
    plain, first, second, again = [one for one in found if one is not None]
    assert torch.equal(first, again)
    assert not torch.equal(plain, first)
    assert not torch.equal(first, second)


# The field


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.zeros(42, 3, dtype=torch.float64), r"toy: targets must be float32 \[42, 3\], .* not torch.float64 \(42, 3\)"),
        (torch.zeros(42, dtype=torch.int64), r"targets must be float32 \[42, 3\]"),
        (torch.full((42, 4), 0.25), r"not torch.float32 \(42, 4\)"),
        (torch.full((41, 3), 1 / 3), r"not torch.float32 \(41, 3\)"),
    ],
)
def test_wrong_shapes_and_types_are_refused(targets: Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        replace(hard(), targets=targets)


@pytest.mark.parametrize("row", [[2.0, 0.0, 0.0], [-0.5, 1.0, 0.5], [math.nan, 0.5, 0.5], [0.3, 0.3, 0.3], [3.1, -2.0, 7.4]])
def test_rows_that_are_no_probabilities_are_refused_by_number(row: list[float]) -> None:
    targets = probabilities(42)
    targets[7] = torch.tensor(row)
    with pytest.raises(UserError, match=r"toy: targets must be probabilities.*those of image 7 are not: take the softmax"):
        replace(hard(), targets=targets)


def test_a_subset_has_the_rows_of_its_images() -> None:
    data, indices = soft(), [5, 0, 41]
    part = data.subset(indices)
    assert part.targets is not None
    assert data.targets is not None
    assert torch.equal(part.targets, data.targets[indices])
    assert hard().subset(indices).targets is None


def test_fingerprint_covers_them_and_stays_what_it_was_without() -> None:
    data = hard()
    content = hashlib.blake2b(digest_size=16)
    content.update(b"class 0\x1fclass 1\x1fclass 2")
    content.update(b"(42, 1, 8, 8)")
    content.update(data.labels.numpy().tobytes())
    content.update(data.images.numpy().tobytes())
    assert data.fingerprint == content.hexdigest()
    content.update(probabilities(42).numpy().tobytes())
    assert soft().fingerprint == content.hexdigest()
    assert len({data.fingerprint, one_hot(data).fingerprint, soft(0).fingerprint, soft(1).fingerprint}) == 4


def test_a_selection_belongs_to_its_soft_labels() -> None:
    chosen = select(soft(), "random", budget=9)
    chosen.check(soft())
    with pytest.raises(UserError, match="load the dataset it was made for"):
        chosen.check(hard())


# On disk


def written(folder: Path, data: ImageDataset) -> DatasetSplits:
    write_images(folder, data)
    write_images(folder, hard((4, 4, 4)), split="test")
    return load_dataset(f"parquet:{folder}")


def test_parquet_brings_them_back_from_files_and_cache(tmp_path: Path) -> None:
    data = soft()
    written(tmp_path, data)
    for _ in range(2):
        found = load_dataset(f"parquet:{tmp_path}")
        assert found.train.targets is not None
        assert torch.equal(found.train.targets, probabilities(42))
        assert found.test.targets is None
        assert found.train.fingerprint == data.fingerprint == replace(found.train, digest=None).fingerprint


def test_parquet_without_them_is_as_before(tmp_path: Path) -> None:
    assert written(tmp_path, hard()).train.targets is None
    assert pq.read_schema(tmp_path / "train-00000-of-00001.parquet").names == ["image", "label"]


def test_a_split_by_seed_keeps_rows_with_images(tmp_path: Path) -> None:
    data = soft()
    assert data.targets is not None
    found = load_dataset(f"parquet:{write_images(tmp_path, data).path}").train
    assert found.targets is not None
    assert 0 < len(found) < len(data)
    rows = [int((data.images == one).all(dim=(1, 2, 3)).nonzero()[0]) for one in found.images]
    assert torch.equal(found.targets, data.targets[rows])


def test_files_of_which_some_have_them_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "a" / "train", soft())
    write_images(tmp_path / "b" / "train", hard())
    with pytest.raises(UserError, match=r"b/train.*has no soft labels and other training files have some"):
        load_dataset(f"parquet:{tmp_path}")


def changed(path: Path, column: pa.Array) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.names.index(TARGETS), TARGETS, column), path)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = write_images(tmp_path, soft()).path
    changed(path, pa.FixedSizeListArray.from_arrays(pa.array(np.full(42 * 2, 0.5, np.float32)), 2))
    with pytest.raises(UserError, match=r"column 'targets' must hold one float32 for each of 3 classes"):
        load_dataset(f"parquet:{path}")


@pytest.mark.parametrize("value", [None, 9.0])
def test_values_that_are_no_probabilities_are_refused(tmp_path: Path, value: float | None) -> None:
    path = write_images(tmp_path, soft()).path
    rows = [value, *[1 / 3] * (42 * 3 - 1)]
    changed(path, pa.FixedSizeListArray.from_arrays(pa.array(rows, pa.float32()), 3))
    with pytest.raises(UserError, match="targets must be probabilities"):
        load_dataset(f"parquet:{path}", test_share=0.0)


def test_a_strangers_column_of_that_name_is_left_alone(tmp_path: Path) -> None:
    path = write_images(tmp_path, soft()).path
    table = pq.read_table(path)
    kept = {name: value for name, value in table.schema.metadata.items() if name != KEY}
    pq.write_table(table.replace_schema_metadata(kept), path)
    assert load_dataset(f"parquet:{path}").train.targets is None


def test_quantizing_carries_them(tmp_path: Path) -> None:
    data, patches = soft(), PatchSettings(0.25, scores="saliency", rebuild="harmonic")
    rebuilt = rebuilt_dataset(data, patches, lambda: None, identity="").data  # type: ignore[arg-type, return-value]
    assert rebuilt.targets is data.targets
    plan = plan_of("dqas", patches, adaptive=False, bins=2)
    made = quantize(data, plan, aipc=3, model="convnet3-small", recipe=SHORT)
    expected = probabilities(42)[torch.from_numpy(made.selection.indices)]
    for form in (False, True):
        made.write(tmp_path / str(form), hard((4, 4, 4)), rebuilt=form)
        found = load_dataset(f"parquet:{tmp_path / str(form)}").train
        assert found.targets is not None
        assert torch.equal(found.targets, expected)
