"""The wrapper on a set into which copies were planted."""

import dqas_near_duplicates
import numpy as np
import pytest
import torch

from dqas_plugin import ImageDataset, UserError, select
from dqas_plugin.plugins import plugins

COUNT, CLASSES = 60, 3


@pytest.fixture(autouse=True)
def registered():
    """The plugin, registered here where it is not installed."""
    if any(one.name == "near-duplicates" for one in plugins().overview()):
        yield
        return
    plugins().register(dqas_near_duplicates, "near-duplicates")
    yield
    plugins().unregister(dqas_near_duplicates)


def planted():
    """Sixty different images, then one copy of each: darker, with a little noise; three more have another label."""
    draws = np.random.default_rng(0)
    blocks = draws.integers(0, 256, (COUNT, 3, 8, 8))
    images = np.kron(blocks, np.ones((1, 1, 2, 2)))
    copies = 0.7 * images + draws.normal(0, 4, images.shape)
    labels = np.arange(COUNT) % CLASSES
    pixels = np.concatenate([images, copies, images[:3]]).clip(0, 255).astype(np.uint8)
    every = np.concatenate([labels, labels, (labels[:3] + 1) % CLASSES])
    return ImageDataset(torch.from_numpy(pixels), torch.from_numpy(every), ("a", "b", "c"), "planted")


def test_just_the_copies_are_found():
    assert dqas_near_duplicates.near_duplicates(planted()).tolist() == list(range(COUNT, 2 * COUNT))


def test_a_chain_of_small_changes_keeps_its_ends():
    """The second is like the first, the third like the second only: it is no copy of what stays."""
    draws = torch.Generator().manual_seed(0)
    first = torch.randint(0, 200, (1, 1, 8, 8), generator=draws).float()
    step = torch.randn(1, 1, 8, 8, generator=draws) * 7
    images = torch.cat([first, first + step, first + 2 * step]).round().clamp(0, 255).to(torch.uint8)
    looks = dqas_near_duplicates.thumbnails(images)
    assert (looks[0] @ looks[1] > 0.99, looks[1] @ looks[2] > 0.99, looks[0] @ looks[2] > 0.99) == (True, True, False)
    data = ImageDataset(images, torch.zeros(3, dtype=torch.int64), ("a",), "chain")
    assert dqas_near_duplicates.near_duplicates(data).tolist() == [1]


@pytest.mark.parametrize("method", ["random", "herding"])
def test_no_image_is_selected_twice(method):
    data, said = planted(), []
    chosen = select(data, method, budget=45, report=said.append)
    assert len(chosen) == 45
    assert not np.isin(chosen.indices, np.arange(COUNT, 2 * COUNT)).any()
    assert chosen.provenance["near_duplicates"] == COUNT
    assert "60 near-duplicates are left out" in said


def test_without_it_copies_are_selected():
    plugins().unregister(dqas_near_duplicates)
    try:
        chosen = select(planted(), "random", budget=45)
    finally:
        plugins().register(dqas_near_duplicates, "near-duplicates")
    assert np.isin(chosen.indices, np.arange(COUNT, 2 * COUNT)).any()


def test_a_budget_of_more_than_there_are_is_refused():
    with pytest.raises(UserError):
        select(planted(), "random", budget=COUNT + 10)


def test_of_different_images_nothing_is_left_out():
    data = planted().subset(np.arange(COUNT))
    assert select(data, "random", budget=COUNT).provenance["near_duplicates"] == 0
