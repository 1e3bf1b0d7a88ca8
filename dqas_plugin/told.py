"""Words about work that goes on for minutes, not more often than people want to read them."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE = 10.0  # seconds between two reports


class Told:
    """Reports ``what: 1,280 of 50,000 images``; silent for work that is over at once."""

    def __init__(self, what: str, report: Callable[[str], None] | None) -> None:
        self.what, self.report = what, report
        self.last = time.monotonic()

    def done(self, count: int, total: int) -> None:
        """So many of the images are done."""
        if self.report is None or count >= total or time.monotonic() - self.last < _PAUSE:
            return
        self.last = time.monotonic()
        self.report(f"{self.what}: {count:,} of {total:,} images")
