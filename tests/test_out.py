"""Where results are written to: what can be replaced, what cannot, and that this is known before the work."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from dqas_cli.main import cli
from dqas_plugin import Ranking, Selection, UserError
from dqas_plugin.bench import DatasetReference, Store
from dqas_plugin.lookup import load_dataset, resolve_method
from dqas_plugin.paths import atomic_file, new_folder
from load_problem import fill, one_table

NO_TEXT = os.fsdecode(b"bl\xfcten")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    link, real = tmp_path / "link.md", tmp_path / "real.md"
    link.symlink_to(real)
    for text in ("first", "second"):
        with atomic_file(link) as whole:
            whole.write_text(text)
        assert link.is_symlink()
        assert real.read_text() == text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "results", one_table(8, methods=("random",)))
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "folder.md").mkdir()
    for name, words in (("pipe.md", "is no regular file: choose another name"), ("folder.md", "is a folder: name a file")):
        done = invoke("table", "2", "--results", str(tmp_path / "results"), "--out", str(tmp_path / name))
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == f"dqas: error: {tmp_path / name} {words}\n"
    assert stat.S_ISFIFO((tmp_path / "pipe.md").stat().st_mode)


def test_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_folder(tmp_path / "link") as made:
        (made / "file").write_text("x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "x"


def test_folders_whose_place_nothing_can_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mount").mkdir()
    monkeypatch.chdir(tmp_path / "mount")
    monkeypatch.setattr("dqas_plugin.pipeline.select", None)
    how = ["select", "--ratio", "0.1", "--format", "parquet", "--out"]
    done = invoke(*how, ".")
    assert done.exit_code == 2
    assert (
        done.stderr == "dqas: error: . is the folder you are in, and a new folder cannot take its place: name one inside it\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "mount")
    done = invoke(*how, str(tmp_path / "mount"))
    assert done.exit_code == 2
    assert "is the root of a file system, and a new folder cannot take its place" in done.stderr


def test_words_that_are_no_text_are_refused_before_the_work(tmp_path: Path) -> None:
    """They could be written, as halves of characters, and not be read again."""
    splits = load_dataset("digits")
    told = r"is no text in UTF-8, which results are written in: rename it"
    for name, root, options in ((f"folder:{NO_TEXT}/ok", None, {}), ("digits", NO_TEXT, {}), ("digits", None, {"of": NO_TEXT})):
        with pytest.raises(UserError, match=told):
            DatasetReference.of(splits, name, root, options)
    with pytest.raises(UserError, match=told):
        resolve_method(f"ranking:{NO_TEXT}.npz")
    with pytest.raises(UserError, match="is no text in UTF-8"):
        Ranking((np.array([0]),), NO_TEXT).save(tmp_path / "r.npz")
    assert list(tmp_path.iterdir()) == []
    with Store(tmp_path / "results") as store:
        with pytest.raises(UserError, match="is no text in UTF-8"):
            store.add_training({"method": NO_TEXT}, {})
        store.add_training({"method": "fine"}, {})
        assert store.training({"method": "fine"}) == {}


@pytest.mark.filterwarnings("error")
def test_a_damaged_row_is_one_sentence(tmp_path: Path, capfd: Any) -> None:
    fill(tmp_path, one_table(40, methods=("random",)))
    with closing(sqlite3.connect(tmp_path / "results.sqlite")) as database, database:
        database.execute("UPDATE cells SET config = 'x'")
    done = invoke("table", "2", "--results", str(tmp_path))
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    with Store.existing(tmp_path) as store, pytest.raises(UserError, match="is damaged"):
        list(store.cells())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("bench --method random --goal worst", "--goal has no effect here: there is no allocator"),
        ("select --ratio 0.1 --out a.npz --proxy train", "--proxy has no effect here: there is no allocator"),
        ("bench --allocator adaptive --refine-share 0.2", "--refine-share has no effect here: there is no refiner"),
        ("bench --method graphcut --drop-rate 7", "--drop-rate has no effect here: no method drops patches"),
        ("select --ratio 0.1 --out a --format parquet --force", "--force has no effect here: a folder is not overwritten"),
        (
            "quantize --ratio 0.1 --out a --no-patches --rebuilt",
            "--rebuilt has no effect here: --no-patches keeps whole images",
        ),
        ("quantize --ratio 0.1 --out a --no-adaptive --refine-share 0.2", "--refine-share has no effect here: only DQAS"),
        ("quantize --ratio 0.1 --out a --mae-weights x.pt --rebuild harmonic", "--rebuild has no effect here: --mae-weights"),
        ("quantize --ratio 0.1 --out a --mae-weights x.pt", "x.pt cannot be read as the weights of a masked autoencoder"),
        ("import images x --out a --dataset digits", "--dataset has no effect here: 'images' holds images"),
        ("bench --dataset-option modes=3 --dataset-option modes=4", "--dataset-option modes is given twice, as 3 and 4"),
    ],
)
def test_options_without_effect(arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"dqas: error: {words}")
    assert list(tmp_path.iterdir()) == []


def test_a_selection_that_cannot_be_exported_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = ["select", "--method", "random", "--aipc", "2", "--format", "dc", "--out", "made"]
    for name in ("made.npz", "made-1.npz"):
        done = invoke(*call)
        assert done.exit_code == 2
        assert done.stderr.endswith(f"; the selection itself is in {name}\n")
        assert len(Selection.load(tmp_path / name)) == 20
    assert not (tmp_path / "made").exists()
    done = invoke(*call[:5], "--format", "webdataset", "--format-option", "shard=0", "--out", "other")
    assert (done.exit_code, done.stderr) == (2, "dqas: error: shard of the format 'webdataset' must be at least 1, not 0\n")
