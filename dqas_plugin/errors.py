"""Errors that are meant for people: one sentence that names the thing and the remedy."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "not enough memory", "bad allocation")
_SHOWN = 80  # names in a message
_PLACE = re.compile(r"^\[[^]]*\][ .]*")  # in the source of torch


class DqasError(Exception):
    """Base of every error this project raises on purpose."""


class UserError(DqasError):
    """A mistake the user can mend. The command line prints it on one line and exits with status 2."""


class NotFiniteError(UserError):
    """NaN or infinity where a number is needed. It is the fault of one training or file: other cells of a grid go on."""


class PluginError(DqasError):
    """A plugin broke its contract; the message names the plugin and what it did."""


class OutOfMemoryError(DqasError):
    """There was not enough memory for something."""

    @staticmethod
    def of(error: BaseException) -> OutOfMemoryError:
        """What the error says, as a sentence with a remedy."""
        if isinstance(error, OutOfMemoryError):
            return error
        said = _PLACE.sub("", str(error).strip().partition("\n")[0]).rstrip(".")
        return OutOfMemoryError(
            f"memory ran out{f' ({said})' if said else ''}: use fewer --jobs, a smaller --batch, or a larger machine"
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was wanting, in the words of Python, the system, NumPy, or torch; or that is what the error came of."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MemoryError | OutOfMemoryError) or (isinstance(found, OSError) and found.errno == errno.ENOMEM):
            return True
        if isinstance(found, RuntimeError) and any(words in str(found).lower() for words in _NO_MEMORY):
            return True
        found = found.__cause__
    return False


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """An error that answers a wrong name with the nearest valid ones (or, failing that, with all of them)."""
    return UserError(f"unknown {kind} '{name}': {nearest(name, valid)}")


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of such an error: ``did you mean 'graphcut'?``, or all valid names if none is near."""
    choices = sorted(valid)
    alike = {one: difflib.SequenceMatcher(a=one, b=name.lower()).ratio() for one in choices}
    best = max(alike.values(), default=0.0)
    near = sorted((one for one in choices if alike[one] > best - 0.15), key=lambda one: -alike[one])[:3]
    if best >= 0.5:
        return f"did you mean {' or '.join(repr(one) for one in near)}?"
    shown = choices[:_SHOWN] + ([f"… ({len(choices):,} altogether)"] if len(choices) > _SHOWN else [])
    return f"choose one of {', '.join(shown) or '(none registered)'}"
