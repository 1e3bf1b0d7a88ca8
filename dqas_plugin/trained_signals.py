"""What a network says of every sample once it is trained: the training, and the cache of its outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dqas_plugin.cache_entry import ArrayFile, cached_entry, map_array
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import DqasError
from dqas_plugin.paths import cache_folder
from dqas_plugin.precision import Build, resolve_device
from dqas_plugin.recipes import Recipe
from dqas_plugin.seeding import derive
from dqas_plugin.signals import Signals
from dqas_plugin.training import EpochReport, TrainingResult, outputs, train

_FORMAT = 1  # of the cache entries; a new number makes all old ones stale


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
        return Signals(data.labels, data.num_classes, features, logits, data.images, proxy=meta["proxy"])

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
