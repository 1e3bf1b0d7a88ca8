"""Options of the rules that choose class counts and add the last samples: ``NAME=VALUE``, as plugins declare them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from dqas_cli.options import split_pairs
from dqas_plugin.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


def rule_options(function: F) -> F:
    """``--allocator-option``, ``--refiner-option`` and ``--scorer``."""
    allocator = click.option(
        "--allocator-option",
        "allocator_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Option of the allocators that have it, such as iterations=50 for paper; may be repeated.",
    )
    refiner = click.option(
        "--refiner-option",
        "refiner_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Option of the refiner, such as rounds=1; may be repeated.  See: dqas list refiners --format json.",
    )
    scorer = click.option(
        "--scorer",
        metavar="NAME",
        help="Short for --refiner-option scorer=NAME: kap2nd, influence, gradient, ridge, or retrain (for tiny sets only).",
    )
    return allocator(refiner(scorer(function)))


def chosen_allocator_options(allocators: Iterable[str], pairs: Iterable[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as keyword arguments of the allocators.

    Raises:
        UserError: for an option that none of them has (with the nearest ones), a value of another type, or no allocator.
    """
    texts = split_pairs("--allocator-option", pairs)
    if not texts:
        return {}
    from dqas_plugin.lookup import parse_options
    from dqas_plugin.plugins import plugins

    found = [plugins().allocators[name] for name in allocators]
    if not found:
        raise UserError(f"--allocator-option {next(iter(texts))} belongs to an allocator: add --adaptive, or leave it out")
    return parse_options("allocator option", texts, {name: one for each in found for name, one in each.options.items()})


def chosen_refiner_options(refiner: str | None, pairs: Sequence[str], scorer: str | None) -> dict[str, Any]:
    """``NAME=VALUE`` pairs, and the scorer, as keyword arguments of the refiner.

    Raises:
        UserError: for an option that it does not have (with the nearest ones), a value of another type, or no refiner.
    """
    texts = split_pairs("--refiner-option", pairs)
    if scorer is not None:
        if texts.get("scorer", scorer) != scorer:
            raise UserError(f"--scorer {scorer} and --refiner-option scorer={texts['scorer']} differ: give one of them")
        texts["scorer"] = scorer
    if not texts:
        return {}
    from dqas_plugin.lookup import parse_options
    from dqas_plugin.plugins import check_options, plugins

    if refiner is None:
        given = "--scorer" if list(texts) == ["scorer"] and scorer else f"--refiner-option {next(iter(texts))}"
        raise UserError(f"{given} belongs to a refiner: add --refiner error-reduction, or leave it out")
    entry = plugins().refiners[refiner]
    if not entry.options:
        check_options(entry, "refiner", texts)
    return parse_options(f"option of the refiner '{refiner}'", texts, entry.options)
