"""One of DeepCore's methods inside its own benchmark, asked for as many of each class as an allocator wants to know about.

It is made and called as the benchmark calls it, once, and trains its network in that call. If the answer has scores, they give
the order of every class. If it is only a set, the same object is asked again for other class counts; its network stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from dqas_adapters.deepcore.calling import EachClass
from dqas_adapters.deepcore.mending import own_random_numbers
from dqas_adapters.deepcore.selectors import CLASS_BY_CLASS, FEW
from dqas_plugin.contracts import Selector, Weighted, selector
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.selection import Ranking
from dqas_plugin.signals import View

STEP = 1.5
"""Ratio of the class counts that it is asked for while an allocator tries counts out."""

_NOBODY = -1  # label of a sample that is not shown


class Part:
    """What it chose of one class.

    Attributes:
        indices: dataset indices, int64 ``[k]``, in its order.
        weights: float64 ``[k]``, or None.
    """

    def __init__(self, indices: IntArray, weights: FloatArray | None) -> None:
        self.indices, self.weights = indices, weights


class Asked:
    """A method of theirs, asked once or several times.

    Args:
        name: of what is chosen, for messages: ``Herding``, ``GraphCut``.
        kind: its class.
        dataset: the training set, of which a copy with other ``targets`` is shown to it.
        labels: int64 ``[N]``, the labels.
        args: the benchmark's command line, parsed.
        fraction: of the training set.
        seed: as it gets it.
        options: further arguments; ``balance`` is always true, for class counts are what this is about.
        report: told what it is asked.
    """

    def __init__(
        self,
        name: str,
        kind: Callable[..., Any],
        dataset: Any,
        labels: IntArray,
        args: Any,
        fraction: float,
        seed: int,
        options: Mapping[str, Any],
        report: Callable[[str], None],
    ) -> None:
        self.name, self.kind = name, kind
        self.labels, self.seed, self.report = labels, seed, report
        self.sizes = np.bincount(labels, minlength=len(dataset.classes)).astype(np.int64)
        self.even = max(1.0, fraction * len(labels) / len(self.sizes))
        self.threads = torch.get_num_threads()
        self.device = torch.device(args.device)
        self._parts: dict[tuple[int, int], Part] = {}
        shown = copy.copy(dataset)
        shown.targets = torch.from_numpy(labels.copy())
        self.method = kind(shown, args, self._first_share(fraction), seed, **{**options, "balance": True})
        if hasattr(self.method, "construct_matrix"):
            self.method.construct_matrix = _remembered(self.method.construct_matrix)

    def _first_share(self, fraction: float) -> float:
        """Its own fraction, or an even number of each class where that fraction would leave a class without any."""
        if all(round(fraction * size) for size in self.sizes):
            return fraction
        return EachClass.of(max(1, round(self.even)), int(self.sizes.max()))

    def ranked(self) -> Ranking | Selector:
        """What stands for it in ``dqas_plugin.select``: a ranking if it gives scores, else a method to be asked again."""
        self.report(f"running DeepCore's {self.name}")
        answer = self._checked(self.method.select())
        if (order := self._order(answer)) is not None:
            return Ranking(tuple(order), f"deepcore:{self.name}")
        for label, part in enumerate(self._split(answer)):
            self._parts[label, len(part.indices)] = part
        if hasattr(self.method, "finish_run"):  # what follows its training
            self.method.run = self.method.finish_run
        made = selector(f"deepcore:{self.name}", needs=(), nested=False, memory=lambda size: size.limit)  # one class at a time
        return made(self._choose)

    def _choose(self, view: View, budget: int, rng: np.random.Generator) -> IntArray | Weighted:
        """Positions in a class: its own choice, or about that where an allocator holds some of the class out."""
        label = view.label
        if len(view) < self.sizes[label]:
            return np.searchsorted(view.indices, self._about(label, view.indices, budget))
        part = self._exactly(label, budget, view.counts)
        missing = np.setdiff1d(view.indices, part.indices)[: budget - len(part.indices)]
        positions = np.searchsorted(view.indices, np.concatenate([part.indices, missing]))
        if part.weights is None:
            return positions
        return Weighted(positions, np.concatenate([part.weights, np.zeros(len(missing))]))

    def _exactly(self, label: int, count: int, counts: IntArray | None) -> Part:
        """Its choice of so many of a class; other classes of which as many are asked for come from the same call."""
        if (label, count) not in self._parts:
            alike = counts is not None and counts[label] == count
            same = np.flatnonzero(counts == count) if alike else np.array([label])
            self._ask(count, None if len(same) == len(self.sizes) else same)
        return self._parts[label, count]

    def _about(self, label: int, candidates: IntArray, count: int) -> IntArray:
        """``count`` of the candidates, of its choices among the whole class at the next smaller and larger counts of a ladder.

        An allocator holds other samples out each time. A call for each of its questions would take days; that many steps of
        the ladder take a few calls.
        """
        size = int(self.sizes[label])
        wanted = count * size / len(candidates)
        step = int(np.floor(np.log(wanted / self.even) / np.log(STEP) + 1e-9))
        found = np.empty(0, np.int64)
        while len(found) < count:
            fresh = np.setdiff1d(self._rung(label, step, size), found)
            mixed = np.random.default_rng([self.seed, label, step % 2**31]).permutation(fresh)
            found = np.concatenate([found, mixed[np.isin(mixed, candidates)]])
            step += 1
        return found[:count]

    def _rung(self, label: int, step: int, size: int) -> IntArray:
        """Its choice at one step of the ladder, or all of the class above the last."""
        count = max(1, round(self.even * STEP**step))
        if count >= size:
            return np.flatnonzero(self.labels == label)
        if (label, count) not in self._parts:
            self._ask(count, None)
        return self._parts[label, count].indices

    def _ask(self, count: int, classes: IntArray | None) -> None:
        """Ask it for so many of each of these classes (None: all), and keep the answer."""
        if classes is not None and self.kind.__name__ not in CLASS_BY_CLASS:
            classes = None
        whose = "each class" if classes is None else f"class {', '.join(map(str, classes))}"
        self.report(f"asking DeepCore's {self.name} for {count:,} of {whose}")
        self.method.fraction = EachClass.of(count, int(self.sizes.max()))
        self.method.dst_train.targets = torch.from_numpy(self._shown(classes))
        with own_random_numbers(self.seed % 2**32, self.device), _threads(self.threads):
            parts = self._split(self._checked(self.method.select()))
        for label in range(len(self.sizes)) if classes is None else classes:
            part, size = parts[label], int(self.sizes[label])
            wanted = min(count, size)
            if len(part.indices) > wanted or (len(part.indices) < wanted and part.weights is None):
                raise PluginError(
                    f"DeepCore's {self.name} chose {len(part.indices)} samples of class {label} where {wanted} were asked for: "
                    "choose another method"
                )
            self._parts[int(label), count] = part

    def _shown(self, classes: IntArray | None) -> IntArray:
        """The labels, with those of all but a few samples of the other classes taken away."""
        labels = self.labels.copy()
        if classes is not None:
            for label in np.setdiff1d(np.arange(len(self.sizes)), classes):
                labels[np.flatnonzero(self.labels == label)[FEW:]] = _NOBODY
        return labels

    def _checked(self, answer: Any) -> dict[str, Any]:
        """An answer whose indices are different samples."""
        indices = np.asarray(answer["indices"]) if isinstance(answer, Mapping) and "indices" in answer else np.empty((0, 0))
        whole = indices.ndim == 1 and (indices.dtype.kind in "iu" or not len(indices))
        if not whole or len(np.unique(indices)) != len(indices):
            raise PluginError(f"DeepCore's {self.name} did not answer with different 'indices': mend the checkout")
        if len(indices) and not (0 <= indices.min() and indices.max() < len(self.labels)):
            raise PluginError(f"DeepCore's {self.name} chose samples outside 0..{len(self.labels) - 1}: mend the checkout")
        if len(indices) == len(self.labels) > round(self.even * len(self.sizes)):
            raise UserError(f"DeepCore's {self.name} takes all samples, so there are no class counts to choose: name another")
        return dict(answer)

    def _split(self, answer: Mapping[str, Any]) -> list[Part]:
        """The answer class by class."""
        indices = np.asarray(answer["indices"]).astype(np.int64)
        weights = answer.get("weights")
        weighed = None if weights is None else np.asarray(weights, dtype=np.float64)
        if weighed is not None and weighed.shape != indices.shape:
            raise PluginError(
                f"DeepCore's {self.name} gave {weighed.size} weights for {len(indices)} samples: mend the checkout"
            )
        labels = self.labels[indices]
        masks = [labels == label for label in range(len(self.sizes))]
        return [Part(indices[mask], None if weighed is None else weighed[mask]) for mask in masks]

    def _order(self, answer: Mapping[str, Any]) -> list[IntArray] | None:
        """Every class best first, if the answer's scores explain its choice: lowest first, or highest first."""
        scores = self._class_scores(answer.get("scores"))
        if scores is None or "weights" in answer:
            return None
        parts = self._split(answer)
        members = [np.flatnonzero(self.labels == label) for label in range(len(self.sizes))]
        for direction in (1, -1):  # as it sorts, ties included
            order = [one[np.argsort(values)[::direction]] for one, values in zip(members, scores, strict=True)]
            if all(np.array_equal(one[: len(part.indices)], part.indices) for one, part in zip(order, parts, strict=True)):
                return order
        return None

    def _class_scores(self, scores: Any) -> list[np.ndarray[Any, Any]] | None:
        """Scores of the samples of every class; it gives one row of all, or a row for each class."""
        if scores is None:
            return None
        if isinstance(scores, list | tuple):
            found = [_array(one) for one in scores]
        else:
            every = _array(scores)
            if every.shape != self.labels.shape:
                return None
            found = [every[self.labels == label] for label in range(len(self.sizes))]
        fits = len(found) == len(self.sizes) and all(one.shape == (size,) for one, size in zip(found, self.sizes, strict=True))
        return found if fits else None


def _remembered(construct: Callable[..., Any]) -> Callable[..., Any]:
    """What Herding and the centres read of the images at ``index`` once the network is trained: it does not change any more."""
    known: dict[bytes, Any] = {}

    def construct_matrix(index: Any = None) -> Any:
        key = b"" if index is None else np.asarray(index).tobytes()
        if key not in known:
            known[key] = construct(index)
        return known[key]

    return construct_matrix


def _array(values: Any) -> np.ndarray[Any, Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """As many threads as it has outside of a ranking, in which every class computes on one."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)
