"""The run of a grid: nothing twice, stop and continue, failures. The work itself is faked except in the last test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dqas_plugin import hookimpl
from dqas_plugin.bench import Cell, DatasetReference, Lines, Steps, Stopped, Store, plan, run
from dqas_plugin.bench.cell import Chosen, Preparation, Task
from dqas_plugin.bench.executors import Pool, local
from dqas_plugin.errors import DqasError, UserError

DIGITS = DatasetReference("digits", "0123", images=1438, classes=10, mirror=False)
CELLS = plan(DIGITS, ["graphcut"], ratios=[0.05], allocators=["adaptive"], seeds=2)
NUMBER = {cell.key: number for number, cell in enumerate(CELLS)}


@dataclass
class Fakes:
    """Counts calls; ``digests`` says what a cell chooses, ``errors`` what raises when."""

    calls: Counter[str] = field(default_factory=Counter)
    prepared: list[list[str]] = field(default_factory=list)
    trained: list[Cell] = field(default_factory=list)
    digests: Callable[[Cell], str] = lambda cell: cell.key
    errors: dict[tuple[str, str], BaseException] = field(default_factory=dict)

    @property
    def steps(self) -> Steps:
        return Steps(self.prepare, self.select, self.read, self.train)

    def prepare(self, preparation: Preparation) -> None:
        self.calls["prepare"] += 1
        self.prepared.append([str(task.cell) for task in preparation.tasks])

    def select(self, task: Task) -> Chosen:
        self._call("select", task)
        chosen = Chosen(self.digests(task.cell), (7, 8), {"seconds": {"selection": 0.5}})
        task.path.parent.mkdir(exist_ok=True)
        task.path.write_text(json.dumps(vars(chosen)))
        return chosen

    def read(self, path: Path) -> Chosen:
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError("cannot be read") from error
        return Chosen(found["digest"], tuple(found["counts"]), found["provenance"])

    def train(self, task: Task) -> dict[str, Any]:
        self._call("train", task)
        self.trained.append(task.cell)
        accuracy = {"mean": 0.831, "worst": 0.5, "natural": 0.84, "classes": [0.5, 1.0]}
        return {"accuracy": accuracy, "best": accuracy, "seconds": 2.1, "precision": "fp32", "steps": 3, "versions": {}}

    def _call(self, kind: str, task: Task) -> None:
        if error := self.errors.get((kind, task.cell.key)):
            raise error
        self.calls[kind] += 1


def go(fakes: Fakes, folder: Path, cells: Sequence[Cell] = CELLS, **options: Any) -> Any:
    return run(
        cells, folder, **{"jobs": 1, "steps": fakes.steps, "open_executor": local, "finished": lambda *_: None, **options}
    )


def test_everything_once(tmp_path: Path) -> None:
    fakes = Fakes()
    outcome = go(fakes, tmp_path)
    assert fakes.calls == {"prepare": 4, "select": 6, "train": 6}
    assert (outcome.stored, outcome.selections, outcome.trainings, outcome.failures) == (0, 6, 6, [])
    assert list(outcome.results) == [cell.key for cell in CELLS]
    result = outcome.results[CELLS[0].key]
    assert result["seconds"] == {"selection": 0.5, "training": 2.1}
    assert result["counts"] == [7, 8]
    assert result["accuracy"]["mean"] == 0.831
    assert result["provenance"] == {"seconds": {"selection": 0.5}}


def test_networks_are_prepared_before_they_are_needed_and_apart(tmp_path: Path) -> None:
    fakes = Fakes()
    go(fakes, tmp_path, plan(DIGITS, ["graphcut", "graphcut:eq7"], ratios=[0.05, 0.1], allocators=["adaptive"], seeds=1))
    assert fakes.prepared == [
        ["graphcut 5 % seed 0", "graphcut:eq7 5 % seed 0"],  # the features of all budgets
        ["graphcut+adaptive 5 % seed 0"],  # one probe for each budget, whatever the method
        ["graphcut+adaptive 10 % seed 0"],
    ]


def test_what_reads_other_images_is_prepared_apart(tmp_path: Path) -> None:
    """Bins of whole images, of more images, and of rebuilt ones: three probes at one budget."""
    fakes = Fakes()
    digits = replace(DIGITS, shape=(1, 8, 8))
    go(fakes, tmp_path, plan(digits, ["bins", "dq", "dqas"], ratios=[0.05], refiner="error-reduction", seeds=1))
    assert fakes.prepared == [
        ["bins 5 % seed 0", "dq 5 % seed 0", "dqas 5 % seed 0"],  # one after the other: two of them ask the same network
        ["bins+error-reduction 5 % seed 0"],
        ["dq+error-reduction 5 % seed 0"],
        ["dqas+error-reduction 5 % seed 0"],
    ]


def test_random_alone_prepares_nothing(tmp_path: Path) -> None:
    fakes = Fakes()
    go(fakes, tmp_path, plan(DIGITS, [], ratios=[0.05]))
    assert fakes.calls["prepare"] == 0


def test_the_second_run_does_nothing(tmp_path: Path) -> None:
    first = go(Fakes(), tmp_path)

    @contextmanager
    def none(jobs: int) -> Iterator[Pool]:
        raise AssertionError("an executor is opened")
        yield

    fakes = Fakes()
    second = go(fakes, tmp_path, open_executor=none)
    assert fakes.calls == {}
    assert second.results == first.results
    assert second.stored == 6


def test_a_larger_grid_does_the_rest(tmp_path: Path) -> None:
    go(Fakes(), tmp_path, CELLS[:2])
    fakes = Fakes()
    outcome = go(fakes, tmp_path, CELLS)
    assert (fakes.calls["select"], fakes.calls["train"], outcome.stored) == (4, 4, 2)


def test_cells_that_chose_the_same_images_share_a_training(tmp_path: Path) -> None:
    """Adaptive sampling that keeps the even split costs no second training; another seed is another training."""
    fakes = Fakes(digests=lambda cell: cell.method)
    outcome = go(fakes, tmp_path)
    assert fakes.calls["select"] == 6
    assert fakes.calls["train"] == outcome.trainings == 4  # {random, graphcut} x 2 seeds
    uniform, adaptive = (outcome.results[CELLS[number].key] for number in (2, 4))
    assert uniform["training"] == adaptive["training"]


def test_a_stored_training_serves_later_cells(tmp_path: Path) -> None:
    go(Fakes(digests=lambda cell: cell.method), tmp_path, CELLS[:4])
    fakes = Fakes(digests=lambda cell: cell.method)
    outcome = go(fakes, tmp_path)
    assert (fakes.calls["select"], fakes.calls["train"], outcome.trainings) == (2, 0, 0)
    assert len(outcome.results) == 6


@pytest.mark.parametrize(("kind", "number", "kept", "selections"), [("select", 3, 0, 3), ("train", 3, 3, 6)])
def test_stop_and_continue(tmp_path: Path, kind: str, number: int, kept: int, selections: int) -> None:
    fakes = Fakes(errors={(kind, CELLS[number].key): KeyboardInterrupt()})
    with pytest.raises(Stopped, match=f"stopped; {kept} of 6 cells are kept in .* the same command continues"):
        go(fakes, tmp_path)
    fakes.errors.clear()
    outcome = go(fakes, tmp_path)
    assert outcome.stored == kept
    assert outcome.selections == 6 - selections  # those that were made are not made again
    assert fakes.calls["select"] == fakes.calls["train"] == 6


def test_a_damaged_selection_is_made_again(tmp_path: Path) -> None:
    fakes = Fakes(errors={("train", CELLS[0].key): KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        go(fakes, tmp_path)
    (tmp_path / "selections" / f"{CELLS[1].key}.npz").write_text('{"dig')
    fakes.errors.clear()
    assert go(fakes, tmp_path).selections == 1


@pytest.mark.parametrize("kind", ["select", "train"])
def test_a_cell_that_raises_does_not_stop_the_others(tmp_path: Path, kind: str) -> None:
    fakes = Fakes(errors={(kind, CELLS[1].key): RuntimeError("the loss\nis nan")})
    outcome = go(fakes, tmp_path)
    [failure] = outcome.failures
    assert failure.cell == CELLS[1]
    assert str(failure).startswith("random 5 % seed 1 failed: RuntimeError: the loss (see ")
    assert "Traceback" in failure.log.read_text()
    assert len(outcome.results) == 5
    fakes.errors.clear()
    again = go(fakes, tmp_path)
    assert (len(again.results), again.failures) == (6, [])


def test_a_training_that_raises_is_the_failure_of_all_its_cells(tmp_path: Path) -> None:
    fakes = Fakes(digests=lambda cell: cell.method, errors={("train", CELLS[2].key): DqasError("diverged")})
    outcome = go(fakes, tmp_path)
    assert [one.cell for one in outcome.failures] == [CELLS[2], CELLS[4]]


def test_a_failed_preparation_is_left_to_the_cells(tmp_path: Path) -> None:
    fakes = Fakes()

    def prepare(_: Preparation) -> None:
        raise RuntimeError("out of memory")

    assert len(go(fakes, tmp_path, steps=replace(fakes.steps, prepare=prepare)).results) == 6


def test_a_mistake_of_the_users_ends_the_run(tmp_path: Path) -> None:
    fakes = Fakes(errors={("select", CELLS[3].key): UserError("unknown option 'objektive'")})
    with pytest.raises(UserError, match="objektive"):
        go(fakes, tmp_path)
    assert fakes.calls["select"] == 3
    fakes.errors.clear()
    assert go(fakes, tmp_path).selections == 3


def test_plugins_are_told_of_stored_cells(tmp_path: Path) -> None:
    told: list[tuple[Cell, float, bool]] = []

    class Listener:
        @hookimpl
        def dqas_cell_finished(self, cell: Cell, result: dict[str, Any]) -> None:
            with Store(tmp_path) as store:
                told.append((cell, result["accuracy"]["mean"], store.result(cell) == result))

    _with_plugin(Listener(), lambda: go(Fakes(), tmp_path, CELLS[:2], finished=None))
    assert told == [(CELLS[0], 0.831, True), (CELLS[1], 0.831, True)]


def test_a_plugin_that_fails_there_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Listener:
        @hookimpl
        def dqas_cell_finished(self) -> None:
            raise OSError("no post today")

    outcome = _with_plugin(Listener(), lambda: go(Fakes(), tmp_path, CELLS[:2], finished=None))
    assert len(outcome.results) == 2
    assert "no post today" in caplog.text


def _with_plugin(plugin: object, call: Callable[[], Any]) -> Any:
    from dqas_plugin.plugins import plugins

    plugins().register(plugin, "listener")
    try:
        return call()
    finally:
        plugins().unregister(plugin)


def test_what_is_wrong_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    with pytest.raises(UserError, match="0 jobs"):
        go(Fakes(), folder, jobs=0)
    with pytest.raises(UserError, match="unknown executor 'locl': did you mean 'local'"):
        go(Fakes(), folder, open_executor=None, executor="locl")
    assert not folder.exists()


def test_the_registered_executor_is_used(tmp_path: Path) -> None:
    assert len(go(Fakes(), tmp_path, open_executor=None).results) == 6


@pytest.mark.parametrize(("jobs", "device", "opened"), [(4, "cpu", 4), (99, "cpu", 6), (None, "cuda:0", 1)])
def test_jobs(tmp_path: Path, jobs: int | None, device: str, opened: int) -> None:
    asked = []

    @contextmanager
    def opener(number: int) -> Iterator[Pool]:
        asked.append(number)
        with local(1) as pool:
            yield pool

    go(Fakes(), tmp_path, jobs=jobs, device=device, open_executor=opener)
    assert asked == [opened]


def test_the_reporter_hears_it_all(tmp_path: Path) -> None:
    import io

    stream = io.StringIO()
    fakes = Fakes(errors={("train", CELLS[3].key): RuntimeError("bad luck")})
    go(fakes, tmp_path, reporter=Lines(stream))
    lines = stream.getvalue().splitlines()
    assert lines[:4] == [
        "features for all methods: 2 to compute",
        "probes for class counts and refinement: 2 to train",
        "selections: 6 to make",
        "trainings: 6 to do",
    ]
    assert lines[4] == "1/6 random 5 % seed 0: 83.1 % (2.1 s)"
    assert lines[7] == "4/6 graphcut 5 % seed 1: failed (bad luck)"
    assert lines[9] == "6/6 graphcut+adaptive 5 % seed 1: 83.1 % (2.1 s)"
    stream.truncate(0)
    go(Fakes(), tmp_path, reporter=Lines(stream))
    assert "5 of 6 cells are stored already" in stream.getvalue()


def test_on_real_images(tmp_path: Path) -> None:
    """The real steps, in this process: the same twice, and equal for all who choose the same images."""
    from dqas_plugin.bench import open_dataset
    from dqas_plugin.recipes import recipe

    digits = open_dataset("digits")
    short = recipe("quick").with_(iterations=10, proxy_epochs=1, precision="fp32")
    cells = plan(digits, ["graphcut"], ratios=[0.05], seeds=1, recipe=short)
    first = run(cells, tmp_path / "one", jobs=1)
    second = run(cells, tmp_path / "two", jobs=1)
    assert not first.failures
    for cell in cells:
        result, again = first.results[cell.key], second.results[cell.key]
        assert result["accuracy"] == again["accuracy"]
        assert result["accuracy"]["worst"] == min(result["accuracy"]["classes"])
        assert result["best"]["mean"] >= result["accuracy"]["mean"]
        assert sum(result["counts"]) == 72
        assert result["steps"] == 10
        assert result["provenance"]["fingerprint"]
        assert result["seconds"]["training"] > 0
    assert (tmp_path / "one" / "selections" / f"{cells[0].key}.npz").is_file()
