"""Errors that are meant for people: one sentence that names the thing and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DqasError(Exception):
    """Base of every error this project raises on purpose."""


class UserError(DqasError):
    """A mistake the user can mend. The command line prints it on one line and exits with status 2."""


class PluginError(DqasError):
    """A plugin broke its contract; the message names the plugin and what it did."""


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
    return f"choose one of {', '.join(choices) or '(none registered)'}"
