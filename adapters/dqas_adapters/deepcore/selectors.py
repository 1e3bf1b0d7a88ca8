"""Every class of a DeepCore checkout as a selector of ours: ``deepcore:Herding``, ``deepcore:GradMatch`` …

A method that gives scores is asked once, for the order of everything. One that gives a set is asked once for each class count
that occurs: a call chooses that many of every class, and the other classes with the same count take theirs from it. Of classes
with another count it is shown next to nothing, if it chooses class by class.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dqas_adapters.deepcore.calling import Answer, EachClass, call
from dqas_adapters.deepcore.checkout import LOCK, Checkout, Method
from dqas_plugin.contracts import Selector, Weighted
from dqas_plugin.data import IntArray
from dqas_plugin.errors import PluginError
from dqas_plugin.signals import View

PREFIX = "deepcore:"
SOURCE = "PatrickZH/DeepCore (Guo, Zhao, Bai, DEXA 2022), run from a checkout"

_FUNCTIONS = ("GraphCut", "FacilityLocation", "LogDeterminant")
_UNCERTAINTIES = ("LeastConfidence", "Entropy", "Margin")
_OPTIMIZERS = ("NaiveGreedy", "LazyGreedy", "StochasticGreedy", "ApproximateLazyGreedy")
_WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("Submodular", "function"): _FUNCTIONS,
    ("Submodular", "greedy"): _OPTIMIZERS,
    ("Craig", "greedy"): _OPTIMIZERS,
    ("Glister", "greedy"): _OPTIMIZERS,
    ("Uncertainty", "selection_method"): _UNCERTAINTIES,
    ("Cal", "metric"): ("euclidean", "cossim"),
}
"""What an option of a class may be, where it is one of some words."""

_DEFAULTS = {
    ("Submodular", "function"): "GraphCut",
    ("Submodular", "greedy"): "LazyGreedy",
    ("Uncertainty", "selection_method"): "Entropy",
}
"""Defaults of its command line where those of the class differ."""

_IDLE = {
    ("Herding", "metric"),
    ("kCenterGreedy", "metric"),
    ("Submodular", "metric"),
    ("GradMatch", "lam"),
    ("Uniform", "replace"),
}
"""Arguments that do nothing, fail for any other value than the default, or repeat samples."""

NAMED = {
    **dict.fromkeys(_FUNCTIONS, ("Submodular", "function")),
    **dict.fromkeys(_UNCERTAINTIES, ("Uncertainty", "selection_method")),
}
"""Settings that the field knows by a name of their own: class and option."""

CLASS_BY_CLASS = {"ContextualDiversity", "Craig", "Glister", "GradMatch", "Herding", "Submodular", "kCenterGreedy"}
"""Classes that choose in every class without a look at the others."""

FEW = 2
"""Samples that they are shown of a class that does not matter: they select in all of them."""

_IMAGENET = ("kCenterGreedy", "Cal")
"""Classes that by default look at images with an ImageNet ResNet-18, at 224 pixels."""


def selectors_of(checkout: Checkout) -> Iterator[Selector]:
    """A selector for each class, and for each of the settings that have a name of their own."""
    for method in checkout.methods.values():
        yield _selector(checkout, method, method.name, {})
    for name, (kind, option) in NAMED.items():
        if name not in checkout.methods and option in getattr(checkout.methods.get(kind), "options", ()):
            yield _selector(checkout, checkout.methods[kind], name, {option: name})


def _selector(checkout: Checkout, method: Method, name: str, preset: Mapping[str, Any]) -> Selector:
    function = Chooser(checkout, method, f"{PREFIX}{name}", preset)
    title, nested = f"DeepCore's {name}, run by DeepCore itself", "scores" in method.answers
    named = (function.__name__, function, title, SOURCE)
    return Selector(*named, family="DeepCore", needs=function.needs, nested=nested, version=checkout.version)


@dataclass(eq=False)
class _Selection:
    """Answers for one set of samples.

    Attributes:
        indices: the dataset indices of the samples: this very array, while the selection lasts.
        answers: by number asked of each class (None: all), classes shown in full, seed and options.
    """

    indices: IntArray | None = None
    answers: dict[tuple[Any, ...], Answer] = field(default_factory=dict)


class Chooser:
    """The function of a selector: ``f(view, budget, rng, *, option=…)`` with the options that the class has.

    Args:
        checkout: where the class comes from.
        method: the class.
        name: of the selector.
        preset: options that are part of the name.

    Attributes:
        needs: the signals that it reads.
    """

    def __init__(self, checkout: Checkout, method: Method, name: str, preset: Mapping[str, Any]) -> None:
        self.checkout, self.method, self.preset = checkout, method, dict(preset)
        self.__name__ = name
        self.__signature__ = _signature(method, preset)
        self.__annotations__ = {one.name: one.annotation for one in self.__signature__.parameters.values()}
        self.needs = frozenset(
            {"images"}
            | ({"network"} if method.trains else set())
            | ({"dynamics"} if method.watches else set())
            | ({"runs"} if method.trains and "repeat" in method.options else set())
        )
        self._last = _Selection()

    def __call__(self, view: View, budget: int, rng: np.random.Generator, **options: Any) -> IntArray | Weighted:
        """Positions in the class, best first if the method gives an order, else in the order of the dataset; and weights."""
        given = self.__signature__.bind(view, budget, rng, **options)
        given.apply_defaults()
        settings = self.preset | {name: value for name, value in given.arguments.items() if name in self.method.options}
        for note in self._notes():
            view.note(note)
        if "repeat" in settings and "runs" in self.needs:
            settings["repeat"] = self._repeats(view, settings["repeat"])
        answer = self._answer(view, budget, settings)
        whole = view.whole
        mine = whole.labels.numpy()[answer.indices] == view.label
        positions = np.searchsorted(view.indices, whole.indices[answer.indices[mine]])
        if answer.weights is None:
            return self._positions(positions, budget)
        return self._weighted(Weighted(positions, answer.weights[mine]), view, budget, rng)

    def _notes(self) -> Iterator[str]:
        name = self.method.name
        yield f"{self.__name__} is DeepCore's own {name} ({self.checkout.version})"
        if name in _IMAGENET:
            yield f"{self.__name__} sees the proxy network's features, not those of DeepCore's default, an ImageNet ResNet-18"
        if self.method.watches:
            yield f"{self.__name__} counts what happened in the training of the proxy network, instead of training one itself"

    def _repeats(self, view: View, wanted: int) -> int:
        """How often to look: once for each training that there is."""
        there = len(view.runs)
        if wanted > there:
            view.note(f"{self.__name__} averaged over {there} of the {wanted} trainings asked for (repeat): there are no more")
        return min(wanted, there)

    def _answer(self, view: View, budget: int, settings: Mapping[str, Any]) -> Answer:
        """What DeepCore says of all classes, from the selection's earlier calls if one asked the same."""
        whole = view.whole
        counted = None if "scores" in self.method.answers else budget
        classes = None if counted is None else self._classes(view, budget)
        key = (counted, classes, view.seed, *sorted(settings.items()))
        with LOCK:
            if self._last.indices is not whole.indices:
                self._last = _Selection(whole.indices)
            if key not in self._last.answers:
                labels = whole.labels.numpy()
                rows = None if classes is None else _shown(labels, classes)
                share = 1.0 if counted is None else EachClass.of(counted, int(np.bincount(labels).max()))
                self._last.answers[key] = call(self.checkout, self.method, whole, share, view.seed, settings, rows)
            return self._last.answers[key]

    def _classes(self, view: View, budget: int) -> tuple[int, ...] | None:
        """The classes of which so many are asked for; None: all, or they are not known, or the method needs to see all."""
        counts = view.counts
        if counts is None or self.method.name not in CLASS_BY_CLASS or counts[view.label] != budget or (counts == budget).all():
            return None
        return tuple(int(one) for one in np.flatnonzero(counts == budget))

    def _positions(self, positions: IntArray, budget: int) -> IntArray:
        """The positions of a method without weights, which are as many as were asked for, or more if it gives an order."""
        if len(positions) < budget or (len(positions) > budget and "scores" not in self.method.answers):
            raise PluginError(
                f"DeepCore's {self.method.name} chose {len(positions)} samples of a class where {budget} were asked for: "
                "choose another method"
            )
        return positions

    def _weighted(self, found: Weighted, view: View, budget: int, rng: np.random.Generator) -> Weighted:
        """The positions and weights; what DeepCore left out because its weight is 0 comes in again, with that weight."""
        missing = budget - len(found.positions)
        if missing <= 0:
            return found
        view.note(f"{self.__name__} chose fewer than were asked for; others were drawn to make up the number, with weight 0")
        rest = np.setdiff1d(np.arange(len(view)), found.positions)
        filled = rng.choice(rest, missing, replace=False)
        return Weighted(np.concatenate([found.positions, filled]), np.concatenate([found.weights, np.zeros(missing)]))


def _shown(labels: IntArray, classes: tuple[int, ...]) -> IntArray:
    """Positions of all samples of these classes, and of a few of every other one; ascending."""
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of the sample in its class
    return np.sort(order[np.isin(labels[order], classes) | (place < FEW)])


def _signature(method: Method, preset: Mapping[str, Any]) -> inspect.Signature:
    """``(view, budget, rng, *, option=default, …)``, typed by the defaults."""
    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
    fixed = {"view": View, "budget": int, "rng": np.random.Generator}
    parameters = [inspect.Parameter(name, plain, annotation=kind) for name, kind in fixed.items()]
    for option, theirs in method.options.items():
        if option in preset or (method.name, option) in _IDLE:
            continue
        words = _WORDS.get((method.name, option), ())
        default = _DEFAULTS.get((method.name, option), theirs)
        kind: Any = Literal[words] if default in words else float | None if default is None else type(default)
        parameters.append(inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    return inspect.Signature(parameters)
