"""How a network is trained, as data: a :class:`Recipe` says everything that ``training.train`` needs besides images and seed.

``paper`` is what the DQAS paper describes (section 4.1: 200 epochs, batch 128, cosine from .1; momentum and weight decay
are those of pytorch-cifar, which it names). ``fast`` and ``quick`` are for processors and small budgets; a result trained
with them carries their name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from dqas_plugin.errors import UserError, unknown_name

Prior = Literal["balanced", "empirical"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """One training recipe: SGD with a cosine schedule, for a number of epochs or of iterations.

    Attributes:
        name: what results are labelled with.
        epochs: passes over the training set (equal-epoch protocol), or None.
        iterations: optimiser steps whatever the size of the training set (equal-iteration protocol), or None.
        batch: images in a batch, at most; see :meth:`batches`.
        lr: highest learning rate.
        momentum: of SGD.
        weight_decay: of SGD, on every parameter.
        nesterov: Nesterov's momentum.
        warmup: share of the steps in which the learning rate rises linearly from 0 to ``lr``.
        schedule: what follows the warm-up; ``cosine`` ends at 0.
        crop: random crops out of the image padded by reflection by an eighth of its side (4 at 32 px).
        flip: random mirroring, where the dataset allows it.
        label_smoothing: share of the target spread over all classes.
        prior: ``balanced`` takes the class frequencies of the training set out of the loss; ``empirical`` is the plain loss.
        precision: ``fp32``, ``bf16`` (autocast), or ``auto``: bf16 where a probe finds it faster.
        proxy_epochs: epochs of the short training on the full data whose features the selection methods use.

    Raises:
        UserError: if a value is out of range, or not exactly one of ``epochs`` and ``iterations`` is set.
    """

    name: str
    epochs: int | None = None
    iterations: int | None = None
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    warmup: float = 0.0
    schedule: Literal["cosine"] = "cosine"
    crop: bool = True
    flip: bool = True
    label_smoothing: float = 0.0
    prior: Prior = "balanced"
    precision: Precision = "auto"
    proxy_epochs: int = 10

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.iterations is None):
            raise UserError(f"recipe '{self.name}': set exactly one of epochs and iterations")
        for option in ("epochs", "iterations", "batch", "proxy_epochs"):
            value = getattr(self, option)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise UserError(f"recipe '{self.name}': {option} must be a whole number of at least 1, not {value!r}")
        self._check_range("lr", 0 < self.lr < math.inf, "above 0")
        self._check_range("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0")
        for option in ("momentum", "warmup", "label_smoothing"):
            self._check_range(option, 0 <= getattr(self, option) < 1, "at least 0 and below 1")
        self._check_choice("schedule", ("cosine",))
        self._check_choice("prior", ("balanced", "empirical"))
        self._check_choice("precision", ("auto", "fp32", "bf16"))

    def _check_range(self, option: str, valid: bool, range_: str) -> None:
        if not valid:
            raise UserError(f"recipe '{self.name}': {option} must be {range_}, not {getattr(self, option)!r}")

    def _check_choice(self, option: str, choices: Iterable[str]) -> None:
        if getattr(self, option) not in choices:
            raise unknown_name(option, str(getattr(self, option)), choices)

    def batches(self, n: int) -> int:
        """Optimiser steps of one epoch over ``n`` images: ``ceil(n / batch)``.

        The images are dealt to that many batches as evenly as possible (sizes differ by one at most), so that every image
        is seen in every epoch and no batch is a small remainder. With ``n <= batch`` the whole set is one batch.
        """
        if n < 1:
            raise UserError("cannot train on 0 images: choose a larger budget")
        return -(-n // self.batch)

    def steps(self, n: int) -> int:
        """Optimiser steps of a training on ``n`` images."""
        batches = self.batches(n)
        return self.iterations if self.epochs is None else self.epochs * batches  # type: ignore[return-value]  # one is set

    def learning_rate(self, step: int, steps: int) -> float:
        """Learning rate of optimiser step ``step`` (from 0) of ``steps``: linear warm-up, then half a cosine down to 0."""
        rise = round(self.warmup * steps)
        if step < rise:
            return self.lr * (step + 1) / (rise + 1)
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (steps - rise)))

    def with_(self, **changes: Any) -> Recipe:
        """This recipe with some options changed; the name tells which (``paper[epochs=20]``) unless ``name`` is among them.

        ``epochs`` clears ``iterations`` and the other way round.

        Raises:
            UserError: for an option that does not exist (with the nearest ones) or a value out of range.
        """
        options = [one.name for one in fields(self)]
        for option in changes:
            if option not in options:
                raise unknown_name("recipe option", option, options)
        for given, other in (("epochs", "iterations"), ("iterations", "epochs")):
            if changes.get(given) is not None:
                changes.setdefault(other, None)
        changed = replace(self, **changes)
        return changed if "name" in changes else replace(changed, name=_label(self, changed))

    def as_dict(self) -> dict[str, Any]:
        """Every option, in values that JSON knows."""
        return dict(vars(self))

    def for_proxy(self) -> Recipe:
        """The recipe of the short training on the full data: this one with ``epochs=proxy_epochs``."""
        return self.with_(epochs=self.proxy_epochs)


def _label(before: Recipe, after: Recipe) -> str:
    """Name of a changed recipe: the base's name and every option that differs from the base."""
    base = RECIPES.get(before.name.partition("[")[0], before)
    differing = {key: value for key, value in after.as_dict().items() if key != "name" and value != getattr(base, key)}
    listed = ",".join(f"{key}={value}" for key, value in differing.items() if value is not None)
    return f"{base.name}[{listed}]" if differing else base.name


RECIPES: dict[str, Recipe] = {
    one.name: one
    for one in (
        Recipe("paper", epochs=200),
        Recipe("fast", iterations=1000, lr=0.05, nesterov=True, warmup=0.1),
        Recipe("quick", iterations=300, batch=64, lr=0.05, nesterov=True, warmup=0.1),
    )
}
"""The recipes that have a name."""


def recipe(name_or_recipe: str | Recipe) -> Recipe:
    """The recipe of that name (a recipe is returned as it is).

    Raises:
        UserError: for an unknown name, with the nearest valid ones.
    """
    if isinstance(name_or_recipe, Recipe):
        return name_or_recipe
    if name_or_recipe not in RECIPES:
        raise unknown_name("recipe", name_or_recipe, RECIPES)
    return RECIPES[name_or_recipe]
