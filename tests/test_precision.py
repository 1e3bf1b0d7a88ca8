"""Whether bf16 is used: asked once, and always answered alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dqas_plugin import precision
from dqas_plugin.errors import UserError
from dqas_plugin.models import convnet3, convnet3_small


@pytest.mark.parametrize(("ratio", "decision"), [(1.3, "bf16"), (1.05, "fp32"), (0.1, "fp32")])
def test_the_probe_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ratio: float, decision: str) -> None:
    monkeypatch.setenv("DQAS_CACHE", str(tmp_path))
    answers = iter([ratio, 9.0 if decision == "fp32" else 0.0])  # the second is never asked for
    monkeypatch.setattr(precision, "_probe", lambda *_: next(answers))
    assert precision.resolve("auto", convnet3_small, (1, 8, 8)) == decision
    assert precision.resolve("auto", convnet3_small, (1, 8, 8)) == decision
    assert len([one for one in (tmp_path / "precision").iterdir() if one.suffix != ".lock"]) == 2
    assert precision.resolve("auto", convnet3, (1, 8, 8)) != decision  # another network is another question


def test_the_first_answer_stands_and_junk_does_not(tmp_path: Path) -> None:
    """Damage to one of its two copies is mended from the other one; both of them must be lost for another measurement."""
    entry, second = tmp_path / "answer", tmp_path / "answer-copy"
    assert precision._answer(entry, lambda: 2.0) == "bf16"
    assert precision._answer(entry, lambda: 0.5) == "bf16"
    for damaged in (entry, second, entry, second):
        (damaged / "meta.json").write_text('{"precis')
        assert precision._answer(entry, lambda: 0.5) == "bf16"
    for damaged in (entry, second):
        (damaged / "meta.json").write_text('{"precis')
    assert precision._answer(entry, lambda: 0.5) == "fp32"
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == [".answer-copy.lock", ".answer.lock", "answer", "answer-copy"]


def test_real_probe_and_explicit_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DQAS_CACHE", str(tmp_path))
    state = torch.get_rng_state()
    assert precision.resolve("auto", convnet3_small, (1, 8, 8)) in ("fp32", "bf16")
    assert torch.equal(torch.get_rng_state(), state)
    assert precision.resolve("bf16", convnet3_small, (1, 8, 8)) == "bf16"
    with pytest.raises(UserError, match="unknown precision 'bf61'"):
        precision.resolve("bf61", convnet3_small, (1, 8, 8))


def test_the_probe_uses_one_thread_and_the_answer_is_for_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    seen = []

    def count(*_: object) -> float:
        seen.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(precision, "_step_seconds", count)
    try:
        torch.set_num_threads(3)
        assert precision._probe(convnet3_small((1, 8, 8), 10), (1, 8, 8)) == 1.0
        assert torch.get_num_threads() == 3
        key = precision._machine_and_network(convnet3_small((1, 8, 8), 10), (1, 8, 8))
        torch.set_num_threads(1)
        assert precision._machine_and_network(convnet3_small((1, 8, 8), 10), (1, 8, 8)) == key
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}
