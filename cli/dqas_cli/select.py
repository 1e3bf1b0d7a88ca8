"""``dqas select``: one selection, saved; no final network is trained."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dqas_cli import formats, options, rules
from dqas_cli.files import check_cache, check_new_file, check_new_folder
from dqas_cli.printing import aligned
from dqas_plugin import given
from dqas_plugin.errors import UserError

if TYPE_CHECKING:
    from dqas_plugin.data import ImageDataset
    from dqas_plugin.selection import Selection


@click.command(
    epilog="The file is one .npz: indices, counts, weights if the method gives any, and meta (JSON). With --format it is a new "
    "folder with the images themselves."
)
@options.data_options
@click.option("--method", default="graphcut", show_default=True, metavar="NAME", help="See: dqas list methods.")
@click.option("--ratio", **options.one(given.read_ratio, "SHARE"), help="Share of the training set, such as 0.1.")
@click.option("--aipc", **options.one(given.read_count, "NUMBER"), help="Average images per class, instead of --ratio.")
@options.method_options
@options.counts_options
@rules.rule_options
@options.training_options
@click.option(
    "--seed", **options.one(given.read_seed, "NUMBER"), default="0", show_default=True, help="Same seed, same selection."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the selection goes, such as s.npz.")
@click.option("--force", is_flag=True, help="Overwrite that file.")
@formats.format_options("--format")
def select(
    *,
    dataset: str,
    root: str | None,
    dataset_options: tuple[str, ...],
    ratio: float | None,
    aipc: int | None,
    method: str,
    method_options: tuple[str, ...],
    allocator_options: tuple[str, ...],
    refiner_options: tuple[str, ...],
    scorer: str | None,
    recipe_name: str,
    epochs: int | None,
    iterations: int | None,
    prior: str,
    device: str,
    out: Path,
    force: bool,
    format_: str | None,
    format_options: tuple[str, ...],
    **choices: Any,
) -> None:
    """Choose a training set and save which samples it has."""
    if (ratio is None) == (aipc is None):
        raise UserError("say how many samples to choose: give one of --ratio and --aipc")
    recipe = options.chosen_recipe(recipe_name, epochs, iterations, prior)
    writing = formats.chosen_format("--format", format_, format_options)
    if format_ is None:
        check_target(out, force)
    else:
        options.check_effect(False, "a folder is not overwritten; choose another --out, or leave it out", "force")
        check_new_folder(out)
    check_cache()
    place = options.chosen_device(device)
    splits = options.load_data(dataset, root, dataset_options)
    data = splits.train
    given.check_model(choices["model"], data)
    given.check_features(choices["features"])
    own = options.chosen_method_options([method], method_options)
    counting = [choices["allocator"] or "adaptive"] if choices["allocator"] or choices["adaptive"] else []
    choices["allocator_options"] = rules.chosen_allocator_options(counting, allocator_options)
    from dqas_plugin.refining import chosen_refiner

    choices["refiner"] = chosen_refiner(choices["refiner"], choices["adaptive"])
    options.check_counting(allocator=bool(counting), refiner=choices["refiner"] is not None)
    choices["refiner_options"] = rules.chosen_refiner_options(choices["refiner"], refiner_options, scorer)
    from dqas_plugin import pipeline
    from dqas_plugin.exporting import export

    say = partial(click.echo, err=True)
    chosen = pipeline.select(data, method, ratio=ratio, aipc=aipc, recipe=recipe, device=place, report=say, **choices, **own)
    try:
        saved = [chosen.save(out)] if format_ is None else export(format_, splits, chosen, out, **writing)
    except UserError as error:
        if format_ is None:
            raise
        raise UserError(f"{error}; {_salvaged(chosen, out)}") from error
    click.echo(summary(chosen, data))
    click.echo(formats.told_files(out, saved))


def _salvaged(chosen: Selection, out: Path) -> str:
    """Where the selection is that could not be written as asked: to choose again may take hours."""
    kept = next(
        one for number in count() if not (one := out.with_name(f"{out.name}{f'-{number}' if number else ''}.npz")).exists()
    )
    return f"the selection itself is in {chosen.save(kept)}"


def check_target(out: Path, force: bool) -> None:
    """Refuse a file that is there or cannot be written, before any work is done."""
    if out.suffix != ".npz":
        raise UserError(f"--out {out}: a selection is an .npz file; name it so")
    if out.is_dir() or (out.exists() and not force):
        raise UserError(f"{out} exists already: choose another name" + ("" if out.is_dir() else " or add --force"))
    check_new_file(out)


def summary(chosen: Selection, data: ImageDataset) -> str:
    """What was chosen: the total, and the counts of every class."""
    total = f"{len(chosen):,} of {len(data):,} images of {data.name} ({len(chosen) / len(data):.1%})"
    rows = [
        (name, f"{size:,}", f"{count:,}")
        for name, size, count in zip(data.classes, data.class_sizes, chosen.counts, strict=True)
    ]
    return f"{total}\n{aligned(('class', 'images', 'chosen'), rows, right=(1, 2))}"
