"""Words for people: of work that goes on for minutes, of how long it takes, and of names that may hold any character."""

from __future__ import annotations

import time
from collections.abc import Callable
from unicodedata import category

_PAUSE = 10.0  # seconds between two reports
YEAR = 365.25 * 24 * 3600
"""Seconds."""


_UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of characters, ends of lines and paragraphs
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of what follows


def visible(text: str) -> str:
    """The text on one line, with what a terminal would obey instead of show written out: ``\\n``, ``\\x1b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode("ascii") if category(one) in _UNSEEN or one in _TURNING else one for one in text
    )


class Told:
    """Reports ``what: 1,280 of 50,000 images``; silent for work that is over at once."""

    def __init__(self, what: str, report: Callable[[str], None] | None, unit: str = "images") -> None:
        self.what, self.report, self.unit = what, report, unit
        self.last = time.monotonic()

    def done(self, count: int, total: int, more: str = "") -> None:
        """So many of the images (or other units) are done; with something more to say."""
        if count < total:
            self.say(f"{count:,} of {total:,} {self.unit}" + (f", {more}" if more else ""))

    def say(self, words: str) -> None:
        """These words, unless others were said a moment ago."""
        if self.report is None or time.monotonic() - self.last < _PAUSE:
            return
        self.last = time.monotonic()
        self.report(f"{self.what}: {words}")


def duration(seconds: float) -> str:
    """For people: ``3 s``, ``25 min``, ``2.5 h``, ``12 days``, ``3.4 years``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds < YEAR:
        return f"{round(seconds / (24 * 3600))} days"
    return f"{seconds / YEAR:,.1f} years"
