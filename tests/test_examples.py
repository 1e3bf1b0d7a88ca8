"""The examples of plugins: installed by pip as anybody's package, tested by their own tests, used from the command line."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest

from dqas_plugin import Selection, load_dataset, select

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = {"dqas-plugin-example": "dqas_plugin_example", "near-duplicates": "dqas_near_duplicates"}


def module_of(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages() -> types.ModuleType:
    """``docs/pages.py``, which installs the example for the page that shows its output."""
    return module_of(ROOT / "docs" / "pages.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with the plugin in it."""
    if importlib.util.find_spec("pip") is None or importlib.util.find_spec("setuptools") is None:
        pytest.skip("pip and setuptools are needed to install the example: pip install dqas[test]")
    target = tmp_path_factory.mktemp("site")
    pages().install(ROOT / "examples" / "dqas-plugin-example", target)
    return target


@pytest.fixture(scope="module")
def both(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders: that plugin, and the wrapper."""
    target = tmp_path_factory.mktemp("wrapper")
    pages().install(ROOT / "examples" / "near-duplicates", target)
    return installed, target


def run(folders: tuple[Path, ...], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, where the packages in these folders are installed."""
    path = os.pathsep.join(str(one) for one in (*folders, ROOT, ROOT / "cli", ROOT / "adapters"))
    own = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=own, capture_output=True, text=True, check=False)


def dqas(folders: tuple[Path, ...], cwd: Path, *arguments: str) -> str:
    done = run(folders, cwd, "-m", "dqas_cli", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("folder", "module"), EXAMPLES.items())
def test_they_are_short(folder: str, module: str) -> None:
    lines = (ROOT / "examples" / folder / f"{module}.py").read_text().splitlines()
    assert len(lines) < 60


@pytest.mark.parametrize(("folder", "module"), EXAMPLES.items())
def test_they_declare_their_entry_point(folder: str, module: str) -> None:
    project = tomllib.loads((ROOT / "examples" / folder / "pyproject.toml").read_text())
    assert list(project["project"]["entry-points"]["dqas"].values()) == [module]
    assert project["tool"]["setuptools"]["py-modules"] == [module]
    assert "dqas" in project["project"]["dependencies"]


def test_their_own_tests_pass(both: tuple[Path, Path], tmp_path: Path) -> None:
    """Installed together: neither is in the way of the other."""
    tests = [str(ROOT / "examples" / one / "tests") for one in EXAMPLES]
    done = run(
        both, tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *tests
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_the_installed_plugin_is_listed(installed: Path, tmp_path: Path) -> None:
    code = "from dqas_cli.main import cli\nfor kind in ('methods', 'plugins'): cli.main(['list', kind], standalone_mode=False)"
    listed = run((installed,), tmp_path, "-c", code).stdout
    assert "DPP: typical samples whose features span a large volume" in listed
    assert "reads features; from example" in listed
    assert "dqas-plugin-example (dqas_plugin_example)" in listed


def test_the_installed_plugin_selects(installed: Path, tmp_path: Path) -> None:
    call = ["select", "--method", "dpp", "--method-option", "width=0.5", "--aipc", "3", "--iterations", "2", "--device", "cpu"]
    told = dqas((installed,), tmp_path, *call, "--out", "s.npz")
    assert "30 of 1,438 images" in told
    chosen = Selection.load(tmp_path / "s.npz")
    assert chosen.counts.tolist() == [3] * 10
    assert chosen.provenance["method"] == "dpp"
    assert chosen.provenance["method_options"]["width"] == 0.5


def test_the_installed_wrapper_stands_around_any_method(both: tuple[Path, Path], tmp_path: Path) -> None:
    """Digits has near-duplicates, and a random draw without the wrapper some of them."""
    data = load_dataset("digits").train
    copies = module_of(both[1] / "dqas_near_duplicates.py").near_duplicates(data)
    dqas(both, tmp_path, "select", "--method", "random", "--ratio", "0.5", "--device", "cpu", "--out", "s.npz")
    found, plain = Selection.load(tmp_path / "s.npz", data), select(data, "random", ratio=0.5)
    assert found.provenance["near_duplicates"] == len(copies) > 0
    assert len(found) == len(plain)
    assert np.isin(plain.indices, copies).any()
    assert not np.isin(found.indices, copies).any()


def test_the_page_links_every_hook() -> None:
    page, hooks = ((ROOT / "docs" / one).read_text() for one in ("plugins.md", "hooks.md"))
    linked = set(re.findall(r"\]\(hooks\.md#([^)]+)\)", page))
    headings = re.findall(r"^### (.+)$", hooks, flags=re.MULTILINE)
    assert linked == {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}


@pytest.mark.slow
def test_the_output_on_the_page_is_what_the_command_prints() -> None:
    own = pages()
    stored, real = own.masked(own.EXAMPLE_OUTPUT.read_text()), own.masked(own.run_example())
    assert stored == real, "run 'make output'"
