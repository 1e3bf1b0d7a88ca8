"""What a line ``dqas bench …`` would run, without loading data or running anything."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from dqas_cli.bench import bench, chosen_grids
from dqas_plugin.bench import Cell, DatasetReference, GridSpec, plan


def parsed(line: str) -> tuple[click.Context, dict[str, Any]]:
    """The line as the program reads it, and its options."""
    program, command, *arguments = shlex.split(line)
    assert (program, command) == ("dqas", "bench")
    context = bench.make_context("bench", arguments)
    return context, context.params


def planned(line: str, dataset: DatasetReference) -> list[Cell]:
    """The cells of the line, on a dataset that must be the one that it names."""
    context, options = parsed(line)
    grid = {one.name: options[one.name] for one in fields(GridSpec) if one.name in options}
    with context:
        [spec] = chosen_grids(context, None, grid)
    arguments = spec.arguments()
    named = {**spec.dataset_options, **({"test_from": spec.test_from} if spec.test_from else {})}
    assert (spec.dataset, options["root"]) == (dataset.name, dataset.root)
    assert named == {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in dataset.options.items()
    }
    return plan(dataset, device=options["device"], **arguments)


def results_folder(line: str) -> Path:
    """Where the line keeps results."""
    found: Path = parsed(line)[1]["results"]
    return found
