"""``--executor ray``: the cells of a benchmark on a Ray cluster (``pip install "dqas[ray]"``).

What a worker needs comes through Ray: datasets once, by the object store, in which the workers of a machine share one copy;
selections as bytes, both ways, so that only the driver writes the results folder. No file system need be shared. The cache
folder better is (``DQAS_CACHE``; environment variables of that kind are those of the driver): else every machine trains the
networks that choose itself. This package must be installed on all machines in one version. Files that a method or a plugin
reads by their names must be there under those names.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from dqas_adapters.extras import RAY
from dqas_plugin.bench.executors import Pool, WorkerLostError, each_once, portable_outcome
from dqas_plugin.contracts import Bounds
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.paths import atomic_file
from dqas_plugin.versions import installed

_AHEAD = 2  # tasks for every processor that wait at the workers


@contextmanager
def open_ray(
    jobs: int | None,
    *,
    address: str | None = None,
    gpus: Annotated[float, Bounds(0, above=True)] = 1.0,
    retries: Annotated[int, Bounds(0)] = 2,
) -> Iterator[Pool]:
    """Workers of a Ray cluster, with a processor each.

    Args:
        jobs: tasks at a time; None: as many as the cluster has room for.
        address: of the cluster, ``HOST:PORT``; default: ``RAY_ADDRESS``, or the cluster that runs on this machine, or else one
            of this machine that ends with the run. ``local`` is always one of its own.
        gpus: of a task for ``cuda``; 0.25 lets four of them share a GPU.
        retries: how often a task is done again whose worker came to an end; then it has failed.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or (from ``run``) it has no such GPUs.
    """
    ray = RAY.load()
    ours = not ray.is_initialized()  # inside a Ray job there is a connection already
    if ours:
        _connect(ray, address)
    try:
        yield _Cluster(ray, jobs, gpus, retries)
    finally:
        if ours:
            ray.shutdown()


@hookimpl
def dqas_register_executors(register: Callable[..., None]) -> None:
    """Register it."""
    register("ray", open_ray, title=f"workers of a Ray cluster ({RAY.install})", elsewhere=True, ready=RAY.check)


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"logging_level": "ERROR", "log_to_driver": False, "include_dashboard": False}
    with _environment(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0"):
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = address or os.environ.get("RAY_ADDRESS") or "this machine"
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"no Ray cluster can be reached at {where} ({reason}): start one with ray start --head") from error


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables that Ray reads when it starts, where they are not set already."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class _Cluster:
    """Runs tasks on a cluster that this process is connected to."""

    def __init__(self, ray: Any, jobs: int | None, gpus: float, retries: int) -> None:
        self.ray = ray
        self.jobs = jobs
        self.gpus = gpus
        self.retries = retries
        self.datasets: dict[str, Any] = {}  # references to what is in the object store, by fingerprint
        self.driver = _Driver(installed("dqas"), _settings())

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        tried = self.ray.exceptions.RayError
        there = self.ray.cluster_resources()
        gpus = self.gpus if str(getattr(tasks[0], "device", "cpu")).startswith("cuda") else 0
        if gpus > there.get("GPU", 0):
            raise UserError(
                f"the Ray cluster has {there.get('GPU', 0):g} GPUs, and a task shall have {gpus:g}: take --device cpu, set the "
                "executor's option gpus, or add machines with GPUs"
            )
        # a killed worker is counted here, and not by Ray, which tells nobody and counts want of memory apart
        remote = self.ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_work)
        limit = self.jobs or _AHEAD * max(1, int(there.get("CPU", 1)))
        running: dict[Any, Any] = {}

        def start(tasks: Sequence[Any]) -> list[Any]:
            begun = [remote.remote(self.driver, function, task, *self._sent(task)) for task in tasks]
            running.update(zip(begun, tasks, strict=True))
            return begun

        def finished(handles: Sequence[Any]) -> list[tuple[Any, Any]]:
            ready, _ = self.ray.wait(list(handles), num_returns=1)
            return [(one, self._outcome(one, running.pop(one), tried)) for one in ready]

        try:
            yield from each_once(tasks, start, finished, limit=limit, retries=self.retries)
        finally:
            for one in running:
                self.ray.cancel(one, force=True)

    def _sent(self, task: Any) -> tuple[Any, bytes | None]:
        """What a worker needs besides the task: its dataset, and its selection if there is one."""
        cell, path = getattr(task, "cell", None), getattr(task, "path", None)
        content = path.read_bytes() if path is not None and path.is_file() else None
        if cell is None:
            return None, content
        fingerprint = cell.dataset.fingerprint
        if fingerprint not in self.datasets:
            from dqas_plugin.bench.cell import load

            splits = load(cell.dataset)
            self.datasets[fingerprint] = self.ray.put((_packed(splits.train), _packed(splits.test)))
        return [self.datasets[fingerprint]], content  # in a list: a reference, which the worker looks at if it must

    def _outcome(self, handle: Any, task: Any, tried: type[Exception]) -> Any:
        """The outcome of a task that has ended; a file that the worker made for it is written."""
        try:
            outcome, content = self.ray.get(handle)
        except self.ray.exceptions.RayTaskError as error:  # it never came to the call
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, ImportError):
                return UserError(f"a Ray worker cannot begin ({cause}): install dqas on all machines, in one version")
            return DqasError(f"a Ray worker failed: {str(cause).strip()}")
        except tried as error:
            reason = str(error).strip().partition("\n")[0]
            return WorkerLostError(f"a Ray worker came to an end ({type(error).__name__}: {reason})")
        if content is not None:
            with atomic_file(task.path) as temporary:
                temporary.write_bytes(content)
        return outcome


@dataclass(frozen=True)
class _Driver:
    """What workers share with the driver: the version of this package, and settings from the environment."""

    version: str | None
    settings: Mapping[str, str]


def _settings() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name.startswith("DQAS_")}
    if "DQAS_CACHE" in found:
        found["DQAS_CACHE"] = str(Path(found["DQAS_CACHE"]).expanduser().absolute())
    return found


def _work(
    driver: _Driver, function: Callable[[Any], Any], task: Any, dataset: list[Any] | None, content: bytes | None
) -> tuple[Any, bytes | None]:
    """In a worker: the outcome of the call, and the file of the task if the call made or changed it."""
    ours = installed("dqas")
    if ours != driver.version:
        return UserError(f"a Ray worker has dqas {ours}, and the driver {driver.version}: install one version"), None
    os.environ.update(driver.settings)
    if dataset is not None:
        _receive(task.cell.dataset, dataset[0])
    if getattr(task, "path", None) is None:
        return portable_outcome(function, task), None
    with tempfile.TemporaryDirectory(prefix="dqas-") as folder:
        path = Path(folder) / task.path.name
        if content is not None:
            path.write_bytes(content)
        outcome = portable_outcome(function, replace(task, path=path))
        made = path.read_bytes() if path.is_file() else None
    return outcome, None if made == content else made


def _receive(reference: Any, sent: Any) -> None:
    """Take the dataset from the object store, once in a process."""
    import ray

    from dqas_plugin.bench.cell import give, is_given
    from dqas_plugin.data import DatasetSplits

    if not is_given(reference):
        train, test = ray.get(sent)
        give(reference, DatasetSplits(_unpacked(train), _unpacked(test)))


def _packed(data: Any) -> dict[str, Any]:
    """The images with arrays for tensors: Ray keeps arrays in memory that the processes of a machine share."""
    from torch import Tensor

    found = {one.name: getattr(data, one.name) for one in fields(data)} | {"digest": data.fingerprint}
    return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in found.items()}


def _unpacked(content: Mapping[str, Any]) -> Any:
    import torch

    from dqas_plugin.data import ImageDataset

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to a dataset
        tensors = {name: torch.from_numpy(value) for name, value in content.items() if isinstance(value, np.ndarray)}
    return ImageDataset(**{**content, **tensors})
