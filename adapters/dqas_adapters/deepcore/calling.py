"""One call of one of DeepCore's classes, on our images and with our trained network instead of one that it would train."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dqas_adapters.deepcore.checkout import LOCK, Checkout, Method, Modules
from dqas_adapters.deepcore.mending import mended, own_random_numbers
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.errors import DqasError, PluginError
from dqas_plugin.models import Network
from dqas_plugin.seeding import derive
from dqas_plugin.signals import View
from dqas_plugin.training import repeatable

NETWORK = "dqas_trained_network"
"""Name of our network in the checkout's registry, while a method runs."""

BATCH = 256  # its default number of images at a time
_SEEDS = 2**31  # NumPy takes 32 bits, and GraNd adds to them
_NO_RESIZING = (224, 224)  # the one size of images that none of its methods would enlarge


class EachClass(float):
    """A share that takes the same number of every class, whatever its size (all of a smaller one).

    DeepCore takes ``round(share * size of the class)``. With an ordinary number, classes of different sizes would need a call
    each to give that many.
    """

    count: int

    @classmethod
    def of(cls, wanted: int, largest: int) -> EachClass:
        """``wanted`` of every class, the largest of which has so many samples; as a number, the share of that one."""
        share = cls(min(1.0, wanted / largest))
        share.count = wanted
        return share

    def __mul__(self, size: Any) -> int:
        return min(self.count, int(size))

    __rmul__ = __mul__


@dataclass(frozen=True, eq=False)
class Answer:
    """What DeepCore chose of all classes.

    Attributes:
        indices: positions in the view it saw, int64 ``[K]``, in its order.
        weights: of the same samples, float64 ``[K]``, or None.
    """

    indices: IntArray
    weights: FloatArray | None


def call(
    checkout: Checkout,
    method: Method,
    view: View,
    share: float,
    seed: int,
    options: Mapping[str, Any],
    rows: IntArray | None = None,
) -> Answer:
    """Let the method choose this share of every class.

    Args:
        checkout: where it comes from.
        method: which.
        view: of all classes; ``network`` is read if the method has one, ``runs`` if it repeats, ``margins`` if it watches.
        share: of every class, above 0 and at most 1.
        seed: of what is drawn; DeepCore gets this very number if NumPy's generator takes it.
        options: of the method, as DeepCore calls them.
        rows: positions in the view that are shown to it, ascending, int64; None: all.

    Raises:
        UserError: if the checkout cannot be imported.
        PluginError: for whatever goes wrong inside DeepCore (with its class and message), or an answer that is none.
    """
    networks = _networks(method, view)
    # Watching needs no output of the network, and DeepCore's Forgetting indexes across devices.
    device = networks[0].head.weight.device if networks and not method.watches else torch.device("cpu")
    device = device if device.type in ("cpu", "cuda") else torch.device("cpu")  # it knows no others
    shown = np.arange(len(view)) if rows is None else rows
    samples = Samples(view.images, view.labels, shown, networks[0] if networks else None)
    seed = seed if 0 <= seed < _SEEDS else derive(seed, "deepcore") % _SEEDS
    with LOCK:
        modules = checkout.modules
        with mended(modules, device), own_random_numbers(seed, device), repeatable(device), _registered(modules, networks):
            try:
                course = view.margins[torch.from_numpy(shown)] > 0 if method.watches else None
                found = _selected(modules, method, samples, device, (share, seed), options, course)
            except DqasError:
                raise
            except (Exception, SystemExit) as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise PluginError(
                    f"DeepCore's {method.name} failed with {reason}: change its options or counts, or mend the checkout"
                ) from error
    answer = _checked(method.name, found, len(samples))
    return Answer(shown[answer.indices], answer.weights)


def _networks(method: Method, view: View) -> list[Network]:
    """Ours, one for each time that the method would train one."""
    if not method.trains:
        return []
    return [one.network for one in (view.runs if "repeat" in method.options else (view,))]


def _selected(
    modules: Modules,
    method: Method,
    samples: Samples,
    device: torch.device,
    drawn: tuple[float, int],
    options: Mapping[str, Any],
    course: Tensor | None,
) -> Any:
    """The bare answer; ``course`` says what was right in which epoch, bool ``[N, E]``, for a method that watches."""
    share, seed = drawn
    epochs = 0 if course is None else course.shape[1]
    one = getattr(modules.methods, method.name)(
        samples,
        _arguments(samples, device),
        share,
        seed,
        epochs=epochs,
        balance=True,
        specific_model=NETWORK,
        pretrain_model=NETWORK,
        torchvision_pretrain=False,
        **options,
    )
    if course is not None:
        one.train = _Course(one, course, samples)
    return one.select()


def _arguments(samples: Samples, device: torch.device) -> SimpleNamespace:
    """What its classes read from the command line; the figures are its defaults."""
    training = {"optimizer": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    testing = {"test_interval": 0, "test_fraction": 1.0, "batch": BATCH}
    return SimpleNamespace(
        model=NETWORK,
        channel=samples.images.shape[1],
        num_classes=len(samples.classes),
        im_size=_NO_RESIZING,
        device=str(device),
        gpu=None,
        workers=0,
        print_freq=20,
        lr=0.1,
        **{f"selection_{name}": value for name, value in (training | testing).items()},
    )


class Samples(Dataset[tuple[Tensor, int]]):
    """Images as DeepCore wants them: normalised floats as the network saw them, and what torchvision's datasets carry.

    Attributes:
        images: uint8 ``[N, channels, H, W]``.
        rows: which of them there are, int64 ``[K]``.
        targets: int64 ``[K]``.
        classes: a name for every class.
        transform: of a batch of ``images``; a method that enlarges them adds a step to it.
    """

    def __init__(self, images: Tensor, labels: Tensor, rows: IntArray, network: Network | None) -> None:
        self.images, self.rows = images, rows
        self.targets: IntArray = labels.numpy()[rows]
        plain = Network(images.shape[1], nn.utils.skip_init(nn.Linear, 1, 1))  # type: ignore[no-untyped-call]  # it draws no weights
        if network is not None:
            plain.set_normalisation(network.mean, network.std)
        self.transform: Any = plain.normalise
        classes = int(labels.max()) + 1 if network is None else network.head.out_features
        self.classes = [str(label) for label in range(classes)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several at once, as torch's loaders ask if they can."""
        chosen = np.asarray(indices, dtype=np.int64)
        pixels = self.transform(self.images[torch.from_numpy(self.rows[chosen])])
        return list(zip(pixels, self.targets[chosen].tolist(), strict=True))


class Frozen(nn.Module):
    """A trained network of ours with the surface of DeepCore's. It stays in evaluation mode, and a copy of ours.

    Args:
        network: ours.
        recorder: keeps what the last layer sees, as DeepCore reads it.
        no_grad: whether outputs are made without gradients; DeepCore switches it.
    """

    def __init__(self, network: Network, recorder: nn.Module, no_grad: bool) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.embedding_recorder = recorder
        self.no_grad = no_grad
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stay as it is: in training mode its normalisation would follow the batches it is shown."""
        return super().train(False)

    def get_last_layer(self) -> nn.Linear:
        """The layer after the features."""
        return self.network.head

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, C]`` of normalised images."""
        with torch.set_grad_enabled(not self.no_grad):
            logits: Tensor = self.network.head(self.embedding_recorder(self.network.features(images)))
            return logits


@contextmanager
def _registered(modules: Modules, networks: Sequence[Network]) -> Iterator[None]:
    """Inside, asking the checkout's registry for :data:`NETWORK` gives our networks, one after the other."""
    turns = count()

    def build(*_: Any, record_embedding: bool = False, no_grad: bool = False, **__: Any) -> Frozen:
        recorder = modules.nets.nets_utils.EmbeddingRecorder(record_embedding)
        return Frozen(networks[next(turns) % len(networks)], recorder, no_grad)

    registry = vars(modules.nets)
    registry[NETWORK] = build
    try:
        yield
    finally:
        del registry[NETWORK]


class _Course:
    """Stands in for a method's training: tells it, epoch by epoch, what was right when our network was trained."""

    def __init__(self, method: Any, right: Tensor, samples: Samples) -> None:
        self.method, self.samples = method, samples
        self.right: npt.NDArray[np.bool_] = right.cpu().numpy()

    def __call__(self, epoch: int, *_: Any, **__: Any) -> Any:
        """One epoch; the outputs are as simple as the answers allow."""
        self.method.before_train()
        for start in range(0, len(self.samples), BATCH):
            positions = np.arange(start, min(start + BATCH, len(self.samples)))
            targets = torch.from_numpy(self.samples.targets[positions])
            outputs = torch.zeros(len(positions), max(2, len(self.samples.classes)))
            sign = torch.from_numpy(np.where(self.right[positions, epoch], 1.0, -1.0)).float()
            outputs[torch.arange(len(positions)), targets] = sign
            self.method.after_loss(outputs, torch.zeros(len(positions)), targets, positions.tolist(), epoch)
        return self.method.finish_train()


def _checked(name: str, found: Any, size: int) -> Answer:
    """The parts of an answer that are used, if they are what they should be."""
    if not isinstance(found, Mapping) or "indices" not in found:
        raise PluginError(f"DeepCore's {name} did not return a dictionary with 'indices': mend the checkout")
    indices = np.asarray(found["indices"])
    whole = indices.ndim == 1 and indices.dtype.kind in "iu"
    if not whole or (len(indices) and not (0 <= indices.min() and indices.max() < size)):
        raise PluginError(f"DeepCore's {name} returned indices that are no positions in 0..{size - 1}: mend the checkout")
    weights = found.get("weights")
    if weights is None:
        return Answer(indices.astype(np.int64), None)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != indices.shape:
        raise PluginError(f"DeepCore's {name} returned {values.size} weights for {len(indices)} indices: mend the checkout")
    return Answer(indices.astype(np.int64), values)
