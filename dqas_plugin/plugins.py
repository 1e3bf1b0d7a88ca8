"""The plugin manager: who is loaded, what each brings, and which of them are broken.

Built-ins and strangers enter by the same hooks. Strangers are found through the entry-point group ``dqas``; the environment
variable ``DQAS_LOAD_PLUGINS`` limits which (names separated by commas; empty: none). A plugin that fails is named in
:attr:`Plugins.problems` and skipped: it never takes the program down.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from dqas_plugin import hookspecs
from dqas_plugin.contracts import Allocator, DatasetLoader, Entry, Executor, Exporter, Importer, Model, Refiner, Selector
from dqas_plugin.errors import PluginError, UserError, nearest, unknown_name

if TYPE_CHECKING:
    from dqas_plugin.training import EpochReport

GROUP = "dqas"
LIMIT = "DQAS_LOAD_PLUGINS"
BUILT_IN = (
    "dqas_plugin.datasets",
    "dqas_plugin.models",
    "dqas_plugin.methods",
    "dqas_plugin.allocation",
    "dqas_plugin.refinement",
    "dqas_plugin.pipeline",
    "dqas_plugin.quantization.bins",
    "dqas_plugin.bench.executors",
)

_log = logging.getLogger(__name__)
T = TypeVar("T", bound=Entry)


@dataclass(frozen=True)
class Problem:
    """Why a plugin, or a part of it, is not in use."""

    plugin: str
    message: str

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' is skipped: {self.message}"


@dataclass(frozen=True)
class PluginInfo:
    """A loaded plugin: where it comes from, the hooks it implements and what it registered (kind to names)."""

    name: str
    version: str
    origin: str
    hooks: tuple[str, ...]
    brings: Mapping[str, tuple[str, ...]]


class Registry(Mapping[str, T], Generic[T]):
    """Everything of one kind by name; a wrong name is answered with the nearest ones."""

    def __init__(self, kind: str, type_: type[T]) -> None:
        self.kind = kind
        self.type = type_
        self._entries: dict[str, T] = {}
        self._providers: dict[str, str] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def provider(self, name: str) -> str:
        """Name of the plugin that brought ``name``."""
        return self._providers[name]

    def add(self, entry: Any, plugin: str) -> None:
        """Add one entry.

        Raises:
            PluginError: for something else than an entry of this kind, a name that cannot be typed, or one that is taken.
        """
        if not isinstance(entry, self.type):
            hint = f"decorate it with @{self.type.__name__.lower()}(...)"
            raise PluginError(f"it registered {entry!r} as a {self.kind}, which is no {self.type.__name__}: {hint}")
        if not entry.name or entry.name != entry.name.strip() or any(one in entry.name for one in ", \t\n"):
            raise PluginError(f"the {self.kind} name {entry.name!r} cannot be typed: use lower case and hyphens")
        if entry.name in self._entries:
            raise PluginError(f"the {self.kind} '{entry.name}' exists already, from plugin '{self.provider(entry.name)}'")
        self._entries[entry.name] = entry
        self._providers[entry.name] = plugin


class Plugins:
    """One pluggy manager, its plugins, and the registries of what they brought.

    Args:
        built_in: load the built-in plugins.
        strangers: load the entry points of the group ``dqas``.
    """

    def __init__(self, *, built_in: bool = True, strangers: bool = True) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._origins: dict[str, tuple[str, str]] = {}
        self._load_problems: list[Problem] = []
        if built_in:
            for path in BUILT_IN:
                self.register(importlib.import_module(path), path)
        if strangers:
            found = entry_points(group=GROUP)
            for one in _wanted(found):
                self._load(one)
            absent = sorted((_limit() or set()) - {one.name for one in found} - {""})
            self._load_problems += [Problem(one, f"it is not installed, but {LIMIT} names it; mend that") for one in absent]

    @property
    def hook(self) -> Any:
        """Calls every plugin: ``plugins.hook.dqas_epoch_finished(report=…)``."""
        return self._manager.hook

    @property
    def problems(self) -> list[Problem]:
        """What is broken: plugins that did not load and registrations that were refused."""
        return [*self._load_problems, *self._registered[1]]

    def register(self, plugin: object, name: str | None = None, *, version: str = "", origin: str = "") -> str:
        """Add a plugin (a module or an object with functions marked ``@hookimpl``); returns its name.

        Raises:
            PluginError: if it implements a hook that does not exist or asks a hook for arguments that it does not have.
        """
        name = name or str(getattr(plugin, "__name__", type(plugin).__name__))
        self._check_hooks(plugin, name)
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.get_plugin(name) is plugin:
                self._manager.unregister(plugin)
            reason = " ".join(str(error).split())
            raise PluginError(f"plugin '{name}' cannot be registered: {reason}") from error
        self._origins[name] = (version, origin or getattr(plugin, "__file__", None) or type(plugin).__module__)
        self.__dict__.pop("_registered", None)
        return name

    def unregister(self, plugin: object) -> None:
        """Remove a plugin and what it brought."""
        self._manager.unregister(plugin)
        self.__dict__.pop("_registered", None)

    def home(self, name: str) -> str:
        """The module that a plugin is, or that its class comes from."""
        plugin = self._manager.get_plugin(name)
        return str(getattr(plugin, "__name__", type(plugin).__module__))

    @property
    def selectors(self) -> Registry[Selector]:
        """Selection methods."""
        return self._registered[0]["selectors"]

    @property
    def allocators(self) -> Registry[Allocator]:
        """Rules for class counts."""
        return self._registered[0]["allocators"]

    @property
    def refiners(self) -> Registry[Refiner]:
        """Rules for the last part of the budget."""
        return self._registered[0]["refiners"]

    @property
    def datasets(self) -> Registry[DatasetLoader]:
        """Dataset loaders."""
        return self._registered[0]["datasets"]

    @property
    def models(self) -> Registry[Model]:
        """Networks."""
        return self._registered[0]["models"]

    @property
    def importers(self) -> Registry[Importer]:
        """Readers of other people's results."""
        return self._registered[0]["importers"]

    @property
    def exporters(self) -> Registry[Exporter]:
        """Writers in other people's formats."""
        return self._registered[0]["exporters"]

    @property
    def executors(self) -> Registry[Executor]:
        """Ways to run cells."""
        return self._registered[0]["executors"]

    def registry(self, plural: str) -> Registry[Any]:
        """The registry of that name (``selectors``, ``datasets`` …)."""
        return self._registered[0][plural]

    def register_commands(self, cli: Any) -> list[Problem]:
        """Let every plugin add its commands to the Click group ``cli``; returns what went wrong."""
        problems: list[Problem] = []
        for implementation in self._manager.hook.dqas_register_commands.get_hookimpls():
            _call(implementation, {"cli": cli}, problems)
        return problems

    def overview(self) -> list[PluginInfo]:
        """Every loaded plugin, built-ins first."""
        return [self._describe(name, plugin) for name, plugin in self._manager.list_name_plugin() if plugin is not None]

    def _describe(self, name: str, plugin: object) -> PluginInfo:
        version, origin = self._origins[name]
        callers = self._manager.get_hookcallers(plugin) or []
        brings = {
            plural: tuple(one for one in registry if registry.provider(one) == name)
            for plural, registry in self._registered[0].items()
        }
        hooks = tuple(sorted(one.name for one in callers))
        return PluginInfo(name, version, origin, hooks, {key: names for key, names in brings.items() if names})

    @cached_property
    def _registered(self) -> tuple[dict[str, Registry[Any]], list[Problem]]:
        """All registries, filled by asking one plugin after the other so that each name has a provider."""
        registries: dict[str, Registry[Any]] = {plural: Registry(kind, type_) for plural, kind, type_ in _KINDS}
        problems: list[Problem] = []
        for plural, registry in registries.items():
            caller = getattr(self._manager.hook, f"dqas_register_{plural}")
            for implementation in caller.get_hookimpls():  # in the order of registration: built-ins own their names
                _call(implementation, {"register": _registrar(registry, implementation.plugin_name)}, problems)
        return registries, problems

    def _load(self, entry_point: EntryPoint) -> None:
        """Import and register the plugin behind an entry point; whatever goes wrong becomes a problem."""
        distribution = entry_point.dist
        version = distribution.version if distribution else ""
        origin = f"{distribution.name} ({entry_point.value})" if distribution else entry_point.value
        try:
            self.register(entry_point.load(), entry_point.name, version=version, origin=origin)
        except (Exception, SystemExit) as error:
            message = str(error) if isinstance(error, PluginError) else _reason(error)
            problem = Problem(
                entry_point.name, f"{message} (from {origin}); mend or uninstall it, or leave it out with {LIMIT}"
            )
            self._load_problems.append(problem)
            _log.warning("%s", problem)

    def _check_hooks(self, plugin: object, name: str) -> None:
        """Refuse hooks that do not exist: pluggy would ignore a misspelt one in silence."""
        known = [one for one in dir(hookspecs) if one.startswith("dqas_")]
        for attribute in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, attribute)
            if options and not options.get("optionalhook") and (options.get("specname") or attribute) not in known:
                raise PluginError(f"plugin '{name}' implements the unknown hook '{attribute}': {nearest(attribute, known)}")


_KINDS: tuple[tuple[str, str, type[Entry]], ...] = (
    ("selectors", "method", Selector),
    ("allocators", "allocator", Allocator),
    ("refiners", "refiner", Refiner),
    ("datasets", "dataset", DatasetLoader),
    ("models", "model", Model),
    ("importers", "importer", Importer),
    ("exporters", "exporter", Exporter),
    ("executors", "executor", Executor),
)


def _registrar(registry: Registry[Any], plugin: str) -> Callable[..., None]:
    """The ``register`` that a plugin gets: a record, or a name and a function with the fields of the record."""
    if registry.type in (Selector, Allocator, Refiner):
        return lambda entry: registry.add(entry, plugin)

    def register(name: str, function: Callable[..., Any], *, title: str = "", source: str = "", **flags: Any) -> None:
        known = set(registry.type.__dataclass_fields__) - set(Entry.__dataclass_fields__)
        if unknown := sorted(set(flags) - known):
            raise PluginError(f"it registered the {registry.kind} '{name}' with the unknown argument '{unknown[0]}'")
        registry.add(registry.type(name, function, title or name, source, **flags), plugin)

    return register


def _call(implementation: Any, arguments: Mapping[str, Any], problems: list[Problem]) -> None:
    """Call one plugin's implementation of a hook; what it raises becomes a problem."""
    try:
        implementation.function(*(arguments[name] for name in implementation.argnames))
    except (Exception, SystemExit) as error:
        problem = Problem(implementation.plugin_name, str(error) if isinstance(error, PluginError) else _reason(error))
        problems.append(problem)
        _log.warning("%s", problem)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _wanted(found: Any) -> list[EntryPoint]:
    """The entry points that may load, each name once, in the order of their names."""
    names = _limit()
    unique = {one.name: one for one in sorted(found, key=lambda one: (one.name, one.value))}
    return [one for name, one in unique.items() if names is None or name in names]


def _limit() -> set[str] | None:
    """The names that may load; None: all."""
    limit = os.environ.get(LIMIT)
    return None if limit is None else {one.strip() for one in limit.split(",")}


@cache
def plugins() -> Plugins:
    """The plugins of this process, loaded at the first call."""
    return Plugins()


def announce_epoch(report: EpochReport) -> None:
    """Tell every plugin how far a training is: what is given to ``train(on_epoch=…)``."""
    plugins().hook.dqas_epoch_finished(report=report)


def check_options(entry: Entry, kind: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that ``entry`` does not have, or a word that it does not know, with the nearest that it does.

    Raises:
        UserError: for an unknown option, another word where there are only some (``Literal``), or a number out of its bounds.
    """
    for option in options:
        if option not in entry.options:
            known = sorted(entry.options)
            if not known:
                raise UserError(f"the {kind} '{entry.name}' takes no options, so not '{option}': leave it out")
            raise unknown_name(f"option of the {kind} '{entry.name}'", option, known)
    words = entry.words if options else {}
    for option, value in options.items():
        if option in words and value not in words[option]:
            raise unknown_name(option, str(value), map(str, words[option]))
    for option, bounds in (entry.bounds if options else {}).items():
        value = options.get(option)
        if isinstance(value, int | float) and not bounds.allow(value):
            raise UserError(f"{option} of the {kind} '{entry.name}' must be {bounds}, not {value}")
