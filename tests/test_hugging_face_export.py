"""``--format hf``: what is written, the package ``datasets`` itself reads, and ``hf:DIR`` reads back equal."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import saved_datasets as sets
from dqas_adapters.hugging_face import writing
from dqas_plugin import DatasetSplits, Selection, UserError, load_dataset, select
from dqas_plugin.data import TrainOnly
from dqas_plugin.exporting import export
from saved_datasets import as_read, datasets, load, pictures, pixels, small

registered = pytest.fixture(autouse=True)(sets.registered)
no_network = pytest.fixture(autouse=True)(sets.no_network)
quiet_saving = pytest.fixture(autouse=True)(sets.quiet_saving)
both = pytest.fixture(sets.both)


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_everything_comes_back_equal(tmp_path: Path, name: str) -> None:
    options = {} if name == "digits" else {"classes": 3, "per_class": 20, "test_per_class": 5, "size": 8}
    splits = load_dataset(name, **options)
    export("hf", splits, None, tmp_path / "out")
    theirs = datasets.load_from_disk(tmp_path / "out")
    assert set(theirs) == {"train", "test"}
    for split, ours in (("train", splits.train), ("test", splits.test)):
        found = theirs[split]
        assert found.column_names == ["image", "label", "index"]
        assert found.features["label"].names == list(ours.classes)
        assert np.array_equal(as_read(found["image"]), ours.images.numpy())
        assert found["label"][:] == ours.labels.tolist()
        assert found["index"][:] == list(range(len(ours)))
    back = load(tmp_path / "out")
    assert back.train.fingerprint == splits.train.fingerprint
    assert back.test.fingerprint == splits.test.fingerprint
    assert back.train.mirror is back.test.mirror is splits.train.mirror is False
    assert not [one for one in (tmp_path / "out").iterdir() if one.name.startswith(".")]


def test_a_selection_keeps_its_indices_and_weights(tmp_path: Path) -> None:
    splits = load_dataset("digits")
    indices = np.concatenate([np.flatnonzero(splits.train.labels.numpy() == label)[[3, 1]] for label in range(10)])
    chosen = Selection(indices, np.full(10, 2), np.linspace(0.5, 2, 20).astype(np.float32))
    export("hf", splits, chosen, tmp_path / "out")
    train, test = datasets.load_from_disk(tmp_path / "out").values()
    assert train["index"][:] == indices.tolist()
    assert np.array_equal(as_read(train["image"]), splits.train.images.numpy()[indices])
    assert np.allclose(train["weight"][:], chosen.weights)
    assert train.features == test.features
    assert set(test["weight"][:]) == {1.0}
    assert Selection.load(tmp_path / "out" / "selection.npz", splits.train).indices.tolist() == indices.tolist()
    back = load(tmp_path / "out")
    assert torch.equal(back.train.images, splits.train.images[indices])
    assert back.train.notes == ("columns that were not used: index, weight",)


def test_soft_labels_come_back(tmp_path: Path) -> None:
    targets = torch.softmax(torch.from_numpy(np.random.default_rng(0).normal(size=(8, 2))).float(), dim=1)
    data = small(targets=targets)
    chosen = Selection(np.array([6, 0, 1]), np.array([2, 1]))
    export("hf", TrainOnly(data), chosen, tmp_path / "alone")
    back = load(tmp_path / "alone")
    assert isinstance(back, TrainOnly)
    assert back.train.targets is not None
    assert torch.equal(back.train.targets, targets[[6, 0, 1]])
    assert back.train.mirror
    assert back.train.fingerprint == data.subset(chosen.indices).fingerprint
    export("hf", DatasetSplits(data, small()), None, tmp_path / "both")
    both = load(tmp_path / "both")
    assert both.train.targets is not None
    assert torch.equal(both.train.targets, targets)
    assert both.test.targets is None
    assert datasets.load_from_disk(tmp_path / "both")["test"]["targets"][:] == [[1.0, 0.0], [0.0, 1.0]] * 4
    with pytest.raises(UserError, match=r"soft labels .* leave test_share out"):
        load(tmp_path / "alone", test_share=0.5)


@pytest.mark.parametrize(
    "rows", [[[0.5, 0.5, 0.0]] * 2, [[1.0], [0.0, 1.0, 0.0]], [None, [0.5, 0.5]], [[1, 0]] * 2, [[0.9, 0.9]] * 2]
)
def test_wrong_soft_labels_are_refused(tmp_path: Path, rows: list[Any]) -> None:
    numbers = "int64" if rows[0] == [1, 0] else "float32"
    kind = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["a", "b"]),
        "targets": datasets.Sequence(datasets.Value(numbers)),
    }
    table_ = {"image": pictures(pixels(2)), "label": [0, 1], "targets": rows}
    datasets.Dataset.from_dict(table_, features=datasets.Features(kind)).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match="targets"):
        load(tmp_path / "set")


def test_other_channels_are_refused_and_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images of 4 channels: only grey \(1\) and RGB \(3\)"):
        export("hf", TrainOnly(small(4)), None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_writing_is_one_sentence_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any) -> Iterator[Any]:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(writing._Rows, "__call__", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left on device"):
        export("hf", TrainOnly(small()), None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_the_extra_is_named_and_reading_works(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert len(load(both).train) == 9
    with pytest.raises(UserError, match=r'needs the package datasets: pip install "dqas\[huggingface\]"'):
        export("hf", TrainOnly(small()), None, tmp_path / "out")


def test_the_images_are_not_pickled_for_the_name_of_a_cache() -> None:
    rows = writing._Rows(small(), np.arange(8), None, None)
    assert len(pickle.dumps(rows)) < 200


def test_bars_are_as_before(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    datasets.enable_progress_bars()
    export("hf", TrainOnly(small()), None, tmp_path / "out")
    assert not datasets.utils.are_progress_bars_disabled()
    assert capfd.readouterr() == ("", "")


def test_it_works_from_the_command_line(tmp_path: Path) -> None:
    from dqas_cli.main import cli

    first, second = str(tmp_path / "first"), str(tmp_path / "second.npz")
    done = CliRunner().invoke(cli, ["select", "--method", "random", "--aipc", "5", "--format", "hf", "--out", first])
    assert done.exit_code == 0, done.output
    again = ["select", "--dataset", f"hf:{first}", "--dataset-option", "mirror=false", "--method", "random", "--aipc", "2"]
    done = CliRunner().invoke(cli, [*again, "--out", second])
    assert done.exit_code == 0, done.output
    assert "columns that were not used: index" in done.stderr
    assert len(Selection.load(second, load(Path(first)).train)) == 20
    images = load_dataset("digits").train
    assert torch.equal(load(Path(first)).train.images, images.images[select(images, "random", aipc=5).indices])
