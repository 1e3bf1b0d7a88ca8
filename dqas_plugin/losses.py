"""The training loss: cross-entropy with the class frequencies taken out, and weights of samples; labels may be soft.

Soft labels are probabilities, float32 ``[N, C]``, as in ``ImageDataset.targets``; a row with a single 1 is a label.

Sources: Ren et al., NeurIPS 2020 (balanced softmax); Menon et al., ICLR 2021 (logit adjustment).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dqas_plugin.errors import UserError

_CHUNK = 4096  # samples whose logits are widened to float64 at once


def log_prior(labels: Tensor, num_classes: int, weights: Tensor | None = None) -> Tensor:
    """What ``prior="balanced"`` adds to the logits in training: ``log(n_c * C / n)``, float32 ``[C]``, 0 at even counts.

    The factor C shifts all classes alike and so changes nothing in the loss; it makes even counts give 0 exactly. A class
    without images counts as half an image: its logit must not be free, since all classes compete at test time. Of soft labels
    n_c is the sum of the class's column, of at least half an image: the frequencies that a network would learn from them.

    Args:
        labels: int64 ``[N]``, or soft ones.
        num_classes: C.
        weights: float ``[N]``; n_c is then the sum of the weights of the class.
    """
    if labels.ndim == 2:
        shares = labels.double()
        counts = (shares if weights is None else shares * weights.double()[:, None]).sum(dim=0).clamp_min(0.5)
    else:
        counts = torch.bincount(labels, None if weights is None else weights.double(), minlength=num_classes).double()
        counts = torch.where(counts > 0, counts, 0.5)
    total = len(labels) if weights is None else weights.double().sum()
    return (counts * num_classes / total).log().float()


def training_loss(
    logits: Tensor, labels: Tensor, prior: Tensor | None = None, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean over the batch of ``weights * cross_entropy(logits + prior, labels)``.

    Args:
        logits: float ``[B, C]``.
        labels: int64 ``[B]``, or soft ones, float ``[B, C]``: then the cross-entropy is ``-sum(labels * log softmax)``.
        prior: float ``[C]``, added to the logits; see :func:`log_prior`.
        weights: float ``[B]`` of mean 1 over the training set (not over the batch, so that a sample counts alike in all).
        label_smoothing: share of the target, soft or not, spread over all classes.
    """
    adjusted = logits if prior is None else logits + prior
    losses = functional.cross_entropy(adjusted, labels, reduction="none", label_smoothing=label_smoothing)
    return losses.mean() if weights is None else (losses * weights).mean()


def sample_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (nats) of every sample, float64 ``[n]``: the differences of large logits leave the range of float32.

    Args:
        logits: float ``[n, C]``.
        labels: int64 ``[n]``.
    """
    parts = zip(torch.split(logits, _CHUNK), torch.split(labels, _CHUNK), strict=True)
    return torch.cat([functional.cross_entropy(rows.double(), truth, reduction="none") for rows, truth in parts])


def sample_weights(weights: Tensor | None, count: int) -> Tensor | None:
    """The weights brought to mean 1, float32 ``[N]``.

    Args:
        weights: any numbers ``[count]`` of at least 0, or None.
        count: N, how many there must be.

    Raises:
        UserError: another number of weights, one that is negative or not finite, or nothing but zeros.
    """
    if weights is None:
        return None
    values = torch.as_tensor(weights, dtype=torch.float64)
    if values.shape != (count,):
        raise UserError(f"weights must be one number for each of the {count} training images, not {tuple(values.shape)}")
    if not (values.isfinite().all() and (values >= 0).all() and values.sum() > 0):
        raise UserError("weights must be finite and at least 0, and not all 0")
    return (values / values.mean()).float()
