"""The methods of a DeepCore checkout as ours: on the stand-in always, and on the real one if ``DEEPCORE_HOME`` names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner

from deepcore_problem import SIZES, plain, ranked, signals
from dqas_adapters.deepcore import calling, selectors
from dqas_adapters.deepcore.checkout import HOME, Checkout
from dqas_cli.main import cli
from dqas_plugin import load_dataset, select
from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.models import convnet3_small
from dqas_plugin.plugins import plugins
from dqas_plugin.ranking import rank
from dqas_plugin.recipes import recipe
from dqas_plugin.signals import Signals
from dqas_plugin.training import outputs

SETS = {"ContextualDiversity", "Craig", "Glister", "GradMatch", "Herding", "Submodular", "kCenterGreedy", "Uniform"}
SCORES = {"Cal", "DeepFool", "Forgetting", "GraNd", "Uncertainty"}
NAMED = {"GraphCut", "FacilityLocation", "LogDeterminant", "LeastConfidence", "Entropy", "Margin"}
NATIVE = {
    "Cal": "cal",
    "ContextualDiversity": "contextual-diversity",
    "Craig": "craig",
    "DeepFool": "deepfool",
    "Entropy": "entropy",
    "FacilityLocation": "facility-location",
    "Forgetting": "forgetting",
    "Glister": "glister",
    "GradMatch": "gradmatch",
    "GraNd": "grand",
    "GraphCut": "graphcut",
    "Herding": "herding",
    "LeastConfidence": "least-confidence",
    "Margin": "margin",
    "kCenterGreedy": "k-center",
}


class Called:
    """Counts the calls of DeepCore."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        monkeypatch.setattr(selectors, "call", self)

    def __call__(self, *args: Any, **kwargs: Any) -> calling.Answer:
        self.times += 1
        return calling.call(*args, **kwargs)


def test_every_class_is_a_method(checkout: Checkout) -> None:
    assert set(checkout.methods) == SETS | SCORES | {"Full"}
    found = {name.partition(":")[2]: one for name, one in plugins().selectors.items() if name.startswith("deepcore:")}
    assert set(found) == set(checkout.methods) | NAMED
    assert {name for name, one in found.items() if one.nested} == SCORES | {"LeastConfidence", "Entropy", "Margin"}
    needs = {name: set(one.needs) - {"images"} for name, one in found.items()}
    assert needs.pop("Uniform") == needs.pop("Full") == set()
    assert needs.pop("Forgetting") == {"network", "dynamics"}
    assert needs.pop("GraNd") == {"network", "runs"}
    assert set(map(frozenset, needs.values())) == {frozenset({"network"})}
    assert plugins().problems == []


@pytest.mark.parametrize("name", sorted(SETS | SCORES | NAMED))
@pytest.mark.parametrize("counts", [[1, 11, 4], [24, 2, 0]])
def test_gives_as_many_as_are_asked_for(checkout: Checkout, name: str, counts: list[int]) -> None:
    order = ranked(name, counts).order
    assert [len(one) for one in order] == counts
    labels = signals().labels.numpy()
    for label, one in enumerate(order):
        assert len(set(one.tolist())) == len(one)
        assert (labels[one] == label).all()


_SETTINGS: dict[str, dict[str, Any]] = {
    "Submodular": {"function": "FacilityLocation", "greedy": "NaiveGreedy"},
    "Uncertainty": {"selection_method": "Margin"},
}


@pytest.mark.parametrize("name", sorted((SETS | SCORES) - {"Forgetting"}))
def test_chooses_what_deepcore_chooses_by_itself(checkout: Checkout, name: str) -> None:
    options: dict[str, Any] = {"repeat": 1} if name == "GraNd" else {}
    if name in _SETTINGS:
        options = _SETTINGS[name]
    answer = plain(checkout, name, 0.25, 7, **options)
    labels = signals().labels.numpy()
    counts = [round(0.25 * size) for size in SIZES]
    found = ranked(name, counts, seed=7, **options)
    theirs = [np.asarray(answer["indices"])[labels[answer["indices"]] == label] for label in range(3)]
    if name in SCORES:
        assert [one.tolist() for one in found.order] == [one.tolist() for one in theirs]
    elif name == "Uniform":  # it draws class after class, so that it matters how many were drawn before
        assert found.order[0].tolist() == theirs[0].tolist()
    else:
        for own, other in zip(found.order, theirs, strict=True):
            assert set(other.tolist()) <= set(own.tolist())
            assert name == "GradMatch" or len(own) == len(other)
    assert (found.weights is not None) == ("weights" in answer)
    if found.weights is not None:
        weights = dict(zip(np.concatenate(found.order).tolist(), np.concatenate(found.weights), strict=True))
        given = dict(zip(np.asarray(answer["indices"]).tolist(), answer["weights"], strict=True))
        assert weights == pytest.approx({**dict.fromkeys(weights, 0.0), **given}, rel=1e-5)


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_agrees_with_our_own_of_the_same_name(checkout: Checkout, name: str) -> None:
    """Another program on the same network: but for ties it picks the same."""
    counts = [7, 7, 7]
    options: dict[str, Any] = {"repeat": 1} if name == "GraNd" else {}
    own = rank(signals(), NATIVE[name], counts=counts, seed=3, **options)
    theirs = ranked(name, counts)
    if name == "Forgetting":  # few different counts of events: what matters is that none is higher
        assert events(own.order) == events(theirs.order)
        return
    compared = list(theirs.order)
    if name == "GradMatch":  # DeepCore leaves out what ends with weight 0, ours does not
        compared = [one[weights > 0] for one, weights in zip(compared, theirs.weights, strict=True)]
    shared = sum(len(np.intersect1d(*pair)) for pair in zip(own.order, compared, strict=True))
    # Of two samples that are nearest to each other Craig gains as much by one as by the other.
    assert shared >= sum(map(len, compared)) - (4 if name == "Craig" else 1)


def events(order: tuple[npt.NDArray[np.int64], ...]) -> list[list[int]]:
    """How often each was forgotten: right before and then wrong."""
    assert signals().margins is not None
    right = (signals().margins.numpy() > 0).astype(int)  # type: ignore[union-attr]
    counted = (np.diff(right, axis=1) == -1).sum(axis=1)
    return [counted[one].tolist() for one in order]


@pytest.mark.parametrize(
    ("name", "counts", "calls"),
    [("Herding", [5, 5, 5], 1), ("Herding", [5, 9, 5], 2), ("Craig", [3, 4, 5], 3), ("Uniform", [3, 4, 4], 2)]
    + [(name, [3, 4, 5], 1) for name in ("Entropy", "Cal")],
)
def test_one_call_for_each_count_or_one_for_scores(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, name: str, counts: list[int], calls: int
) -> None:
    called = Called(monkeypatch)
    ranked(name, counts)
    assert called.times == calls
    ranked(name, counts)
    assert called.times == calls  # the same signals are still known
    ranked(name, counts, seed=4)
    assert called.times == 2 * calls


@pytest.mark.parametrize("name", sorted(selectors.CLASS_BY_CLASS))
def test_other_classes_do_not_matter_where_they_are_not_shown(checkout: Checkout, name: str) -> None:
    uneven = ranked(name, [5, 9, 7])
    for label, count in enumerate((5, 9, 7)):
        even = ranked(name, [count] * 3)
        assert uneven.order[label].tolist() == even.order[label].tolist()
        if uneven.weights is not None:
            assert even.weights is not None
            assert uneven.weights[label] == pytest.approx(even.weights[label])


def test_only_candidates_are_seen(checkout: Checkout) -> None:
    candidates = np.arange(1, 81, 2)
    for name in ("Herding", "Entropy"):
        found = rank(signals(), f"deepcore:{name}", counts=[3, 3, 3], candidates=candidates)
        assert set(np.concatenate(found.order).tolist()) <= set(candidates.tolist())
        alone = rank(signals().subset(candidates), f"deepcore:{name}", counts=[3, 3, 3])
        assert [one.tolist() for one in found.order] == [candidates[one].tolist() for one in alone.order]


def test_order_of_scores_is_that_of_the_scores(checkout: Checkout) -> None:
    probabilities = signals().view(1).probabilities.numpy().astype(np.float64)
    entropy = -(probabilities * np.log(probabilities + 1e-6)).sum(axis=1)
    found = ranked("Entropy", [1, 30, 1]).order[1]
    by_entropy = dict(zip(signals().members(1).tolist(), entropy, strict=True))
    values = [by_entropy[one] for one in found.tolist()]
    assert (np.diff(values) <= 1e-6).all()


def test_options_are_those_of_the_class(checkout: Checkout) -> None:
    submodular = plugins().selectors["deepcore:Submodular"]
    assert {name: one.default for name, one in submodular.options.items()} == {"function": "GraphCut", "greedy": "LazyGreedy"}
    assert submodular.words["function"] == ("GraphCut", "FacilityLocation", "LogDeterminant")
    assert plugins().selectors["deepcore:GraphCut"].options.keys() == {"greedy"}
    assert plugins().selectors["deepcore:Cal"].options.keys() == {"metric", "neighbors"}
    one = ranked("Submodular", [6, 6, 6], function="FacilityLocation", greedy="NaiveGreedy").order
    other = ranked("FacilityLocation", [6, 6, 6], greedy="NaiveGreedy").order
    cut = ranked("GraphCut", [6, 6, 6]).order
    assert [o.tolist() for o in one] == [o.tolist() for o in other] != [o.tolist() for o in cut]
    assert ranked("Cal", [9, 9, 9], neighbors=2).order[0].tolist() != ranked("Cal", [9, 9, 9]).order[0].tolist()
    with pytest.raises(UserError, match="'Lazy': choose one of ApproximateLazyGreedy"):
        ranked("Craig", [2, 2, 2], greedy="Lazy")
    with pytest.raises(UserError, match=r"did you mean 'greedy'\?"):
        ranked("Craig", [2, 2, 2], greed="LazyGreedy")
    with pytest.raises(TypeError, match="greed"):
        submodular(signals().view(0), 2, np.random.default_rng(0), greed="LazyGreedy")


def test_seed_decides_what_is_drawn(checkout: Checkout) -> None:
    first = np.random.RandomState(12).randint(0, SIZES[1])
    assert ranked("kCenterGreedy", [1, 1, 1], seed=12).order[1].tolist() == [signals().members(1)[first]]
    random_one = ranked("Uniform", [5, 5, 5], seed=2**60)
    assert random_one.order[0].tolist() != ranked("Uniform", [5, 5, 5], seed=2**60 + 1).order[0].tolist()
    greedy = [ranked("GraphCut", [9, 9, 9], seed=one, greedy="StochasticGreedy").order[0].tolist() for one in (1, 1, 2)]
    assert greedy[0] == greedy[1] != greedy[2]


def test_full_takes_everything_or_says_that_it_cannot(checkout: Checkout) -> None:
    assert [len(one) for one in ranked("Full", list(SIZES)).order] == list(SIZES)
    with pytest.raises(PluginError, match="DeepCore's Full chose 24 samples of a class where 5 were asked for"):
        ranked("Full", [5, 5, 5])


def test_what_is_left_out_comes_in_with_weight_0(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [signals().members(label) for label in range(3)]

    def fewer(self: Any) -> dict[str, Any]:
        return {"indices": np.concatenate([one[[1, 4]] for one in members]), "weights": [1.0, 2.0] * 3}

    monkeypatch.setattr(checkout.modules.methods.GradMatch, "select", fewer)
    found = ranked("GradMatch", [5, 5, 5])
    for own, weights, one in zip(found.order, found.weights, members, strict=True):
        assert own[:2].tolist() == one[[1, 4]].tolist()
        assert weights.tolist() == [1.0, 2.0, 0.0, 0.0, 0.0]
        assert len(set(own.tolist())) == 5
    assert any("weight 0" in note for note in found.provenance["notes"])


def test_notes_say_which_deepcore_and_what_is_different(checkout: Checkout) -> None:
    notes = {name: " ".join(ranked(name, [3, 3, 3]).provenance["notes"]) for name in ("Herding", "Cal", "Forgetting")}
    assert all(checkout.version in one for one in notes.values())
    assert "ImageNet" in notes["Cal"]
    assert "ImageNet" not in notes["Herding"]
    assert "training of the proxy network" in notes["Forgetting"]


def test_grand_averages_over_the_networks_of_the_runs(checkout: Checkout) -> None:
    given = signals()
    assert given.network is not None
    others = [convnet3_small((1, 8, 8), 3) for _ in range(2)]
    for one in others:
        one.set_normalisation(given.network.mean, given.network.std)
    runs = []
    for one in others:
        features, logits = (torch.cat(parts) for parts in zip(*outputs(one, given.images, batch=256), strict=True))  # type: ignore[arg-type]
        runs.append(Signals.from_arrays(features, logits, given.labels, given.images, network=one))
    several = Signals.from_arrays(
        given.features, given.logits, given.labels, given.images, network=given.network, runs=runs, num_classes=3
    )
    counts = [8, 8, 8]
    theirs = rank(several, "deepcore:GraNd", counts=counts, repeat=3)
    own = rank(several, "grand", counts=counts, repeat=3)
    single = rank(several, "grand", counts=counts, repeat=1)
    assert [one.tolist() for one in theirs.order] == [one.tolist() for one in own.order]
    assert [one.tolist() for one in theirs.order] != [one.tolist() for one in single.order]


def test_repeats_of_grand_beyond_the_trainings_are_left_out(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    original = calling.Frozen
    monkeypatch.setattr(calling, "Frozen", lambda *args: built.append(1) or original(*args))
    found = ranked("GraNd", [3, 3, 3], repeat=10)
    assert len(built) == 1
    assert any("1 of the 10 trainings" in note for note in found.provenance["notes"])


def test_images_have_the_pixels_that_the_network_saw() -> None:
    given = signals()
    assert given.images is not None
    samples = calling.Samples(given.images, given.labels, np.array([3, 40]), given.network)
    pixels, label = samples[1]
    assert torch.allclose(pixels, (given.images[40].float() / 255 - 0.3) / 0.4, atol=1e-6)
    assert label == int(given.labels[40]) == samples.targets[1]
    assert len(samples) == 2
    assert samples.classes == ["0", "1", "2"]


def test_a_share_of_each_class_is_a_number_whatever_the_size() -> None:
    share = calling.EachClass.of(7, 100)
    assert [round(share * 100), round(50 * share), round(share * 3)] == [7, 7, 3]
    assert 0 < share <= 1
    assert float(calling.EachClass.of(200, 100)) == 1.0


def test_from_images_to_a_selection_with_chosen_counts(checkout: Checkout) -> None:
    short = recipe("quick").with_(epochs=1, proxy_epochs=1)
    data = load_dataset("digits").train.subset(np.arange(200))
    options = {"iterations": 2}
    chosen = select(data, "deepcore:Herding", budget=30, allocator="paper", allocator_options=options, recipe=short)
    assert len(chosen) == 30
    assert len(set(chosen.counts.tolist())) > 2
    assert chosen.provenance["method"] == "deepcore:Herding"
    assert any(checkout.version in note for note in chosen.provenance["notes"])
    weighted = select(data, "deepcore:GradMatch", budget=30, recipe=short)
    assert weighted.weights is not None
    assert len(weighted.weights) == 30


def test_command_line_takes_the_path(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = os.environ[HOME]
    monkeypatch.delenv(HOME)
    plugins.cache_clear()
    run = CliRunner()
    without = run.invoke(cli, ["list", "methods"])
    assert without.exit_code == 0
    assert "deepcore:" not in without.stdout
    monkeypatch.setenv(HOME, "is put back after the test")
    listed = run.invoke(cli, ["list", "methods", "--deepcore", path])
    assert listed.exit_code == 0
    assert "deepcore:Herding" in listed.stdout
    out = tmp_path / "s.npz"
    arguments = ["--method", "deepcore:Uniform", "--ratio", "0.05", "--deepcore", path, "--out", str(out)]
    chosen = run.invoke(cli, ["select", *arguments])
    assert chosen.exit_code == 0, chosen.output
    assert out.is_file()
    wrong = run.invoke(cli, ["bench", "--method", "deepcore:Herding", "--deepcore", str(tmp_path)])
    assert wrong.exit_code == 2
    assert "is no DeepCore checkout" in wrong.stderr
