"""Work that is done over and over on a GPU, recorded as a CUDA graph: then it starts with one call.

A training step of a small network is some hundreds of short kernels, a greedy pick a dozen; a processor takes longer to start
them than a fast GPU to run them (https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_WARM_UP = 3  # calls that are made as usual: libraries and the optimiser set up what they keep

Step = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""``step(images, labels, weights)`` makes an optimiser step; loss and logits, on the device and without a graph."""


class Repeated:
    """Calls ``body``: a few times as it is, then by replaying a recording of it.

    Args:
        body: it must do the same operations every time, on the device alone and on the same tensors: nothing that reads a
            number back, no random numbers but those of torch's generator of the device.
        device: a CUDA device.
        pool: memory that recordings share which are never replayed side by side (``torch.cuda.graph_pool_handle()``).
    """

    def __init__(self, body: Callable[[], None], device: torch.device, pool: Any = None) -> None:
        self._body, self._device, self._pool = body, device, pool
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._made = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Once."""
        if self._made < _WARM_UP:
            self._made += 1
            self._aside()
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.device(self._device), torch.cuda.graph(self._graph, self._pool, self._stream, "thread_local"):
                self._body()  # is written down, not done
        self._graph.replay()

    def _aside(self) -> None:
        """The body as it is, on the stream that the recording is made on."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._body()
        current.wait_stream(self._stream)


class RecordedSteps:
    """Makes the same training steps as ``step`` does, most of them by replaying a recording for each size of batch.

    Args:
        step: as for :class:`Repeated`, of its arguments.
        device: a CUDA device.
    """

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step, self._device = step, device
        self._pool = torch.cuda.graph_pool_handle()
        self._sizes: dict[int, _StepOfOneSize] = {}

    def __call__(self, images: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step; loss and logits."""
        if len(images) not in self._sizes:
            self._sizes[len(images)] = _StepOfOneSize(self._step, images, labels, weights, self._device, self._pool)
        return self._sizes[len(images)](images, labels, weights)


class _StepOfOneSize:
    """The step on tensors that keep their place in memory."""

    def __init__(
        self, step: Step, images: Tensor, labels: Tensor, weights: Tensor | None, device: torch.device, pool: Any
    ) -> None:
        self._inputs = (images.clone(), labels.clone(), None if weights is None else weights.clone())
        self._outputs: tuple[Tensor, Tensor] | None = None

        def body() -> None:
            self._outputs = step(*self._inputs)

        self._repeated = Repeated(body, device, pool)

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        for place, value in zip(self._inputs, inputs, strict=True):
            if place is not None and value is not None:
                place.copy_(value)
        self._repeated()
        assert self._outputs is not None
        loss, logits = self._outputs
        return loss.clone(), logits.clone()
