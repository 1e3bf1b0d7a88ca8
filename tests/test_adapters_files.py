"""Rankings and selections read back from files, through public hooks only."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import registering
from dqas_adapters import files
from dqas_plugin import Ranking, Selection, UserError, load_dataset, select
from dqas_plugin.bench import open_dataset, plan
from dqas_plugin.lookup import RankingFile, resolve_method
from dqas_plugin.plugins import Plugins, plugins


@pytest.fixture
def registered() -> Iterator[None]:
    yield from registering.registered(files, "files")


@pytest.fixture
def ranking(tmp_path: Path) -> Path:
    """A ranking of every digit by index, highest first."""
    labels = load_dataset("digits").train.labels.numpy()
    order = tuple(np.flatnonzero(labels == label)[::-1].copy() for label in range(10))
    return Ranking(order, "by hand").save(tmp_path / "by hand.npz")


def test_plugin_brings_readers_and_a_writer() -> None:
    loaded = Plugins(strangers=False)
    loaded.register(files, "files")
    info = next(one for one in loaded.overview() if one.name == "files")
    assert info.brings == {"importers": ("ranking", "selection"), "exporters": ("parquet",)}
    assert info.hooks == ("dqas_register_exporters", "dqas_register_importers")
    assert loaded.problems == []


def test_plugin_uses_public_modules_only() -> None:
    tree = ast.parse(inspect.getsource(files))
    imported = {one.module for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)}
    assert {one for one in imported if one and one.startswith("dqas")} == {
        "dqas_plugin.data",
        "dqas_plugin.hookspecs",
        "dqas_plugin.quantization.patch_files",
        "dqas_plugin.selection",
    }


@pytest.mark.usefixtures("registered")
def test_ranking_is_a_method(ranking: Path) -> None:
    data = load_dataset("digits").train
    chosen = select(data, method=f"ranking:{ranking}", aipc=3)
    expected = [np.flatnonzero(data.labels.numpy() == label)[::-1][:3] for label in range(10)]
    assert chosen.indices.tolist() == np.concatenate(expected).tolist()
    assert chosen.counts.tolist() == [3] * 10


@pytest.mark.usefixtures("registered")
def test_selection_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    data = load_dataset("digits").train
    chosen = select(data, method="random", aipc=2)
    back = plugins().importers["selection"](chosen.save(tmp_path / "s.npz"))
    assert isinstance(back, Selection)
    assert back.indices.tolist() == chosen.indices.tolist()
    back.check(data)


@pytest.mark.usefixtures("registered")
def test_selection_is_no_method(tmp_path: Path) -> None:
    path = select(load_dataset("digits").train, method="random", aipc=2).save(tmp_path / "s.npz")
    for kind, words in (("selection", "is a selection, not a ranking"), ("ranking", "not a ranking file")):
        found, _ = resolve_method(f"{kind}:{path}")
        assert isinstance(found, RankingFile)
        with pytest.raises(UserError, match=words):
            found.check()
        with pytest.raises(UserError, match=words):
            plan(open_dataset("digits"), [f"{kind}:{path}"])
