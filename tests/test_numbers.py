"""Numbers under stress: what is not finite is refused by name, what is extreme is ranked rightly, and blindness is said."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import registering
from dqas_cli.main import cli
from dqas_plugin import load_dataset, select
from dqas_plugin.bench import open_dataset, plan, run, tabulate
from dqas_plugin.contracts import Selector
from dqas_plugin.doubts import flat_signals
from dqas_plugin.errors import NotFiniteError, UserError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.logistic import Standardiser
from dqas_plugin.models import Network, Shape, convnet3_small
from dqas_plugin.plugins import plugins
from dqas_plugin.ranking import rank
from dqas_plugin.recipes import recipe
from dqas_plugin.refinement import expected_error_change
from dqas_plugin.refinement.rounds import error_reduction
from dqas_plugin.refinement.scorers import SCORERS
from dqas_plugin.scores import class_scores
from dqas_plugin.signals import Signals
from dqas_plugin.soundness import Chance, early_answers, flat
from dqas_plugin.training import evaluate
from test_methods import cases, signals
from toys import toy

LARGEST = float(np.finfo(np.float32).max)
SUBNORMAL = 1e-44
SHORT = recipe("quick").with_(iterations=3, proxy_epochs=3, precision="fp32")

EXTREME = np.array(
    [
        [1e30, 0.0, -1e30],
        [-1e30, 1e30, 0.0],
        [LARGEST, -LARGEST, 0.0],
        [-LARGEST, LARGEST, LARGEST],
        [SUBNORMAL, 0.0, -SUBNORMAL],
        [0.0, 0.0, 0.0],
        [88.0, -88.0, 87.0],
        [1e30, 1e30, 1e30],
        [-120.0, -121.0, -122.0],
        [2.0, 1.0, 0.0],
    ],
    dtype=np.float32,
)


# --- extreme logits --------------------------------------------------------------------------------------------------------


def literal(row: npt.NDArray[np.float32]) -> tuple[list[float], list[float]]:
    """Probabilities, and the losses of every label, number by number."""
    values = [float(one) for one in row]
    top = max(values)
    total = math.fsum(math.exp(max(one - top, -1000.0)) for one in values)
    return [math.exp(max(one - top, -1000.0)) / total for one in values], [top - one + math.log(total) for one in values]


def extreme(label: int) -> Signals:
    """All of one class, beside a sample of each other one."""
    labels = np.append(np.full(len(EXTREME), label), [one for one in range(3) if one != label])
    logits = np.concatenate([EXTREME, np.zeros((2, 3), np.float32)])
    return Signals.from_arrays(None, logits, labels)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_extreme_logits_have_finite_probabilities_and_losses(label: int) -> None:
    view = extreme(label).view(label)
    expected = [literal(row) for row in EXTREME]
    np.testing.assert_allclose(view.probabilities, [shares for shares, _ in expected], rtol=1e-5, atol=1e-30)
    losses = [min(found[label], LARGEST) for _, found in expected]
    np.testing.assert_allclose(view.losses, losses, rtol=1e-5, atol=1e-7)
    scores = class_scores(torch.from_numpy(EXTREME), torch.full((len(EXTREME),), label), 3)
    assert np.isfinite(scores.loss[label])


RULES: dict[str, Callable[[list[float]], float]] = {  # lowest first
    "entropy:paper": lambda shares: math.fsum(one * math.log(one) for one in shares if one > 0),
    "least-confidence:paper": max,
    "margin": lambda shares: sorted(shares)[-1] - sorted(shares)[-2],
}


@pytest.mark.parametrize("method", RULES)
def test_the_order_of_extreme_logits_is_that_of_the_definition(method: str) -> None:
    order = rank(extreme(0), method, counts=[len(EXTREME), 1, 1]).order[0]
    scores = [RULES[method](literal(row)[0]) for row in EXTREME]
    ranked = [scores[position] for position in order]
    assert sorted(order) == list(range(len(EXTREME)))
    assert all(first <= second + 1e-12 for first, second in pairwise(ranked)), ranked


@pytest.mark.parametrize(("selector", "options"), list(cases()))
def test_every_method_ranks_extreme_logits(selector: Selector, options: dict[str, Any]) -> None:
    count = len(EXTREME)
    draws = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "features": draws.normal(size=(count, 4)).astype(np.float32),
        "images": draws.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8),
        "margins": np.resize(np.array([LARGEST, -LARGEST, 0, SUBNORMAL], np.float32), (count, 3)),
        "errors": draws.uniform(0, 1.4, (count, 3)).astype(np.float32),
        "perturbations": np.resize(np.array([LARGEST, 0, SUBNORMAL], np.float32), count),
    }
    given = {"logits": EXTREME, "labels": np.zeros(count, np.int64), "num_classes": 3}
    runs = [Signals.from_arrays(arrays["features"], **given)]
    found = rank(Signals.from_arrays(**arrays, **given, runs=runs), selector, counts=[count, 0, 0], **options)
    assert sorted(found.order[0]) == list(range(count))


# --- NaN and infinity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["features", "logits", "head_inputs", "margins", "errors"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_not_finite_is_named_with_its_class(name: str, value: float) -> None:
    labels = np.repeat([0, 1, 2], 4)
    arrays: dict[str, Any] = {"features": np.ones((12, 3)), "logits": np.ones((12, 3))}
    arrays[name] = np.ones((12, 3))
    arrays[name][[9, 5, 6], 2] = value
    with pytest.raises(NotFiniteError, match=rf"{name} are not finite.* 3 of 12 samples \(2 of the 4 of class 1 among them\)"):
        Signals.from_arrays(**arrays, labels=labels)


def test_features_whose_squares_overflow_are_refused() -> None:
    with pytest.raises(NotFiniteError, match=r"features are not finite or above 1e\+16 for 1 of 6 samples .*scale"):
        Signals.from_arrays(np.diag([1, 1, 1, 1, 1, -1e20]), None, np.zeros(6, int))


def test_an_answer_that_is_no_number_is_never_right() -> None:
    logits = torch.tensor([[torch.nan, 0.0], [0.0, torch.nan], [1.0, 0.0], [torch.inf, 0.0]])
    scores = class_scores(logits, torch.zeros(4, dtype=torch.int64), 2)
    assert scores.accuracy[0] == 0.25  # arg max of NaN is 0
    assert np.isnan(scores.loss[0])


class Broken(torch.nn.Module):
    """What makes NaN of dark images once it is no longer in training."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.inner(pixels)
        if self.training:
            return found
        dark = pixels.mean(dim=(1, 2, 3)) < 0
        return torch.where(dark[:, None], torch.nan, found)


def broken(shape: Shape, classes: int) -> Network:
    network = convnet3_small(shape, classes)
    network.body = Broken(network.body)
    return network


class Plugin:
    """A plugin with such a network."""

    @hookimpl
    def dqas_register_models(self, register: Any) -> None:
        register("broken", broken)


def test_a_network_that_gives_nan_is_not_scored() -> None:
    data = toy()
    network = broken(data.image_shape, 3)
    network.set_normalisation(*data.channel_statistics)
    with pytest.raises(
        NotFiniteError, match=r"makes of toy is not finite for \d+ of 48 samples \(\d+ of the \d+ of class 'class \d'"
    ):
        evaluate(network, data)


SMALL = ["--dataset", "shapes"]
for _option in ("classes=3", "per_class=20", "test_per_class=10", "size=8"):
    SMALL += ["--dataset-option", _option]
SMALL += ["--iterations", "2", "--device", "cpu"]


def one_sentence(arguments: list[str], status: int, said: str) -> str:
    """The command ends so, with one line that says this; what it printed."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == status, result.output
    lines = [one for one in result.stderr.splitlines() if one.startswith("dqas: error: ")]
    assert len(lines) == 1
    assert re.search(said, lines[0]), lines
    assert "Traceback" not in result.output
    return result.stdout


def test_a_network_that_gives_nan_ends_select_and_fails_cells(tmp_path: Path) -> None:
    with registering.plugin(Plugin(), "broken"):
        out = ["--ratio", "0.2", "--out", str(tmp_path / "s.npz"), "--model", "broken"]
        one_sentence(["select", *SMALL, *out], 2, r"not finite or above 1e\+16 for \d+ of 60 samples .*lower the learning rate")
        grid = ["--ratio", "0.2", "--seeds", "1", "--jobs", "1", "--results", str(tmp_path / "r"), "--model", "broken"]
        table = one_sentence(["bench", *SMALL, *grid], 1, r"2 of 2 cells failed; the first: .*not finite")
    assert "nan" not in table
    assert table.count("missing") == 2


def test_a_training_that_diverges_fails_its_cell_alone(tmp_path: Path) -> None:
    data = open_dataset("shapes", classes=3, per_class=20, test_per_class=10, size=8)
    wild = SHORT.with_(lr=1e30, iterations=8)
    cells = [one for kind in (SHORT, wild) for one in plan(data, ["random"], ratios=[0.2], seeds=1, recipe=kind)]
    outcome = run(cells, tmp_path, jobs=1)
    assert [one.cell.recipe for one in outcome.failures] == [wild]
    assert isinstance(outcome.failures[0].error, NotFiniteError)
    assert list(outcome.results) == [cells[0].key]
    (good, _) = tabulate(cells, outcome.results)
    assert good.rows[0].accuracy is not None
    assert math.isfinite(good.rows[0].accuracy.mean)


# --- samples that nothing tells apart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("selector", "options"), list(cases()))
@pytest.mark.parametrize("kind", ["identical", "random"])
def test_signals_that_are_all_alike_are_said(selector: Selector, options: dict[str, Any], kind: str) -> None:
    found = rank(signals(selector, kind=kind), selector, counts=[5, 5, 5], **options)
    told = [one for one in found.provenance["notes"] if "which to take first" in one]
    reads = selector.needs - {"runs", "network"}
    assert bool(told) == (kind == "identical" and bool(reads)), found.provenance["notes"]
    assert all(f"'{selector.name}'" in one and "within all classes" in one for one in told)


def test_a_single_flat_class_is_counted() -> None:
    values = np.random.default_rng(0).normal(size=(30, 4))
    values[10:20] = values[10]
    found = rank(Signals.from_arrays(values, None, np.repeat([0, 1, 2], 10)), "k-center", counts=[3, 3, 3])
    assert [one for one in found.provenance["notes"] if "within 1 of 3 classes" in one]


@pytest.mark.parametrize(
    ("change", "alike"), [(0.0, True), (1e-7, True), (1e-4, False), (1.0, False)], ids=["none", "rounding", "small", "large"]
)
@pytest.mark.parametrize("place", [1, 7999])
def test_flat_is_but_for_rounding(change: float, alike: bool, place: int) -> None:
    values = torch.full((8000, 3), 2.0)
    values[place, 1] += change
    assert flat(values, torch.arange(8000)) == alike
    assert flat(values, torch.tensor([0, 2]))


def test_a_missing_signal_is_not_flat() -> None:
    assert flat_signals(Signals.from_arrays(None, None, [0, 0, 1]), np.array([0, 1]), {"features", "logits", "dynamics"}) == []


def test_one_class_is_said_to_teach_nothing() -> None:
    one = Signals.from_arrays(np.eye(6), np.arange(6.0)[:, None], np.zeros(6, int))
    assert "single class" in rank(one, "margin", counts=[2]).provenance["notes"][-1]
    assert rank(one, "herding", counts=[2]).provenance["notes"] == []


# --- networks that have learnt nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradmatch", "gradmatch:paper", "craig"])
def test_a_class_without_gradients_keeps_its_weight(method: str) -> None:
    """One that fits perfectly, or a single one: trained on with weights of 0 it would be lost."""
    labels = np.repeat([0, 1], 8)
    draws = np.random.default_rng(0)
    logits = np.where(labels[:, None] == 0, [[1e30, -1e30]], draws.normal(size=(16, 2)))
    found = rank(Signals.from_arrays(draws.normal(size=(16, 3)), logits, labels), method, counts=[4, 4])
    assert found.weights is not None
    assert all(one.any() for one in found.weights)
    if method.startswith("gradmatch"):
        np.testing.assert_allclose(found.weights[0], found.weights[1].mean())
        assert "weight 0 to all samples of 1 of 2 classes" in " ".join(found.provenance["notes"])
    single = rank(Signals.from_arrays(draws.normal(size=(8, 3)), np.ones((8, 1)), np.zeros(8, int)), method, counts=[4])
    assert single.weights is not None
    assert single.weights[0].any()


def test_chance_by_hand() -> None:
    labels = np.array([0] * 100 + [1] * 50)
    found = Chance.of(np.r_[np.ones(70), np.zeros(30), np.ones(20), np.zeros(30)], labels, 2)
    assert found.accuracy == pytest.approx((0.7 + 0.4) / 2)
    assert found.error == pytest.approx(math.sqrt(0.25 / 100 + 0.25 / 50) / 2)
    assert found.blind
    assert not replace(found, accuracy=0.5 + 3.1 * found.error).blind
    assert not replace(found, samples=99).blind  # too few to tell
    assert not Chance.of(np.ones(500), np.zeros(500, int), 1).blind  # there is nothing to be right about


def test_early_answers_by_hand() -> None:
    margins = torch.tensor([[1.0, -1.0, 1.0, 9.0], [-1.0, -1.0, -1.0, 9.0]])
    assert early_answers(margins, steps=400).tolist() == pytest.approx([2 / 3, 0])  # three epochs
    assert early_answers(margins, steps=4).tolist() == [0.75, 0.25]  # thirty steps, or all there are


def digits(kind: str) -> tuple[Any, Any]:
    """A part of the digits, with labels that mean something or not, and a recipe."""
    whole = load_dataset("digits").train
    data = whole.subset(np.random.default_rng(0).permutation(len(whole))[:400])
    if kind == "noise":
        data = replace(data, labels=data.labels[torch.from_numpy(np.random.default_rng(1).permutation(400))], digest=None)
    return data, SHORT.with_(lr=1e-9) if kind == "no learning" else SHORT


@pytest.mark.parametrize("kind", ["good", "noise", "no learning"])
def test_a_network_that_learnt_nothing_is_said(kind: str) -> None:
    data, trained = digits(kind)
    told: list[str] = []
    few = {"repeats": 1, "directions": 0, "iterations": 0, "screen": 1, "finalists": 1, "confirm": 2}
    chosen = select(
        data,
        "graphcut",
        ratio=0.2,
        allocator="adaptive",
        allocator_options=few,
        recipe=trained.with_(iterations=60),
        report=told.append,
    )
    blind = [one for one in chosen.provenance["notes"] if "no better than chance" in one]
    if kind == "good":
        assert blind == []
        return
    method, probe = blind
    assert re.search(r"network that 'graphcut' reads .* hardly seen \(\d+\.\d %, chance is 10\.0 %, 400 images\)", method)
    assert re.search(r"network of the probe .* not trained on \(\d+\.\d %, chance is 10\.0 %, \d+ images\)", probe)
    assert set(blind) <= set(told)


# --- selections that are all alike -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_identical_selected_samples_leave_the_scale_to_the_others(scorer: str, scale: float) -> None:
    draws = np.random.default_rng(0)
    features, labels = draws.normal(size=(60, 8)).astype(np.float32), np.arange(60) % 3
    features[:9] = 1.1 * features[0]  # whose mean is rounded
    plain = expected_error_change(features, labels, np.arange(9), scorer=scorer)
    scaled = expected_error_change(features * np.float32(scale), labels, np.arange(9), scorer=scorer)
    np.testing.assert_allclose(scaled, plain, rtol=1e-4, atol=1e-6)
    assert np.isfinite(plain[9:]).all()
    assert np.abs(plain[9:]).max() < 1
    added = error_reduction(features * np.float32(scale), labels, np.arange(9), 20, scorer=scorer)
    assert len(set(added)) == len(added) > 0


def test_roundings_are_not_blown_up_for_the_probe() -> None:
    features = torch.full((50, 6), 3.0) + 1e-9 * torch.from_numpy(np.random.default_rng(0).normal(size=(50, 6)))
    assert Standardiser.of(features, 4)(features)[:, :-1].abs().max() < 0.01
    spread = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 6)))
    assert Standardiser.of(spread, 4)(spread)[:, :-1].square().sum(1).mean() == pytest.approx(1)


def test_an_evaluation_of_nothing_is_refused() -> None:
    from dqas_plugin.allocation import allocate
    from dqas_plugin.scores import ClassScores

    def nothing(counts: npt.NDArray[np.int64], seed: int) -> ClassScores:
        return ClassScores(np.full(3, 0.5), np.array([1.0, np.nan, 1.0]))

    with pytest.raises(UserError, match="NaN for class 1"):
        allocate("adaptive", nothing, [9, 9, 9], 12)


def test_everything_registered_is_among_the_cases() -> None:
    assert {one.values[0].name for one in cases()} == {one.name for one in plugins().selectors.values() if not one.version}
