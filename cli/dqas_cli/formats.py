"""The options that write images in somebody's format: ``--format`` of ``dqas select``, ``--to`` of ``dqas import``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from dqas_cli.options import split_pairs
from dqas_plugin.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


def format_options(name: str) -> Callable[[F], F]:
    """``--format`` under the given name, and ``--format-option``."""
    chosen = click.option(
        name, "format_", metavar="NAME", help="Write the images, into a new folder.  See: dqas list exporters."
    )
    more = click.option(
        "--format-option", "format_options", multiple=True, metavar="NAME=VALUE", help="Option of that format; may be repeated."
    )
    return lambda function: chosen(more(function))


def chosen_format(option: str, name: str | None, pairs: Iterable[str]) -> dict[str, Any]:
    """The options of the chosen format; none without one.

    Raises:
        UserError: for an unknown format or option (with the nearest ones), a value that cannot be, options without a format,
            or a missing package.
    """
    texts = split_pairs("--format-option", pairs)
    if name is None:
        if texts:
            raise UserError(f"--format-option {next(iter(texts))} belongs to a format: add {option} NAME, or leave it out")
        return {}
    from dqas_plugin.lookup import parse_options
    from dqas_plugin.plugins import check_options, plugins

    exporter = plugins().exporters[name]
    given = parse_options(f"option of the format '{name}'", texts, exporter.options)
    check_options(exporter, "format", given)
    exporter.check_ready(given)
    return given


def told_files(out: Path, saved: Sequence[Path]) -> str:
    """What was written where: a file, or a folder and what is in it."""
    if list(saved) == [out]:
        return f"saved: {out}"
    names = ", ".join(str(one.relative_to(out)) for one in saved[:3])
    more = f" and {len(saved) - 3:,} more" if len(saved) > 3 else ""
    return f"saved: {out} ({names}{more})"
