"""Mistakes of the user's: one line on stderr that names the thing and the remedy, exit status 2, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from one_line import check, refused

ROOT = Path(__file__).resolve().parent.parent
SMALL = "--dataset shapes --dataset-option classes=3 --dataset-option per_class=20 --dataset-option size=8 --iterations 2"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which nothing may be left."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


NAMES = [
    ("bnch", "unknown command 'bnch'", "'bench'"),
    ("bench --metod graphcut", "unknown option '--metod'", "'--method'"),
    ("bench -x", "unknown option '-x'"),
    ("bench extra", "extra"),
    ("bench --method", "--method"),
    ("list metods", "unknown list 'metods'", "'methods'"),
    ("list", "methods|datasets"),
    ("list methods --format jsn", "unknown format 'jsn'", "'json'"),
    ("bench --dataset digit", "unknown dataset 'digit'", "'digits'"),
    ("bench --dataset digits --dataset-option size=8", "digits", "size"),
    ("bench --dataset shapes --dataset-option easy_shar=1", "easy_shar", "'easy_share'"),
    ("bench --dataset shapes --dataset-option easy_share", "NAME=VALUE"),
    ("bench --dataset shapes --dataset-option modes=many", "modes", "whole number"),
    ("bench --dataset shapes --dataset-option easy_share=2", "easy_share", "0..1"),
    ("bench --method grphcut", "unknown method 'grphcut'", "'graphcut'"),
    ("bench --method graphcut:eq", "'eq'", "'eq7'"),
    ("bench --method random,,graphcut", "empty entry"),
    ("bench --model convnet", "unknown model 'convnet'", "'convnet3'"),
    ("bench --model timm:resnet17", "resnet17", "resnet18"),
    ("bench --recipe papr", "unknown recipe 'papr'", "'paper'"),
    ("bench --adaptive --allocator adaptve", "unknown allocator 'adaptve'", "'adaptive'"),
    ("bench --refiner randm", "unknown refiner 'randm'", "'random'"),
    ("bench --refiner error-reduction --refiner-option round=1", "unknown option of the refiner", "'rounds'"),
    ("bench --refiner error-reduction --refiner-option rounds=few", "rounds", "whole number"),
    ("bench --refiner error-reduction --refiner-option rounds", "--refiner-option rounds", "NAME=VALUE"),
    ("bench --refiner error-reduction --scorer retrian", "unknown scorer 'retrian'", "'retrain'"),
    ("bench --refiner error-reduction --scorer ridge --refiner-option scorer=kap2nd", "--scorer ridge", "scorer=kap2nd differ"),
    ("bench --refiner random --refiner-option rounds=1", "'random' takes no options"),
    ("bench --refiner-option rounds=1", "--refiner-option rounds", "--refiner error-reduction"),
    ("bench --scorer ridge", "--scorer belongs to a refiner", "--refiner error-reduction"),
    ("bench --adaptive --allocator-option iteration=1", "unknown allocator option 'iteration'", "'iterations'"),
    ("bench --allocator-option iterations=1", "--allocator-option iterations", "--adaptive"),
    ("select --ratio 0.1 --out s.npz --scorer ridge", "--scorer belongs to a refiner"),
    ("select --ratio 0.1 --out s.npz --allocator paper --allocator-option init=unform", "unknown init", "'uniform'"),
    ("quantize --ratio 0.1 --out s --scorer retrian", "unknown scorer 'retrian'", "'retrain'"),
    ("quantize --ratio 0.1 --out s --pipeline dq --scorer ridge", "no refiner", "'scorer'"),
    ("quantize --ratio 0.1 --out s --no-adaptive --allocator-option iterations=1", "no allocator", "'iterations'"),
    ("bench --method dqas --ratio 0.1,0.9", "1,725 images", "lower the ratio to 0.75"),
    ("bench --executor locl", "unknown executor 'locl'", "'local'"),
    ("bench --prior empircal", "unknown prior 'empircal'", "'empirical'"),
    ("bench --goal men", "unknown goal 'men'", "'mean'"),
    ("bench --proxy trian", "unknown proxy 'trian'", "'train'"),
    ("select --ratio 0.1 --out s.npz --method grphcut", "unknown method 'grphcut'", "'graphcut'"),
    ("select --ratio 0.1 --out s.npz --allocator adaptve", "unknown allocator 'adaptve'", "'adaptive'"),
]

NUMBERS = [
    *((f"bench --ratio {one}", f"--ratio {one}", "above 0 and at most 1") for one in ("0", "1.5", "nan", "inf", "-0.1", "ten")),
    *((f"select --out s.npz --ratio {one}", f"--ratio {one}", "above 0 and at most 1") for one in ("0", "1.5", "nan")),
    *((f"bench --aipc {one}", f"--aipc {one}", "at least 1") for one in ("-5", "0", "2.5", "nan")),
    ("bench --aipc 1000", "1000", "1,438"),
    ("bench --ratio 0.1 --aipc 5", "--ratio and --aipc"),
    ("bench --ratio 0.1,0.00001", "1e-05", "10 classes"),
    ("select --ratio 0.001 --out s.npz", "ratio 0.001", "10 classes"),
    ("select --out s.npz", "--ratio and --aipc"),
    ("select --out s.npz --ratio 0.1 --aipc 5", "--ratio and --aipc"),
    ("select --ratio 0.1", "--out"),
    ("select --ratio 0.1 --out s.txt", ".npz"),
    ("select --ratio 0.1 --seed -1 --out s.npz", "--seed -1"),
    ("bench --seeds 0", "--seeds 0", "at least 1"),
    ("bench --seeds many", "--seeds many"),
    ("bench --jobs 0", "--jobs 0"),
    ("bench --epochs 0", "--epochs 0"),
    ("bench --iterations -3", "--iterations -3"),
    ("bench --epochs 3 --iterations 3", "--epochs and --iterations"),
    ("bench --refine-share 1", "--refine-share 1"),
    ("bench --device cuda:99", "cuda:99"),
    ("select --ratio 0.1 --out s.npz --device warp", "'warp'"),
]


@pytest.mark.parametrize("case", [*NAMES, *NUMBERS], ids=lambda case: str(case[0]))
def test_wrong_words_and_numbers(case: tuple[str, ...], empty_folder: Path) -> None:
    refused(*case)
    assert list(empty_folder.iterdir()) == []


def missing(folder: Path) -> str:
    return f"folder:{folder}/missing"


def empty(folder: Path) -> str:
    return f"folder:{folder}"


def no_images(folder: Path) -> str:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            (folder / split / name / "notes.txt").write_text("no image")
    return f"folder:{folder}"


def damaged_images(folder: Path) -> str:
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(5):
            (folder / name / f"{number}.png").write_bytes(b"no image at all")
    return f"folder:{folder}"


def junk_parquet(folder: Path) -> str:
    (folder / "train-00000-of-00001.parquet").write_bytes(os.urandom(1000))
    (folder / "test-00000-of-00001.parquet").write_bytes(os.urandom(1000))
    return f"parquet:{folder}"


def other_parquet(folder: Path) -> str:
    import pyarrow
    import pyarrow.parquet

    for split in ("train", "test"):
        table = pyarrow.table({"sentence": ["one", "two"], "label": [0, 1]})
        pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return f"parquet:{folder}"


def not_a_folder(folder: Path) -> str:
    (folder / "file").write_text("")
    return f"folder:{folder}/file"


@pytest.mark.parametrize("make", [missing, empty, no_images, damaged_images, junk_parquet, other_parquet, not_a_folder])
def test_data_that_is_none(make: Callable[[Path], str], tmp_path: Path, empty_folder: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    name = make(folder)
    refused(f"bench --dataset {name}", str(folder))
    refused(f"select --dataset {name} --ratio 0.5 --out s.npz", str(folder))
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("written", ["plain", "folder:", "digits:x", "parquet"])
def test_dataset_written_in_the_wrong_form(written: str) -> None:
    refused(f"bench --dataset {written}", written.partition(":")[0])


def test_ranking_that_is_none(tmp_path: Path, empty_folder: Path) -> None:
    from dqas_adapters import files
    from dqas_plugin.plugins import plugins

    if "ranking" not in plugins().importers:
        plugins().register(files, "files")
    (tmp_path / "junk.npz").write_bytes(os.urandom(500))
    for path in (tmp_path / "junk.npz", tmp_path / "missing.npz"):
        refused(f"select --method ranking:{path} --ratio 0.1 --out s.npz", str(path))
        refused(f"bench --method ranking:{path}", str(path))
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("where", ["file/below", "file", "/proc/nothing"])
def test_results_that_cannot_be_written(where: str, empty_folder: Path) -> None:
    (empty_folder / "file").write_text("kept")
    refused(f"bench {SMALL} --ratio 0.5 --seeds 1 --jobs 1 --results {where}", where, "choose")
    assert [one.name for one in empty_folder.iterdir()] == ["file"]
    assert (empty_folder / "file").read_text() == "kept"


@pytest.mark.parametrize("where", ["file/s.npz", "/proc/nothing/s.npz", "."])
def test_selection_that_cannot_be_written(where: str, empty_folder: Path) -> None:
    (empty_folder / "file").write_text("kept")
    refused(f"select {SMALL} --ratio 0.5 --out {where}", "choose" if where != "." else "npz")
    assert [one.name for one in empty_folder.iterdir()] == ["file"]


def test_results_of_something_else(empty_folder: Path) -> None:
    (empty_folder / "dqas-results").mkdir()
    (empty_folder / "dqas-results" / "results.sqlite").write_bytes(os.urandom(5000))
    refused(f"bench {SMALL} --ratio 0.5 --seeds 1 --jobs 1", "results.sqlite")


def test_cache_that_cannot_be_written(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQAS_CACHE", "/proc/nothing")
    refused(f"select {SMALL} --ratio 0.5 --out s.npz", "DQAS_CACHE")
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("arguments", ["bench --ratio 1.5", "bench --dataset folder:nowhere", "bench --method graphcat"])
def test_in_a_process_of_its_own(arguments: str, empty_folder: Path) -> None:
    path = os.pathsep.join(str(ROOT / one) for one in (".", "cli", "adapters"))
    call = [sys.executable, "-m", "dqas_cli", *arguments.split()]
    done = subprocess.run(call, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    check(done.stderr)
    assert list(empty_folder.iterdir()) == []
