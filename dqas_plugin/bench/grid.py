"""Which cells a benchmark has. A cell is a full configuration; its key is the hash of everything that can change the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqas_plugin.bench import checks
from dqas_plugin.bench.foreign import WRAPPERS, foreign_plugins
from dqas_plugin.defaults import DEFAULT_MODEL, DEFAULT_RECIPE, MAX_MEMORY
from dqas_plugin.errors import UserError
from dqas_plugin.recipes import Recipe
from dqas_plugin.recipes import recipe as find_recipe
from dqas_plugin.untrusted import check_text

if TYPE_CHECKING:  # torch is not needed to read results
    from dqas_plugin.data import DatasetSplits
    from dqas_plugin.models import Shape
    from dqas_plugin.quantization.settings import PatchSettings
    from dqas_plugin.refining import Refinement

RESULT_FORMAT = 2
"""Part of every key. Raise it when the same configuration would give another result, or the result another form."""


@dataclass(frozen=True)
class DatasetReference:
    """A dataset by name: small enough to send to a worker, which loads it itself.

    Attributes:
        name: what ``load_dataset`` takes, e.g. ``cifar10`` or ``folder:PATH``.
        root: where its files are, or None for the default.
        options: further options of the loader.
        shape: channels, height and width of its images; None: not known.
        class_names: one for each class; empty: not known.
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
    shape: Shape | None = None
    class_names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name, with the options: ``shapes (modes=30)``."""
        return with_options(self.name, self.options)

    @property
    def known_shape(self) -> Shape:
        """The shape.

        Raises:
            UserError: if it is not known.
        """
        if self.shape is None:
            raise UserError(f"the shape of the images of '{self.name}' is not known: get the dataset by open_dataset")
        return self.shape

    @classmethod
    def of(
        cls, splits: DatasetSplits, name: str, root: str | Path | None = None, options: Mapping[str, Any] | None = None
    ) -> DatasetReference:
        """The reference of a dataset that is loaded already.

        Raises:
            UserError: if its path, or an option, is no text.
        """
        check_text(name, root, *(options or {}).values())
        train, test = splits.train, splits.test
        return cls(
            name=name,
            fingerprint=hashed([train.fingerprint, test.fingerprint]),
            images=len(train),
            classes=train.num_classes,
            mirror=train.mirror,
            root=None if root is None else str(root),
            options=dict(options or {}),
            shape=train.image_shape,
            class_names=train.classes,
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
        refiner_options: options of the refiner.
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
            ``timm:NAME@FILE``), or the version of the foreign program that the method is, or None.
        quantization: for methods that quantize: ``bins_on``, and the fields of
            :class:`dqas_plugin.quantization.rebuilding.PatchSettings` in ``patches`` (None: whole images). The budget is then
            what the kept patches take, in whole images. None for the other methods.
        plugins: those of others that the result depends on, see :func:`dqas_plugin.bench.foreign.foreign_plugins`.
    """

    dataset: DatasetReference
    method: str
    budget: int
    label: str
    allocator: str = "uniform"
    refiner: str | None = None
    refiner_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
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
    plugins: Mapping[str, str] = field(default_factory=dict, hash=False)

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
        for name in ("refiner_options", "quantization", "plugins"):  # younger than results that are kept
            if not content[name]:
                del content[name]
        return hashed(content)

    def training_configuration(self, selection: str) -> dict[str, Any]:
        """Everything that the training of a selection (by its digest) depends on; its hash is the key of the training."""
        recipe = self.recipe.as_dict()
        del recipe["name"], recipe["proxy_epochs"]
        # Which patches are dropped depends on the proxy.
        images = {} if self.quantization is None else {"patches": self.quantization["patches"], "proxy": self.proxy_key}
        network = {"plugin": self.plugins["model"]} if "model" in self.plugins else {}
        return {
            **images,
            **network,
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

    @property
    def signals_key(self) -> str:
        """The same of the network that the method reads, which is another one if it is trained on rebuilt images."""
        return hashed([self.proxy_key, self.quantization]) if self.reads_rebuilt else self.proxy_key

    def configuration(self) -> dict[str, Any]:
        """Every attribute, in values that JSON knows; :meth:`from_configuration` reads it back."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}  # asdict would copy every value
        return own | {"dataset": dict(vars(self.dataset)), "recipe": self.recipe.as_dict()}

    @classmethod
    def from_configuration(cls, content: Mapping[str, Any]) -> Cell:
        """The cell of a stored configuration."""
        dataset = dict(content["dataset"])
        for name in ("shape", "class_names"):
            if dataset.get(name) is not None:
                dataset[name] = tuple(dataset[name])
        return cls(**{**content, "dataset": DatasetReference(**dataset), "recipe": Recipe(**content["recipe"])})

    @property
    def patches(self) -> PatchSettings | None:
        """Which patches are dropped; None if none are."""
        from dqas_plugin.quantization.settings import PatchSettings

        described = None if self.quantization is None else self.quantization["patches"]
        return None if described is None else PatchSettings(**described)

    @property
    def images(self) -> int:
        """Images to choose: as many as take the room of the budget once patches are dropped.

        Raises:
            UserError: if there are not so many.
        """
        patches = self.patches
        if patches is None:
            return self.budget
        from dqas_plugin.quantization.quantize import images_for  # which imports timm: seconds

        return images_for(self.budget, self.dataset.images, self.dataset.known_shape, patches)

    @property
    def refinement(self) -> Refinement | None:
        """How the last samples are chosen; None without a refiner.

        Raises:
            UserError: for an unknown refiner or option, or where there are not enough images for the budget.
        """
        from dqas_plugin.refining import Refinement

        return Refinement.of(self.refiner, self.refiner_options, self.images, self.refine_share, self.dataset.classes)

    @property
    def reads_rebuilt(self) -> bool:
        """Whether the method reads images rebuilt from some of their patches."""
        return self.quantization is not None and self.patches is not None and self.quantization["bins_on"] == "reconstructed"

    @property
    def is_baseline(self) -> bool:
        """Whether it needs no trained network to choose: random images, even counts."""
        return self.method == "random" and not self.variant

    @property
    def variant(self) -> str:
        """What is added to the method: empty for even counts, else for example ``adaptive`` or ``adaptive + eer``."""
        goal = [] if self.goal == "mean" else [self.goal]
        allocator = "" if self.allocator == "uniform" else with_options(self.allocator, self.allocator_options, goal)
        refiner = "" if self.refiner is None else with_options(self.refiner, self.refiner_options)
        return " + ".join(part for part in (allocator, refiner) if part)

    @cached_property
    def detail(self) -> str:
        """What is set otherwise than usual about the method itself: ``whole images``, ``features timm:…``; most often empty."""
        told = [f"{name}={value}" for name, value in sorted(self.method_options.items())]
        if self.features != "proxy":
            told.append(f"features {self.features.partition('@')[0]}")
        if self.quantization is not None:
            told += checks.told_of_quantization(self.method, self.quantization)
        told += [f"with {one.partition(' ')[0]}" for one in self.plugins.get(WRAPPERS, "").split(", ") if one]
        return ", ".join(told)

    def __str__(self) -> str:
        name = "+".join([self.method, *self.variant.split(" + ")]) if self.variant else self.method
        return f"{name} {self.label} seed {self.seed}"


def with_options(name: str, options: Mapping[str, Any], words: Sequence[str] = ()) -> str:
    """A name with what is set otherwise than usual: ``error-reduction (rounds=1)``."""
    told = [*words, *(f"{key}={value}" for key, value in sorted(options.items()))]
    return f"{name} ({', '.join(told)})" if told else name


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
    refiner_options: Mapping[str, Any] | None = None,
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
        ratios: budgets as shares of the training split; default :data:`dqas_plugin.bench.DEFAULT_RATIOS`.
        aipc: budgets as average images per class, instead of ratios.
        seeds: how many (0, 1, …), or which.
        allocators: what to compare with even counts, ``["adaptive"]`` for ``--adaptive``.
        refiner: rule for the last samples. Cells of even counts without it are the baseline and always part of the grid.
        refiner_options: options of the refiner.
        refine_share: share of the budget left to the refiner.
        goal: ``mean``, ``natural`` or ``worst``: what allocators maximise.
        proxy: ``probe`` or ``train``: what allocators train.
        model: the network.
        recipe: how it is trained.
        device: ``cpu``, ``cuda:0`` …; only its kind is part of a cell.
        features: what methods that read features see: ``proxy`` or ``timm:NAME``.
        max_memory: what ranking a class may take, in bytes.
        method_options: options for those of the methods that have them.
        allocator_options: options for those of the allocators that have them.
        patches: for methods that quantize: fields of :class:`dqas_plugin.quantization.rebuilding.PatchSettings`, with ``keep``
            true to drop none.
        bins_on: for them: ``original`` or ``reconstructed``; default: as the method does it.

    Raises:
        UserError: for an unknown name, a number out of range, or budgets that cannot be met.
    """
    from dqas_plugin.precision import device_kind

    budgets = checks.budgets_of(dataset, ratios, aipc)
    numbers = checks.seeds_of(seeds)
    checks.check_names([*methods, "random"], model, goal, proxy)
    common: dict[str, Any] = {
        "dataset": dataset,
        "model": model,
        "recipe": find_recipe(recipe),
        "device": device_kind(device),
        "max_memory": max_memory,
    }
    given = {"refiner": refiner, "refiner_options": dict(refiner_options or {}), "refine_share": refine_share}
    refinement = given if refiner is not None or refiner_options else {}
    allocations = checks.allocator_settings(allocators, allocator_options or {})
    variants = _variants(allocations, refinement, {"goal": goal, "proxy": proxy})
    own = checks.method_settings(methods, features, method_options or {})
    for method, quantization in checks.quantizations(dataset, methods, patches or {}, bins_on).items():
        own[method]["quantization"] = quantization
    cells = []
    for label, budget in budgets:
        for method in dict.fromkeys(["random", *methods]):
            listed = method in methods
            chosen: dict[str, Any] = {"method": method, "method_file": _file_digest(method), **own.get(method, {})}
            if "@" in chosen.get("features", ""):
                files = [chosen["method_file"], _file_digest(chosen["features"], "@")]
                chosen["method_file"] = hashed(files) if all(files) else files[1]
            for variant in variants if listed else [{}]:
                foreign = foreign_plugins(method, variant.get("allocator", "uniform"), variant.get("refiner"), model)
                same = {**chosen, **variant, **common, "plugins": foreign}
                alike = [Cell(label=label, budget=budget, seed=seed, **same) for seed in numbers]
                _ = alike[0].refinement  # whether there are enough images is known here
                cells += alike
    return cells


def _variants(
    allocations: Mapping[str, Mapping[str, Any]], refinement: Mapping[str, Any], search: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Fields of the cells of a method: even counts first. What an allocator does not use stays at its default."""
    from dqas_plugin.plugins import plugins

    variants: list[dict[str, Any]] = [{}]
    for name, options in (allocations or {"uniform": {}}).items():
        variant: dict[str, Any] = {"allocator": name, **refinement}
        if name != "uniform":
            variant["allocator_options"] = options
        if plugins().allocators[name].trains:
            variant.update(search)
        if variant != {"allocator": "uniform"}:
            variants.append(variant)
    return variants


def _file_digest(name: str, mark: str = ":") -> str | None:
    """Digest of the file, or of all files of the folder, behind the colon (or other mark) of a name, if there is one."""
    from dqas_plugin.datasets.files import file_digest

    rest = name.partition(mark)[2]
    path = Path(rest).expanduser()
    if not rest or not path.is_dir():
        return file_digest(path) if path.is_file() else None
    return hashed([[one.name, file_digest(one)] for one in sorted(path.iterdir()) if one.is_file()])
