"""What a network says of every sample once it is trained, and while it was: the training, and the cache of its outputs.

One training serves all methods: its outputs, the network itself for what is computed of it later, and the course of the
training (the margin and the error of every sample in every epoch, when it is trained on; Toneva et al., ICLR 2019; Pleiss et
al., NeurIPS 2020).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqas_plugin.cache_entry import ArrayFile, cached_entry, entry_key, map_array, write_weights
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.deepfool import MAX_ITERATIONS, perturbations
from dqas_plugin.errors import UserError
from dqas_plugin.extractors import Extractor, resolve
from dqas_plugin.gradients import residuals_of
from dqas_plugin.models import Network
from dqas_plugin.paths import cache_folder
from dqas_plugin.precision import Build, resolve_device
from dqas_plugin.recipes import Recipe
from dqas_plugin.seeding import derive
from dqas_plugin.signals import Signals
from dqas_plugin.soundness import LARGEST_FEATURE, check_finite, unsound_rows
from dqas_plugin.told import Told
from dqas_plugin.torch_files import read_torch
from dqas_plugin.training import EpochReport, TrainingResult, outputs, train

_FORMAT = 3  # of the cache entries; a new number makes all old ones stale
_ROWS = 4096  # samples whose course is worked out at once
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
    report: Callable[[str], None] | None = None,
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
        needs: which signals are read: ``perturbations`` and ``network`` are there only if they are among them.
        repeat: how many trainings; the second and later ones go to ``Signals.runs``.
        features: ``proxy``, or an extractor (``timm:NAME``), whose features stand for the proxy's if ``needs`` has them (or
            says nothing). The runs keep those of their own networks.
        report: told now and then how far what comes after the training is.

    Raises:
        UserError: for an empty dataset, a name that means nothing, or a cache that cannot be written.
        NotFiniteError: if the training diverges.
    """
    if repeat < 1:
        raise UserError(f"signals come from at least one training, not {repeat}: set repeat to 1 or more")
    proxy = _Proxy(data, model, build, recipe, resolve_device(device), trained_on, on_epoch)
    other = None if features == "proxy" or (needs and "features" not in needs) else resolve(features)
    extracted = None if other is None else _extracted(data, other, proxy.device, report)  # first: mistakes show at once
    found = proxy.signals(seed, needs)
    if extracted is not None:
        values, seconds = extracted
        found = replace(found, features=values, head_inputs=found.features, proxy=_later(found, seconds))
    if "perturbations" in needs:
        found = proxy.perturbed(found, seed, report)
    if repeat == 1:
        return found
    runs = tuple(proxy.signals(derive(seed, "repeat", number), needs) for number in range(1, repeat))
    seconds = sum(float(one.proxy["seconds"]) for one in (found, *runs))
    return replace(found, runs=runs, proxy={**found.proxy, "seconds": seconds})


def trained_network(
    data: ImageDataset, model: str, build: Build, recipe: Recipe, seed: int, *, device: torch.device | str = "cpu"
) -> tuple[Callable[[], Network], str]:
    """The network whose signals all methods share, as a function that trains it if the cache has none; and what names it.

    Args:
        data: as for :func:`compute_signals`, like the others.
    """
    proxy = _Proxy(data, model, build, recipe, resolve_device(device), None, None)

    def network() -> Network:
        proxy.signals(seed)
        return proxy.network(seed)

    return network, proxy.entry(seed).name


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
        return cache_folder("signals") / entry_key([_FORMAT, int(seed), *self.described])

    def signals(self, seed: int, needs: frozenset[str] = frozenset()) -> Signals:
        """Features, logits and the course of the training, from the cache if they are there; the network if it is needed."""
        found = self._outputs(seed)
        return replace(found, network=self.network(seed).requires_grad_(False)) if "network" in needs else found

    def _outputs(self, seed: int) -> Signals:
        data, trained_on = self.data, self.trained_on

        def fill(folder: Path) -> dict[str, Any]:
            course = _Course(data, self.recipe) if trained_on is None else None
            trained = data if trained_on is None else data.subset(trained_on)
            own = derive(seed, "proxy")
            result = train(self.build, trained, self.recipe, own, device=self.device, on_epoch=self.on_epoch, record=course)
            write_weights(result.network.state_dict(), folder / "network.pt")
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
            margins, errors = map_array(folder / "margins.npy"), map_array(folder / "errors.npy")
            if margins.shape != errors.shape or len(margins) != len(data) or margins.ndim != 2:
                raise ValueError("a course of other samples than the dataset's")
            return replace(found, margins=margins, errors=errors)

        return cached_entry(self.entry(seed), f"the signals of {data.name}", fill, read)

    def network(self, seed: int) -> Network:
        """The trained network, once its signals are there."""
        path = self.entry(seed) / "network.pt"
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and forgotten
            network = self.build(self.data.image_shape, self.data.num_classes)
        try:
            network.load_state_dict(read_torch(path, "the weights of a network"))
        except (UserError, RuntimeError, TypeError) as error:  # not readable, other weights, or none
            raise UserError(f"the trained network {path} cannot be read back: delete its folder to train it again") from error
        network.to(memory_format=torch.channels_last)
        return network.eval()

    def perturbed(self, found: Signals, seed: int, report: Callable[[str], None] | None) -> Signals:
        """The signals with DeepFool's perturbations under the trained network."""

        def compute(folder: Path) -> None:
            lengths = perturbations(self.network(seed), self.data.images, device=self.device, report=report)
            with ArrayFile(folder / "values.npy", tuple(lengths.shape), np.float32) as file:
                file.write(lengths.numpy())

        entry = cache_folder("perturbations") / entry_key([_FORMAT, self.entry(seed).name, MAX_ITERATIONS])
        lengths, seconds = _timed_entry(entry, f"the perturbations of {self.data.name}", len(self.data), compute)
        return replace(found, perturbations=lengths, proxy=_later(found, seconds))


def _extracted(
    data: ImageDataset, extractor: Extractor, device: torch.device, report: Callable[[str], None] | None
) -> tuple[Tensor, float]:
    """The features of another network, float32 ``[N, d]``, and how long they took."""

    def compute(folder: Path) -> None:
        with ArrayFile(folder / "values.npy", (len(data), extractor.width), np.float32) as file:
            told, done = Told(f"features of {extractor.name}", report), 0
            for block in extractor.features(data, device=device):
                told.done(done := done + len(block), len(data))
                if not block.isfinite().all():
                    raise UserError(f"timm:{extractor.name} makes numbers of {data.name} that are not finite: choose another")
                file.write(block.numpy())

    described = [_FORMAT, data.fingerprint, extractor.identity, device.type, str(torch.__version__)]
    entry = cache_folder("features") / entry_key(described)
    return _timed_entry(entry, f"the features of {data.name}", len(data), compute)


def _timed_entry(entry: Path, name: str, count: int, compute: Callable[[Path], None]) -> tuple[Tensor, float]:
    """The ``count`` rows that ``compute`` writes to ``values.npy`` in its folder, from the cache if there, and its seconds."""

    def fill(folder: Path) -> dict[str, Any]:
        started = time.perf_counter()
        compute(folder)
        return {"seconds": time.perf_counter() - started}

    def read(folder: Path, meta: dict[str, Any]) -> tuple[Tensor, float]:
        values = map_array(folder / "values.npy")
        if len(values) != count:
            raise ValueError("values of other samples than the dataset's")
        return values, float(meta["seconds"])

    return cached_entry(entry, name, fill, read)


def _later(found: Signals, seconds: float) -> dict[str, Any]:
    """What is known of the proxy, with the time of something more that was computed."""
    return {**found.proxy, "seconds": float(found.proxy["seconds"]) + seconds}


class _Course:
    """Keeps the margin and the error of every sample in every epoch: float32 ``[N, E]`` each."""

    def __init__(self, data: ImageDataset, recipe: Recipe) -> None:
        self.labels = data.labels
        self.margins = torch.zeros(len(data), recipe.steps(len(data)) // recipe.batches(len(data)))
        self.errors = torch.zeros_like(self.margins)
        self.seen = 0  # samples worked out; each comes once in an epoch
        self.waiting: list[tuple[Tensor, Tensor]] = []
        self.rows = 0  # among those waiting

    def __call__(self, positions: Tensor, logits: Tensor) -> None:
        """Note one batch (see :func:`dqas_plugin.training.train`), to be worked out with its neighbours: that costs less."""
        self.waiting.append((positions, logits))
        self.rows += len(positions)
        if self.rows >= _ROWS or (self.seen + self.rows) % len(self.labels) == 0:  # not across the end of an epoch
            self._work_out()

    def _work_out(self) -> None:
        positions, logits = (torch.cat(parts) for parts in zip(*self.waiting, strict=True))
        epoch = self.seen // len(self.labels)
        self.seen += self.rows
        self.waiting, self.rows = [], 0
        label = self.labels[positions].to(logits.device)
        others = logits.scatter(1, label[:, None], -torch.inf).amax(dim=1)
        margins = logits.gather(1, label[:, None]).squeeze(1) - others
        self.margins[positions, epoch] = margins.clamp_max(torch.finfo(margins.dtype).max).cpu()  # a single class has no other
        self.errors[positions, epoch] = residuals_of(logits, label).norm(dim=1).float().cpu()

    def write(self, folder: Path) -> None:
        """Write ``margins.npy`` and ``errors.npy``."""
        for name, values in (("margins", self.margins), ("errors", self.errors)):
            with ArrayFile(folder / f"{name}.npy", tuple(values.shape), np.float32) as file:
                file.write(values.numpy())


def _write_outputs(folder: Path, result: TrainingResult, data: ImageDataset, trained_on: IntArray | None) -> dict[str, Any]:
    """Write ``features.npy`` and ``logits.npy``, chunk by chunk; the metadata of the entry."""
    count, width = len(data), result.network.head.in_features
    hit, unsound = np.empty((2, count), dtype=np.bool_)
    start = 0
    with (
        ArrayFile(folder / "features.npy", (count, width), np.float32) as features_file,
        ArrayFile(folder / "logits.npy", (count, data.num_classes), np.float32) as logits_file,
    ):
        for features, logits in outputs(result.network, data, precision=result.precision):
            rows = slice(start, start := start + len(logits))
            unsound[rows] = unsound_rows(features, LARGEST_FEATURE) | unsound_rows(logits)
            hit[rows] = (logits.argmax(dim=1) == data.labels[rows]).numpy()
            features_file.write(features.numpy())
            logits_file.write(logits.numpy())
    what = f"what the network trained on {data.name} makes of its images is not finite or above {LARGEST_FEATURE:g}"
    check_finite(what, unsound, data.labels.numpy(), "lower the learning rate", data.classes)
    labels, seen = data.labels.numpy(), slice(None) if trained_on is None else trained_on
    hits, sizes = (np.bincount(labels[seen], one, data.num_classes) for one in (hit[seen], None))
    accuracy = [float(right / size) if size else None for right, size in zip(hits, sizes, strict=True)]
    proxy = {"accuracy": accuracy, "seconds": result.seconds, "precision": result.precision, "steps": result.steps}
    return {"proxy": proxy}
