"""A chosen training set as files in somebody's format: what exporters are called through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dqas_plugin.data import DatasetSplits
from dqas_plugin.errors import PluginError
from dqas_plugin.paths import new_folder
from dqas_plugin.plugins import check_options, plugins
from dqas_plugin.selection import Selection


def export(name: str, splits: DatasetSplits, selection: Selection | None, out: Path, **options: Any) -> list[Path]:
    """Write the selected training images, and whatever else the format has, into a new folder.

    Args:
        name: of the exporter (``dqas list exporters``).
        splits: the dataset.
        selection: which of its training images; None: all.
        out: the folder; it appears whole or not at all.
        options: of the exporter.

    Returns:
        The files that were written.

    Raises:
        UserError: unknown name or option, a package that is missing, a selection of other images, ``out`` is there already or
            cannot be written.
    """
    exporter = plugins().exporters[name]
    check_options(exporter, "exporter", options)
    exporter.check_ready(options)
    if selection is not None:
        selection.check(splits.train)
    with new_folder(out) as folder:
        exporter(splits, selection, folder, **options)
        written = sorted(one.relative_to(folder) for one in folder.rglob("*") if one.is_file())
        if not written:
            provider = plugins().exporters.provider(name)
            raise PluginError(f"plugin '{provider}': the exporter '{name}' wrote nothing: mend it, or use another format")
    return [out / one for one in written]
