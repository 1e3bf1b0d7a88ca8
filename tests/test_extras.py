"""Packages of extras that are not there: everything else works, and what needs one says so before any work is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bare
import registering
from dqas_adapters import extras, ray, webdataset
from dqas_plugin import UserError, load_dataset
from dqas_plugin.bench import open_dataset, plan, run
from dqas_plugin.contracts import Executor, Exporter
from dqas_plugin.exporting import export
from dqas_plugin.plugins import Plugins

Found = dict[str, tuple[int, str, list[str]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What became of each command in a process that sees no package of an extra."""
    folder = tmp_path_factory.mktemp("bare")
    path = os.pathsep.join(str(bare.ROOT / one) for one in (".", "cli", "adapters"))
    own = os.environ | {"PYTHONPATH": path, "DQAS_CACHE": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, bare.__file__, "--pretend"]
    done = subprocess.run(call, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("line", [*bare.WORK, *(one for lines in bare.REFUSED.values() for one in lines)])
def test_what_needs_an_extra_names_it_before_anything_is_read_or_written(found: Found, line: str) -> None:
    """And what needs none works."""
    assert bare.complaint(line, *found[line]) == ""


def test_complaints() -> None:
    """What the test above would say."""
    works, refused = bare.WORK[0], bare.REFUSED["ray"][0]
    told = 'dqas: error: the executor needs ray: pip install "dqas[ray]"'
    assert bare.complaint(works, 0, "Usage", []) == ""
    assert bare.complaint(works, 1, "fault", []) == "fault"
    assert bare.complaint(works, 0, "plugin 'x' is skipped", []) != ""
    assert bare.complaint(refused, 2, told, []) == ""
    for outcome in ((0, told, []), (2, told, ["new"]), (2, "dqas: error: no folder", []), (2, f"loading\n{told}", [])):
        assert bare.complaint(refused, *outcome) != ""


def test_every_extra_is_tried() -> None:
    assert {one.name for one in extras.EXTRAS} == bare.REFUSED.keys()
    assert {one.package for one in extras.EXTRAS} <= bare.HIDDEN


def test_a_run_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    cells = plan(open_dataset("digits"), methods=["random"], seeds=1)
    with registering.plugin(ray, "ray"), pytest.raises(UserError, match=r'the executor \'ray\' needs .*"dqas\[ray\]"'):
        run(cells, tmp_path / "results", executor="ray")
    assert list(tmp_path.iterdir()) == []


def test_an_export_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with registering.plugin(webdataset, "webdataset"), pytest.raises(UserError, match="needs the package webdataset"):
        export("webdataset", load_dataset("digits"), None, tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_there_and_broken_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = extras.Extra("ray", "broken_package", "the executor 'ray'")
    (tmp_path / "broken_package.py").write_text("import part_of_it")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as told:
        broken.load()
    reason = "No module named 'part_of_it'"
    remedy = 'pip install --force-reinstall "dqas[ray]"'
    assert str(told.value) == f"the executor 'ray' cannot import the package broken_package ({reason}): {remedy}"


def test_plugins_may_say_what_they_lack(tmp_path: Path) -> None:
    """The same for strangers: ``ready`` is asked with the options that are given and the defaults of the others."""
    asked = []

    class Foreign:
        from dqas_plugin import hookimpl

        @hookimpl
        def dqas_register_exporters(self, register: object) -> None:
            assert callable(register)
            register("foreign", lambda splits, selection, out, *, colour="red", size=1: None, ready=asked.append)

    host = Plugins(strangers=False)
    host.register(Foreign())
    host.exporters["foreign"].check_ready({"size": 2})
    assert asked == [{"colour": "red", "size": 2}]


@pytest.mark.parametrize("kind", [Exporter, Executor])
def test_most_lack_nothing(kind: type[Exporter | Executor]) -> None:
    kind("plain", print).check_ready({})
