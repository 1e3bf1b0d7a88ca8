"""The overlap report: shares counted by hand, and what it points out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dqas_cli.main import cli
from dqas_plugin.bench import DatasetReference, Store, plan
from dqas_plugin.bench.overlap import overlaps
from dqas_plugin.errors import UserError
from dqas_plugin.selection import Selection

DIGITS = DatasetReference("digits", "0123", images=1438, classes=10, mirror=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds: graphcut shares 3 and 5 of 10 images with random, and its variant eq7 all of its own."""
    chosen = {
        "random": [range(10), range(10)],
        "graphcut": [range(7, 17), range(5, 15)],
        "graphcut:eq7": [range(16, 6, -1), range(5, 15)],
    }
    with Store(tmp_path) as store:
        for cell in plan(DIGITS, ["graphcut", "graphcut:eq7"], aipc=[1], seeds=2):
            indices = np.array(chosen[cell.method][cell.seed])
            selection = Selection(indices, np.ones(10, np.int64), None, {})
            (tmp_path / "selections").mkdir(exist_ok=True)
            selection.save(tmp_path / "selections" / f"{cell.key}.npz")
            store.add_cell(cell, {})
    return tmp_path


def test_shares_are_means_over_seeds(folder: Path) -> None:
    (found,) = overlaps(folder)
    assert found.names == ("random", "graphcut", "graphcut:eq7")
    assert found.shares.tolist() == [[1.0, 0.4, 0.4], [0.4, 1.0, 1.0], [0.4, 1.0, 1.0]]
    assert (found.label, found.images, found.seeds) == ("1 a class", 10, 2)
    assert found.chance == pytest.approx(10 / 1438)
    assert found.suspicious == [("graphcut", "graphcut:eq7", 1.0)]


def test_a_method_that_kept_even_counts_is_not_pointed_out(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        (tmp_path / "selections").mkdir()
        for cell in plan(DIGITS, ["graphcut"], aipc=[1], seeds=1, allocators=["adaptive"]):
            start = 20 if cell.method == "random" else 0
            selection = Selection(np.arange(start, start + 10), np.ones(10, np.int64), None, {})
            selection.save(tmp_path / "selections" / f"{cell.key}.npz")
            store.add_cell(cell, {})
    (found,) = overlaps(tmp_path)
    assert found.names == ("random", "graphcut", "graphcut + adaptive")
    assert found.shares[1].tolist() == [0.0, 1.0, 1.0]
    assert found.suspicious == []


def test_what_is_done_to_the_images_is_told_apart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        (tmp_path / "selections").mkdir()
        for place, patches in enumerate(({"keep": True}, {"rebuild": "harmonic"})):
            for cell in plan(replace(DIGITS, shape=(1, 8, 8)), ["dq"], aipc=[1], seeds=1, patches=patches):
                selection = Selection(np.arange(10) + 5 * place, np.ones(10, np.int64), None, {})
                selection.save(tmp_path / "selections" / f"{cell.key}.npz")
                store.add_cell(cell, {})
    (found,) = overlaps(tmp_path)
    assert found.names == ("random", "dq (whole images)", "dq (rebuild harmonic)")
    assert found.shares[1].tolist() == [0.5, 1.0, 0.5]


def test_the_command_prints_them_and_points_out_what_is_the_same(folder: Path) -> None:
    told = CliRunner().invoke(cli, ["list", "overlap", "--results", str(folder)])
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    assert "digits, 1 a class (10 images, 2 seeds)" in lines[0]
    assert lines[2].split() == ["1", "random", "·", "40", "40"]
    assert "graphcut and graphcut:eq7 pick the same images" in told.output
    as_json = CliRunner().invoke(cli, ["list", "overlap", "--results", str(folder), "--format", "json"])
    assert json.loads(as_json.output)[0]["shares"][0] == [1.0, 0.4, 0.4]


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results"):
        overlaps(tmp_path)
    with Store(tmp_path):
        pass
    with pytest.raises(UserError, match="no two methods"):
        overlaps(tmp_path)
    told = CliRunner().invoke(cli, ["list", "overlap", "--results", str(tmp_path)])
    assert told.exit_code == 2
    assert "no two methods" in told.stderr


def test_results_belong_to_the_overlap_alone(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["list", "methods", "--results", str(tmp_path)])
    assert told.exit_code == 2
    assert "--results" in told.stderr
