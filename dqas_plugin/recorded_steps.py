"""Training steps as CUDA graphs: recorded once for each size of batch, then started with one call.

A step of a small network is some hundreds of short kernels, and a processor takes longer to start them than a fast GPU to run
them. A recorded step starts as a whole (https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_WARM_UP = 3  # steps of a size that are made as usual: libraries and the optimiser set up what they keep

Step = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""``step(images, labels, weights)`` makes an optimiser step; loss and logits, on the device and without a graph."""


@dataclass(frozen=True, eq=False)
class _Recording:
    """A step of one size; its tensors keep their place in memory."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, Tensor, Tensor | None]
    outputs: tuple[Tensor, Tensor]

    def replay(self, inputs: tuple[Tensor, Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        for place, value in zip(self.inputs, inputs, strict=True):
            if place is not None and value is not None:
                place.copy_(value)
        self.graph.replay()
        loss, logits = self.outputs
        return loss.clone(), logits.clone()


class RecordedSteps:
    """Makes the same steps as ``step`` does, most of them by replaying a recording.

    Args:
        step: it must do the same operations every time, on the device alone: nothing that reads a number back, no random
            numbers but those of torch's generator of the device.
        device: a CUDA device.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step, self._device = step, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._made: Counter[int] = Counter()
        self._recordings: dict[int, _Recording] = {}
        self._pool: Any = None  # where recordings keep what they compute

    def __call__(self, images: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step; loss and logits."""
        inputs, size = (images, labels, weights), len(images)
        if size not in self._recordings:
            self._made[size] += 1
            if self._made[size] <= _WARM_UP:
                return self._aside(inputs)
            self._recordings[size] = self._recorded(inputs)
        return self._recordings[size].replay(inputs)

    def _aside(self, inputs: tuple[Tensor, Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        """The step as it is, on the stream that recordings are made on."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = self._step(*inputs)
        current.wait_stream(self._stream)
        return outputs

    def _recorded(self, inputs: tuple[Tensor, Tensor, Tensor | None]) -> _Recording:
        images, labels, weights = inputs
        kept = (images.clone(), labels.clone(), None if weights is None else weights.clone())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, self._pool, self._stream, "thread_local"):
            outputs = self._step(*kept)
        self._pool = graph.pool()  # recordings are replayed in turn, never side by side: they may use the same memory
        return _Recording(graph, kept, outputs)
