"""The whole chain on the control dataset: real trainings, where the right answer is known to be uneven."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dqas_plugin import load_dataset, select
from dqas_plugin.bench.statistics import paired_difference
from dqas_plugin.models import convnet3_small
from dqas_plugin.recipes import Recipe
from dqas_plugin.training import train

RECIPE = Recipe("short", iterations=100, batch=32, lr=0.05, nesterov=True, warmup=0.1, precision="fp32")
SEEDS = range(6)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small trainings are fastest so, and give the same result on machines of any size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_adaptive_beats_even_counts_where_classes_differ() -> None:
    data = load_dataset("shapes", classes=6, modes=40, per_class=800, test_per_class=200)
    accuracy: dict[bool, dict[int, float]] = {False: {}, True: {}}
    shares = []
    for seed in SEEDS:
        for adaptive, found in accuracy.items():
            chosen = select(data.train, "random", aipc=25, adaptive=adaptive, seed=seed, recipe=RECIPE)
            result = train(convnet3_small, data.train.subset(chosen.indices), RECIPE, seed, test=data.test, evaluations=1)
            assert result.last is not None
            found[seed] = result.last.mean
        shares.append(chosen.counts[3:].sum() / chosen.counts.sum())
    gain = paired_difference(accuracy[True], accuracy[False])
    assert gain is not None
    assert gain.low is not None
    assert gain.low > 0, gain
    assert np.mean(shares) > 0.6  # of the budget, in the half of the classes that has many modes
