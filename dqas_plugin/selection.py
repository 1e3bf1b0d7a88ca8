"""The two values that everything passes around: a :class:`Ranking` of the samples of every class, and a :class:`Selection`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dqas_plugin.data import FloatArray, ImageDataset, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.paths import atomic_file
from dqas_plugin.seeding import torch_generator
from dqas_plugin.untrusted import check_readable, parsed_json, read_array, size_of

if TYPE_CHECKING:
    from torch.utils.data import Dataset, Subset, WeightedRandomSampler

WeightArray = npt.NDArray[np.float32]

_MOST_DENSE = 64  # times its length a file may hold: ours are not compressed, and what others compress shrinks by 2 to 10
_LONGEST_EXTRA = 64  # bytes beside a name in a .npz: NumPy writes 28 at most, for lengths beyond 4 GB
_ALLOWED = {"order", "sizes", "indices", "counts", "weights", "meta"}


@dataclass(frozen=True, eq=False)
class Ranking:
    """The samples of every class, best first.

    Attributes:
        order: ``order[c]``, int64: dataset indices of class c, best first; may be only the beginning of the class.
        method: what made it, e.g. ``graphcut:eq7``.
        nested: the choice of k samples is the first k. If false the ranking holds for these very counts only.
        weights: ``weights[c]``, float64, in step with ``order[c]``, for methods that weigh their choice.
        provenance: JSON-able notes: options, seed, dataset fingerprint …
    """

    order: tuple[IntArray, ...]
    method: str
    nested: bool = True
    weights: tuple[FloatArray, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def capacity(self) -> IntArray:
        """Samples ranked in each class, int64 ``[C]``."""
        return np.array([len(one) for one in self.order], dtype=np.int64)

    def take(self, counts: npt.ArrayLike) -> IntArray:
        """The first ``counts[c]`` samples of every class, class after class: int64 ``[sum(counts)]``.

        Raises:
            UserError: if a class is ranked less deeply than its count.
        """
        wanted = np.asarray(counts, dtype=np.int64)
        if wanted.shape != (len(self.order),):
            raise UserError(f"the ranking '{self.method}' has {len(self.order)} classes, not {wanted.size}")
        if (wanted > self.capacity).any():
            label = int(np.argmax(wanted > self.capacity))
            raise UserError(
                f"the ranking '{self.method}' holds {self.capacity[label]} samples of class {label}, not {wanted[label]}: "
                "rank more of them or lower the budget"
            )
        parts = [one[:count] for one, count in zip(self.order, wanted, strict=True)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def taken_weights(self, counts: npt.ArrayLike) -> WeightArray | None:
        """The weights of :meth:`take`, float32, or None for a method without weights."""
        if self.weights is None:
            return None
        parts = [one[:count] for one, count in zip(self.weights, np.asarray(counts), strict=True)]
        return np.concatenate(parts).astype(np.float32)

    def save(self, path: str | Path) -> Path:
        """Write one ``.npz`` without pickles: ``order`` (all classes in a row), ``sizes``, optional ``weights``, ``meta``."""
        meta = {"method": self.method, "nested": self.nested, "provenance": dict(self.provenance)}
        arrays: dict[str, npt.NDArray[Any]] = {"order": np.concatenate(self.order), "sizes": self.capacity}
        if self.weights is not None:
            arrays["weights"] = np.concatenate(self.weights)
        return _write(Path(path), arrays, meta)

    @staticmethod
    def load(path: str | Path) -> Ranking:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: if it is not such a file, or does not hold together.
        """
        arrays, meta = _read(Path(path), "ranking", ("order", "sizes"))
        order, sizes, weights = arrays["order"], arrays["sizes"], arrays.get("weights")
        sound = _sums_to(sizes, len(order)) and len(np.unique(order)) == len(order) and len(sizes) > 0
        if not sound or (order < 0).any() or (weights is not None and weights.shape != order.shape):
            raise UserError(f"{path} is damaged: its order and sizes do not fit together; write it again")
        if not isinstance(provenance := meta.get("provenance", {}), dict):
            raise UserError(f"{path} is not a ranking file: its provenance is not a JSON object")
        edges = np.cumsum(sizes)[:-1]
        return Ranking(
            tuple(np.split(order, edges)),
            str(meta.get("method", "ranking")),
            bool(meta.get("nested", True)),
            None if weights is None else tuple(np.split(weights.astype(np.float64), edges)),
            provenance,
        )


@dataclass(frozen=True, eq=False)
class Selection:
    """A chosen training set.

    Attributes:
        indices: int64 ``[K]`` into the dataset, class after class, best first, then what a refiner added.
        counts: int64 ``[C]``, how many of each class.
        weights: float32 ``[K]`` loss weights, or None.
        provenance: method and options, ratio, seed, dataset and fingerprint, versions, seconds of each step … (JSON-able).
    """

    indices: IntArray
    counts: IntArray
    weights: WeightArray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(np.unique(self.indices)) != len(self.indices):
            raise UserError("a selection names a sample twice: every index may appear once")
        if not _sums_to(self.counts, len(self.indices)):
            total = sum(self.counts.tolist())
            raise UserError(f"a selection's counts sum to {total} but it has {len(self.indices)} samples")
        if self.weights is not None and self.weights.shape != self.indices.shape:
            raise UserError(f"a selection has {len(self.weights)} weights for {len(self.indices)} samples")

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the dataset that the indices belong to."""
        found = self.provenance.get("fingerprint")
        return None if found is None else str(found)

    def save(self, path: str | Path) -> Path:
        """Write one ``.npz`` without pickles: ``indices``, ``counts``, optional ``weights``, ``meta`` (JSON)."""
        arrays: dict[str, npt.NDArray[Any]] = {"indices": self.indices, "counts": self.counts}
        if self.weights is not None:
            arrays["weights"] = self.weights
        return _write(Path(path), arrays, dict(self.provenance))

    @staticmethod
    def load(path: str | Path, dataset: ImageDataset | None = None) -> Selection:
        """Read what :meth:`save` wrote; nothing in the file is executed.

        Args:
            path: the file.
            dataset: the dataset it must have been made for.

        Raises:
            UserError: if it is not such a file, or was made for another dataset (both fingerprints are shown).
        """
        arrays, meta = _read(Path(path), "selection", ("indices", "counts"))
        weights = arrays.get("weights")
        try:
            selection = Selection(
                arrays["indices"], arrays["counts"], None if weights is None else weights.astype(np.float32), meta
            )
        except UserError as error:
            raise UserError(f"{path} is damaged ({error}): write it again") from error
        if dataset is not None:
            selection.check(dataset, str(path))
        return selection

    def check(self, dataset: ImageDataset, what: str = "the selection") -> None:
        """Refuse to be used with another dataset than the one it was made for, or with labels that do not give its counts."""
        if self.fingerprint is not None and self.fingerprint != dataset.fingerprint:
            raise UserError(
                f"{what} was made for {self.provenance.get('dataset', 'another dataset')} (fingerprint {self.fingerprint}), "
                f"not for {dataset.name} (fingerprint {dataset.fingerprint}): load the dataset it was made for"
            )
        if len(self) and not (0 <= self.indices.min() and self.indices.max() < len(dataset)):
            raise UserError(f"{what} has indices outside {dataset.name}, which has {len(dataset):,} images")
        found = np.bincount(dataset.labels.numpy()[self.indices], minlength=dataset.num_classes)
        if not np.array_equal(found, self.counts):
            raise UserError(f"{what} has other class counts than {dataset.name} gives its indices: load the right dataset")

    def subset(self, torch_dataset: Dataset[Any]) -> Subset[Any]:
        """These samples of any PyTorch dataset that keeps the order of the one they were chosen from."""
        from torch.utils.data import Subset

        length = getattr(torch_dataset, "__len__", None)
        if length is not None and len(self) and int(self.indices.max()) >= length():
            raise UserError(f"the dataset has {length()} samples but the selection needs sample {int(self.indices.max())}")
        return Subset(torch_dataset, self.indices.tolist())

    def sampler(self, *, seed: int = 0, num_samples: int | None = None) -> WeightedRandomSampler:
        """A sampler over :meth:`subset` that draws samples in proportion to their weights (all alike without weights)."""
        from torch.utils.data import WeightedRandomSampler

        weights = np.ones(len(self)) if self.weights is None else self.weights
        draws = torch_generator(seed, "sampler")
        return WeightedRandomSampler(weights.tolist(), num_samples or len(self), replacement=True, generator=draws)


def _write(path: Path, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> Path:
    text = json.dumps(meta, sort_keys=True)
    check_readable(text)
    encoded = np.frombuffer(text.encode(), dtype=np.uint8)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, meta=encoded, **arrays)
    return path


def _read(path: Path, what: str, needed: Sequence[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays and the JSON of a file of ours, each checked for type and shape before it is believed."""
    size = size_of(path, f"a {what}")
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
            names = [one.filename.removesuffix(".npy") for one in listed]
            if not {*needed, "meta"} <= set(names) <= _ALLOWED or len(names) > len(_ALLOWED):
                raise UserError(f"{path} is not a {what} file: it holds {_told(names) or 'nothing'}")
            if any(one.comment or len(one.extra) > _LONGEST_EXTRA for one in listed):  # what follows may be hidden in them
                raise UserError(f"{path} is damaged: its list of arrays has notes in it; write it again")
            if sum(one.file_size for one in listed) > size * _MOST_DENSE:
                raise UserError(
                    f"{path} claims more than {_MOST_DENSE} times its length: it is damaged, or made to fill memory"
                )
            arrays = {name: _array(archive, one) for name, one in zip(names, listed, strict=True)}
        meta = parsed_json(arrays.pop("meta").tobytes())
    except UserError:
        raise
    except Exception as error:  # a damaged archive fails in many ways
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a whole .npz file without pickles"
        raise UserError(f"{path} cannot be read as a {what} ({reason}): write it again or name another file") from error
    if not isinstance(meta, dict):
        raise UserError(f"{path} is not a {what} file: its meta is not a JSON object")
    for name, array in arrays.items():
        integer = name != "weights"
        if array.ndim != 1 or array.dtype.kind != ("i" if integer else "f"):
            raise UserError(f"{path} is not a {what} file: '{name}' is {array.dtype} {array.shape}, not one row of numbers")
        if not integer and not ((array >= 0) & (array <= np.finfo(np.float32).max)).all():
            raise UserError(f"{path} is damaged: its weights must be at least 0 and finite; write it again")
    return {name: array.astype(np.int64) if name != "weights" else array for name, array in arrays.items()}, meta


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        found = read_array(file, member.file_size)
        if file.read(1):  # its checksum is compared at its end
            raise ValueError("more than the array")
        return found


def _told(names: Sequence[str]) -> str:
    """The first of the names, whatever is in them."""
    return ", ".join(ascii(one)[1:41] for one in sorted(names)[:8])


def _sums_to(counts: IntArray, total: int) -> bool:
    """Whether these are counts of ``total`` things: their sum may not even fit 64 bits."""
    return not ((counts < 0) | (counts > total)).any() and sum(counts.tolist()) == total
