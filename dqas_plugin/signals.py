"""What one trained network says of every sample, and one class's window on it.

Selection rules read nothing else: they never train and never choose a device. ``trained_signals.compute_signals`` trains the
network, once per dataset, model, recipe and seed; ``Signals.from_arrays`` needs no network at all.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dqas_plugin.data import IntArray, by_class
from dqas_plugin.defaults import MAX_MEMORY
from dqas_plugin.errors import DqasError, UserError
from dqas_plugin.gradients import LastLayerGradients, residuals_of
from dqas_plugin.losses import sample_losses
from dqas_plugin.soundness import LARGEST_FEATURE, check_finite, unsound_rows

if TYPE_CHECKING:
    from dqas_plugin.models import Network
    from dqas_plugin.trainer import Trainer

ArrayLike = npt.ArrayLike | Tensor
T = TypeVar("T")

_WIDE = ("features", "logits", "head_inputs", "margins", "errors", "perturbations")  # may be on a GPU


@dataclass(frozen=True, eq=False)
class Signals:
    """Features, logits and labels of N samples. A signal that no method needs may be absent (None).

    Attributes:
        labels: int64 ``[N]``, in ``0..num_classes-1``.
        num_classes: C.
        features: what the last layer sees, or what another extractor makes of the images, float32 ``[N, d]``; may be
            memory-mapped. Never modified, like all the others.
        logits: float32 ``[N, C]``.
        images: uint8 ``[N, channels, H, W]``.
        head_inputs: what the last layer sees where ``features`` come from another extractor, float32 ``[N, h]``.
        margins: logit of the label minus the highest other one, when the sample was last trained on in every epoch, float32
            ``[N, E]``: the sample was classified rightly where it is above 0.
        errors: ``|p - y|`` at the same time, float32 ``[N, E]``.
        perturbations: squared length of the smallest change of the (normalised) pixels that changes the class, float32 ``[N]``.
        runs: features and logits of further trainings with other seeds.
        network: the trained network itself, in evaluation mode; it is only read.
        proxy: what is known of the network's training: accuracy per class, seconds … (empty without one).
        trainer: how networks are trained on these samples, for a refiner that does so itself; only a refiner gets it.
    """

    labels: Tensor
    num_classes: int
    features: Tensor | None = None
    logits: Tensor | None = None
    images: Tensor | None = None
    head_inputs: Tensor | None = None
    margins: Tensor | None = None
    errors: Tensor | None = None
    perturbations: Tensor | None = None
    runs: tuple[Signals, ...] = ()
    network: Network | None = None
    proxy: Mapping[str, Any] = field(default_factory=dict)
    trainer: Trainer | None = None

    @classmethod
    def from_arrays(
        cls,
        features: ArrayLike | None,
        logits: ArrayLike | None,
        labels: ArrayLike,
        images: ArrayLike | None = None,
        *,
        num_classes: int | None = None,
        head_inputs: ArrayLike | None = None,
        margins: ArrayLike | None = None,
        errors: ArrayLike | None = None,
        perturbations: ArrayLike | None = None,
        runs: Sequence[Signals] = (),
        network: Network | None = None,
    ) -> Signals:
        """Signals of bare arrays (NumPy, torch or lists), checked; nothing is copied that has the right type already.

        Tensors stay on their device, on which ranking then runs.

        Args:
            features: ``[N, d]``, or None for methods that need none.
            logits: ``[N, C]``, or None.
            labels: whole numbers ``[N]``.
            images: uint8 ``[N, channels, H, W]``, or None.
            num_classes: C; default: as many as there are logits, or else labels.
            head_inputs: ``[N, h]`` where the features are not what the last layer sees.
            margins: ``[N, E]``, see :class:`Signals`, like the others.
            errors: ``[N, E]``.
            perturbations: ``[N]``.
            runs: signals of the same samples under other trainings.
            network: what made the features and logits; it is brought into evaluation mode.

        Raises:
            UserError: for empty arrays, shapes that do not fit, numbers that are not finite (features: or above 1e16), labels
                out of range.
        """
        whole = _labels(labels)
        given = (features, logits, head_inputs, margins, errors, perturbations)
        wide: dict[str, Any] = {name: _floats(name, values, whole) for name, values in zip(_WIDE, given, strict=True)}
        outputs: Tensor | None = wide["logits"]
        default = int(whole.max()) + 1 if outputs is None else outputs.shape[1]
        classes = default if num_classes is None else num_classes
        if outputs is not None and outputs.shape[1] != classes:
            raise UserError(f"logits have {outputs.shape[1]} columns for {classes} classes: give one column per class")
        if int(whole.min()) < 0 or int(whole.max()) >= classes:
            raise UserError(f"labels must lie in 0..{classes - 1}, not {int(whole.min())}..{int(whole.max())}")
        if any(len(one) != len(whole) for one in runs):
            raise UserError(f"every run must have one row for each of the {len(whole)} labels: give runs of the same samples")
        ready = None if network is None else network.eval().requires_grad_(False)
        return cls(whole, classes, images=_images(images, len(whole)), runs=tuple(runs), network=ready, **wide)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where methods compute."""
        whole = [one for name in _WIDE if (one := getattr(self, name)) is not None]
        whole += [] if self.network is None else [self.network.head.weight]
        return whole[0].device if whole else torch.device("cpu")

    def members(self, label: int) -> IntArray:
        """Dataset indices of one class, ascending, int64."""
        if not 0 <= label < self.num_classes:
            raise UserError(f"there is no class {label}: labels lie in 0..{self.num_classes - 1}")
        return self._members[label]

    def view(self, label: int, candidates: npt.ArrayLike | None = None, *, seed: int = 0, max_memory: int = MAX_MEMORY) -> View:
        """One class's window: all its samples, or those of ``candidates`` (dataset indices that may be selected).

        Args:
            label: the class.
            candidates: dataset indices, or None for all.
            seed: of the ranking.
            max_memory: what a method may take, in bytes.
        """
        return self._views([label], candidates, seed, max_memory)[0]

    def views(self, candidates: npt.ArrayLike | None = None, *, seed: int = 0, max_memory: int = MAX_MEMORY) -> list[View]:
        """The windows of all classes, see :meth:`view`; they take memory when they are looked through."""
        return self._views(range(self.num_classes), candidates, seed, max_memory)

    def _views(self, labels: Iterable[int], candidates: npt.ArrayLike | None, seed: int, max_memory: int) -> list[View]:
        if candidates is None:
            return [View(self, self.members(label), label, seed=seed, max_memory=max_memory) for label in labels]
        allowed = _mask("candidates", candidates, len(self))
        among = np.flatnonzero(allowed).astype(np.int64)
        found = []
        for label in labels:
            members = self.members(label)
            found.append(View(self, members[allowed[members]], label, among, seed=seed, max_memory=max_memory))
        return found

    def subset(self, indices: npt.ArrayLike) -> Signals:
        """The signals of these dataset indices only (copied), in this order; sample i of the result is ``indices[i]`` here."""
        _mask("indices", indices, len(self))
        rows = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        given = {name: one for name in ("labels", "images", *_WIDE) if (one := getattr(self, name)) is not None}
        changed: dict[str, Any] = {name: one[rows] for name, one in given.items()}
        trainer = None if self.trainer is None else self.trainer.subset(indices)
        return replace(self, **changed, runs=tuple(one.subset(indices) for one in self.runs), trainer=trainer)

    def to(self, device: torch.device | str) -> Signals:
        """The same with everything that methods compute with on a device; labels and images stay where they are."""
        moved: dict[str, Any] = {name: one.to(device) for name in _WIDE if (one := getattr(self, name)) is not None}
        network = None if self.network is None else copy.deepcopy(self.network).to(device)  # others may still read this one
        return replace(self, **moved, runs=tuple(one.to(device) for one in self.runs), network=network)

    @cached_property
    def whole(self) -> View:
        """All samples of all classes."""
        return View(self, np.arange(len(self), dtype=np.int64), None)

    @cached_property
    def _members(self) -> list[IntArray]:
        return by_class(self.labels.numpy(), self.num_classes)


class View:
    """A window on some samples: those of one class, or (``whole``) of all. Everything is computed when first asked for.

    Attributes:
        indices: dataset indices of the rows, ascending, int64 ``[n]`` (NumPy). Position i of a view is ``indices[i]``.
        seed: of the ranking. Draw from the generator that a method gets, unless another program's draws are to be repeated.
        max_memory: what a method may take, in bytes, beyond the signals.
        notes: what methods want people to know, see :meth:`note`.
        counts: how many of every class are asked for in this ranking, int64 ``[C]``; None where a view stands alone. It is for
            programs that select from all classes at once.
    """

    def __init__(
        self,
        signals: Signals,
        indices: IntArray,
        label: int | None,
        candidates: IntArray | None = None,
        *,
        seed: int = 0,
        max_memory: int = MAX_MEMORY,
    ) -> None:
        self.indices = indices
        self.seed = seed
        self.max_memory = max_memory
        self.notes: list[str] = []
        self.counts: IntArray | None = None
        self._signals = signals
        self._label = label
        self._candidates = candidates

    def __len__(self) -> int:
        return len(self.indices)

    def note(self, text: str) -> None:
        """Tell people something about this ranking, such as an approximation made to stay within the memory."""
        self.notes.append(text)

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

    @property
    def all_labels(self) -> Tensor:
        """Labels of the whole dataset, also of what may not be selected, int64 ``[N]``: ``indices`` are places in it."""
        return self._signals.labels

    @cached_property
    def features(self) -> Tensor:
        """What the last layer sees, or what another extractor makes of the images, float32 ``[n, d]``."""
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
        losses = sample_losses(self.logits, self.labels.to(self.logits.device)).float()
        return losses.clamp_max_(torch.finfo(losses.dtype).max)  # of the largest logits that there are it would be infinite

    @cached_property
    def images(self) -> Tensor:
        """uint8 ``[n, channels, H, W]``."""
        return self._rows(_present("images", self._signals.images))

    @cached_property
    def gradients(self) -> LastLayerGradients:
        """Gradients of the loss in the last layer, implicit."""
        inputs = self._signals.head_inputs
        features = self.features if inputs is None else self._rows(inputs)
        return LastLayerGradients(residuals_of(self.logits, self.labels.to(self.logits.device)), features)

    @cached_property
    def margins(self) -> Tensor:
        """Logit of the label minus the highest other one in every epoch, float32 ``[n, E]``; above 0 means right."""
        return self._rows(_present("margins", self._signals.margins))

    @cached_property
    def errors(self) -> Tensor:
        """``|p - y|`` in every epoch, float32 ``[n, E]``."""
        return self._rows(_present("errors", self._signals.errors))

    @cached_property
    def perturbations(self) -> Tensor:
        """Squared length of the smallest change of the normalised pixels that changes the class, float32 ``[n]``."""
        return self._rows(_present("perturbations", self._signals.perturbations))

    @property
    def network(self) -> Network:
        """The trained network itself, in evaluation mode, on the device of the signals. All views share it: change a copy."""
        return _present("network", self._signals.network)

    @cached_property
    def runs(self) -> tuple[View, ...]:
        """This view, and the same samples under every further training."""
        return (self, *(View(one, self.indices, self._label, self._candidates) for one in self._signals.runs))

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


def _present(name: str, values: T | None) -> T:
    if values is None:
        raise UserError(f"these signals have no {name}: give them to Signals.from_arrays, or choose a method that needs none")
    return values


def _tensor(name: str, values: ArrayLike) -> Tensor:
    """As a tensor, without a copy where torch can share the memory."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(f"{name} must be numbers, not {array.dtype}")
    plain = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nothing writes here, and a copy may be large
        return torch.from_numpy(plain)


def _labels(values: ArrayLike) -> Tensor:
    labels = _tensor("labels", values)
    if labels.ndim != 1 or not len(labels):
        raise UserError(f"labels must be one whole number per sample, not an array of shape {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels must be whole numbers, not {labels.dtype}")
    return labels.long().cpu()


def _floats(name: str, values: ArrayLike | None, labels: Tensor) -> Tensor | None:
    if values is None:
        return None
    numbers, count = _tensor(name, values), len(labels)
    if numbers.ndim != (1 if name == "perturbations" else 2) or len(numbers) != count or not numbers.shape[-1]:
        raise UserError(f"{name} must have one row for each of the {count} labels, not the shape {tuple(numbers.shape)}")
    numbers = numbers.float().contiguous()
    scaled = name in ("features", "head_inputs")
    wrong = f"not finite or above {LARGEST_FEATURE:g}" if scaled else "not finite, or out of the range of float32,"
    unsound = unsound_rows(numbers, LARGEST_FEATURE if scaled else math.inf)
    remedy = "leave these samples out" + (", or scale the features down" if scaled else "")
    check_finite(f"{name} are {wrong}", unsound, labels.numpy(), remedy)
    return numbers


def _images(values: ArrayLike | None, count: int) -> Tensor | None:
    if values is None:
        return None
    images = _tensor("images", values)
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != count:
        raise UserError(f"images must be uint8 [{count}, channels, height, width], not {images.dtype} {tuple(images.shape)}")
    return images
