"""``dqas figure``: pictures of a folder of results."""

from __future__ import annotations

from pathlib import Path

import click

from dqas_cli import options
from dqas_cli.evidence import chosen_sections, results_options
from dqas_cli.files import check_new_file
from dqas_plugin import given
from dqas_plugin.bench.figures import FIGURES, check_ending
from dqas_plugin.bench.figures import figure as chosen_figure


@click.command(
    epilog="Figures: "
    + "; ".join(f"{name}: {what}" for name, what in FIGURES.items())
    + ". Bars of error are one standard deviation over seeds. A file of that name is replaced."
)
@click.argument("name", **options.one_of("figure", FIGURES))
@results_options
@click.option(
    "--method",
    "methods",
    **options.many(given.read_name, "NAMES"),
    help="As the table names it, or by its method alone; several for curves.  [default: curves all, others the first that "
    "will do]",
)
@click.option(
    "--ratio", **options.one(given.read_ratio, "SHARE"), help="The budget of figure 3.  [default: the largest there is]"
)
@click.option("--aipc", **options.one(given.read_count, "NUMBER"), help="The same as average images per class.")
@click.option("--out", type=click.Path(path_type=Path), help="File, .png, .svg or .pdf.  [default: figure-1.png and so on]")
def figure(
    *,
    name: str,
    results: Path,
    dataset: str | None,
    model: str | None,
    recipe: str | None,
    methods: tuple[str, ...],
    ratio: float | None,
    aipc: int | None,
    out: Path | None,
) -> None:
    """Draw a figure of the paper, or curves, from the results of dqas bench.

    \b
    Examples:
      dqas figure 1 --method dq
      dqas figure 3 --method graphcut --ratio 0.1 --out counts.svg
      dqas figure curves --results dqas-results --out curves.pdf
    """
    path = Path(f"figure-{name}.png") if out is None else out
    check_ending(path)
    check_new_file(path)
    sections = chosen_sections(results, dataset, model, recipe)
    picture = chosen_figure(name, sections, results, methods=methods, ratio=ratio, aipc=aipc)
    from dqas_plugin.bench.figures import save

    save(picture, path)
    click.echo(f"{picture.title}\nsaved: {path}")
