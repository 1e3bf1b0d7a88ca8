"""The last step of a selection: what a refiner may spend and train, and whether what it adds is sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dqas_plugin.allocation.rounding import round_counts
from dqas_plugin.contracts import Refiner
from dqas_plugin.data import IntArray, by_class
from dqas_plugin.defaults import ADAPTIVE, NONE
from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.plugins import check_options, plugins
from dqas_plugin.refinement.retrained import training_seconds
from dqas_plugin.signals import Signals
from dqas_plugin.told import YEAR, duration
from dqas_plugin.trainer import Trainer


def chosen_refiner(name: str | None, adaptive: bool) -> str | None:
    """The refiner meant: adaptive sampling has one unless another, or ``none``, is named."""
    if name is None:
        return ADAPTIVE if adaptive else None
    return None if name == NONE else name


@dataclass(frozen=True)
class Refinement:
    """A refiner with its options and the part of the budget that it spends.

    Attributes:
        refiner: the rule.
        options: of it, as they were given.
        added: how many images it adds, at most.
        kept: how many are chosen before.
    """

    refiner: Refiner
    options: Mapping[str, Any]
    added: int
    kept: int

    @staticmethod
    def of(name: str | None, options: Mapping[str, Any], budget: int, share: float, classes: int) -> Refinement | None:
        """Checked; None without a refiner.

        Args:
            name: of the refiner, or None.
            options: of the refiner.
            budget: images to choose altogether.
            share: part of them that the refiner adds.
            classes: each needs an image before.

        Raises:
            UserError: for an unknown name or option, options without a refiner, a share out of range or too large.
        """
        if name is None:
            if options:
                raise UserError(f"the refiner option '{next(iter(options))}' belongs to a refiner: name one, or leave it out")
            return None
        refiner = plugins().refiners[name]
        check_options(refiner, "refiner", options)
        if not 0.0 < share < 1.0:
            raise UserError(f"a refine share of {share:g} is not possible: choose a number above 0 and below 1")
        added = round(budget * share)
        if budget - added < classes:
            raise UserError(
                f"a refine share of {share:g} leaves {budget - added} of {budget} images to the method, less than one for each "
                f"of the {classes} classes: lower it, raise the budget, or leave the refiner out (none)"
            )
        return Refinement(refiner, options, added, budget - added)

    @property
    def reads_network(self) -> bool:
        """Whether it reads the output of a network that has seen few of the images."""
        return self.refiner.reads_network

    def trainings(self, available: int) -> int:
        """How many networks it trains itself, at most, where so many images may be selected altogether."""
        if self.refiner.trainings is None or not self.added:
            return 0
        settings = self.refiner.settings(self.options)
        return self.refiner.trainings(self.kept, max(0, available - self.kept), self.added, settings)

    def seconds(self, trainer: Trainer, available: int) -> float:
        """How long these trainings take here; measured on a few steps of one."""
        count = self.trainings(available)
        return count * training_seconds(trainer, self.kept) if count else 0.0

    def check_trainings(self, trainer: Trainer, available: int) -> None:
        """Refuse more trainings than the refiner's option ``trainings`` allows, and say how long they would take.

        Args:
            trainer: how they are done.
            available: images that may be selected.
        """
        count, allowed = self.trainings(available), self.refiner.settings(self.options).get("trainings")
        if allowed is None or count <= allowed:
            return
        seconds = self.seconds(trainer, available)
        years = "" if seconds >= YEAR else f" ({seconds / YEAR:.2g} years)"
        raise UserError(
            f"the refiner '{self.refiner.name}' would train {count:,} networks with these options, about {duration(seconds)}"
            f"{years} on one processor or GPU like this: let fewer images be candidates, or allow that with its option "
            f"trainings={count}"
        )

    def __call__(self, signals: Signals, selected: IntArray, rng: np.random.Generator) -> IntArray:
        """Positions of the samples that it adds.

        Args:
            signals: of all samples that may be selected or are.
            selected: positions of those that are.
            rng: random numbers.

        Raises:
            PluginError: if they are not what a refiner must return.
        """
        found = np.asarray(self.refiner(signals, selected, self.added, rng, **self.options))
        sound = found.ndim == 1 and len(found) <= self.added and len(np.unique(found)) == len(found)
        if sound and len(found):
            sound = found.dtype.kind in "iu" and found.min() >= 0 and found.max() < len(signals.labels)
        if not sound or np.isin(found, selected).any():
            raise PluginError(
                f"the refiner '{self.refiner.name}' must return at most {self.added} different samples, none of them selected "
                "yet: mend it, or use another refiner"
            )
        return found.astype(np.int64)


def drawn_evenly(labels: IntArray, free: IntArray, count: int, classes: int, rng: np.random.Generator) -> IntArray:
    """``count`` of the ``free`` dataset indices, drawn at random, as many of each class as there are."""
    members = [free[one] for one in by_class(labels[free], classes)]
    left = np.array([len(one) for one in members], dtype=np.int64)
    counts = round_counts(np.ones(len(left)), count, left, floor=0)
    return np.concatenate([rng.choice(one, size, replace=False) for one, size in zip(members, counts, strict=True)])
