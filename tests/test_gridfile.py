"""Grid files: what they say, what they must not say, the shipped ones, and the cells of several grids as one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dqas_plugin.bench import Cell, DatasetReference, GridSpec, names, open_dataset, plan, plan_grids, read_grid, shipped_grids
from dqas_plugin.bench.cell import load
from dqas_plugin.bench.gridspec import TABLE_2
from dqas_plugin.bench.paper import paper
from dqas_plugin.data import DatasetSplits
from dqas_plugin.errors import UserError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.lookup import load_dataset
from dqas_plugin.plugins import plugins

TINY = "dataset-option = { classes = 3, per_class = 30, test_per_class = 10, size = 8, modes = 4 }"


def written(folder: Path, text: str, name: str = "own.toml") -> str:
    """Path of a grid file with this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_grid_is_the_defaults_and_what_it_says_otherwise(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        title = "two grids"
        [defaults]
        method = ["herding", "dq"]
        ratio = [0.05, 0.1]
        seeds = 5
        adaptive = true
        method-option = { repeat = 3 }
        [[grid]]
        dataset = "shapes"
        dataset-option = { modes = 30, easy_share = 0.25, size = 8 }
        [[grid]]
        method = "graphcut"
        adaptive = false
        recipe = "fast"
        epochs = 7
        """,
    )
    first, second = read_grid(path)
    common: dict[str, Any] = {"ratios": (0.05, 0.1), "seeds": 5, "method_options": {"repeat": "3"}}
    assert first == GridSpec(
        dataset="shapes",
        dataset_options={"modes": "30", "easy_share": "0.25", "size": "8"},
        methods=("herding", "dq"),
        adaptive=True,
        where=f"{path}, grid 1",
        **common,
    )
    assert second == GridSpec(methods=("graphcut",), recipe_name="fast", epochs=7, where=f"{path}, grid 2", **common)


@pytest.mark.parametrize(
    ("defaults", "own", "kept"),
    [
        ("ratio = 0.1", "aipc = [5, 6]", {"aipc": (5, 6)}),
        ("aipc = 5", "ratio = 0.1", {"ratios": (0.1,)}),
        ("epochs = 5", "iterations = 9", {"iterations": 9}),
        ("iterations = 9", "epochs = 5", {"epochs": 5}),
        ("allocator = 'paper'\nallocator-option = { iterations = 9 }", "adaptive = false", {}),
        ("allocator = 'paper'", "allocator = ['paper', 'adaptive']", {"allocator": "paper,adaptive"}),
        ("adaptive = false", "adaptive = true", {"adaptive": True}),
    ],
)
def test_what_excludes_a_default_takes_its_place(defaults: str, own: str, kept: dict[str, Any], tmp_path: Path) -> None:
    [spec] = read_grid(written(tmp_path, f"[defaults]\n{defaults}\n[[grid]]\n{own}"))
    assert replace(spec, where="") == GridSpec(**kept)


def test_values_may_be_single_or_lists(tmp_path: Path) -> None:
    one, several, repeated = read_grid(
        written(
            tmp_path,
            """
            [[grid]]
            method = "graphcut, herding"
            ratio = 1
            [[grid]]
            method = ["graphcut", "herding"]
            ratio = [1.0]
            [[grid]]
            method = ["graphcut", "herding", "graphcut"]
            ratio = [1, 1.0]
            """,
        )
    )
    assert replace(one, where="") == replace(several, where="") == replace(repeated, where="")
    assert one.methods == ("graphcut", "herding")


@pytest.mark.parametrize(("text", "size"), [("'500MB'", 500_000_000), ("1000", 1000)])
def test_memory_is_a_number_or_a_size(text: str, size: int, tmp_path: Path) -> None:
    [spec] = read_grid(written(tmp_path, f"[[grid]]\nmax-memory = {text}"))
    assert spec.max_memory == size


WRONG = [
    ("", "has no [[grid]] table"),
    ("title = 'nothing'", "has no [[grid]] table"),
    ("[defaults]\nseeds = 2", "has no [[grid]] table"),
    ("grid = []", "has no [[grid]] table"),
    ("[[grid]]", "grid 1 is empty"),
    ("ratio = [0.1]", "'ratio' stands outside of a table"),
    ("[[gird]]\nseeds = 2", "unknown table 'gird': did you mean 'grid'?"),
    ("[default]\nseeds = 2", "unknown table 'default': did you mean 'defaults'?"),
    ("[grid]\nseeds = 2", "write each as [[grid]]"),
    ("grid = [3]", "write each as [[grid]]"),
    ("defaults = 3\n[[grid]]\nseeds = 2", "[defaults] must be a table of options, not 3"),
    ("title = 3\n[[grid]]\nseeds = 2", "title must be text, not 3"),
    ("[defaults]\nmetod = 'all'\n[[grid]]\nseeds = 2", "[defaults]: unknown key 'metod': did you mean 'method'?"),
    ("[[grid]]\nseeds = 2\n[[grid]]\nration = [0.1]", "grid 2: unknown key 'ration': did you mean 'ratio'?"),
    ("[[grid]]\njobs = 2", "'jobs' says how to run and not what", "--jobs"),
    ("[[grid]]\nresults = 'here'", "'results' says how to run", "--results"),
    ("[[grid]]\ndataset = 3", "dataset must be text in quotation marks, not 3"),
    ("[[grid]]\nmodel = ''", "model must be text"),
    ("[[grid]]\nmethod = [1]", "method must be text"),
    ("[[grid]]\nmethod = []", "method is an empty list"),
    ("[[grid]]\nmethod = 'graphcut,,herding'", "empty entry"),
    ("[[grid]]\nratio = []", "ratio is an empty list"),
    ("[[grid]]\nratio = '0.1'", 'ratio must be a number, not "0.1"'),
    ("[[grid]]\nratio = [true]", "ratio must be a number, not true"),
    ("[[grid]]\nratio = [0.1, 2]", "ratio 2: give a share of the training set above 0 and at most 1"),
    ("[[grid]]\nratio = nan", "ratio nan: give a share"),
    ("[[grid]]\nratio = { a = 1 }", "ratio must be a number, not a table"),
    ("[[grid]]\naipc = 2.5", "aipc 2.5: give a whole number of at least 1"),
    ("[[grid]]\nseeds = 0", "seeds 0: give a whole number of at least 1"),
    ("[[grid]]\nseeds = [0, 1]", "seeds must be a number, not [0, 1]"),
    ("[[grid]]\nseeds = 1979-05-27", 'seeds must be a number, not "1979-05-27"'),
    ("[[grid]]\nadaptive = 1", "adaptive must be true or false, not 1"),
    ("[[grid]]\nadaptive = 'yes'", "adaptive must be true or false"),
    ("[[grid]]\nadaptive = false\nallocator = 'paper'", "contradict each other"),
    ("[[grid]]\nlr = -0.1", "lr -0.1: give a number above 0"),
    ("[[grid]]\nrefine-share = 1", "refine-share 1: give a part of the budget"),
    ("[[grid]]\ndrop-rate = 'much'", "drop-rate must be a number"),
    ("[[grid]]\nmax-memory = 'much'", "max-memory much: give a size such as 500MB"),
    ("[[grid]]\nmax-memory = 0.5", "max-memory must be a number of bytes or a size"),
    ("[[grid]]\npatch-scores = 'gradcam'", "unknown patch score 'gradcam': did you mean 'grad-cam'?"),
    ("[[grid]]\nrebuild = 'may'", "unknown way to rebuild images 'may'", "'mae'"),
    ("[[grid]]\nbins-on = 'orignal'", "'original'"),
    ("[[grid]]\nmethod-option = ['repeat=3']", "method-option must be a table of single values such as { name = 3 }"),
    ("[[grid]]\nmethod-option = { repeat = [3] }", "method-option must be a table of single values"),
    ("[[grid]\nseeds = 2", "is not TOML"),
    ("dqas bench --method all", "is not TOML"),
    ("[[grid]]\nseeds = 2\nseeds = 3", "is not TOML"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case[0].replace("\n", " "))
def test_what_is_wrong_is_named_with_its_place(case: tuple[str, ...], tmp_path: Path) -> None:
    path = written(tmp_path, case[0])
    with pytest.raises(UserError) as caught:
        read_grid(path)
    for words in (path, *case[1:]):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG_TOGETHER = [
    ("ratio = 0.1\naipc = 5", "grid 2: ratio and aipc exclude each other"),
    ("epochs = 1\niterations = 1", "grid 2: epochs and iterations exclude each other"),
    ("dataset = 'digit'", "grid 2: unknown dataset 'digit'", "'digits'"),
    ("test-from = 'digit'", "grid 2: unknown dataset 'digit'"),
    ("dataset-option = { modes = 3 }", "grid 2: unknown option of the dataset 'digits' 'modes'"),
    (
        "dataset = 'shapes'\ndataset-option = { modes = 'many' }",
        "grid 2: option of the dataset 'shapes' 'modes' must be a whole",
    ),
    ("method = 'grphcut'", "grid 2: unknown method 'grphcut'", "'graphcut'"),
    ("method-option = { repeat = 3 }", "grid 2: unknown method option 'repeat'"),
    ("model = 'resnet19'", "grid 2: unknown model 'resnet19'"),
    ("features = 'timm:resnet17'", "grid 2: ", "resnet17"),
    ("recipe = 'papr'", "grid 2: unknown recipe 'papr'", "'paper'"),
    ("prior = 'empircal'", "grid 2: unknown prior 'empircal'"),
    ("goal = 'men'", "grid 2: unknown goal 'men'"),
    ("proxy = 'trian'", "grid 2: unknown proxy 'trian'"),
    ("allocator-option = { iterations = 3 }", "grid 2: allocator-option iterations belongs to an allocator: add adaptive"),
    ("scorer = 'ridge'", "grid 2: scorer belongs to a refiner: add refiner error-reduction"),
    ("adaptive = true\nscorer = 'ridge'\nrefiner-option = { scorer = 'kap2nd' }", "grid 2: scorer ridge and refiner-option"),
]


@pytest.mark.parametrize("case", WRONG_TOGETHER, ids=lambda case: case[0].replace("\n", " "))
def test_what_is_wrong_together_is_known_before_data_are_loaded(
    case: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: Any, **__: Any) -> Any:
        pytest.fail("a dataset is loaded")

    monkeypatch.setattr("dqas_plugin.bench.gridspec.open_dataset", unwanted)
    specs = read_grid(written(tmp_path, f"[[grid]]\nseeds = 2\n[[grid]]\n{case[0]}"))
    with pytest.raises(UserError) as caught:
        plan_grids(specs)
    for words in (str(tmp_path / "own.toml"), *case[1:]):
        assert words in str(caught.value)


def test_what_does_not_fit_the_data_is_told_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "[[grid]]\naipc = 5\n[[grid]]\naipc = 1000")
    with pytest.raises(UserError, match=rf"^{path}, grid 2: aipc 1000 comes to 10,000 images"):
        plan_grids(read_grid(path))


# --- which file -----------------------------------------------------------------------------------------------------------


def test_shipped_grids_need_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [one.name for one in shipped_grids()] == ["paper-table2", "quick-table2"]
    assert all(one.title and one.path.is_file() for one in shipped_grids())
    assert read_grid("quick-table2") == read_grid("quick-table2.toml")
    assert read_grid("quick-table2")[1].where == "quick-table2.toml, grid 2"
    written(tmp_path, "[[grid]]\nseeds = 9", "quick-table2.toml")
    assert [one.seeds for one in read_grid("quick-table2.toml")] == [9]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no grid file quick-tabel2\.toml.*: did you mean 'quick-table2'"):
        read_grid("quick-tabel2.toml")
    with pytest.raises(UserError, match=r"no grid file .*/none\.toml"):
        read_grid(tmp_path / "none.toml")
    with pytest.raises(UserError, match="is a folder"):
        read_grid(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.toml is not TOML"):
        read_grid(tmp_path / "binary.toml")


# --- the shipped ones -----------------------------------------------------------------------------------------------------


@pytest.fixture
def paper_cells(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells of the shipped grid, planned on datasets of which only the sizes are known."""
    sizes = {"cifar10": (50_000, 10, 32), "cifar100": (50_000, 100, 32), "tiny-imagenet": (100_000, 200, 64)}

    def opened(name: str, *_: Any) -> DatasetReference:
        images, classes, side = sizes[name]
        return DatasetReference(name, name, images, classes, shape=(3, side, side))

    monkeypatch.setattr("dqas_plugin.bench.gridspec.open_dataset", opened)
    monkeypatch.setattr("dqas_plugin.bench.gridspec.load", lambda _: SimpleNamespace(train=None))
    monkeypatch.setattr("dqas_plugin.bench.gridspec.given.check_model", lambda *_: None)
    return plan_grids(read_grid("paper-table2"), device="cpu")


def test_the_papers_table_2_is_all_there_and_no_more(paper_cells: list[Cell]) -> None:
    wanted = set()
    for (number, key), table in paper().comparisons.items():
        if number == 2:
            ways = {(row.method, row.variant) for row in table.rows}
            assert len(ways) == 17
            same = paper().datasets[key]
            wanted |= {(same.same, *way, round(same.images * one / 100)) for way in ways for one in table.ratios}
            wanted |= {(same.same, "dqas", "", round(same.images * one / 100)) for one in table.ratios}  # to compare with
    assert {(one.dataset.name, one.method, one.variant, one.budget) for one in paper_cells} == wanted
    assert len(paper_cells) == 3 * len(wanted)  # seeds
    assert Counter(one.seed for one in paper_cells) == dict.fromkeys(range(3), len(wanted))


def test_the_papers_protocol(paper_cells: list[Cell]) -> None:
    used = {(one.dataset.name, one.model, one.recipe.lr, one.recipe.epochs, one.recipe.batch) for one in paper_cells}
    assert used == {
        ("cifar10", "resnet18", 0.1, 200, 128),
        ("cifar100", "resnet18", 0.1, 200, 128),
        ("tiny-imagenet", "resnet50", 0.6, 200, 128),
    }
    assert {one.recipe.proxy_epochs for one in paper_cells} == {10}
    quantized = [one for one in paper_cells if one.quantization is not None]
    assert {one.method for one in quantized} == {"dq", "dqas"}
    assert {one.patches.drop_rate for one in quantized if one.patches is not None} == {0.25}


def test_the_quick_one_needs_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = plan_grids(read_grid("quick-table2"))
    assert {one.dataset.name for one in cells} == {"digits", "shapes"}
    assert {one.method for one in cells} == set(TABLE_2)
    assert len(cells) == len({one.key for one in cells}) == 2 * 2 * 3 * 2 * len(TABLE_2)
    assert list(tmp_path.iterdir()) == []


# --- several grids as one -------------------------------------------------------------------------------------------------


def test_overlapping_grids_are_the_union_of_their_cells(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"""
        [defaults]
        method = ["graphcut", "herding"]
        [[grid]]
        ratio = [0.05, 0.1]
        [[grid]]
        dataset = "shapes"
        {TINY}
        aipc = 5
        [[grid]]
        ratio = 0.1
        method = "graphcut"
        adaptive = true
        """,
    )
    opened: list[str] = []
    cells = plan_grids(read_grid(path), opened=lambda name, _: opened.append(name))
    assert opened == ["digits", "shapes"]
    digits, shapes = open_dataset("digits"), cells[-1].dataset
    first = plan(digits, ["graphcut", "herding"], ratios=[0.05, 0.1])
    third = plan(digits, ["graphcut"], ratios=[0.1], allocators=["adaptive"], refiner="error-reduction")
    expected = first + third + plan(shapes, ["graphcut", "herding"], aipc=[5])
    assert [one.key for one in cells] == list(dict.fromkeys(one.key for one in expected))  # those of a dataset together
    assert len(first) + len(third) > len([one for one in cells if one.dataset.name == "digits"])


def test_cells_are_named_by_what_differs() -> None:
    digits = DatasetReference("digits", "0123", 1438, 10)
    shapes = DatasetReference("shapes", "4567", 90, 3, options={"modes": 4})
    one, two = Cell(digits, "random", 72, "5 %"), Cell(shapes, "random", 5, "5 %")
    assert names([one])(one) == names([])(one) == "random 5 % seed 0"
    assert names([one, two])(one) == "digits: random 5 % seed 0"
    assert names([one, two])(two) == "shapes (modes=4): random 5 % seed 0"
    other = replace(one, model="resnet18")
    assert names([one, other])(other) == "resnet18: random 5 % seed 0"
    assert names([one, two, other])(two) == "shapes (modes=4), convnet3-small: random 5 % seed 0"


class Mirrored:
    """Digits again, as a dataset that may be mirrored."""

    @hookimpl
    def dqas_register_datasets(self, register: Any) -> None:
        def mirrored(root: Path | None) -> DatasetSplits:
            splits = load_dataset("digits")
            return DatasetSplits(*(replace(one, mirror=True) for one in (splits.train, splits.test)))

        register("mirrored", mirrored)


def test_datasets_of_the_same_content_are_not_mixed_up() -> None:
    plugin = Mirrored()
    plugins().register(plugin)
    try:
        cells = plan_grids([GridSpec(), GridSpec(dataset="mirrored")])
        found = {one.dataset.name: load(one.dataset).train.mirror for one in cells}
    finally:
        plugins().unregister(plugin)
    assert found == {"digits": False, "mirrored": True}
