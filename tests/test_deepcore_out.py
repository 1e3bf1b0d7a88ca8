"""DeepCore's methods asked for our class counts: on the stand-in always, and on the real one if ``DEEPCORE_HOME`` names it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcore_runs import CLASSES, HOMES, SIZE, STANDIN, Pictures, command_line
from dqas_adapters.deepcore import benchmark, checkpoints
from dqas_adapters.deepcore.asking import STEP, Asked
from dqas_adapters.deepcore.checkout import Checkout
from dqas_adapters.deepcore.mending import mended_methods
from dqas_adapters.deepcore.networks import networks_of
from dqas_adapters.deepcore.wrapper import Settings, adaptive, offered, offers
from dqas_plugin import Ranking
from dqas_plugin.contracts import Weighted
from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.ranking import rank
from dqas_plugin.seeding import generator
from dqas_plugin.signals import Signals

SETS = {
    "Craig": {},
    "Glister": {},
    "GradMatch": {},
    "Herding": {"specific_model": "MLP"},
    "Submodular": {"function": "FacilityLocation"},
    "Uniform": {},
}
SCORES = {
    "Uncertainty": {"selection_method": "Entropy"},
    "Forgetting": {},
    "GraNd": {"repeat": 2},
    "DeepFool": {"max_iter": 3},
}


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest) -> Path:
    """The folder with main.py."""
    found: Path = request.param
    return found


@pytest.fixture
def modules(home: Path) -> Iterator[Any]:
    """Its imported methods and networks, mended, and able to be imported without what is not installed."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(benchmark._stand_ins())
        found = Checkout.at(home).modules
        stack.enter_context(mended_methods(found))
        yield found


def asked(modules: Any, name: str, fraction: float, dataset: Any = None, **options: Any) -> Asked:
    dataset = Pictures() if dataset is None else dataset
    kind = getattr(modules.methods, name)
    arguments = {"epochs": 1, "balance": True, **options}
    labels = dataset.targets.numpy()
    return Asked(name, kind, dataset, labels, command_line(), fraction, 5, arguments, lambda words: None)


def plain(modules: Any, name: str, fraction: float, **options: Any) -> dict[str, Any]:
    """What a fresh object of the class answers, called as the benchmark calls it."""
    kind = getattr(modules.methods, name)
    answer: dict[str, Any] = kind(Pictures(), command_line(), fraction, 5, epochs=1, balance=True, **options).select()
    return answer


def signals(dataset: Any) -> Signals:
    return Signals(dataset.targets, CLASSES)


@pytest.mark.parametrize("name", SCORES)
def test_a_method_with_scores_is_asked_once_and_orders_all(modules: Any, name: str) -> None:
    found = asked(modules, name, 0.25, **SCORES[name]).ranked()
    assert isinstance(found, Ranking)
    assert found.capacity.tolist() == [SIZE] * CLASSES
    for fraction in (0.25, 0.5, 0.75):
        expected = plain(modules, name, fraction, **SCORES[name])["indices"]
        assert found.take([round(fraction * SIZE)] * CLASSES).tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("name", SETS)
def test_a_method_with_sets_answers_as_a_fresh_one(modules: Any, name: str) -> None:
    """Other counts come from the same object, without another training, and as if it had been made for them."""
    object_ = asked(modules, name, 0.25, **SETS[name])
    if hasattr(object_.method, "train"):
        trained, train = [], object_.method.train
        object_.method.train = lambda *args, **more: (trained.append(args), train(*args, **more))[1]
    method = object_.ranked()
    assert not isinstance(method, Ranking)
    for fraction in (0.25, 0.5):
        count = round(fraction * SIZE)
        found = rank(signals(Pictures()), method, counts=[count] * CLASSES)
        expected = plain(modules, name, fraction, **SETS[name])
        indices = np.concatenate([one[: len(one)] for one in found.order])
        weights = None if found.weights is None else np.concatenate(found.weights)
        if weights is not None:
            assert weights[weights > 0] == pytest.approx(np.asarray(expected["weights"], dtype=np.float64))
            indices = indices[weights > 0]
        assert ("weights" in expected) == (weights is not None)
        assert indices.tolist() == np.asarray(expected["indices"]).tolist()
    if hasattr(object_.method, "train"):
        assert len(trained) == 1


@pytest.mark.parametrize("name", [name for name in SETS if name != "Uniform"])
def test_uneven_counts_are_the_choices_of_single_counts(modules: Any, name: str) -> None:
    method = asked(modules, name, 0.25, **SETS[name]).ranked()
    found = rank(signals(Pictures()), method, counts=[3, 6, 12])
    labels = Pictures().targets.numpy()
    for label, fraction in enumerate((3 / SIZE, 6 / SIZE, 12 / SIZE)):
        expected = np.asarray(plain(modules, name, fraction, **SETS[name])["indices"])
        mine = found.order[label] if found.weights is None else found.order[label][found.weights[label] > 0]
        assert mine.tolist() == expected[labels[expected] == label].tolist()


def test_a_class_that_was_not_asked_about_is_hardly_looked_at(modules: Any) -> None:
    seen: list[int] = []

    class Watched(Pictures):
        def __getitem__(self, place: int) -> tuple[Tensor, int]:
            seen.append(place)
            return super().__getitem__(place)

    dataset = Watched()
    method = asked(modules, "Craig", 0.25, dataset).ranked()
    labels, order = dataset.targets.numpy(), list(rank(signals(dataset), method, counts=[6] * CLASSES).order)
    seen.clear()
    order = list(rank(signals(dataset), method, counts=[6, 6, 9]).order)
    assert [len(one) for one in order] == [6, 6, 9]
    assert np.bincount(labels[seen]).tolist() == [2, 2, SIZE]


def test_what_a_method_reads_of_the_images_is_read_once() -> None:
    """Herding and the centres, whose network is often a ResNet-18 at 224 pixels."""
    read: list[tuple[int, ...]] = []

    class Centres:
        def __init__(self, dst_train: Any, *_: Any, **__: Any) -> None:
            self.dst_train, self.fraction = dst_train, 0.25

        def construct_matrix(self, index: Any = None) -> Tensor:
            read.append(tuple(index))
            return torch.tensor(index)

        def finish_run(self) -> Any:
            groups = [np.flatnonzero(self.dst_train.targets == label) for label in range(CLASSES)]
            rows = [self.construct_matrix(one)[: round(self.fraction * len(one))] for one in groups if len(one)]
            return {"indices": np.concatenate(rows)}

        run = finish_run

        def select(self) -> Any:
            return self.run()

    method = asked(SimpleNamespace(methods=SimpleNamespace(Centres=Centres)), "Centres", 0.25).ranked()
    for counts in ([6] * CLASSES, [9] * CLASSES, [9, 9, 12]):
        found = rank(signals(Pictures()), method, counts=counts)
        assert [len(one) for one in found.order] == counts
    assert len(read) == len(set(read)) == CLASSES


@pytest.mark.parametrize("name", ["Craig", "GradMatch", "Submodular"])
def test_what_is_held_out_is_not_chosen_and_costs_few_calls(modules: Any, name: str) -> None:
    """An allocator holds other samples out each time; the calls are those of a ladder."""
    object_ = asked(modules, name, 0.25, **SETS[name])
    method = object_.ranked()
    calls, select = [], object_.method.select
    object_.method.select = lambda: (calls.append(1), select())[1]
    labels = object_.labels
    for turn in range(8):
        draws = np.random.default_rng(turn)
        held = np.concatenate([draws.choice(np.flatnonzero(labels == label), 4, replace=False) for label in range(CLASSES)])
        counts = draws.integers(1, SIZE - 4, CLASSES)
        found = rank(signals(Pictures()), method, counts=counts, candidates=np.setdiff1d(np.arange(len(labels)), held))
        for label, (one, count) in enumerate(zip(found.order, counts, strict=True)):
            assert len(np.unique(one)) == count
            assert not np.isin(one, held).any()
            assert (labels[one] == label).all()
    assert len(calls) <= 1 + np.log(SIZE) / np.log(STEP)


def test_held_out_samples_are_replaced_from_its_next_larger_choice(modules: Any) -> None:
    object_ = asked(modules, "Submodular", 0.25, function="GraphCut")
    method = object_.ranked()
    small, large = (np.asarray(plain(modules, "Submodular", count / SIZE, function="GraphCut")["indices"]) for count in (6, 9))
    labels = object_.labels
    held = small[labels[small] == 0][:1]
    open_ = np.setdiff1d(np.arange(len(labels)), held)
    found = rank(signals(Pictures()), method, counts=[6, 6, 6], candidates=open_)
    mine = set(found.order[0].tolist())
    assert set(small[labels[small] == 0].tolist()) - set(held.tolist()) <= mine
    assert mine <= set(large[labels[large] == 0].tolist()) | set(small[labels[small] == 0].tolist())
    assert found.order[1].tolist() == small[labels[small] == 1].tolist()


def test_a_fraction_that_leaves_a_class_empty_asks_for_one_of_each(modules: Any) -> None:
    dataset = Pictures()
    keep = np.setdiff1d(np.arange(len(dataset)), np.flatnonzero(dataset.targets == 1)[3:])
    dataset.data, dataset.targets = dataset.data[keep], dataset.targets[keep]
    method = asked(modules, "Submodular", 0.1, dataset, function="GraphCut").ranked()  # round(0.1 * 3) is 0, which it refuses
    assert [len(one) for one in rank(signals(dataset), method, counts=[2, 3, 2]).order] == [2, 3, 2]


def test_the_approximate_greedy_ends_where_gains_are_below_0(modules: Any) -> None:
    kind = modules.methods.methods_utils.submodular_optimizer.ApproximateLazyGreedy
    asked_for: list[int] = []

    def gains(places: Any, taken: Any) -> Any:
        asked_for.append(1)
        assert len(asked_for) < 200, "it does not end"
        return np.where(np.arange(8) < 3, 1.0, -np.arange(8))[places]

    found = kind(SimpleNamespace(print_freq=100), np.arange(10, 18), 6).select(gains)
    assert found.tolist() == [10, 11, 12, 13, 14, 15]


class Answers:
    """A method with a ready answer."""

    answer: Any = None

    def __init__(self, *_: Any, **__: Any) -> None:
        self.dst_train = SimpleNamespace(targets=None)

    def select(self) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "did not answer with different 'indices'"),
        ({"indices": np.array([1, 1])}, "did not answer with different 'indices'"),
        ({"indices": np.array([0.5])}, "did not answer with different 'indices'"),
        ({"indices": np.array([0, 10**6])}, "chose samples outside 0..71"),
        ({"indices": np.arange(4), "weights": np.ones(3)}, "gave 3 weights for 4 samples"),
        ({"indices": np.arange(CLASSES * SIZE)}, "takes all samples, so there are no class counts to choose"),
    ],
)
def test_answers_that_are_none(answer: Any, message: str) -> None:
    kind = type("Odd", (Answers,), {"answer": answer})
    with pytest.raises((PluginError, UserError), match=message):
        asked(SimpleNamespace(methods=SimpleNamespace(Odd=kind)), "Odd", 0.25).ranked()


def test_scores_that_do_not_explain_the_choice_are_no_order() -> None:
    dataset = Pictures()
    labels = dataset.targets.numpy()
    scores = np.random.default_rng(3).random(len(labels)).astype(np.float32)
    best = [np.flatnonzero(labels == label)[np.argsort(scores[labels == label])[::-1][:6]] for label in range(CLASSES)]
    odd = [one[::-1].copy() if label == 1 else one for label, one in enumerate(best)]

    def found(indices: Any) -> Any:
        kind = type("Scored", (Answers,), {"answer": {"indices": np.concatenate(indices), "scores": torch.from_numpy(scores)}})
        return asked(SimpleNamespace(methods=SimpleNamespace(Scored=kind)), "Scored", 0.25).ranked()

    assert isinstance(found(best), Ranking)
    assert found(best).take([6] * CLASSES).tolist() == np.concatenate(best).tolist()
    assert not isinstance(found(odd), Ranking)


def test_a_method_that_gives_another_number_is_named() -> None:
    kind = type("Short", (Answers,), {"answer": {"indices": np.arange(5)}})
    method = asked(SimpleNamespace(methods=SimpleNamespace(Short=kind)), "Short", 0.25).ranked()
    with pytest.raises(PluginError, match=r"Short chose \d samples of class \d where 7 were asked for"):
        rank(signals(Pictures()), method, counts=[7] * CLASSES)


def test_samples_left_out_come_in_with_weight_0(modules: Any) -> None:
    object_ = asked(modules, "GradMatch", 0.5)
    method = object_.ranked()
    part = object_._parts[0, min(count for label, count in object_._parts if label == 0)]
    object_._parts[0, 20] = part
    view = signals(Pictures()).views()[0]
    view.counts = np.full(CLASSES, 20)
    answer = method(view, 20, generator(0, "test"))
    assert isinstance(answer, Weighted)
    assert len(np.unique(answer.positions)) == 20
    assert view.indices[answer.positions][: len(part.indices)].tolist() == part.indices.tolist()
    assert answer.weights[len(part.indices) :].tolist() == [0.0] * (20 - len(part.indices))


def test_names_of_the_adaptive_methods(home: Path) -> None:
    found = offers(Checkout.at(home))
    assert {"AdaptiveHerding", "AdaptiveGradMatch", "AdaptiveGraphCut", "AdaptiveFacilityLocation", "AdaptiveMargin"} <= set(
        found
    )
    assert (found["AdaptiveGraphCut"].kind, dict(found["AdaptiveGraphCut"].preset)) == ("Submodular", {"function": "GraphCut"})
    assert dict(found["AdaptiveEntropy"].preset) == {"selection_method": "Entropy"}
    assert dict(found["AdaptiveSubmodular"].preset) == {}
    assert not any("EarlyTrain" in name or "CoresetMethod" in name for name in found)


def test_unknown_adaptive_methods_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown adaptive method 'AdaptiveHarding': did you mean 'AdaptiveHerding'"):
        offered(Checkout.at(STANDIN), "AdaptiveHarding")


def settings(modules: Any, called: Callable[[str], str], said: list[str], allocator: str = "uniform") -> Settings:
    return Settings(allocator, "mean", "probe", said.append, called, "of the test")


@pytest.mark.parametrize("name", ["Craig", "GradMatch", "Uncertainty", "Submodular"])
def test_at_even_counts_the_choice_is_its_own(modules: Any, name: str) -> None:
    said: list[str] = []
    offer = offers(Checkout.at(Path(modules.methods.__file__).parents[2]))[f"Adaptive{name}"]
    with networks_of(modules.nets) as called:
        kind = adaptive(offer, getattr(modules.methods, name), settings(modules, called, said))
        answer = kind(Pictures(), command_line(), 0.25, 5, epochs=1, balance=False).select()
    expected = plain(modules, name, 0.25)
    assert answer["indices"].tolist() == np.asarray(expected["indices"]).tolist()
    assert ("weights" in answer) == ("weights" in expected)
    if "weights" in expected:
        assert answer["weights"] == pytest.approx(np.asarray(expected["weights"]), rel=1e-6)
    assert said[0] == f"--balance False does not hold for Adaptive{name}: it chooses class by class"
    assert f"Adaptive{name}: 18 images, class counts 6 6 6, by 'uniform'" in said[-1 - said[-1].startswith("GradMatch gave")]
    record = json.loads(answer[checkpoints.RECORD])
    assert record["method"] == f"deepcore:{name}"
    assert record["labels"] == hashlib.blake2b(Pictures().targets.numpy().astype("<i8").tobytes(), digest_size=16).hexdigest()


def test_the_name_of_a_function_is_that_function(modules: Any) -> None:
    said: list[str] = []
    offer = offers(Checkout.at(Path(modules.methods.__file__).parents[2]))["AdaptiveFacilityLocation"]
    with networks_of(modules.nets) as called:
        kind = adaptive(offer, modules.methods.Submodular, settings(modules, called, said))
        answer = kind(Pictures(), command_line(), 0.25, 5, epochs=1, function="GraphCut", greedy="NaiveGreedy").select()
    expected = plain(modules, "Submodular", 0.25, function="FacilityLocation", greedy="NaiveGreedy")
    assert answer["indices"].tolist() == expected["indices"].tolist()
    assert kind.__name__ == "AdaptiveFacilityLocation"


def test_a_budget_below_one_a_class_is_refused_before_anything_runs(modules: Any) -> None:
    offer = offers(Checkout.at(Path(modules.methods.__file__).parents[2]))["AdaptiveCraig"]
    kind = adaptive(offer, lambda *_, **__: pytest.fail("it was made"), settings(modules, str, []))
    with pytest.raises(UserError, match=r"ratio 0\.02 comes to 1 images, less than one for each of the 3 classes"):
        kind(Pictures(), command_line(), 0.02, 5).select()
