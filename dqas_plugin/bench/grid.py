"""Which cells a benchmark has. A cell is a full configuration; its key is the hash of everything that can change the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dqas_plugin.allocation.problem import GOALS
from dqas_plugin.budget import budget_of
from dqas_plugin.contracts import Selector
from dqas_plugin.data import DatasetSplits
from dqas_plugin.datasets.files import file_digest
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.precision import resolve_device
from dqas_plugin.recipes import Recipe
from dqas_plugin.recipes import recipe as find_recipe
from dqas_plugin.request import DEFAULT_MODEL, DEFAULT_RECIPE, PROXIES
from dqas_plugin.signals import MAX_MEMORY

RESULT_FORMAT = 2
"""Part of every key. Raise it when the same configuration would give another result, or the result another form."""

DEFAULT_RATIOS = (0.05, 0.1)


@dataclass(frozen=True)
class DatasetReference:
    """A dataset by name: small enough to send to a worker, which loads it itself.

    Attributes:
        name: what ``load_dataset`` takes, e.g. ``cifar10`` or ``folder:PATH``.
        root: where its files are, or None for the default.
        options: further options of the loader.
        fingerprint: of both splits.
        images: images of the training split.
        classes: number of classes.
        mirror: whether augmentation may mirror.
    """

    name: str
    fingerprint: str
    images: int
    classes: int
    mirror: bool = True
    root: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls, splits: DatasetSplits, name: str, root: str | Path | None = None, options: Mapping[str, Any] | None = None
    ) -> DatasetReference:
        """The reference of a dataset that is loaded already."""
        train, test = splits.train, splits.test
        return cls(
            name=name,
            fingerprint=hashed([train.fingerprint, test.fingerprint]),
            images=len(train),
            classes=train.num_classes,
            mirror=train.mirror,
            root=None if root is None else str(root),
            options=dict(options or {}),
        )

    def identity(self) -> dict[str, Any]:
        """What results depend on: the content, and the name without its path."""
        return {"name": self.name.partition(":")[0], "fingerprint": self.fingerprint, "mirror": self.mirror}


@dataclass(frozen=True)
class Cell:
    """One training set, chosen one way, and one network trained on it.

    Attributes:
        dataset: what is chosen from and tested on.
        method: name of the selector, with its variant: ``graphcut:eq7``.
        budget: images to choose.
        label: the budget as the user gave it, ``5 %`` or ``50 a class``; not part of the key.
        allocator: rule for the class counts.
        refiner: rule for the last ``refine_share`` of the budget, or None.
        goal: what the allocator maximises; ``mean`` where it maximises nothing.
        proxy: what the allocator trains; ``probe`` where it trains nothing.
        model: the network.
        recipe: how it is trained.
        seed: of the proxy, the selection and the training.
        device: kind of device, ``cpu`` or ``cuda``.
        method_options: options of the selector.
        allocator_options: options of the allocator.
        features: what methods that read features see, ``proxy`` or ``timm:NAME``; ``proxy`` for the others.
        max_memory: what ranking a class may take, in bytes.
        method_file: digest of the file that the method's name or the features point to (``ranking:FILE``,
            ``timm:NAME@FILE``), or None.
        quantization: for methods that quantize: ``bins_on``, and the fields of
            :class:`dqas_plugin.quantization.rebuilding.PatchSettings` in ``patches`` (None: whole images). The budget is then
            what the kept patches take, in whole images. None for the other methods.
    """

    dataset: DatasetReference
    method: str
    budget: int
    label: str
    allocator: str = "uniform"
    refiner: str | None = None
    refine_share: float = 0.1
    goal: str = "mean"
    proxy: str = "probe"
    model: str = DEFAULT_MODEL
    recipe: Recipe = field(default_factory=lambda: find_recipe(DEFAULT_RECIPE))
    seed: int = 0
    device: str = "cpu"
    method_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    allocator_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    features: str = "proxy"
    max_memory: int = MAX_MEMORY
    method_file: str | None = None
    quantization: Mapping[str, Any] | None = field(default=None, hash=False)

    @cached_property
    def key(self) -> str:
        """Hash of everything that can change the result; devices' indices, jobs, paths and labels are not part of it."""
        content = self.configuration()
        content["dataset"] = self.dataset.identity()
        content["format"] = RESULT_FORMAT
        content["features"] = self.features.partition("@")[0]  # what is in the file is in ``method_file``
        del content["label"], content["recipe"]["name"]
        if self.refiner is None:
            del content["refine_share"]
        if self.quantization is None:
            del content["quantization"]
        return hashed(content)

    def training_configuration(self, selection: str) -> dict[str, Any]:
        """Everything that the training of a selection (by its digest) depends on; its hash is the key of the training."""
        recipe = self.recipe.as_dict()
        del recipe["name"], recipe["proxy_epochs"]
        # Which patches are dropped depends on the proxy.
        images = {} if self.quantization is None else {"patches": self.quantization["patches"], "proxy": self.proxy_key}
        return {
            **images,
            "format": RESULT_FORMAT,
            "dataset": self.dataset.identity(),
            "selection": selection,
            "model": self.model,
            "recipe": recipe,
            "seed": self.seed,
            "device": self.device,
        }

    @property
    def proxy_key(self) -> str:
        """Hash of what the short training on the full data depends on: cells with the same one share its signals."""
        recipe = self.recipe.for_proxy().as_dict()
        return hashed([self.dataset.identity(), self.model, recipe, self.seed, self.device])

    def configuration(self) -> dict[str, Any]:
        """Every attribute, in values that JSON knows; :meth:`from_configuration` reads it back."""
        return asdict(self)

    @classmethod
    def from_configuration(cls, content: Mapping[str, Any]) -> Cell:
        """The cell of a stored configuration."""
        nested = {"dataset": DatasetReference(**content["dataset"]), "recipe": Recipe(**content["recipe"])}
        return cls(**{**content, **nested})

    @property
    def is_baseline(self) -> bool:
        """Whether it needs no trained network to choose: random images, even counts."""
        return self.method == "random" and not self.variant

    @property
    def variant(self) -> str:
        """What is added to the method: empty for even counts, else for example ``adaptive`` or ``adaptive + eer``."""
        goal = "" if self.goal == "mean" else f" ({self.goal})"
        parts = ["" if self.allocator == "uniform" else self.allocator + goal, self.refiner or ""]
        return " + ".join(part for part in parts if part)

    def __str__(self) -> str:
        name = "+".join([self.method, *self.variant.split(" + ")]) if self.variant else self.method
        return f"{name} {self.label} seed {self.seed}"


def hashed(content: Any) -> str:
    """Hex BLAKE2b-128 of the canonical JSON of ``content``."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def plan(
    dataset: DatasetReference,
    methods: Sequence[str],
    *,
    ratios: Sequence[float] = (),
    aipc: Sequence[float] = (),
    seeds: int | Sequence[int] = 3,
    allocators: Sequence[str] = (),
    refiner: str | None = None,
    refine_share: float = 0.1,
    goal: str = "mean",
    proxy: str = "probe",
    model: str = DEFAULT_MODEL,
    recipe: str | Recipe = DEFAULT_RECIPE,
    device: str = "cpu",
    features: str = "proxy",
    max_memory: int = MAX_MEMORY,
    method_options: Mapping[str, Any] | None = None,
    allocator_options: Mapping[str, Any] | None = None,
    patches: Mapping[str, Any] | None = None,
    bins_on: str | None = None,
) -> list[Cell]:
    """The cells of a grid: ``random`` with even counts, each method with even counts, and each with each allocator.

    Args:
        dataset: see :func:`dqas_plugin.bench.open_dataset`.
        methods: names of selectors.
        ratios: budgets as shares of the training split; default :data:`DEFAULT_RATIOS`.
        aipc: budgets as average images per class, instead of ratios.
        seeds: how many (0, 1, …), or which.
        allocators: what to compare with even counts, ``["adaptive"]`` for ``--adaptive``.
        refiner: rule for the last samples. Cells of even counts without it are the baseline and always part of the grid.
        refine_share: share of the budget left to the refiner.
        goal: ``mean``, ``natural`` or ``worst``: what allocators maximise.
        proxy: ``probe`` or ``train``: what allocators train.
        model: the network.
        recipe: how it is trained.
        device: ``cpu``, ``cuda:0`` …; only its kind is part of a cell.
        features: what methods that read features see: ``proxy`` or ``timm:NAME``.
        max_memory: what ranking a class may take, in bytes.
        method_options: options for those of the methods that have them.
        allocator_options: options for the allocators.
        patches: for methods that quantize: fields of :class:`dqas_plugin.quantization.rebuilding.PatchSettings`, with ``keep``
            true to drop none.
        bins_on: for them: ``original`` or ``reconstructed``; default: as the method does it.

    Raises:
        UserError: for an unknown name, or a number out of range.
    """
    budgets = _budgets(dataset, ratios, aipc)
    numbers = _seeds(seeds)
    _check_choices(goal, proxy)
    if refiner is not None:
        _check_share(refine_share, min(budget for _, budget in budgets), dataset.classes)
    _check_names([*methods, "random"], allocators, refiner, model)
    common: dict[str, Any] = {
        "dataset": dataset,
        "model": model,
        "recipe": find_recipe(recipe),
        "device": resolve_device(device).type,
        "max_memory": max_memory,
    }
    refinement = {} if refiner is None else {"refiner": refiner, "refine_share": refine_share}
    search = {"goal": goal, "proxy": proxy, "allocator_options": dict(allocator_options or {})}
    variants = _variants(allocators, refinement, search)
    own = _own_settings(methods, features, method_options or {})
    for method, quantization in _quantizations(methods, patches or {}, bins_on).items():
        own[method]["quantization"] = quantization
    cells = []
    for label, budget in budgets:
        for method in dict.fromkeys(["random", *methods]):
            listed = method in methods
            chosen: dict[str, Any] = {"method": method, "method_file": _file_digest(method), **own.get(method, {})}
            if "@" in chosen.get("features", ""):
                chosen["method_file"] = _file_digest(chosen["features"], "@")
            for variant in variants if listed else [{}]:
                cells += [Cell(label=label, budget=budget, seed=seed, **chosen, **variant, **common) for seed in numbers]
    return cells


def _budgets(dataset: DatasetReference, ratios: Sequence[float], aipc: Sequence[float]) -> list[tuple[str, int]]:
    """Label and number of images of every budget, without repeats."""
    size, classes = dataset.images, dataset.classes
    if ratios and aipc:
        raise UserError("give ratios or average images per class (aipc), not both")
    if aipc:
        found = [(f"{one:g} a class", budget_of(size, classes, aipc=one)) for one in aipc]
    else:
        found = [(f"{100 * one:.6g} %", budget_of(size, classes, ratio=one)) for one in ratios or DEFAULT_RATIOS]
    return list({budget: (label, budget) for label, budget in reversed(found)}.values())[::-1]


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, int):
        if seeds < 1:
            raise UserError(f"{seeds} seeds are no benchmark: choose at least 1, and 2 or more for an interval")
        return list(range(seeds))
    if not seeds:
        raise UserError("no seeds are given: name at least one")
    return list(dict.fromkeys(seeds))


def _check_choices(goal: str, proxy: str) -> None:
    if goal not in GOALS:
        raise unknown_name("goal", goal, GOALS)
    if proxy not in PROXIES:
        raise unknown_name("proxy", proxy, PROXIES)


def _check_share(share: float, budget: int, classes: int) -> None:
    """A refiner must leave one image for each class to the method."""
    if not 0 < share < 1:
        raise UserError(f"a refine share of {share:g} is not possible: choose a number above 0 and below 1")
    if budget - round(budget * share) < classes:
        raise UserError(
            f"a refine share of {share:g} leaves {budget - round(budget * share)} of {budget} images to the method, "
            f"less than one for each of the {classes} classes: lower it or raise the budget"
        )


def _check_names(methods: Iterable[str], allocators: Iterable[str], refiner: str | None, model: str) -> None:
    """Fail before anything is written if a name is unknown."""
    from dqas_plugin.lookup import resolve_method, resolve_model
    from dqas_plugin.plugins import plugins

    for method in methods:
        resolve_method(method)
    for allocator in allocators:
        plugins().allocators[allocator]
    if refiner is not None:
        plugins().refiners[refiner]
    resolve_model(model)


def _own_settings(methods: Sequence[str], features: str, method_options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For every method what concerns it: the options that it has, and where its features come from if it reads any.

    Raises:
        UserError: for an option that none of the methods has.
    """
    from dqas_plugin.lookup import resolve_method

    settings: dict[str, dict[str, Any]] = {}
    known: set[str] = set()
    for method in methods:
        found, preset = resolve_method(method)
        if not isinstance(found, Selector):
            continue
        known |= found.options.keys()
        options = {name: value for name, value in method_options.items() if name in found.options and name not in preset}
        settings[method] = {"method_options": options, "features": features if "features" in found.needs else "proxy"}
    for name in method_options:
        if name not in known:
            raise unknown_name("method option", name, known)
    return settings


def _quantizations(methods: Sequence[str], patches: Mapping[str, Any], bins_on: str | None) -> dict[str, dict[str, Any]]:
    """For every method that quantizes, how.

    Raises:
        UserError: for a word that means nothing.
    """
    from dqas_plugin.lookup import resolve_method
    from dqas_plugin.quantization.quantize import BINS_ON
    from dqas_plugin.quantization.rebuilding import PatchSettings

    if bins_on is not None and bins_on not in BINS_ON:
        raise unknown_name("kind of images to make bins of", bins_on, BINS_ON)
    given = dict(patches)
    keep = given.pop("keep", False)
    described = None if keep else {name: one for name, one in asdict(PatchSettings(**given)).items() if name != "mae_weights"}
    found = {method: resolve_method(method)[0] for method in methods}
    return {
        method: {"bins_on": bins_on or one.quantizes, "patches": described}
        for method, one in found.items()
        if isinstance(one, Selector) and one.quantizes
    }


def _variants(allocators: Sequence[str], refinement: Mapping[str, Any], search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields of the cells of a method: even counts first. What an allocator does not use stays at its default."""
    from dqas_plugin.plugins import plugins

    variants: list[dict[str, Any]] = [{}]
    for name in dict.fromkeys(allocators or ["uniform"]):
        variant: dict[str, Any] = {"allocator": name, **refinement}
        if name != "uniform":
            variant["allocator_options"] = search["allocator_options"]
        if plugins().allocators[name].trains:
            variant.update(search)
        if variant != {"allocator": "uniform"}:
            variants.append(variant)
    return variants


def _file_digest(name: str, mark: str = ":") -> str | None:
    """Digest of the file behind the colon (or other mark) of a name, if there is one."""
    path = Path(name.partition(mark)[2])
    return file_digest(path) if path.is_file() else None
