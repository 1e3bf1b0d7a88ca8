"""The package as people get it: what is in the wheel and in the source package, what it says of itself, what it depends on."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from dqas_adapters.extras import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
CODE = {"dqas_plugin": ROOT, "dqas_adapters": ROOT / "adapters", "dqas_cli": ROOT / "cli"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MADE = re.compile(r"(^|/)(\.git|\.?build|dist|[^/]*\.egg-info|__pycache__|\.[a-z]+_cache|\.hypothesis|\.venv)(/|$)")
PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow"}  # where the name of the module is another one
TOOLS = ("docs", "release", "lint")  # extras that are programs, and may be bounded above
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def ours() -> list[str]:
    """The files of the project: all that git does not ignore, or, in an unpacked source package, what is there."""
    if (ROOT / ".git").exists():
        names = subprocess.run(
            ["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\0")
        return sorted(one for one in names if one and (ROOT / one).is_file())
    found = (one.relative_to(ROOT).as_posix() for one in ROOT.rglob("*") if one.is_file())
    return sorted(one for one in found if not MADE.search(one) and one not in {"PKG-INFO", "setup.cfg"})


def build(tree: Path, what: str, out: Path) -> Path:
    """The file that the build backend makes of the tree."""
    own = os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{what}", str(out)], cwd=tree, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source package of a copy of the project, unpacked."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("sdist")
    for name in ours():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    with tarfile.open(build(tree, "sdist", out)) as archive:
        archive.extractall(out, filter="data")
    return out / f"dqas-{PROJECT['version']}"


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built of the source package."""
    return build(sdist, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """What the wheel says of itself."""
    with ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"dqas-{PROJECT['version']}.dist-info/METADATA").decode())


def test_the_source_package_holds_everything(sdist: Path) -> None:
    held = {one.relative_to(sdist).as_posix() for one in sdist.rglob("*") if one.is_file()}
    made = {one for one in held if one.startswith("dqas.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert sorted(held - made) == ours()


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    held = [one for one in ZipFile(wheel).namelist() if ".dist-info/" not in one]
    wanted = [one.removeprefix("adapters/").removeprefix("cli/") for one in ours()]
    assert sorted(held) == sorted(one for one in wanted if one.partition("/")[0] in CODE)
    for package in CODE:
        assert f"{package}/py.typed" in held


def test_the_same_source_gives_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    for one in (sdist / "build", *sdist.rglob("*.py")):
        os.utime(one)  # neither when it was unpacked counts, nor what an earlier build left
    assert build(sdist, "wheel", tmp_path).read_bytes() == wheel.read_bytes()


def test_metadata(wheel: Path, metadata: Message) -> None:
    assert wheel.name == f"dqas-{PROJECT['version']}-py3-none-any.whl"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text().strip()
    with ZipFile(wheel) as archive:
        info = f"dqas-{PROJECT['version']}.dist-info"
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        points = archive.read(f"{info}/entry_points.txt").decode()
    for name, module in PROJECT["entry-points"]["dqas"].items():
        assert f"{name} = {module}" in points


def test_extras_are_those_that_messages_name(metadata: Message) -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(metadata.get_all("Provides-Extra") or ()) == set(extras)
    assert set(extras) == {one.name for one in EXTRAS} | {"test", *TOOLS}
    for one in EXTRAS:
        [requirement] = extras[one.name]
        assert re.match(rf"{one.package}>=", requirement)
        assert requirement in extras["test"]  # the bounds that are tested


def test_dependencies_are_bounded_below_alone() -> None:
    extras = PROJECT["optional-dependencies"]
    for requirement in PROJECT["dependencies"] + [one for name in extras if name not in TOOLS for one in extras[name]]:
        assert re.fullmatch(r"[a-z][a-z0-9-]*>=[0-9.]+", requirement)


def imported(package: str) -> set[str]:
    """The top-level modules that the package's code imports, wherever in it."""
    found = set()
    for file in (CODE[package] / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"__future__"}


def test_whatever_is_imported_is_declared_and_nothing_else() -> None:
    modules = set().union(*(imported(package) for package in CODE)) - CODE.keys() - {one.package for one in EXTRAS}
    declared = {re.split("[>=]", one)[0] for one in PROJECT["dependencies"]}
    assert {PACKAGES.get(one, one) for one in modules} == declared


def test_extras_are_imported_where_their_absence_is_told() -> None:
    modules = {one.package for one in EXTRAS}
    assert not modules & (imported("dqas_plugin") | imported("dqas_cli"))
    for name in modules & imported("dqas_adapters"):  # in what runs on a worker, and so where it is there
        assert name == "ray"
