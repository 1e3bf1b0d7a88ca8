"""DeepCore (PatrickZH/DeepCore): its methods in our selections, and ours in its benchmark."""

from __future__ import annotations

from collections.abc import Callable

from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.hookspecs import hookimpl


@hookimpl
def dqas_register_selectors(register: Callable[..., None]) -> None:
    """Every class of the checkout that ``DEEPCORE_HOME`` names, as ``deepcore:NAME``; none without one."""
    from dqas_adapters.deepcore.checkout import configured

    try:
        checkout = configured()
    except UserError as error:
        raise PluginError(str(error)) from error
    if checkout is None:
        return
    from dqas_adapters.deepcore.selectors import selectors_of

    for selector in selectors_of(checkout):
        register(selector)


@hookimpl
def dqas_register_importers(register: Callable[..., None]) -> None:
    """Checkpoints of its benchmark."""
    from dqas_adapters.deepcore.checkpoints import load

    register("deepcore", load, title="a checkpoint (.ckpt) of DeepCore's benchmark, as a selection", needs_dataset=True)
