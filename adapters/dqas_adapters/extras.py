"""Packages that only some adapters need, and the extras of this one that bring them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dqas_plugin.errors import UserError


@dataclass(frozen=True)
class Extra:
    """A package that is there only if it was asked for.

    Attributes:
        name: of the extra.
        package: that it brings, as it is imported.
        user: what needs it: ``the executor 'ray'``.
    """

    name: str
    package: str
    user: str

    @property
    def install(self) -> str:
        """How people get it; in quotes, since some shells read brackets."""
        return f'pip install "dqas[{self.name}]"'

    def load(self) -> Any:
        """The package.

        Raises:
            UserError: if it is not installed, or cannot be imported.
        """
        try:
            return import_module(self.package)
        except ImportError as error:
            if isinstance(error, ModuleNotFoundError) and error.name == self.package:
                raise UserError(f"{self.user} needs the package {self.package}: {self.install}") from error
            reason = " ".join(str(error).split())
            remedy = self.install.replace("install", "install --force-reinstall")
            raise UserError(f"{self.user} cannot import the package {self.package} ({reason}): {remedy}") from error

    def check(self, _: Mapping[str, Any]) -> None:
        """Fail now, and not after the work, if it is not there: the ``ready`` of an exporter or executor."""
        self.load()


HUGGING_FACE = Extra("huggingface", "datasets", "the format 'hf'")
WEBDATASET = Extra("webdataset", "webdataset", "the format 'webdataset'")
RAY = Extra("ray", "ray", "the executor 'ray'")
SLURM = Extra("slurm", "submitit", "the executor 'slurm'")
EXTRAS = (HUGGING_FACE, WEBDATASET, RAY, SLURM)
