"""parquet:PATH in the column layout of the Hugging Face hub, good and bad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dqas_plugin.datasets import parquet
from dqas_plugin.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQAS_CACHE", str(tmp_path / "cache"))


def random_pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(seed: int, *shape: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(random_pixels(seed, *(shape or (5, 6, 3)))).save(buffer, "PNG")
    return buffer.getvalue()


def write(
    path: Path,
    labels: Any,
    images: Sequence[bytes | None] | None = None,
    *,
    image: str = "image",
    label: str = "label",
    names: list[str] | None = None,
    first_seed: int = 0,
) -> Path:
    """A parquet file with one random PNG per label, seeds counted from ``first_seed``, two rows a row group."""
    contents = images if images is not None else [png(first_seed + row) for row in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([None if one is None else {"bytes": one, "path": "x.png"} for one in contents], kind)
    table = pa.table({image: column, label: labels})
    if names:
        info = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)
    return path


def refused(path: Path) -> str:
    """The message of the error that loading must raise: one line, and nothing may be left in the cache."""
    with pytest.raises(UserError) as caught:
        parquet.load(str(path))
    assert "\n" not in str(caught.value)
    assert not [one for one in (Path(os.environ["DQAS_CACHE"]) / "images").glob("*") if one.is_dir()]
    return str(caught.value)


def message_of(path: Path) -> list[str]:
    try:
        parquet.load(str(path))
    except UserError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "labels"), ("photo", "fine_label")])
def test_reads_what_was_written(tmp_path: Path, image: str, label: str) -> None:
    root = tmp_path / "birds"
    write(root / "train-00000-of-00002.parquet", [1, 0, 1], image=image, label=label)
    write(root / "train-00001-of-00002.parquet", [0, 0], image=image, label=label, first_seed=3)
    write(root / "test-00000-of-00001.parquet", [0, 1], image=image, label=label, first_seed=5)
    splits = parquet.load(str(root))
    assert splits.train.name == "birds/train"
    assert splits.train.labels.tolist() == [1, 0, 1, 0, 0]
    assert splits.test.labels.tolist() == [0, 1]
    assert splits.train.classes == ("0", "1")
    for row in range(5):
        np.testing.assert_array_equal(splits.train.images[row].numpy(), random_pixels(row, 5, 6, 3).transpose(2, 0, 1))
    np.testing.assert_array_equal(splits.test.images[1].numpy(), random_pixels(6, 5, 6, 3).transpose(2, 0, 1))


def test_class_names_come_from_the_metadata(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [1, 0], names=["robin", "wren"])
    assert parquet.load(str(tmp_path)).test.classes == ("robin", "wren")


@pytest.mark.parametrize("junk", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": {"names": [1]}}}}', b"\xff"])
def test_junk_metadata_gives_numbers_for_names(tmp_path: Path, junk: bytes) -> None:
    for split in ("train", "test"):
        path = write(tmp_path / f"{split}.parquet", [1, 0])
        pq.write_table(pq.read_table(path).replace_schema_metadata({b"huggingface": junk}), path)
    assert parquet.load(str(tmp_path)).train.classes == ("0", "1")


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
@pytest.mark.parametrize("layout", ["{}-00000-of-00001.parquet", "{}.parquet", "default/{}/0000.parquet", "data/{}_x.parquet"])
def test_splits_are_told_by_name(tmp_path: Path, name: str, layout: str) -> None:
    write(tmp_path / layout.format("train"), [0, 1])
    write(tmp_path / layout.format(name), [1, 0, 1], first_seed=2)
    splits = parquet.load(str(tmp_path))
    assert splits.test.labels.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(splits.test.images[0].numpy(), random_pixels(2, 5, 6, 3).transpose(2, 0, 1))


def test_test_is_preferred_and_what_is_unused_is_said(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "validation.parquet", [1, 0])
    write(tmp_path / "test.parquet", [0, 0, 1], first_seed=2)
    splits = parquet.load(str(tmp_path))
    assert len(splits.test) == 3
    assert splits.train.notes == ("1 files were not used (validation.parquet …)",)


@pytest.mark.parametrize("layout", ["birds.parquet", "birds/train-0.parquet", "birds/part.parquet"])
def test_without_a_test_split_it_is_split_by_seed(tmp_path: Path, layout: str) -> None:
    write(tmp_path / layout, [0, 1] * 10)
    given = tmp_path / Path(layout).parts[0]
    splits = parquet.load(str(given), test_share=0.3)
    assert splits.test.class_sizes.tolist() == [3, 3]
    assert splits.train.name == "birds/train"
    assert len(torch.cat([splits.train.images, splits.test.images]).unique(dim=0)) == 20
    assert splits.train.fingerprint == parquet.load(str(given), test_share=0.3).train.fingerprint
    assert splits.train.fingerprint != parquet.load(str(given), test_share=0.3, seed=5).train.fingerprint


def test_the_same_bytes_elsewhere_are_not_decoded_again(tmp_path: Path) -> None:
    for place in ("one", "two"):
        for split in ("train", "test"):
            write(tmp_path / place / f"{split}.parquet", [0, 1])
    parquet.load(str(tmp_path / "one"))
    splits = parquet.load(str(tmp_path / "two"))
    assert splits.train.name == "two/train"
    assert len([one for one in (tmp_path / "cache/images").iterdir() if one.is_dir()]) == 1


def test_size_resizes(tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", [0, 0], [png(0), png(1, 9, 9, 3)])
    splits = parquet.load(str(path), size=8, test_share=0.5)
    assert splits.train.image_shape == (3, 8, 8)
    assert splits.train.notes[-1] == "1 images were resized to 8x8 (bilinear)"


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.uint64()])
def test_every_integer_is_a_label(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(tmp_path / "d.parquet", pa.array([0, 1, 0, 1], kind))
    assert parquet.load(str(path)).train.class_sizes.sum() == 2


# Bad input


def test_not_there_or_nothing_in_it(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "holds no .parquet files" in refused(tmp_path)


def test_junk_and_truncated_files(tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", [0, 1, 0, 1])
    good = path.read_bytes()
    for content in (b"", b"junk", b"PAR1" + b"\0" * 50 + b"PAR1", good[:-1], good[: len(good) // 2]):
        path.write_bytes(content)
        message = refused(path)
        assert str(path) in message
        assert "not a readable parquet file" in message


def test_damaged_pages(tmp_path: Path) -> None:
    """Bytes overwritten in the middle: whatever pyarrow or Pillow makes of it, the file is named."""
    path = write(tmp_path / "d.parquet", [0, 1, 0, 1])
    good = path.read_bytes()
    messages: list[str] = []
    for start in range(4, len(good) - 400, 150):
        path.write_bytes(good[:start] + b"\xa5" * 60 + good[start + 60 :])
        messages += message_of(path)  # none where the bytes do not matter (the unread paths)
    assert len(messages) > 3
    assert all(str(path) in one or one.startswith("d: ") for one in messages)


def test_missing_columns(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), path)
    assert f"{path} has no image column" in refused(path)
    pq.write_table(pa.table({"image": [b"raw bytes"], "label": [0]}), path)
    assert "struct of bytes and path" in refused(path)
    write(path, [0, 1], label="target")
    assert f"{path} has no label column" in refused(path)
    both = pa.table({"one": [{"bytes": b"x"}], "two": [{"bytes": b"x"}], "label": [0]})
    pq.write_table(both, path)
    assert "named image or img" in refused(path)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a", "b"], "column 'label' is string, but labels must be integers"),
        ([0.0, 1.0], "column 'label' is double"),
        ([[0], [1]], "labels must be integers"),
        ([0, None, 1], "row 1 has no label"),
        ([0, 1, -1], "row 2 has the label -1"),
        (pa.array([0, 2**63], pa.uint64()), "row 1 has the label 9223372036854775808"),
        ([0, 2], "the highest label is 2 but there are only 2 images"),
        ([0, 0, 2, 2], "class '1' has no images"),
        ([0, 10**12], "the highest label is 1000000000000"),
        (pa.array([], pa.int64()), "has no rows"),
    ],
)
def test_bad_labels(tmp_path: Path, labels: Any, words: str) -> None:
    message = refused(write(tmp_path / "d.parquet", labels))
    assert words in message
    assert "d.parquet" in message or message.startswith("d: ")


def test_labels_that_do_not_fit_the_names(tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", [0, 1, 2, 0, 1, 2], names=["a", "b"])
    assert "label 2 has no name" in refused(path)
    write(path, [0, 1, 0, 1], names=["a", "b", "c"])
    assert "class 'c' has no images" in refused(path)


def test_splits_that_name_different_classes(tmp_path: Path) -> None:
    first = write(tmp_path / "train.parquet", [0, 1], names=["a", "b"])
    second = write(tmp_path / "test.parquet", [0, 1], names=["b", "a"])
    message = refused(tmp_path)
    assert str(first) in message
    assert str(second) in message


def test_a_bad_image_is_named_by_file_and_row(tmp_path: Path) -> None:
    good = [png(row) for row in range(5)]
    for bad, words in (
        (b"junk", "cannot be decoded (not an image of a known format)"),
        (b"", "cannot be decoded"),
        (good[3][:-40], "cannot be decoded"),
        (png(3, 9, 6, 3), "is 6x9 pixels but"),
        (None, "has no image bytes"),
    ):
        path = write(tmp_path / "d.parquet", [0] * 5, [*good[:3], bad, good[4]])
        assert f"{path} row 3 {words}" in refused(path)


def test_a_class_missing_from_the_test_split(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "test.parquet", [0, 0])
    assert f"{tmp_path.name}/test: class '1' has no images" in refused(tmp_path)


def test_files_without_train(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", [0, 1])
    assert "no file whose name begins with 'train'" in refused(tmp_path)


# Real data


def test_shared_cifar10_jpeg(shared: Path) -> None:
    source = shared / "data" / "cifar10-jpeg"
    splits = parquet.load(str(source))
    assert splits.train.name == "cifar10-jpeg/train"
    assert splits.train.images.shape == (50_000, 3, 32, 32)
    assert splits.train.class_sizes.tolist() == [5000] * 10
    assert splits.test.class_sizes.tolist() == [1000] * 10
    rows = pq.read_table(source / "test-00000-of-00001.parquet").slice(9_990).to_pylist()
    for offset, row in enumerate(rows):
        with Image.open(BytesIO(row["img"]["bytes"])) as image:
            expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(splits.test.images[9_990 + offset].numpy(), expected)
        assert int(splits.test.labels[9_990 + offset]) == row["label"]


REOPEN = """
import resource, sys, time
from dqas_plugin.datasets import parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
splits = parquet.load(sys.argv[1])
seconds = time.perf_counter() - started
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(seconds, grown, len(splits.train.labels.unique()), len(splits.test.labels.unique()))
"""


@pytest.mark.slow
def test_shared_tiny_imagenet(shared: Path, own_cache: Path) -> None:
    source = shared / "data" / "tiny-imagenet"
    splits = parquet.load(str(source))
    assert splits.train.images.shape == (100_000, 3, 64, 64)
    assert splits.train.class_sizes.tolist() == [500] * 200
    assert splits.test.class_sizes.tolist() == [50] * 200
    assert splits.train.notes == ("1,821 grey images became RGB",)
    command = [sys.executable, "-c", REOPEN, str(source)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    seconds, grown, *labels = map(float, done.stdout.split())
    assert labels == [200, 200]
    assert seconds < 2
    assert grown < 200, "1.2 GB of pixels are mapped, not read"


def test_shared_tiny_imagenet_has_200_labels_in_both_splits(shared: Path) -> None:
    """Without decoding an image."""
    for file, each in (("train-00000-of-00001.parquet", 500), ("valid-00000-of-00001.parquet", 50)):
        table = parquet._Table.open(shared / "data" / "tiny-imagenet" / file)
        assert np.bincount(table.labels).tolist() == [each] * 200
