"""Checkpoints of DeepCore's benchmark read back, also those that are wrong or hostile."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from deepcore_runs import Hostile, checkpoint, training_images
from dqas_adapters import deepcore
from dqas_adapters.deepcore import checkpoints
from dqas_adapters.deepcore.checkout import HOME
from dqas_plugin import Selection
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import Plugins


def test_a_checkpoint_of_the_selection_alone(tmp_path: Path) -> None:
    data = training_images()
    found = checkpoints.load(checkpoint(tmp_path), data)
    assert isinstance(found, Selection)
    assert (found.indices.tolist(), found.weights) == ([3, 0, 7], None)
    assert found.counts.tolist() == np.bincount(data.labels[[3, 0, 7]], minlength=10).tolist()
    assert found.fingerprint == data.fingerprint
    told = found.provenance["deepcore"]
    assert found.provenance["method"] == "deepcore:Herding"
    assert (told["dataset"], told["model"], told["exp"], told["epochs"], told["fraction"]) == (
        "CIFAR10",
        "ResNet18",
        2,
        200,
        0.1,
    )
    assert told["sel_args"] == {"epochs": 40, "balance": True, "greedy": "Lazy"}
    back = Selection.load(found.save(tmp_path / "s.npz"), data)
    assert back.provenance["deepcore"]["date"] == "2021-08-01 12:00:00.000000"


@pytest.mark.parametrize(
    "indices", [[3, 0, 7], torch.tensor([3, 0, 7]), np.array([3, 0, 7], np.int32), np.array([3.0, 0.0, 7.0])]
)
def test_indices_of_all_kinds(tmp_path: Path, indices: Any) -> None:
    assert checkpoints.load(checkpoint(tmp_path, subset={"indices": indices}), training_images()).indices.tolist() == [
        3,
        0,
        7,
    ]


def test_a_file_of_another_name_tells_less(tmp_path: Path) -> None:
    found = checkpoints.load(checkpoint(tmp_path, name="mine"), training_images())
    assert found.provenance["method"] == "deepcore"
    assert "model" not in found.provenance["deepcore"]


def test_what_json_does_not_know_is_left_out(tmp_path: Path) -> None:
    rec = SimpleNamespace(test_acc=[1.0, float("nan")], test_loss=["x"], train_loss=None, other=[1.0])
    file = checkpoint(tmp_path, best_acc1=float("inf"), rec=rec, sel_args={"a": 10**30, "b": [1], 3: float("nan")})
    told = checkpoints.load(file, training_images()).provenance["deepcore"]
    assert (told["best_acc1"], told["rec"]) == (None, {"test_acc": [1.0, None]})
    assert told["sel_args"] == {"a": "int", "b": "list", "3": None}
    json.dumps(told, allow_nan=False)


def subset(**parts: Any) -> dict[str, Any]:
    return {"subset": {"indices": np.array([3, 0, 7]), **parts}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subset": {"indices": np.array([0, 400])}}, r"subset\['indices'\] holds 400, but digits has samples 0\.\.399"),
        ({"subset": {"indices": np.array([-1, 4])}}, r"subset\['indices'\] holds -1"),
        ({"subset": {"indices": np.array([4, 5, 4])}}, r"holds the sample 4 more than once"),
        ({"subset": {"indices": np.array([0.5])}}, r"subset\['indices'\] must be whole numbers"),
        ({"subset": {"indices": np.zeros((2, 2), np.int64)}}, r"subset\['indices'\] must be one row of whole numbers"),
        ({"subset": {"indices": SimpleNamespace()}}, r"subset\['indices'\] must be one row of whole numbers"),
        ({"subset": {"indices": []}}, r"subset\['indices'\] is empty"),
        ({"subset": [1, 2]}, r"is no DeepCore checkpoint: it has no 'subset' with 'indices'"),
        ({"subset": {}}, r"is no DeepCore checkpoint"),
        (subset(weights=np.ones(2)), r"subset\['weights'\] must be one number for each of the 3 indices, not float64 \(2,\)"),
        (subset(weights=np.array([1.0, np.nan, 1.0])), r"subset\['weights'\] must be at least 0 and finite"),
        (subset(weights=np.array([1.0, -1.0, 1.0])), r"subset\['weights'\] must be at least 0 and finite"),
        (subset(weights=np.zeros(3)), r"subset\['weights'\] must be at least 0 and finite, and not all 0"),
        (subset(weights=["a", "b", "c"]), r"subset\['weights'\] must be one number for each"),
        (subset(weights=[[1], [1, 2], 3]), r"subset\['weights'\] is no array of numbers"),
        ({"subset": {"indices": torch.zeros(1, dtype=torch.int64).expand(10**12)}}, "more than the file holds"),
        ({"state_dict": {"w": torch.zeros(10**7, 10**5, layout=torch.sparse_coo)}}, "more than the file holds"),
    ],
)
def test_checkpoints_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = checkpoint(tmp_path, **change)
    with pytest.raises(UserError, match=message) as caught:
        checkpoints.load(file, training_images())
    assert str(file) in str(caught.value)


def test_a_hostile_checkpoint_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, sel_args=Hostile(tmp_path / "mark"))
    with pytest.raises(UserError, match=r"it asks for (posix|nt)\.system, and reading that could run code"):
        checkpoints.load(file, training_images())
    assert not (tmp_path / "mark").exists()


def test_the_plugin_brings_the_importer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME, raising=False)
    loaded = Plugins(strangers=False)
    loaded.register(deepcore, "deepcore")
    assert loaded.problems == []
    importer = loaded.importers["deepcore"]
    assert importer.needs_dataset
    data = training_images()
    assert importer.read(checkpoint(tmp_path), data).indices.tolist() == [3, 0, 7]
