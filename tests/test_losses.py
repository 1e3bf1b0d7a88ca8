"""The training loss against its formula."""

from __future__ import annotations

import math

import pytest
import torch

from dqas_plugin.losses import log_prior, sample_weights, training_loss


def test_balanced_loss_is_the_formula() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, 2.0]])
    labels = torch.tensor([0, 0, 2, 0, 1, 0])  # of the training set: 4, 1, 1
    expected = 0.0
    for row, label in zip(logits.tolist(), (2, 0), strict=True):
        scores = [math.exp(value) * count / 6 for value, count in zip(row, (4, 1, 1), strict=True)]
        expected -= math.log(scores[label] / sum(scores)) / 2
    assert float(training_loss(logits, torch.tensor([2, 0]), log_prior(labels, 3))) == pytest.approx(expected, rel=1e-6)


def test_weight_two_is_the_sample_twice() -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, generator=draws)
    labels = torch.tensor([1, 0, 3])
    given = torch.tensor([2.0, 1.0, 1.0])
    weights = sample_weights(given, 3)
    twice = torch.tensor([0, 0, 1, 2])
    prior = log_prior(labels[twice], 4)
    torch.testing.assert_close(log_prior(labels[:3], 4, given)[[0, 1, 3]], prior[[0, 1, 3]])
    torch.testing.assert_close(
        training_loss(logits, labels, prior, weights, label_smoothing=0.2),
        training_loss(logits[twice], labels[twice], prior, None, label_smoothing=0.2),
    )
