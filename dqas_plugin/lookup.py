"""From what people type to what it means: ``graphcut:eq7``, ``timm:resnet18``, ``folder:PATH``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from dqas_plugin.contracts import DatasetLoader, Entry, Selector
from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.errors import PluginError, UserError, nearest, unknown_name
from dqas_plugin.models import Network, Shape
from dqas_plugin.plugins import Plugins, Registry, check_options, plugins
from dqas_plugin.selection import Ranking

T = TypeVar("T", bound=Entry)


def load_dataset(name: str, root: str | Path | None = None, *, test_from: str | None = None, **options: Any) -> DatasetSplits:
    """The dataset that people call ``name``.

    Args:
        name: ``digits``, ``cifar10``, ``parquet:PATH`` … (``dqas list datasets``).
        root: folder with the files of a dataset that is not part of the program.
        test_from: name of another dataset whose test split is used (for sets that have none of their own).
        options: options of that loader, e.g. ``easy_share=0.3`` for ``shapes``.

    Raises:
        UserError: for an unknown name or option (with the nearest ones), or data that cannot be loaded.
    """
    splits = _load(name, root, options)
    if test_from is None:
        return splits
    return DatasetSplits(splits.train, _load(test_from, root, {}).test)


def _load(name: str, root: str | Path | None, options: Mapping[str, Any]) -> DatasetSplits:
    loaders = plugins().datasets
    loader, path = _with_rest(loaders, name, "PATH", lambda one: one.takes_path)
    check_options(loader, "dataset", options)
    base = None if root is None else Path(root)
    found = loader(path, **options) if loader.takes_path else loader(base, **options)
    return _checked(found, loader, plugins())


def _checked(found: Any, loader: DatasetLoader, plugins_: Plugins) -> DatasetSplits:
    if isinstance(found, DatasetSplits) and isinstance(found.train, ImageDataset):
        return found
    provider = plugins_.datasets.provider(loader.name)
    raise PluginError(f"plugin '{provider}': the dataset '{loader.name}' must be DatasetSplits, not {type(found).__name__}")


def resolve_method(text: str) -> tuple[Selector | Ranking, dict[str, Any]]:
    """The selector and options that a method name means, or the ranking that it reads from a file.

    ``graphcut`` is a selector, ``graphcut:eq7`` one of its variants, ``ranking:FILE.npz`` what the importer ``ranking`` reads.

    Raises:
        UserError: for a name that means nothing (with the nearest ones), or a file that is no ranking.
    """
    selectors, importers = plugins().selectors, plugins().importers
    if text in selectors:
        return selectors[text], {}
    head, colon, tail = text.partition(":")
    if colon and head in selectors:
        found = selectors[head]
        if tail not in found.variants:
            raise UserError(f"unknown variant '{tail}' of the method '{head}': {nearest(tail, found.variants)}")
        return found, dict(found.variants[tail])
    if colon and head in importers:
        ranking = importers[head](Path(tail))
        if not isinstance(ranking, Ranking):
            raise UserError(f"'{text}' cannot be used as a method: {tail} is a {type(ranking).__name__.lower()}, not a ranking")
        return ranking, {}
    raise unknown_name("method", text, selectors)


def resolve_model(text: str) -> Callable[[Shape, int], Network]:
    """The function ``build(image_shape, num_classes)`` of the network that people call ``text``.

    Raises:
        UserError: for an unknown name, with the nearest ones.
    """
    model, rest = _with_rest(plugins().models, text, "NAME", lambda one: one.takes_name)
    return partial(model.function, rest) if model.takes_name else model.function


def _with_rest(registry: Registry[T], text: str, what: str, takes: Callable[[T], bool]) -> tuple[T, str]:
    """The entry that ``text`` names, and what follows the colon, which must be there just where the entry takes it."""
    head, colon, rest = text.partition(":")
    entry = registry[head]
    if bool(colon) != takes(entry) or (colon and not rest):
        form = f"{entry.name}:{what}" if takes(entry) else entry.name
        raise UserError(f"the {registry.kind} '{entry.name}' is written '{form}', not '{text}'")
    return entry, rest


def parse_options(kind: str, pairs: Mapping[str, str], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Options typed as text, each converted to the type of its default value.

    Args:
        kind: for messages, e.g. ``option of the dataset 'shapes'``.
        pairs: option to text.
        parameters: the keyword-only parameters (:attr:`dqas_plugin.contracts.Entry.options`).

    Raises:
        UserError: for an unknown option, or a text that is not of its type.
    """
    converted: dict[str, Any] = {}
    for option, text in pairs.items():
        if option not in parameters:
            raise unknown_name(kind, option, parameters)
        converted[option] = _convert(kind, option, text, parameters[option])
    return converted


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _convert(kind: str, option: str, text: str, parameter: inspect.Parameter) -> Any:
    default = parameter.default
    annotation = str(parameter.annotation)
    try:
        if isinstance(default, bool):
            return _BOOLEANS[text.lower()]
        if isinstance(default, int) or (default is None and "int" in annotation):
            return int(text)
        if isinstance(default, float) or (default is None and "float" in annotation):
            return float(text)
    except (ValueError, KeyError):
        wanted = {"bool": "true or false", "int": "a whole number"}.get(type(default).__name__, "a number")
        raise UserError(f"{kind} '{option}' must be {wanted}, not '{text}'") from None
    return text
