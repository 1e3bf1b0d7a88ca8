"""This project's own files: rankings and selections read back (``--method ranking:FILE.npz``), datasets written as parquet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dqas_plugin.data import DatasetSplits, TrainOnly
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.selection import Ranking, Selection


def load_ranking(path: str | Path) -> Ranking:
    """What ``Ranking.save`` wrote; nothing in the file is executed."""
    return Ranking.load(path)


def load_selection(path: str | Path) -> Selection:
    """What ``Selection.save`` wrote; it is checked against its dataset when it is used, not here."""
    return Selection.load(path)


def write_parquet(splits: DatasetSplits, selection: Selection | None, out: Path) -> None:
    """The chosen images and the test split, if there is one, as PNG in parquet, and the selection: a ``parquet:DIR``.

    Args:
        splits: grey or RGB images.
        selection: which training images; None: all.
        out: an empty folder.
    """
    from dqas_plugin.quantization.patch_files import write_images

    write_images(out, splits.train if selection is None else splits.train.subset(selection.indices))
    if not isinstance(splits, TrainOnly):
        write_images(out, splits.test, split="test")
    if selection is not None:
        selection.save(out / "selection.npz")


@hookimpl
def dqas_register_exporters(register: Callable[..., None]) -> None:
    """Register the writer of parquet."""
    register("parquet", write_parquet, title="PNG images in parquet files, read back as parquet:DIR")


@hookimpl
def dqas_register_importers(register: Callable[..., None]) -> None:
    """Register both readers."""
    register("ranking", load_ranking, title="samples of every class, best first (.npz); also a method: ranking:FILE.npz")
    register("selection", load_selection, title="a chosen training set (.npz), as 'dqas select' writes it")
