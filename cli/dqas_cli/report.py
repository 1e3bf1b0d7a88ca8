"""``dqas report``: one page on a folder of results."""

from __future__ import annotations

from pathlib import Path

import click

from dqas_cli.evidence import chosen_sections, results_options
from dqas_cli.files import check_new_file
from dqas_plugin.errors import UserError


@click.command(
    epilog="The page is one file that loads nothing from a network. Pictures of the chosen images are in it where the dataset "
    "can be loaded. A file of that name is replaced."
)
@results_options
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True, help="Where the page goes."
)
def report(*, results: Path, dataset: str | None, model: str | None, recipe: str | None, out: Path) -> None:
    """Write a page with all that the results of dqas bench show: words, tables, curves and pictures.

    \b
    Examples:
      dqas report
      dqas report --results dqas-results --dataset digits --out digits.html
    """
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise UserError(f"--out {out}: the report is an HTML file; name it so")
    check_new_file(out)
    sections = chosen_sections(results, dataset, model, recipe)
    from dqas_plugin.bench.report import write

    said = write(sections, results, out)
    click.echo("\n".join([*said, f"saved: {out}"]))
