"""``dq`` and ``dqas`` as rows of a benchmark: what they choose from, how many, and what is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dqas_plugin import bench
from dqas_plugin.bench.cell import request
from dqas_plugin.bench.grid import Cell
from dqas_plugin.errors import UserError
from dqas_plugin.recipes import recipe

SHORT = recipe("quick").with_(iterations=4, proxy_epochs=1)


def cells(*methods: str, **options: Any) -> list[Cell]:
    data = bench.open_dataset("digits")
    planned = bench.plan(
        data, methods, **{"ratios": [0.2], "seeds": 1, "recipe": SHORT, "patches": {"scores": "saliency"}, **options}
    )
    return [one for one in planned if one.method in methods]


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
    names = [(row.method, row.label) for section in bench.tabulate(planned[:3], results) for row in section.rows]
    assert names == [("bins", "20 %"), ("dq", "20 %"), ("dqas", "20 %")]


def test_mistakes() -> None:
    with pytest.raises(UserError, match="did you mean 'original'"):
        cells("dq", bins_on="originals")
    (cell,) = cells("dq", ratios=[0.9])
    with pytest.raises(UserError, match=r"lower the ratio to 0\.75 or the drop rate"):
        request(cell, "cpu")
