"""From what people type to what it means: ``graphcut:eq7``, ``timm:resnet18``, ``folder:PATH``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from dqas_plugin.contracts import DatasetLoader, Entry, Importer, Selector
from dqas_plugin.data import DatasetSplits, ImageDataset
from dqas_plugin.errors import PluginError, UserError, nearest, unknown_name
from dqas_plugin.models import Network, Shape
from dqas_plugin.plugins import Plugins, Registry, check_options, plugins
from dqas_plugin.selection import Ranking
from dqas_plugin.untrusted import check_text

T = TypeVar("T", bound=Entry)


@dataclass(frozen=True)
class RankingFile:
    """A ranking in somebody's file, and the importer that reads it: ``ranking:FILE.npz``."""

    importer: Importer
    path: Path

    def read(self, data: ImageDataset | None, seed: int = 0) -> Ranking:
        """The ranking.

        Args:
            data: the images that it belongs to; None for an importer that needs none.
            seed: for an importer that has an option of that name.

        Raises:
            UserError: from the importer, or if the file holds something else.
        """
        drawn = {"seed": seed} if "seed" in self.importer.options else {}
        found = self.importer.read(self.path, data, **drawn)
        if not isinstance(found, Ranking):
            text, kind = f"{self.importer.name}:{self.path}", type(found).__name__.lower()
            raise UserError(f"'{text}' cannot be used as a method: {self.path} is a {kind}, not a ranking")
        return found

    def check(self) -> None:
        """Read it once if that needs no images, so that a bad file is known before the work."""
        if not self.importer.needs_dataset:
            self.read(None)


def load_dataset(name: str, root: str | Path | None = None, *, test_from: str | None = None, **options: Any) -> DatasetSplits:
    """The dataset that people call ``name``.

    Args:
        name: ``digits``, ``cifar10``, ``parquet:PATH`` … (``dqas list datasets``).
        root: folder with the files of a dataset that is not part of the program, or of one that an option names.
        test_from: name of another dataset whose test split is used (for sets that have none of their own).
        options: options of that loader, e.g. ``easy_share=0.3`` for ``shapes``.

    Raises:
        UserError: for an unknown name or option (with the nearest ones), or data that cannot be loaded.
    """
    splits = _load(name, root, options)
    if test_from is None:
        return splits
    alike = {"size"} & options.keys() & _loader(test_from)[0].options.keys()  # images of both splits must have one size
    test = _load(test_from, root, {name: options[name] for name in alike}).test
    _check_names(splits.train, test, _loader(name)[0], test_from)
    return DatasetSplits(splits.train, test)


def _check_names(train: ImageDataset, test: ImageDataset, loader: DatasetLoader, test_from: str) -> None:
    """Where only the names of classes differ and the loader can take those of another dataset, say how."""
    alike = train.classes == test.classes or train.num_classes != test.num_classes
    if not alike and "classes_from" in loader.options:
        ours, theirs = (f"'{one.classes[0]}' … '{one.classes[-1]}'" for one in (train, test))
        raise UserError(
            f"{train.name} names its classes {ours} and {test.name} {theirs}: if they are the same classes, set the dataset's "
            f"option classes_from={test_from}"
        )


def _load(name: str, root: str | Path | None, options: Mapping[str, Any]) -> DatasetSplits:
    loader, path = _loader(name)
    check_options(loader, "dataset", options)
    if not loader.takes_path:
        found = loader(None if root is None else Path(root), **options)
    elif root is not None and "data_root" in loader.options:  # of another dataset, which an option may name
        found = loader(path, **{"data_root": str(root), **options})
    else:
        found = loader(path, **options)
    return _checked(found, loader, plugins())


def _loader(name: str) -> tuple[DatasetLoader, str]:
    """The loader of a dataset, and the path it is given if it takes one."""
    return _with_rest(plugins().datasets, name, "PATH", lambda one: one.takes_path)


def _checked(found: Any, loader: DatasetLoader, plugins_: Plugins) -> DatasetSplits:
    if isinstance(found, DatasetSplits) and isinstance(found.train, ImageDataset):
        return found
    provider = plugins_.datasets.provider(loader.name)
    raise PluginError(f"plugin '{provider}': the dataset '{loader.name}' must be DatasetSplits, not {type(found).__name__}")


def resolve_method(text: str) -> tuple[Selector | RankingFile, dict[str, Any]]:
    """The selector and options that a method name means, or the file that holds a ranking.

    ``graphcut`` is a selector, ``graphcut:eq7`` one of its variants, ``ranking:FILE.npz`` what the importer ``ranking`` reads.

    Raises:
        UserError: for a name that means nothing (with the nearest ones).
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
    alike = [one for one in selectors if one.startswith(f"{head}:")]
    if colon and alike and not Path(tail).exists():
        raise unknown_name("method", text, alike)
    if colon and head in importers:
        check_text(tail)
        return RankingFile(importers[head], Path(tail).expanduser()), {}
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
    """Options typed as text, each converted to the type of its default value; ``none`` is None where that is possible.

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
    if text.lower() == "none" and ("None" in annotation or default is None):
        return None
    whole = isinstance(default, int) or (default is None and "int" in annotation)
    try:
        if isinstance(default, bool):
            return _BOOLEANS[text.lower()]
        if whole:
            return int(text)
        if isinstance(default, float) or (default is None and "float" in annotation):
            return float(text)
    except (ValueError, KeyError):
        wanted = "true or false" if isinstance(default, bool) else "a whole number" if whole else "a number"
        raise UserError(f"{kind} '{option}' must be {wanted}, not '{text}'") from None
    return text
