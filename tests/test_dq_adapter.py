"""DQ's bins and selections, read; and files that are none."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dq_files import Hostile, even_bins, labelled, refused, registered, save_bins, saved, shuffled_labels
from dq_program import StandIn
from dqas_adapters import dq
from dqas_adapters.dq.layout import imagefolder_positions
from dqas_adapters.dq.reading import load_bins, load_selection
from dqas_plugin import Ranking, select
from dqas_plugin.plugins import Plugins
from toys import toy

_registered = pytest.fixture(autouse=True)(registered)


def test_what_the_plugin_brings() -> None:
    loaded = Plugins(strangers=False)
    loaded.register(dq, "dq")
    info = next(one for one in loaded.overview() if one.name == "dq")
    assert info.brings == {"importers": ("dq-bins", "dq"), "datasets": ("dq-images",), "exporters": ("dq",)}
    assert loaded.problems == []


# Bins


def test_every_beginning_takes_from_the_bins_in_turn(tmp_path: Path) -> None:
    labels = shuffled_labels(3, 47)
    bins = even_bins(labels, 5)
    found = load_bins(save_bins(tmp_path / "bins", bins), labelled(labels))
    assert isinstance(found, Ranking)
    assert found.nested
    holder = np.empty(len(labels), dtype=int)
    for number, one in enumerate(bins):
        holder[one] = number
    for label in range(3):
        assert sorted(found.order[label]) == np.flatnonzero(labels == label).tolist()
        sizes = np.bincount(holder[labels == label], minlength=5)
        for count in range(len(found.order[label]) + 1):
            taken = np.bincount(holder[found.order[label][:count]], minlength=5)
            assert taken.max() - taken[taken < sizes].min(initial=99) <= 1


def test_the_seed_draws_within_bins(tmp_path: Path) -> None:
    data = labelled(shuffled_labels(3, 40))
    folder = save_bins(tmp_path / "bins", even_bins(data.labels.numpy(), 4))
    one, same, other = (load_bins(folder, data, seed=seed) for seed in (1, 1, 2))
    for label in range(3):
        assert one.order[label].tolist() == same.order[label].tolist()
        assert set(one.order[label][:8]) != set(other.order[label][:8])


def test_bins_are_a_method(tmp_path: Path) -> None:
    data = toy()
    bins = even_bins(data.labels.numpy(), 4)
    save_bins(tmp_path / "bins", bins)
    chosen = select(data, f"dq-bins:{tmp_path / 'bins'}", budget=24)
    assert chosen.counts.tolist() == [8, 8, 8]
    for one in bins:
        inside = chosen.indices[np.isin(chosen.indices, one)]
        assert np.bincount(data.labels.numpy()[inside]).tolist() == [2, 2, 2]
    more = select(data, f"dq-bins:{tmp_path / 'bins'}", budget=36)
    assert set(chosen.indices) < set(more.indices)


def test_bins_may_hold_a_part_and_other_files_are_passed_over(tmp_path: Path) -> None:
    labels = shuffled_labels(2, 30)
    bins = even_bins(labels, 6)[:2]
    folder = save_bins(tmp_path / "bins", [one.astype(np.int32) for one in bins], "a_b_exp7")
    (folder / "select_indices_a_0.1.npy").write_bytes(b"not read")
    (folder / "notes.txt").write_text("not read")
    found = load_bins(folder, labelled(labels))
    assert found.capacity.tolist() == [10, 10]
    assert sorted(np.concatenate(found.order)) == sorted(np.concatenate(bins))


def test_more_than_ten_bins_are_counted_as_numbers(tmp_path: Path) -> None:
    labels = shuffled_labels(2, 30)
    folder = save_bins(tmp_path / "bins", even_bins(labels, 12))
    assert load_bins(folder, labelled(labels)).provenance["bins"] == [6] * 6 + [4] * 6


BAD_BINS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda folder: folder.rename(folder.parent / "away"), "does not exist"),
    "empty": (lambda folder: [one.unlink() for one in folder.iterdir()], "holds no bins of DQ"),
    "a bin is missing": (lambda folder: (folder / "select_indices_D_exp1.npy").unlink(), "lacks select_indices_D_exp1.npy"),
    "two datasets": (lambda folder: save_bins(folder, [np.arange(3)], "E"), "bins of 'D' and of 'E'"),
    "beyond": (
        lambda folder: saved(folder / "select_indices_D_exp2.npy", [7, 60]),
        "exp2.npy: the bin holds 60, but toy/train",
    ),
    "negative": (lambda folder: saved(folder / "select_indices_D_exp2.npy", [7, -1]), "exp2.npy: the bin holds -1"),
    "twice": (lambda folder: saved(folder / "select_indices_D_exp2.npy", [7, 7]), "exp2.npy: the bin holds the sample 7 more"),
    "halves": (lambda folder: saved(folder / "select_indices_D_exp0.npy", [0.5]), "exp0.npy: the bin must be whole numbers"),
    "not a number": (lambda folder: saved(folder / "select_indices_D_exp0.npy", [np.nan]), "must be whole numbers"),
    "a table": (lambda folder: saved(folder / "select_indices_D_exp0.npy", [[1]]), r"exp0.npy: the bin must be one row"),
    "a mask": (lambda folder: saved(folder / "select_indices_D_exp0.npy", [True]), r"one row of whole numbers, not bool"),
    "text": (lambda folder: saved(folder / "select_indices_D_exp0.npy", ["1"]), r"one row of whole numbers, not <U1"),
    "cut off": (
        lambda folder: cut(folder / "select_indices_D_exp0.npy"),
        "exp0.npy cannot be read as a bin of DQ: it is damaged, its header claims 160 bytes",
    ),
    "no array": (lambda folder: (folder / "select_indices_D_exp0.npy").write_bytes(b""), "exp0.npy cannot be read as a bin of"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize("kind", BAD_BINS)
def test_bins_that_are_none(tmp_path: Path, kind: str) -> None:
    labels = shuffled_labels(2, 30)
    folder = save_bins(tmp_path / "bins", even_bins(labels, 3), "D")
    load_bins(folder, labelled(labels))
    spoil, words = BAD_BINS[kind]
    spoil(folder)
    assert words in refused(lambda: load_bins(folder, labelled(labels)))


def test_a_sample_in_two_bins_is_named_with_both(tmp_path: Path) -> None:
    labels = shuffled_labels(2, 30)
    bins = even_bins(labels, 3)
    bins[2] = np.append(bins[2], bins[0][4])
    message = refused(lambda: load_bins(save_bins(tmp_path / "bins", bins), labelled(labels)))
    assert f"exp2.npy: the bin holds the sample {bins[0][4]}, which is in select_indices_CIFAR10_exp0.npy, too" in message


def test_nothing_in_any_bin(tmp_path: Path) -> None:
    folder = save_bins(tmp_path / "bins", [np.empty(0, np.int64)] * 2)
    assert "all of its 2 bins are empty" in refused(lambda: load_bins(folder, labelled([0, 1])))


def test_bins_of_images_in_another_order(tmp_path: Path) -> None:
    labels, others = shuffled_labels(10, 300, 1), shuffled_labels(10, 300, 2)
    folder = save_bins(tmp_path / "bins", even_bins(labels, 10))
    load_bins(folder, labelled(labels))
    assert "spread over it as unevenly as by chance" in refused(lambda: load_bins(folder, labelled(others)))
    load_bins(folder, labelled(others), check_order=False)


@pytest.mark.parametrize("seed", range(8))
def test_rounding_is_not_taken_for_another_order(tmp_path: Path, seed: int) -> None:
    """Classes of other sizes, in bins filled as DQ's program fills them: a rounded share of what is left of each class."""
    sizes = np.random.default_rng(seed).integers(250, 900, 7)
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(7), sizes))
    left, bins, size = [np.flatnonzero(labels == label) for label in range(7)], [], round(len(labels) * 0.1)
    for _ in range(9):
        fraction = size / sum(map(len, left))
        takes = [round(fraction * len(one)) for one in left]
        bins.append(np.concatenate([one[:take] for one, take in zip(left, takes, strict=True)]))
        left = [one[take:] for one, take in zip(left, takes, strict=True)]
    folder = save_bins(tmp_path / "bins", [*bins, np.concatenate(left)])
    data = labelled(labels)
    found = load_bins(folder, data)
    assert found.capacity.tolist() == sizes.tolist()
    for fraction in (0.05, 0.125, 0.5, 0.9):
        load_selection(StandIn(tmp_path, labels).sample(folder, fraction, seed), data)


# Selections


def test_a_selection_is_ordered_by_class(tmp_path: Path) -> None:
    data = labelled([0, 1, 0, 1, 2, 2])
    found = load_selection(saved(tmp_path / "select_indices_CIFAR10_0.125.npy", [5, 3, 2, 0]), data)
    assert found.indices.tolist() == [2, 0, 3, 5]
    assert found.indices.dtype == np.int64
    assert found.counts.tolist() == [2, 1, 1]
    found.check(data)
    assert found.provenance["named"] == {"dataset": "CIFAR10", "fraction": 0.125}
    assert "load the dataset it was made for" in refused(lambda: found.check(labelled([0, 1, 0, 1, 2, 2, 0])))
    assert "named" not in load_selection(saved(tmp_path / "mine.npy", [1]), data).provenance


BAD_SELECTIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: path.unlink(missing_ok=True), "s.npy cannot be read as a selection of DQ"),
    "empty": (lambda path: saved(path, np.empty(0, np.int64)), "s.npy holds no indices"),
    "beyond": (lambda path: saved(path, [0, 4]), "s.npy: the selection holds 4, but toy/train has samples 0..3"),
    "negative": (lambda path: saved(path, [-1]), "s.npy: the selection holds -1"),
    "twice": (lambda path: saved(path, [1, 2, 1]), "s.npy: the selection holds the sample 1 more than once"),
    "halves": (lambda path: saved(path, [0.5]), "s.npy: the selection must be whole numbers"),
    "a table": (lambda path: saved(path, [[1, 2]]), "s.npy: the selection must be one row of whole numbers"),
    "one number": (lambda path: saved(path, 1), "s.npy: the selection must be one row of whole numbers"),
    "a folder": (lambda path: path.mkdir(), "s.npy is a folder: name a file in it, or import its bins as dq-bins"),
}


@pytest.mark.parametrize("kind", BAD_SELECTIONS)
def test_selections_that_are_none(tmp_path: Path, kind: str) -> None:
    spoil, words = BAD_SELECTIONS[kind]
    spoil(tmp_path / "s.npy")
    assert words in refused(lambda: load_selection(tmp_path / "s.npy", labelled([0, 1, 0, 1])))


def test_a_selection_of_images_in_another_order(tmp_path: Path) -> None:
    labels, others = shuffled_labels(10, 2000, 1), shuffled_labels(10, 2000, 2)
    chosen = np.concatenate([np.flatnonzero(labels == label)[:250] for label in range(10)])
    path = saved(tmp_path / "s.npy", chosen)
    assert load_selection(path, labelled(labels)).counts.tolist() == [250] * 10
    assert "set the option check_order=false" in refused(lambda: load_selection(path, labelled(others)))
    assert load_selection(path, labelled(others), check_order=False).counts.sum() == 2500


def test_the_published_selection_and_the_order_of_the_jpegs(shared: Path) -> None:
    """The copy ``cifar10-jpeg`` has its labels in CIFAR-10's order: the file then holds ten bins of 62 of each class.

    By chance its 6,200 indices would hit every class 620 ± 23 times, and no block of 62 would be of one class.
    """
    from pyarrow import parquet

    published = np.load(shared / "data/dq/select_indices_CIFAR10_0.125.npy")
    table = parquet.read_table(shared / "data/cifar10-jpeg/train-00000-of-00001.parquet", columns=["label"])
    labels = table["label"].to_numpy().astype(np.int64)
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # of data_batch_1
    blocks = labels[published].reshape(10, 10, 62)
    assert (blocks == np.arange(10)[None, :, None]).all()
    data = labelled(labels, "cifar10-jpeg/train")
    found = load_selection(shared / "data/dq/select_indices_CIFAR10_0.125.npy", data)
    assert found.counts.tolist() == [620] * 10
    assert set(found.indices) == set(published)
    assert found.provenance["named"] == {"dataset": "CIFAR10", "fraction": 0.125}
    other = labelled(np.random.default_rng(0).permutation(labels))
    assert "unevenly as by chance" in refused(
        lambda: load_selection(shared / "data/dq/select_indices_CIFAR10_0.125.npy", other)
    )
    by_text = imagefolder_positions(labels)
    meant = np.isin(np.flatnonzero(np.isin(by_text, published)), published).sum()
    assert meant == 792  # what DQ's evaluation, given a folder of all images, trains on of what was selected


# Files that are not what they claim


def hostile_array(mark: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Hostile(mark)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def huge_array(mark: Path) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<i8", "fortran_order": False, "shape": (10**12,)})
    return buffer.getvalue() + bytes(64)


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "array of objects": (hostile_array, "it holds Python objects, and reading them could run code"),
    "bare pickle": (lambda mark: pickle.dumps(Hostile(mark)), "it is no .npy file"),
    "a million million": (huge_array, "its header claims 8,000,000,000,000 bytes of values and 64 follow"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_arrays(tmp_path: Path, kind: str) -> None:
    make, words = HOSTILE[kind]
    mark = tmp_path / "it ran"
    (tmp_path / "bins").mkdir()
    path = tmp_path / "bins" / "select_indices_CIFAR10_exp0.npy"
    path.write_bytes(make(mark))
    data = labelled([0, 1])
    for load in (lambda: load_selection(path, data), lambda: load_bins(path.parent, data)):
        message = refused(load)
        assert words in message
        assert str(path) in message
    assert not mark.exists()


@pytest.mark.parametrize("text", ["{", "[1]", '{"files": 1}', "[" * 100_000, " " * (1 << 22) + "{}"])
def test_a_record_that_is_none(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path / "s.npy", [0, 1])
    (tmp_path / "dqas.json").write_text(text)
    assert "dqas.json" in refused(lambda: load_selection(path, labelled([0, 1])))


def test_a_record_of_others_is_passed_over(tmp_path: Path) -> None:
    path = saved(tmp_path / "s.npy", [0, 1])
    (tmp_path / "dqas.json").write_text(json.dumps({"dataset": "x", "fingerprint": "y", "files": {"t.npy": "0"}}))
    assert load_selection(path, labelled([0, 1])).counts.tolist() == [1, 1]
