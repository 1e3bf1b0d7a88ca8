"""The plugin: its picks against determinants by brute force, its wrapper on planted blank images."""

import dqas_plugin_example
import numpy as np
import pytest
import torch

from dqas_plugin import ImageDataset, Signals, UserError, rank, select
from dqas_plugin.plugins import Plugins, plugins


@pytest.fixture(autouse=True)
def registered():
    """The plugin, registered here where it is not installed."""
    if "dpp" in plugins().selectors:
        yield
        return
    plugins().register(dqas_plugin_example, "example")
    yield
    plugins().unregister(dqas_plugin_example)


def signals(count=24, classes=2):
    draws = np.random.default_rng(0)
    features = draws.normal(size=(count, 5)).astype(np.float32)
    return Signals.from_arrays(features, np.zeros((count, classes), np.float32), np.arange(count) % classes)


def test_it_is_the_greedy_maximum_of_the_determinant():
    found = rank(signals(), "dpp", counts=[6, 6], width=0.7, typical=0.5, seed=1)
    for label, order in enumerate(found.order):
        features = signals().features.numpy().astype(np.float64)[label::2]
        distances = np.linalg.norm(features[:, None] - features[None], axis=2)
        near = np.exp(-(distances**2) / (2 * (0.7 * float(torch.tensor(distances).median())) ** 2))
        density = near.mean(axis=1) ** 0.5
        kernel = density[:, None] * near * density
        picks = []
        for _ in range(6):
            left = [one for one in range(12) if one not in picks]
            volumes = [np.linalg.det(kernel[np.ix_([*picks, one], [*picks, one])]) for one in left]
            picks.append(left[int(np.argmax(volumes))])
        assert order.tolist()[:6] == [label + 2 * one for one in picks]


def test_copies_come_last():
    features = np.repeat(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32), 3, axis=0)
    every = Signals.from_arrays(features, np.zeros((15, 1), np.float32), np.zeros(15, np.int64))
    order = rank(every, "dpp", counts=[15]).order[0]
    assert sorted(order[:5] // 3) == [0, 1, 2, 3, 4]
    assert sorted(order) == list(range(15))


def test_options_have_names():
    with pytest.raises(UserError, match="did you mean 'width'"):
        rank(signals(), "dpp", counts=[2, 2], widht=2.0)


def with_blanks():
    """Twenty noisy images, the first of which are a black, a grey and a white one."""
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for place, value in enumerate((0, 127, 255)):
        images[place] = value
    return ImageDataset(images, torch.arange(20) % 2, ("left", "right"), "noise")


def test_blank_images_are_never_selected():
    said = []
    chosen = select(with_blanks(), "random", budget=16, report=said.append)
    assert min(chosen.indices) == 3
    assert "3 blank images are left out" in said
    with pytest.raises(UserError):
        select(with_blanks(), "random", budget=18)  # there are only 17


def test_what_the_plugin_brings():
    host = Plugins(strangers=False)
    host.register(dqas_plugin_example, "example")
    info = next(one for one in host.overview() if one.name == "example")
    assert info.hooks == ("dqas_register_selectors", "dqas_select")
    assert info.brings == {"selectors": ("dpp",)}
    assert host.problems == []
