"""How many threads compute.

Products of a matrix with a vector wait for memory, not for arithmetic: a second thread in them gains nothing and, where other
work shares the processor, loses a factor of ten in waiting for its partner. Work that falls into independent parts therefore
takes one thread for each part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def available() -> int:
    """Threads that this process may use."""
    return torch.get_num_threads()


@contextmanager
def single_threads() -> Iterator[None]:
    """One thread for every product and layer, of NumPy and torch alike."""
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def in_parallel(work: Callable[[T], R], parts: Sequence[T], workers: int) -> list[R]:
    """``work`` of every part, in order, on so many threads of which each computes alone.

    The first error ends it; parts that have not begun are then left out.
    """
    with single_threads():
        if workers < 2 or len(parts) < 2:
            return [work(part) for part in parts]
        with ThreadPoolExecutor(min(workers, len(parts))) as pool:
            running = [pool.submit(work, part) for part in parts]
            try:
                return [one.result() for one in running]
            except BaseException:  # Ctrl-C as well
                for one in running:
                    one.cancel()
                raise
