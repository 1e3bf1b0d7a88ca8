"""``--executor ray`` on a real cluster of three nodes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import processes
from dqas_adapters import ray as adapter
from dqas_plugin.bench import Cell, open_dataset
from dqas_plugin.bench.cell import Task
from dqas_plugin.bench.executors import WorkerLostError
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import Plugins

needs_ray = pytest.mark.skipif("not __import__('importlib').util.find_spec('ray')", reason="the extra ray is not installed")


CLUSTER = """
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
for _ in range(2):
    cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
input()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of three nodes of a processor each, whose workers find what these tests find."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(one for one in sys.path if one), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", CLUSTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment, **pipes) as cluster:  # type: ignore[call-overload]
        yield next(line.split()[1] for line in cluster.stdout if line.startswith("address"))
        cluster.communicate("\n", timeout=30)


def seen(task: Task) -> list[Any]:
    """What a worker sees; it writes the task's file."""
    from dqas_plugin.bench.cell import is_given, load

    before = task.path.read_text() if task.path.exists() else None
    task.path.write_text("made there")
    images = load(task.cell.dataset).train.images
    return [str(task.path.parent), before, is_given(task.cell.dataset), int(images.sum()), task.device]


@needs_ray
@pytest.mark.slow
def test_figures_are_those_of_this_process(tmp_path: Path, address: str) -> None:
    """A worker is killed in the middle, and the others are on other nodes."""
    processes.check_figures(tmp_path, partial(adapter.open_ray, address=address))


@needs_ray
@pytest.mark.slow
def test_a_killed_driver(tmp_path: Path, address: str) -> None:
    processes.check_restart(tmp_path, "ray", f"address={address!r}")


@needs_ray
@pytest.mark.slow
def test_ctrl_c(tmp_path: Path, address: str) -> None:
    processes.check_ctrl_c(tmp_path, "ray", f"address={address!r}")


@needs_ray
@pytest.mark.slow
def test_what_travels(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets through the object store, files as bytes: workers see no folder of the driver, and write none."""
    digits = open_dataset("digits")
    from dqas_plugin.bench.cell import load

    cell = Cell(digits, "random", 50, "50")
    tasks = [Task(cell, "cpu", tmp_path / "results" / name) for name in ("new", "old")]
    tasks[1].path.parent.mkdir()
    tasks[1].path.write_text("made here")
    with adapter.open_ray(None, address=address) as pool:
        found = dict(pool.run(seen, tasks))
        pixels = int(load(digits).train.images.sum())
        for task, before in zip(tasks, (None, "made here"), strict=True):
            folder, *others = found[task]
            assert folder != str(task.path.parent)
            assert others == [before, True, pixels, "cpu"]
            assert task.path.read_text() == "made there"
        lost = dict(pool.run(processes.mortal, [f"{tmp_path}/one 2", f"{tmp_path}/two 3"]))
        assert lost[f"{tmp_path}/one 2"] == 3
        assert isinstance(lost[f"{tmp_path}/two 3"], WorkerLostError)  # two retries
        with pytest.raises(UserError, match="has 0 GPUs, and a task shall have 1"):
            list(pool.run(seen, [tasks[0].on("cuda")]))
        monkeypatch.setattr(pool, "driver", adapter._Driver("9.9", {}))
        [(_, told)] = pool.run(processes.mortal, [f"{tmp_path}/three 0"])
        assert isinstance(told, UserError)
        assert "and the driver 9.9: install one version" in str(told)


@needs_ray
def test_no_such_cluster() -> None:
    with pytest.raises(UserError, match="no Ray cluster can be reached at nowhere"), adapter.open_ray(2, address="nowhere"):
        pass


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, done = processes.told_without("ray", "ray", adapter, tmp_path, monkeypatch)
    assert 'pip install "dqas[ray]"' in listed
    assert done.exit_code == 2
    assert 'needs the package ray: pip install "dqas[ray]"' in done.output


def test_plugin_brings_an_executor() -> None:
    host = Plugins(strangers=False)
    host.register(adapter, "ray")
    assert next(one for one in host.overview() if one.name == "ray").brings == {"executors": ("ray",)}
    assert set(host.executors["ray"].options) == {"address", "gpus", "retries"}
    assert host.problems == []
