"""The real DeepCore on given features: its own classes, from a checkout, beside ours (``selectors.py --deepcore PATH``).

It selects from images with a network it trains. Here the images are the features, the network passes them on and has a fixed
last layer, and it trains for 0 epochs: what is left is its selection, which then works on exactly our features and logits.

What its classes want: ``args`` with everything in ``arguments`` below; a dataset with ``classes``, ``targets`` (an array that
is compared with a class) and ``transform``; images of 224 pixels by ``args``, or it would resize them; in every class enough
samples for a budget of at least 1 and, for Cal, ten neighbours. NumPy has no ``in1d`` any more: it gets one for the call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from common import BATCH, Problem

NETWORK = "given_features"

CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "graphcut": ("Submodular", {"function": "GraphCut", "greedy": "NaiveGreedy"}),
    "facility-location": ("Submodular", {"function": "FacilityLocation", "greedy": "LazyGreedy"}),
    "craig": ("Craig", {"greedy": "LazyGreedy"}),
    "gradmatch": ("GradMatch", {}),
    "glister": ("Glister", {"greedy": "LazyGreedy"}),
    "k-center": ("kCenterGreedy", {}),
    "contextual-diversity": ("ContextualDiversity", {}),
    "herding": ("Herding", {}),
    "cal": ("Cal", {"pretrain_model": NETWORK}),
    "grand": ("GraNd", {"repeat": 1}),
    "least-confidence": ("Uncertainty", {"selection_method": "LeastConfidence"}),
    "entropy": ("Uncertainty", {"selection_method": "Entropy"}),
    "margin": ("Uncertainty", {"selection_method": "Margin"}),
}
"""Name here: name there, and the options. Of the greedy optimizers NaiveGreedy and LazyGreedy it is the faster."""

OMITTED = {
    "deepfool": "DeepCore's works only on a GPU, image by image; ours ranks by perturbations measured before",
    "forgetting": "DeepCore's counts events of its own training, which does not take place here",
}
"""What DeepCore has and cannot be compared, and why."""


@dataclass(frozen=True)
class Chosen:
    """What DeepCore answered.

    Attributes:
        indices: int64, in its order, which for the greedy methods is that of the dataset.
        weights: of the same samples, or None.
        seconds: of ``select()``.
    """

    indices: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64] | None
    seconds: float


def select(checkout: Path, name: str, problem: Problem, fraction: float, seed: int) -> Chosen:
    """Let DeepCore choose this fraction of every class."""
    deepcore = load(checkout)
    deepcore.nets.__dict__[NETWORK] = functools.partial(_network(deepcore), problem.weight, problem.bias)
    their_name, options = CLASSES[name]
    kind = deepcore.methods.__dict__[their_name]
    common = {"epochs": 0, "balance": True, "specific_model": NETWORK}
    with _surroundings():
        method = kind(_Samples(problem), arguments(problem), fraction, seed, **common, **options)
        started = time.perf_counter()
        answer = method.select()
        spent = time.perf_counter() - started
    return Chosen(indices=np.asarray(answer["indices"]), weights=answer.get("weights"), seconds=spent)


def load(checkout: Path) -> ModuleType:
    """The package of the checkout, not another one of its name."""
    path = sys.path.copy()
    sys.path.insert(0, str(checkout))
    try:
        importlib.import_module("deepcore.methods")
        importlib.import_module("deepcore.nets")
    except ImportError as error:
        sys.exit(f"{checkout} is no checkout of DeepCore that can be imported: {error}")
    finally:
        sys.path[:] = path
    return sys.modules["deepcore"]


def arguments(problem: Problem) -> SimpleNamespace:
    """What its methods read from the command line."""
    training = {"optimizer": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    testing = {"test_interval": 0, "test_fraction": 1.0, "batch": BATCH}
    return SimpleNamespace(
        model=NETWORK,
        channel=problem.features.shape[1],
        num_classes=len(problem.weight),
        im_size=(224, 224),
        device="cpu",
        gpu=None,
        workers=0,
        print_freq=10**9,
        lr=0.1,
        **{f"selection_{key}": value for key, value in (training | testing).items()},
    )


class _Samples(Dataset[tuple[Tensor, int]]):
    """Features as images of one pixel and as many channels as there are features."""

    def __init__(self, problem: Problem) -> None:
        self.images = problem.features[:, :, None, None]
        self.targets = problem.labels.numpy()
        self.classes = [str(label) for label in range(len(problem.weight))]
        self.transform = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.targets[index])


def _network(deepcore: ModuleType) -> Callable[..., nn.Module]:
    """The class of networks that pass on what they get and have a given last layer."""
    recorder = deepcore.nets.nets_utils.EmbeddingRecorder

    class Given(nn.Module):
        def __init__(self, weight: Tensor, bias: Tensor, *_: Any, **options: Any) -> None:
            super().__init__()
            self.last = nn.Linear(weight.shape[1], len(weight))
            self.last.weight.data, self.last.bias.data = weight.clone(), bias.clone()
            self.embedding_recorder = recorder(options.get("record_embedding", False))
            self.no_grad = options.get("no_grad", False)

        def get_last_layer(self) -> nn.Linear:
            return self.last

        def forward(self, images: Tensor) -> Tensor:
            with torch.set_grad_enabled(not self.no_grad):
                outputs: Tensor = self.last(self.embedding_recorder(images.flatten(1)))
                return outputs

    return Given


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """The NumPy it was written for, no prints and no warnings; the global generators, which it seeds, are put back."""
    states = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    missing = not hasattr(np, "in1d")
    if missing:
        vars(np)["in1d"] = np.isin
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if missing:
            del vars(np)["in1d"]
        np.random.set_state(states[0])  # noqa: NPY002
        torch.set_rng_state(states[1])
