"""Words about long work."""

from __future__ import annotations

import pytest

from dqas_plugin import told
from dqas_plugin.told import YEAR, Told, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(told.time, "monotonic", lambda: now[0])
    return now


def test_no_more_often_than_people_read(clock: list[float]) -> None:
    said: list[str] = []
    steps = Told("training the autoencoder", said.append, "steps")
    for step in range(1, 31):
        clock[0] += 1
        steps.done(step, 30, f"{step / 10} dB")
    assert said == ["training the autoencoder: 10 of 30 steps, 1.0 dB", "training the autoencoder: 20 of 30 steps, 2.0 dB"]


def test_what_is_over_at_once_and_what_is_done_are_not_told(clock: list[float]) -> None:
    said: list[str] = []
    Told("features", said.append).done(10, 2000)
    late = Told("features", said.append)
    clock[0] += 60
    late.done(2000, 2000)
    assert said == []
    late.done(1280, 50_000)
    late.say("unheard")
    assert said == ["features: 1,280 of 50,000 images"]
    Told("features", None).say("nobody listens")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (47 * 3600, "47.0 h"),
        (48 * 3600, "2 days"),
        (0.9 * YEAR, "329 days"),
        (YEAR, "1.0 years"),
        (12345.6 * YEAR, "12,345.6 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
