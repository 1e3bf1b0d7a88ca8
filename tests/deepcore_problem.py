"""A small problem for the methods of a DeepCore checkout, and the stand-in for one."""

from __future__ import annotations

import os
import shutil
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dqas_adapters.deepcore import mending
from dqas_adapters.deepcore.checkout import HOME, Checkout
from dqas_plugin import load_dataset
from dqas_plugin import plugins as plugins_module
from dqas_plugin.deepfool import perturbations
from dqas_plugin.models import convnet3_small
from dqas_plugin.plugins import plugins
from dqas_plugin.ranking import rank
from dqas_plugin.signals import Signals
from dqas_plugin.training import outputs

STANDIN = Path(__file__).parent / "deepcore_standin"
REAL = os.environ.get(HOME)
SIZES = (24, 30, 27)
EPOCHS = 6


def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins as if this adapter were the only one that is installed."""
    entry = EntryPoint("deepcore", "dqas_adapters.deepcore", "dqas")
    monkeypatch.setattr(plugins_module, "entry_points", lambda group: [entry])
    plugins.cache_clear()


@cache
def signals() -> Signals:
    """Digits of three classes and what a network says of them, all of it computed here."""
    data = load_dataset("digits").train
    labels = data.labels.numpy()
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:size] for label, size in enumerate(SIZES)]))
    images, labels = data.images[torch.from_numpy(rows)], labels[rows]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = convnet3_small((1, 8, 8), 3)
        network.set_normalisation(torch.tensor([0.3]), torch.tensor([0.4]))
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        for _ in range(5):
            loss = nn.functional.cross_entropy(network(network.normalise(images)), torch.from_numpy(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    features, logits = (torch.cat(parts) for parts in zip(*outputs(network, images, batch=256), strict=True))
    margins = np.random.default_rng(1).normal(0.5, 1.0, (len(rows), EPOCHS)).astype(np.float32)
    ways = perturbations(network, images)
    return Signals.from_arrays(
        features, logits, labels, images, margins=margins, errors=np.abs(margins), perturbations=ways, network=network
    )


def ranked(name: str, counts: list[int], seed: int = 3, device: str = "cpu", **options: Any) -> Any:
    if name == "GraNd":
        options = {"repeat": 1, **options}
    given = signals() if device == "cpu" else signals().to(device)
    return rank(given, f"deepcore:{name}", counts=counts, seed=seed, **options)


def plain(checkout: Checkout, name: str, fraction: float, seed: int, **options: Any) -> dict[str, Any]:
    """The same class run without the adapter's dataset, network, arguments and share."""
    given = signals()
    network = given.network
    assert network is not None
    assert given.images is not None
    # To the last bit as the network normalises: Craig has picks that are worth the same.
    pixels = given.images.float() * (255 * torch.tensor(0.4)).reciprocal() - torch.tensor(0.3) / torch.tensor(0.4)

    class Data(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
        targets, classes, transform = given.labels, ["a", "b", "c"], None

        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return pixels[index], int(given.labels[index])

    class Net(nn.Module):
        def __init__(self, *_: Any, **options: Any) -> None:
            super().__init__()
            self.inner = network
            self.no_grad = options.get("no_grad", False)
            recorder = checkout.modules.nets.nets_utils.EmbeddingRecorder
            self.embedding_recorder = recorder(options.get("record_embedding", False))

        def train(self, mode: bool = True) -> nn.Module:
            return self

        def get_last_layer(self) -> nn.Linear:
            return network.head

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.set_grad_enabled(not self.no_grad):
                return network.head(self.embedding_recorder(network.features(x)))  # type: ignore[no-any-return]

    training = {"optimizer": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    selection = {f"selection_{name}": value for name, value in training.items()}
    arguments = {
        "model": "Net",
        "channel": 1,
        "num_classes": 3,
        "im_size": (224, 224),
        "device": "cpu",
        "gpu": None,
        "workers": 0,
        "print_freq": 50,
        "lr": 0.1,
        "selection_batch": 256,
        "selection_test_interval": 1,
        "selection_test_fraction": 1.0,
        **selection,
    }
    registry = vars(checkout.modules.nets)
    registry["Net"] = Net
    try:
        with mending.mended(checkout.modules, torch.device("cpu")), mending.own_random_numbers(0, torch.device("cpu")):
            kind = getattr(checkout.modules.methods, name)
            common = {"epochs": 0, "balance": True, "specific_model": "Net", "pretrain_model": "Net"}
            made = kind(Data(), SimpleNamespace(**arguments), fraction, seed, torchvision_pretrain=False, **common, **options)
            answer: dict[str, Any] = made.select()
    finally:
        del registry["Net"]
    return answer


def network() -> nn.Module:
    assert signals().network is not None
    return signals().network  # type: ignore[return-value]


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / "checkout", ignore=shutil.ignore_patterns("__pycache__")))
