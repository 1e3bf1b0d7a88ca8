"""``dqas list``: what there is, and which plugin it comes from."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import click

from dqas_cli.options import one_of
from dqas_cli.printing import aligned

if TYPE_CHECKING:
    from dqas_plugin.contracts import Entry
    from dqas_plugin.plugins import Plugins

KINDS = {"methods": "selectors"} | {
    one: one for one in ("datasets", "models", "allocators", "refiners", "importers", "executors")
}
"""What people type, and the registry it means."""

Row = dict[str, Any]


@click.command("list")
@click.argument("kind", **one_of("list", (*KINDS, "plugins")))
@click.option(
    "--format",
    "format_",
    **one_of("format", ("table", "json")),
    default="table",
    show_default=True,
    help="json holds more: options with their defaults, families, variants.",
)
def list_(kind: str, format_: str) -> None:
    """List methods, datasets, plugins and so on, with their origin."""
    from dqas_plugin.plugins import plugins

    loaded = plugins()
    rows = plugin_rows(loaded) if kind == "plugins" else entry_rows(loaded, KINDS[kind])
    if format_ == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    columns = (
        ("name", "version", "origin", "brings", "listens", "problem")
        if kind == "plugins"
        else ("name", "title", "variants", "needs", "source", "plugin")
    )
    click.echo(as_table(rows, columns) if rows else f"no {kind}: a plugin may bring some")


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
    for more in ("family", "nested", "trains"):
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
