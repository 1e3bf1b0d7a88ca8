"""What a benchmark is asked to run, by the command line or by a grid file, and the cells that this means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dqas_plugin import given
from dqas_plugin.bench import checks
from dqas_plugin.bench.cell import load, open_dataset
from dqas_plugin.bench.grid import Cell, DatasetReference, plan
from dqas_plugin.defaults import DEFAULT_MODEL, DEFAULT_RECIPE, MAX_MEMORY
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import plugins
from dqas_plugin.refining import chosen_refiner

TABLE_2 = (
    "random",
    "contextual-diversity",
    "herding",
    "k-center",
    "grand",
    "cal",
    "deepfool",
    "craig",
    "gradmatch",
    "glister",
    "least-confidence",
    "entropy",
    "margin",
    "facility-location",
    "graphcut",
    "dq",
    "dqas",
)
"""Rows of Table 2 of the paper, in its order; the method ``all`` means those of them that are registered."""

Opened = Callable[[str, DatasetReference], Any]


@dataclass(frozen=True)
class GridSpec:
    """One grid: the options of ``dqas bench`` that say what is run, with the values that people give.

    Attributes:
        dataset: as ``load_dataset`` takes it.
        dataset_options: options of its loader, as text.
        test_from: name of another dataset, whose test split is used; or None.
        methods: names of selectors; ``all`` means :data:`TABLE_2`; none means ``graphcut``.
        ratios: see :func:`dqas_plugin.bench.plan`, for ``aipc``, ``features``, ``max_memory``, ``refine_share``, ``goal``,
            ``proxy``, ``bins_on`` and ``seeds``, too.
        method_options: as text, for those of the methods that have them.
        adaptive: class counts are chosen, too, and the last samples by error reduction.
        allocator: what chooses the counts; several with commas between them. None: ``adaptive`` where ``adaptive`` is set.
        refiner: what adds the last samples, or ``none``. None: error reduction where ``adaptive`` is set.
        allocator_options: as text, for those of the allocators that have them.
        refiner_options: as text.
        scorer: short for the refiner's option of that name.
        no_patches: methods that quantize keep whole images.
        drop_rate: share of the patches that they drop otherwise.
        patch_size: pixels; None: by the size of the images.
        patch_scores: what tells informative patches.
        rebuild: how images are rebuilt without the others.
        model: the network.
        recipe_name: how it is trained.
        epochs: instead of the recipe's.
        iterations: instead of the recipe's.
        batch: images in a batch, instead of the recipe's.
        lr: highest learning rate, instead of the recipe's.
        prior: of the loss.
        where: what mistakes are said of, such as ``quick-table2.toml, grid 2``; empty: of nothing.
        mark: what stands before the names of options in messages; see :mod:`dqas_plugin.given`.
    """

    dataset: str = "digits"
    dataset_options: Mapping[str, str] = field(default_factory=dict)
    test_from: str | None = None
    methods: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    aipc: tuple[int, ...] = ()
    method_options: Mapping[str, str] = field(default_factory=dict)
    features: str = "proxy"
    max_memory: int = MAX_MEMORY
    adaptive: bool = False
    allocator: str | None = None
    refiner: str | None = None
    refine_share: float = 0.1
    allocator_options: Mapping[str, str] = field(default_factory=dict)
    refiner_options: Mapping[str, str] = field(default_factory=dict)
    scorer: str | None = None
    proxy: str = "probe"
    goal: str = "mean"
    bins_on: str | None = None
    no_patches: bool = False
    drop_rate: float = 0.25
    patch_size: int | None = None
    patch_scores: str = "grad-cam"
    rebuild: str = "mae"
    model: str = DEFAULT_MODEL
    recipe_name: str = DEFAULT_RECIPE
    epochs: int | None = None
    iterations: int | None = None
    batch: int | None = None
    lr: float | None = None
    prior: str = "balanced"
    seeds: int = 3
    where: str = ""
    mark: str = ""

    def arguments(self) -> dict[str, Any]:
        """The arguments of :func:`dqas_plugin.bench.plan` but for the dataset and the device.

        Raises:
            UserError: for whatever is wrong and can be known without the data.
        """
        if self.ratios and self.aipc:
            raise UserError(f"{self.mark}ratio and {self.mark}aipc exclude each other: give one of them")
        changes: dict[str, Any] = {"batch": self.batch, "lr": self.lr, "mark": self.mark}
        recipe = given.chosen_recipe(self.recipe_name, self.epochs, self.iterations, self.prior, **changes)
        given.check_features(self.features)
        methods, allocators = chosen_methods(self.methods), chosen_allocators(self.adaptive, self.allocator)
        checks.check_names(methods, self.model, self.goal, self.proxy)
        refiner = chosen_refiner(self.refiner, self.adaptive)
        return {
            "methods": methods,
            "ratios": self.ratios,
            "aipc": self.aipc,
            "seeds": self.seeds,
            "allocators": allocators,
            "allocator_options": given.allocator_options(allocators, self.allocator_options, self.mark),
            "refiner": refiner,
            "refiner_options": given.refiner_options(refiner, self.refiner_options, self.scorer, self.mark),
            "refine_share": self.refine_share,
            "goal": self.goal,
            "proxy": self.proxy,
            "model": self.model,
            "recipe": recipe,
            "features": self.features,
            "max_memory": self.max_memory,
            "method_options": given.method_options(methods, self.method_options),
            "patches": {
                "keep": self.no_patches,
                "drop_rate": self.drop_rate,
                "size": self.patch_size,
                "scores": self.patch_scores,
                "rebuild": self.rebuild,
            },
            "bins_on": self.bins_on,
        }

    def loader_options(self) -> dict[str, Any]:
        """The arguments of :func:`dqas_plugin.bench.open_dataset` but for name and root.

        Raises:
            UserError: for an unknown dataset or option, or a value of another type.
        """
        for name in (self.dataset, self.test_from or self.dataset):
            _ = plugins().datasets[name.partition(":")[0]]
        chosen = given.dataset_options(self.dataset, self.dataset_options)
        return chosen | ({"test_from": self.test_from} if self.test_from else {})

    def cells(self, dataset: DatasetReference, device: str = "cpu") -> list[Cell]:
        """The cells of this grid; see :func:`plan_grids`.

        Args:
            dataset: the opened one.
            device: as in :func:`dqas_plugin.bench.plan`.

        Raises:
            UserError: for an unknown name, a number out of range, or what does not fit the images.
        """
        return self._cells(self.arguments(), dataset, device)

    def _cells(self, arguments: Mapping[str, Any], dataset: DatasetReference, device: str) -> list[Cell]:
        given.check_model(self.model, load(dataset).train)
        return plan(dataset, device=device, **arguments)

    @contextmanager
    def located(self) -> Iterator[None]:
        """Say of a mistake inside the block where it stands."""
        try:
            yield
        except UserError as error:
            if not self.where:
                raise
            raise UserError(f"{self.where}: {error}") from error


def plan_grids(
    specs: Sequence[GridSpec], *, root: Path | str | None = None, device: str = "cpu", opened: Opened = lambda *_: None
) -> list[Cell]:
    """The cells of several grids as those of one: each once, those of a dataset together.

    Args:
        specs: the grids.
        root: folder with the files of the datasets; None: the default.
        device: as in :func:`dqas_plugin.bench.plan`.
        opened: called with name and reference of every dataset, once it is loaded.

    Raises:
        UserError: for the first mistake; those that need no data are found before any are loaded.
    """
    wanted: list[tuple[GridSpec, dict[str, Any], dict[str, Any]]] = []
    for spec in specs:
        with spec.located():
            wanted.append((spec, spec.arguments(), spec.loader_options()))
    references: dict[object, DatasetReference] = {}
    cells: dict[DatasetReference, dict[str, Cell]] = {}
    for spec, arguments, options in wanted:
        with spec.located():
            source = (spec.dataset, tuple(sorted(options.items())))
            if source not in references:
                references[source] = open_dataset(spec.dataset, root, **options)
                opened(spec.dataset, references[source])
            reference = references[source]
            for cell in spec._cells(arguments, reference, device):
                cells.setdefault(reference, {}).setdefault(cell.key, cell)
    return [cell for found in cells.values() for cell in found.values()]


def chosen_methods(names: Sequence[str]) -> list[str]:
    """The methods meant: graphcut without any, the rows of Table 2 that exist for ``all``."""
    table = [one for one in TABLE_2 if one in plugins().selectors]
    listed = [row for name in names or ("graphcut",) for row in (table if name == "all" else [name])]
    return list(dict.fromkeys(listed))


def chosen_allocators(adaptive: bool, names: str | None) -> list[str]:
    """The allocators to compare with even counts; naming one, or several with commas between them, means ``adaptive``."""
    if names is None:
        return ["adaptive"] if adaptive else []
    return [one.strip() for one in names.split(",")]
