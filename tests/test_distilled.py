"""Sets of DC, DSA and DM, what all readers of distilled sets check, and families of several sets."""

from __future__ import annotations

import ast
import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import registering
from distilled import CIFAR, Hostile, enormous, normalised, pictures, plain, save_dc, save_dream
from dqas_adapters import distilled as adapter
from dqas_adapters import family
from dqas_cli.main import cli
from dqas_plugin import UserError, load_dataset, select
from dqas_plugin.data import ImageDataset, TrainOnly
from dqas_plugin.plugins import Plugins

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    yield from registering.registered(adapter, "distilled")


def load(path: Path | str, form: str = "dc", **options: Any) -> ImageDataset:
    splits = load_dataset(f"{form}:{path}", **options)
    assert isinstance(splits, TrainOnly)
    return splits.train


@pytest.fixture
def small(tmp_path: Path) -> tuple[np.ndarray, torch.Tensor, Path]:
    """Pixels, labels and a file of DM."""
    pixels, labels = pictures(4)
    return pixels, labels, save_dc(tmp_path / "res_DM_CIFAR10_ConvNet_4ipc.pt", (normalised(pixels, *CIFAR), labels))


def test_what_it_brings() -> None:
    host = Plugins(strangers=False)
    host.register(adapter, "distilled")
    info = next(one for one in host.overview() if one.name == "distilled")
    assert info.brings == {"datasets": ("dc", "dream", "mtt", "datm"), "exporters": ("dc",)}
    assert host.problems == []


def test_it_uses_public_names_only() -> None:
    for _, name, _ in pkgutil.iter_modules(adapter.__path__):
        tree = ast.parse(inspect.getsource(import_module(f"dqas_adapters.distilled.{name}")))
        used = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
        assert not [each.name for one in used for each in one.names if each.name.startswith("_") and one.module != "__future__"]


# DC, DSA and DM


@pytest.mark.parametrize(
    ("name", "constants", "channels"),
    [
        ("res_DC_CIFAR10_ConvNet_4ipc", CIFAR, 3),
        ("res_DSA_CIFAR100_ConvNet_4ipc", ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)), 3),
        ("res_DM_SVHN_ConvNet_4ipc", ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)), 3),
        ("res_DC_MNIST_LeNet_4ipc", ((0.1307,), (0.3081,)), 1),
        ("res_DC_FashionMNIST_ConvNet_4ipc", ((0.2861,), (0.3530,)), 1),
        ("res_DM_TinyImageNet_ConvNetD4_4ipc", IMAGENET, 3),
        ("res_DM_tinyimagenet_ConvNetD4_4ipc", IMAGENET, 3),
    ],
)
def test_a_file_says_how_it_is_normalised(tmp_path: Path, name: str, constants: Any, channels: int) -> None:
    pixels, labels = pictures(4, channels=channels)
    data = load(save_dc(tmp_path / f"{name}.pt", (normalised(pixels, *constants), labels)))
    assert np.array_equal(data.images.numpy(), pixels)
    assert torch.equal(data.labels, labels)
    assert data.name == f"{name}/train"
    assert data.classes == ("0", "1", "2")
    assert data.mirror == ("MNIST_L" not in name and "SVHN" not in name)
    assert "as the file's name says" in data.notes[1]
    assert f"mean {constants[0][0]:g}" in data.notes[1]
    assert data.notes[0] == "4 images of each of 3 classes"


def test_another_normalisation_can_be_named(tmp_path: Path) -> None:
    pixels, labels = pictures(4)
    path = save_dc(tmp_path / "mine.pt", (normalised(pixels, *CIFAR), labels))
    with pytest.raises(UserError, match=r"mine\.pt: its name does not say which dataset .* give normalisation=NAME"):
        load(path)
    assert np.array_equal(load(path, normalisation="cifar10").images.numpy(), pixels)
    with pytest.raises(UserError, match="unknown normalisation 'cifar': did you mean 'cifar10'"):
        load(path, normalisation="cifar")
    with pytest.raises(UserError, match="images of 3 channels cannot have been normalised as mnist, which has 1"):
        load(path, normalisation="mnist")
    raw = save_dc(tmp_path / "raw.pt", (plain(pixels), labels))
    data = load(raw, normalisation="none")
    assert np.array_equal(data.images.numpy(), pixels)
    assert data.notes[1:] == ("values taken as pixels in 0..1, not normalised", "all values lay in 0..1")


def test_runs(tmp_path: Path) -> None:
    made = [pictures(2, seed=seed) for seed in range(3)]
    path = save_dc(tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt", *((normalised(one, *CIFAR), labels) for one, labels in made))
    for run, expected in ((0, 0), (2, 2), (-1, 2)):
        data = load(path, run=run)
        assert np.array_equal(data.images.numpy(), made[expected][0])
        assert f"run {expected} of 3 (0..2)" in data.notes
    assert np.array_equal(load(path).images.numpy(), made[0][0])
    with pytest.raises(UserError, match=r"has runs 0\.\.2, so not 3"):
        load(path, run=3)


def test_values_outside_are_clipped_and_counted(tmp_path: Path) -> None:
    pixels, labels = pictures(4)
    values = plain(pixels)
    values[0, 0, 0, :4] = torch.tensor([-0.2, 1.3, 1.0, 0.0])
    data = load(save_dc(tmp_path / "a.pt", (values, labels)), normalisation="none")
    assert data.images[0, 0, 0, :4].tolist() == [0, 255, 255, 0]
    share = 100 * 2 / values.numel()
    assert f"{share:.1f} % of the values lay outside 0..1 and were clipped" in data.notes


# Wrong assumptions


def test_values_that_contradict_the_assumption_are_refused(tmp_path: Path) -> None:
    pixels, labels = pictures(20)
    shown = save_dc(tmp_path / "normalised.pt", (normalised(pixels, *CIFAR), labels))
    with pytest.raises(UserError, match=r"normalised\.pt: .*not normalised, but .* outside -0\.5\.\.1\.5: give normalisation"):
        load(shown, normalisation="none")
    raw = save_dc(tmp_path / "raw.pt", (plain(pixels), labels))
    with pytest.raises(UserError, match=r"raw\.pt: its values are normalised as cifar10 .* but they deviate by 0\.29"):
        load(raw, normalisation="cifar10")
    draws = torch.Generator().manual_seed(0)
    white = save_dc(tmp_path / "white.pt", (0.25 * torch.randn(len(labels), 3, 8, 8, generator=draws), labels))
    with pytest.raises(UserError, match=r"white\.pt: .* 5\d\.\d % of the pixels would lie outside 0\.\.1"):
        load(white, normalisation="none")
    with pytest.raises(UserError, match=r"white\.pt: its values are normalised as cifar10 .* but they deviate by 0\.25"):
        load(white, normalisation="cifar10")
    assert len(load(white, normalisation="none", check=False)) == 60


# Wrong data


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 0, 1, 1, 2]), r"data\[0\]\[1\] has 5 labels for 6 images"),
        (torch.tensor([0, 0, 1, 1, 3, 3]), r"must hold all classes 0\.\.3, and class 2 has no image"),
        (torch.tensor([-1, -1, 0, 0, 1, 1]), r"holds the class -1"),
        (torch.tensor([0, 0, 1, 1, 10**12, 10**12]), r"must hold all classes 0\.\.1000000000000, and class 2 has no image"),
        (torch.tensor([1, 1, 0, 0, 2, 2]), r"image 2 is of class 0 after one of class 1: give in_order=false"),
        (torch.tensor([0, 0, 1, 1, 2, 2.5]), r"must be whole numbers"),
        (torch.tensor([0, 0, 1, 1, 2, float("nan")]), r"must be whole numbers"),
        ("cat", r"must be one row of whole numbers"),
        (torch.zeros(6, dtype=torch.int64), r"images of one class only"),
    ],
)
def test_labels_that_are_wrong_are_named(tmp_path: Path, labels: Any, words: str) -> None:
    path = save_dc(tmp_path / "a.pt", (plain(pictures(2)[0]), labels))
    with pytest.raises(UserError, match=words) as caught:
        load(path, normalisation="none")
    assert "a.pt" in str(caught.value)


def test_labels_out_of_order_are_sorted_on_demand(tmp_path: Path) -> None:
    pixels, labels = pictures(3)
    order = np.random.default_rng(1).permutation(9)
    path = save_dc(tmp_path / "a.pt", (plain(pixels[order]), labels[order]))
    data = load(path, normalisation="none", in_order=False)
    assert torch.equal(data.labels, labels)
    expected = pixels[order][np.argsort(labels.numpy()[order], kind="stable")]
    assert np.array_equal(data.images.numpy(), expected)


def with_value(value: float) -> torch.Tensor:
    images = plain(pictures(2)[0])
    images[4, 1, 2, 3] = value
    return images


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (with_value(float("nan")), r"image 4 of data\[0\]\[0\] has NaN or infinite values"),
        (with_value(float("-inf")), r"image 4 of data\[0\]\[0\] has NaN or infinite values"),
        (torch.zeros(6, 3, 8), r"must be images \[N, C, H, W\].*not \(6, 3, 8\)"),
        (torch.zeros(6, 8, 8, 3), r"must be images \[N, C, H, W\].*not \(6, 8, 8, 3\)"),
        (torch.zeros(0, 3, 8, 8), r"must be images"),
        (torch.zeros(6, 3, 8, 8, dtype=torch.int64), r"must be a tensor of floating-point images, not torch\.int64"),
        ([1.0, 2.0], r"must be a tensor of floating-point images, not list"),
    ],
)
def test_images_that_are_wrong_are_named(tmp_path: Path, images: Any, words: str) -> None:
    path = save_dc(tmp_path / "a.pt", (images, torch.tensor([0, 0, 1, 1, 2, 2])))
    with pytest.raises(UserError, match=words):
        load(path, normalisation="none")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "is not a set of DatasetCondensation: it has no 'data'"),
        ({"data": []}, "it has no 'data'"),
        ({"data": [torch.zeros(2)]}, r"data\[0\] is not a pair"),
        ({"data": [[torch.zeros(2)]]}, r"data\[0\] is not a pair"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=words):
        load(tmp_path / "a.pt", normalisation="none")


@pytest.mark.parametrize("form", ["dc", "dream", "mtt", "datm"])
def test_nothing_in_a_file_is_executed(tmp_path: Path, form: str) -> None:
    mark = tmp_path / "mark"
    torch.save({"data": [[Hostile(mark), Hostile(mark)]]} if form == "dc" else [Hostile(mark)], tmp_path / "images_best.pt")
    with pytest.raises(UserError, match=r"images_best\.pt cannot be read as a set of .* it asks for .*_leave"):
        load(tmp_path / "images_best.pt", form, normalisation="none")
    assert not mark.exists()


@pytest.mark.parametrize("form", ["dc", "dream", "mtt", "datm"])
def test_claims_of_size_are_not_believed(tmp_path: Path, form: str) -> None:
    images = enormous(10**12, 3, 8, 8)
    content = {"dc": {"data": [[images, torch.arange(3)]]}, "dream": [images, torch.arange(3)]}.get(form, images)
    torch.save(content, tmp_path / "images_best.pt")
    torch.save(torch.arange(3), tmp_path / "labels_best.pt")
    with pytest.raises(UserError, match=r"claim \(1000000000000, 3, 8, 8\), more than the file holds"):
        load(tmp_path / "images_best.pt", form, normalisation="none")


def test_paths_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pt' does not exist"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(UserError, match=r"has no files res_\*\.pt"):
        load(tmp_path)
    with pytest.raises(UserError, match="'' does not exist"):
        load(f"{save_dc(tmp_path / 'a.pt', (plain(pictures(1)[0]), torch.arange(3)))}+")


# Class names, and use


def test_class_names_of_another_dataset(tmp_path: Path) -> None:
    pixels, labels = pictures(2, classes=10, channels=1)
    path = save_dc(tmp_path / "a.pt", (plain(pixels), labels))
    data = load(path, normalisation="none", classes_from="digits")
    assert data.classes == load_dataset("digits").train.classes
    assert not data.mirror  # nor does a mirrored digit belong to its class there
    few = save_dc(tmp_path / "b.pt", (plain(pictures(2, channels=1)[0]), pictures(2)[1]))
    with pytest.raises(UserError, match=r"b\.pt has 3 classes and digits has 10: classes_from must name the dataset"):
        load(few, normalisation="none", classes_from="digits")


def test_a_set_is_ranked_cut_and_tested_on_real_images(tmp_path: Path) -> None:
    real = load_dataset("digits").train
    chosen = np.concatenate([np.flatnonzero(real.labels.numpy() == label)[:6] for label in range(10)])
    path = save_dc(tmp_path / "a.pt", (plain(real.images[chosen].numpy()), real.labels[chosen]))
    splits = load_dataset(f"dc:{path}", normalisation="none", classes_from="digits", test_from="digits")
    assert torch.equal(splits.test.images, load_dataset("digits").test.images)
    picked = select(splits.train, "random", aipc=2)
    assert picked.counts.tolist() == [2] * 10
    with pytest.raises(UserError, match="--test-from"):
        _ = load_dataset(f"dc:{path}", normalisation="none").test


def test_options_on_the_command_line(tmp_path: Path) -> None:
    pixels, labels = pictures(4)
    path = save_dc(tmp_path / "a.pt", (plain(pixels), labels))
    out = tmp_path / "s.npz"
    options = ["--dataset", f"dc:{path}", "--method", "random", "--aipc", "2", "--out", str(out)]
    result = CliRunner().invoke(cli, ["select", *options, "--dataset-option", "normalisation=none"])
    assert result.exit_code == 0, result.output
    assert "values taken as pixels in 0..1, not normalised" in result.stderr
    result = CliRunner().invoke(cli, ["select", *options, "--force"])
    assert result.exit_code == 2
    assert "give normalisation=NAME (or none)" in result.stderr


# Families


def three_sets(folder: Path) -> list[tuple[Path, np.ndarray, torch.Tensor]]:
    made = []
    for per_class in (10, 1, 3):
        pixels, labels = pictures(per_class, seed=per_class)
        path = folder / f"res_DM_CIFAR10_ConvNet_{per_class}ipc.pt"
        made.append((save_dc(path, (normalised(pixels, *CIFAR), labels)), pixels, labels))
    return made


def test_a_family_is_told_apart_where_the_label_decreases(tmp_path: Path) -> None:
    made = three_sets(tmp_path)
    for path in (tmp_path, "+".join(str(one) for one, _, _ in made)):
        data = load(path)
        starts = np.flatnonzero(np.diff(data.labels.numpy()) < 0) + 1
        parts = np.split(np.arange(len(data)), starts)
        assert [len(one) for one in parts] == [3, 9, 30]
        for part, (_, pixels, labels) in zip(parts, [made[1], made[2], made[0]], strict=True):
            assert np.array_equal(data.images[part].numpy(), pixels)
            assert torch.equal(data.labels[part], labels)
        assert data.notes[0].startswith("3 sets of 1, 3, 10 images a class")
        assert data.notes[1].startswith("res_DM_CIFAR10_ConvNet_1ipc: values normalised as cifar10")
        assert data.name == "+".join(f"res_DM_CIFAR10_ConvNet_{one}ipc" for one in (1, 3, 10)) + "/train"


def test_classes_take_their_images_from_the_set_that_fits(tmp_path: Path) -> None:
    three_sets(tmp_path)
    data = load(tmp_path)
    number, sizes = family.sets_in(data.labels.numpy())
    assert sizes.tolist() == [1, 3, 10]
    of_class_1 = np.flatnonzero(data.labels.numpy() == 1)
    taken = family.from_fitting_sets(number[of_class_1], sizes, 2, np.arange(len(of_class_1)))
    assert of_class_1[taken].tolist() == [3 + 3, 3 + 4]  # the first two of class 1 in the set of three a class


def test_a_path_with_a_plus_is_one_path_if_it_exists(tmp_path: Path) -> None:
    pixels, labels = pictures(2)
    (tmp_path / "a+b").mkdir()
    path = save_dc(tmp_path / "a+b" / "c.pt", (plain(pixels), labels))
    assert len(load(path, normalisation="none")) == 6


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (pictures(4, classes=4), "one.pt has 3 classes and .*two.pt has 4"),
        (pictures(4, size=6), r"has images of \(3, 8, 8\) and .*two.pt of \(3, 6, 6\)"),
        (pictures(2), "both hold 2 images of a class"),
    ],
)
def test_sets_that_are_no_family(tmp_path: Path, other: Any, words: str) -> None:
    for name, (pixels, labels) in (("one", pictures(2)), ("two", other)):
        save_dc(tmp_path / f"{name}.pt", (plain(pixels), labels))
    with pytest.raises(UserError, match=words):
        load(f"{tmp_path}/one.pt+{tmp_path}/two.pt", normalisation="none")


def test_families_of_other_programs(tmp_path: Path) -> None:
    for per_class in (2, 1):
        pixels, labels = pictures(per_class)
        save_dream(tmp_path / f"ipc{per_class}" / "data.pt", plain(pixels), labels)
    data = load(f"{tmp_path}/ipc2+{tmp_path}/ipc1", "dream")
    assert data.labels.tolist() == [0, 1, 2, 0, 0, 1, 1, 2, 2]
    assert data.name == "ipc1+ipc2/train"
