"""A DeepCore checkout: how it is found and read, and what a call of it leaves behind."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepcore_problem import STANDIN, copy_of, installed, network, ranked, signals
from dqas_adapters.deepcore import calling, mending
from dqas_adapters.deepcore.checkout import HOME, Checkout
from dqas_plugin.bench import checks
from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.plugins import Plugins, plugins
from dqas_plugin.ranking import rank


def test_nothing_is_imported_to_list_them(tmp_path: Path) -> None:
    copied = copy_of(STANDIN, tmp_path)
    for file in (copied / "deepcore").rglob("*.py"):
        file.write_text(f"{file.read_text(encoding='utf-8')}\nraise RuntimeError('imported')\n", encoding="utf-8")
    found = Checkout.at(copied)
    assert found.methods == Checkout.at(STANDIN).methods
    assert len(found.methods) == 14
    with pytest.raises(UserError, match=r"cannot be imported \(RuntimeError: imported\)"):
        _ = found.modules


def state(checkout: Checkout) -> list[Any]:
    """What a call might leave behind."""
    kinds = checkout.modules.methods
    return [
        *(random.getstate(), [str(one) for one in np.random.get_state()], torch.get_rng_state().tolist()),  # noqa: NPY002
        *(sys.path.copy(), "deepcore" in sys.modules, hasattr(np, "in1d"), torch.lstsq, kinds.DeepFool.deep_fool),
        *(calling.NETWORK in vars(checkout.modules.nets), [hasattr(one, "print") for one in checkout.modules.every]),
        *(kinds.k_center_greedy, [one.requires_grad for one in network().parameters()], network().training),
    ]


def test_everything_is_put_back(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = [one.clone() for one in network().state_dict().values()]  # what is imported for it draws random numbers
    before = state(checkout)
    for name in ("kCenterGreedy", "DeepFool", "GradMatch", "Uniform"):
        ranked(name, [4, 4, 4], seed=77)
        assert state(checkout) == before

    def fails(self: Any, **_: Any) -> None:
        np.random.random()  # noqa: NPY002
        raise ValueError("two\nlines")

    monkeypatch.setattr(checkout.modules.methods.Herding, "select", fails)
    with pytest.raises(PluginError, match="DeepCore's Herding failed with ValueError: two lines: change"):
        ranked("Herding", [4, 4, 4], seed=78)
    assert state(checkout) == before
    assert all(torch.equal(one, other) for one, other in zip(network().state_dict().values(), weights, strict=True))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1, 2], "did not return a dictionary with 'indices'"),
        ({"indices": [0.5]}, r"no positions in 0\.\.80"),
        ({"indices": [81]}, r"no positions in 0\.\.80"),
        ({"indices": [[1]]}, r"no positions in 0\.\.80"),
        ({"indices": [1, 2], "weights": [1.0]}, "1 weights for 2 indices"),
        ({"indices": np.arange(81)}, "chose 24 samples of a class where 4 were asked for"),
        ({"indices": np.arange(0)}, "chose 0 samples of a class where 4 were asked for"),
    ],
)
def test_a_wrong_answer_is_named(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, answer: Any, words: str) -> None:
    monkeypatch.setattr(checkout.modules.methods.Herding, "select", lambda self: answer)
    with pytest.raises(PluginError, match=words):
        ranked("Herding", [4, 4, 4])


def test_exit_inside_is_a_failure_and_ctrl_c_is_not(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, expected in ((SystemExit("bye"), PluginError), (KeyboardInterrupt(), KeyboardInterrupt)):

        def stops(self: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(checkout.modules.methods.Glister, "select", stops)
        with pytest.raises(expected):
            ranked("Glister", [4, 4, 4])


def test_removed_functions_of_torch_and_several_gpus(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    theirs = checkout.modules.nets.nets_utils.MyDataParallel
    with mending.mended(checkout.modules, torch.device("cpu")):
        solution, _ = torch.lstsq(matrix @ torch.tensor([[1.0], [2.0]]), matrix)
        assert checkout.modules.nets.nets_utils.MyDataParallel(matrix) is matrix
    assert solution.flatten().tolist() == pytest.approx([1.0, 2.0])
    assert checkout.modules.nets.nets_utils.MyDataParallel is theirs


class OnGPU(torch.Tensor):
    """Says that it is on a GPU."""

    device = torch.device("cuda")


def test_distances_of_one_row_are_measured_from_two_on_a_gpu(checkout: Checkout) -> None:
    """A result ``[1, n]`` with the strides of a column, as DeepCore makes it, is what cuBLAS refuses."""
    shapes: list[tuple[int, int]] = []

    def euclidean_dist(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        shapes.append((len(x), len(y)))
        return torch.cdist(torch.Tensor(x), torch.Tensor(y))

    module = checkout.modules.every[0]
    vars(module)["euclidean_dist"] = euclidean_dist
    try:
        with mending.mended(checkout.modules, torch.device("cpu")):
            mended = vars(module)["euclidean_dist"]
            x, y = torch.rand(1, 4), torch.rand(5, 4)
            there, here = mended(x.as_subclass(OnGPU), y), mended(x, y)
        assert vars(module)["euclidean_dist"] is euclidean_dist
    finally:
        del vars(module)["euclidean_dist"]
    assert shapes == [(2, 5), (1, 5)]
    torch.testing.assert_close(torch.Tensor(there), here)


def test_folders_that_are_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder: give the one of a DeepCore checkout"):
        Checkout.at(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no DeepCore checkout, it has no deepcore/methods"):
        Checkout.at(tmp_path)
    with pytest.raises(UserError, match=f"give the folder above it, {STANDIN}"):
        Checkout.at(STANDIN / "deepcore")
    (tmp_path / "deepcore").mkdir()
    (tmp_path / "deepcore" / "__init__.py").write_text("def mean(values): ...\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"another program of that name \(the one on PyPI\)"):
        Checkout.at(tmp_path)


def test_a_damaged_checkout_is_named_with_its_file(tmp_path: Path) -> None:
    copied = copy_of(STANDIN, tmp_path)
    (copied / "deepcore" / "methods" / "herding.py").write_text("class Herding(", encoding="utf-8")
    with pytest.raises(UserError, match=r"herding\.py of the DeepCore checkout cannot be read"):
        Checkout.at(copied)


def test_another_package_of_the_name_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deepcore").mkdir()
    (tmp_path / "deepcore" / "__init__.py").write_text("toy = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    toy = __import__("deepcore")
    try:
        found = Checkout.at(STANDIN)
        assert found.modules.methods.__file__ == str(STANDIN / "deepcore" / "methods" / "__init__.py")
        assert sys.modules["deepcore"] is toy
        assert str(STANDIN) not in sys.path
    finally:
        sys.modules.pop("deepcore")


def test_version_is_the_commit_and_a_digest(tmp_path: Path) -> None:
    copied = copy_of(STANDIN, tmp_path)
    plain_version = Checkout.at(copied).version
    assert plain_version.startswith("methods ")
    commit, store = "0123456789abcdef" * 2 + "01234567", copied / ".git"
    store.mkdir()
    (store / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    (store / "packed-refs").write_text(f"# pack-refs\n{commit} refs/heads/main\n", encoding="utf-8")
    assert Checkout.at(copied).version == f"commit 0123456789ab, {plain_version}"
    (store / "refs" / "heads").mkdir(parents=True)
    (store / "refs" / "heads" / "main").write_text(f"{commit[::-1]}\n", encoding="utf-8")
    assert Checkout.at(copied).version == f"commit {commit[::-1][:12]}, {plain_version}"
    (store / "HEAD").write_text(commit, encoding="utf-8")
    assert Checkout.at(copied).version == f"commit 0123456789ab, {plain_version}"
    (store / "HEAD").write_text("what is this", encoding="utf-8")
    assert Checkout.at(copied).version == plain_version
    file = copied / "deepcore" / "methods" / "herding.py"
    file.write_text(file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert Checkout.at(copied).version != plain_version


def test_results_of_another_version_are_other_results(checkout: Checkout) -> None:
    settings = checks.method_settings(["deepcore:Herding", "herding"], "proxy", {})
    assert settings["deepcore:Herding"]["method_file"] == checkout.version
    assert "method_file" not in settings["herding"]


def test_a_fork_with_a_method_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = copy_of(STANDIN, tmp_path)
    methods = copied / "deepcore" / "methods"
    (methods / "last.py").write_text(
        "import numpy as np\nfrom .earlytrain import EarlyTrain\n\n\nclass Last(EarlyTrain):\n"
        "    def __init__(self, dst_train, args, fraction, random_seed, step: int = 1, balance=True, **kwargs):\n"
        "        super().__init__(dst_train, args, fraction, random_seed, **kwargs)\n        self.step = step\n\n"
        "    def finish_run(self):\n        found = [self.members(c) for c in range(self.num_classes)]\n"
        "        return {'indices': np.concatenate([m[::-self.step][:round(self.fraction * len(m))] for m in found])}\n",
        encoding="utf-8",
    )
    init = methods / "__init__.py"
    init.write_text(init.read_text(encoding="utf-8") + "from .last import Last\n", encoding="utf-8")
    monkeypatch.setenv(HOME, str(copied))
    installed(monkeypatch)
    try:
        found = rank(signals(), "deepcore:Last", counts=[2, 3, 4], step=2)
        assert [one.tolist() for one in found.order] == [signals().members(c)[::-2][: c + 2].tolist() for c in range(3)]
    finally:
        plugins.cache_clear()


def test_without_a_checkout_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME, raising=False)
    installed(monkeypatch)
    try:
        assert not any(one.startswith("deepcore:") for one in plugins().selectors)
        assert plugins().problems == []
    finally:
        plugins.cache_clear()


def test_a_wrong_path_in_the_environment_stops_nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(HOME, str(tmp_path / "gone"))
    installed(monkeypatch)
    loaded = Plugins()
    plugins.cache_clear()
    assert "herding" in loaded.selectors
    assert [str(one) for one in loaded.problems if "gone is no folder" in str(one)]
