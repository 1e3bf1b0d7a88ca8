"""Work in parallel parts: the same results in the same order, one thread each, and everything put back."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals
from dqas_plugin.threads import in_parallel, single_threads


def counts() -> list[int]:
    return [torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_parts(workers: int) -> None:
    assert in_parallel(lambda one: one * one, range(7), workers) == [one * one for one in range(7)]
    assert in_parallel(str, [], workers) == []


def test_workers_run_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=20)
    assert sorted(in_parallel(lambda _: meeting.wait(), range(2), 2)) == [0, 1]


def test_one_thread_inside_and_as_before_outside() -> None:
    before = counts()
    with single_threads():
        assert set(counts()) == {1}
    assert counts() == before
    assert set(in_parallel(lambda _: torch.get_num_threads(), range(3), 2)) == {1}
    assert counts() == before


def test_the_first_error_ends_it() -> None:
    before, done = counts(), []

    def work(one: int) -> int:
        if one == 0:
            raise ValueError("no")
        done.append(one)
        return one

    with pytest.raises(ValueError, match="no"):
        in_parallel(work, range(1000), 2)
    assert len(done) < 1000
    assert counts() == before


def test_rankings_do_not_depend_on_the_number_of_threads() -> None:
    draws = np.random.default_rng(0)
    labels = np.arange(200) % 4
    signals = Signals.from_arrays(draws.normal(size=(200, 8)), draws.normal(size=(200, 4)), labels)
    before = torch.get_num_threads()
    found: list[Any] = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append([one.tolist() for one in rank(signals, "graphcut", counts=[20] * 4).order])
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
