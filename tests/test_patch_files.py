"""What is written loads as ``parquet:DIR``: images, or patches that are rebuilt."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from dqas_plugin.data import ImageDataset
from dqas_plugin.datasets import digits, parquet
from dqas_plugin.errors import UserError
from dqas_plugin.lookup import load_dataset
from dqas_plugin.quantization import mae_weights, patch_files
from dqas_plugin.quantization.harmonic import harmonic
from dqas_plugin.quantization.mae import MaskedAutoencoder, reconstruct, small_mae
from dqas_plugin.quantization.patch_files import KEY, write_images, write_patches
from dqas_plugin.quantization.patches import PatchedImages, kept

NAMES = ("robin", "wren", "Zaunkönig")


def toy(count: int = 12, shape: tuple[int, int, int] = (3, 8, 12), seed: int = 0, mirror: bool = True) -> ImageDataset:
    """Noise on slopes, so that rebuilding matters."""
    rng = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(shape[1]), 2 * np.arange(shape[2])) * 3
    images = (slope + rng.integers(0, 150, (count, *shape))).astype(np.uint8)
    labels = torch.arange(count) % len(NAMES)
    return ImageDataset(torch.from_numpy(images), labels, NAMES, "toy/train", mirror=mirror)


def patched(data: ImageDataset, size: int = 4, rate: float = 0.25) -> PatchedImages:
    _, height, width = data.image_shape
    patches = height * width // size**2
    scores = torch.from_numpy(np.random.default_rng(8).random((len(data), patches)))
    return PatchedImages.of(data.images, kept(scores, rate))


def both(folder: Path, data: ImageDataset) -> None:
    write_images(folder, data, split="test")
    write_patches(folder, data, patched(data), drop_rate=0.25)


@pytest.mark.parametrize("shape", [(3, 8, 12), (1, 8, 8)])
@pytest.mark.parametrize("count", [12, 1100])
def test_images_come_back(tmp_path: Path, shape: tuple[int, int, int], count: int) -> None:
    data = toy(count, shape)
    written = write_images(tmp_path / "new" / "s", data)
    write_images(tmp_path / "new" / "s", toy(6, shape, 1), split="test")
    assert written.path.name == "train-00000-of-00001.parquet"
    assert (written.images, written.bytes) == (count, written.path.stat().st_size)
    found = load_dataset(f"parquet:{tmp_path / 'new' / 's'}")
    assert torch.equal(found.train.images, data.images)
    assert torch.equal(found.train.labels, data.labels)
    assert found.train.classes == NAMES
    assert found.train.fingerprint == data.fingerprint
    assert torch.equal(found.test.images, toy(6, shape, 1).images)
    assert found.train.notes == ()


@pytest.mark.parametrize(("shape", "size", "count"), [((3, 8, 12), 4, 12), ((3, 8, 8), 1, 9), ((1, 8, 8), 2, 1100)])
def test_patches_are_rebuilt(tmp_path: Path, shape: tuple[int, int, int], size: int, count: int) -> None:
    data = toy(count, shape)
    some = patched(data, size)
    written = write_patches(tmp_path, data, some, drop_rate=0.25)
    write_images(tmp_path, data, split="test")
    assert (written.images, written.bytes) == (count, written.path.stat().st_size)
    found = load_dataset(f"parquet:{tmp_path}")
    assert torch.equal(found.train.images, harmonic(data.images, some.mask))
    assert not torch.equal(found.train.images, data.images)
    assert torch.equal(found.train.labels, data.labels)
    assert found.train.classes == NAMES
    assert torch.equal(found.test.images, data.images)
    assert found.train.notes == ()
    again = load_dataset(f"parquet:{tmp_path}")
    assert again.train.fingerprint == found.train.fingerprint


def test_a_file_alone_is_split_and_may_be_resized(tmp_path: Path) -> None:
    data = toy(30)
    write_patches(tmp_path, data, patched(data), drop_rate=0.25)
    assert len(parquet.load(str(tmp_path), test_share=0.2).train) == 24
    assert parquet.load(str(tmp_path), size=16).train.image_shape == (3, 16, 16)


def test_nothing_that_was_dropped_is_in_the_file(tmp_path: Path) -> None:
    data = toy()
    some = patched(data)
    holes, known = some.visible()
    first = write_patches(tmp_path / "a", data, some, drop_rate=0.25).path.read_bytes()
    other = torch.where(known[:, None], holes, 77)
    changed = ImageDataset(other, data.labels, data.classes, data.name)
    second = write_patches(tmp_path / "b", changed, PatchedImages.of(other, some.mask), drop_rate=0.25).path.read_bytes()
    assert first == second


@pytest.mark.parametrize("values", ["noise", "extremes"])
@pytest.mark.parametrize("shape", [(3, 5, 3, 4, 4), (2, 7, 1, 2, 2), (4, 3, 3, 1, 1), (0, 3, 3, 4, 4)])
def test_the_coding_loses_nothing(values: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    patches = rng.integers(0, 256, shape, dtype=np.uint8) if values == "noise" else rng.choice(np.uint8([0, 255]), shape)
    before = patches.copy()
    count, held, channels, size, _ = shape
    coded = patch_files._coded(patches)
    assert coded.size == patches.size
    np.testing.assert_array_equal(patches, before)
    np.testing.assert_array_equal(patch_files._decoded(coded.reshape(count, channels, held, size, size)), patches)


def test_the_coding_as_the_docstring_says() -> None:
    patch = np.uint8([[[[10, 20], [30, 5]], [[1, 2], [3, 4]], [[0, 0], [0, 255]]]])[None]  # [1, 1, 3, 2, 2]
    red, green, blue = patch_files._coded(patch).reshape(3, 2, 2).tolist()
    assert green == [[1, 1], [2, 1]]
    assert red == [[9, 9], [18, 256 - 26]]  # of 9, 18 / 27, 1
    assert blue == [[255, 255], [254, 254]]  # of -1, -2 / -3, 251


def smooth(count: int, side: int) -> ImageDataset:
    """Colours that go together and change slowly, as in photographs, with noise in the lowest bits."""
    rng = np.random.default_rng(6)
    slopes = rng.normal(0, 60 / side, (2, count, 1, 1, 1))
    places = np.arange(side)[:, None] * slopes[0] + np.arange(side)[None] * slopes[1]
    pixels = 128 + rng.normal(0, 30, (count, 3, 1, 1)) + places + rng.normal(0, 3, (count, 1, side, side))
    images = (pixels + rng.normal(0, 1, (count, 3, side, side))).clip(0, 255).astype(np.uint8)
    return ImageDataset(torch.from_numpy(images), torch.arange(count) % 3, NAMES, "smooth/train")


def test_patches_take_fewer_bytes_than_images(tmp_path: Path) -> None:
    data = smooth(500, 32)
    some = patched(data)
    images = write_images(tmp_path / "a", data).bytes
    patches = write_patches(tmp_path / "b", data, some, drop_rate=0.25).bytes
    assert patches < 0.75 * images
    assert patches < 0.75 * some.nbytes


def test_whether_mirroring_is_allowed_is_kept(tmp_path: Path) -> None:
    for mirror in (True, False):
        both(tmp_path / str(mirror), toy(mirror=mirror))
        found = parquet.load(str(tmp_path / str(mirror)))
        assert found.train.mirror is mirror
        assert found.test.mirror is mirror
    assert not parquet.load(str(tmp_path / "True"), mirror=False).train.mirror


def test_digits(tmp_path: Path) -> None:
    data = digits.load(None)
    some = patched(data.train, size=2)
    write_patches(tmp_path, data.train, some, drop_rate=0.25)
    found = load_dataset(f"parquet:{tmp_path}", test_from="digits")
    assert found.train.classes == found.test.classes
    assert not found.train.mirror


# Masked autoencoders


@pytest.fixture
def autoencoder() -> MaskedAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        mae = small_mae((3, 8, 8), 4)
        for one in mae.parameters():
            torch.nn.init.normal_(one, std=0.2)
    return mae.eval()


def test_an_autoencoder_beside_the_file_rebuilds(tmp_path: Path, autoencoder: MaskedAutoencoder) -> None:
    data = toy(shape=(3, 8, 8))
    some = patched(data)
    weights = tmp_path / "s" / "mae.pt"
    weights.parent.mkdir()
    mae_weights.save_mae(autoencoder, weights)
    write_patches(weights.parent, data, some, drop_rate=0.25, mae=weights)
    write_images(weights.parent, data, split="test")
    moved = weights.parent.rename(tmp_path / "moved")  # the folder is complete in itself
    expected = reconstruct(autoencoder, some.visible()[0], some.mask)
    assert not torch.equal(expected, harmonic(data.images, some.mask))
    found = parquet.load(str(moved)).train
    assert torch.equal(found.images, expected)
    assert found.notes == ()

    (moved / "mae.pt").write_bytes((moved / "mae.pt").read_bytes() + b"\0")
    found = parquet.load(str(moved)).train
    assert torch.equal(found.images, harmonic(data.images, some.mask))
    assert found.notes == ("rebuilt by harmonic inpainting: the masked autoencoder mae.pt has changed",)

    (moved / "mae.pt").unlink()
    assert parquet.load(str(moved)).train.notes == (
        "rebuilt by harmonic inpainting: the masked autoencoder mae.pt is not there",
    )


def test_an_autoencoder_elsewhere(tmp_path: Path, autoencoder: MaskedAutoencoder) -> None:
    data = toy(shape=(3, 8, 8))
    weights = tmp_path / "mae.pt"
    mae_weights.save_mae(autoencoder, weights)
    write_patches(tmp_path / "s", data, patched(data), drop_rate=0.25, mae=weights)
    record = patch_files.recorded(tmp_path / "s" / "train-00000-of-00001.parquet")
    assert record["mae"] == str(weights)
    write_images(tmp_path / "s", data, split="test")
    assert torch.equal(
        parquet.load(str(tmp_path / "s")).train.images,
        reconstruct(autoencoder, data.images, patched(data).mask),
    )
    with pytest.raises(UserError, match=r"cannot read .*none"):
        write_patches(tmp_path / "t", data, patched(data), drop_rate=0.25, mae=tmp_path / "none.pt")


# Damage


def rewritten(path: Path, record: dict[str, Any] | None = None, **columns: Any) -> None:
    """The file with entries of its record (None: left out) and columns replaced."""
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.binary()))
    metadata = dict(table.schema.metadata)
    changed = json.loads(metadata[KEY]) | (record or {})
    metadata[KEY] = json.dumps({name: value for name, value in changed.items() if value is not None}).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize(
    "record",
    [
        {"shape": None},
        {"shape": [3, 8]},
        {"shape": [2, 8, 12]},
        {"shape": [3, 10**6, 10**6]},
        {"shape": [3, 0, 0]},
        {"shape": "abc"},
        {"size": 0},
        {"size": 5},
        {"size": -4},
        {"kept": 0},
        {"kept": 7},
        {"kept": "x"},
        {"drop_rate": None},
        {"drop_rate": []},
    ],
)
def test_damaged_records(tmp_path: Path, record: dict[str, Any]) -> None:
    both(tmp_path, toy())
    path = tmp_path / "train-00000-of-00001.parquet"
    rewritten(path, record)
    with pytest.raises(UserError, match="does not say of what images its patches are") as caught:
        parquet.load(str(tmp_path))
    assert str(path) in str(caught.value)


def test_another_version(tmp_path: Path) -> None:
    both(tmp_path, toy())
    rewritten(tmp_path / "train-00000-of-00001.parquet", {"version": 2})
    with pytest.raises(UserError, match="written by another version"):
        parquet.load(str(tmp_path))


@pytest.mark.parametrize("junk", [b"{", b"[]", b"3", b"\xff"])
def test_a_foreign_entry_of_that_name_is_not_ours(tmp_path: Path, junk: bytes) -> None:
    write_images(tmp_path, toy(mirror=False))
    path = tmp_path / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(dict(table.schema.metadata) | {KEY: junk}), path)
    assert parquet.load(str(tmp_path)).train.mirror


def test_damaged_rows(tmp_path: Path) -> None:
    data = toy()
    path = write_patches(tmp_path, data, patched(data), drop_rate=0.25).path
    table = pq.read_table(path)
    masks, patches = (table.column(name).to_pylist() for name in ("mask", "patches"))
    for columns, words in (
        ({"mask": [*masks[:5], b"\xff", *masks[6:]]}, "row 5: its mask does not name 4 patches"),
        ({"mask": [*masks[:5], b"", *masks[6:]]}, "row 5: column 'mask' holds 0 bytes, not 1"),
        ({"patches": [*patches[:7], None, *patches[8:]]}, "row 7: column 'patches' holds nothing, not 192"),
        ({"patches": [*patches[:7], patches[7][1:], *patches[8:]]}, "row 7: column 'patches' holds 191 bytes"),
    ):
        pq.write_table(table, path)
        rewritten(path, **columns)
        with pytest.raises(UserError) as caught:
            parquet.load(str(tmp_path))
        assert words in str(caught.value)
    for changed in (table.drop_columns(["mask"]), table.set_column(0, "patches", table.column("label"))):
        pq.write_table(changed, path)
        with pytest.raises(UserError, match=r"has no column '(mask|patches)' of bytes"):
            parquet.load(str(tmp_path))


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy()
    path = write_images(tmp_path, data).path
    before = path.read_bytes()

    def fail(pixels: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(patch_files, "_png", fail)
    with pytest.raises(UserError, match="No space left"):
        write_images(tmp_path, toy(seed=1))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_mistakes(tmp_path: Path) -> None:
    data = toy()
    with pytest.raises(UserError, match="images of 2 channels cannot be written"):
        write_images(tmp_path, toy(shape=(2, 8, 8)))
    with pytest.raises(UserError, match="cannot be its 12 of"):
        write_patches(tmp_path, data, patched(toy(9)), drop_rate=0.25)
    (tmp_path / "train-00001-of-00002.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds train-00001-of-00002\.parquet already"):
        write_images(tmp_path, data)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_images(tmp_path / "file", data)


def test_anybody_can_read_the_images(tmp_path: Path) -> None:
    data = toy()
    table = pq.read_table(write_images(tmp_path, data).path)
    for row, image in zip(table.to_pylist(), data.images, strict=True):
        with Image.open(BytesIO(row["image"]["bytes"])) as picture:
            assert picture.format == "PNG"
            found: Tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert torch.equal(found, image)
