"""``dqas table``: the paper's comparisons, from a folder of results."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from dqas_cli import options
from dqas_cli.evidence import results_options, uncollected
from dqas_cli.files import check_new_file
from dqas_plugin import given

FORMATS = ("plain", "md", "latex", "csv", "html")


@click.command(
    epilog="Tables: 1: accuracy of every class at every budget; 2: all methods at all budgets; 3: with and without adaptive "
    "sampling; 4: the pipelines of DQ and DQAS without it; 5: what every step costs. The paper's figures stand beside ours "
    "where the dataset is the paper's. A file of that name is replaced."
)
@click.argument("number", **options.one(given.read_count, "[1|2|3|4|5]"))
@results_options
@click.option(
    "--method",
    "methods",
    **options.many(given.read_name, "NAMES"),
    help="Only these rows: a method, or a row as the table names it.  [default: all]",
)
@click.option("--best-epoch", is_flag=True, help="Accuracies of the best epoch, chosen on test labels, instead of the last.")
@click.option(
    "--format",
    "format_",
    **options.one_of("format", FORMATS),
    help="[default: by the ending of --out; else plain on a terminal and md elsewhere]",
)
@click.option("--out", type=click.Path(path_type=Path), help="File, instead of standard output.")
def table(
    *,
    number: int,
    results: Path,
    dataset: str | None,
    model: str | None,
    recipe: str | None,
    methods: tuple[str, ...],
    best_epoch: bool,
    format_: str | None,
    out: Path | None,
) -> None:
    """Regenerate a table of the paper from the results of dqas bench.

    \b
    Examples:
      dqas table 2
      dqas table 1 --method dq
      dqas table 2 --dataset cifar10 --recipe paper --out table-2.tex
    """
    if out is not None:
        check_new_file(out)
    from dqas_plugin.bench import evidence, layout, tables

    tables.check(number, methods, best_epoch)
    form = layout.chosen_format(format_, out, terminal=sys.stdout.isatty())
    with uncollected():
        sections = evidence.read(results, dataset=dataset, model=model, recipe=recipe, best_epoch=best_epoch)
        found = tables.build(number, sections, results, methods=methods)
        text = layout.render(found, form, shutil.get_terminal_size().columns)
    if out is None:
        click.echo(text)
    else:
        layout.write(text, out)
        click.echo(f"saved: {out}")
