"""What one trained network says of every sample, and one class's window on it.

Selection rules read nothing else: they never train and never touch a device. ``compute_signals`` trains the network, once per
dataset, model, recipe and seed; ``Signals.from_arrays`` needs no network at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from dqas_plugin.cache_entry import ArrayFile, cached_entry, map_array
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.gradients import LastLayerGradients, residuals_of
from dqas_plugin.paths import cache_folder
from dqas_plugin.precision import Build, resolve_device
from dqas_plugin.recipes import Recipe
from dqas_plugin.seeding import derive
from dqas_plugin.training import EpochReport, TrainingResult, outputs, train

ArrayLike = npt.ArrayLike | Tensor

_CHUNK = 4096
_FORMAT = 1  # of the cache entries; a new number makes all old ones stale


@dataclass(frozen=True, eq=False)
class Signals:
    """Features, logits and labels of N samples. A signal that no method needs may be absent (None).

    Attributes:
        labels: int64 ``[N]``, in ``0..num_classes-1``.
        num_classes: C.
        features: what the last layer sees, float32 ``[N, d]``; may be memory-mapped. Never modified, like all the others.
        logits: float32 ``[N, C]``.
        images: uint8 ``[N, channels, H, W]``.
        proxy: what is known of the network's training: accuracy per class, seconds … (empty without one).
    """

    labels: Tensor
    num_classes: int
    features: Tensor | None = None
    logits: Tensor | None = None
    images: Tensor | None = None
    proxy: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls,
        features: ArrayLike | None,
        logits: ArrayLike | None,
        labels: ArrayLike,
        images: ArrayLike | None = None,
        *,
        num_classes: int | None = None,
    ) -> Signals:
        """Signals of bare arrays (NumPy, torch or lists), checked; nothing is copied that has the right type already.

        Args:
            features: ``[N, d]``, or None for methods that need none.
            logits: ``[N, C]``, or None.
            labels: whole numbers ``[N]``.
            images: uint8 ``[N, channels, H, W]``, or None.
            num_classes: C; default: as many as there are logits, or else labels.

        Raises:
            UserError: for empty arrays, shapes that do not fit, numbers that are not finite, labels out of range.
        """
        whole = _labels(labels)
        wide = {"features": _floats("features", features, len(whole)), "logits": _floats("logits", logits, len(whole))}
        outputs = wide["logits"]
        default = int(whole.max()) + 1 if outputs is None else outputs.shape[1]
        classes = default if num_classes is None else num_classes
        if outputs is not None and outputs.shape[1] != classes:
            raise UserError(f"logits have {outputs.shape[1]} columns for {classes} classes: give one column per class")
        if int(whole.min()) < 0 or int(whole.max()) >= classes:
            raise UserError(f"labels must lie in 0..{classes - 1}, not {int(whole.min())}..{int(whole.max())}")
        return cls(whole, classes, wide["features"], outputs, _images(images, len(whole)))

    def __len__(self) -> int:
        return len(self.labels)

    def members(self, label: int) -> IntArray:
        """Dataset indices of one class, ascending, int64."""
        if not 0 <= label < self.num_classes:
            raise UserError(f"there is no class {label}: labels lie in 0..{self.num_classes - 1}")
        return self._members[label]

    def view(self, label: int, candidates: npt.ArrayLike | None = None) -> View:
        """One class's window: all its samples, or those of ``candidates`` (dataset indices that may be selected)."""
        members = self.members(label)
        if candidates is None:
            return View(self, members, label)
        allowed = _mask("candidates", candidates, len(self))
        return View(self, members[allowed[members]], label, np.flatnonzero(allowed).astype(np.int64))

    def subset(self, indices: npt.ArrayLike) -> Signals:
        """The signals of these dataset indices only (copied), in this order; sample i of the result is ``indices[i]`` here."""
        _mask("indices", indices, len(self))
        rows = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        features, logits, images = (None if one is None else one[rows] for one in (self.features, self.logits, self.images))
        return Signals(self.labels[rows], self.num_classes, features, logits, images, self.proxy)

    @cached_property
    def whole(self) -> View:
        """All samples of all classes."""
        return View(self, np.arange(len(self), dtype=np.int64), None)

    @cached_property
    def _members(self) -> list[IntArray]:
        labels = self.labels.numpy()
        order = np.argsort(labels, kind="stable").astype(np.int64)
        return np.split(order, np.cumsum(np.bincount(labels, minlength=self.num_classes))[:-1])


class View:
    """A window on some samples: those of one class, or (``whole``) of all. Everything is computed when first asked for.

    Attributes:
        indices: dataset indices of the rows, ascending, int64 ``[n]`` (NumPy). Position i of a view is ``indices[i]``.
    """

    def __init__(self, signals: Signals, indices: IntArray, label: int | None, candidates: IntArray | None = None) -> None:
        self.indices = indices
        self._signals = signals
        self._label = label
        self._candidates = candidates

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def label(self) -> int:
        """The class."""
        if self._label is None:
            raise DqasError("the view of the whole dataset has no one label: use its labels")
        return self._label

    @cached_property
    def labels(self) -> Tensor:
        """int64 ``[n]``."""
        return self._rows(self._signals.labels)

    @cached_property
    def features(self) -> Tensor:
        """What the last layer sees, float32 ``[n, d]``."""
        return self._rows(_present("features", self._signals.features))

    @cached_property
    def logits(self) -> Tensor:
        """float32 ``[n, C]``."""
        return self._rows(_present("logits", self._signals.logits))

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, float32 ``[n, C]``."""
        return self.logits.softmax(dim=1)

    @cached_property
    def losses(self) -> Tensor:
        """Cross-entropy (nats), float32 ``[n]``."""
        return functional.cross_entropy(self.logits, self.labels, reduction="none")

    @cached_property
    def images(self) -> Tensor:
        """uint8 ``[n, channels, H, W]``."""
        return self._rows(_present("images", self._signals.images))

    @cached_property
    def gradients(self) -> LastLayerGradients:
        """Gradients of the loss in the last layer, implicit."""
        return LastLayerGradients(residuals_of(self.logits, self.labels), self.features)

    @cached_property
    def whole(self) -> View:
        """The view of every class together, of the candidates where they are limited."""
        if self._label is None:
            return self
        return self._signals.whole if self._candidates is None else View(self._signals, self._candidates, None)

    def _rows(self, values: Tensor) -> Tensor:
        if len(self.indices) == len(values):  # ascending and without repeats: all of them
            return values
        return values[torch.from_numpy(self.indices)]


def compute_signals(
    data: ImageDataset,
    model: str,
    build: Build,
    recipe: Recipe,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    trained_on: IntArray | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> Signals:
    """Features and logits of every image under a network trained on all of them, briefly (``recipe.for_proxy()``).

    With ``trained_on`` the network is trained on those images alone, as long as the recipe says: to all others it is what a
    network trained on a coreset of that size would be.

    They are kept in the cache under a hash of everything they depend on and are memory-mapped from there, so that all
    methods, ratios and processes share one training. ``Signals.proxy`` tells how it went: ``accuracy`` (a list, per class, on
    images it was trained on; None for a class without any), ``seconds``, ``precision``, ``steps``.

    Args:
        data: the training split.
        model: name of the network, part of the hash.
        build: makes it.
        recipe: of the experiment.
        seed: of the experiment.
        device: where to train.
        trained_on: int64 dataset indices to train on; None: all, briefly.
        on_epoch: told of the progress, if there is a training.

    Raises:
        UserError: for an empty dataset or a cache that cannot be written.
        DqasError: if the training diverges.
    """
    place = resolve_device(device)
    proxy = recipe.for_proxy() if trained_on is None else recipe

    def fill(folder: Path) -> dict[str, Any]:
        trained = data if trained_on is None else data.subset(trained_on)
        result = train(build, trained, proxy, derive(seed, "proxy"), device=place, on_epoch=on_epoch)
        return _write_outputs(folder, result, data, trained_on)

    def read(folder: Path, meta: dict[str, Any]) -> Signals:
        features, logits = map_array(folder / "features.npy"), map_array(folder / "logits.npy")
        if len(features) != len(data) or logits.shape != (len(data), data.num_classes):
            raise ValueError("arrays of other shapes than the dataset's")  # treated as damage
        return Signals(data.labels, data.num_classes, features, logits, data.images, meta["proxy"])

    # Everything that the signals depend on; what a recipe is called is not among it.
    options = {key: value for key, value in proxy.as_dict().items() if key != "name"}
    part = None if trained_on is None else hashlib.blake2b(trained_on.astype("<i8").tobytes()).hexdigest()
    described = [_FORMAT, data.fingerprint, data.mirror, model, options, int(seed), place.type, str(torch.__version__), part]
    key = hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()
    return cached_entry(cache_folder("signals") / key, f"the signals of {data.name}", fill, read)


def _write_outputs(folder: Path, result: TrainingResult, data: ImageDataset, trained_on: IntArray | None) -> dict[str, Any]:
    """Write ``features.npy`` and ``logits.npy``, chunk by chunk; the metadata of the entry."""
    count, width = len(data), result.network.head.in_features
    hit = np.empty(count, dtype=np.bool_)
    start = 0
    with (
        ArrayFile(folder / "features.npy", (count, width), np.float32) as features_file,
        ArrayFile(folder / "logits.npy", (count, data.num_classes), np.float32) as logits_file,
    ):
        for features, logits in outputs(result.network, data, precision=result.precision):
            if not (features.isfinite().all() and logits.isfinite().all()):
                raise DqasError(
                    f"the network trained on {data.name} gives numbers that are not finite: lower the learning rate"
                )
            rows = slice(start, start := start + len(logits))
            hit[rows] = (logits.argmax(dim=1) == data.labels[rows]).numpy()
            features_file.write(features.numpy())
            logits_file.write(logits.numpy())
    labels, seen = data.labels.numpy(), slice(None) if trained_on is None else trained_on
    hits, sizes = (np.bincount(labels[seen], one, data.num_classes) for one in (hit[seen], None))
    accuracy = [float(right / size) if size else None for right, size in zip(hits, sizes, strict=True)]
    proxy = {"accuracy": accuracy, "seconds": result.seconds, "precision": result.precision, "steps": result.steps}
    return {"proxy": proxy}


def _mask(name: str, indices: npt.ArrayLike, count: int) -> npt.NDArray[np.bool_]:
    """A mask ``[count]`` of the indices."""
    given = np.asarray(indices)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise UserError(f"{name} must be a list of dataset indices, not {given.dtype} {given.shape}")
    if given.size and (int(given.min()) < 0 or int(given.max()) >= count):
        raise UserError(f"{name} must lie in 0..{count - 1}, not {int(given.min())}..{int(given.max())}")
    mask = np.zeros(count, dtype=np.bool_)
    mask[given.astype(np.int64)] = True
    return mask


def _present(name: str, values: Tensor | None) -> Tensor:
    if values is None:
        raise UserError(f"these signals have no {name}: give them to Signals.from_arrays, or choose a method that needs none")
    return values


def _tensor(name: str, values: ArrayLike) -> Tensor:
    """As a tensor on the CPU, without a copy where torch can share the memory without a warning."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{name} must be numbers, not {array.dtype}")
    return torch.from_numpy(np.require(array.astype(array.dtype.newbyteorder("="), copy=False), requirements=["C", "W"]))


def _labels(values: ArrayLike) -> Tensor:
    labels = _tensor("labels", values)
    if labels.ndim != 1 or not len(labels):
        raise UserError(f"labels must be one whole number per sample, not an array of shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels must be whole numbers, not {labels.dtype}")
    return labels.long()


def _floats(name: str, values: ArrayLike | None, count: int) -> Tensor | None:
    if values is None:
        return None
    numbers = _tensor(name, values)
    if numbers.ndim != 2 or len(numbers) != count or not numbers.shape[1]:
        raise UserError(f"{name} must have one row for each of the {count} labels, not the shape {tuple(numbers.shape)}")
    numbers = numbers.float().contiguous()
    if not all(bool(numbers[at : at + _CHUNK].isfinite().all()) for at in range(0, count, _CHUNK)):
        raise UserError(f"{name} must be finite numbers in the range of float32: remove nan and infinity")
    return numbers


def _images(values: ArrayLike | None, count: int) -> Tensor | None:
    if values is None:
        return None
    images = _tensor("images", values)
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != count:
        raise UserError(f"images must be uint8 [{count}, channels, height, width], not {images.dtype} {tuple(images.shape)}")
    return images
