"""Writes the generated parts of README.md and docs/: ``make docs`` and ``make output``."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from dqas_cli.main import cli
from dqas_plugin.contracts import Selector
from dqas_plugin.plugins import Plugins

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs" / "bench-output.txt"
COMMAND = ("bench", "--method", "graphcut", "--adaptive")
EXAMPLE = ROOT / "examples" / "dqas-plugin-example"
EXAMPLE_OUTPUT = ROOT / "docs" / "plugin-output.txt"
EXAMPLE_COMMAND = ("bench", "--method", "dpp", "--adaptive", "--ratio", "0.05")
WIDTH = 100


def all_help() -> str:
    """Every help page, as Markdown. Commands of other people's plugins are left out."""
    pages = [_page(cli, "dqas")]
    pages += [_page(command, f"dqas {name}") for name, command in sorted(cli.commands.items())]
    return "\n".join(pages)


def _page(command: click.Command, name: str) -> str:
    with click.Context(command, info_name=name, terminal_width=WIDTH, help_option_names=["-h", "--help"]) as context:
        text = _group_help(command, context) if isinstance(command, click.Group) else command.get_help(context)
    return f"\n## {name}\n\n```\n{text.rstrip()}\n```\n"


def _group_help(group: click.Group, context: click.Context) -> str:
    """Help of a group with its own commands only, whatever plugins are installed here."""
    own = click.Group(group.name, group.commands, params=group.params, help=group.help)
    own.subcommand_metavar = group.subcommand_metavar
    return own.get_help(context)


def bench_output() -> str:
    """What the README's command printed when ``make output`` last ran it."""
    return f"\n```\n{OUTPUT.read_text().rstrip()}\n```\n\n"


def source(path: str, language: str = "python") -> str:
    """A file of this repository, as Markdown."""
    return f"\n```{language}\n{(ROOT / path).read_text().rstrip()}\n```\n\n"


def functions(path: str, *names: str) -> str:
    """Functions of a file of this repository, as Markdown."""
    text = (ROOT / path).read_text()
    found = {one.name: ast.get_source_segment(text, one) for one in ast.parse(text).body if isinstance(one, ast.FunctionDef)}
    joined = "\n\n\n".join(str(found[name]) for name in names)
    return f"\n```python\n{joined}\n```\n\n"


def example_output() -> str:
    """What the example's command printed when ``make output`` last ran it."""
    return f"\n```\n{EXAMPLE_OUTPUT.read_text().rstrip()}\n```\n\n"


def methods() -> str:
    """A table of the built-in selection methods."""
    head = "| method | family | what it does | where programs differ | source |\n|---|---|---|---|---|\n"
    rows = [f"| `{one.name}` | {one.family} | {one.title} | {one.differs} | {one.source} |" for one in _built_in_methods()]
    return "\n" + head + "\n".join(rows) + "\n\n"


def _built_in_methods() -> list[Selector]:
    return list(Plugins(strangers=False).selectors.values())


def run_command(*more: str) -> str:
    """Standard output of the README's command, run in an empty folder."""
    return _run([*COMMAND, *more], ROOT, ROOT / "cli", ROOT / "adapters")


def run_example() -> str:
    """Standard output of the example's command, with the example installed and nothing else of that kind."""
    with tempfile.TemporaryDirectory() as folder:
        install(EXAMPLE, Path(folder))
        return _run(EXAMPLE_COMMAND, ROOT, ROOT / "cli", ROOT / "adapters", Path(folder))


def install(package: Path, target: Path) -> None:
    """Install a package into a folder with pip, from a copy of it and without the network."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(package, Path(folder) / package.name, ignore=shutil.ignore_patterns("build", "*.egg-info", ".*"))
        call = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        own = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run([*call, "--target", str(target), str(copy)], check=True, env=own)


def _run(arguments: Sequence[str], *path: Path) -> str:
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-m", "dqas_cli", *arguments]
        return subprocess.run(call, cwd=folder, env=own, check=True, stdout=subprocess.PIPE, text=True).stdout


def masked(text: str) -> list[str]:
    """The lines of an output without what differs from machine to machine: numbers, and what they say."""
    lines = []
    # The sentences below a table are a difference and its verdict; where they wrap depends on the figures.
    for line in re.sub(r"^(.+ at [\d.]+ %: ).*(?:\n {2}(?!\+).+)*", r"\1…", text, flags=re.MULTILINE).splitlines():
        told = re.sub(r"\b(not better|better|worse|kept even counts|same selection|one seed|no spread|verdict)\s*$", "", line)
        told = re.sub(r"[-+−–]?\d[\d.,–]*", "N", told)
        words = " ".join(re.sub(r"(?<!\w)[N±\[\],\s]+(?!\w)", " ", told).split())
        if words:
            lines.append(words)
    return lines


if __name__ == "__main__":
    if sys.argv[1:] != ["output"]:
        sys.exit("usage: python docs/pages.py output")
    OUTPUT.write_text(run_command())
    EXAMPLE_OUTPUT.write_text(run_example())
