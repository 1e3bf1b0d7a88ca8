"""What people should know before they trust a selection: samples that nothing tells apart, a network that learnt nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import torch

from dqas_plugin.contracts import Selector
from dqas_plugin.data import BoolArray, IntArray
from dqas_plugin.signals import Signals
from dqas_plugin.soundness import Chance, early_answers, flat

_READ: Mapping[str, tuple[str, ...]] = {
    "features": ("features",),
    "logits": ("logits",),
    "gradients": ("features", "logits"),
    "images": ("images",),
    "dynamics": ("margins", "errors"),
    "perturbations": ("perturbations",),
}
_NAMES = {"margins": "margins in training", "errors": "errors in training"}
_OF_ANSWERS = frozenset({"logits", "gradients", "dynamics", "perturbations"})
_ROWS = 4096  # samples whose answers are looked at together
_REMEDY = "check the labels and the learning rate"


def flat_signals(signals: Signals, indices: IntArray, needs: Iterable[str]) -> list[str]:
    """Those of the signals needed that are the same for all these samples (dataset indices), but for rounding."""
    names = dict.fromkeys(name for need in sorted(needs) for name in _READ.get(need, ()))
    there = {name: values for name in names if (values := getattr(signals, name)) is not None}
    if len(indices) < 2:
        return []
    rows = torch.from_numpy(indices)
    return [name for name, values in there.items() if flat(values, rows)]


def without_contrast(selector: Selector, signals: Signals, alike: Sequence[list[str]]) -> Iterator[str]:
    """What to tell people where what a method reads does not tell samples apart.

    Args:
        selector: the method.
        signals: what it reads.
        alike: see :func:`flat_signals`, of every class.
    """
    for signal, count in Counter(chain(*alike)).items():
        where = "all classes" if count == len(alike) else f"{count:,} of {len(alike):,} classes"
        yield (
            f"the {_NAMES.get(signal, signal)} of all samples are the same within {where}: they do not tell '{selector.name}' "
            "which to take first"
        )
    if signals.num_classes == 1 and selector.needs & _OF_ANSWERS:
        yield f"with a single class a network has nothing to learn: what '{selector.name}' reads of its answers says little"


def blind_method(selector: Selector, signals: Signals, features: str) -> Iterator[str]:
    """What to tell people if the network that a method reads has learnt nothing.

    Args:
        selector: the method.
        signals: of a network trained on all samples, with the course of its training.
        features: where those come from, as in a request.
    """
    read = _OF_ANSWERS | {"network"} | ({"features"} if features == "proxy" else set())
    if signals.margins is None or not selector.needs & read:
        return
    labels, classes = signals.labels.numpy(), signals.num_classes
    early = Chance.of(early_answers(signals.margins, int(signals.proxy["steps"])).numpy(), labels, classes)
    late = Chance.of(np.array(signals.proxy["accuracy"], dtype=np.float64)[labels], labels, classes)
    for found, which in ((early, "it had hardly seen"), (late, "it was trained on")):
        if found.blind:
            yield (
                f"the network that '{selector.name}' reads is no better than chance on images that {which} ({found}): "
                f"the choice is blind, so {_REMEDY}"
            )
            return


def blind_probe(signals: Signals, used: BoolArray) -> Iterator[str]:
    """The same of the probe that allocators and refiners look at; ``used`` are the samples that it was trained on, ``[N]``."""
    assert signals.logits is not None
    labels = signals.labels.numpy()
    answers = np.concatenate([part.argmax(dim=1).cpu().numpy() for part in torch.split(signals.logits, _ROWS)])
    found = Chance.of((answers == labels)[~used], labels[~used], signals.num_classes)
    if found.blind:
        yield (
            f"the network of the probe is no better than chance on images that it was not trained on ({found}): "
            f"class counts and error reduction have nothing to go by, so {_REMEDY}"
        )
