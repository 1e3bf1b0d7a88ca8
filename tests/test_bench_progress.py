"""Lines where nobody looks, a bar on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from dqas_plugin.bench import Bar, Cell, DatasetReference, Lines, Silent, reporter

CELL = Cell(DatasetReference("digits", "0123", 1438, 10), "graphcut", 72, "5 %", allocator="adaptive", seed=1)
RESULT = {"accuracy": {"mean": 0.831}, "seconds": {"training": 2.1}}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_stream_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(reporter(io.StringIO()), Lines)
    assert isinstance(reporter(Terminal()), Bar)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    found = reporter()
    assert isinstance(found, Lines)
    assert found.stream is stream


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal(), None])
def test_a_run(stream: io.StringIO | None) -> None:
    one = Silent() if stream is None else reporter(stream)
    one.begin(18, 11)
    one.phase("features", 1)
    one.advance()
    one.phase("trainings", 2)
    one.finished(CELL, RESULT)
    one.advance()
    one.failed(CELL, RuntimeError("bad luck\nand more"))
    one.advance()
    one.close()
    if stream is None:
        return
    text = stream.getvalue()
    assert "11 of 18 cells are stored already" in text
    assert "graphcut+adaptive 5 % seed 1: failed (bad luck)" in text
    if isinstance(one, Lines):
        assert "12/18 graphcut+adaptive 5 % seed 1: 83.1 % (2.1 s)\n" in text
    else:
        assert "trainings" in text


def test_an_error_without_words() -> None:
    stream = io.StringIO()
    Lines(stream).failed(CELL, MemoryError())
    assert "failed (MemoryError)" in stream.getvalue()


def test_long_phases_say_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    stream = io.StringIO()
    lines = Lines(stream)
    lines.phase("features", 4)
    for now in (6.0, 12.0, 15.0, 30.0):  # noqa: B007 -- read by the clock above
        lines.advance()
    assert stream.getvalue().splitlines()[1:] == ["features: 2 of 4"]
