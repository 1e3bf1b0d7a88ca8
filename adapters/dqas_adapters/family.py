"""``distilled-family``: class by class the images that were distilled for just so many.

Images that were distilled together for 10 a class are not the first ten of those for 50: they were optimised to stand in for
the class together. So where a method has distilled several sets of a dataset, each class takes its images from the set that
fits its count. The sets lie in one dataset, one after another, each in class order: a new one begins where the label decreases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from dqas_plugin.contracts import selector
from dqas_plugin.data import IntArray
from dqas_plugin.errors import unknown_name
from dqas_plugin.hookspecs import hookimpl
from dqas_plugin.signals import View

_ORDERS = ("order", "random")


def sets_in(labels: IntArray) -> tuple[IntArray, IntArray]:
    """The sets in a row of images.

    Args:
        labels: int64 ``[N]``, at least one.

    Returns:
        Which set every image belongs to, int64 ``[N]``, and how many images of a class each set has, int64 ``[S]``. Where what
        lies between two decreases does not hold every class equally often, all is one set, as large as its largest class.
    """
    number = np.concatenate([[0], np.cumsum(np.diff(labels) < 0)]).astype(np.int64)
    present, column = np.unique(labels, return_inverse=True)
    count, classes = int(number[-1]) + 1, len(present)
    if 1 < count <= len(labels) // classes:  # else there are not enough images for so many sets
        table = np.bincount(number * classes + column, minlength=count * classes).reshape(count, classes)
        if (table == table[:, :1]).all():
            return number, table[:, 0].astype(np.int64)
    return np.zeros(len(labels), dtype=np.int64), np.array([np.bincount(column).max()], dtype=np.int64)


def from_fitting_sets(number: IntArray, sizes: IntArray, budget: int, order: IntArray) -> IntArray:
    """The images of one class to take: of the smallest set that is large enough, or all of the largest.

    What is then missing, since no set is large enough or some images of it may not be taken, comes from the other sets, the
    largest first. Of sets of one size the first one counts as the smaller.

    Args:
        number: which set each image of the class is of, int64 ``[n]``.
        sizes: images of a class in each set, int64 ``[S]``.
        budget: how many to take, at most n.
        order: places ``0..n-1`` in the order in which the images of a set are taken, int64 ``[n]``.

    Returns:
        int64 ``[budget]``, places in the class.
    """
    rising = np.argsort(sizes, kind="stable")
    fitting = rising[sizes[rising] >= budget]
    falling = np.argsort(-sizes, kind="stable")
    first = fitting[0] if len(fitting) else falling[0]
    preferred = np.concatenate([[first], falling[falling != first]])
    turn = np.empty(len(sizes), dtype=np.int64)
    turn[preferred] = np.arange(len(sizes))
    taken: IntArray = order[np.argsort(turn[number[order]], kind="stable")]
    return taken[:budget]


@selector(
    "distilled-family",
    title="Distilled family: each class from the distilled set that fits its count",
    family="distilled",
    nested=False,
    source="sets of several sizes as in Table 1 of the DQAS paper (Zhao et al., ECCV 2024)",
    variants={"random": {"within": "random"}},
)
def distilled_family(
    view: View, budget: int, rng: np.random.Generator, *, within: Literal["order", "random"] = "order"
) -> IntArray:
    """Class by class, the images of the set that fits; see :func:`from_fitting_sets`.

    Args:
        view: the class.
        budget: how many images to take.
        rng: for ``within="random"``.
        within: which images of a set come first, where not all are taken: as stored, or at random.
    """
    if within not in _ORDERS:
        raise unknown_name("order within a distilled set", within, _ORDERS)
    number, sizes = sets_in(view.all_labels.numpy())
    if len(sizes) == 1:
        view.note("these images are one set, not a family of distilled sets one after another: images are taken as they come")
    order = np.arange(len(view)) if within == "order" else rng.permutation(len(view))
    return from_fitting_sets(number[view.indices], sizes, budget, order.astype(np.int64))


@hookimpl
def dqas_register_selectors(register: Callable[..., None]) -> None:
    """Register the rule."""
    register(distilled_family)
