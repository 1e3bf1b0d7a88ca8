"""``dqas bench``: the grid of methods, ratios and seeds, with and without adaptive class counts; or those of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dqas_cli import options, rules
from dqas_cli.files import check_cache, check_writable
from dqas_plugin import given
from dqas_plugin.errors import DqasError, UserError

if TYPE_CHECKING:
    from dqas_plugin.bench import DatasetReference, GridSpec


@click.command(
    epilog="The result is a table on standard output; progress goes to standard error. Everything is kept in --results, so a "
    "stopped run continues and a finished one prints its table again in seconds."
)
@options.data_options
@click.option("--test-from", metavar="NAME", help="Test on the test split of another dataset.")
@click.option(
    "--method",
    "methods",
    **options.many(given.read_name, "NAMES"),
    help="Methods, by comma or repeated; random always comes with them; all: the rows of Table 2.  [default: graphcut]",
)
@click.option(
    "--ratio",
    "ratios",
    **options.many(given.read_ratio, "SHARES"),
    help="Shares of the training set.  [default: 0.05,0.1]",
)
@click.option(
    "--aipc",
    **options.many(given.read_count, "NUMBERS"),
    help="Average images per class, instead of --ratio.",
)
@options.method_options
@options.counts_options
@rules.rule_options
@options.quantization_options
@options.training_options
@click.option("--batch", **options.one(given.read_count, "NUMBER"), help="Images in a batch, instead of the recipe's.")
@click.option("--lr", **options.one(given.read_positive, "NUMBER"), help="Highest learning rate, instead of the recipe's.")
@click.option(
    "--seeds", **options.one(given.read_count, "NUMBER"), default="3", show_default=True, help="Repetitions: seeds 0, 1, …"
)
@click.option(
    "--grid",
    metavar="FILE",
    help="TOML file that says all of the above but --root, --deepcore and --device, for several datasets if need be; a shipped "
    "one by its name (see: dqas list grids).",
)
@click.option(
    "--jobs", **options.one(given.read_count, "NUMBER"), help="Tasks at a time.  [default: one for each processor or GPU]"
)
@click.option("--executor", default="local", show_default=True, metavar="NAME", help="See: dqas list executors.")
@click.option(
    "--executor-option",
    "executor_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the executor; may be repeated.  See: dqas list executors --format json.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("dqas-results"),
    show_default=True,
    help="Folder that keeps every cell.",
)
@click.option("--estimate", is_flag=True, help="Only say how many cells there are, and about how long they take.")
@click.option(
    "--price",
    **options.one(given.read_positive, "NUMBER"),
    help="With --estimate: what an hour of a GPU costs (or of the machine, without one), such as 2.50; says what the time then "
    "costs: time x price x devices.",
)
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    *,
    root: str | None,
    device: str,
    grid: str | None,
    jobs: int | None,
    executor: str,
    executor_options: tuple[str, ...],
    results: Path,
    estimate: bool,
    price: float | None,
    **asked: Any,
) -> None:
    """Measure how well networks learn from the chosen training sets.

    For every ratio: random, each method with even class counts and, with --adaptive, each method with adaptive
    sampling: chosen class counts, and the last samples by error reduction.

    \b
    Examples:
      dqas bench --method graphcut --adaptive
      dqas bench --dataset shapes --dataset-option modes=30 --adaptive --seeds 8
      dqas bench --dataset parquet:PATH --method random,graphcut --aipc 50,200 --estimate
      dqas bench --grid quick-table2
    """
    if price is not None and not estimate:
        raise UserError("--price belongs to --estimate: add it, or leave --price out")
    specs = chosen_grids(ctx, grid, asked)
    check_writable(results)
    check_cache()
    from dqas_plugin import bench as library
    from dqas_plugin.lookup import parse_options
    from dqas_plugin.plugins import plugins

    chosen = plugins().executors[executor]  # a mistake is known before the data are loaded
    place = options.chosen_device(device, elsewhere=chosen.elsewhere)
    pairs = options.split_pairs("--executor-option", executor_options)
    given_options = parse_options(f"option of the executor '{executor}'", pairs, chosen.options)
    if not estimate:
        chosen.check_ready(given_options)
    cells = library.plan_grids(specs, root=root, device=place, opened=tell_opened)
    if estimate:
        click.echo(library.estimate(cells, results, jobs=jobs, executor=executor, device=place, price=price))
        return
    reporter = library.reporter(name=library.names(cells))
    outcome = library.run(
        *(cells, results), jobs=jobs, executor=executor, executor_options=given_options, device=place, reporter=reporter
    )
    click.echo(library.plain(library.tabulate(cells, outcome.results)))
    for note in outcome.notes:
        click.echo(f"note: {note}", err=True)
    if outcome.failures:
        raise DqasError(f"{len(outcome.failures)} of {len(cells)} cells failed; the first: {outcome.failures[0]}")


def chosen_grids(ctx: click.Context, grid: str | None, asked: dict[str, Any]) -> list[GridSpec]:
    """What is to be run: the grids of the file, or the one that the options say.

    Raises:
        UserError: for both, and for a file that is no grid.
    """
    from dqas_plugin.bench import GridSpec, read_grid

    if grid is None:
        _check_effect(asked)
        pairs = {name: options.split_pairs(option, asked[name]) for name, option in _PAIRS.items()}
        return [GridSpec(**(asked | pairs), mark="--")]
    for parameter in ctx.command.params:
        if parameter.name in asked and ctx.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT:
            option = parameter.opts[0]
            raise UserError(
                f"{option} says what to run, and so does --grid {grid}: write it into a grid file of your own, or leave it out"
            )
    return read_grid(grid)


def _check_effect(asked: dict[str, Any]) -> None:
    """Refuse options that change nothing in this grid."""
    from dqas_plugin.bench.checks import quantizes
    from dqas_plugin.bench.gridspec import chosen_methods
    from dqas_plugin.refining import chosen_refiner

    adaptive = asked["adaptive"] or asked["allocator"] is not None
    options.check_counting(allocator=adaptive, refiner=chosen_refiner(asked["refiner"], asked["adaptive"]) is not None)
    options.check_effect(
        any(quantizes(one) is not None for one in chosen_methods(asked["methods"])),
        "no method drops patches; add dq or dqas to --method, or leave it out",
        *("bins_on", "no_patches", "drop_rate", "patch_size", "patch_scores", "rebuild"),
    )


_PAIRS = {f"{kind}_options": f"--{kind}-option" for kind in ("dataset", "method", "allocator", "refiner")}


def tell_opened(name: str, reference: DatasetReference) -> None:
    """Say what the loader converted or left out."""
    from dqas_plugin.bench.cell import load

    options.tell_notes(name, load(reference))
