"""Distilled images in class folders, laid out as SRe2L and RDED write them: order, names, families, and what is refused."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dqas_adapters import family, image_folders
from dqas_cli.main import cli
from dqas_plugin import UserError, load_dataset
from dqas_plugin.data import TrainOnly
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.plugins import Plugins, plugins

CLASSES = 10


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The plugins, registered here where the package is not installed."""
    missing = [one for one, name, there in _NEEDED if name not in there()]
    for one in missing:
        plugins().register(one)
    yield
    for one in missing:
        plugins().unregister(one)


_NEEDED = [
    (image_folders, "images", lambda: plugins().datasets),
    (family, "distilled-family", lambda: plugins().selectors),
]


def shade(label: int, place: int) -> int:
    return 20 * label + 3 * place


def written(folder: Path, pattern: str, classes: int = CLASSES, count: int = 2, side: int = 8) -> Path:
    """Images of one shade, which JPEG keeps, as ``pattern.format(label, place)``."""
    for label in range(classes):
        for place in range(count):
            path = folder / pattern.format(label, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (side, side), (shade(label, place),) * 3).save(path)
    return folder


RDED = "{0:05d}/class{0:05d}_id{1:05d}.jpg"
SRE2L = "new{0:03d}/class{0:03d}_id{1:03d}.jpg"


def shades(images: torch.Tensor) -> list[int]:
    return [int(one) for one in images.float().mean(dim=(1, 2, 3)).round()]


def refused(words: str, name: str, **options: Any) -> str:
    with pytest.raises(UserError, match=words) as caught:
        load_dataset(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read


@pytest.mark.parametrize(("pattern", "name"), [(RDED, "00007"), (SRE2L, "new007")])
def test_images_come_in_the_order_of_classes_and_names(tmp_path: Path, pattern: str, name: str) -> None:
    splits = load_dataset(f"images:{written(tmp_path / 'syn', pattern)}")
    data = splits.train
    assert isinstance(splits, TrainOnly)
    assert data.name == "syn/train"
    assert data.classes[7] == name
    assert data.labels.tolist() == np.repeat(range(CLASSES), 2).tolist()
    assert shades(data.images) == [shade(label, place) for label in range(CLASSES) for place in range(2)]
    assert data.targets is None
    assert data.notes[0] == "2 images of each of 10 classes"
    assert "soft labels that a teacher gave to crops are not read" in data.notes[1]
    with pytest.raises(UserError, match=r"syn/train has no test split.*--test-from"):
        _ = splits.test


def test_numbers_of_unequal_length_are_numbers(tmp_path: Path) -> None:
    """As SRe2L's three digits become four from class 1000 on, so that names as text are in another order."""
    data = load_dataset(f"images:{written(tmp_path, 'new{0}/{1}.jpg', classes=12)}").train
    assert data.classes == tuple(f"new{one}" for one in range(12))
    assert shades(data.images)[::2] == [shade(label, 0) for label in range(12)]
    assert (data.labels.diff() >= 0).all()


def test_other_names_are_sorted(tmp_path: Path) -> None:
    names = ["n02102040", "n01440764", "n02979186", "ant"]
    for label, name in enumerate(names):
        written(tmp_path, f"{name}/{{1}}_{label}.jpg", classes=1)
    assert load_dataset(f"images:{tmp_path}").train.classes == tuple(sorted(names))


def test_size_and_mirror(tmp_path: Path) -> None:
    data = load_dataset(f"images:{written(tmp_path, RDED, side=6)}", size=4, mirror=False).train
    assert data.image_shape == (3, 4, 4)
    assert not data.mirror
    assert any("resized to 4x4" in one for one in data.notes)


def test_a_second_load_is_the_same_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"images:{written(tmp_path, RDED)}"
    first = load_dataset(name).train
    monkeypatch.setattr("dqas_plugin.datasets.folder.file_batches", None)
    again = load_dataset(name).train
    assert again.fingerprint == first.fingerprint
    assert torch.equal(again.images, first.images)
    assert again.notes == first.notes


def test_other_files_are_counted(tmp_path: Path) -> None:
    (written(tmp_path, RDED) / "00003" / "log.txt").write_text("x")
    assert load_dataset(f"images:{tmp_path}").train.notes[-1] == "1 files without an image ending were left out"


# Class names of the dataset that was distilled


def test_numbered_folders_take_the_names_of_the_original(tmp_path: Path) -> None:
    written(tmp_path, RDED, side=8)
    data = load_dataset(f"images:{tmp_path}", classes_from="digits").train
    assert data.classes == tuple("0123456789")
    assert shades(data.images)[::2] == [shade(label, 0) for label in range(CLASSES)]
    assert not data.mirror  # digits may not be mirrored
    assert "the folders '00000' to '00009' are taken for the classes of digits in its order, '0' to '9'" in data.notes


def test_folders_with_its_names_come_in_its_order(tmp_path: Path) -> None:
    original = tmp_path / "original"
    for label, name in enumerate(["b", "a", "c"]):  # sorted: a, b, c
        written(original / "train", f"{name}/{{1}}_{label}.png", classes=1)
        written(original / "test", f"{name}/{{1}}_{label}.png", classes=1)
    for label, name in enumerate(["c", "a", "b"]):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (50 * label,) * 3).save(tmp_path / "set" / name / "0.png")
    data = load_dataset(f"images:{tmp_path / 'set'}", classes_from=f"folder:{original}").train
    assert data.classes == ("a", "b", "c")
    assert shades(data.images) == [50, 100, 0]
    assert not any("are taken for" in one for one in data.notes)


def test_sizes_of_the_original_and_of_the_test_split_follow(tmp_path: Path) -> None:
    for side, part in ((8, "train"), (6, "test")):
        written(tmp_path / "original" / part, "c{0}/{1}.png", side=side)
    written(tmp_path / "set", RDED)
    name = f"folder:{tmp_path / 'original'}"
    splits = load_dataset(f"images:{tmp_path / 'set'}", test_from=name, classes_from=name, size=4)
    assert splits.test.image_shape == splits.train.image_shape == (3, 4, 4)


def test_other_names_than_those_of_the_test_split_name_the_option(tmp_path: Path) -> None:
    words = refused("classes_from=digits", f"images:{written(tmp_path / 'syn', RDED)}", test_from="digits")
    assert "syn/train names its classes '00000' … '00009' and digits/test '0' … '9'" in words


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    name = f"images:{written(tmp_path, RDED, classes=9)}"
    assert "has 9 class folders and digits has 10 classes" in refused("classes_from must name", name, classes_from="digits")
    assert "classes_from" not in refused("have different classes", name, test_from="digits")


def test_names_that_are_neither_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "{0:05d}/{1}.jpg", classes=9)
    (tmp_path / "00010").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "00010" / "0.jpg")
    refused(r"no folder for the class '0' of digits.*'00000'.*not numbered 0\.\.9", f"images:{tmp_path}", classes_from="digits")


# Families


def test_sets_lie_one_after_another_the_smallest_first(tmp_path: Path) -> None:
    large, small = (written(tmp_path / name, RDED, count=count) for name, count in (("ipc3", 3), ("ipc1", 1)))
    data = load_dataset(f"images:{large}+{small}").train
    assert data.name == "ipc1+ipc3/train"
    assert data.labels.tolist() == [*range(CLASSES), *np.repeat(range(CLASSES), 3).tolist()]
    assert shades(data.images)[:10] == [shade(label, 0) for label in range(CLASSES)]
    assert shades(data.images)[10:14] == [shade(0, 0), shade(0, 1), shade(0, 2), shade(1, 0)]
    assert data.notes[0] == "2 sets of 1, 3 images a class, each of which begins where the label decreases"


def test_sets_that_are_no_family_are_refused(tmp_path: Path) -> None:
    first = written(tmp_path / "a", RDED)
    refused(r"both hold 20 images: name one set of each size", f"images:{first}+{written(tmp_path / 'b', RDED)}")
    refused(r"lacks the class folder '00009' of the other set", f"images:{first}+{written(tmp_path / 'c', RDED, 9, 3)}")
    refused(r"16x16.*size=", f"images:{first}+{written(tmp_path / 'd', RDED, count=3, side=16)}")
    refused(r"nowhere'? does not exist", f"images:{first}+{tmp_path / 'nowhere'}")


@contextmanager
def in_this_process(jobs: int) -> Iterator[Any]:
    class Pool:
        def run(self, function: Any, tasks: Any) -> Any:
            return ((one, function(one)) for one in tasks)

    yield Pool()


@pytest.fixture
def here() -> Iterator[None]:
    """An executor that needs no other process, which would not know what is registered here."""

    class Here:
        @hookimpl
        def dqas_register_executors(self, register: Any) -> None:
            register("here", in_this_process)

    plugin = Here()
    plugins().register(plugin, "here")
    yield
    plugins().unregister(plugin)


@pytest.mark.usefixtures("here")
def test_bench_cuts_a_family_and_tests_on_the_original(tmp_path: Path) -> None:
    digits = load_dataset("digits").train
    for count in (2, 6):
        for label in range(CLASSES):
            folder = tmp_path / f"ipc{count}" / f"{label:05d}"
            folder.mkdir(parents=True)
            for place, index in enumerate((digits.labels == label).nonzero().flatten()[:count].tolist()):
                Image.fromarray(digits.images[index, 0].numpy()).save(folder / f"{place}.png")
    name = f"images:{tmp_path / 'ipc2'}+{tmp_path / 'ipc6'}"
    call = ["bench", "--dataset", name, "--test-from", "digits", "--method", "distilled-family", "--aipc", "2", "--adaptive"]
    call += ["--model", "convnet3-small", "--iterations", "4", "--seeds", "1", "--device", "cpu", "--executor", "here"]
    call += [f"--allocator-option={one}" for one in ("effort=train", "finalists=1", "confirm=2")]
    call += ["--results", str(tmp_path / "results")]
    wrong = CliRunner().invoke(cli, call)
    assert wrong.exit_code == 2
    assert "classes_from=digits" in wrong.output
    right = CliRunner().invoke(cli, [*call, "--dataset-option", "classes_from=digits"])
    assert right.exit_code == 0, right.output
    assert "2 sets of 2, 6 images a class" in right.output
    assert "  + adaptive" in right.output
    assert "images a class" in right.output


# Bad input


def test_a_dataset_with_splits_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "train", RDED)
    written(tmp_path / "val", RDED)
    refused(r"has a folder 'train', a split.*folder:PATH", f"images:{tmp_path}")


def test_a_folder_above_or_below_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "exp" / "syn_data", RDED)
    refused(r"has one folder only, 'syn_data'", f"images:{tmp_path / 'exp'}")
    refused(r"has no class folders", f"images:{tmp_path / 'exp' / 'syn_data' / '00000'}")
    written(tmp_path / "exp" / "other", RDED)
    refused(r"lies deeper than in a class folder", f"images:{tmp_path / 'exp'}")


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    (written(tmp_path, RDED) / "00010").mkdir()
    refused(r"00010 has no images \(it is empty\)", f"images:{tmp_path}")


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images.pt").write_bytes(b"x")
    refused(r"images.pt is not a folder", f"images:{tmp_path / 'images.pt'}")


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_a_pickle_that_calls_itself_an_image_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = written(tmp_path / "set", RDED) / "00004" / "class00004_id00001.jpg"
    bad.write_bytes(pickle.dumps(Hostile()))
    assert str(bad) in refused("cannot be decoded", f"images:{tmp_path / 'set'}")
    assert not Path("executed").exists()


def test_an_image_that_claims_a_million_million_pixels_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
    bad = written(tmp_path, RDED) / "00000" / "class00000_id00000.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    assert str(bad) in refused("1000000x1000000|exceeds limit", f"images:{tmp_path}")


def test_the_plugin_brings_one_dataset() -> None:
    loaded = Plugins(strangers=False)
    loaded.register(image_folders, "images")
    info = next(one for one in loaded.overview() if one.name == "images")
    assert info.brings == {"datasets": ("images",)}
    assert loaded.problems == []
