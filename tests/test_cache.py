"""The memory-mapped cache of decoded images."""

from __future__ import annotations

import errno
import logging
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from PIL import Image

from dqas_plugin import paths
from dqas_plugin.data import content_digest
from dqas_plugin.datasets import cache
from dqas_plugin.datasets.cache import cached_splits
from dqas_plugin.datasets.decode import Encoded, EncodedImages
from dqas_plugin.errors import UserError


@pytest.fixture(autouse=True)
def images_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DQAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


class Source:
    """PNG images whose pixels all have the value of their position; counts how often it is opened."""

    def __init__(self, count: int = 10, side: int = 4, batch: int = 3) -> None:
        self.opened = 0
        self.count, self.side, self.batch = count, side, batch

    def __call__(self) -> EncodedImages:
        self.opened += 1
        labels = np.arange(self.count, dtype=np.int64) % 2
        return EncodedImages(("a", "b"), labels, np.arange(self.count) % 5 >= 3, self.batches, ("a note",))

    def batches(self) -> Iterator[Sequence[Encoded]]:
        for start in range(0, self.count, self.batch):
            yield [self.encoded(i) for i in range(start, min(start + self.batch, self.count))]

    def encoded(self, value: int) -> Encoded:
        buffer = BytesIO()
        Image.new("RGB", (self.side, self.side), (value % 256, 0, 0)).save(buffer, "PNG")
        return Encoded(f"image {value}", buffer.getvalue())


class Failing(Source):
    """Raises after the first batch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def batches(self) -> Iterator[Sequence[Encoded]]:
        yield [self.encoded(0)]
        raise self.error


def visible(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir() if one.is_dir()]


def test_decodes_once_and_opens_the_same_again() -> None:
    source = Source()
    first = cached_splits("made", "key", source)
    again = cached_splits("other", "key", source, mirror=False)
    assert source.opened == 1
    assert first.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 5, 6, 7]
    assert first.test.images[:, 0, 0, 0].tolist() == [3, 4, 8, 9]
    assert first.test.labels.tolist() == [1, 0, 0, 1]
    for one, two in ((first.train, again.train), (first.test, again.test)):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)
        assert (two.classes, two.notes, two.digest, two.mirror) == (("a", "b"), ("a note",), one.digest, False)
    assert again.train.name == "other/train"


def test_the_stored_digest_is_that_of_the_content() -> None:
    splits = cached_splits("made", "key", Source())
    for split in (splits.train, splits.test):
        assert split.digest == content_digest(split.images.clone(), split.labels, split.classes)


def test_other_keys_are_other_entries(images_folder: Path) -> None:
    cached_splits("made", "one", Source())
    assert len(cached_splits("made", "two", Source(count=20)).train) == 12
    assert sorted(visible(images_folder)) == ["one", "two"]


def test_images_are_mapped_and_a_write_does_not_reach_the_file(images_folder: Path) -> None:
    splits = cached_splits("made", "key", Source())
    before = (images_folder / "key/train.npy").read_bytes()
    splits.train.images.fill_(77)  # no warning of read-only memory either: warnings are errors here
    assert (images_folder / "key/train.npy").read_bytes() == before
    assert int(cached_splits("made", "key", Source()).train.images[1, 0, 0, 0]) == 1


def test_neither_building_nor_opening_holds_all_images_in_memory() -> None:
    source = Source(count=3000, side=48, batch=128)  # 20 MB decoded
    tracemalloc.start()
    try:
        cached_splits("made", "key", source)
        building = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        start = tracemalloc.get_traced_memory()[0]
        splits = cached_splits("made", "key", source)
        opening = tracemalloc.get_traced_memory()[1] - start
    finally:
        tracemalloc.stop()
    assert splits.train.images.nbytes + splits.test.images.nbytes == 3000 * 48 * 48 * 3
    assert building < 12e6
    assert opening < 1e6


@pytest.mark.parametrize("file", ["train.npy", "test.npy", "train-labels.npy", "test-labels.npy", "meta.json", "checksums.txt"])
@pytest.mark.parametrize("damage", ["cut", "longer", "gone", "junk", "a bit", "zeros"])
def test_a_damaged_entry_is_built_again_with_a_warning(
    images_folder: Path, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    source = Source()
    expected = cached_splits("made", "key", source).train.images.clone()
    path = images_folder / "key" / file
    good = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        place = len(good) - 3
        bit = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        damages = {
            "cut": good[: len(good) // 2],
            "longer": good + b"x",
            "junk": b"junk",
            "a bit": bit,
            "zeros": bytes(len(good)),
        }
        path.write_bytes(damages[damage])
    with caplog.at_level(logging.WARNING):
        splits = cached_splits("made", "key", source)
    assert source.opened == 2
    assert torch.equal(splits.train.images, expected)
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith("the cache entry of made is damaged (")
    assert message.endswith(f") and is built again: {images_folder / 'key'}")


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", '{"lengths": 3}', '{"lengths": {}}', '{"lengths": {"train.npy": "x"}}']
)
def test_junk_metadata_is_damage(images_folder: Path, content: str) -> None:
    source = Source()
    cached_splits("made", "key", source)
    (images_folder / "key/meta.json").write_text(content)
    assert len(cached_splits("made", "key", source).train) == 6
    assert source.opened == 2


@pytest.mark.parametrize("error", [UserError("bad image"), KeyboardInterrupt(), RuntimeError("bug")])
def test_a_stop_half_way_leaves_nothing(images_folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        cached_splits("made", "key", Failing(error))
    assert visible(images_folder) == []
    assert len(cached_splits("made", "key", Source()).train) == 6


def test_a_full_disk_is_one_sentence(images_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache._Appender, "append", full)
    with pytest.raises(UserError, match=r"No space left on device.*DQAS_CACHE"):
        cached_splits("made", "key", Source())
    assert visible(images_folder) == []


def test_what_a_killed_builder_left_is_removed(images_folder: Path) -> None:
    images_folder.mkdir(parents=True)
    (images_folder / ".key.part").mkdir()
    (images_folder / ".key.part" / "train.npy").write_bytes(b"a beginning")
    (images_folder / ".other.part").mkdir()
    cached_splits("made", "key", Source())
    assert sorted(visible(images_folder)) == [".other.part", "key"]


def test_only_one_of_many_builds_an_entry() -> None:
    source = Source(count=200)
    barrier = Barrier(4)

    def load(_: int) -> int:
        barrier.wait(timeout=30)
        return len(cached_splits("made", "key", source).train)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(load, range(4))) == [120] * 4
    assert source.opened == 1


def test_without_locks_the_first_builder_wins(images_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "fcntl", None)

    class Slower(Source):
        def batches(self) -> Iterator[Sequence[Encoded]]:
            cached_splits("made", "key", Source())  # another process finishes meanwhile
            yield from super().batches()

    splits = cached_splits("made", "key", Slower())
    assert len(splits.train) == 6
    assert visible(images_folder) == ["key"]


def test_an_unwritable_cache_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("DQAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="DQAS_CACHE"):
        cached_splits("made", "key", Source())


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    cached_splits("made", "quiet", Source())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    cached_splits("made", "shown", Source())
    shown = capsys.readouterr()
    assert "decoding made" in shown.err
    assert shown.out == ""
