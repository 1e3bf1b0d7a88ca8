"""Options that several commands share, each declared once, and the checks that need no data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from dqas_cli.deepcore import deepcore_option
from dqas_plugin import given
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.recipes import RECIPES, Recipe
from dqas_plugin.told import visible

if TYPE_CHECKING:
    from dqas_plugin.data import DatasetSplits

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


def one_of(kind: str, words: Iterable[str]) -> dict[str, Any]:
    """Arguments of an option (or argument) that is one of some words, or left out; a wrong one is answered with the nearest."""
    valid = tuple(words)

    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value is not None and value not in valid:
            raise unknown_name(kind, value, valid)
        return value

    return {"metavar": f"[{'|'.join(valid)}]", "callback": check}


def one(read: Callable[[str, str], T], metavar: str) -> dict[str, Any]:
    """Arguments of an option whose text is read by ``read(option, text)``; None if it is not given."""

    def parse(_: click.Context, parameter: click.Parameter, text: str | None) -> T | None:
        return None if text is None else read(parameter.opts[0], text)

    return {"type": str, "metavar": metavar, "callback": parse}


def many(read: Callable[[str, str], T], metavar: str) -> dict[str, Any]:
    """Arguments of an option that takes several values, by comma or repeated; each is kept once, in order."""

    def parse(_: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[T, ...]:
        return given.separated(parameter.opts[0], texts, read)

    return {"type": str, "metavar": metavar, "callback": parse, "multiple": True}


def check_effect(does: bool, why_not: str, *names: str) -> None:
    """Refuse options that were given, but do nothing.

    Args:
        does: whether they do something.
        why_not: words that follow "has no effect here", with the remedy.
        names: of the parameters.

    Raises:
        UserError: for the first one.
    """
    if does:
        return
    context = click.get_current_context()
    for one in context.command.params:
        if one.name in names and context.get_parameter_source(one.name) is ParameterSource.COMMANDLINE:
            raise UserError(f"{one.opts[0]} has no effect here: {why_not}")


def check_counting(*, allocator: bool, refiner: bool) -> None:
    """Refuse options of :func:`counts_options` that do nothing.

    Args:
        allocator: whether there is one.
        refiner: whether there is one.
    """
    check_effect(allocator, "there is no allocator; add --adaptive, or leave it out", "goal", "proxy")
    check_effect(refiner, "there is no refiner; add --adaptive or --refiner NAME, or leave it out", "refine_share")


def _together(options: Iterable[Callable[[F], F]]) -> Decorator[F]:
    """Several decorators as one, the first one on top of the help page."""
    listed = tuple(options)

    def decorate(function: F) -> F:
        for option in reversed(listed):
            function = option(function)
        return function

    return decorate


def data_options(function: F) -> F:
    """``--dataset``, ``--root``, ``--dataset-option``."""
    return _together(
        (
            click.option("--dataset", default="digits", show_default=True, metavar="NAME", help="See: dqas list datasets."),
            click.option("--root", metavar="DIR", help="Folder with the dataset's files.  [default: data]"),
            click.option(
                "--dataset-option",
                "dataset_options",
                multiple=True,
                metavar="NAME=VALUE",
                help="Option of the dataset, such as modes=30 for shapes; may be repeated.",
            ),
        )
    )(function)


def method_options(function: F) -> F:
    """``--deepcore``, ``--method-option``, ``--features``, ``--max-memory``."""
    return _together(
        (
            deepcore_option,
            click.option(
                "--method-option",
                "method_options",
                multiple=True,
                metavar="NAME=VALUE",
                help="Option of the methods that have it, such as repeat=3 for grand; may be repeated.",
            ),
            click.option(
                "--features",
                default="proxy",
                show_default=True,
                metavar="NAME",
                help="What methods that read features see: proxy, timm:NAME or timm:NAME@WEIGHTS.",
            ),
            click.option(
                "--max-memory",
                **one(given.read_size, "SIZE"),
                default="4GiB",
                show_default=True,
                help="What ranking a class may take beyond the features, such as 500MB.",
            ),
        )
    )(function)


def training_options(function: F) -> F:
    """``--model``, ``--recipe`` and what changes it, ``--device``."""
    return _together(
        (
            click.option("--model", default="convnet3-small", show_default=True, metavar="NAME", help="See: dqas list models."),
            click.option(
                "--recipe",
                "recipe_name",
                **one_of("recipe", RECIPES),
                default="quick",
                show_default=True,
                help="How to train.",
            ),
            click.option(
                "--epochs", **one(given.read_count, "NUMBER"), help="Passes over the training set, instead of the recipe's."
            ),
            click.option(
                "--iterations",
                **one(given.read_count, "NUMBER"),
                help="Optimiser steps whatever the size, instead of the recipe's.",
            ),
            click.option(
                "--prior",
                **one_of("prior", ("balanced", "empirical")),
                default="balanced",
                show_default=True,
                help="Take uneven class counts out of the loss, or leave them in.",
            ),
            click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda:0 …"),
        )
    )(function)


def counts_options(function: F) -> F:
    """How many of each class: ``--adaptive`` and what steers it."""
    return _together(
        (
            click.option(
                "--adaptive", is_flag=True, help="Choose the class counts, too, and the last samples by error reduction."
            ),
            click.option("--allocator", metavar="NAME", help="What chooses them.  [default: adaptive, with --adaptive]"),
            click.option(
                "--refiner",
                metavar="NAME",
                help="Spend the last part on single samples; see dqas list refiners.  [default: error-reduction with "
                "--adaptive, else none]",
            ),
            click.option(
                "--refine-share",
                **one(given.read_share, "SHARE"),
                default="0.1",
                show_default=True,
                help="That part of the budget.",
            ),
            click.option(
                "--proxy",
                **one_of("proxy", ("probe", "train")),
                default="probe",
                show_default=True,
                help="What an allocator tries counts on: a probe (last layer only), or real training.",
            ),
            click.option(
                "--goal",
                **one_of("goal", ("mean", "natural", "worst")),
                default="mean",
                show_default=True,
                help="What better means: class mean, frequency-weighted mean, worst class.",
            ),
        )
    )(function)


def quantization_options(function: F) -> F:
    """What is kept of an image: ``--drop-rate`` and what belongs to it."""
    return _together(
        (
            click.option(
                "--bins-on",
                metavar="[original|reconstructed]",
                help="Whose features the bins of dq and dqas are made of.  [default: original for dq]",
            ),
            click.option("--no-patches", is_flag=True, help="dq and dqas keep whole images."),
            click.option(
                "--drop-rate", type=float, default=0.25, show_default=True, help="Share of the patches that they drop."
            ),
            click.option("--patch-size", **one(given.read_count, "PIXELS"), help="Side of a patch.  [default: by image size]"),
            click.option(
                "--patch-scores",
                **one_of("patch score", ("grad-cam", "saliency")),
                default="grad-cam",
                show_default=True,
                help="What tells informative patches.",
            ),
            click.option(
                "--rebuild",
                **one_of("way to rebuild images", ("harmonic", "mae")),
                default="mae",
                show_default=True,
                help="A masked autoencoder that is trained here, or harmonic inpainting, which takes seconds.",
            ),
        )
    )(function)


def chosen_recipe(name: str, epochs: int | None, iterations: int | None, prior: str) -> Recipe:
    """The recipe of that name with what the options change."""
    return given.chosen_recipe(name, epochs, iterations, prior, mark="--")


def chosen_device(name: str, *, elsewhere: bool = False) -> str:
    """The device to use; ``auto`` is a GPU if there is one.

    Args:
        name: as it was typed.
        elsewhere: it may be on another machine.

    Raises:
        UserError: if there is no such device.
    """
    import torch

    from dqas_plugin.precision import device_kind, resolve_device

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not elsewhere:
        resolve_device(name)
    return name if ":" in name else device_kind(name)


def load_data(name: str, root: str | None, pairs: Iterable[str] = ()) -> DatasetSplits:
    """The dataset, with ``NAME=VALUE`` options for its loader."""
    from dqas_plugin import load_dataset

    data = load_dataset(name, root, **dataset_options(name, pairs))
    tell_notes(name, data)
    return data


def tell_notes(name: str, data: DatasetSplits) -> None:
    """Say on stderr what the loader converted or left out."""
    from dqas_plugin.data import TrainOnly

    tested = () if isinstance(data, TrainOnly) else data.test.notes
    for note in dict.fromkeys((*data.train.notes, *tested)):
        click.echo(visible(f"{name}: {note}"), err=True)


def dataset_options(name: str, pairs: Iterable[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as the keyword arguments of that dataset's loader."""
    return given.dataset_options(name, split_pairs("--dataset-option", pairs))


def chosen_method_options(methods: Iterable[str], pairs: Iterable[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs as keyword arguments of the methods."""
    return given.method_options(methods, split_pairs("--method-option", pairs))


def split_pairs(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a dictionary.

    Raises:
        UserError: for a text without a value, and for two values of one name.
    """
    texts: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"{option} {pair} has no value: write it as NAME=VALUE")
        if texts.get(name, text) != text:
            raise UserError(f"{option} {name} is given twice, as {texts[name]} and {text}: leave one out")
        texts[name] = text
    return texts
