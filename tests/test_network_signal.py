"""The trained network itself as a signal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dqas_plugin import load_dataset, trained_signals
from dqas_plugin.contracts import selector
from dqas_plugin.errors import UserError
from dqas_plugin.models import Network, convnet3_small
from dqas_plugin.ranking import rank
from dqas_plugin.recipes import recipe
from dqas_plugin.signals import Signals
from dqas_plugin.training import outputs, train

NEEDS = frozenset({"network", "runs"})


def computed(monkeypatch: pytest.MonkeyPatch, times: list[int], **options: Any) -> Signals:
    def counted(*args: Any, **kwargs: Any) -> Any:
        times.append(1)
        return train(*args, **kwargs)

    monkeypatch.setattr(trained_signals, "train", counted)
    data = load_dataset("digits").train.subset(np.arange(120))
    short = recipe("quick").with_(proxy_epochs=1)
    return trained_signals.compute_signals(data, "convnet3-small", convnet3_small, short, 0, **options)


def logits_of(network: Network, signals: Signals) -> torch.Tensor:
    assert signals.images is not None
    return torch.cat([one for _, one in outputs(network, signals.images)])


def test_network_is_the_one_whose_outputs_are_the_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    plain = computed(monkeypatch, times)
    assert plain.network is None
    found = computed(monkeypatch, times, needs=NEEDS, repeat=2)
    assert len(times) == 2  # one for each run; the first was there
    for one in (found, *found.runs):
        assert one.network is not None
        assert not one.network.training
        assert not any(parameter.requires_grad for parameter in one.network.parameters())
        assert one.logits is not None
        assert torch.allclose(logits_of(one.network, one), one.logits, atol=0.05)  # those may be of bf16
    view = found.view(3)
    assert view.network is found.network is view.whole.network
    assert view.runs[1].network is found.runs[0].network is not found.network


def test_a_missing_network_is_named() -> None:
    signals = Signals.from_arrays(np.ones((4, 2)), None, [0, 0, 1, 1])
    with pytest.raises(UserError, match="these signals have no network: give them to Signals"):
        _ = signals.view(0).network


def test_given_network_is_only_read() -> None:
    network = convnet3_small((1, 8, 8), 2).train()
    signals = Signals.from_arrays(None, None, [0, 1, 1], network=network)
    assert signals.view(0).network is network
    assert not network.training
    assert not any(one.requires_grad for one in network.parameters())
    assert signals.device == torch.device("cpu")
    assert signals.subset([1, 2]).network is network
    moved = signals.to("meta")
    assert moved.device.type == "meta"
    assert network.head.weight.device.type == "cpu"


def test_a_view_knows_how_many_of_every_class_are_asked_for() -> None:
    seen = []

    @selector("asks", needs={"features"})
    def asks(view: Any, budget: int, rng: np.random.Generator) -> Any:
        seen.append((view.label, budget, view.counts.tolist()))
        return np.arange(budget)

    signals = Signals.from_arrays(np.ones((6, 2)), None, [0, 0, 0, 1, 1, 1])
    assert signals.view(0).counts is None
    rank(signals, asks, counts=[2, 1])
    assert sorted(seen) == [(0, 2, [2, 1]), (1, 1, [2, 1])]
