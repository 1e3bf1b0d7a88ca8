"""What a network says of every sample once it is trained, and while it was: the training, and the cache of its outputs.

One training serves all methods: its outputs, the network itself for what is computed of it later, and the course of the
training (the margin and the error of every sample in every epoch, when it is trained on; Toneva et al., ICLR 2019; Pleiss et
al., NeurIPS 2020).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.cache_entry import ArrayFile, cached_entry, map_array
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.paths import cache_folder
from dqas_plugin.precision import Build, resolve_device
from dqas_plugin.recipes import Recipe
from dqas_plugin.seeding import derive
from dqas_plugin.signals import Signals
from dqas_plugin.training import EpochReport, TrainingResult, outputs, train

_FORMAT = 2  # of the cache entries; a new number makes all old ones stale
OnEpoch = Callable[[EpochReport], None]


def compute_signals(
    data: ImageDataset,
    model: str,
    build: Build,
    recipe: Recipe,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    trained_on: IntArray | None = None,
    on_epoch: OnEpoch | None = None,
    needs: frozenset[str] = frozenset(),
    repeat: int = 1,
    features: str = "proxy",
) -> Signals:
    """Features and logits of every image under a network trained on all of them, briefly (``recipe.for_proxy()``).

    With ``trained_on`` the network is trained on those images alone, as long as the recipe says: to all others it is what a
    network trained on a coreset of that size would be.

    They are kept in the cache under a hash of everything they depend on and are memory-mapped from there, so that all
    methods, ratios and processes share one training. ``Signals.proxy`` tells how it went: ``accuracy`` (a list, per class, on
    images it was trained on; None for a class without any), ``seconds`` (of all that was computed, now or earlier),
    ``precision``, ``steps``.

    Args:
        data: the training split.
        model: name of the network, part of the hash.
        build: makes it.
        recipe: of the experiment.
        seed: of the experiment.
        device: where to train.
        trained_on: int64 dataset indices to train on, without a record of the course; None: all, briefly.
        on_epoch: told of the progress, if there is a training.
        needs: which signals are wanted besides; ``perturbations`` are computed only if they are among them.
        repeat: how many trainings; the second and later ones go to ``Signals.runs``.
        features: ``proxy``, or an extractor (``timm:NAME``), whose features stand for the proxy's if ``needs`` has them.

    Raises:
        UserError: for an empty dataset, a name that means nothing, or a cache that cannot be written.
        DqasError: if the training diverges.
    """
    if repeat < 1:
        raise UserError(f"signals come from at least one training, not {repeat}: set repeat to 1 or more")
    proxy = _Proxy(data, model, build, recipe, resolve_device(device), trained_on, on_epoch)
    found = proxy.signals(seed)
    if "perturbations" in needs:
        found = proxy.perturbed(found, seed)
    if features != "proxy" and "features" in needs:
        found = _extracted(found, data, features, proxy.device)
    if repeat == 1:
        return found
    runs = tuple(proxy.signals(derive(seed, "repeat", number)) for number in range(1, repeat))
    seconds = sum(float(one.proxy["seconds"]) for one in (found, *runs))
    return replace(found, runs=runs, proxy={**found.proxy, "seconds": seconds})


class _Proxy:
    """The trainings of one network on one dataset, by seed."""

    def __init__(
        self,
        data: ImageDataset,
        model: str,
        build: Build,
        recipe: Recipe,
        device: torch.device,
        trained_on: IntArray | None,
        on_epoch: OnEpoch | None,
    ) -> None:
        self.data, self.build, self.device, self.trained_on, self.on_epoch = data, build, device, trained_on, on_epoch
        self.recipe = recipe.for_proxy() if trained_on is None else recipe
        # Everything that the signals depend on; what a recipe is called is not among it.
        options = {key: value for key, value in self.recipe.as_dict().items() if key != "name"}
        part = None if trained_on is None else hashlib.blake2b(trained_on.astype("<i8").tobytes()).hexdigest()
        self.described = [data.fingerprint, data.mirror, model, options, device.type, str(torch.__version__), part]

    def entry(self, seed: int) -> Path:
        """Folder of the cache entry."""
        return cache_folder("signals") / _digest([_FORMAT, int(seed), *self.described])

    def signals(self, seed: int) -> Signals:
        """Features, logits and the course of the training, from the cache if they are there."""
        data, trained_on = self.data, self.trained_on

        def fill(folder: Path) -> dict[str, Any]:
            course = _Course(data, self.recipe) if trained_on is None else None
            trained = data if trained_on is None else data.subset(trained_on)
            own = derive(seed, "proxy")
            result = train(self.build, trained, self.recipe, own, device=self.device, on_epoch=self.on_epoch, record=course)
            torch.save(result.network.state_dict(), folder / "network.pt")
            if course is not None:
                course.write(folder)
            return _write_outputs(folder, result, data, trained_on)

        def read(folder: Path, meta: dict[str, Any]) -> Signals:
            features, logits = map_array(folder / "features.npy"), map_array(folder / "logits.npy")
            if len(features) != len(data) or logits.shape != (len(data), data.num_classes):
                raise ValueError("arrays of other shapes than the dataset's")  # treated as damage
            found = Signals(data.labels, data.num_classes, features, logits, data.images, proxy=meta["proxy"])
            if trained_on is not None:
                return found
            return replace(found, margins=map_array(folder / "margins.npy"), errors=map_array(folder / "errors.npy"))

        return cached_entry(self.entry(seed), f"the signals of {data.name}", fill, read)

    def perturbed(self, found: Signals, seed: int) -> Signals:
        """The signals with DeepFool's perturbations under the trained network."""
        from dqas_plugin.deepfool import perturbations

        def compute(folder: Path) -> None:
            network = self.build(self.data.image_shape, self.data.num_classes)
            network.load_state_dict(torch.load(self.entry(seed) / "network.pt", map_location="cpu", weights_only=True))
            lengths = perturbations(network, self.data.images, device=self.device)
            with ArrayFile(folder / "values.npy", tuple(lengths.shape), np.float32) as file:
                file.write(lengths.numpy())

        entry = cache_folder("perturbations") / self.entry(seed).name
        lengths, seconds = _timed_entry(entry, f"the perturbations of {self.data.name}", compute)
        return replace(found, perturbations=lengths, proxy=_later(found, seconds))


def _extracted(found: Signals, data: ImageDataset, name: str, device: torch.device) -> Signals:
    """The signals with the features of another network; the proxy's are still what its last layer sees."""
    from dqas_plugin.extractors import resolve

    extractor = resolve(name)

    def compute(folder: Path) -> None:
        with ArrayFile(folder / "values.npy", (len(data), extractor.width), np.float32) as file:
            for block in extractor.features(data, device=device):
                file.write(block.numpy())

    described = [_FORMAT, data.fingerprint, extractor.identity, device.type, str(torch.__version__)]
    features, seconds = _timed_entry(cache_folder("features") / _digest(described), f"the features of {data.name}", compute)
    return replace(found, features=features, head_inputs=found.features, proxy=_later(found, seconds))


def _timed_entry(entry: Path, name: str, compute: Callable[[Path], None]) -> tuple[Tensor, float]:
    """The array ``values.npy`` that ``compute`` writes into its folder, from the cache if it is there, and its seconds."""

    def fill(folder: Path) -> dict[str, Any]:
        started = time.perf_counter()
        compute(folder)
        return {"seconds": time.perf_counter() - started}

    def read(folder: Path, meta: dict[str, Any]) -> tuple[Tensor, float]:
        return map_array(folder / "values.npy"), float(meta["seconds"])

    return cached_entry(entry, name, fill, read)


def _later(found: Signals, seconds: float) -> dict[str, Any]:
    """What is known of the proxy, with the time of something more that was computed."""
    return {**found.proxy, "seconds": float(found.proxy["seconds"]) + seconds}


class _Course:
    """Keeps the margin and the error of every sample in every whole epoch: float32 ``[N, E]`` each."""

    def __init__(self, data: ImageDataset, recipe: Recipe) -> None:
        self.labels, self.batches = data.labels, recipe.batches(len(data))
        self.margins = torch.zeros(len(data), max(1, recipe.steps(len(data)) // self.batches))
        self.errors = torch.zeros_like(self.margins)
        self.step = 0

    def __call__(self, places: Tensor, logits: Tensor) -> None:
        """Note one batch (see :data:`dqas_plugin.training.Record`)."""
        epoch = self.step // self.batches
        self.step += 1
        if epoch >= self.margins.shape[1]:  # the beginning of an epoch that does not end
            return
        label = self.labels[places, None].to(logits.device)
        own, others = logits.gather(1, label), logits.scatter(1, label, -torch.inf)
        residuals = logits.softmax(dim=1).scatter_add(1, label, -torch.ones_like(own))
        self.margins[places, epoch] = (own.squeeze(1) - others.amax(dim=1)).cpu()
        self.errors[places, epoch] = residuals.norm(dim=1).cpu()

    def write(self, folder: Path) -> None:
        """Write ``margins.npy`` and ``errors.npy``."""
        for name, values in (("margins", self.margins), ("errors", self.errors)):
            with ArrayFile(folder / f"{name}.npy", tuple(values.shape), np.float32) as file:
                file.write(values.numpy())


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


def _digest(described: list[Any]) -> str:
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()
