"""Checkpoints of DeepCore's benchmark (``.ckpt``) read back as selections; nothing in them is executed."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dqas_adapters.foreign import check_indices, read_torch, whole_numbers
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.selection import Selection, WeightArray
from dqas_plugin.untrusted import parsed_json

RECORD = "dqas"
"""Key in ``subset`` under which our adaptive methods keep the provenance and a digest of the labels, as JSON."""

_WHAT = "a DeepCore checkpoint"
_NAME = re.compile(
    r"(?P<dataset>.+)_(?P<model>.+)_(?P<method>.+)_exp(?P<exp>\d+)_epoch(?P<epochs>\d+)_(?P<date>[^_]+)_(?P<fraction>[^_]+)_.*"
)
"""``CIFAR10_ResNet18_Herding_exp0_epoch200_2021-08-01 12:00:00.000000_0.1_91.230000.ckpt``."""

_COURSE = ("train_loss", "train_acc", "test_loss", "test_acc")
"""Of what its recorder ``rec`` has, what is kept: one number an epoch, losses and per cent."""


def load(path: Path, data: ImageDataset) -> Selection:
    """The subset in a checkpoint, complete or of the selection alone.

    The provenance names the method as far as the file's name tells, and keeps what else is known under ``deepcore``: the
    arguments of the selection, the best accuracy over all epochs (chosen by test labels), and how losses and accuracies went.

    Args:
        path: the file.
        data: the training split that its indices belong to.

    Raises:
        UserError: for a file that is no such checkpoint or would need code to be run; for indices or weights that do not fit.
    """
    path = Path(path)
    if not path.suffix and not path.exists():  # as the name of a method has none
        raise UserError(
            f"there is no checkpoint '{path}'; for DeepCore's method of that name give --deepcore DIR (DEEPCORE_HOME)"
        )
    found = _checkpoint(path)
    subset = found["subset"]
    indices = whole_numbers(subset["indices"], path, "subset['indices']")
    check_indices(indices, data, path, "subset['indices']")
    if not len(indices):
        raise UserError(f"{path}: subset['indices'] is empty; name another checkpoint")
    record = _record(subset.get(RECORD))
    if record.get("labels", labels_digest(data.labels.numpy())) != labels_digest(data.labels.numpy()):
        raise UserError(f"{path} was made for a training set with other labels than {data.name}; name its own dataset")
    counts = np.bincount(data.labels.numpy()[indices], minlength=data.num_classes).astype(np.int64)
    return Selection(indices, counts, _weights(subset, len(indices), path), _provenance(found, record, path, data))


def labels_digest(labels: IntArray) -> str:
    """Names the labels of a training set, int64 ``[N]``, in their order."""
    return hashlib.blake2b(labels.astype("<i8").tobytes(), digest_size=16).hexdigest()


def _checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in the file."""
    found = read_torch(path, _WHAT, [SimpleNamespace])  # the recorder of losses: attributes and nothing more
    if not isinstance(found, dict) or not isinstance(found.get("subset"), dict) or "indices" not in found["subset"]:
        raise UserError(
            f"{path} is no DeepCore checkpoint: it has no 'subset' with 'indices'; name the .ckpt that main.py saved"
        )
    return found


def _weights(subset: Mapping[str, Any], count: int, path: Path) -> WeightArray | None:
    if subset.get("weights") is None:
        return None
    try:
        values = np.asarray(subset["weights"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: subset['weights'] is no array of numbers; get the file again") from error
    if values.dtype.kind not in "fiu" or values.shape != (count,):
        raise UserError(
            f"{path}: subset['weights'] must be one number for each of the {count} indices, not {values.dtype} {values.shape}"
        )
    if not ((values >= 0) & (values <= np.finfo(np.float32).max)).all() or not values.any():
        raise UserError(f"{path}: subset['weights'] must be at least 0 and finite, and not all 0; get the file again")
    return values.astype(np.float32)


def _provenance(found: Mapping[str, Any], record: Mapping[str, Any], path: Path, data: ImageDataset) -> dict[str, Any]:
    """What is known of how it came about, in values that JSON knows."""
    name = _NAME.fullmatch(path.stem)
    told: dict[str, Any] = {"file": path.name}
    if name is not None:
        told |= {key: name[key] for key in ("dataset", "model", "method", "date")}
        told |= {"epochs": int(name["epochs"]), "fraction": _number(name["fraction"])}
    arguments = found.get("sel_args")
    if isinstance(arguments, dict):
        told["sel_args"] = {str(_plain(key)): _plain(value) for key, value in arguments.items()}
    for key in ("exp", "epoch", "best_acc1"):
        if isinstance(found.get(key), int | float):
            told[key] = _plain(found[key])
    if course := _course(found.get("rec")):
        told["rec"] = course
    if record:
        told[RECORD] = dict(record)
    method = f"deepcore:{name['method']}" if name is not None else "deepcore"
    return {"method": method, "dataset": data.name, "fingerprint": data.fingerprint, "deepcore": told}


def _course(recorder: Any) -> dict[str, list[float | None]]:
    """Losses and accuracies of every epoch."""
    if not isinstance(recorder, SimpleNamespace):
        return {}
    lists = {key: vars(recorder).get(key) for key in _COURSE}
    return {
        key: [_number(one) for one in values]
        for key, values in lists.items()
        if isinstance(values, list) and all(isinstance(one, int | float) for one in values)
    }


def _record(text: Any) -> dict[str, Any]:
    """Our own note, empty if there is none."""
    try:
        found = parsed_json(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    """A number, or None for what is none or JSON does not know."""
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _plain(value: Any) -> Any:
    """A setting as it is, or in words."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return type(value).__name__
    return value if isinstance(value, str | int | bool | None) else type(value).__name__
