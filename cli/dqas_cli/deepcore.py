"""The option ``--deepcore``, which several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def deepcore_option(function: F) -> F:
    """``--deepcore``: it takes effect before the plugins are loaded, and the function does not see it."""
    return click.option(
        "--deepcore",
        metavar="DIR",
        is_eager=True,
        expose_value=False,
        callback=_use_deepcore,
        help="A DeepCore checkout: its methods are then deepcore:NAME.  [default: DEEPCORE_HOME]",
    )(function)


def _use_deepcore(ctx: click.Context, _: click.Parameter, text: str | None) -> None:
    """Put the path where this process and those that it starts look for it."""
    if text is None or ctx.resilient_parsing:
        return
    from dqas_adapters.deepcore.checkout import HOME, Checkout
    from dqas_plugin.plugins import plugins

    path = str(Checkout.at(text).path)
    if os.environ.get(HOME) != path:
        os.environ[HOME] = path
        plugins.cache_clear()  # those loaded for another command of this process do not know it
