"""Rank, allocate, refine: contracts of the loop over classes, and whole selections on small data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqas_plugin import Ranking, Selection, Signals, UserError, Weighted, rank, select, selector, steps
from dqas_plugin.contracts import allocator, refiner
from dqas_plugin.errors import PluginError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.pipeline import SelectionRequest, prepare, run_request
from dqas_plugin.plugins import plugins
from dqas_plugin.recipes import Recipe
from toys import toy

SHORT = Recipe("short", iterations=6, batch=16, precision="fp32", proxy_epochs=1)
BRIEF = {"repeats": 1, "directions": 0, "iterations": 1, "screen": 2, "confirm": 2}


def signals(seed: int = 0, n: int = 30, classes: int = 3) -> Signals:
    draws = np.random.default_rng(seed)
    labels = draws.permutation(np.arange(n) % classes)
    return Signals.from_arrays(draws.normal(size=(n, 4)), draws.normal(size=(n, classes)), labels)


@selector("far-first", title="Far first", family="geometry", needs={"features"})
def far_first(view: Any, budget: int, rng: np.random.Generator) -> Any:
    """The example of the documentation."""
    return view.features.norm(dim=1).argsort(descending=True)[:budget]


@pytest.fixture
def registered() -> Iterator[Any]:
    added: list[object] = []

    def add(**hooks: Any) -> None:
        body = {
            name: hookimpl(specname=name)(lambda self, register, entry=entry: register(entry)) for name, entry in hooks.items()
        }
        plugin = type("Stranger", (), body)()
        plugins().register(plugin, f"stranger-{len(added)}")
        added.append(plugin)

    yield add
    for one in added:
        plugins().unregister(one)


# rank


def test_a_function_is_a_method() -> None:
    given = signals()
    ranking = rank(given, far_first, counts=[5, 5, 5])
    assert given.features is not None
    norms = given.features.norm(dim=1).numpy()
    for label, order in enumerate(ranking.order):
        members = np.flatnonzero(given.labels.numpy() == label)
        assert order.tolist() == members[np.argsort(-norms[members])][:5].tolist()
    plain = rank(given, far_first.function, counts=[5, 5, 5])
    assert [one.tolist() for one in plain.order] == [one.tolist() for one in ranking.order]


def test_counts_may_be_zero_but_not_above_the_class() -> None:
    assert rank(signals(), "random", counts=[0, 10, 1]).capacity.tolist() == [0, 10, 1]
    with pytest.raises(UserError, match=r"class 1 has 10 samples to choose from, not 11"):
        rank(signals(), "random", counts=[0, 11, 1])
    with pytest.raises(UserError, match=r"class 2 has 10 samples to choose from, not -1"):
        rank(signals(), "random", counts=[0, 3, -1])


def test_candidates_bound_what_is_ranked() -> None:
    allowed = np.arange(0, 30, 3)
    ranking = rank(signals(), "graphcut", counts=np.bincount(signals().labels.numpy()[allowed]), candidates=allowed)
    assert sorted(np.concatenate(ranking.order).tolist()) == allowed.tolist()


def test_seeds_and_classes_have_their_own_random_numbers() -> None:
    first, again, other = (rank(signals(), "random", counts=[10] * 3, seed=seed) for seed in (1, 1, 2))
    assert [one.tolist() for one in first.order] == [one.tolist() for one in again.order]
    assert [one.tolist() for one in first.order] != [one.tolist() for one in other.order]
    places = [np.searchsorted(np.sort(one), one).tolist() for one in first.order]
    assert places[0] != places[1]


def test_weights_come_with_the_ranking() -> None:
    def weighing(view: Any, budget: int, rng: Any) -> Weighted:
        return Weighted(np.arange(budget), np.linspace(1, 2, budget))

    ranking = rank(signals(), weighing, counts=[3, 2, 1])
    assert ranking.taken_weights([2, 1, 1]).tolist() == [1.0, 1.5, 1.0, 1.0]  # type: ignore[union-attr]
    none_of_one = rank(signals(), weighing, counts=[3, 0, 1])
    assert none_of_one.taken_weights([1, 0, 1]).tolist() == [1.0, 1.0]  # type: ignore[union-attr]
    assert rank(signals(), weighing, counts=[0, 0, 0]).weights is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda n: np.arange(n - 1), "returned 4 positions but 5 were asked for"),
        (lambda n: np.zeros(n, int), "a position twice"),
        (lambda n: np.arange(n) + 8, "a position outside 0..9"),
        (lambda n: np.arange(n) - 1, "a position outside 0..9"),
        (lambda n: np.arange(n) / 2, "one row of whole numbers, not float64"),
        (lambda n: np.arange(n)[None], "one row of whole numbers"),
        (lambda n: Weighted(np.arange(n), [1.0]), "one weight of at least 0 for every position"),
        (lambda n: Weighted(np.arange(n), np.full(n, -1.0)), "one weight of at least 0"),
    ],
)
def test_a_broken_promise_names_the_method(answer: Any, words: str) -> None:
    broken = selector("broken")(lambda view, budget, rng: answer(budget))
    with pytest.raises(PluginError) as caught:
        rank(signals(), broken, counts=[5, 5, 5])
    assert "the method 'broken'" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: rank(s, "grafcut", counts=[1, 1, 1]), "unknown method 'grafcut': did you mean 'graphcut'?"),
        (lambda s: rank(s, "graphcut:eq8", counts=[1, 1, 1]), "unknown variant 'eq8' of the method 'graphcut'"),
        (lambda s: rank(s, "graphcut", counts=[1, 1, 1], objektive="eq7"), "did you mean 'objective'?"),
        (lambda s: rank(s, "random", counts=[1, 1, 1], bins=3), "the method 'random' takes no options, so not 'bins'"),
        (lambda s: rank(s, "random", counts=[1, 1]), "one number for each of the 3 classes, not 2"),
        (lambda s: rank(s, 7, counts=[1, 1, 1]), "a int cannot rank samples"),
    ],
)
def test_mistakes_are_answered(call: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        call(signals())
    assert words in str(caught.value)


def test_a_variant_is_its_options() -> None:
    short = rank(signals(), "graphcut:eq7", counts=[6] * 3)
    long = rank(signals(), "graphcut", counts=[6] * 3, objective="eq7")
    assert [one.tolist() for one in short.order] == [one.tolist() for one in long.order]


# select


def test_the_call_of_the_documentation(tmp_path: Path) -> None:
    data = toy()
    chosen = select(data, method="graphcut", ratio=0.25, seed=0, recipe=SHORT)
    assert len(chosen) == 12
    assert chosen.counts.tolist() == [4, 4, 4]
    assert chosen.weights is None
    chosen.check(data)
    assert Selection.load(chosen.save(tmp_path / "graphcut.npz"), data).indices.tolist() == chosen.indices.tolist()
    meta = chosen.provenance
    assert (meta["method"], meta["allocator"], meta["budget"], meta["seed"]) == ("graphcut", "uniform", 12, 0)
    assert meta["fingerprint"] == data.fingerprint
    assert meta["recipe"]["name"] == "short"
    assert set(meta["seconds"]) == {"features", "selection", "allocation"}


def test_random_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqas_plugin.trained_signals.train", None)
    assert len(select(toy(), "random", budget=6, recipe=SHORT)) == 6


def test_the_same_seed_gives_the_same_selection() -> None:
    first, again, other = (select(toy(), "random", budget=9, seed=seed).indices.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_a_ranking_or_indices_can_be_cut() -> None:
    data = toy()
    labels = data.labels.numpy()
    order = np.argsort(labels, kind="stable")[::-1].copy()
    chosen = select(data, order, budget=6)
    assert chosen.counts.tolist() == [2, 2, 2]
    assert chosen.indices.tolist() == [one for label in range(3) for one in order[labels[order] == label][:2]]
    ranking = Ranking(tuple(order[labels[order] == label] for label in range(3)), "mine")
    assert select(data, ranking, budget=6).indices.tolist() == chosen.indices.tolist()


def test_a_ranking_of_other_data_is_refused() -> None:
    with pytest.raises(UserError, match="holds other samples than toy has"):
        select(toy(), Ranking((np.array([0, 1, 2, 3, 4]), np.array([5]), np.array([6])), "mine"), budget=3)
    with pytest.raises(UserError, match="has 1 classes but toy has 3"):
        select(toy(), Ranking((np.array([0]),), "mine"), budget=3)
    with pytest.raises(UserError, match=r"must lie in 0\.\.47"):
        select(toy(), np.array([48]), budget=3)
    with pytest.raises(UserError, match="different whole numbers"):
        select(toy(), np.array([1, 1]), budget=3)
    with pytest.raises(UserError, match="takes no options, so not 'objective'"):
        select(toy(), np.array([1, 2]), budget=3, objective="eq7")


@pytest.mark.parametrize(
    ("nested", "weights", "words"), [(False, False, "holds as a"), (True, True, "has weights that hold as a")]
)
def test_a_ranking_that_belongs_together_is_not_cut(nested: bool, weights: bool, words: str) -> None:
    data = toy()
    order = tuple(np.flatnonzero(data.labels.numpy() == label)[:4] for label in range(3))
    weighed = tuple(np.arange(1.0, 5.0) + label for label in range(3)) if weights else None
    ranking = Ranking(order, "mine", nested, weighed)
    whole = select(data, ranking, budget=12, adaptive=True, refiner="none")
    assert sorted(whole.indices.tolist()) == sorted(np.concatenate(order).tolist())
    assert (whole.weights is None) != weights
    for budget in (9, 13):
        with pytest.raises(UserError, match=f"'mine' {words} whole, 12 samples, and {budget} are to be taken of it"):
            select(data, ranking, budget=budget)
    request = SelectionRequest(data, ranking, 12)
    request.restrict(np.arange(48))
    with pytest.raises(UserError, match="cannot be restricted"):
        run_request(request)


@pytest.mark.parametrize("budget", [3, 43])
def test_adaptive_measures_nothing_where_there_is_nothing_to_choose(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of each class, or all: also where a class has no second image to measure by."""

    def none(*_: object, **__: object) -> None:
        raise AssertionError("something is trained")

    monkeypatch.setattr("dqas_plugin.steps.compute_signals", none)
    chosen = select(toy((24, 18, 1)), "random", budget=budget, adaptive=True, refiner="none", recipe=SHORT)
    assert chosen.counts.tolist() == ([1, 1, 1] if budget == 3 else [24, 18, 1])


def test_a_class_is_ranked_no_deeper_than_the_budget_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where time and memory grow with the depth; an allocator that asks for more than the budget gets it all the same."""
    asked = []
    real = steps.rank

    def spied(signals: Any, selector: Any, **how: Any) -> Ranking:
        asked.append(how["counts"].tolist())
        return real(signals, selector, **how)

    monkeypatch.setattr(steps, "rank", spied)
    data = toy((40, 30, 20))
    select(data, "gradmatch", budget=12, adaptive=True, refiner="none", recipe=SHORT, allocator_options=BRIEF)
    assert asked[0] == [10 + 8, 10 + 6, 10 + 4]
    asker = steps.Steps(SelectionRequest(data, "gradmatch", 12, allocator="adaptive", recipe=SHORT))
    pick = asker._picker(asker.rank())
    held_out = np.zeros(90, dtype=bool)
    held_out[:8] = True
    for counts in ([10, 1, 1], [30, 1, 1]):
        found = pick(np.array(counts), held_out)
        assert np.bincount(data.labels.numpy()[found], minlength=3).tolist() == counts
        assert not held_out[found].any()


@pytest.mark.parametrize("proxy", ["probe", "train"])
@pytest.mark.parametrize("method", ["random", "graphcut"])
def test_adaptive_spends_the_budget_exactly(method: str, proxy: str) -> None:
    chosen = select(toy(), method, budget=17, adaptive=True, proxy=proxy, recipe=SHORT, allocator_options=BRIEF, seed=3)
    assert len(chosen) == 17
    assert (chosen.counts >= 1).all()
    assert chosen.provenance["allocation"]["evaluations"] > 0
    assert chosen.provenance["proxy"] == proxy


def test_adaptive_never_sees_the_test_labels_nor_changes_with_the_cache() -> None:
    first = select(toy(), "graphcut", budget=18, adaptive=True, recipe=SHORT)
    assert first.provenance["refiner"] == "error-reduction"
    assert select(toy(), "graphcut", budget=18, adaptive=True, refiner="none", recipe=SHORT).provenance["refiner"] is None
    again = select(toy(), "graphcut", budget=18, adaptive=True, recipe=SHORT)
    assert first.indices.tolist() == again.indices.tolist()


def test_prepare_leaves_nothing_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    request = SelectionRequest(toy(), "graphcut", 12, allocator="adaptive", recipe=SHORT)
    prepare(request)
    monkeypatch.setattr("dqas_plugin.trained_signals.train", None)
    assert len(run_request(request)) == 12


def test_a_method_that_is_not_nested_is_asked_for_the_very_counts(registered: Any) -> None:
    asked: list[int] = []

    @selector("whole", nested=False)
    def whole(view: Any, budget: int, rng: Any) -> Any:
        asked.append(budget)
        return np.arange(len(view))[::-1][:budget].copy() if budget % 2 else np.arange(budget)

    @allocator("fixed", trains=False)
    def fixed(problem: Any) -> Any:
        return problem.allocation(np.array([5, 4, 3]), "fixed")

    registered(dqas_register_selectors=whole, dqas_register_allocators=fixed)
    chosen = select(toy(), "whole", budget=12, allocator="fixed")
    assert chosen.counts.tolist() == [5, 4, 3]
    assert asked[-3:] == [5, 4, 3]
    members = [np.flatnonzero(toy().labels.numpy() == label) for label in range(3)]
    assert chosen.indices.tolist() == [*members[0][::-1][:5], *members[1][:4], *members[2][::-1][:3]]


def test_a_refiner_spends_its_share(registered: Any) -> None:
    data = toy()
    chosen = select(data, "random", budget=20, refiner="random", refine_share=0.25)
    assert len(chosen) == 20
    even = select(data, "random", budget=15)
    assert chosen.indices[:15].tolist() == even.indices.tolist()
    assert chosen.provenance["refine_share"] == 0.25


def test_a_refiner_keeps_to_the_candidates() -> None:
    data = toy()
    request = SelectionRequest(data, "random", 20, refiner="random", refine_share=0.3)
    request.restrict(np.arange(0, 48, 2))
    request.restrict(np.arange(0, 46))
    chosen = run_request(request)
    assert (chosen.indices % 2 == 0).all()
    assert chosen.indices.max() <= 44


def test_what_a_refiner_leaves_is_drawn_from_every_class_alike(registered: Any) -> None:
    data = toy()
    registered(dqas_register_refiners=refiner("modest")(lambda signals, selected, budget, rng: np.setdiff1d([0, 1], selected)))
    chosen = select(data, np.arange(47, 1, -1), budget=16, refiner="modest", refine_share=0.5)
    assert set(chosen.indices[8:10].tolist()) == {0, 1}
    drawn = np.bincount(data.labels.numpy()[chosen.indices[10:]], minlength=3)
    assert drawn.tolist() == [2, 2, 2]
    assert "the other 6 of its share were drawn at random" in chosen.provenance["notes"][0]


def test_a_refiner_reads_a_network_that_has_not_seen_most_images(registered: Any) -> None:
    seen = []

    def look(signals: Any, selected: Any, budget: int, rng: Any) -> Any:
        seen.append(signals)
        return np.setdiff1d(np.arange(48), selected)[:budget]

    registered(dqas_register_refiners=refiner("looks", needs={"features", "logits"})(look))
    select(toy(), "random", budget=12, refiner="looks", refine_share=0.25, recipe=SHORT)
    assert seen[0].features.shape[0] == seen[0].logits.shape[0] == len(toy())
    assert seen[0].margins is None  # that of all images has them


@pytest.mark.parametrize("added", [[0, 1, 2, 3], [0, 0, 1], [-1, 0, 1], [0, 1, 99], [0.5, 1, 2]])
def test_a_refiners_broken_promise_names_it(registered: Any, added: list[Any]) -> None:
    registered(dqas_register_refiners=refiner("broken")(lambda signals, selected, budget, rng: np.array(added)))
    with pytest.raises(PluginError, match="the refiner 'broken' must return at most 3 different samples"):
        select(toy(), "random", budget=12, refiner="broken", refine_share=0.25)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": 6, "allocator": "adaptiv"}, "did you mean 'adaptive'?"),
        ({"budget": 6, "model": "resnet81"}, "unknown model 'resnet81': did you mean"),
        ({"budget": 6, "recipe": "papr"}, "did you mean 'paper'?"),
        ({"budget": 6, "refiner": "rando"}, "did you mean 'random'?"),
        ({"budget": 6, "adaptive": True, "goal": "meen"}, "did you mean 'mean'?"),
        ({"budget": 6, "proxy": "prob"}, "unknown proxy 'prob'"),
        ({"budget": 6, "device": "cuda:99", "method": "graphcut"}, "device 'cuda:99' is not available"),
        ({"budget": 6, "allocator_options": {"stepps": 3}, "adaptive": True}, "unknown option of the allocator 'adaptive'"),
        ({"budget": 2}, "less than one for each of the 3 classes"),
        ({"budget": 4, "refiner": "random", "refine_share": 0.5}, "less than one for each of the 3 classes"),
        ({"budget": 6, "refiner": "random", "refine_share": 1.0}, "choose a number above 0 and below 1"),
        ({"budget": 6, "refiner_options": {"rounds": 1}}, "'rounds' belongs to a refiner: name one"),
        ({"budget": 6, "refiner": "error-reduction", "refiner_options": {"round": 1}}, "did you mean 'rounds'"),
        ({"budget": 6, "refiner": "error-reduction", "refiner_options": {"scorer": "kap3nd"}}, "did you mean 'kap2nd'"),
        ({"budget": 6, "refiner": "random", "refiner_options": {"rounds": 1}}, "takes no options"),
        ({"budget": 6, "method": "timm"}, "unknown method 'timm'"),
    ],
)
def test_mistakes_in_select(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        select(toy(), **{"method": "random", "recipe": SHORT, **options})
    assert words in str(caught.value)


def test_more_than_the_candidates_is_refused() -> None:
    request = SelectionRequest(toy(), "random", 20)
    request.restrict(np.arange(10))
    with pytest.raises(UserError, match="a budget of 20 images is more than the 10 to choose from"):
        run_request(request)
    with pytest.raises(UserError, match=r"indices in 0\.\.47"):
        request.restrict([48])
    with pytest.raises(UserError, match="whole numbers, or one yes or no for each of the 48"):
        request.restrict([0.5])


def test_candidates_as_a_mask() -> None:
    """As booleans they are no indices 0 and 1."""
    request, allowed = SelectionRequest(toy(), "random", 6), np.arange(48) % 3 == 1
    request.restrict(allowed)
    request.restrict(np.arange(40))
    assert request.candidates is not None
    assert request.candidates.tolist() == list(range(1, 40, 3))
    assert toy().subset(allowed).labels.tolist() == toy().labels[1::3].tolist()
