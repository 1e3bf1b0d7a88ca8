"""What a plugin registers: one small record per kind of extension, and the decorators that make them.

A record is data: name, one-line title, source, what it needs. ``dqas list`` prints it; nothing is discovered by failing.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

SIGNALS = frozenset({"features", "logits", "gradients", "images", "dynamics", "perturbations", "runs", "network"})
"""Signals a selector may need.

``logits`` brings probabilities and losses, ``gradients`` needs features and logits, ``dynamics`` is how margins and errors went
during the training, ``perturbations`` how far the decision boundary is in pixels, ``runs`` features and logits of several
trainings, as many as the selector's option ``repeat`` says, ``network`` the trained network itself.
"""

REFINER_SIGNALS = SIGNALS - {"dynamics", "runs"}
"""Signals a refiner may need: its network is trained once, on few images, and nobody looks on."""


def memory_text(count: float) -> str:
    """Bytes for people: ``9.3 GiB``."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


class Size(NamedTuple):
    """How much there is to rank, for estimates of memory.

    Attributes:
        samples: n, of the class.
        width: d, of the features.
        classes: C.
        budget: how many are to be ranked.
        limit: bytes that the method may take, on which its route may depend.
        options: all options of the method that have a value.
    """

    samples: int
    width: int
    classes: int
    budget: int
    limit: int = 2**63 - 1
    options: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Bounds:
    """What a number may be: ``neighbours: Annotated[int, Bounds(1)]`` makes an option at least 1, before any work is done.

    Attributes:
        least: the lowest number allowed.
        most: the highest one.
        above: ``least`` itself is not allowed.
    """

    least: float
    most: float = math.inf
    above: bool = False

    def allow(self, value: float) -> bool:
        """Whether the number lies within them."""
        return math.isfinite(value) and (self.least < value if self.above else self.least <= value) and value <= self.most

    def __str__(self) -> str:
        least = f"{'above' if self.above else 'at least'} {self.least:g}"
        if self.most == math.inf:
            return least
        return f"{least} and at most {self.most:g}" if self.above else f"between {self.least:g} and {self.most:g}"


@dataclass(frozen=True)
class Entry:
    """Common part of everything registered.

    Attributes:
        name: what people type; lower case, words joined by hyphens.
        function: the implementation.
        title: one line for ``dqas list``.
        source: paper or repository it follows.
    """

    name: str
    function: Callable[..., Any]
    title: str = ""
    source: str = ""

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """Keyword-only parameters of the function: the options a user may set, with their defaults."""
        parameters = inspect.signature(self.function).parameters
        return {name: one for name, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY}

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """What the options that take one of some words may be: those annotated as ``Literal[...]``."""
        hints = self._hints()
        return {name: get_args(hints[name]) for name in self.options if get_origin(hints.get(name)) is Literal}

    @property
    def bounds(self) -> dict[str, Bounds]:
        """What the options that are numbers may be: those annotated as ``Annotated[..., Bounds(...)]``, or that or None."""
        hints = self._hints()
        found = {name: _bounds_in(hints[name]) for name in self.options if name in hints}
        return {name: one for name, one in found.items() if one is not None}

    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.function, include_extras=True)
        except Exception:  # annotations that name what only a type checker imports, or no function: nothing is known then
            return {}

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options that have a value: those given, and the defaults of the others."""
        defaults = {name: one.default for name, one in self.options.items() if one.default is not inspect.Parameter.empty}
        return {**defaults, **options}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function: what is registered still works as what it was."""
        return self.function(*args, **kwargs)


def _bounds_in(hint: Any) -> Bounds | None:
    """Of an annotation, or of a part of a union."""
    if get_origin(hint) is Annotated:
        return next((one for one in get_args(hint)[1:] if isinstance(one, Bounds)), None)
    return next((one for part in get_args(hint) if (one := _bounds_in(part)) is not None), None)


@dataclass(frozen=True)
class Selector(Entry):
    """A selection rule: ``f(view, budget, rng, *, option=…) -> positions``, best first (see ``dqas_register_selectors``).

    Attributes:
        family: geometry, uncertainty, gradient, submodular … groups the rows of tables.
        needs: the signals read, a subset of :data:`SIGNALS`; nothing else is computed.
        nested: the choice of k samples is the first k of the choice of more. If false it is asked again per class count.
        variants: short names for option settings: ``graphcut:eq7`` means ``objective="eq7"``.
        differs: one line: what the published method does otherwise than the default, or where programs differ.
        memory: what ranking a class takes in bytes, beyond its signals, ``f(size)``, if possible no more than ``size.limit``;
            None: in proportion to the signals.
        quantizes: networks are trained on images rebuilt from their informative patches, and as many more of them are chosen
            as take the same room; whose features the choice reads, ``original`` or ``reconstructed``. None: whole images.
        version: of the foreign program behind it, if one is: results of another version are other results.
    """

    family: str = "other"
    needs: frozenset[str] = frozenset()
    nested: bool = True
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    differs: str = ""
    memory: Callable[[Size], int] | None = None
    quantizes: str | None = None
    version: str = ""

    def trainings(self, options: Mapping[str, Any]) -> int:
        """Of how many trained networks it reads the output, with these options set; 0 if of none."""
        if not self.needs - {"images"}:
            return 0
        return int(options.get("repeat", self.options["repeat"].default)) if "runs" in self.needs else 1


class Weighted(NamedTuple):
    """What a selector returns instead of positions alone if its choice comes with loss weights.

    The weights belong to exactly this set: a nested method is asked again for them once the class counts are known.
    """

    positions: Any
    weights: Any


@dataclass(frozen=True)
class Allocator(Entry):
    """A rule for class counts: ``f(problem, *, option=…) -> Allocation`` (see ``dqas_register_allocators``).

    Attributes:
        trains: whether it calls ``problem.evaluate`` (and so costs proxy trainings).
        evaluations: how many such calls at most, ``f(num_classes, **options set)``; None where nobody can say.
    """

    trains: bool = True
    evaluations: Callable[..., int] | None = None


@dataclass(frozen=True)
class Refiner(Entry):
    """A rule for the last samples whatever their class: ``f(signals, selected, budget, rng, *, option=…) -> indices``.

    Attributes:
        needs: the signals read, a subset of :data:`REFINER_SIGNALS`.
        trainings: how many networks it trains itself, by ``signals.trainer``: ``f(selected, pool, budget, settings)``, of how
            many samples are selected, not selected and to be added, and all options; None: none. A refiner that has it has an
            option ``trainings`` too, how many are allowed: more are refused, with how long they would take.
    """

    needs: frozenset[str] = frozenset()
    trainings: Callable[[int, int, int, Mapping[str, Any]], int] | None = None

    @property
    def reads_network(self) -> bool:
        """Whether it reads the output of a trained network."""
        return bool(self.needs - {"images"})


@dataclass(frozen=True)
class DatasetLoader(Entry):
    """A dataset: ``f(root, *, option=…) -> DatasetSplits``; with ``takes_path`` it is named ``name:PATH`` and gets ``PATH``."""

    takes_path: bool = False


@dataclass(frozen=True)
class Model(Entry):
    """A network: ``f(image_shape, num_classes) -> Network``.

    Attributes:
        takes_name: it is named ``name:REST`` and its function gets ``REST`` first.
    """

    takes_name: bool = False


@dataclass(frozen=True)
class Importer(Entry):
    """A reader of other people's results: ``f(path, *, option=…) -> Ranking | Selection | DatasetSplits``.

    Attributes:
        needs_dataset: it is called as ``f(path, data)`` with the training images that the file's indices belong to.
    """

    needs_dataset: bool = False

    def read(self, path: Any, data: Any, **options: Any) -> Any:
        """What the file holds; ``data`` is an ``ImageDataset``, or None for an importer that needs none."""
        return self.function(path, data, **options) if self.needs_dataset else self.function(path, **options)


@dataclass(frozen=True)
class Outward(Entry):
    """Common part of what hands on to other people's programs, which may not be there.

    Attributes:
        ready: ``f(options)``, called with all options that have a value before any work is done; raises a ``UserError`` for
            what is missing, such as the package of an extra. None: nothing can be missing.
    """

    ready: Callable[[Mapping[str, Any]], None] | None = None

    def check_ready(self, options: Mapping[str, Any]) -> None:
        """Refuse to begin if something is missing; ``options`` are those given."""
        if self.ready is not None:
            self.ready(self.settings(options))


@dataclass(frozen=True)
class Exporter(Outward):
    """A writer in other people's formats: ``f(splits, selection, out, *, option=…)``, ``out`` being an empty folder."""


@dataclass(frozen=True)
class Executor(Outward):
    """A way to run independent calls: ``f(jobs, *, option=…) -> context manager`` whose value has ``run(function, tasks)``.

    Attributes:
        elsewhere: its workers may be other machines: ``jobs`` may be None, for as many as they have room for, and the GPU of a
            task for ``cuda`` is theirs.
    """

    elsewhere: bool = False


def selector(
    name: str,
    *,
    title: str = "",
    family: str = "other",
    needs: Iterable[str] = (),
    source: str = "",
    nested: bool = True,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    differs: str = "",
    memory: Callable[[Size], int] | None = None,
    quantizes: str | None = None,
) -> Callable[[Callable[..., Any]], Selector]:
    """Make a selector of a function ``f(view, budget, rng)``; the result still works as that function."""
    _check_needs(f"selector '{name}'", needs, SIGNALS)

    def make(function: Callable[..., Any]) -> Selector:
        own = (frozenset(needs), nested, dict(variants or {}), differs, memory, quantizes)
        return Selector(name, function, title or name, source, family, *own)

    return make


def allocator(
    name: str, *, title: str = "", source: str = "", trains: bool = True, evaluations: Callable[..., int] | None = None
) -> Callable[[Callable[..., Any]], Allocator]:
    """Make an allocator of a function ``f(problem) -> Allocation``."""

    def make(function: Callable[..., Any]) -> Allocator:
        return Allocator(name, function, title or name, source, trains, evaluations)

    return make


def refiner(
    name: str,
    *,
    title: str = "",
    source: str = "",
    needs: Iterable[str] = (),
    trainings: Callable[[int, int, int, Mapping[str, Any]], int] | None = None,
) -> Callable[[Callable[..., Any]], Refiner]:
    """Make a refiner of a function ``f(signals, selected, budget, rng) -> dataset indices to add``."""
    _check_needs(f"refiner '{name}'", needs, REFINER_SIGNALS)

    def make(function: Callable[..., Any]) -> Refiner:
        return Refiner(name, function, title or name, source, frozenset(needs), trainings)

    return make


def _check_needs(what: str, needs: Iterable[str], known: frozenset[str]) -> None:
    unknown = set(needs) - known
    if unknown:
        raise ValueError(f"{what} needs unknown signals {sorted(unknown)}; choose from {sorted(known)}")
