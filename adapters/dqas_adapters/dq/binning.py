"""The bins that a selection was drawn from.

A selection holds what was drawn, a ranking the samples of all bins mixed. So the bins are made again: read from where they
were, or filled from the signals that the selection was made with, which are in the cache. That the selection was drawn from
what comes out is then checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dqas_adapters.dq.reading import read_bins
from dqas_plugin.data import ImageDataset, IntArray
from dqas_plugin.errors import UserError
from dqas_plugin.quantization.bins import BINS, graphcut_bins
from dqas_plugin.selection import Selection

_OBJECTIVES = {"bins": "eq7", "dq": "dq", "dqas": "eq7"}  # of the methods that fill bins, unless an option says otherwise


def bins_of(selection: Selection, data: ImageDataset, *, bins_from: str = "", device: str = "cpu") -> list[IntArray]:
    """The bins, dataset indices, int64.

    Args:
        selection: made with the method ``bins``, ``dq`` or ``dqas``, or from bins in files.
        data: the images that it was made from.
        bins_from: the folder of those files. The selection may say which it was, but what a file says is not opened.
        device: where the network of the signals was trained.

    Raises:
        UserError: for a selection made otherwise, from rebuilt images, or by hand, and where other bins come out than it was
            drawn from.
    """
    told = selection.provenance
    method = str(told.get("method", "")).partition(":")[0]
    if bins_from:
        bins, source = read_bins(Path(bins_from), data, check_order=False), bins_from  # checked where they were drawn from
    elif method in _OBJECTIVES and told.get("bins_on") in (None, "original"):
        bins, source = _filled(told, _OBJECTIVES[method], data, device), f"the method '{method}' on this machine"
    elif method == "dq-bins":
        raise UserError("the selection was drawn from bins in files: name their folder with bins_from=FOLDER")
    else:
        raise UserError(
            f"the selection was made with '{method or 'an unknown method'}', which leaves no bins to write: choose one with "
            "--method bins or dq, or leave bins=true out"
        )
    if not _drawn_from(bins, selection, data):
        raise UserError(
            f"the selection was not drawn from the bins of {source}: make it again, name its device with device=…, or leave "
            "the bins out"
        )
    return bins


def _filled(told: Any, objective: str, data: ImageDataset, device: str) -> list[IntArray]:
    """The bins of every class joined, from the signals that the selection tells of."""
    from dqas_plugin.lookup import resolve_model
    from dqas_plugin.recipes import Recipe
    from dqas_plugin.trained_signals import compute_signals

    try:
        options = dict(told["method_options"])
        model, recipe, seed = str(told["model"]), Recipe(**told["recipe"]), int(told["seed"])
        features = str(told.get("features") or "proxy")
        number = int(options.get("bins", BINS))
        fraction = None if options.get("fraction") is None else float(options["fraction"])
        objective = str(options.get("objective", objective))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("the selection does not say how it was made: leave bins=true out, or make it again") from error
    needs = frozenset({"features", "gradients"}) if objective == "eq7" else frozenset({"gradients"})
    build = resolve_model(model)
    signals = compute_signals(data, model, build, recipe, seed, device=device, needs=needs, features=features)
    kept: Any = objective  # an unknown one is refused where it is used
    filled = [
        [view.indices[one] for one in graphcut_bins(view, number, fraction=fraction, objective=kept)]
        for view in (signals if device == "cpu" else signals.to(device)).views()
    ]
    return [np.concatenate(one) for one in zip(*filled, strict=True)]


def _drawn_from(bins: Sequence[IntArray], selection: Selection, data: ImageDataset) -> bool:
    """Whether the selection, without what a refiner added, takes from the bins in turn."""
    told = selection.provenance
    budget, share = told.get("budget", len(selection)), told.get("refine_share")
    added = round(budget * share) if isinstance(share, float) and isinstance(budget, int) else 0
    drawn = selection.indices[: len(selection) - added]
    holder = np.full(len(data), len(bins))
    holder[np.fromiter(chain.from_iterable(bins), dtype=np.int64)] = np.repeat(np.arange(len(bins)), [len(one) for one in bins])
    labels = data.labels.numpy()
    for label in range(data.num_classes):
        size = np.bincount(holder[labels == label], minlength=len(bins) + 1)
        taken = np.bincount(holder[drawn[labels[drawn] == label]], minlength=len(bins) + 1)
        size, taken, outside = size[:-1], taken[:-1], int(taken[-1])
        left = taken < size
        if left.any() and (outside or taken.max() > taken[left].min() + 1):
            return False
    return True
