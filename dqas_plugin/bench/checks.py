"""What is known of a grid before anything is done: its numbers and names, and what of the options concerns which cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dqas_plugin.budget import budget_of
from dqas_plugin.contracts import Entry, Selector
from dqas_plugin.defaults import GOALS, PROXIES
from dqas_plugin.errors import UserError, unknown_name

if TYPE_CHECKING:
    from dqas_plugin.bench.grid import DatasetReference

DEFAULT_RATIOS = (0.05, 0.1)


def budgets_of(dataset: DatasetReference, ratios: Sequence[float], aipc: Sequence[float]) -> list[tuple[str, int]]:
    """Label and number of images of every budget, without repeats.

    Raises:
        UserError: for both kinds of budgets, or one that is out of range.
    """
    size, classes = dataset.images, dataset.classes
    if ratios and aipc:
        raise UserError("give ratios or average images per class (aipc), not both")
    if aipc:
        found = [(f"{one:g} a class", budget_of(size, classes, aipc=one)) for one in aipc]
    else:
        found = [(f"{100 * one:.6g} %", budget_of(size, classes, ratio=one)) for one in ratios or DEFAULT_RATIOS]
    return list({budget: (label, budget) for label, budget in reversed(found)}.values())[::-1]


_MOST_SEEDS = 1_000_000  # more would fill memory before anything is said


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    """Which seeds: 0, 1, … if it is said how many.

    Raises:
        UserError: if there are none.
    """
    if isinstance(seeds, int):
        if seeds < 1:
            raise UserError(f"{seeds} seeds are no benchmark: choose at least 1, and 2 or more for an interval")
        if seeds > _MOST_SEEDS:
            raise UserError(f"{seeds:,} seeds are more than a benchmark ever ends with: choose at most {_MOST_SEEDS:,}")
        return list(range(seeds))
    if not seeds:
        raise UserError("no seeds are given: name at least one")
    return list(dict.fromkeys(seeds))


def check_names(methods: Iterable[str], model: str, goal: str, proxy: str) -> None:
    """Fail before anything is written if a name is unknown."""
    from dqas_plugin.lookup import RankingFile, resolve_method, resolve_model

    if goal not in GOALS:
        raise unknown_name("goal", goal, GOALS)
    if proxy not in PROXIES:
        raise unknown_name("proxy", proxy, PROXIES)
    for method in methods:
        found, _ = resolve_method(method)
        if isinstance(found, RankingFile):
            found.check()
    resolve_model(model)


def method_settings(methods: Sequence[str], features: str, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For every method what concerns it: the options that it has, and where its features come from if it reads any.

    Raises:
        UserError: for an option that none of the methods has.
    """
    from dqas_plugin.lookup import resolve_method

    settings: dict[str, dict[str, Any]] = {}
    selectors = []
    for method in methods:
        found, preset = resolve_method(method)
        if isinstance(found, Selector):
            selectors.append(found)
            own = own_options(found, "method", options, without=preset)
            settings[method] = {"method_options": own, "features": features if "features" in found.needs else "proxy"}
            if found.version:
                settings[method]["method_file"] = found.version
    check_known("method", options, selectors)
    return settings


def allocator_settings(allocators: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For every allocator those of the options that it has.

    Raises:
        UserError: for an unknown allocator, or an option that none of them has.
    """
    from dqas_plugin.plugins import plugins

    if options and not allocators:
        raise UserError(f"the allocator option '{next(iter(options))}' belongs to an allocator: name one, or leave it out")
    found = {name: plugins().allocators[name] for name in allocators}
    check_known("allocator", options, found.values())
    return {name: own_options(one, "allocator", options) for name, one in found.items()}


def check_known(kind: str, options: Iterable[str], entries: Iterable[Entry]) -> None:
    """Refuse an option that none of the entries has."""
    known = {name for one in entries for name in one.options}
    for name in options:
        if name not in known:
            raise unknown_name(f"{kind} option", name, known)


def own_options(entry: Entry, kind: str, options: Mapping[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """Those of the options that the entry has, checked, without those that are set already."""
    from dqas_plugin.plugins import check_options

    own = {name: value for name, value in options.items() if name in entry.options and name not in without}
    check_options(entry, kind, own)
    return own


def told_of_quantization(method: str, quantization: Mapping[str, Any]) -> list[str]:
    """What a method that quantizes does otherwise than usual, in words."""
    from dqas_plugin.quantization.settings import PatchSettings

    told = [] if quantization["bins_on"] == _usual_bins(method) else [f"bins on {quantization['bins_on']}"]
    if quantization["patches"] is None:
        return ["whole images", *told]
    given, plain = quantization["patches"], asdict(PatchSettings())
    changed = {name: value for name, value in given.items() if value != plain[name] and name != "size"}
    return told + [f"{name.replace('_', ' ')} {value}" for name, value in changed.items()]


def _usual_bins(method: str) -> str | None:
    from dqas_plugin.quantization.settings import USUAL_BINS

    return USUAL_BINS[method] if method in USUAL_BINS else quantizes(method)


def quantizes(method: str) -> str | None:
    """Whose features a method that quantizes chooses by; None for the others.

    Raises:
        UserError: for an unknown name.
    """
    from dqas_plugin.lookup import resolve_method

    found, _ = resolve_method(method)
    return found.quantizes if isinstance(found, Selector) else None


def quantizations(
    dataset: DatasetReference, methods: Sequence[str], patches: Mapping[str, Any], bins_on: str | None
) -> dict[str, dict[str, Any]]:
    """For every method that quantizes, how.

    Raises:
        UserError: for a word that means nothing, or patches that do not fit the images.
    """
    from dqas_plugin.quantization.settings import BINS_ON, PatchSettings

    if bins_on is not None and bins_on not in BINS_ON:
        raise unknown_name("kind of images to make bins of", bins_on, BINS_ON)
    given = dict(patches)
    keep = given.pop("keep", False)
    settings = PatchSettings(**given)
    wanted = {method: usual for method in methods if (usual := quantizes(method))}
    if wanted and not keep:
        settings.of(dataset.known_shape)
    described = None if keep else {name: one for name, one in asdict(settings).items() if name != "mae_weights"}
    return {method: {"bins_on": bins_on or usual, "patches": described} for method, usual in wanted.items()}
