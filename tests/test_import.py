"""``dqas import`` and ``dqas select --format``: other people's formats in and out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from dqas_adapters import files
from dqas_cli.main import cli
from dqas_plugin import DatasetSplits, Ranking, Selection, UserError, hookimpl, load_dataset, select
from dqas_plugin.data import ImageDataset, TrainOnly
from dqas_plugin.exporting import export
from dqas_plugin.plugins import plugins

NAMES = tuple("0123456789")


def distilled(path: str, *, factor: int = 1) -> DatasetSplits:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 1, 8, 8).repeat_interleave(factor, 0)
    labels = torch.arange(10).repeat_interleave(factor)
    return TrainOnly(ImageDataset(images.contiguous(), labels, NAMES, "toy/train", notes=("assumed nothing",)))


class Formats:
    """A selection and a ranking in files that hold plain indices, a dataset, and two writers."""

    @hookimpl
    def dqas_register_importers(self, register: Any) -> None:
        def read(path: Path, data: ImageDataset, *, skip: int = 0) -> Selection:
            indices = np.loadtxt(path, dtype=np.int64)[skip:]
            return Selection(indices, np.bincount(data.labels.numpy()[indices], minlength=data.num_classes))

        def read_ranking(path: Path, data: ImageDataset) -> Ranking:
            chosen = read(path, data).indices
            return Ranking(tuple(chosen[data.labels.numpy()[chosen] == one] for one in range(data.num_classes)), "text")

        register("text", read, needs_dataset=True)
        register("text-ranking", read_ranking, needs_dataset=True)

    @hookimpl
    def dqas_register_datasets(self, register: Any) -> None:
        register("toy", distilled, takes_path=True)

    @hookimpl
    def dqas_register_exporters(self, register: Any) -> None:
        def write(splits: DatasetSplits, selection: Selection | None, out: Path, *, upper: bool = False) -> None:
            assert selection is not None
            (out / ("A.TXT" if upper else "a.txt")).write_text(str(len(selection)))

        def fail(splits: DatasetSplits, selection: Selection | None, out: Path) -> None:
            (out / "half").write_text("x")
            raise UserError("it cannot be written: do something else")

        register("count", write)
        register("fails", fail)


@pytest.fixture(autouse=True)
def formats() -> Iterator[None]:
    """The toy formats, and our own where the package is not installed."""
    added = [Formats(), *([] if "parquet" in plugins().exporters else [files])]
    for one in added:
        plugins().register(one, getattr(one, "__name__", "formats"))
    yield
    for one in added:
        plugins().unregister(one)


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in args])


def refused(*args: object) -> str:
    done = invoke(*args)
    assert done.exit_code == 2, done.output
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dqas: error: ")
    assert "Traceback" not in done.stderr
    return last


@pytest.fixture
def picks(tmp_path: Path) -> Path:
    path = tmp_path / "picks.txt"
    path.write_text("5 3 9 0")
    return path


def test_a_selection_is_bound_to_its_dataset(tmp_path: Path, picks: Path) -> None:
    done = invoke("import", "text", picks, "--dataset", "digits", "--out", tmp_path / "s.npz")
    assert done.exit_code == 0, done.stderr
    data = load_dataset("digits").train
    chosen = Selection.load(tmp_path / "s.npz", data)
    assert chosen.indices.tolist() == [5, 3, 9, 0]
    assert chosen.fingerprint == data.fingerprint
    invoke("import", "text", picks, "--dataset", "digits", "--option", "skip=2", "--out", tmp_path / "t.npz")
    assert Selection.load(tmp_path / "t.npz").indices.tolist() == [9, 0]


def test_a_ranking_is_a_method(tmp_path: Path, picks: Path) -> None:
    picks.write_text(" ".join(str(one) for one in range(len(load_dataset("digits").train))))
    done = invoke("import", "text-ranking", picks, "--dataset", "digits", "--out", tmp_path / "r.npz")
    assert done.exit_code == 0, done.stderr
    assert "in 10 classes" in done.output
    data = load_dataset("digits").train
    expected = select(data, Ranking.load(tmp_path / "r.npz"), aipc=3).indices
    assert select(data, f"text-ranking:{picks}", aipc=3).indices.tolist() == expected.tolist()


def test_images_become_parquet(tmp_path: Path) -> None:
    done = invoke("import", "toy", "anywhere", "--option", "factor=3", "--out", tmp_path / "d")
    assert done.exit_code == 0, done.stderr
    assert "toy: assumed nothing" in done.stderr
    assert "30 images of 10 classes" in done.output
    back = load_dataset(f"parquet:{tmp_path / 'd'}", test_share=0.0)
    assert torch.equal(back.train.images, distilled("", factor=3).train.images)
    with pytest.raises(UserError, match="--test-from"):
        _ = back.test


def test_a_set_without_a_test_split_is_tested_on_another(tmp_path: Path) -> None:
    assert load_dataset("toy:x", test_from="digits").test.fingerprint == load_dataset("digits").test.fingerprint
    assert "no test split: name the dataset to test on with --test-from" in refused("bench", "--dataset", "toy:x")
    assert invoke("select", "--dataset", "toy:x", "--method", "random", "--aipc", 1, "--out", tmp_path / "s.npz").exit_code == 0


def test_select_writes_the_images(tmp_path: Path) -> None:
    done = invoke("select", "--method", "random", "--aipc", 2, "--format", "parquet", "--out", tmp_path / "d")
    assert done.exit_code == 0, done.stderr
    assert f"saved: {tmp_path / 'd'} (selection.npz, test-00000-of-00001.parquet" in done.output
    data, back = load_dataset("digits"), load_dataset(f"parquet:{tmp_path / 'd'}")
    chosen = Selection.load(tmp_path / "d" / "selection.npz", data.train)
    assert torch.equal(back.train.images, data.train.images[chosen.indices])
    assert torch.equal(back.test.images, data.test.images)


def test_options_of_a_format(tmp_path: Path, picks: Path) -> None:
    same = ("import", "text", picks, "--dataset", "digits", "--to", "count", "--out", tmp_path / "d")
    assert invoke(*same, "--format-option", "upper=yes").exit_code == 0
    assert (tmp_path / "d" / "A.TXT").read_text() == "4"
    assert "not an empty folder" in refused(*same)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "txt", "P", "--out", "O"), "unknown format 'txt': did you mean 'text'"),
        (("import", "text", "P", "--out", "O"), "name it with --dataset NAME"),
        (("import", "text", "P", "--dataset", "digits", "--option", "skp=1", "--out", "O"), "did you mean 'skip'"),
        (("import", "text", "P", "--dataset", "digits", "--option", "skip=x", "--out", "O"), "must be a whole number"),
        (("import", "text", "P", "--dataset", "digits", "--out", "O"), "an .npz file; name it so"),
        (("import", "text-ranking", "P", "--dataset", "digits", "--to", "count", "--out", "O"), "this is a ranking"),
        (("import", "toy", "P", "--to", "conut", "--out", "O"), "unknown exporter 'conut': did you mean 'count'"),
        (("select", "--aipc", "1", "--format-option", "a=1", "--out", "O"), "belongs to a format: add --format NAME"),
        (
            ("select", "--aipc", "1", "--format", "count", "--format-option", "a=1", "--out", "O"),
            "option of the format 'count'",
        ),
        (("select", "--aipc", "1", "--method", "random", "--format", "fails", "--out", "O"), "do something else"),
    ],
)
def test_mistakes_leave_nothing(tmp_path: Path, picks: Path, arguments: tuple[str, ...], words: str) -> None:
    places = {"P": picks, "O": tmp_path / "new" / "o"}
    assert words in refused(*(places.get(one, one) for one in arguments))
    assert not (tmp_path / "new" / "o").exists()
    left = list((tmp_path / "new").iterdir()) if (tmp_path / "new").exists() else []
    assert [one.name for one in left] == (["o.npz"] if "fails" in arguments else [])  # the selection, which took long


def test_an_exporter_checks_the_selection(tmp_path: Path) -> None:
    splits = load_dataset("digits")
    chosen = select(load_dataset("shapes", classes=3, per_class=9).train, method="random", aipc=1)
    with pytest.raises(UserError, match="fingerprint"):
        export("parquet", splits, chosen, tmp_path / "d")
    assert not (tmp_path / "d").exists()
