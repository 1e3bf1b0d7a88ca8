"""Files from other people: what is read, and what is refused before it can do harm."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqas_adapters.foreign import check_indices, inside, read_npy, read_torch, whole_numbers
from dqas_plugin import UserError, load_dataset


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_values_come_back(tmp_path: Path, zipped: bool) -> None:
    """As DeepCore and DREAM write them: dictionaries and lists of arrays, tensors and numbers."""
    content = {
        "subset": {"indices": np.arange(5), "weights": np.ones(5, np.float32)},
        "run": [torch.eye(2), "a", np.float64(2)],
    }
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "a.pt", "a set")
    assert found["subset"]["indices"].tolist() == [0, 1, 2, 3, 4]
    assert found["subset"]["weights"].dtype == np.float32
    assert torch.equal(found["run"][0], torch.eye(2))
    assert found["run"][1:] == ["a", 2.0]


def test_arrays_of_numpy_1_come_back(tmp_path: Path) -> None:
    """NumPy 1 pickled its arrays under another module name."""
    pickled = pickle.dumps({"indices": np.arange(3)}, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in pickled
    plain = tmp_path / "plain.pt"
    torch.save({"indices": 0}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "old.pt", "w") as new:
        for one in old.infolist():
            new.writestr(one.filename, pickled if one.filename.endswith("data.pkl") else old.read(one))
    assert read_torch(tmp_path / "old.pt", "a set")["indices"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_named_and_not_run(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "h.pt", tmp_path / "mark"
    torch.save({"data": Hostile(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"h\.pt cannot be read as a set: it asks for posix\.system.*could run code"):
        read_torch(path, "a set")
    path.write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(UserError, match="cannot be read as a set"):
        read_torch(path, "a set")
    assert not mark.exists()
    torch.save(argparse.Namespace(a=1), path)
    with pytest.raises(UserError, match=r"asks for argparse\.Namespace"):
        read_torch(path, "a set")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save(torch.ones(1000), whole)
    for length in (0, 10, 500, whole.stat().st_size - 30):
        (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:length])
        with pytest.raises(UserError, match=r"cut\.pt"):
            read_torch(tmp_path / "cut.pt", "a set")
    with pytest.raises(UserError, match=r"none\.pt cannot be read as a set \(No such file"):
        read_torch(tmp_path / "none.pt", "a set")


@pytest.mark.parametrize("claim", [torch.zeros(1).expand(10**12), torch.zeros(10**7, 10**5, layout=torch.sparse_coo)])
def test_a_tensor_may_not_claim_more_than_the_file(tmp_path: Path, claim: torch.Tensor) -> None:
    torch.save({"data": [claim]}, tmp_path / "t.pt")
    with pytest.raises(UserError, match=r"values\['data'\]\[0\] claim .* made to fill memory"):
        read_torch(tmp_path / "t.pt", "a set")


def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(10**6), tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for one in old.infolist():
            new.writestr(one.filename, old.read(one))
    with pytest.raises(UserError, match=r"b\.pt claims 4,0.* bytes of content"):
        read_torch(tmp_path / "b.pt", "a set")


def test_npy(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(6).reshape(2, 3))
    assert read_npy(path, "bins").tolist() == [[0, 1, 2], [3, 4, 5]]
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"(2, 3), }" + b" " * 9, b"(1000000000000, 3)}"[:18].ljust(18)))
    with pytest.raises(UserError, match=r"a\.npy"):
        read_npy(path, "bins")
    np.save(path, np.array([Hostile(tmp_path / "mark")], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="holds Python objects"):
        read_npy(path, "bins")
    path.write_bytes(b"not an array")
    with pytest.raises(UserError, match=r"no \.npy file"):
        read_npy(path, "bins")
    assert not (tmp_path / "mark").exists()


def test_a_header_of_a_million_million_is_not_believed(tmp_path: Path) -> None:
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.int64)) | {"shape": (10**12,)}
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(b"\0" * 80)
    with pytest.raises(UserError, match="claims 8,000,000,000,000 bytes of values and 80 follow"):
        read_npy(tmp_path / "a.npy", "bins")


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    assert inside(folder, "a/b.png") == folder / "a" / "b.png"
    for name in ("../x", "/etc/passwd", "a/../../x", "link/x"):
        with pytest.raises(UserError, match="leads out of that folder"):
            inside(folder, name)


def test_whole_numbers() -> None:
    path = Path("f.pt")
    assert whole_numbers(torch.tensor([1.0, 2.0]), path, "labels").tolist() == [1, 2]
    for values in ([[1]], [0.5], [float("nan")], ["a"], [1e30], {"a": 1}, [[1], [2, 3]]):
        with pytest.raises(UserError, match=r"f\.pt: labels"):
            whole_numbers(values, path, "labels")


def test_indices_must_be_samples_once_each() -> None:
    data = load_dataset("digits").train
    check_indices(np.arange(len(data)), data, Path("f.npy"))
    for wrong, words in (([-1], "holds -1"), ([len(data)], f"0..{len(data) - 1}"), ([3, 4, 3], "sample 3 more than once")):
        with pytest.raises(UserError, match=words):
            check_indices(np.array(wrong), data, Path("f.npy"))
