"""``dqas bench``: the grid of methods, ratios and seeds, with and without adaptive class counts."""

from __future__ import annotations

from pathlib import Path

import click

from dqas_cli import options, rules
from dqas_cli.files import check_cache, check_writable
from dqas_plugin.errors import DqasError, UserError

TABLE_2 = (
    "random",
    "contextual-diversity",
    "herding",
    "k-center",
    "grand",
    "cal",
    "deepfool",
    "craig",
    "gradmatch",
    "glister",
    "least-confidence",
    "entropy",
    "margin",
    "facility-location",
    "graphcut",
    "dq",
    "dqas",
)
"""Rows of Table 2 of the paper, in its order; ``--method all`` means those of them that are registered."""


@click.command(
    epilog="The result is a table on standard output; progress goes to standard error. Everything is kept in --results, so a "
    "stopped run continues and a finished one prints its table again in seconds."
)
@options.data_options
@click.option("--test-from", metavar="NAME", help="Test on the test split of another dataset.")
@click.option(
    "--method",
    "methods",
    **options.many(options.read_name, "NAMES"),
    help="Methods, by comma or repeated; random always comes with them; all: the rows of Table 2.  [default: graphcut]",
)
@click.option(
    "--ratio",
    "ratios",
    **options.many(options.read_ratio, "SHARES"),
    help="Shares of the training set.  [default: 0.05,0.1]",
)
@click.option(
    "--aipc",
    **options.many(options.read_count, "NUMBERS"),
    help="Average images per class, instead of --ratio.",
)
@options.method_options
@options.counts_options
@rules.rule_options
@options.quantization_options
@options.training_options
@click.option(
    "--seeds", **options.one(options.read_count, "NUMBER"), default="3", show_default=True, help="Repetitions: seeds 0, 1, …"
)
@click.option("--jobs", **options.one(options.read_count, "NUMBER"), help="Processes.  [default: one for each processor]")
@click.option("--executor", default="local", show_default=True, metavar="NAME", help="See: dqas list executors.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    default=Path("dqas-results"),
    show_default=True,
    help="Folder that keeps every cell.",
)
@click.option("--estimate", is_flag=True, help="Only say how many cells there are, and about how long they take.")
def bench(
    *,
    dataset: str,
    root: str | None,
    dataset_options: tuple[str, ...],
    test_from: str | None,
    methods: tuple[str, ...],
    ratios: tuple[float, ...],
    aipc: tuple[int, ...],
    method_options: tuple[str, ...],
    features: str,
    max_memory: int,
    adaptive: bool,
    allocator: str | None,
    refiner: str | None,
    refine_share: float,
    allocator_options: tuple[str, ...],
    refiner_options: tuple[str, ...],
    scorer: str | None,
    proxy: str,
    goal: str,
    bins_on: str | None,
    no_patches: bool,
    drop_rate: float,
    patch_size: int | None,
    patch_scores: str,
    rebuild: str,
    model: str,
    recipe_name: str,
    epochs: int | None,
    iterations: int | None,
    prior: str,
    device: str,
    seeds: int,
    jobs: int | None,
    executor: str,
    results: Path,
    estimate: bool,
) -> None:
    """Measure how well networks learn from the chosen training sets.

    For every ratio: random, each method with even class counts and, with --adaptive, each method with adaptive
    sampling: chosen class counts, and the last samples by error reduction.

    \b
    Examples:
      dqas bench --method graphcut --adaptive
      dqas bench --dataset shapes --dataset-option modes=30 --adaptive --seeds 8
      dqas bench --dataset parquet:PATH --method random,graphcut --aipc 50,200 --estimate
    """
    if ratios and aipc:
        raise UserError("--ratio and --aipc exclude each other: give one of them")
    recipe = options.chosen_recipe(recipe_name, epochs, iterations, prior)
    check_writable(results)
    check_cache()
    place = options.chosen_device(device)
    from dqas_plugin import bench as library
    from dqas_plugin.bench.cell import load
    from dqas_plugin.plugins import plugins
    from dqas_plugin.refining import chosen_refiner

    plugins().executors[executor]  # a wrong name is known before the data are loaded
    loader_options = options.dataset_options(dataset, dataset_options) | ({"test_from": test_from} if test_from else {})
    data = library.open_dataset(dataset, root, **loader_options)
    splits = load(data)
    options.tell_notes(dataset, splits)
    options.check_model(model, splits.train)
    options.check_features(features)
    names, allocators = chosen_methods(methods), chosen_allocators(adaptive, allocator)
    refiner = chosen_refiner(refiner, adaptive)
    cells = library.plan(
        data,
        names,
        ratios=ratios,
        aipc=aipc,
        seeds=seeds,
        allocators=allocators,
        refiner=refiner,
        refiner_options=rules.chosen_refiner_options(refiner, refiner_options, scorer),
        refine_share=refine_share,
        goal=goal,
        proxy=proxy,
        model=model,
        recipe=recipe,
        device=place,
        features=features,
        max_memory=max_memory,
        method_options=options.chosen_method_options(names, method_options),
        allocator_options=rules.chosen_allocator_options(allocators, allocator_options),
        patches={
            "keep": no_patches,
            "drop_rate": drop_rate,
            "size": patch_size,
            "scores": patch_scores,
            "rebuild": rebuild,
        },
        bins_on=bins_on,
    )
    if estimate:
        click.echo(library.estimate(cells, results, jobs=jobs, device=place))
        return
    outcome = library.run(cells, results, jobs=jobs, executor=executor, device=place, reporter=library.reporter())
    click.echo(library.plain(library.tabulate(cells, outcome.results)))
    if outcome.failures:
        raise DqasError(f"{len(outcome.failures)} of {len(cells)} cells failed; the first: {outcome.failures[0]}")


def chosen_methods(names: tuple[str, ...]) -> list[str]:
    """The methods meant: graphcut without any, the rows of Table 2 that exist for ``all``."""
    from dqas_plugin.plugins import plugins

    table = [one for one in TABLE_2 if one in plugins().selectors]
    listed = [row for name in names or ("graphcut",) for row in (table if name == "all" else [name])]
    return list(dict.fromkeys(listed))


def chosen_allocators(adaptive: bool, names: str | None) -> list[str]:
    """The allocators to compare with even counts; ``--allocator`` may name several, and means ``--adaptive``."""
    if names is None:
        return ["adaptive"] if adaptive else []
    return [one.strip() for one in names.split(",")]
