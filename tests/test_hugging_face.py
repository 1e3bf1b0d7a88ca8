"""``hf:DIR``: what the package ``datasets`` itself saved is read."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import saved_datasets as sets
from dqas_adapters import hugging_face
from dqas_adapters.hugging_face import reading, saved, writing
from dqas_plugin import UserError
from dqas_plugin.data import TrainOnly
from dqas_plugin.plugins import Plugins
from saved_datasets import datasets, load, pictures, pixels, resave, table

registered = pytest.fixture(autouse=True)(sets.registered)
no_network = pytest.fixture(autouse=True)(sets.no_network)
quiet_saving = pytest.fixture(autouse=True)(sets.quiet_saving)
both = pytest.fixture(sets.both)


def test_what_the_package_saved_is_read(both: Path) -> None:
    splits = load(both)
    assert splits.train.classes == ("ant", "bee", "cat")
    assert np.array_equal(splits.train.images.numpy(), pixels(9))
    assert splits.train.labels.tolist() == [0, 1, 2] * 3
    assert np.array_equal(splits.test.images.numpy(), pixels(3, seed=1))
    assert splits.test.labels.tolist() == [2, 1, 0]
    assert (splits.train.name, splits.test.name) == ("both/train", "both/test")
    assert splits.train.mirror
    assert not load(both, mirror=False).train.mirror
    assert splits.train.notes == ()


def test_it_is_decoded_once(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(both)
    monkeypatch.setattr(saved.Saved, "images", None)
    assert load(both).train.fingerprint == first.train.fingerprint
    resave(both / "train", "dataset_info.json", lambda one: one["features"]["label"].update(names=["ant", "bee", "dog"]))
    resave(both / "test", "dataset_info.json", lambda one: one["features"]["label"].update(names=["ant", "bee", "dog"]))
    with pytest.raises(TypeError):
        load(both)


def test_a_single_split_has_no_test_images(tmp_path: Path) -> None:
    table(pixels(8, 1), [0, 1] * 4, ["a", "b"]).save_to_disk(tmp_path / "one")
    splits = load(tmp_path / "one")
    assert isinstance(splits, TrainOnly)
    assert np.array_equal(splits.train.images.numpy(), pixels(8, 1))
    with pytest.raises(UserError, match="--test-from"):
        _ = splits.test
    divided = load(tmp_path / "one", test_share=0.25)
    assert (len(divided.train), len(divided.test)) == (6, 2)
    assert divided.test.class_sizes.tolist() == [1, 1]
    assert "split by seed" in divided.train.notes[-1]


def test_splits_are_chosen_by_name(tmp_path: Path) -> None:
    parts = {
        name: table(pixels(4, seed=seed), [0, 1] * 2, ["a", "b"]) for seed, name in enumerate(("fit", "validation", "extra"))
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "three")
    with pytest.raises(UserError, match="has the splits fit, validation, extra: say with train_split"):
        load(tmp_path / "three")
    splits = load(tmp_path / "three", train_split="fit")
    assert np.array_equal(splits.test.images.numpy(), pixels(4, seed=1))
    assert splits.train.notes == ("the split 'extra' was not used",)
    assert np.array_equal(
        load(tmp_path / "three", train_split="fit", test_split="extra").test.images.numpy(), pixels(4, seed=2)
    )
    for options, words in (
        ({"train_split": "fits"}, "not 'fits': change train_split"),
        ({"train_split": "fit", "test_split": "tests"}, "change test_split"),
        ({"train_split": "fit", "test_split": "fit"}, "both 'fit'"),
    ):
        with pytest.raises(UserError, match=words):
            load(tmp_path / "three", **options)


def test_columns_are_found_by_their_types(tmp_path: Path) -> None:
    features = {
        "photo": datasets.Image(),
        "coarse": datasets.ClassLabel(names=["plant", "animal"]),
        "fine_label": datasets.ClassLabel(names=["oak", "ant"]),
        "number": datasets.Value("int32"),
    }
    rows = {"photo": pictures(pixels(4)), "coarse": [0, 0, 1, 1], "fine_label": [0, 1, 0, 1], "number": [3, 0, 1, 2]}
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).save_to_disk(tmp_path / "set")
    found = load(tmp_path / "set")
    assert found.train.classes == ("oak", "ant")
    assert found.train.notes == ("columns that were not used: coarse, number",)
    assert load(tmp_path / "set", label="coarse").train.labels.tolist() == [0, 0, 1, 1]
    numbered = load(tmp_path / "set", label="number", image="photo").train
    assert (numbered.labels.tolist(), numbered.classes) == ([3, 0, 1, 2], ("0", "1", "2", "3"))
    assert "labels are the numbers of the column 'number'" in numbered.notes
    for options, words in (
        ({"label": "photo"}, "no column 'photo' of whole numbers"),
        ({"image": "coarse"}, "no column 'coarse' of type Image"),
        ({"lable": "coarse"}, "did you mean 'label'"),
    ):
        with pytest.raises(UserError, match=words):
            load(tmp_path / "set", **options)


def test_columns_that_cannot_be_told_are_asked_for(tmp_path: Path) -> None:
    kind = datasets.ClassLabel(names=["a", "b"])
    two = {"x": datasets.Image(), "y": datasets.Image(), "first": kind, "second": kind}
    rows = {"x": pictures(pixels(2)), "y": pictures(pixels(2)), "first": [0, 1], "second": [0, 1]}
    datasets.Dataset.from_dict(rows, features=datasets.Features(two)).save_to_disk(tmp_path / "two")
    with pytest.raises(UserError, match="image columns x, y: say which one with the option image"):
        load(tmp_path / "two")
    with pytest.raises(UserError, match="no label column, but first, second: say which one with the option label"):
        load(tmp_path / "two", image="y")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(UserError, match=r"no column of type Image \(its columns: text\)"):
        load(tmp_path / "text")
    pair = datasets.Dataset.from_dict({"image": pictures(pixels(2))}, features=datasets.Features({"image": datasets.Image()}))
    pair.save_to_disk(tmp_path / "pair")
    with pytest.raises(UserError, match="no column of labels"):
        load(tmp_path / "pair")


def test_images_are_resized_where_that_is_asked(tmp_path: Path) -> None:
    mixed = [*pictures(pixels(1)), Image.new("RGB", (9, 9), (7, 8, 9))]
    kind = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict({"image": mixed, "label": [0, 1]}, features=kind).save_to_disk(tmp_path / "mixed")
    with pytest.raises(UserError, match=r"row 1 is 9x9 pixels but .*row 0 is 5x6"):
        load(tmp_path / "mixed")
    images = load(tmp_path / "mixed", size=4).train.images
    assert tuple(images.shape) == (2, 3, 4, 4)
    assert images[1, :, 0, 0].tolist() == [7, 8, 9]


def test_plugin_brings_a_dataset_and_an_exporter() -> None:
    host = Plugins(strangers=False)
    host.register(hugging_face, "hugging-face")
    info = next(one for one in host.overview() if one.name == "hugging-face")
    assert info.brings == {"datasets": ("hf",), "exporters": ("hf",)}
    assert host.problems == []


def test_plugin_uses_public_names_only() -> None:
    for module in (hugging_face, reading, saved, writing):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dqas"):
                assert not [one.name for one in node.names if one.name.startswith("_")]
