"""Every extension point of DQAS, each with its contract. Built-ins come in through the same hooks as anybody's plugin.

A plugin is a module (or object) with functions marked ``@hookimpl``; it is found through the entry-point group ``dqas``.
An implementation names only the arguments it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from dqas_plugin.bench.grid import Cell
    from dqas_plugin.request import SelectionRequest
    from dqas_plugin.selection import Selection
    from dqas_plugin.training import EpochReport

PROJECT = "dqas"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def dqas_register_selectors(register: Callable[..., None]) -> None:
    """Add selection methods. Called once, after all plugins are loaded.

    :param register: ``register(selector)`` with what ``@selector(...)`` made. Its function gets one class at a time:
        ``(view, budget, rng)`` and returns positions ``0..n-1`` in the class, best first, at least ``budget`` of them and
        no repeats.
    """


@hookspec
def dqas_register_allocators(register: Callable[..., None]) -> None:
    """Add rules for class counts. Called once, after all plugins are loaded.

    :param register: ``register(allocator)`` with what ``@allocator(...)`` made. Its function gets an
        ``AllocationProblem`` and returns an ``Allocation`` whose counts sum to the budget.
    """


@hookspec
def dqas_register_refiners(register: Callable[..., None]) -> None:
    """Add rules that spend the last part of the budget whatever the class. Called once, after all plugins are loaded.

    :param register: ``register(refiner)`` with what ``@refiner(...)`` made: ``(signals, selected, budget, rng)`` -> the
        dataset indices to add, at most ``budget`` of them, none of them selected already; what is left of the budget is
        drawn from every class alike. The signals, if it needs any, are those of a network trained on an even random draw of
        about the budget; ``signals.trainer`` says how networks are trained, for one that trains its own, and tells people how
        far it is.
    """


@hookspec
def dqas_register_datasets(register: Callable[..., None]) -> None:
    """Add datasets. Called once, after all plugins are loaded.

    :param register: ``register(name, load, title="", takes_path=False)``; ``load(root, **options) -> DatasetSplits``.
        With ``takes_path`` people write ``name:PATH`` and ``load`` gets ``PATH``.
    """


@hookspec
def dqas_register_models(register: Callable[..., None]) -> None:
    """Add networks. Called once, after all plugins are loaded.

    :param register: ``register(name, build, title="", takes_name=False)``; ``build(image_shape, num_classes)`` returns a
        ``Network`` (``features(x) -> [B, d]`` and ``head``). With ``takes_name`` people write ``name:REST`` and ``build``
        gets ``REST`` first.
    """


@hookspec
def dqas_register_importers(register: Callable[..., None]) -> None:
    """Add readers of other people's results. Called once, after all plugins are loaded.

    :param register: ``register(name, load, title="", needs_dataset=False)``; ``load(path)`` returns a ``Ranking``, a
        ``Selection`` or ``DatasetSplits``, and never executes anything from the file. With ``needs_dataset`` it is called as
        ``load(path, data)`` with the training images that the file's indices belong to. An importer that returns a
        ``Ranking`` is also a method: ``name:PATH``.
    """


@hookspec
def dqas_register_exporters(register: Callable[..., None]) -> None:
    """Add writers in other people's formats. Called once, after all plugins are loaded.

    :param register: ``register(name, write, title="", ready=None)``; ``write(splits, selection, out)`` writes the selected
        training images (all of them if ``selection`` is None) into the empty folder ``out``, which appears under its name
        once ``write`` has returned. ``ready(options)`` is called before any work is done, and raises a ``UserError`` if
        something is missing.
    """


@hookspec
def dqas_register_executors(register: Callable[..., None]) -> None:
    """Add ways to run cells. Called once, after all plugins are loaded.

    :param register: ``register(name, open_executor, title="", elsewhere=False, ready=None)``; ``open_executor(jobs)`` is a
        context manager whose value has ``run(function, tasks)``, an iterator of ``(task, result or exception)`` in order of
        completion. Its keyword-only parameters are options. With ``elsewhere`` the workers may be other machines, and ``jobs``
        may be None: as many as they have room for. ``ready(options)`` is called before any work is done, and raises a
        ``UserError`` if something is missing.
    """


@hookspec
def dqas_register_commands(cli: click.Group) -> None:
    """Add commands to ``dqas``. Called once, when the command line starts.

    :param cli: the Click group; add ordinary Click commands to it.
    """


@hookspec
def dqas_epoch_finished(report: EpochReport) -> None:
    """Called after every epoch (or evaluation interval) of a training, in the process that trains.

    :param report: step, steps, mean training loss, learning rate, seconds so far.
    """


@hookspec
def dqas_selection_made(selection: Selection, request: SelectionRequest) -> None:
    """Called once a selection is final, before anything is trained on it.

    :param selection: indices, counts, weights and provenance.
    :param request: what was asked for.
    """


@hookspec
def dqas_cell_finished(cell: Cell, result: dict[str, Any]) -> None:
    """Called in the driver after a cell of a benchmark is finished and stored.

    :param cell: its full configuration.
    :param result: accuracies, counts, seconds (see ``dqas_plugin.bench.cell``).
    """


@hookspec(firstresult=True)
def dqas_select(request: SelectionRequest) -> Selection | None:
    """Make a selection: rank, allocate, refine. The built-in implementation runs last; the first result but None counts.

    Wrap it with ``@hookimpl(wrapper=True)`` to change the request's candidates or to look at the result.

    :param request: dataset, method, budget, allocator, refiner, seed …
    """
