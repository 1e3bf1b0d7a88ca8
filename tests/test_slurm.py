"""``--executor slurm`` in submitit's local mode: jobs are processes of this machine."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest

import processes
from dqas_adapters import slurm as adapter
from dqas_plugin.bench.executors import WorkerLostError
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import Plugins

pytest.importorskip("submitit", reason="the extra slurm is not installed")
LOCAL = ("slurm", "cluster='local'", "patience=3")


@pytest.fixture(autouse=True)
def found_by_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find what these tests find."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(one for one in sys.path if one))


@pytest.mark.slow
def test_figures_are_those_of_this_process(tmp_path: Path) -> None:
    """A job is killed in the middle."""
    processes.check_figures(tmp_path, partial(adapter.open_slurm, cluster="local"), seeds=1)


@pytest.mark.slow
def test_a_killed_driver(tmp_path: Path) -> None:
    processes.check_restart(tmp_path, *LOCAL)


@pytest.mark.slow
def test_ctrl_c(tmp_path: Path) -> None:
    processes.check_ctrl_c(tmp_path, *LOCAL)


@pytest.mark.slow
def test_a_job_that_is_always_killed(tmp_path: Path, own_cache: Path) -> None:
    """It has failed after one retry, its logs stay, and the others are done; without such a job nothing stays."""
    with adapter.open_slurm(2, cluster="local") as pool:
        assert dict(pool.run(processes.mortal, [f"{tmp_path}/one 0"])) == {f"{tmp_path}/one 0": 1}
    assert list((own_cache / "slurm").iterdir()) == []
    with adapter.open_slurm(2, cluster="local") as pool:
        found = dict(pool.run(processes.mortal, [f"{tmp_path}/two 2", f"{tmp_path}/three 1"]))
    assert found[f"{tmp_path}/three 1"] == 2
    lost = found[f"{tmp_path}/two 2"]
    assert isinstance(lost, WorkerLostError)
    assert "file system that all machines share" in str(lost)
    [folder] = (own_cache / "slurm").iterdir()
    assert len(list(folder.glob("*_log.err"))) == 3


def test_without_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"this machine has no Slurm .* cluster=local"), adapter.open_slurm(2):
        pass


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, done = processes.told_without("submitit", "slurm", adapter, tmp_path, monkeypatch)
    assert 'pip install "dqas[slurm]"' in listed
    assert done.exit_code == 2
    assert 'needs the package submitit: pip install "dqas[slurm]"' in done.output


def test_plugin_brings_an_executor() -> None:
    host = Plugins(strangers=False)
    host.register(adapter, "slurm")
    assert next(one for one in host.overview() if one.name == "slurm").brings == {"executors": ("slurm",)}
    bounds = host.executors["slurm"].bounds
    assert set(bounds) == {"minutes", "memory", "gpus", "retries", "patience"}
    assert host.problems == []
