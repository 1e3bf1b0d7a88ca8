"""``dqas import``: other people's results as a ranking, a selection or a dataset of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dqas_cli import formats, options
from dqas_cli.files import check_new_folder
from dqas_cli.select import check_target, summary
from dqas_plugin.errors import PluginError, UserError, unknown_name

if TYPE_CHECKING:
    from dqas_plugin.contracts import DatasetLoader, Importer
    from dqas_plugin.data import DatasetSplits
    from dqas_plugin.selection import Selection


@click.command(
    "import",
    epilog="Rankings and selections become one .npz; a ranking is a method: --method ranking:FILE.npz. Images go into a new "
    "folder. Datasets need not be imported to be used: --dataset FORMAT:PATH.",
)
@click.argument("form", metavar="FORMAT")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--dataset", metavar="NAME", help="The dataset whose images the indices in the file belong to.")
@click.option(
    "--root", metavar="DIR", help="Folder with the files of that dataset, or of one that --option names.  [default: data]"
)
@click.option(
    "--dataset-option", "dataset_options", multiple=True, metavar="NAME=VALUE", help="Option of that dataset; may be repeated."
)
@click.option(
    "--option", "pairs", multiple=True, metavar="NAME=VALUE", help="Option of the format read, such as factor=2 for dream."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New file (.npz), or new folder for images.")
@click.option("--force", is_flag=True, help="Overwrite that file.")
@formats.format_options("--to")
def import_(
    *,
    form: str,
    path: Path,
    dataset: str | None,
    root: str | None,
    dataset_options: tuple[str, ...],
    pairs: tuple[str, ...],
    out: Path,
    force: bool,
    format_: str | None,
    format_options: tuple[str, ...],
) -> None:
    """Read other people's results: a selection, a ranking or images.

    \b
    Examples:
      dqas import deepcore RUN.ckpt --dataset cifar10 --out s.npz
      dqas import dream data.pt --option factor=2 --out dream-parquet
    """
    reader = found_format(form)
    read_options = _parsed(reader, form, pairs)
    writing = formats.chosen_format("--to", format_, format_options)
    from dqas_plugin.contracts import Importer

    holds_images = not isinstance(reader, Importer)
    options.check_effect(
        not holds_images, f"'{form}' holds images, which belong to no other dataset; leave it out", "dataset", "dataset_options"
    )
    options.check_effect(not holds_images, "a folder is not overwritten; choose another --out, or leave it out", "force")
    splits = None if dataset is None else options.load_data(dataset, root, dataset_options)
    imported = _read(reader, form, path, root, splits, read_options)
    _write(imported, splits, out, force, format_, writing)


def found_format(name: str) -> Importer | DatasetLoader:
    """The importer, or the dataset with a path, of that name.

    Raises:
        UserError: for an unknown name, with the nearest ones.
    """
    from dqas_plugin.plugins import plugins

    loaded = plugins()
    if name in loaded.importers:
        return loaded.importers[name]
    with_path = {one.name: one for one in loaded.datasets.values() if one.takes_path}
    if name not in with_path:
        raise unknown_name("format", name, [*loaded.importers, *with_path])
    return with_path[name]


def _parsed(reader: Importer | DatasetLoader, form: str, pairs: tuple[str, ...]) -> dict[str, Any]:
    from dqas_plugin.lookup import parse_options
    from dqas_plugin.plugins import check_options

    found = parse_options(f"option of the format '{form}'", options.split_pairs("--option", pairs), reader.options)
    check_options(reader, "format", found)
    return found


def _read(
    reader: Importer | DatasetLoader,
    form: str,
    path: Path,
    root: str | None,
    splits: DatasetSplits | None,
    read_options: dict[str, Any],
) -> Any:
    """What the file holds; images say what was assumed about them."""
    from dqas_plugin.contracts import Importer
    from dqas_plugin.lookup import load_dataset

    if not isinstance(reader, Importer):
        found = load_dataset(f"{form}:{path}", root, **read_options)
        options.tell_notes(form, found)
        return found
    if reader.needs_dataset and splits is None:
        raise UserError(f"the format '{form}' holds indices into a dataset: name it with --dataset NAME")
    return reader.read(path, None if splits is None else splits.train, **read_options)


def _write(
    imported: Any, splits: DatasetSplits | None, out: Path, force: bool, format_: str | None, writing: dict[str, Any]
) -> None:
    from dqas_plugin.data import DatasetSplits
    from dqas_plugin.selection import Ranking, Selection

    if isinstance(imported, DatasetSplits):
        _export(imported, None, out, format_ or "parquet", writing)
    elif isinstance(imported, Selection):
        _write_selection(imported, splits, out, force, format_, writing)
    elif isinstance(imported, Ranking):
        if format_ is not None:
            raise UserError(f"--to {format_} writes images, and this is a ranking: leave it out")
        check_target(out, force)
        saved = imported.save(out)
        click.echo(f"a ranking of {imported.capacity.sum():,} samples in {len(imported.order)} classes ({imported.method})")
        click.echo(f"saved: {saved}")
    else:
        raise PluginError(f"the importer gave {type(imported).__name__}, which is no ranking, selection or dataset: mend it")


def _write_selection(
    selection: Selection, splits: DatasetSplits | None, out: Path, force: bool, format_: str | None, writing: dict[str, Any]
) -> None:
    """With its dataset at hand a selection is checked, and from then on bound to it."""
    if splits is not None:
        data = splits.train
        selection.check(data)
        known = {"dataset": data.name, "fingerprint": data.fingerprint}
        selection = replace(selection, provenance={**selection.provenance, **known})
    if format_ is not None:
        if splits is None:
            raise UserError(f"--to {format_} writes images, which are not in the file: name their dataset with --dataset NAME")
        _export(splits, selection, out, format_, writing)
        return
    check_target(out, force)
    saved = selection.save(out)
    click.echo(f"{len(selection):,} samples" if splits is None else summary(selection, splits.train))
    click.echo(f"saved: {saved}")


def _export(splits: DatasetSplits, selection: Selection | None, out: Path, form: str, writing: dict[str, Any]) -> None:
    from dqas_plugin.exporting import export

    check_new_folder(out)
    saved = export(form, splits, selection, out, **writing)
    count = len(splits.train) if selection is None else len(selection)
    click.echo(f"{count:,} images of {splits.train.num_classes} classes ({splits.train.name})")
    click.echo(formats.told_files(out, saved))
