"""The steps of one selection: what each needs, how long it takes, and what is written down about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from dqas_plugin.allocation import Allocation, Evaluate, allocate
from dqas_plugin.contracts import Selector
from dqas_plugin.data import BoolArray, IntArray
from dqas_plugin.defaults import PROXIES
from dqas_plugin.doubts import blind_method, blind_probe
from dqas_plugin.errors import PluginError, UserError, unknown_name
from dqas_plugin.lookup import RankingFile, resolve_method, resolve_model
from dqas_plugin.plugins import announce_epoch, check_options, plugins
from dqas_plugin.proxy import LARGE, ON_DEVICE, HeldOut, even_draw, most_held_out, probe_evaluator, training_evaluator
from dqas_plugin.ranking import as_selector, check_memory, rank
from dqas_plugin.ready import check_whole, ranking_of, within
from dqas_plugin.refining import Refinement, drawn_evenly
from dqas_plugin.request import SelectionRequest
from dqas_plugin.scores import ClassScores
from dqas_plugin.seeding import generator
from dqas_plugin.selection import Ranking, Selection
from dqas_plugin.signals import Signals
from dqas_plugin.told import duration
from dqas_plugin.trained_signals import compute_signals
from dqas_plugin.trainer import Trainer
from dqas_plugin.versions import versions


class Steps:
    """One request being answered; every step is timed."""

    def __init__(self, request: SelectionRequest) -> None:
        self.request = request
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self._probe: tuple[Signals, BoolArray] | None = None
        self.labels: IntArray = request.data.labels.numpy()
        self.build = resolve_model(request.model)
        allocator = plugins().allocators[request.allocator]
        check_options(allocator, "allocator", request.allocator_options)
        self.allocator = allocator
        classes = request.data.num_classes
        self.refinement = Refinement.of(request.refiner, request.refiner_options, request.budget, request.refine_share, classes)
        self.added = 0 if self.refinement is None else self.refinement.added
        self.kept = request.budget - self.added
        self.selector, self.ready, self.options = self._method()
        self.needs: frozenset[str] = (self.selector.needs if self.selector else frozenset()) - {"images"}
        self.refines = self.refinement is not None and self.refinement.reads_network
        self.probes = self.refines or (allocator.trains and request.proxy == "probe")
        if request.proxy not in PROXIES:
            raise unknown_name("proxy", request.proxy, PROXIES)
        self._check_budget()
        self._check_memory()

    def _method(self) -> tuple[Selector | None, Ranking | None, dict[str, Any]]:
        """Either a selector with its options, or a ranking that is there already."""
        found: Any
        method, options = self.request.method, dict(self.request.method_options)
        if isinstance(method, str):
            named, preset = resolve_method(method)
            found = named.read(self.request.data, self.request.seed) if isinstance(named, RankingFile) else named
            options = {**preset, **options}
        else:
            found = method
        if isinstance(found, np.ndarray):
            found = ranking_of(found, self.request.data)
        if isinstance(found, Ranking):
            if options:
                raise UserError(f"a ready ranking takes no options, so not '{next(iter(options))}': leave it out")
            ready = within(found, self.request)
            check_whole(ready, self.kept)
            return None, ready, {}
        selector, preset = as_selector(found)
        check_options(selector, "method", options)
        if selector.quantizes and self.request.made_for is None:
            self._note(f"'{selector.name}' ranks whole images here; dqas quantize and dqas bench also drop patches")
        return selector, None, {**preset, **options}

    def _check_budget(self) -> None:
        request, classes = self.request, self.request.data.num_classes
        if request.budget < classes:
            raise UserError(f"a budget of {request.budget} images is below one for each of the {classes} classes: raise it")
        if request.budget > self._available:
            raise UserError(
                f"a budget of {request.budget:,} images is more than the {self._available:,} to choose from: lower it"
            )
        if self.refinement is not None:
            self.refinement.check_trainings(self._trainer, self._available)

    @property
    def _available(self) -> int:
        """Images that may be selected."""
        return len(self.request.data) if self.request.candidates is None else len(self.request.candidates)

    @property
    def _trainer(self) -> Trainer:
        request = self.request
        return Trainer(request.data, self.build, request.recipe, request.seed, request.device, request.report)

    def _check_memory(self) -> None:
        """A method that cannot rank a class is refused before anything is trained."""
        if self.selector is None or self.selector.memory is None:
            return
        data = self.request.data
        width = self.build(data.image_shape, data.num_classes).head.in_features
        check_memory(self.selector, self._sizes(), self._depths(), width, self.request.max_memory, self.options)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Count the time of the block towards ``step``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - started

    @cached_property
    def signals(self) -> Signals:
        """What the method reads: of the shared proxy if it reads a network's output, else labels and images alone."""
        request = self.request
        if not self.needs:
            return Signals(request.data.labels, request.data.num_classes, images=request.data.images)
        with self.timed("features"):
            request.report("training the network whose signals all methods share")
            signals = self._computed("features", needs=self.needs, repeat=self._trainings, features=request.features)
            assert self.selector is not None
            for doubt in blind_method(self.selector, signals, request.features):
                self._note(doubt)
        return self._moved(signals)

    def _moved(self, signals: Signals) -> Signals:
        """The signals on the device where methods and refiners compute."""
        return signals if self.request.device == "cpu" else signals.to(self.request.device)

    @property
    def _trainings(self) -> int:
        """How many networks are trained where any is."""
        return 1 if self.selector is None else self.selector.trainings(self.options)

    def _computed(self, step: str, **wanted: Any) -> Signals:
        """Signals, from the cache if they are there: then the time that making them took is counted all the same."""
        request = self.request
        started = time.perf_counter()
        signals = compute_signals(
            request.data,
            request.model,
            self.build,
            request.recipe,
            request.seed,
            device=request.device,
            on_epoch=announce_epoch,
            report=request.report,
            **wanted,
        )
        waited = time.perf_counter() - started
        spared = float(signals.proxy.get("seconds", 0.0)) - waited
        self.seconds[step] = self.seconds.get(step, 0.0) + max(0.0, spared)
        return signals

    def rank(self) -> Ranking:
        """The ranking, as deep as class counts may ask for."""
        if self.ready is not None:
            return self.ready
        signals = self.signals
        with self.timed("selection"):
            self.request.report("ranking the samples of every class")
            return self._rank(signals, self._depths(), self.request.candidates)

    def _depths(self) -> IntArray:
        """All there is where class counts are tried out; else what will be taken."""
        sizes = self._sizes()
        if not self.allocator.trains:
            return self._allocated(_untrained, sizes, 0.0).counts
        if not self._nested:
            return self._even(sizes)
        if self.selector is None or self.selector.memory is None:
            return sizes
        # Time and memory grow with the depth here: no deeper than one class of the budget, beside what is held out of it.
        return np.minimum(sizes, self.kept - (len(sizes) - 1) + most_held_out(self.request.data.class_sizes))

    @property
    def _nested(self) -> bool:
        return self.selector is None or self.selector.nested

    def _rank(self, signals: Signals, counts: IntArray, candidates: IntArray | None) -> Ranking:
        assert self.selector is not None
        request = self.request
        found = rank(
            signals,
            self.selector,
            counts=counts,
            seed=request.seed,
            candidates=candidates,
            max_memory=request.max_memory,
            **self.options,
        )
        for note in found.provenance["notes"]:
            self._note(note)
        return found

    def _note(self, text: str) -> None:
        """Tell people, and write it down, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.request.report(text)

    def _sizes(self) -> IntArray:
        """Candidates in each class."""
        allowed = self.labels if self.request.candidates is None else self.labels[self.request.candidates]
        return np.bincount(allowed, minlength=self.request.data.num_classes).astype(np.int64)

    def _even(self, capacity: IntArray) -> IntArray:
        return self._evenly(capacity).counts

    def _evenly(self, capacity: IntArray) -> Allocation:
        return allocate("uniform", _untrained, capacity, self.kept, seed=self.request.seed)

    def allocate(self, ranking: Ranking) -> Allocation:
        """The class counts."""
        capacity = self._sizes() if self.ready is None else ranking.capacity
        if self.allocator.trains and (self.kept in (len(capacity), capacity.sum()) or len(capacity) == 1):
            return self._evenly(capacity)  # there is nothing to choose
        with self.timed("allocation"):
            evaluate: Evaluate = _untrained
            overlap = 0.0
            if self.allocator.trains:
                self.request.report("measuring what class counts do")
                evaluate, overlap = self._evaluator(ranking, self._even(capacity))
            return self._allocated(evaluate, capacity, overlap)

    def _allocated(self, evaluate: Evaluate, capacity: IntArray, overlap: float) -> Allocation:
        request = self.request
        return allocate(
            self.allocator,
            evaluate,
            capacity,
            self.kept,
            seed=request.seed,
            goal=request.goal,
            frequencies=np.bincount(self.labels, minlength=len(capacity)) / len(self.labels),
            overlap=overlap,
            **self._allocator_options(),
        )

    def _allocator_options(self) -> dict[str, Any]:
        """The user's, and ``effort`` to match the proxy for an allocator that can spare expensive evaluations."""
        options = dict(self.request.allocator_options)
        if "effort" in self.allocator.options:
            large = self.request.budget * self.request.data.num_classes > LARGE
            options.setdefault("effort", "train" if large else self.request.proxy)
        return options

    def _evaluator(self, ranking: Ranking, even: IntArray) -> tuple[Evaluate, float]:
        """What the allocator asks, and how much of the held-out images its answers share."""
        request = self.request
        pick = self._picker(ranking)
        if request.proxy == "train":
            held_out = HeldOut.of(self.labels, even, np.zeros(len(self.labels), dtype=bool))
            trains = training_evaluator(request.data, self.build, request.recipe, pick, held_out, request.device)
            return trains, held_out.overlap
        signals, used = self.probe_signals("allocation")
        assert signals.features is not None
        held_out = HeldOut.of(self.labels, even, used)
        large = request.budget * request.data.num_classes >= ON_DEVICE
        features = signals.features.to(request.device) if large else signals.features
        return probe_evaluator(features, self.labels, pick, held_out, even, request.recipe.prior), held_out.overlap

    def probe_signals(self, step: str) -> tuple[Signals, BoolArray]:
        """What the probe's network says of all images, and the mask of those that it was trained on.

        To the other images it is what a network trained on the selection will be; all methods share it. Its time counts
        towards the first ``step`` that asks.
        """
        if self._probe is None:
            self._probe = self._trained_probe(step)
        return self._probe

    def _trained_probe(self, step: str) -> tuple[Signals, BoolArray]:
        request = self.request
        used = np.zeros(len(self.labels), dtype=bool)
        even = self._even(np.bincount(self.labels, minlength=request.data.num_classes).astype(np.int64))
        used[even_draw(self.labels, even, request.seed)] = True
        needs = frozenset() if self.refinement is None else self.refinement.refiner.needs
        signals = self._computed(step, trained_on=np.flatnonzero(used), needs=needs)
        for doubt in blind_probe(signals, used):
            self._note(doubt)
        return signals, used

    def _picker(self, ranking: Ranking) -> Callable[[IntArray, BoolArray], IntArray]:
        """Picks for an evaluation: the best ``counts[c]`` of each class that are not held out (all there are if too few)."""
        allowed = np.arange(len(self.labels)) if self.request.candidates is None else self.request.candidates

        def again(counts: IntArray, without: BoolArray) -> IntArray:
            open_ = allowed[~without[allowed]]
            there = np.bincount(self.labels[open_], minlength=len(counts))
            fresh = self._rank(self.signals, np.minimum(counts, there), open_)
            return np.concatenate(fresh.order)

        def first(counts: IntArray, without: BoolArray) -> IntArray:
            found = [one[~without[one]][:count] for one, count in zip(ranking.order, counts, strict=True)]
            short = np.array([len(one) for one in found]) < counts
            if self.ready is None and (short & (ranking.capacity < self._sizes())).any():  # more than the budget in a class
                return again(counts, without)
            return np.concatenate(found)

        return first if self._nested else again

    def refine(self, ranking: Ranking, allocation: Allocation) -> Selection:
        """Take the counts from the ranking, let the refiner add its share, and write down how it came about."""
        request = self.request
        belongs = self._nested and ranking.weights is None  # else the choice, or its weights, are those of these very counts
        if self.ready is None and not belongs and (ranking.capacity != allocation.counts).any():
            with self.timed("selection"):
                ranking = self._rank(self.signals, allocation.counts, request.candidates)
        indices, weights = ranking.take(allocation.counts), ranking.taken_weights(allocation.counts)
        if self.refinement is not None and self.added:
            with self.timed("refinement"):
                self._tell_refinement(self.refinement)
                added = self._refined(self.refinement, indices)
            indices = np.concatenate([indices, added])
            weights = None if weights is None else np.append(weights, np.full(len(added), weights.mean(), np.float32))
        counts = np.bincount(self.labels[indices], minlength=request.data.num_classes).astype(np.int64)
        return Selection(indices, counts, weights, self._provenance(ranking, allocation))

    def _tell_refinement(self, refinement: Refinement) -> None:
        trainings = refinement.trainings(self._available)
        if trainings:
            seconds = refinement.seconds(self._trainer, self._available)
            self.request.report(f"refining, with {trainings:,} trainings of a network, about {duration(seconds)}")
        else:
            self.request.report("refining")

    def _refined(self, refinement: Refinement, selected: IntArray) -> IntArray:
        """What the refiner adds; with restricted candidates it sees only them and what is selected."""
        request = self.request
        signals = self._moved(self.probe_signals("refinement")[0]) if self.refines else self.signals
        signals = replace(signals, trainer=self._trainer)
        seen = np.arange(len(self.labels))
        if request.candidates is not None:
            seen = np.union1d(request.candidates, selected)
            signals = signals.subset(seen)
        rng = generator(request.seed, "refine")
        chosen: IntArray = seen[refinement(signals, np.searchsorted(seen, selected), rng)]
        missing = self.added - len(chosen)
        if not missing:
            return chosen
        self._note(f"the refiner added {len(chosen)} images; the other {missing} of its share were drawn at random")
        free = np.setdiff1d(seen, np.concatenate([selected, chosen]))
        return np.concatenate([chosen, drawn_evenly(self.labels, free, missing, request.data.num_classes, rng)])

    def _provenance(self, ranking: Ranking, allocation: Allocation) -> dict[str, Any]:
        request = self.request
        return {
            "method": request.method if isinstance(request.method, str) else ranking.method,
            "method_options": {key: _plain(value) for key, value in self.options.items()},
            "allocator": request.allocator,
            "allocator_options": dict(request.allocator_options),
            "allocation": _summary(allocation),
            "refiner": request.refiner,
            "refiner_options": {key: _plain(value) for key, value in request.refiner_options.items()},
            "refine_share": request.refine_share if self.refinement else None,
            "goal": request.goal,
            "proxy": request.proxy if self.allocator.trains else None,
            "budget": request.budget,
            "ratio": request.budget / len(request.data),
            "seed": request.seed,
            "dataset": request.original.name,
            "fingerprint": request.original.fingerprint,
            "features": request.features if "features" in self.needs else None,
            "notes": list(self.notes),
            "model": request.model,
            "recipe": request.recipe.as_dict(),
            "versions": versions(),
            "seconds": {step: round(value, 4) for step, value in self.seconds.items()},
        }


def _untrained(counts: IntArray, seed: int) -> ClassScores:
    """Stands in for an evaluation where an allocator promised to make none."""
    raise PluginError("an allocator registered with trains=False asked for an evaluation: register it with trains=True")


def _summary(allocation: Allocation) -> dict[str, Any]:
    """How the class counts came about, without the single evaluations."""
    gain = allocation.gain
    return {
        "chosen": allocation.chosen,
        "step": allocation.step,
        "gain": None if gain is None else {"mean": gain.mean, "error": gain.error},
        "evaluations": allocation.evaluations,
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | type(None)) else repr(value)
