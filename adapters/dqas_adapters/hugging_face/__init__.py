"""Datasets of Hugging Face's package ``datasets`` on disk: read as ``hf:DIR``, written by ``--format hf``."""

from __future__ import annotations

from collections.abc import Callable

from dqas_adapters.extras import HUGGING_FACE
from dqas_adapters.hugging_face.reading import load
from dqas_adapters.hugging_face.writing import write
from dqas_plugin.hookspecs import hookimpl

__all__ = ["dqas_register_datasets", "dqas_register_exporters", "load", "write"]


@hookimpl
def dqas_register_datasets(register: Callable[..., None]) -> None:
    """Register the reader."""
    register("hf", load, title="a dataset of Hugging Face's datasets, saved to disk", takes_path=True)


@hookimpl
def dqas_register_exporters(register: Callable[..., None]) -> None:
    """Register the writer."""
    title = f"a DatasetDict of Hugging Face's datasets, read back as hf:DIR ({HUGGING_FACE.install})"
    register("hf", write, title=title, ready=HUGGING_FACE.check)
