"""``--executor slurm``: every task of a benchmark a job of Slurm, submitted by ``submitit`` (``pip install "dqas[slurm]"``).

The results folder, the cache folder (``DQAS_CACHE``) and the files of datasets must be on a file system that all machines
share, under the same names: jobs write selections there and read them. Jobs run in the folder and the Python environment that
the driver runs in. The driver, which alone writes results, may run where there is no GPU, and must go on until the jobs are
done; if it is killed, its jobs end by themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from dqas_adapters.extras import SLURM
from dqas_plugin.bench.executors import Pool, WorkerLostError, default_jobs, each_once, interrupts_held_back, portable_outcome
from dqas_plugin.contracts import Bounds
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.paths import cache_folder

_AT_A_TIME = 500  # jobs in the queue, where people give no number
_LOOK = 0.5  # seconds between looks at the jobs
_ASK = 10.0  # seconds between questions to Slurm
_WATCH = 2.0  # seconds between a job's looks at the driver's sign


@contextmanager
def open_slurm(
    jobs: int | None,
    *,
    cluster: Literal["slurm", "local"] = "slurm",
    partition: str | None = None,
    account: str | None = None,
    minutes: Annotated[int, Bounds(1)] = 240,
    memory: Annotated[float, Bounds(0, above=True)] = 8.0,
    gpus: Annotated[int, Bounds(1)] = 1,
    retries: Annotated[int, Bounds(0)] = 1,
    patience: Annotated[float, Bounds(1)] = 120.0,
) -> Iterator[Pool]:
    """Jobs of Slurm, with a processor each. Variables such as ``SBATCH_CONSTRAINT`` say more to Slurm.

    Args:
        jobs: at a time; None: 500, or the processors of this machine for ``cluster="local"``.
        cluster: ``local`` runs the jobs as processes of this machine, to try things out.
        partition: of Slurm.
        account: of Slurm.
        minutes: that a job may take.
        memory: of a job, in GB.
        gpus: of a task for ``cuda``.
        retries: how often a task is done again whose job came to an end; then it has failed.
        patience: seconds without a sign of the driver after which a job ends.

    Raises:
        UserError: submitit is not installed, there is no Slurm here, or (from ``run``) it refuses a job.
    """
    check({"cluster": cluster})
    package = SLURM.load()
    settings = {
        "name": "dqas",
        "timeout_min": minutes,
        "cpus_per_task": 1,
        "mem_gb": memory,
        "slurm_partition": partition,
        "slurm_account": account,
    }
    with _sign(patience) as sign:
        executor = package.AutoExecutor(folder=sign.folder, cluster=cluster)
        executor.update_parameters(**settings)
        limit = jobs or (_AT_A_TIME if cluster == "slurm" else default_jobs())
        yield _Jobs(package, executor, sign, limit, retries, gpus)


def check(options: Mapping[str, Any]) -> None:
    """Fail before any work is done if submitit or Slurm is not there."""
    SLURM.load()
    if options["cluster"] == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "this machine has no Slurm (no command sbatch): start on a machine that submits jobs, or set the executor's option "
            "cluster=local"
        )


@hookimpl
def dqas_register_executors(register: Callable[..., None]) -> None:
    """Register it."""
    register("slurm", open_slurm, title=f"jobs of Slurm, by submitit ({SLURM.install})", elsewhere=True, ready=check)


class _Jobs:
    """Runs tasks as jobs."""

    def __init__(self, package: Any, executor: Any, sign: _Sign, limit: int, retries: int, gpus: int) -> None:
        self.package = package
        self.executor = executor
        self.sign = sign
        self.limit = limit
        self.retries = retries
        self.gpus = gpus
        self.asked = 0.0
        self.missing: set[Any] = set()

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        on_gpu = str(getattr(tasks[0], "device", "cpu")).startswith("cuda")
        self.executor.update_parameters(gpus_per_node=self.gpus if on_gpu else 0)
        running: set[Any] = set()

        def start(tasks: Sequence[Any]) -> list[Any]:
            begun = self._submitted(function, tasks)
            running.update(begun)
            return begun

        def finished(jobs: Sequence[Any]) -> list[tuple[Any, Any]]:
            while not (done := self._ended(jobs)):
                time.sleep(_LOOK)
            running.difference_update(done)
            return [(job, self._outcome(job)) for job in done]

        try:
            yield from each_once(tasks, start, finished, limit=self.limit, retries=self.retries)
        finally:
            _cancel(running)

    def _ended(self, jobs: Sequence[Any]) -> list[Any]:
        """The jobs that have a result, or that were gone without one twice: a file may come late.

        Slurm is asked what it runs, and not, as submitit does, what it ran: many clusters keep no account of that.
        """
        ready = [job for job in jobs if job.paths.result_pickle.exists()]
        slurm = self.executor.cluster == "slurm"
        if ready or time.monotonic() - self.asked < (_ASK if slurm else _LOOK):
            return ready
        self.asked = time.monotonic()
        if slurm:
            found = subprocess.run(["squeue", "--me", "-h", "-r", "-o", "%i"], check=False, capture_output=True, text=True)
            known = found.stdout.split()
            gone = {job for job in jobs if found.returncode == 0 and job.job_id not in known}
        else:
            gone = {job for job in jobs if job.done()}
        before, self.missing = self.missing, gone
        return [job for job in jobs if job in gone and job in before]

    def _submitted(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        """Jobs for the tasks: an array if there are several."""
        work = partial(_work, function, self.sign)
        try:
            with interrupts_held_back(), self.executor.batch():
                return [self.executor.submit(work, task) for task in tasks]
        except (self.package.core.utils.FailedJobError, self.package.core.utils.FailedSubmissionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"Slurm refuses the jobs ({reason}): set the executor's options, such as partition") from error

    def _outcome(self, job: Any) -> Any:
        """The outcome of a job that has ended, whose files are then removed."""
        if not job.paths.result_pickle.exists():
            return WorkerLostError(
                f"job {job.job_id} came to an end without a result: see its log {job.paths.stderr}, which, like the results "
                "folder, must be on a file system that all machines share"
            )
        try:
            (outcome,) = job.results()
        except self.package.core.utils.UncompletedJobError as error:  # it never came to the call
            return DqasError(f"job {job.job_id} failed: {str(error).strip()}")
        for path in (job.paths.submitted_pickle, job.paths.result_pickle, job.paths.stdout, job.paths.stderr):
            path.unlink(missing_ok=True)
        return outcome


def _cancel(jobs: set[Any]) -> None:
    """Take jobs out of Slurm's queue and kill those that run: submitit lets them ignore the signal that asks.

    Jobs that are processes of this machine end when the driver's sign goes, as all do.
    """
    numbers = sorted(job.job_id for job in jobs if type(job).__name__ == "SlurmJob")
    for signal in ([], ["--signal=KILL"]) if numbers else ():
        subprocess.run(["scancel", *signal, *numbers], check=False, capture_output=True)


class _Sign:
    """A file that the driver changes while it lives, in the folder of the jobs."""

    def __init__(self, folder: Path, patience: float) -> None:
        self.folder = folder
        self.patience = patience
        self.path = folder / "driver"

    def give(self, ended: threading.Event) -> None:
        """Change the file until the event."""
        count = 0
        while not ended.wait(self.patience / 6):
            count += 1
            self.path.write_text(str(count))

    def watch(self) -> None:
        """In a job: end this process once the file is gone, or has not changed for too long."""
        seen, since = "", time.monotonic()
        while True:
            try:
                now = self.path.read_text()
            except FileNotFoundError:
                os._exit(1)
            except OSError:  # a file system that is away for a moment
                now = seen
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > self.patience:
                os._exit(1)
            time.sleep(min(_WATCH, self.patience / 6))


@contextmanager
def _sign(patience: float) -> Iterator[_Sign]:
    """The folder of a run and the driver's sign in it; both are gone afterwards."""
    folder = Path(tempfile.mkdtemp(dir=cache_folder("slurm").absolute()))
    sign = _Sign(folder, patience)
    sign.path.write_text("0")
    ended = threading.Event()
    thread = threading.Thread(target=sign.give, args=(ended,), daemon=True)
    thread.start()
    try:
        yield sign
    finally:
        ended.set()
        thread.join()
        sign.path.unlink(missing_ok=True)
        if not list(folder.glob("*_log.err")):  # logs of jobs that failed stay
            shutil.rmtree(folder, ignore_errors=True)


def _work(function: Callable[[Any], Any], sign: _Sign, task: Any) -> Any:
    """In a job: the outcome of the call."""
    threading.Thread(target=sign.watch, daemon=True).start()
    return portable_outcome(function, task)
