"""Adaptive class counts around DeepCore's methods, as methods of its own benchmark: ``--selection AdaptiveGraphCut``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dqas_adapters.deepcore.asking import Asked
from dqas_adapters.deepcore.checkout import Checkout
from dqas_adapters.deepcore.checkpoints import RECORD, labels_digest
from dqas_adapters.deepcore.images import class_labels, image_dataset
from dqas_adapters.deepcore.networks import MIRRORED, device_of, recipe_of
from dqas_adapters.deepcore.selectors import NAMED
from dqas_plugin.budget import budget_of
from dqas_plugin.errors import unknown_name
from dqas_plugin.pipeline import select
from dqas_plugin.selection import Selection
from dqas_plugin.told import duration

PREFIX = "Adaptive"
_LISTED = 20  # classes whose counts are all printed


@dataclass(frozen=True)
class Settings:
    """What decides class counts.

    Attributes:
        allocator: rule for class counts (``dqas list allocators``).
        goal: what "better" means to it.
        proxy: what it trains.
        report: told of every decision.
        called: our name of one of the checkout's networks.
        version: of the checkout.
    """

    allocator: str
    goal: str
    proxy: str
    report: Callable[[str], None]
    called: Callable[[str], str]
    version: str


@dataclass(frozen=True)
class Offer:
    """A name that may follow ``Adaptive``: the class, and options that the name stands for."""

    name: str
    kind: str
    preset: Mapping[str, Any]


def offers(checkout: Checkout) -> dict[str, Offer]:
    """Every adaptive method, by its whole name (``AdaptiveHerding``)."""
    found = [Offer(name, name, {}) for name in checkout.methods]
    found += [
        Offer(name, kind, {option: name})
        for name, (kind, option) in NAMED.items()
        if name not in checkout.methods and kind in checkout.methods
    ]
    return {f"{PREFIX}{one.name}": one for one in found}


def offered(checkout: Checkout, name: str) -> Offer:
    """The adaptive method of that name.

    Raises:
        UserError: if there is none, with the nearest.
    """
    known = offers(checkout)
    if name not in known:
        raise unknown_name("adaptive method", name, known)
    return known[name]


def adaptive(offer: Offer, kind: Callable[..., Any], settings: Settings) -> type:
    """A class for the benchmark's registry of methods.

    Args:
        offer: what is asked for.
        kind: the class of the checkout behind it.
        settings: what decides class counts.
    """
    return type(f"{PREFIX}{offer.name}", (Adaptive,), {"offer": offer, "kind": staticmethod(kind), "settings": settings})


class Adaptive:
    """A method with the surface of DeepCore's: the samples are its choice, how many of each class is ours.

    Args:
        dst_train: the training set; nothing else is looked at.
        args: the benchmark's command line, parsed.
        fraction: of the training set.
        random_seed: of everything random.
        selection_args: what the benchmark gives to its methods.
    """

    offer: Offer
    kind: Callable[..., Any]
    settings: Settings

    def __init__(
        self, dst_train: Any, args: Any, fraction: float = 0.5, random_seed: int | None = None, **selection_args: Any
    ) -> None:
        self.dst_train, self.args, self.fraction = dst_train, args, fraction
        self.seed = 0 if random_seed is None else int(random_seed)
        self.selection_args = selection_args

    def select(self, **_: Any) -> dict[str, Any]:
        """Choose.

        Returns:
            ``indices`` int64 ``[K]``, ``weights`` float32 ``[K]`` if the method has any, and ``dqas``, a note of how.

        Raises:
            UserError: for a budget below one image a class, or a training set that cannot be used.
            PluginError: if DeepCore's answer is not what its methods promise.
        """
        started = time.perf_counter()
        args, say = self.args, self.settings.report
        name = f"deepcore:{args.dataset}/train"
        labels = class_labels(self.dst_train, name)
        budget = budget_of(len(labels), len(self.dst_train.classes), ratio=self.fraction)
        recipe, differs = recipe_of(args)
        for note in filter(None, (differs, self._unbalanced())):
            say(note)
        data = image_dataset(self.dst_train, name, mirror=args.dataset in MIRRORED, workers=args.workers)
        options = {**self.selection_args, **self.offer.preset}
        asked = Asked(self.offer.name, self.kind, self.dst_train, labels, args, self.fraction, self.seed, options, say)
        method = asked.ranked()
        ranked = time.perf_counter() - started
        found = select(
            data,
            method,
            budget=budget,
            allocator=self.settings.allocator,
            goal=self.settings.goal,
            proxy=self.settings.proxy,
            model=self.settings.called(args.model),
            recipe=recipe,
            seed=self.seed,
            device=device_of(args),
            report=say,
        )
        say(self._decision(found, data.classes, ranked, time.perf_counter() - started))
        record = {**found.provenance, "deepcore": self.settings.version, "labels": labels_digest(labels)}
        return {**self._answer(found), RECORD: json.dumps(record)}

    def _unbalanced(self) -> str | None:
        if self.selection_args.get("balance", True):
            return None
        return f"--balance False does not hold for {PREFIX}{self.offer.name}: it chooses class by class"

    def _decision(self, found: Selection, classes: tuple[str, ...], ranked: float, seconds: float) -> str:
        """The line about a decision."""
        counts = found.counts
        if len(counts) <= _LISTED:
            shares = " ".join(map(str, counts))
        else:
            low, high = int(counts.argmin()), int(counts.argmax())
            shares = f"{counts[low]} ({classes[low]}) to {counts[high]} ({classes[high]})"
        how = found.provenance["allocation"]
        gain = how["gain"]
        measured = (
            f" ({100 * gain['mean']:+.1f} ± {100 * gain['error']:.1f} points over even counts)"
            if gain and gain["error"]
            else ""
        )
        return (
            f"{PREFIX}{self.offer.name}: {len(found):,} images, class counts {shares}, by '{self.settings.allocator}': "
            f"{how['chosen']}{measured} after {how['evaluations']} evaluations; {duration(seconds)}, of which "
            f"DeepCore's first call {duration(ranked)}"
        )

    def _answer(self, found: Selection) -> dict[str, Any]:
        """What the benchmark gets; samples without weight stay out, as its own method leaves them out."""
        indices, weights = found.indices, found.weights
        if weights is None:
            return {"indices": indices}
        kept = weights > 0
        if not kept.all():
            without = int(np.count_nonzero(~kept))
            self.settings.report(f"{self.offer.name} gave the weight 0 to {without} of {len(kept)} images: they are left out")
        return {"indices": indices[kept], "weights": weights[kept]}
