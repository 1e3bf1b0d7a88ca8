"""``hf:DIR``: saved datasets with wrong data in them, damaged, or made to do harm."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import saved_datasets as sets
from dqas_plugin import UserError
from saved_datasets import datasets, load, pictures, pixels, resave, table

registered = pytest.fixture(autouse=True)(sets.registered)
no_network = pytest.fixture(autouse=True)(sets.no_network)
quiet_saving = pytest.fixture(autouse=True)(sets.quiet_saving)
both = pytest.fixture(sets.both)


def by_hand(folder: Path, content: pa.Table) -> Path:
    """A saved dataset with this one Arrow file; the file."""
    folder.mkdir()
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, content.schema) as stream:
        stream.write_table(content)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    features = {"image": {"_type": "Image"}, "label": {"_type": "Value", "dtype": "int64"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder / "data.arrow"


def raw(count: int) -> pa.Table:
    """Rows whose images are no images: for what is refused before they are decoded."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table(
        {"image": pa.array([{"bytes": b"abc", "path": None}] * count, kind), "label": pa.array([0] * count, pa.int64())}
    )


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        ([0, 1, -1], ["a", "b"], r"row 2 has the label -1 in the column 'label'"),
        ([0, None, 1], ["a", "b"], r"row 1 has the label None"),
        ([0, 1, 10**12], None, r"row 2 has the label 1000000000000, with 3 images in all"),
        ([0, 2, 2], None, "class '1' has no images"),
    ],
)
def test_wrong_labels_are_named(tmp_path: Path, labels: list[Any], names: list[str] | None, words: str) -> None:
    table(pixels(3), labels, names).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match=words):
        load(tmp_path / "set")


def test_labels_beyond_the_names_are_named(both: Path) -> None:
    for split in ("train", "test"):
        resave(both / split, "dataset_info.json", lambda one: one["features"]["label"].update(names=["ant", "bee"]))
    with pytest.raises(UserError, match=r"train row 2 has the label 2, but 'label' has 2 classes"):
        load(both)


def test_splits_of_other_classes_are_refused(both: Path) -> None:
    resave(both / "test", "dataset_info.json", lambda one: one["features"]["label"].update(names=["bee", "ant", "cat"]))
    with pytest.raises(UserError, match=r"different classes: give both splits the same names in the same order"):
        load(both)
    resave(both / "test", "dataset_info.json", lambda one: one["features"]["label"].update(names=[1, 2, 3]))
    with pytest.raises(UserError, match=r"test/dataset_info.json: the names of the column 'label' must be a list of words"):
        load(both)


def test_images_that_are_not_there_or_damaged_are_named(tmp_path: Path) -> None:
    kind = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")})
    good = io.BytesIO()
    pictures(pixels(1))[0].save(good, "PNG")
    outside = tmp_path / "outside.png"
    outside.write_bytes(good.getvalue())
    for place, (bad, words) in enumerate(
        [
            (None, r"row 1 has no image bytes in the column 'image'"),
            ({"bytes": b"no picture", "path": None}, r"row 1 cannot be decoded"),
        ]
    ):
        rows = {"image": [{"bytes": good.getvalue(), "path": None}, bad], "label": [0, 1]}
        datasets.Dataset.from_dict(rows, features=kind).save_to_disk(tmp_path / f"set{place}")
        with pytest.raises(UserError, match=words):
            load(tmp_path / f"set{place}")
    # A path alone is not followed: it could name any file of the reader's.
    array = pa.array([{"bytes": None, "path": str(outside)}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    by_hand(tmp_path / "path", pa.table({"image": array, "label": pa.array([0])}))
    with pytest.raises(UserError, match=r"row 0 has no image bytes"):
        load(tmp_path / "path")


def test_a_header_that_claims_a_million_million_rows_is_refused(tmp_path: Path) -> None:
    file = by_hand(tmp_path / "set", raw(7))
    content = file.read_bytes()
    true, lie = struct.pack("<q", 7), struct.pack("<q", 10**12)
    assert content.count(true) >= 5  # the batch and its arrays
    file.write_bytes(content.replace(true, lie))
    with pytest.raises(UserError, match=r"data.arrow is not a whole Arrow file .*too small"):
        load(tmp_path / "set")


def test_a_million_million_class_names_are_not_made(tmp_path: Path) -> None:
    """The package makes a name for each; it is not asked."""
    table(pixels(2), [0, 1], ["a", "b"]).save_to_disk(tmp_path / "set")
    lie = {"_type": "ClassLabel", "num_classes": 10**12}
    resave(tmp_path / "set", "dataset_info.json", lambda one: one["features"].update(label=lie))
    assert load(tmp_path / "set").train.classes == ("0", "1")


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_hostile_pickles_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    payload = pickle.dumps(Hostile(mark))
    by_hand(tmp_path / "file", raw(2)).write_bytes(payload)
    with pytest.raises(UserError, match="is not a whole Arrow file"):
        load(tmp_path / "file")
    for name in ("state.json", "dataset_info.json"):
        by_hand(tmp_path / name, raw(2))
        (tmp_path / name / name).write_bytes(payload)
        with pytest.raises(UserError, match=rf"{name} cannot be read \(not whole JSON\)"):
            load(tmp_path / name)
    content = raw(2)  # a type of pyarrow's own that unpickled its metadata up to version 14
    told = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload}
    kinds = [content.schema.field(0), content.schema.field(1).with_metadata(told)]
    by_hand(tmp_path / "type", pa.table(content.columns, schema=pa.schema(kinds)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old versions of pyarrow say that they do not run it
        with pytest.raises(UserError):
            load(tmp_path / "type")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../outside.arrow", "{tmp}/outside.arrow", "link.arrow"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    by_hand(tmp_path / "other", raw(2)).rename(tmp_path / "outside.arrow")
    by_hand(tmp_path / "set", raw(2))
    (tmp_path / "set" / "link.arrow").symlink_to(tmp_path / "outside.arrow")
    resave(tmp_path / "set", "state.json", lambda one: one["_data_files"][0].update(filename=name.format(tmp=tmp_path)))
    with pytest.raises(UserError, match="leads out of that folder"):
        load(tmp_path / "set")


def test_no_split_leads_out_of_the_folder(both: Path, tmp_path: Path) -> None:
    table(pixels(2), [0, 1], ["a", "b"]).save_to_disk(tmp_path / "other")
    resave(both, "dataset_dict.json", lambda one: one.update(splits=["../other"]))
    with pytest.raises(UserError, match="leads out of that folder"):
        load(both)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("train/state.json", "{}", "'_data_files' must be a list of file names"),
        ("train/state.json", '{"_data_files": [3]}', "'_data_files' must be a list of file names"),
        ("train/state.json", '{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow cannot be read as an Arrow file"),
        ("train/state.json", "[]", "is not a JSON object"),
        ("train/dataset_info.json", "[" * 100_000, r"dataset_info.json cannot be read"),
        ("dataset_dict.json", '{"splits": "train"}', "'splits' must be a list of names"),
        ("dataset_dict.json", '{"splits": ["train", "gone"]}', None),
        ("dataset_dict.json", '{"splits": ["train", "test", "gone"]}', None),
    ],
)
def test_damaged_folders_are_named(both: Path, file: str, content: str, words: str | None) -> None:
    (both / file).write_text(content)
    if words is None:  # a split that is not read need not be there
        assert load(both).train.classes == ("ant", "bee", "cat")
        return
    with pytest.raises(UserError, match=words):
        load(both)


def test_a_file_that_was_cut_off_is_named(both: Path) -> None:
    file = both / "train" / "data-00001-of-00003.arrow"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"data-00001-of-00003.arrow is not a whole Arrow file"):
        load(both)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"neither dataset_dict.json nor state.json"):
        load(tmp_path)
    table(pixels(2), [0, 1], ["a", "b"]).save_to_disk(tmp_path / "one")
    with pytest.raises(UserError, match="is a single split, so there is no 'test'"):
        load(tmp_path / "one", test_split="test")
