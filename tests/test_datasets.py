"""Built-in datasets that need no images of the user's: digits, shapes, CIFAR and Fashion-MNIST."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_plugin import datasets
from dqas_plugin.data import DatasetSplits
from dqas_plugin.datasets import cifar, digits, fashion_mnist, shapes
from dqas_plugin.datasets.splits import stratified_test_mask
from dqas_plugin.errors import UserError

NOWHERE = "http://127.0.0.1:9/"  # the discard port: a connection is refused at once


def test_registers_all_built_ins() -> None:
    found: dict[str, bool] = {}

    def register(name: str, load: Any, title: str = "", takes_path: bool = False) -> None:
        assert callable(load)
        assert title
        found[name] = takes_path

    datasets.dqas_register_datasets(register)
    plain = {"digits", "shapes", "cifar10", "cifar100", "fashion-mnist", "tiny-imagenet"}
    assert found == dict.fromkeys(plain, False) | {"folder": True, "parquet": True}


# Splitting by seed


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(2, 40), min_size=1, max_size=6), share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_split_takes_the_same_share_of_every_class(sizes: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    mask = stratified_test_mask(labels, [str(i) for i in range(len(sizes))], share, seed, "d")
    for label, size in enumerate(sizes):
        taken = int(mask[labels == label].sum())
        assert 1 <= taken <= size - 1
        assert abs(taken - share * size) <= 0.5 or taken in (1, size - 1)


def test_split_depends_on_the_seed_alone() -> None:
    labels = np.repeat(np.arange(3), 20)
    masks = [stratified_test_mask(labels, "abc", 0.25, seed, "d") for seed in (0, 0, 1)]
    assert (masks[0] == masks[1]).all()
    assert (masks[0] != masks[2]).any()


@pytest.mark.parametrize("share", [1.0, -0.1, 1.5, float("nan")])
def test_split_refuses_an_impossible_share(share: float) -> None:
    with pytest.raises(UserError, match="test_share must be at least 0 and below 1"):
        stratified_test_mask(np.zeros(4, dtype=np.int64), ["a"], share, 0, "d")


def test_split_of_nothing() -> None:
    assert not stratified_test_mask(np.array([0, 0, 1]), ["a", "b"], 0.0, 0, "d").any()


def test_split_refuses_a_class_of_one() -> None:
    with pytest.raises(UserError, match="class 'b' has 1 images"):
        stratified_test_mask(np.array([0, 0, 1]), ["a", "b"], 0.5, 0, "d")


# digits


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    splits = digits.load(None)
    assert len(splits.train) + len(splits.test) == 1797
    assert splits.train.image_shape == (1, 8, 8)
    assert not splits.train.mirror
    assert int(splits.train.images.max()) == 255
    expected = {
        (tuple(np.round(image.ravel() / 16 * 255)), label) for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    ours = {
        (tuple(float(v) for v in image.flatten()), int(label))
        for split in (splits.train, splits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    assert ours == expected
    assert (abs(splits.test.class_sizes / (splits.test.class_sizes + splits.train.class_sizes) - 0.2) < 0.01).all()


def test_digits_are_the_same_every_time() -> None:
    assert digits.load(None).train.fingerprint == digits.load(None).train.fingerprint


# shapes


def nearest_neighbour(splits: DatasetSplits, counts: list[int]) -> tuple[float, float]:
    """1-NN accuracy on easy and hard classes after training on the first ``counts[c]`` images of each class."""
    labels = splits.train.labels
    chosen = torch.cat([torch.where(labels == label)[0][:count] for label, count in enumerate(counts)])
    distances = torch.cdist(splits.test.images.flatten(1).float(), splits.train.images[chosen].flatten(1).float())
    right = labels[chosen][distances.argmin(1)] == splits.test.labels
    easy = splits.test.labels < len(counts) // 2
    return float(right[easy].float().mean()), float(right[~easy].float().mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_shapes_have_a_known_answer(seed: int) -> None:
    splits = shapes.load(None, seed=seed)
    even_easy, even_hard = nearest_neighbour(splits, [40] * 10)
    easy, hard = nearest_neighbour(splits, [10] * 5 + [70] * 5)
    _, plenty = nearest_neighbour(splits, [150] * 10)
    assert even_easy > 0.98
    assert 0.45 < even_hard < 0.75
    assert plenty > even_hard + 0.2
    assert (easy + hard) / 2 > (even_easy + even_hard) / 2 + 0.04, "moving budget to hard classes must pay"


def test_shapes_follow_their_options() -> None:
    splits = shapes.load(None, classes=4, modes=3, easy_share=0.25, per_class=7, test_per_class=5, size=12)
    assert splits.train.images.shape == (28, 1, 12, 12)
    assert splits.test.class_sizes.tolist() == [5] * 4
    assert splits.train.classes == ("easy-0", "hard-0", "hard-1", "hard-2")
    assert not splits.train.mirror


@pytest.mark.parametrize(("share", "easy"), [(0.0, 0), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_shapes_ratio_of_easy_classes_is_an_option(share: float, easy: int) -> None:
    splits = shapes.load(None, easy_share=share, modes=4, per_class=300, noise=0.0)
    assert sum(name.startswith("easy") for name in splits.train.classes) == easy
    distinct = [len(splits.train.images[splits.train.labels == label].unique(dim=0)) for label in range(10)]
    assert distinct == [9] * easy + [36] * (10 - easy)  # 3x3 shifts of one mode, or of four


def test_shapes_without_noise_have_as_many_images_as_modes_and_shifts() -> None:
    splits = shapes.load(None, classes=2, modes=2, easy_share=0.5, per_class=400, noise=0.0)
    distinct = [len(splits.train.images[splits.train.labels == label].unique(dim=0)) for label in (0, 1)]
    assert distinct == [9, 18]  # 3x3 shifts of each mode


def test_shapes_depend_on_the_seed() -> None:
    prints = [shapes.load(None, seed=seed).train.fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_shapes_train_and_test_differ() -> None:
    splits = shapes.load(None, per_class=20, test_per_class=20)
    assert not torch.equal(splits.train.images, splits.test.images)


@pytest.mark.parametrize(
    "options",
    [
        {"classes": 1},
        {"modes": 0},
        {"easy_share": 1.1},
        {"per_class": 0},
        {"size": 4},
        {"noise": -1.0},
        {"noise": float("nan")},
    ],
)
def test_shapes_refuse_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        shapes.load(None, **options)


# Fashion-MNIST


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


def fashion_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for prefix, count in (("train", 30), ("t10k", 20)):
        arrays[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{prefix}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    return arrays


def write_fashion(folder: Path, zipped: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = fashion_arrays()
    for name, array in arrays.items():
        content = idx(array)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_fashion_mnist_reads_idx_files(tmp_path: Path, zipped: bool, below: str) -> None:
    arrays = write_fashion(tmp_path / below, zipped)
    splits = fashion_mnist.load(tmp_path)
    np.testing.assert_array_equal(splits.train.images[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(splits.test.labels.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert splits.train.name == "fashion-mnist/train"
    assert splits.train.mirror
    assert splits.train.classes[9] == "Ankle boot"


def test_fashion_mnist_agrees_with_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import FashionMNIST

    write_fashion(tmp_path / "FashionMNIST" / "raw", zipped=False)
    theirs = FashionMNIST(str(tmp_path), train=False)
    ours = fashion_mnist.load(tmp_path).test
    assert torch.equal(theirs.data, ours.images[:, 0])
    assert torch.equal(theirs.targets, ours.labels)
    assert tuple(theirs.classes) == ours.classes


def test_real_fashion_mnist() -> None:
    if not fashion_mnist._DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    splits = fashion_mnist.load(fashion_mnist._DEBIAN)
    assert splits.train.images.shape == (60_000, 1, 28, 28)
    assert splits.train.class_sizes.tolist() == [6000] * 10
    assert splits.test.class_sizes.tolist() == [1000] * 10
    assert [splits.train.classes[label] for label in splits.train.labels[:3]] == ["Ankle boot", "T-shirt/top", "T-shirt/top"]
    assert splits.train.channel_statistics[0] == pytest.approx(0.286, abs=0.003)  # the mean that everybody normalises by
    assert splits.train.channel_statistics[1] == pytest.approx(0.353, abs=0.003)


IMAGES = "train-images-idx3-ubyte"
DAMAGE = {
    "magic": (IMAGES, lambda good: b"\0\0\x08\x01" + good[4:], "not an idx file"),
    "short": (IMAGES, lambda good: good[:-1], "damaged|truncated"),
    "long": (IMAGES, lambda good: good + b"x", "damaged"),
    "empty": (IMAGES, lambda good: b"", "not an idx file"),
    "header only": (IMAGES, lambda good: good[:9], "not an idx file"),
    "huge": (IMAGES, lambda good: good[:4] + b"\xff" * 12 + good[16:], "truncated"),
    "fewer labels": ("train-labels-idx1-ubyte", lambda good: idx(np.arange(29, dtype=np.uint8) % 10), "30 images but"),
    "wrong labels": ("train-labels-idx1-ubyte", lambda good: idx(np.full(30, 11, dtype=np.uint8)), "labels 0..9"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_fashion_mnist_refuses_damaged_files(tmp_path: Path, kind: str, zipped: bool) -> None:
    arrays = write_fashion(tmp_path, zipped)
    name, damage, words = DAMAGE[kind]
    content = damage(idx(arrays[name]))
    file = tmp_path / (f"{name}.gz" if zipped else name)
    file.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(UserError, match=words) as caught:
        fashion_mnist.load(tmp_path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda good: good[: len(good) // 2], lambda good: b"junk" + good, lambda good: good[:60] + b"\xff" * 40]
)
def test_fashion_mnist_refuses_broken_gzip(tmp_path: Path, damage: Any) -> None:
    write_fashion(tmp_path, zipped=True)
    file = tmp_path / f"{IMAGES}.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match="download it again") as caught:
        fashion_mnist.load(tmp_path)
    assert str(file) in str(caught.value)


# Without a network


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for kind in (CIFAR10, CIFAR100):
        monkeypatch.setattr(kind, "url", NOWHERE + kind.filename)
    monkeypatch.setattr(FashionMNIST, "mirrors", [NOWHERE])


@pytest.mark.parametrize(
    ("name", "load"),
    [("cifar10", cifar.load_cifar10), ("cifar100", cifar.load_cifar100), ("fashion-mnist", fashion_mnist.load)],
)
def test_without_files_and_network_there_is_one_clear_sentence(
    name: str, load: Any, tmp_path: Path, no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    with pytest.raises(UserError) as caught:
        load(root)
    message = str(caught.value)
    assert message.startswith(f"{name} is not in {root} and could not be downloaded")
    assert "--root" in message
    assert "\n" not in message
    assert not root.exists(), "a failed download leaves nothing behind"
    assert capsys.readouterr().out == ""


def test_the_default_root_is_the_folder_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="cifar10 is not in data and"):
        cifar.load_cifar10(None)
    write_fashion(tmp_path / "data", zipped=True)
    assert len(fashion_mnist.load(None).train) == 30


# CIFAR


def write_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, key: str, classes: int) -> dict[str, np.ndarray]:
    """Small files in the layout of CIFAR's pickles, with torchvision's list of MD5 sums replaced by theirs."""
    base = folder / kind.base_folder
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = {}

    def write(name: str, content: Any) -> list[str]:
        (base / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    for attribute in ("train_list", "test_list"):
        entries = []
        for name, _ in getattr(kind, attribute):
            pixels[name] = rng.integers(0, 256, (classes, 3072), dtype=np.uint8)
            entries.append(write(name, {"data": pixels[name], key: list(range(classes))}))
        monkeypatch.setattr(kind, attribute, entries)
    name, md5 = write(kind.meta["filename"], {kind.meta["key"]: [f"class {i}" for i in range(classes)]})
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5})
    return pixels


def test_cifar10_keeps_the_order_of_the_files_and_comes_as_nchw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    from torchvision.datasets import CIFAR10

    pixels = write_cifar(tmp_path, monkeypatch, CIFAR10, "labels", 10)
    splits = cifar.load_cifar10(tmp_path)
    expected = np.concatenate([pixels[f"data_batch_{i}"] for i in range(1, 6)]).reshape(50, 3, 32, 32)
    np.testing.assert_array_equal(splits.train.images.numpy(), expected)
    assert splits.train.images.is_contiguous()
    assert splits.train.labels.tolist() == list(range(10)) * 5
    assert splits.test.name == "cifar10/test"
    assert splits.train.classes[3] == "class 3"


def test_cifar100_uses_the_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    from torchvision.datasets import CIFAR100

    pixels = write_cifar(tmp_path, monkeypatch, CIFAR100, "fine_labels", 100)
    splits = cifar.load_cifar100(tmp_path)
    np.testing.assert_array_equal(splits.test.images.numpy(), pixels["test"].reshape(100, 3, 32, 32))
    assert splits.train.num_classes == 100


def test_a_tampered_cifar_file_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:
    from torchvision.datasets import CIFAR10

    write_cifar(tmp_path, monkeypatch, CIFAR10, "labels", 10)
    mark = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    (tmp_path / CIFAR10.base_folder / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="cifar10 is not in"):
        cifar.load_cifar10(tmp_path)
    assert not mark.exists()
