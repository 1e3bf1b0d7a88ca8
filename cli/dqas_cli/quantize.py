"""``dqas quantize``: dataset quantization, DQAS or DQ: images chosen, and of them the informative patches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from dqas_cli import options, rules
from dqas_cli.files import check_cache, check_new_folder
from dqas_cli.select import summary
from dqas_plugin import given
from dqas_plugin.errors import UserError


@click.command(
    epilog="The folder loads as a dataset: dqas bench --dataset parquet:DIR. Its test split is that of the original."
)
@options.data_options
@click.option("--ratio", **options.one(given.read_ratio, "SHARE"), help="Share of the data to keep, such as 0.1.")
@click.option("--aipc", **options.one(given.read_count, "NUMBER"), help="The same as whole images per class.")
@click.option(
    "--pipeline",
    **options.one_of("pipeline", ("dqas", "dq")),
    default="dqas",
    show_default=True,
    help="DQAS, or dataset quantization as it was before.",
)
@click.option("--no-adaptive", is_flag=True, help="DQAS with even class counts and without refinement.")
@click.option(
    "--refine-share",
    **options.one(given.read_share, "SHARE"),
    default="0.1",
    show_default=True,
    help="Part of the images that error reduction adds, with dqas.",
)
@rules.rule_options
@options.quantization_options
@click.option("--bins", **options.one(given.read_count, "NUMBER"), default="10", show_default=True, help="How many bins.")
@click.option("--mae-weights", type=click.Path(path_type=Path), help="Weights of a masked autoencoder; means --rebuild mae.")
@options.training_options
@click.option("--seed", **options.one(given.read_seed, "NUMBER"), default="0", show_default=True, help="Of all that is random.")
@click.option("--rebuilt", is_flag=True, help="Write rebuilt images instead of patches and masks.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder for the result.")
def quantize(
    *,
    dataset: str,
    root: str | None,
    dataset_options: tuple[str, ...],
    ratio: float | None,
    aipc: int | None,
    pipeline: str,
    no_adaptive: bool,
    refine_share: float,
    allocator_options: tuple[str, ...],
    refiner_options: tuple[str, ...],
    scorer: str | None,
    bins_on: str | None,
    bins: int,
    no_patches: bool,
    recipe_name: str,
    epochs: int | None,
    iterations: int | None,
    prior: str,
    device: str,
    model: str,
    seed: int,
    rebuilt: bool,
    out: Path,
    **patches: Any,
) -> None:
    """Cut a labelled image set to a budget: images are chosen, and their least informative patches dropped."""
    if (ratio is None) == (aipc is None):
        raise UserError("say how much to keep: give one of --ratio and --aipc")
    recipe = options.chosen_recipe(recipe_name, epochs, iterations, prior)
    options.check_effect(
        not no_patches,
        "--no-patches keeps whole images; leave one of them out",
        *("drop_rate", "patch_size", "patch_scores", "rebuild", "mae_weights", "rebuilt"),
    )
    options.check_effect(
        pipeline == "dqas" and not no_adaptive,
        "only DQAS with adaptive counts adds images by error reduction; leave it out",
        "refine_share",
    )
    options.check_effect(
        patches["mae_weights"] is None, "--mae-weights says how images are rebuilt; leave one of them out", "rebuild"
    )
    if patches["mae_weights"] is not None:
        from dqas_plugin.untrusted import size_of

        size_of(patches["mae_weights"], "the weights of a masked autoencoder")
    check_new_folder(out)
    check_cache()
    place = options.chosen_device(device)
    data = options.load_data(dataset, root, dataset_options)
    given.check_model(model, data.train)
    from dqas_plugin.quantization import quantize as library

    settings = None if no_patches else _settings(**patches).of(data.train.image_shape)
    plan = library.plan_of(
        pipeline,
        settings,
        adaptive=not no_adaptive,
        bins_on=bins_on,
        refine_share=refine_share,
        allocator_options=rules.chosen_allocator_options([library.ALLOCATOR], allocator_options),
        refiner_options=rules.chosen_refiner_options(library.REFINER, refiner_options, scorer),
        bins=bins,
    )
    say = partial(click.echo, err=True)
    found = library.quantize(
        data.train, plan, ratio=ratio, aipc=aipc, model=model, recipe=recipe, seed=seed, device=place, report=say
    )
    written = found.write(out, data.test, rebuilt=rebuilt)
    click.echo(summary(found.selection, data.train))
    click.echo(found.ratio)
    for file in written:
        click.echo(f"saved: {file.path} ({file.images:,} images, {file.bytes:,} bytes)")


def _settings(*, drop_rate: float, patch_size: int | None, patch_scores: str, rebuild: str, mae_weights: Path | None) -> Any:
    from dqas_plugin.quantization.settings import PatchSettings

    way = "mae" if mae_weights is not None else rebuild
    return PatchSettings(drop_rate, patch_size, patch_scores, way, mae_weights)
