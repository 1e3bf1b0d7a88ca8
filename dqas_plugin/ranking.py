"""Rank: the one loop over classes, around any selection method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dqas_plugin.contracts import Selector, Size, Weighted, memory_text
from dqas_plugin.data import FloatArray, IntArray
from dqas_plugin.defaults import MAX_MEMORY
from dqas_plugin.doubts import flat_signals, without_contrast
from dqas_plugin.errors import PluginError, UserError
from dqas_plugin.lookup import RankingFile, resolve_method
from dqas_plugin.plugins import check_options
from dqas_plugin.request import Method
from dqas_plugin.seeding import generator
from dqas_plugin.selection import Ranking
from dqas_plugin.signals import Signals, View
from dqas_plugin.threads import available, in_parallel


def rank(
    signals: Signals,
    method: Method,
    *,
    counts: npt.ArrayLike,
    seed: int = 0,
    candidates: IntArray | None = None,
    max_memory: int = MAX_MEMORY,
    **options: Any,
) -> Ranking:
    """Order the samples of every class, best first: the loop over classes.

    Args:
        signals: what the method reads (``Signals.from_arrays`` needs no network).
        method: name, selector or function.
        counts: int ``[C]``, how deep to rank each class.
        seed: of everything random.
        candidates: dataset indices that may be ranked; None: all.
        max_memory: what ranking a class may take, in bytes, beyond the signals.
        options: of the method, e.g. ``objective="eq7"``.

    Raises:
        UserError: for an unknown method or option, a class with fewer samples, or a method that would need more memory.
        PluginError: if the method's answer is not what it promised; the message names it.
    """
    selector, preset = as_selector(method)
    chosen = {**preset, **options}
    check_options(selector, "method", chosen)
    depths = np.asarray(counts, dtype=np.int64)
    if depths.shape != (signals.num_classes,):
        raise UserError(f"counts must be one number for each of the {signals.num_classes} classes, not {depths.size}")
    views = signals.views(candidates, seed=seed, max_memory=max_memory)
    _check_counts(depths, views)
    for one in views:
        one.counts = depths
    width = 0 if signals.features is None else signals.features.shape[1]
    needed = check_memory(selector, [len(one) for one in views], depths, width, max_memory, chosen)

    def ranked(label: int) -> tuple[IntArray, FloatArray | None, list[str], list[str]]:
        view, wanted = views[label], int(depths[label])
        views[label] = None  # type: ignore[call-overload]  # what a view has computed is freed with it
        answer = selector(view, wanted, generator(seed, "rank", label), **chosen) if wanted else np.empty(0, np.int64)
        positions, weights = _checked(selector, answer, wanted, len(view))
        return (
            view.indices[positions],
            weights,
            view.notes,
            flat_signals(signals, view.indices, selector.needs) if wanted else [],
        )

    workers = 1 if signals.device.type != "cpu" else min(available(), max(1, max_memory // max(1, needed)))
    order, weights, notes, alike = zip(*in_parallel(ranked, range(len(views)), workers), strict=True)
    given = tuple(
        np.empty(0) if weighed is None and not len(one) else weighed for one, weighed in zip(order, weights, strict=True)
    )
    weighs = any(one is not None for one in weights) and all(one is not None for one in given)
    if weighs and (weightless := sum(bool(len(one)) and not one.any() for one in given)):
        given = _counting(given)
        what = f"'{selector.name}' gave weight 0 to all samples of {weightless:,} of {len(given):,} classes"
        notes = (*notes, [f"{what}: they count like the mean of the others"])
    told = dict.fromkeys(chain(*notes, without_contrast(selector, signals, alike)))
    provenance = {"options": dict(chosen), "seed": seed, "notes": list(told)}
    return Ranking(order, selector.name, selector.nested, given if weighs else None, provenance)


def _counting(weights: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
    """The weights, and for a class of nothing but zeros the mean of the others: trained on without it, it would be lost."""
    others = np.concatenate([one for one in weights if one.any()] or [np.ones(1)])
    return tuple(one if one.any() else np.full(len(one), others.mean()) for one in weights)


def _check_counts(counts: IntArray, views: list[View]) -> None:
    for count, view in zip(counts, views, strict=True):
        if not 0 <= count <= len(view):
            raise UserError(f"class {view.label} has {len(view)} samples to choose from, not {count}: change its count")


def check_memory(
    selector: Selector, sizes: npt.ArrayLike, depths: npt.ArrayLike, width: int, limit: int, options: Mapping[str, Any]
) -> int:
    """What ranking the class that takes most takes, in bytes; 0 if it is in proportion to the signals.

    Args:
        selector: the method.
        sizes: int ``[C]``, samples of every class.
        depths: int ``[C]``, how many are to be ranked.
        width: d, of the features.
        limit: bytes it may take.
        options: of the method.

    Raises:
        UserError: if it is more than ``limit``; it says how much would be needed.
    """
    if selector.memory is None:
        return 0
    settings, most = selector.settings(options), 0
    classes = np.stack([np.asarray(sizes), np.asarray(depths)], axis=1)  # the largest one need not take most: see Size.limit
    for samples, depth in np.unique(classes, axis=0).tolist():
        needed = selector.memory(Size(samples, width, len(classes), depth, limit, settings)) if depth else 0
        if needed > limit:
            raise UserError(
                f"the method '{selector.name}' needs {memory_text(needed)} to rank a class of {samples:,} images, more than "
                f"the {memory_text(limit)} it may take: raise --max-memory (max_memory), or choose another method"
            )
        most = max(most, needed)
    return most


def as_selector(method: Method) -> tuple[Selector, dict[str, Any]]:
    """The selector behind a name or a function, and the options that the name carries."""
    found, options = resolve_method(method) if isinstance(method, str) else (method, {})
    if isinstance(found, Selector):
        return found, options
    if callable(found):
        name = getattr(found, "__name__", type(found).__name__)
        return Selector(name, found, name, needs=frozenset({"features", "logits", "images"})), options
    if isinstance(found, RankingFile):
        raise UserError(f"'{method}' is a ranking already: it needs no signals to rank; give the name of a method")
    raise UserError(f"a {type(found).__name__} cannot rank samples: give the name of a method or a function")


def _checked(selector: Selector, answer: Any, wanted: int, size: int) -> tuple[IntArray, npt.NDArray[np.float64] | None]:
    """The positions of an answer (and its weights), or an error that names the method and what it did."""
    weights = None
    if isinstance(answer, Weighted):
        answer, weights = answer
    raw = answer.detach().cpu().numpy() if isinstance(answer, torch.Tensor) else np.asarray(answer)
    fault = None
    if raw.ndim != 1 or raw.dtype.kind not in "iu":
        fault = f"must return one row of whole numbers, not {raw.dtype} {raw.shape}"
    elif len(raw) < wanted:
        fault = f"returned {len(raw)} positions but {wanted} were asked for"
    elif len(raw) and (raw.min() < 0 or raw.max() >= size):
        fault = f"returned a position outside 0..{size - 1}"
    elif len(np.unique(raw)) != len(raw):
        fault = "returned a position twice"
    if fault:
        raise PluginError(f"the method '{selector.name}' {fault}: mend it, or use another method")
    positions = raw[:wanted].astype(np.int64)
    if weights is None:
        return positions, None
    values = np.asarray(weights, dtype=np.float64)[:wanted]
    if values.shape != positions.shape or not np.isfinite(values).all() or (values < 0).any():
        raise PluginError(f"the method '{selector.name}' must give one weight of at least 0 for every position")
    return positions, values
