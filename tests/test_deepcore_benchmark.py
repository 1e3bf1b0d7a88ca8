"""DeepCore's benchmark run with ours in it: the stand-in always, and the real one if ``DEEPCORE_HOME`` names it."""

from __future__ import annotations

import os
import runpy
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.datasets import load_digits

from deepcore_runs import HOMES, STANDIN, Hostile, checkpoint, training_images
from dqas_adapters.deepcore import __main__ as command
from dqas_adapters.deepcore import benchmark, checkpoints
from dqas_plugin.errors import UserError


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest) -> Path:
    """The folder with main.py."""
    found: Path = request.param
    return found


def benchmark_data(home: Path, folder: Path) -> list[str]:
    """Arguments for a small dataset: the stand-in's own, or the digits where the real one looks for MNIST."""
    if home == STANDIN:
        return ["--dataset", "Digits", "--model", "MLP"]
    digits = load_digits()
    enlarged = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    pixels, labels = np.pad(enlarged, ((0, 0), (2, 2), (2, 2))), digits.target.astype(np.uint8)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, rows in (("train", slice(0, 400)), ("t10k", slice(400, 600))):
        for kind, values in (("images-idx3", pixels[rows]), ("labels-idx1", labels[rows])):
            header = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape)
            (raw / f"{name}-{kind}-ubyte").write_bytes(header + values.tobytes())
    return ["--dataset", "MNIST", "--model", "MLP", "--data_path", str(folder)]


def quick(home: Path, folder: Path, selection: str, *more: str) -> list[str]:
    """A command line that takes seconds; checkpoints go to ``folder/saved``."""
    given = benchmark_data(home, folder / "data") if not (folder / "data").exists() else None
    given = given or ["--dataset", "MNIST", "--model", "MLP", "--data_path", str(folder / "data")]
    size = ["--fraction", "0.1", "--num_exp", "1", "--epochs", "2", "--batch", "32", "--workers", "0", "--seed", "3"]
    training = ["--selection_epochs", "1", "--selection_lr", "0.02", "--lr", "0.02", "--data_path", str(folder / "data")]
    return ["--selection", selection, *given, *size, *training, "--save_path", str(folder / "saved"), *more]


@pytest.fixture
def untold() -> Iterator[None]:
    """It warns, and prints, a lot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def saved(folder: Path) -> list[Path]:
    return sorted((folder / "saved").glob("*.ckpt"), key=lambda one: one.stat().st_mtime_ns)


def is_installed(name: str) -> bool:
    """Whether the module came from an installed package: what stands in for a missing one has no file there."""
    return "site-packages" in (getattr(sys.modules[name], "__file__", None) or "")


@pytest.mark.usefixtures("untold")
def test_the_benchmark_runs_and_its_checkpoint_reads_back(home: Path, tmp_path: Path) -> None:
    before = (home / "main.py").read_bytes()
    modules_before, path, argv = dict(sys.modules), sys.path.copy(), sys.argv
    said: list[str] = []
    arguments = quick(home, tmp_path, "AdaptiveCraig")
    benchmark.run(home / "main.py", arguments, report=said.append, allocator="uniform")
    assert (home / "main.py").read_bytes() == before
    assert (sys.path, sys.argv) == (path, argv)
    added = {name for name in set(sys.modules) - set(modules_before) if not is_installed(name)}
    assert not {one for one in added if one in {"utils", "prefetch_generator", "requests"} or one.startswith("deepcore")}
    assert said[-1].startswith("AdaptiveCraig: 40 images, class counts 4 4 4 4 4 4 4 4 4 4, by 'uniform'")
    file = saved(tmp_path)[-1]
    assert "_MLP_AdaptiveCraig_exp0_epoch2_" in file.name
    data = training_images()
    found = checkpoints.load(file, data)
    assert found.counts.tolist() == [4] * 10
    assert found.weights is not None
    assert (found.weights >= 1).all()
    found.check(data)
    told = found.provenance["deepcore"]
    assert (found.provenance["method"], told["model"], told["epochs"], told["fraction"]) == (
        "deepcore:AdaptiveCraig",
        "MLP",
        2,
        0.1,
    )
    assert told["best_acc1"] == max(told["rec"]["test_acc"])
    assert told["sel_args"]["greedy"] == "LazyGreedy"
    assert told["dqas"]["method"] == "deepcore:Craig"
    with pytest.raises(UserError, match="was made for a training set with other labels than digits"):
        checkpoints.load(file, data.subset(np.arange(399, -1, -1)))


@pytest.mark.usefixtures("untold")
def test_it_goes_on_from_a_checkpoint(home: Path, tmp_path: Path) -> None:
    said: list[str] = []
    arguments = quick(home, tmp_path, "AdaptiveGraphCut")
    benchmark.run(home / "main.py", arguments, report=said.append, allocator="uniform")
    first, said = saved(tmp_path)[-1], []
    again = [*arguments, "--resume", str(first), "--epochs", "4"]
    benchmark.run(home / "main.py", again, report=said.append, allocator="uniform")
    assert said == []  # nothing was selected again
    assert len(saved(tmp_path)) > 1
    data = training_images()
    one, other = (checkpoints.load(file, data) for file in (first, saved(tmp_path)[-1]))
    assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.usefixtures("untold")
def test_a_plain_method_runs_as_without_us(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    arguments = quick(home, tmp_path, "Submodular")
    benchmark.run(home / "main.py", arguments, report=said.append)
    assert said == []
    ours = checkpoints.load(saved(tmp_path)[-1], training_images())
    for name, module in {"prefetch_generator": benchmark._prefetch_generator(), "requests": benchmark._requests()}.items():
        monkeypatch.setitem(sys.modules, name, module)  # what it imports, and may not be installed
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    before = set(sys.modules)
    runpy.run_path(str(home / "main.py"), run_name="__main__")
    for name in set(sys.modules) - before:
        if name == "utils" or name.partition(".")[0] == "deepcore":
            del sys.modules[name]
    theirs = checkpoints.load(saved(tmp_path)[-1], training_images())
    assert len(saved(tmp_path)) >= 2
    assert ours.indices.tolist() == theirs.indices.tolist()
    assert ours.provenance["deepcore"]["rec"] == theirs.provenance["deepcore"]["rec"]
    assert ours.provenance["deepcore"]["best_acc1"] == theirs.provenance["deepcore"]["best_acc1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AdaptiveGraphCut", "AdaptiveUncertainty", "AdaptiveGradMatch"])
def test_class_counts_are_chosen_in_a_process_of_its_own(home: Path, tmp_path: Path, name: str) -> None:
    root = Path(__file__).parents[1]
    here = os.pathsep.join(str(root / one) for one in ("", "cli", "adapters"))
    line = [
        sys.executable,
        "-m",
        "dqas_adapters.deepcore",
        str(home / "main.py"),
        *quick(home, tmp_path, name, "--epochs", "10"),
    ]
    done = subprocess.run(line, env={**os.environ, "PYTHONPATH": here}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    decision = next(one for one in done.stderr.splitlines() if one.startswith(f"dqas: {name}: 40 images, class counts "))
    assert "by 'adaptive'" in decision
    data = training_images()
    found = checkpoints.load(saved(tmp_path)[-1], data)
    printed = decision.partition("class counts ")[2].partition(",")[0].split()
    if found.weights is None:
        assert found.counts.tolist() == [int(one) for one in printed]
    assert sum(map(int, printed)) == 40
    assert "dqas:" not in done.stdout


def run_command(*line: str) -> Any:
    return CliRunner().invoke(command.program, line, catch_exceptions=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            (str(STANDIN / "main.py"), "--selection", "AdaptiveHarding"),
            "dqas: error: unknown adaptive method 'AdaptiveHarding': did",
        ),
        ((str(STANDIN / "main.py"), "--selection=adaptiveherding"), "unknown adaptive method 'adaptiveherding': did you mean"),
        ((str(STANDIN / "absent.py"),), "absent.py is no file: give the main.py of a DeepCore checkout"),
        ((__file__,), "is no DeepCore checkout, it has no deepcore/methods"),
        (
            (str(STANDIN / "main.py"), "--selection", "AdaptiveFull", *("-j", "0", "--fraction", "0.5")),
            "Full takes all samples",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(line: tuple[str, ...], message: str) -> None:
    done = run_command(*line)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len([one for one in done.stderr.splitlines() if "error" in one]) == 1


def test_the_benchmarks_own_complaints_come_through(capsys: pytest.CaptureFixture[str]) -> None:
    """Not by CliRunner: that of click 8.2.0 loses what is written to standard error without a flush."""
    with pytest.raises(SystemExit) as left:
        command.program([str(STANDIN / "main.py"), "--selection", "Herding", "--no-such-option"])
    assert left.value.code == 2
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], None),
        (["--selection", "A", "--fraction", "0.1"], "A"),
        (["--selection=A", "--selection", "B"], "B"),
        (["--selection_epochs", "4", "--submodular", "GraphCut"], None),
        (["--selection"], None),
    ],
)
def test_which_method_a_command_line_names(arguments: list[str], expected: str | None) -> None:
    assert benchmark.selection_of(arguments) == expected


def test_stand_ins_are_there_only_inside() -> None:
    missing = [name for name in ("prefetch_generator", "requests") if name not in sys.modules]
    with benchmark._stand_ins():
        import prefetch_generator

        assert list(prefetch_generator.BackgroundGenerator([1, 2])) == [1, 2]
    assert not [name for name in missing if name in sys.modules and isinstance(sys.modules[name].__spec__, type(None))]
    with pytest.raises(UserError, match="pip install requests"):
        benchmark._requests().get("http://example.org")


@pytest.mark.usefixtures("untold")
def test_a_hostile_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, sel_args=Hostile(tmp_path / "mark"))
    with pytest.raises(UserError, match="the checkpoint to resume from holds more than tensors and plain values"):
        benchmark.run(STANDIN / "main.py", ["--resume", str(file)], report=lambda words: None)
    assert not (tmp_path / "mark").exists()


def test_weighted_subsets_of_the_benchmark_keep_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader of torch 2 asks torch's ``Subset`` for whole batches, past the class that derives from it."""
    own = ModuleType("utils")

    class WeightedSubset(torch.utils.data.Subset[Any]):
        def __init__(self, dataset: Any, indices: list[int]) -> None:
            self.dataset, self.indices = dataset, indices  # as DeepCore's: torch's own would refuse the class

        def __getitem__(self, place: Any) -> Any:
            return self.dataset[self.indices[place]], 10.0 * place

    own.WeightedSubset = WeightedSubset  # type: ignore[attr-defined]
    own.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "utils", own)
    loader = torch.utils.data.DataLoader(WeightedSubset(range(5, 9), [3, 1]), batch_size=2)
    assert [len(one) for one in loader] == [2]
    assert next(iter(loader)).tolist() == [8, 6]  # without weights
    benchmark._mend_weighted_subsets()
    values, weights = next(iter(loader))
    assert (values.tolist(), weights.tolist()) == ([8, 6], [0.0, 10.0])
