"""What people give as text, on the command line or in a grid file, turned into the values that it means.

``mark`` is what stands before the name of an option where a message names it: ``--`` on the command line, nothing in a file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dqas_plugin.errors import UserError
from dqas_plugin.recipes import Recipe
from dqas_plugin.recipes import recipe as find_recipe

if TYPE_CHECKING:
    from dqas_plugin.data import ImageDataset

T = TypeVar("T")

_DIGITS = 18  # of a whole number: such are below 2**63, and what counts more is a slip of the finger

Read = Callable[[str, str], T]
"""``read(option, text)``: the value of a text; the name of the option is for messages."""


def separated(option: str, texts: Iterable[str], read: Read[T]) -> tuple[T, ...]:
    """The values of texts with commas between them; each is kept once, in order.

    Commas inside brackets belong to a value: tables name a row ``dq (whole images, bins on reconstructed)``; so do those of a
    file that is there (``ranking:FILE``).

    Raises:
        UserError: for an empty one, and from ``read``.
    """
    listed = list(texts)
    parts = [part.strip() for text in listed for part in ([text] if _is_path(text) else re.split(r",(?![^(]*\))", text))]
    if not all(parts):
        raise UserError(f"{option} '{','.join(listed)}' has an empty entry: separate values by single commas")
    return tuple(dict.fromkeys(read(option, part) for part in parts))


def _is_path(text: str) -> bool:
    _, colon, path = text.partition(":")
    return bool(colon) and os.path.exists(os.path.expanduser(path))


def read_name(_: str, text: str) -> str:
    """A name as it is; whether it exists is known once the plugins are loaded."""
    return text


def read_ratio(option: str, text: str) -> float:
    """A share of the training set, above 0 and at most 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise UserError(f"{option} {text}: give a share of the training set above 0 and at most 1, such as 0.05")
    return value


def read_share(option: str, text: str) -> float:
    """A part of the budget, above 0 and below 1."""
    value = _number(text)
    if not 0 < value < 1:
        raise UserError(f"{option} {text}: give a part of the budget above 0 and below 1, such as 0.1")
    return value


def read_positive(option: str, text: str) -> float:
    """A number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise UserError(f"{option} {text}: give a number above 0")
    return value


def read_count(option: str, text: str) -> int:
    """A whole number of at least 1."""
    return _whole(option, text, 1)


def read_seed(option: str, text: str) -> int:
    """A whole number of at least 0."""
    return _whole(option, text, 0)


def read_size(option: str, text: str) -> int:
    """A number of bytes: 500MB, 4GiB, 1e9."""
    found = re.fullmatch(r"([0-9.e+]+)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    value = _number(found[1]) if found else math.nan
    unit = 1024 if found and found[3] else 1000
    size = value * unit ** (" kmgt".index(found[2]) if found and found[2] else 0)
    if not 1 <= size < 2**63:
        raise UserError(f"{option} {text}: give a size such as 500MB or 4GiB")
    return int(size)


def _whole(option: str, text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS or int(text) < least:
        raise UserError(f"{option} {text}: give a whole number of at least {least} and of at most {_DIGITS} digits")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def chosen_recipe(
    name: str,
    epochs: int | None,
    iterations: int | None,
    prior: str,
    *,
    batch: int | None = None,
    lr: float | None = None,
    mark: str = "",
) -> Recipe:
    """The recipe of that name with what is given otherwise.

    Raises:
        UserError: for an unknown name, epochs and iterations together, or a value out of range.
    """
    if epochs is not None and iterations is not None:
        raise UserError(f"{mark}epochs and {mark}iterations exclude each other: give one of them")
    base = find_recipe(name)
    changes: dict[str, Any] = {"epochs": epochs, "iterations": iterations, "batch": batch, "lr": lr}
    given = {key: value for key, value in changes.items() if value is not None}
    if prior != base.prior:
        given["prior"] = prior
    return base.with_(**given) if given else base


def dataset_options(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Texts as the keyword arguments of that dataset's loader.

    Raises:
        UserError: for an unknown option (with the nearest ones), or a value of another type.
    """
    if not texts:
        return {}
    from dqas_plugin.lookup import parse_options
    from dqas_plugin.plugins import plugins

    loader = plugins().datasets[name.partition(":")[0]]
    return parse_options(f"option of the dataset '{loader.name}'", texts, loader.options)


def method_options(methods: Iterable[str], texts: Mapping[str, str]) -> dict[str, Any]:
    """Texts as keyword arguments of the methods.

    Raises:
        UserError: for an option that none of them has (with the nearest ones), or a value of another type.
    """
    if not texts:
        return {}
    from dqas_plugin.contracts import Selector
    from dqas_plugin.lookup import parse_options, resolve_method

    found = [resolve_method(name)[0] for name in methods]
    parameters = {name: one for selector in found if isinstance(selector, Selector) for name, one in selector.options.items()}
    return parse_options("method option", texts, parameters)


def allocator_options(allocators: Iterable[str], texts: Mapping[str, str], mark: str = "") -> dict[str, Any]:
    """Texts as keyword arguments of the allocators.

    Raises:
        UserError: for an option that none of them has (with the nearest ones), a value of another type, or no allocator.
    """
    if not texts:
        return {}
    from dqas_plugin.lookup import parse_options
    from dqas_plugin.plugins import plugins

    found = [plugins().allocators[name] for name in allocators]
    if not found:
        option = f"{mark}allocator-option {next(iter(texts))}"
        raise UserError(f"{option} belongs to an allocator: add {mark}adaptive, or leave it out")
    return parse_options("allocator option", texts, {name: one for each in found for name, one in each.options.items()})


def refiner_options(refiner: str | None, texts: Mapping[str, str], scorer: str | None, mark: str = "") -> dict[str, Any]:
    """Texts, and the scorer, as keyword arguments of the refiner.

    Raises:
        UserError: for an option that it does not have (with the nearest ones), a value of another type, or no refiner.
    """
    wanted = dict(texts)
    if scorer is not None:
        if wanted.get("scorer", scorer) != scorer:
            raise UserError(
                f"{mark}scorer {scorer} and {mark}refiner-option scorer={wanted['scorer']} differ: give one of them"
            )
        wanted["scorer"] = scorer
    if not wanted:
        return {}
    from dqas_plugin.lookup import parse_options
    from dqas_plugin.plugins import check_options, plugins

    if refiner is None:
        option = f"{mark}scorer" if list(wanted) == ["scorer"] and scorer else f"{mark}refiner-option {next(iter(wanted))}"
        raise UserError(f"{option} belongs to a refiner: add {mark}refiner error-reduction, or leave it out")
    entry = plugins().refiners[refiner]
    if not entry.options:
        check_options(entry, "refiner", wanted)
    return parse_options(f"option of the refiner '{refiner}'", wanted, entry.options)


def check_model(name: str, data: ImageDataset) -> None:
    """Build the network once, so that a name that means nothing or images that do not fit are known before the work.

    Raises:
        UserError: from the model.
    """
    from dqas_plugin.lookup import resolve_model

    resolve_model(name)(data.image_shape, data.num_classes)


def check_features(name: str) -> None:
    """Look the extractor up, so that a name that means nothing is known before the work.

    Raises:
        UserError: from the extractor.
    """
    if name != "proxy":
        from dqas_plugin.extractors import resolve

        resolve(name)
