"""Ranking and Selection: taking, saving, and files that are not what they claim."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.selection import Ranking, Selection


def dataset(labels: list[int], name: str = "toy") -> ImageDataset:
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return ImageDataset(images, torch.tensor(labels), ("a", "b"), name)


RANKING = Ranking((np.array([4, 0, 2]), np.array([3, 1])), "made", provenance={"seed": 1})


def test_take_is_class_after_class_best_first() -> None:
    assert RANKING.take([2, 1]).tolist() == [4, 0, 3]
    assert RANKING.take([0, 2]).tolist() == [3, 1]
    assert RANKING.capacity.tolist() == [3, 2]
    assert RANKING.taken_weights([2, 1]) is None


def test_take_refuses_what_was_not_ranked() -> None:
    with pytest.raises(UserError, match=r"holds 2 samples of class 1, not 3: rank more of them"):
        RANKING.take([1, 3])
    with pytest.raises(UserError, match="has 2 classes, not 3"):
        RANKING.take([1, 1, 1])


def test_weights_keep_step_with_samples() -> None:
    weighted = Ranking(RANKING.order, "made", False, (np.array([4.0, 0.5, 2.0]), np.array([3.0, 1.0])))
    assert weighted.taken_weights([2, 1]).tolist() == [4.0, 0.5, 3.0]  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", [None, (np.array([4.0, 0.5, 2.0]), np.array([3.0, 1.0]))])
def test_ranking_round_trip(tmp_path: Path, weights: Any) -> None:
    path = Ranking(RANKING.order, "made", False, weights, {"seed": 1}).save(tmp_path / "r.npz")
    again = Ranking.load(path)
    assert [one.tolist() for one in again.order] == [[4, 0, 2], [3, 1]]
    assert (again.method, again.nested, again.provenance) == ("made", False, {"seed": 1})
    if weights is None:
        assert again.weights is None
    else:
        assert again.weights is not None
        assert [one.tolist() for one in again.weights] == [[4.0, 0.5, 2.0], [3.0, 1.0]]


@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 0.5], np.float32)])
def test_selection_round_trip(tmp_path: Path, weights: Any) -> None:
    data = dataset([0, 1, 0, 1, 0])
    meta = {"fingerprint": data.fingerprint, "dataset": "toy", "seconds": {"selection": 0.5}}
    path = Selection(np.array([4, 0, 3]), np.array([2, 1]), weights, meta).save(tmp_path / "s.npz")
    again = Selection.load(path, data)
    assert again.indices.tolist() == [4, 0, 3]
    assert again.indices.dtype == again.counts.dtype == np.int64
    assert again.counts.tolist() == [2, 1]
    assert again.provenance == meta
    assert again.weights is None if weights is None else np.array_equal(again.weights, weights)
    assert len(again) == 3


def test_the_file_is_plain_numpy(tmp_path: Path) -> None:
    path = Selection(np.array([1, 0]), np.array([1, 1]), None, {"method": "m"}).save(tmp_path / "s.npz")
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays) == {"indices", "counts", "meta"}
        assert json.loads(arrays["meta"].tobytes()) == {"method": "m"}


def test_another_dataset_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    data, other = dataset([0, 1, 0, 1]), dataset([1, 0, 1, 0], "other")
    path = Selection(np.array([0, 1]), np.array([1, 1]), None, {"fingerprint": data.fingerprint, "dataset": "toy"}).save(
        tmp_path / "s.npz"
    )
    with pytest.raises(UserError) as caught:
        Selection.load(path, other)
    assert data.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)


def test_indices_and_counts_must_fit_the_dataset() -> None:
    with pytest.raises(UserError, match="outside toy"):
        Selection(np.array([9]), np.array([1, 0])).check(dataset([0, 1]))
    with pytest.raises(UserError, match="other class counts"):
        Selection(np.array([1]), np.array([1, 0])).check(dataset([0, 1]))


def test_a_selection_holds_together() -> None:
    with pytest.raises(UserError, match="twice"):
        Selection(np.array([1, 1]), np.array([2]))
    with pytest.raises(UserError, match="counts sum to 1"):
        Selection(np.array([1, 2]), np.array([1]))
    with pytest.raises(UserError, match="1 weights for 2 samples"):
        Selection(np.array([1, 2]), np.array([2]), np.ones(1, np.float32))


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def array(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values), **options)
    return buffer.getvalue()


META = array(np.frombuffer(b"{}", np.uint8))


def claiming(count: int) -> bytes:
    """An array header that claims far more than follows."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<i8", "fortran_order": False, "shape": (count,)})
    return buffer.getvalue()


BAD: dict[str, Callable[[Path], Path]] = {
    "missing": lambda path: path,
    "junk": lambda path: (path.write_bytes(b"not a zip"), path)[1],
    "empty": lambda path: (path.write_bytes(b""), path)[1],
    "other arrays": lambda path: archive(path, a=array([1])),
    "extra array": lambda path: archive(path, indices=array([0]), counts=array([1]), meta=META, more=array([1])),
    "pickled objects": lambda path: archive(path, indices=array([{}], allow_pickle=True), counts=array([1]), meta=META),
    "floats": lambda path: archive(path, indices=array([0.5]), counts=array([1]), meta=META),
    "two dimensions": lambda path: archive(path, indices=array([[0]]), counts=array([1]), meta=META),
    "a header that lies": lambda path: archive(path, indices=claiming(10**12), counts=array([1]), meta=META),
    "meta that is no object": lambda path: archive(
        path, indices=array([0]), counts=array([1]), meta=array(np.frombuffer(b"[1]", np.uint8))
    ),
    "meta that is no JSON": lambda path: archive(
        path, indices=array([0]), counts=array([1]), meta=array(np.frombuffer(b"{", np.uint8))
    ),
    "meta that is no text": lambda path: archive(
        path, indices=array([0]), counts=array([1]), meta=array(np.frombuffer(b"\xff\xfe", np.uint8))
    ),
    "truncated array": lambda path: archive(path, indices=array([0, 1, 2])[:-8], counts=array([1]), meta=META),
}


@pytest.mark.parametrize("kind", BAD)
def test_files_that_are_no_selections(tmp_path: Path, kind: str) -> None:
    path = BAD[kind](tmp_path / "s.npz")
    with pytest.raises(UserError) as caught:
        Selection.load(path)
    assert "s.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = Selection(np.arange(500), np.array([500])).save(tmp_path / "s.npz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read as a selection"):
        Selection.load(path)


@pytest.mark.parametrize(("order", "sizes"), [([0, 1, 1], [2, 1]), ([0, 1], [2, 1]), ([0, -1], [1, 1]), ([0, 1, 2], [4, -1])])
def test_rankings_that_do_not_hold_together(tmp_path: Path, order: list[int], sizes: list[int]) -> None:
    path = archive(tmp_path / "r.npz", order=array(order), sizes=array(sizes), meta=META)
    with pytest.raises(UserError, match="do not fit together"):
        Ranking.load(path)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Selection(np.array([0]), np.array([1]), None, {"not JSON": object()}).save(tmp_path / "s.npz")
    assert list(tmp_path.iterdir()) == []


def test_with_ordinary_pytorch() -> None:
    data = TensorDataset(torch.arange(10))
    selection = Selection(np.array([7, 2, 5]), np.array([3]), np.array([0.0, 1.0, 3.0], np.float32))
    assert [int(one[0]) for one in selection.subset(data)] == [7, 2, 5]
    sampler = selection.sampler(seed=0, num_samples=4000)
    drawn = torch.cat([one[0] for one in DataLoader(selection.subset(data), sampler=sampler, batch_size=100)])
    shares = torch.bincount(drawn, minlength=10) / 4000
    assert shares[7] == 0
    assert shares[2] == pytest.approx(0.25, abs=0.03)
    assert shares[5] == pytest.approx(0.75, abs=0.03)
    assert list(selection.sampler(seed=0)) == list(selection.sampler(seed=0))
    with pytest.raises(UserError, match="needs sample 7"):
        selection.subset(TensorDataset(torch.arange(5)))
