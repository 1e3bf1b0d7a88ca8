"""Options of the rules that choose class counts and add the last samples: ``NAME=VALUE``, as plugins declare them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from dqas_cli.options import split_pairs
from dqas_plugin import given

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
    """``NAME=VALUE`` pairs as keyword arguments of the allocators."""
    return given.allocator_options(allocators, split_pairs("--allocator-option", pairs), mark="--")


def chosen_refiner_options(refiner: str | None, pairs: Sequence[str], scorer: str | None) -> dict[str, Any]:
    """``NAME=VALUE`` pairs, and the scorer, as keyword arguments of the refiner."""
    return given.refiner_options(refiner, split_pairs("--refiner-option", pairs), scorer, mark="--")
