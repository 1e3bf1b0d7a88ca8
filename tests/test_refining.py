"""What a refiner of a selection may do: its options, the networks that it trains itself, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dqas_plugin import select
from dqas_plugin.contracts import refiner
from dqas_plugin.errors import UserError
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.lookup import resolve_model
from dqas_plugin.pipeline import SelectionRequest, run_request
from dqas_plugin.recipes import Prior, Recipe
from dqas_plugin.refinement import retrained_changes, retrained_error_change
from dqas_plugin.signals import Signals
from dqas_plugin.told import YEAR
from dqas_plugin.trainer import Trainer
from registering import plugin
from toys import toy

SHORT = Recipe("short", iterations=6, batch=16, precision="fp32", proxy_epochs=1)


def test_options_of_a_refiner_reach_it_and_are_written_down() -> None:
    seen = []

    @refiner("from")
    def draw(signals: Any, selected: Any, budget: int, rng: Any, *, first: int = 0, turn: bool | None = True) -> Any:
        seen.append((first, turn))
        return np.setdiff1d(np.arange(first, 48), selected)[:budget]

    class Stranger:
        @hookimpl
        def dqas_register_refiners(self, register: Any) -> None:
            register(draw)

    options = {"first": 30, "turn": None}
    how: dict[str, Any] = {"budget": 12, "refiner": "from", "refine_share": 0.25}
    with plugin(Stranger(), "stranger"):
        chosen = select(toy(), np.arange(12), **how, refiner_options=options)
        with pytest.raises(UserError, match="unknown option of the refiner 'from' 'frist': did you mean 'first'"):
            select(toy(), "random", **how, refiner_options={"frist": 1})
    assert seen == [(30, None)]
    assert chosen.indices[9:].tolist() == [30, 31, 32]
    assert chosen.provenance["refiner_options"] == options


def test_the_papers_one_shot_choice_is_a_matter_of_options() -> None:
    how: dict[str, Any] = {"budget": 12, "refiner": "error-reduction", "refine_share": 0.5, "recipe": SHORT}
    usual = select(toy(), "random", **how)
    once = select(toy(), "random", **how, refiner_options={"rounds": 1, "diversity": None, "scorer": "gradient"})
    assert once.indices[:6].tolist() == usual.indices[:6].tolist()
    assert once.indices[6:].tolist() != usual.indices[6:].tolist()


@pytest.mark.parametrize("prior", ["balanced", "empirical"])
def test_the_prior_is_that_of_the_recipe(prior: Prior) -> None:
    data = toy((30, 12, 6))
    how: dict[str, Any] = {"budget": 16, "allocator": "proportional", "refiner": "error-reduction", "refine_share": 0.5}
    recipe = replace(SHORT, prior=prior)
    found = {
        given: select(
            data, "random", **how, recipe=recipe, refiner_options={} if given is None else {"prior": given}
        ).indices.tolist()
        for given in (None, "balanced", "empirical")
    }
    assert found[None] == found[prior]
    assert found["balanced"] != found["empirical"]


def test_a_refiner_gets_the_signals_that_it_needs() -> None:
    seen: list[Signals] = []

    @refiner("looks", needs={"features", "network", "perturbations"})
    def looks(signals: Signals, selected: Any, budget: int, rng: Any) -> Any:
        seen.append(signals)
        return np.setdiff1d(np.arange(len(signals)), selected)[:budget]

    class Stranger:
        @hookimpl
        def dqas_register_refiners(self, register: Any) -> None:
            register(looks)

    with plugin(Stranger(), "stranger"):
        select(toy(), "random", budget=12, refiner="looks", refine_share=0.25, recipe=SHORT)
    [signals] = seen
    assert signals.network is not None
    assert signals.perturbations is not None


@pytest.mark.parametrize("needs", ["featurs", "dynamics", "runs"])
def test_a_refiner_needs_no_signals_that_there_are_not(needs: str) -> None:
    with pytest.raises(ValueError, match=f"refiner 'typo' needs unknown signals \\['{needs}'\\]"):
        refiner("typo", needs={needs})


def small_pool() -> dict[str, Any]:
    options = {"scorer": "retrain", "stop": False}
    return {"budget": 9, "refiner": "error-reduction", "refine_share": 0.3, "recipe": SHORT, "refiner_options": options}


def test_a_network_trained_with_every_candidate() -> None:
    data, said = toy((8, 6, 4)), []
    chosen = select(data, np.arange(18), report=said.append, **small_pool())
    first = chosen.indices[:6]
    (told,) = (one for one in said if one.startswith("refining"))
    assert told.startswith("refining, with 13 trainings of a network, about ")
    trainer = Trainer(data, resolve_model("convnet3-small"), SHORT, 0)
    changes = retrained_changes(trainer)(first)
    best = int(np.nanargmin(changes))
    assert best == chosen.indices[6]


def test_candidates_are_all_that_is_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    data, pools = toy((20, 16, 12)), []
    real = retrained_error_change

    def watched(data: Any, build: Any, recipe: Any, selected: Any, candidates: Any, seed: int, **more: Any) -> Any:
        pools.append((len(data), len(candidates)))
        return real(data, build, recipe, selected, candidates, seed, **more)

    monkeypatch.setattr("dqas_plugin.refinement.retrained.retrained_error_change", watched)
    request = SelectionRequest(data, "random", 9, refiner="error-reduction", refine_share=0.3, recipe=SHORT)
    request.refiner_options = {"scorer": "retrain"}
    request.restrict(np.arange(20))
    chosen = run_request(request)
    assert chosen.indices.max() < 20
    assert pools == [(20, 14)]


def test_more_trainings_than_allowed_are_refused_with_the_years_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise AssertionError("something is trained")

    monkeypatch.setattr("dqas_plugin.steps.compute_signals", none)
    monkeypatch.setattr("dqas_plugin.refining.training_seconds", lambda trainer, selected: 10 * YEAR / 100)
    how = small_pool() | {"refiner_options": {"scorer": "retrain", "trainings": 42}}
    message = r"would train 43 networks with these options, about 4\.3 years on one .* trainings=43$"
    with pytest.raises(UserError, match=message):
        select(toy(), "random", **how)
    monkeypatch.setattr("dqas_plugin.refining.training_seconds", lambda trainer, selected: 3600.0)
    with pytest.raises(UserError, match=r"about 43\.0 h \(0\.0049 years\) on one"):
        select(toy(), "random", **how)
    how["refiner_options"]["trainings"] = 43
    with pytest.raises(AssertionError):
        select(toy(), "graphcut", **how)


def test_a_selection_of_other_forms_of_the_images_is_one_of_the_dataset() -> None:
    data = toy()
    darker = replace(data, images=data.images // 2, name="darker", digest=None)
    request = SelectionRequest(darker, "graphcut", 9, recipe=SHORT, made_for=data)
    chosen = run_request(request)
    assert (chosen.provenance["dataset"], chosen.provenance["fingerprint"]) == ("toy", data.fingerprint)
    assert run_request(replace(request, made_for=None)).provenance["fingerprint"] == darker.fingerprint != data.fingerprint
