"""Image files in folders: folder:PATH and Tiny ImageNet, good and bad."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dqas_plugin.data import DatasetSplits
from dqas_plugin.datasets import decode, folder, tiny_imagenet
from dqas_plugin.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQAS_CACHE", str(tmp_path / "cache"))


def random_pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and test/ with the classes ant and bee: 3 + 2 training images, one test image of each, 6x5 pixels."""
    root = tmp_path / "photos"
    train = ["train/ant/a.png", "train/ant/b.png", "train/ant/sub/c.png", "train/bee/d.png", "train/bee/e.PNG"]
    for seed, name in enumerate([*train, "test/ant/f.png", "test/bee/g.png"]):
        save(root / name, random_pixels(seed, 5, 6, 3))
    return root


def refused(root: Path, load: Callable[[str], DatasetSplits] = folder.load) -> str:
    """The message of the error that loading must raise: one line, and nothing may be left in the cache."""
    with pytest.raises(UserError) as caught:
        load(str(root))
    message = str(caught.value)
    assert "\n" not in message
    cached = [one for one in (Path(os.environ["DQAS_CACHE"]) / "images").glob("*") if one.is_dir()]
    assert not cached
    return message


def test_reads_what_was_written(photos: Path) -> None:
    splits = folder.load(str(photos))
    assert splits.train.name == "photos/train"
    assert splits.train.classes == ("ant", "bee")
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert splits.test.labels.tolist() == [0, 1]
    for row in range(5):
        np.testing.assert_array_equal(splits.train.images[row].numpy(), random_pixels(row, 5, 6, 3).transpose(2, 0, 1))
    np.testing.assert_array_equal(splits.test.images[1].numpy(), random_pixels(6, 5, 6, 3).transpose(2, 0, 1))
    assert splits.train.notes == ()
    assert splits.train.mirror
    assert not folder.load(str(photos), mirror=False).train.mirror


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_other_names_of_the_test_split(photos: Path, name: str) -> None:
    (photos / "test").rename(photos / name)
    assert folder.load(str(photos)).test.labels.tolist() == [0, 1]


def test_an_unlabelled_test_folder_gives_way_to_val(photos: Path) -> None:
    (photos / "test").rename(photos / "val")
    save(photos / "test" / "unknown.png", random_pixels(9, 5, 6, 3))
    assert len(folder.load(str(photos)).test) == 2


def test_class_folders_alone_are_split_by_seed(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    for seed in range(20):
        save(root / ("ab"[seed % 2]) / f"{seed:02d}.png", random_pixels(seed, 4, 4, 3))
    splits = folder.load(str(root), test_share=0.3)
    assert splits.train.class_sizes.tolist() == [7, 7]
    assert splits.test.class_sizes.tolist() == [3, 3]
    everything = torch.cat([splits.train.images, splits.test.images])
    assert len(everything.unique(dim=0)) == 20, "every image is in exactly one split"
    assert splits.train.fingerprint == folder.load(str(root), test_share=0.3).train.fingerprint
    assert splits.train.fingerprint != folder.load(str(root), test_share=0.3, seed=1).train.fingerprint
    assert "split by seed" in splits.train.notes[0]


def test_a_train_folder_alone_is_split_by_seed(photos: Path) -> None:
    shutil.rmtree(photos / "test")
    splits = folder.load(str(photos))
    assert (splits.train.classes, len(splits.train), len(splits.test)) == (("ant", "bee"), 3, 2)


def test_a_changed_file_is_noticed(photos: Path) -> None:
    before = folder.load(str(photos)).train.fingerprint
    save(photos / "train/ant/a.png", random_pixels(50, 5, 6, 3))
    os.utime(photos / "train/ant/a.png", ns=(1, 1))
    assert folder.load(str(photos)).train.fingerprint != before


# Conversions are made and said


def test_grey_among_colour_becomes_rgb(photos: Path) -> None:
    grey = random_pixels(40, 5, 6)
    save(photos / "train/ant/a.png", grey)  # the first one: decoding must not fix on grey
    splits = folder.load(str(photos))
    np.testing.assert_array_equal(splits.train.images[0].numpy(), np.stack([grey] * 3))
    assert splits.train.notes == ("1 grey images became RGB",)
    assert splits.test.notes == ()


def test_colour_after_a_whole_batch_of_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "BATCH", 2)
    root = tmp_path / "late"
    for seed in range(5):
        save(root / "train/a" / f"{seed}.png", random_pixels(seed, 4, 4))
    save(root / "test/a/z.png", random_pixels(7, 4, 4, 3))
    splits = folder.load(str(root))
    assert splits.train.image_shape == (3, 4, 4)
    assert splits.train.notes == ("5 grey images became RGB",)
    np.testing.assert_array_equal(splits.train.images[3].numpy(), np.stack([random_pixels(3, 4, 4)] * 3))
    np.testing.assert_array_equal(splits.test.images[0].numpy(), random_pixels(7, 4, 4, 3).transpose(2, 0, 1))


def test_grey_everywhere_stays_grey(tmp_path: Path) -> None:
    for seed, name in enumerate(["train/a/0.png", "train/b/1.png", "test/a/2.png", "test/b/3.png"]):
        save(tmp_path / "grey" / name, random_pixels(seed, 4, 4))
    splits = folder.load(str(tmp_path / "grey"))
    assert splits.train.image_shape == (1, 4, 4)
    assert splits.train.notes == ()
    np.testing.assert_array_equal(splits.train.images[1, 0].numpy(), random_pixels(1, 4, 4))


def test_transparency_is_laid_on_white(photos: Path) -> None:
    pixels = random_pixels(41, 5, 6, 4)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 255
    save(photos / "train/bee/d.png", pixels)
    splits = folder.load(str(photos))
    assert splits.train.notes == ("1 images with transparency were laid on white",)
    alpha = pixels[..., 3:].astype(float) / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    ours = splits.train.images[3].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(ours, expected, atol=1.0)
    assert ours[0, 0].tolist() == [255, 255, 255]
    assert ours[0, 1].tolist() == pixels[0, 1, :3].tolist()


def test_a_palette_becomes_rgb(photos: Path) -> None:
    image = Image.fromarray(random_pixels(42, 5, 6, 3)).quantize(8)
    image.save(photos / "train/bee/d.png")
    splits = folder.load(str(photos))
    assert splits.train.notes == ("1 palette images became RGB",)
    indices, palette = np.asarray(image), np.array(image.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(splits.train.images[3].numpy().transpose(1, 2, 0), palette[indices])


def test_size_resizes_with_antialiasing(photos: Path) -> None:
    save(photos / "train/bee/d.png", random_pixels(43, 40, 20, 3))
    save(photos / "train/bee/e.PNG", random_pixels(44, 4, 4, 3))
    splits = folder.load(str(photos), size=4)
    assert splits.train.images.shape == (5, 3, 4, 4)
    assert splits.train.notes == ("4 images were resized to 4x4 (bilinear)",)
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(random_pixels(43, 40, 20, 3)).permute(2, 0, 1)[None].double(), (4, 4), mode="bilinear", antialias=True
    )
    assert (splits.train.images[3].double() - reference[0]).abs().max() <= 1.5
    np.testing.assert_array_equal(splits.train.images[4].numpy(), random_pixels(44, 4, 4, 3).transpose(2, 0, 1))


def test_files_that_are_no_images_are_counted(photos: Path) -> None:
    (photos / "train/ant/readme.txt").write_text("ants")
    (photos / "train/ant/.hidden").write_text("x")
    assert folder.load(str(photos)).train.notes == ("1 files without an image ending were left out",)


# Bad input: one sentence that names the file


def test_damaged_images(photos: Path) -> None:
    file = photos / "train/bee/d.png"
    good = file.read_bytes()
    for content in (b"", b"not an image", good[: len(good) // 2], good[:-30], good[:50] + b"\0" * 20 + good[70:]):
        file.write_bytes(content)
        message = refused(photos)
        assert str(file) in message
        assert "mend or remove" in message


def test_truncated_jpeg(photos: Path) -> None:
    file = photos / "train/bee/d.jpg"
    Image.fromarray(random_pixels(1, 5, 6, 3)).save(file)
    file.write_bytes(file.read_bytes()[:-40])
    assert str(file) in refused(photos)


def test_mixed_sizes_name_the_first_odd_file_and_the_remedy(photos: Path) -> None:
    save(photos / "train/bee/d.png", random_pixels(1, 7, 6, 3))
    save(photos / "test/bee/g.png", random_pixels(1, 8, 8, 3))
    message = refused(photos)
    assert str(photos / "train/bee/d.png") in message
    assert "6x7" in message
    assert "6x5" in message
    assert "size=" in message


def png_of_16_bits(path: Path, colour: bool) -> None:
    """A 16-bit PNG, put together by hand: Pillow writes no 16-bit colour."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\0" + bytes(6 * (3 if colour else 1) * 2)
    header = struct.pack(">IIBBBBB", 6, 5, 16, 2 if colour else 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 5)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("colour", [True, False])
def test_16_bits_are_refused(photos: Path, colour: bool) -> None:
    png_of_16_bits(photos / "train/bee/d.png", colour)
    message = refused(photos)
    assert str(photos / "train/bee/d.png") in message
    assert "8 bits" in message


def test_a_decompression_bomb_is_refused(
    photos: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    for limit in (29, 10):  # just above Pillow's limit it only warns; beyond twice the limit it raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        message = refused(photos)
        assert str(photos / "train/ant/a.png") in message
        assert "pixels" in message
    assert not recwarn.list


def test_formats_that_start_other_programs_are_not_opened(photos: Path) -> None:
    Image.fromarray(random_pixels(1, 5, 6, 3)).save(photos / "picture.eps")
    (photos / "picture.eps").rename(photos / "train/bee/d.png")
    assert "not an image of a known format" in refused(photos)


def test_an_empty_class(photos: Path) -> None:
    (photos / "train/cat").mkdir()
    (photos / "test/cat").mkdir()
    message = refused(photos)
    assert str(photos / "train/cat") in message
    assert "has no images (it is empty)" in message


def test_a_class_of_files_that_are_no_images(photos: Path) -> None:
    (photos / "train/cat").mkdir()
    (photos / "train/cat/notes.txt").write_text("x")
    assert "none of its 1 files is an image" in refused(photos)


def test_a_class_missing_from_test(photos: Path) -> None:
    shutil.rmtree(photos / "test/bee")
    message = refused(photos)
    assert f"{photos / 'test'} lacks the class 'bee'" in message


def test_a_class_missing_from_train(photos: Path) -> None:
    save(photos / "test/cow/h.png", random_pixels(1, 5, 6, 3))
    assert f"{photos / 'train'} lacks the class 'cow'" in refused(photos)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "has no class folders" in refused(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in refused(tmp_path / "file")
    save(tmp_path / "loose" / "a.png", random_pixels(1, 5, 6, 3))
    assert "has no class folders" in refused(tmp_path / "loose")


def test_a_test_folder_without_train(photos: Path) -> None:
    shutil.rmtree(photos / "train")
    assert "no folder 'train'" in refused(photos)


def test_folders_that_an_archive_made_alike(tmp_path: Path) -> None:
    """The same names, lengths and times of change: they are other files all the same, and so is one changed in place."""
    pixels = random_pixels(8, 5, 6, 3)
    for root, values in (("a", pixels), ("b", 255 - pixels)):
        for number, image in enumerate(values):
            save(tmp_path / root / "train" / "xy"[number % 2] / f"{number}.ppm", image)
            save(tmp_path / root / "test" / "xy"[number % 2] / f"{number}.ppm", image)
    for file in tmp_path.rglob("*.ppm"):
        os.utime(file, (0, 0))
    first, other = (folder.load(str(tmp_path / root)).train.images.clone() for root in "ab")
    assert torch.equal(first, 255 - other)
    changed = tmp_path / "a" / "train" / "x" / "0.ppm"
    changed.write_bytes((tmp_path / "b" / "train" / "x" / "0.ppm").read_bytes())
    os.utime(changed, (0, 0))
    again = folder.load(str(tmp_path / "a")).train.images
    assert torch.equal(again[0], other[0])
    assert torch.equal(again[1:], first[1:])


def test_a_link_to_what_is_no_name(photos: Path) -> None:
    """It stands for no class, as any link to a folder that is not there."""
    (photos / "train/zebra").symlink_to("z" * 300)
    assert folder.load(str(photos)).train.classes == ("ant", "bee")


def test_a_link_that_leads_nowhere(photos: Path) -> None:
    (photos / "train/ant/z.png").symlink_to(photos / "gone.png")
    assert str(photos / "train/ant/z.png") in refused(photos)


@pytest.mark.parametrize("size", [0, -3, 10_000])
def test_an_impossible_size(photos: Path, size: int) -> None:
    with pytest.raises(UserError, match="size must be"):
        folder.load(str(photos), size=size)


def test_an_impossible_share(photos: Path) -> None:
    shutil.rmtree(photos / "test")
    with pytest.raises(UserError, match="test_share"):
        folder.load(str(photos), test_share=1.0)


def test_pillow_still_warns_others_of_large_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.load(str(photos))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 29)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(photos / "train/ant/a.png").close()


def test_decoding_keeps_the_order_over_many_chunks() -> None:
    from io import BytesIO

    def encoded(value: int) -> decode.Encoded:
        buffer = BytesIO()
        Image.new("L", (2, 2), value % 256).save(buffer, "PNG")
        return decode.Encoded(str(value), buffer.getvalue())

    batches = [[encoded(value) for value in range(start, start + 100)] for start in (0, 100)]
    decoded = [one for batch in decode.decode_batches(batches, None) for one in batch]
    assert [int(one.pixels[0, 0, 0]) for one in decoded] == [value % 256 for value in range(200)]


# Tiny ImageNet


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The layout of Tiny ImageNet with one 4x4 training and one validation image of each class, annotated in mixed order."""
    base = tmp_path / "tiny-imagenet-200"
    wnids = [f"n{i:08d}" for i in range(200)]
    (base / "val/images").mkdir(parents=True)
    lines = []
    for i in np.random.default_rng(0).permutation(200):
        pixels = np.full((4, 4, 3), i, dtype=np.uint8)
        save(base / "train" / wnids[i] / "images" / f"{wnids[i]}_0.JPEG", pixels)
        save(base / "val/images" / f"val_{(i * 7) % 200}.JPEG", pixels)
        lines.append(f"val_{(i * 7) % 200}.JPEG\t{wnids[i]}\t0\t0\t3\t3\n")
    (base / "val/val_annotations.txt").write_text("".join(lines))
    return tmp_path


def load_tiny(root: str) -> DatasetSplits:
    return tiny_imagenet.load(Path(root))


def test_tiny_imagenet_labels_are_ranks_in_both_splits(tiny: Path) -> None:
    splits = tiny_imagenet.load(tiny)
    for split in (splits.train, splits.test):
        assert split.class_sizes.tolist() == [1] * 200
        colour = split.images[:, 0].float().mean(dim=(1, 2)).round().long()  # the files were painted with their label
        assert (colour - split.labels).abs().max() <= 1
    assert splits.train.classes[7] == "n00000007"
    assert splits.test.name == "tiny-imagenet/test"
    assert tiny_imagenet.load(tiny / "tiny-imagenet-200").train.fingerprint == splits.train.fingerprint


def test_tiny_imagenet_with_one_validation_class_is_refused(tiny: Path) -> None:
    """What a loader that takes folders for classes would make of val/images."""
    annotations = tiny / "tiny-imagenet-200/val/val_annotations.txt"
    names = [line.split("\t")[0] for line in annotations.read_text().splitlines()]
    annotations.write_text("".join(f"{name}\timages\t0\n" for name in names))
    message = refused(tiny, load_tiny)
    assert "val has 1 distinct classes, 0 of them those of train" in message


def test_tiny_imagenet_with_a_lost_training_class_is_refused(tiny: Path) -> None:
    shutil.rmtree(tiny / "tiny-imagenet-200/train/n00000005")
    assert "train has 199 distinct classes" in refused(tiny, load_tiny)


def test_tiny_imagenet_with_other_files_than_annotated_is_refused(tiny: Path) -> None:
    images = tiny / "tiny-imagenet-200/val/images"
    (images / "val_0.JPEG").rename(images / "val_900.JPEG")
    message = refused(tiny, load_tiny)
    assert str(images / "val_0.JPEG") in message
    assert "is missing but named" in message


def test_tiny_imagenet_without_or_with_junk_annotations_is_refused(tiny: Path) -> None:
    annotations = tiny / "tiny-imagenet-200/val/val_annotations.txt"
    for content in (b"no table\n", b"\xff\xfe\x00junk"):
        annotations.write_bytes(content)
        assert str(annotations) in refused(tiny, load_tiny)
    annotations.unlink()
    assert str(annotations) in refused(tiny, load_tiny)


def test_tiny_imagenet_that_is_not_there(tmp_path: Path) -> None:
    message = refused(tmp_path, load_tiny)
    assert str(tmp_path) in message
    assert "--root" in message
