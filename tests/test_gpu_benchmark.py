"""The commands of ``benchmarks/gpu.py`` are commands that the program understands, and what it did is not done again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def gpu() -> ModuleType:
    described = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules["gpu"] = module  # its dataclass looks there
    described.loader.exec_module(module)
    return module


@pytest.mark.parametrize("words", [["--tiny"], ["somewhere/cifar10-jpeg"]])
def test_the_program_understands_the_commands(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    from dqas_cli.bench import bench
    from dqas_cli.quantize import quantize

    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    found = gpu.steps(gpu.parsed())
    assert len(found) == 9
    for step in found:
        command = {"bench": bench, "quantize": quantize}[step.words[0]]
        command.make_context(step.words[0], step.words[1:])  # refuses what it does not know
    assert ("--batch", "16") in set(zip(found[2].words, found[2].words[1:], strict=False))


def test_it_goes_on_where_it_was(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is done stays; the time of earlier starts counts; a step that fails is told."""
    call = ["gpu.py", "--tiny", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--minutes", "10"]
    monkeypatch.setattr(sys, "argv", call)
    begun: list[tuple[str, float]] = []

    def carry_out(step: object, limit: float, _: Path) -> None:
        begun.append((step.name, limit))  # type: ignore[attr-defined]
        step.state, step.seconds = ("stopped" if len(begun) == 2 else "done"), 60.0  # type: ignore[attr-defined]

    monkeypatch.setattr(gpu, "carry_out", carry_out)
    assert gpu.main() == 0
    first = list(begun)
    assert [limit for _, limit in first] == [600.0 - 60 * one for one in range(9)]
    assert gpu.main() == 0
    assert begun[9:] == [(first[1][0], 60.0)]
    written = json.loads((tmp_path / "out" / "gpu-tiny.json").read_text())
    assert [one["state"] for one in written["steps"]] == ["done"] * 9
    assert written["steps"][1]["command"].startswith("dqas bench --method graphcut,dq --no-patches --adaptive --ratio 0.05,0.1")
    assert written["versions"]["torch"]
    assert written["cells"] == []
