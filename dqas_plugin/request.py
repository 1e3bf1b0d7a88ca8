"""All that a selection depends on, as one value that plugins can read and change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dqas_plugin.contracts import Selector
from dqas_plugin.data import ImageDataset, IntArray, as_indices
from dqas_plugin.defaults import DEFAULT_MODEL, DEFAULT_RECIPE, MAX_MEMORY
from dqas_plugin.recipes import Recipe
from dqas_plugin.recipes import recipe as named_recipe
from dqas_plugin.selection import Ranking

Method = str | Selector | Ranking | Callable[..., Any] | npt.NDArray[Any]


@dataclass(eq=False)
class SelectionRequest:
    """All that a selection depends on. A plugin around ``dqas_select`` may change it, most often by :meth:`restrict`.

    Attributes:
        data: the training images.
        method: name, selector, function, ranking or indices.
        budget: samples to choose.
        method_options: options of the method.
        allocator: name of the rule for class counts.
        allocator_options: its options.
        refiner: name of the rule for the last samples, or None.
        refiner_options: its options.
        refine_share: part of the budget that the refiner spends.
        goal: what "better" means to the allocator: class-mean accuracy, accuracy at the natural frequencies, lowest class.
        proxy: what an allocator trains: a last layer (``probe``) or the network (``train``).
        model: network of the signals and of the proxy.
        recipe: how they are trained.
        seed: of everything random.
        device: where networks are trained, and methods computed.
        features: what methods of geometry see: ``proxy``, the last layer's inputs, or ``timm:NAME``, another network's.
        max_memory: what ranking a class may take, in bytes, beyond the signals.
        candidates: int64 dataset indices that may be selected; None: all.
        made_for: the dataset that the selection is one of, where ``data`` are its images in another form (rebuilt from some of
            their patches): sample i is the same in both. None: ``data`` itself.
        report: called with a few words whenever a long step begins.
    """

    data: ImageDataset
    method: Method
    budget: int
    method_options: Mapping[str, Any] = field(default_factory=dict)
    allocator: str = "uniform"
    allocator_options: Mapping[str, Any] = field(default_factory=dict)
    refiner: str | None = None
    refiner_options: Mapping[str, Any] = field(default_factory=dict)
    refine_share: float = 0.1
    goal: str = "mean"
    proxy: str = "probe"
    model: str = DEFAULT_MODEL
    recipe: Recipe = field(default_factory=lambda: named_recipe(DEFAULT_RECIPE))
    seed: int = 0
    device: str = "cpu"
    features: str = "proxy"
    max_memory: int = MAX_MEMORY
    candidates: IntArray | None = None
    made_for: ImageDataset | None = None
    report: Callable[[str], None] = lambda words: None

    @property
    def original(self) -> ImageDataset:
        """The dataset that the selection's indices point into."""
        return self.data if self.made_for is None else self.made_for

    def restrict(self, indices: npt.ArrayLike) -> None:
        """Allow only these dataset indices, or those of a mask ``[N]`` (and of those allowed so far), to be selected.

        Raises:
            UserError: for anything else.
        """
        allowed = np.unique(as_indices("candidates", indices, len(self.data)))
        self.candidates = allowed if self.candidates is None else np.intersect1d(allowed, self.candidates)
