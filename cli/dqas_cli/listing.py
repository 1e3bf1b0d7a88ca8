"""``dqas list``: what there is, and which plugin it comes from."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dqas_cli.deepcore import deepcore_option
from dqas_cli.options import one_of
from dqas_cli.printing import aligned
from dqas_plugin.errors import UserError

if TYPE_CHECKING:
    from dqas_plugin.bench.overlap import Overlap
    from dqas_plugin.contracts import Entry
    from dqas_plugin.plugins import Plugins

KINDS = {"methods": "selectors"} | {
    one: one for one in ("datasets", "models", "allocators", "refiners", "importers", "exporters", "executors")
}
"""What people type, and the registry it means."""

COLUMNS = {"plugins": ("name", "version", "origin", "brings", "listens", "problem"), "grids": ("name", "title", "file")}
"""Of the table, where they are not those of registered things."""

Row = dict[str, Any]


@click.command("list")
@click.argument("kind", **one_of("list", (*KINDS, "grids", "plugins", "overlap")))
@click.option(
    "--format",
    "format_",
    **one_of("format", ("table", "json")),
    default="table",
    show_default=True,
    help="json holds more: options with their defaults, families, variants.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Folder of dqas bench, for overlap: how many images the methods' selections share.  [default: dqas-results]",
)
@deepcore_option
def list_(kind: str, format_: str, results: Path | None) -> None:
    """List methods, datasets, plugins and so on, with their origin; grid files; or how far the methods' picks overlap."""
    if kind == "overlap":
        click.echo(overlap(results or Path("dqas-results"), format_))
        return
    if results is not None:
        raise UserError(f"--results belongs to dqas list overlap, not to {kind}: leave it out")
    rows = chosen_rows(kind)
    if format_ == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        click.echo(f"no {kind}: a plugin may bring some")
    elif kind == "methods":
        click.echo(as_paragraphs(rows))
    else:
        click.echo(as_table(rows, COLUMNS.get(kind, ("name", "title", "needs", "source", "plugin"))))


def chosen_rows(kind: str) -> list[Row]:
    """What there is of a kind."""
    if kind == "grids":
        from dqas_plugin.bench import shipped_grids

        return [{"name": one.name, "title": one.title, "file": str(one.path)} for one in shipped_grids()]
    from dqas_plugin.plugins import plugins

    loaded = plugins()
    return plugin_rows(loaded) if kind == "plugins" else entry_rows(loaded, KINDS[kind])


def overlap(folder: Path, format_: str) -> str:
    """The share of images that two methods' selections have in common, for every pair, and which pairs are the same."""
    from dqas_plugin.bench.overlap import overlaps

    found = overlaps(folder)
    if format_ == "json":
        rows = [{**vars(one), "shares": [[_known(share) for share in row] for row in one.shares]} for one in found]
        return json.dumps(rows, indent=2, ensure_ascii=False)
    return "\n\n".join(_overlap_table(one) for one in found)


def _known(share: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(share) else float(share)


def _overlap_table(found: Overlap) -> str:
    head = (
        f"{found.dataset}, {found.label} ({found.images:,} images, {found.seeds} seed{'s' if found.seeds > 1 else ''}): "
        f"images in common in %; by chance {100 * found.chance:.0f}"
    )
    numbers = [str(one + 1) for one in range(len(found.names))]
    rows = []
    for i, name in enumerate(found.names):
        shares = ["·" if i == j else "" if math.isnan(one) else f"{100 * one:.0f}" for j, one in enumerate(found.shares[i])]
        rows.append([numbers[i], name, *shares])
    lines = [head, aligned(["", "", *numbers], rows, right=(0, *range(2, len(numbers) + 2)))]
    for first, second, share in found.suspicious:
        how = "the same images" if share == 1 else f"nearly the same images ({share:.1%})"
        lines.append(f"{first} and {second} pick {how}: one method under two names, or a mistake?")
    return "\n".join(lines)


def entry_rows(loaded: Plugins, plural: str) -> list[Row]:
    """Everything in one registry, in the order of registration."""
    registry = loaded.registry(plural)
    return [describe(one) | {"plugin": registry.provider(one.name)} for one in registry.values()]


def describe(entry: Entry) -> Row:
    """One registered thing as values that JSON knows."""
    suffix = ":PATH" if getattr(entry, "takes_path", False) else ":NAME" if getattr(entry, "takes_name", False) else ""
    row: Row = {
        "name": entry.name + suffix,
        "title": entry.title,
        "needs": sorted(getattr(entry, "needs", ())),
        "source": entry.source,
        "options": {name: _default(one) for name, one in entry.options.items()},
    }
    for more in ("family", "nested", "differs", "trains"):
        if hasattr(entry, more):
            row[more] = getattr(entry, more)
    if variants := getattr(entry, "variants", None):
        row["variants"] = {name: dict(options) for name, options in variants.items()}
    return row


def plugin_rows(loaded: Plugins) -> list[Row]:
    """Every loaded plugin, then what is broken and why."""
    rows: list[Row] = [
        {
            "name": one.name,
            "version": one.version,
            "origin": one.origin,
            "hooks": list(one.hooks),
            "brings": {kind: list(names) for kind, names in one.brings.items()},
            "listens": [hook for hook in one.hooks if not hook.startswith("dqas_register_")],
        }
        for one in loaded.overview()
    ]
    return rows + [{"name": one.plugin, "problem": one.message} for one in loaded.problems]


def as_table(rows: list[Row], columns: tuple[str, ...]) -> str:
    """The rows as text; columns that are empty everywhere are left out."""
    brief = [{**row, "variants": list(row.get("variants", ()))} for row in rows]  # names; json tells what they mean
    texts = [{column: _text(row.get(column, "")) for column in columns} for row in brief]
    shown = [column for column in columns if any(row[column] for row in texts)]
    return aligned(shown, [[row[column] for column in shown] for row in texts])


def as_paragraphs(rows: list[Row]) -> str:
    """Methods have more to say than a line holds: what each is, what differs between programs, and where it comes from."""
    width = max(len(row["name"]) for row in rows) + 2
    lines = []
    for row in rows:
        needs = f"reads {_text(row['needs'])}" if row["needs"] else "reads nothing"
        variants = [f"variants: {', '.join(row['variants'])}"] if row.get("variants") else []
        origin = "; ".join(one for one in (row["source"], needs, *variants, f"from {row['plugin']}") if one)
        texts = [one for one in (row["title"], row["differs"], origin) if one]
        lines += [head.ljust(width) + text for head, text in zip([row["name"], *[""] * len(texts)], texts, strict=False)]
    return "\n".join(lines)


def _default(parameter: inspect.Parameter) -> Any:
    """The default of an option, as JSON knows it."""
    value = parameter.default
    if value is inspect.Parameter.empty:
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(one)}" for key, one in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
