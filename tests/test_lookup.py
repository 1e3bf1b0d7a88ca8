"""From what people type to datasets, methods and models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqas_plugin import DatasetSplits, Ranking, UserError, load_dataset
from dqas_plugin.contracts import Selector
from dqas_plugin.datasets import digits, shapes
from dqas_plugin.errors import PluginError
from dqas_plugin.given import read_name, separated
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.lookup import RankingFile, parse_options, resolve_method, resolve_model
from registering import plugin


@pytest.fixture
def stranger() -> Iterator[None]:
    class Stranger:
        @hookimpl
        def dqas_register_datasets(self, register: Any) -> None:
            register("wrong", lambda root: [1, 2])

        @hookimpl
        def dqas_register_importers(self, register: Any) -> None:
            register("kept", lambda path: Ranking((np.array([0]),), path.name))
            register("splits", lambda path: digits.load(None))
            register("drawn", lambda path, *, seed=0: Ranking((np.array([seed]),), path.name))

    with plugin(Stranger(), "stranger"):
        yield


def test_datasets_by_name_and_options() -> None:
    assert load_dataset("digits").train.name == "digits/train"
    assert load_dataset("shapes", classes=4, per_class=10).train.num_classes == 4


def test_the_root_is_also_that_of_a_dataset_which_an_option_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``classes_from=cifar10`` of images that were distilled of it."""
    seen: list[Any] = []

    def load(path: str, *, data_root: str | None = None) -> DatasetSplits:
        seen.append(data_root)
        return digits.load(None)

    class Stranger:
        @hookimpl
        def dqas_register_datasets(self, register: Any) -> None:
            register("of-another", load, takes_path=True)

    with plugin(Stranger(), "stranger"):
        load_dataset("of-another:x")
        load_dataset("of-another:x", tmp_path)
        load_dataset("of-another:x", tmp_path, data_root="elsewhere")
    assert seen == [None, str(tmp_path), "elsewhere"]


def test_a_comma_in_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.npz").touch()
    texts = ["ranking:a,b.npz", "random,graphcut", "ranking:c,d.npz"]
    assert separated("--method", texts, read_name) == ("ranking:a,b.npz", "random", "graphcut", "ranking:c", "d.npz")


def test_the_test_split_of_another_dataset() -> None:
    mixed = load_dataset("digits", test_from="digits")
    assert isinstance(mixed, DatasetSplits)
    with pytest.raises(UserError, match="different classes"):
        load_dataset("digits", test_from="shapes")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("digit", {}, "unknown dataset 'digit': did you mean 'digits'?"),
        ("folder", {}, "written 'folder:PATH', not 'folder'"),
        ("folder:", {}, "written 'folder:PATH', not 'folder:'"),
        ("digits:x", {}, "written 'digits', not 'digits:x'"),
        ("shapes", {"klasses": 3}, "unknown option of the dataset 'shapes' 'klasses': did you mean 'classes'"),
        ("digits", {"size": 3}, "the dataset 'digits' takes no options, so not 'size'"),
    ],
)
def test_mistakes_in_datasets(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_dataset(name, **options)
    assert words in str(caught.value)


def test_a_loader_that_gives_something_else_is_named(stranger: None) -> None:
    with pytest.raises(PluginError, match="plugin 'stranger': the dataset 'wrong' must be DatasetSplits, not list"):
        load_dataset("wrong")


def test_methods() -> None:
    found, options = resolve_method("graphcut:eq7")
    assert isinstance(found, Selector)
    assert (found.name, options) == ("graphcut", {"objective": "eq7"})
    assert resolve_method("graphcut") == (found, {})


def test_an_importers_ranking_is_a_method(stranger: None) -> None:
    found, options = resolve_method("kept:some/file.npz")
    assert isinstance(found, RankingFile)
    assert (found.read(None).method, options) == ("file.npz", {})
    drawn, _ = resolve_method("drawn:x")
    assert isinstance(drawn, RankingFile)
    assert drawn.read(None, seed=7).order[0].tolist() == [7]
    splits, _ = resolve_method("splits:x")
    assert isinstance(splits, RankingFile)
    with pytest.raises(UserError, match="cannot be used as a method: x is a datasetsplits, not a ranking"):
        splits.check()


def test_models() -> None:
    network = resolve_model("timm:resnet10t")((3, 32, 32), 7)
    assert network.head.out_features == 7
    with pytest.raises(UserError, match="written 'timm:NAME', not 'timm'"):
        resolve_model("timm")
    with pytest.raises(UserError, match="written 'resnet18', not 'resnet18:x'"):
        resolve_model("resnet18:x")


def test_options_as_text() -> None:
    from dqas_plugin.contracts import DatasetLoader

    known = DatasetLoader("shapes", shapes.load).options
    assert parse_options("option", {"easy_share": "0.25", "modes": "7"}, known) == {"easy_share": 0.25, "modes": 7}

    def load(path: Path, *, size: int | None = None, mirror: bool = True, kind: str = "a") -> None: ...

    def nothing(*, size: int | None = 3, share: float | None = 0.5, turn: bool | None = True, name: str = "a") -> None: ...

    nones = dict.fromkeys(("size", "share", "turn", "name"), "none")
    optional = DatasetLoader("nothing", nothing).options
    assert parse_options("option", nones, optional) == {"size": None, "share": None, "turn": None, "name": "none"}
    others = DatasetLoader("other", load).options
    assert parse_options("option", {"size": "32", "mirror": "no", "kind": "b"}, others) == {
        "size": 32,
        "mirror": False,
        "kind": "b",
    }
    with pytest.raises(UserError, match="'modes' must be a whole number, not 'many'"):
        parse_options("option", {"modes": "many"}, known)
    with pytest.raises(UserError, match="'mirror' must be true or false, not 'maybe'"):
        parse_options("option", {"mirror": "maybe"}, others)
    with pytest.raises(UserError, match="unknown option 'mode': did you mean 'modes'"):
        parse_options("option", {"mode": "3"}, known)
