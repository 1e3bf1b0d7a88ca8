"""What an evaluation says of every class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.data import FloatArray
from dqas_plugin.losses import sample_losses


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Per-class result of evaluating one trained model.

    Attributes:
        accuracy: float64 ``[C]``, in 0..1, NaN for a class without samples.
        loss: float64 ``[C]``, mean negative log-likelihood (nats).
    """

    accuracy: FloatArray
    loss: FloatArray

    @property
    def mean(self) -> float:
        """Class-mean accuracy, of the classes that have samples (NaN without any)."""
        known = self._known
        return float(np.mean(known)) if len(known) else float("nan")

    @property
    def worst(self) -> float:
        """Accuracy of the lowest class that has samples (NaN without any)."""
        known = self._known
        return float(np.min(known)) if len(known) else float("nan")

    @property
    def _known(self) -> FloatArray:
        return self.accuracy[~np.isnan(self.accuracy)]


def class_scores(logits: Tensor, labels: Tensor, num_classes: int) -> ClassScores:
    """Accuracy and mean negative log-likelihood of every class, of logits ``[n, C]``; NaN for a class without samples.

    Logits that are not finite are no answer, so never right (the arg max of NaN would be class 0).
    """
    return scores_of_parts([(logits, labels)], num_classes)


def scores_of_parts(parts: Iterable[tuple[Tensor, Tensor]], num_classes: int) -> ClassScores:
    """The same of logits ``[b, C]`` and labels ``[b]`` that come in parts, as they are too many for the memory at once."""
    found = [
        (labels, (logits.argmax(dim=1) == labels) & logits.isfinite().all(dim=1), sample_losses(logits, labels))
        for logits, labels in parts
    ]
    labels, hits, losses = (torch.cat(one) for one in zip(*found, strict=True))
    sizes = torch.bincount(labels, minlength=num_classes).double()
    accuracy, loss = (torch.bincount(labels, one, minlength=num_classes) / sizes for one in (hits.double(), losses))
    return ClassScores(accuracy=accuracy.numpy(), loss=loss.numpy())
