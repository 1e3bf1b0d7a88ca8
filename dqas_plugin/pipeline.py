"""Rank, allocate, refine: the three calls that make a selection, and the functions in front of them.

``select`` is what people call. It works with any registered method, a function like one, a ready :class:`Ranking`, or an array
of indices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dqas_plugin.budget import budget_of
from dqas_plugin.data import ImageDataset
from dqas_plugin.defaults import DEFAULT_MODEL, DEFAULT_RECIPE, MAX_MEMORY
from dqas_plugin.errors import PluginError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.plugins import plugins
from dqas_plugin.ranking import rank
from dqas_plugin.recipes import Recipe
from dqas_plugin.recipes import recipe as named_recipe
from dqas_plugin.refining import chosen_refiner
from dqas_plugin.request import Method, SelectionRequest
from dqas_plugin.selection import Selection
from dqas_plugin.steps import Steps

__all__ = ["DEFAULT_MODEL", "DEFAULT_RECIPE", "Method", "SelectionRequest", "check", "prepare", "rank", "run_request", "select"]


def select(
    data: ImageDataset,
    method: Method = "graphcut",
    *,
    ratio: float | None = None,
    aipc: float | None = None,
    budget: int | None = None,
    adaptive: bool = False,
    allocator: str | None = None,
    allocator_options: Mapping[str, Any] | None = None,
    refiner: str | None = None,
    refiner_options: Mapping[str, Any] | None = None,
    refine_share: float = 0.1,
    goal: str = "mean",
    proxy: str = "probe",
    model: str = DEFAULT_MODEL,
    recipe: str | Recipe = DEFAULT_RECIPE,
    seed: int = 0,
    device: str = "cpu",
    features: str = "proxy",
    max_memory: int = MAX_MEMORY,
    report: Callable[[str], None] | None = None,
    **method_options: Any,
) -> Selection:
    """Choose a training set of a given size.

    Args:
        data: the training images (``load_dataset(...).train``).
        method: ``graphcut`` … (``dqas list methods``), a function ``f(view, budget, rng)``, a ranking, or indices to cut.
        ratio: size as a part of ``data``; give exactly one of ``ratio``, ``aipc`` and ``budget``.
        aipc: size as average images per class (paper, Eq. 9).
        budget: size in images.
        adaptive: let the default allocator choose the class counts, and error reduction the last ``refine_share`` of the
            samples.
        allocator: or name one (``dqas list allocators``).
        method_options: options of the method, e.g. ``objective="eq7"``.
        refiner: rule for the last samples; ``"none"``: none, even with ``adaptive``.
        refiner_options: options of the refiner, e.g. ``{"rounds": 1, "diversity": None}``: the paper's one-shot choice.
        allocator_options: see :class:`SelectionRequest`, as for the other arguments.

    Raises:
        UserError: for unknown names and options, or a budget that cannot be met.
    """
    request = SelectionRequest(
        data=data,
        method=method,
        budget=budget_of(len(data), data.num_classes, ratio=ratio, aipc=aipc, budget=budget),
        method_options=method_options,
        allocator=allocator or ("adaptive" if adaptive else "uniform"),
        allocator_options=allocator_options or {},
        refiner=chosen_refiner(refiner, adaptive),
        refiner_options=refiner_options or {},
        refine_share=refine_share,
        goal=goal,
        proxy=proxy,
        model=model,
        recipe=named_recipe(recipe),
        seed=seed,
        device=device,
        features=features,
        max_memory=max_memory,
    )
    if report is not None:
        request.report = report
    return run_request(request)


def run_request(request: SelectionRequest) -> Selection:
    """Answer a request through the hook ``dqas_select``, so that plugins may wrap or replace it."""
    selection = plugins().hook.dqas_select(request=request)
    if not isinstance(selection, Selection):
        raise PluginError(f"the hook dqas_select gave {type(selection).__name__} instead of a Selection: mend the plugin")
    plugins().hook.dqas_selection_made(selection=selection, request=request)
    return selection


@hookimpl(trylast=True, specname="dqas_select")
def rank_allocate_refine(request: SelectionRequest) -> Selection:
    """The built-in way to make a selection."""
    steps = Steps(request)
    ranking = steps.rank()
    allocation = steps.allocate(ranking)
    return steps.refine(ranking, allocation)


def check(request: SelectionRequest) -> None:
    """Find out whether the request can be answered, before anything is trained.

    Raises:
        UserError: for unknown names and options, budgets that cannot be met, too much memory, too many trainings.
    """
    Steps(request)


def prepare(request: SelectionRequest) -> None:
    """Train and cache what the selection will need, so that requests that share it can then run side by side."""
    steps = Steps(request)
    if steps.needs:
        _ = steps.signals
    if steps.probes:
        steps.probe_signals("allocation")
