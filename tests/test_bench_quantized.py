"""``dq`` and ``dqas`` as rows of a benchmark: what they choose from, how many, and what is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dqas_plugin import bench, hookimpl
from dqas_plugin.bench.cell import load, request
from dqas_plugin.bench.grid import Cell
from dqas_plugin.data import ImageDataset
from dqas_plugin.errors import UserError
from dqas_plugin.pipeline import run_request
from dqas_plugin.plugins import plugins
from dqas_plugin.quantization.mae_training import MaeProgress
from dqas_plugin.recipes import recipe

SHORT = recipe("quick").with_(iterations=4, proxy_epochs=1)
QUICK = {"scores": "saliency", "rebuild": "harmonic"}


def cells(*methods: str, **options: Any) -> list[Cell]:
    data = bench.open_dataset("digits")
    planned = bench.plan(data, methods, **{"ratios": [0.2], "seeds": 1, "recipe": SHORT, "patches": QUICK, **options})
    return [one for one in planned if one.method in methods]


def open_(cell: Cell) -> ImageDataset:
    return load(cell.dataset).train


def counts(results: dict[str, Any], cell: Cell) -> int:
    return sum(results[cell.key]["counts"])


def test_only_what_quantizes_is_told_of_patches() -> None:
    plain, dq, dqas = cells("graphcut", "dq", "dqas")
    assert plain.quantization is None
    assert dq.quantization is not None
    assert dqas.quantization is not None
    assert (dq.quantization["bins_on"], dqas.quantization["bins_on"]) == ("original", "reconstructed")
    assert plain.key == cells("graphcut", patches={"drop_rate": 0.5})[0].key
    assert dq.key != cells("dq", patches={"drop_rate": 0.5, "scores": "saliency"})[0].key
    assert Cell.from_configuration(dqas.configuration()) == dqas


def test_a_selection_is_one_of_the_dataset_whatever_images_were_read() -> None:
    (cell,) = cells("dqas")
    asked = request(cell, "cpu")
    chosen = run_request(asked)
    original = open_(cell)
    assert asked.made_for is original
    assert (chosen.provenance["dataset"], chosen.provenance["fingerprint"]) == ("digits/train", original.fingerprint)
    assert not any("whole images" in one for one in chosen.provenance["notes"])
    assert request(cells("graphcut")[0], "cpu").made_for is None


def test_what_is_read_and_how_much_is_chosen() -> None:
    dq, dqas, whole, moved = (
        *cells("dq", "dqas"),
        *cells("dqas", patches={"keep": True}),
        *cells("dqas", bins_on="original"),
    )
    original = request(whole, "cpu").data
    assert request(dq, "cpu").data is original
    assert request(moved, "cpu").data is original
    rebuilt = request(dqas, "cpu").data
    assert rebuilt.name == "digits/train rebuilt"
    assert rebuilt.fingerprint != original.fingerprint
    assert [request(one, "cpu").budget for one in (dq, dqas, moved, whole)] == [384, 384, 384, 288]  # 288 / .75


def test_rows(tmp_path: Path) -> None:
    planned = cells("bins", "dq", "dqas") + cells("dqas", patches={"keep": True})
    outcome = bench.run(planned, tmp_path, jobs=1)
    assert not outcome.failures
    bins, _, dqas, whole = planned
    results = dict(outcome.results)
    assert [counts(results, one) for one in planned] == [288, 384, 384, 288]
    assert results[whole.key]["accuracy"] == results[bins.key]["accuracy"]  # with whole images that is all there is
    assert results[whole.key]["training"] != results[dqas.key]["training"]
    assert [results[one.key]["seconds"].get("pixels", 0) > 0 for one in planned] == [False, True, True, False]
    assert not any("pixels" in one for one in results.values())
    names = [(row.method, row.label) for section in bench.tabulate(planned[:3], results) for row in section.rows]
    assert names == [("bins", "20 %"), ("dq", "20 %"), ("dqas", "20 %")]


def test_mistakes() -> None:
    with pytest.raises(UserError, match="did you mean 'original'"):
        cells("dq", bins_on="originals")
    with pytest.raises(UserError, match="patches of 3 pixels do not divide images of 8x8"):
        cells("dq", patches={"size": 3})
    assert cells("graphcut", ratios=[0.9], patches={"size": 3})  # which drops none
    with pytest.raises(UserError, match="did you mean 'grad-cam'"):
        cells("dq", patches={"scores": "grad-can"})


def test_more_images_than_there_are_fail_when_the_grid_is_planned() -> None:
    with pytest.raises(
        UserError, match=r"takes 1,725 images, more than the 1,438 .*: lower the ratio to 0\.75 or the drop rate"
    ):
        cells("dq", ratios=[0.1, 0.9])
    assert [one.images for one in cells("dq", ratios=[0.75])] == [1437]  # 1,078 / .75
    assert cells("dq", ratios=[0.9], patches={"keep": True})
    assert cells("graphcut", ratios=[0.9])


def test_the_share_of_a_refiner_is_one_of_the_images_that_are_chosen() -> None:
    how: dict[str, Any] = {"aipc": [1.5], "ratios": [], "refiner": "random", "refine_share": 0.5}
    assert cells("dq", **how)  # 15 whole images are 20 with a quarter less of each
    with pytest.raises(UserError, match="leaves 7 of 15 images"):
        cells("bins", **how)


def test_autoencoders_tell_plugins_how_far_they_are(with_listener: list[Any]) -> None:
    (cell,) = cells("dqas", patches={"scores": "saliency", "rebuild": "mae"})
    assert cell.quantization is not None
    small = replace(cell, quantization={**cell.quantization, "patches": {**cell.quantization["patches"], "mae_steps": 3}})
    request(small, "cpu")
    assert [(one.step, one.steps) for one in with_listener] == [(1, 3), (2, 3), (3, 3)]
    assert all(isinstance(one, MaeProgress) and one.loss > 0 for one in with_listener)


@pytest.fixture
def with_listener() -> Iterator[list[Any]]:
    reports: list[Any] = []

    class Listener:
        @hookimpl
        def dqas_epoch_finished(self, report: Any) -> None:
            reports.append(report)

    listener = Listener()
    plugins().register(listener, "listener")
    yield reports
    plugins().unregister(listener)
