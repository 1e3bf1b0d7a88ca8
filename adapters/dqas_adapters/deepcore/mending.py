"""What keeps DeepCore from running today, mended around a call and put back after it: its files are never changed.

Each mend says what it is for. All of them change things that the whole process shares, hence the lock around a call
(:data:`dqas_adapters.deepcore.checkout.LOCK`).
"""

from __future__ import annotations

import importlib
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dqas_adapters.deepcore.checkout import Modules

_MISSING = object()


@contextmanager
def mended(modules: Modules, device: torch.device) -> Iterator[None]:
    """Inside, the classes of the checkout run on ``device`` with current torch and NumPy, and print nothing."""
    with ExitStack() as stack:
        for mend in (_silence, *_BOTH, _one_gpu):
            for owner, name, value in mend(modules):
                stack.enter_context(_set(owner, name, value))
        if device.type == "cuda":  # GradMatch writes "cuda", which is then this one
            stack.enter_context(torch.cuda.device(device))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of divisions by 0, which its methods live with
        yield


@contextmanager
def mended_methods(modules: Modules) -> Iterator[None]:
    """Inside, the classes of the checkout run with current torch and NumPy: for its own benchmark, whose output stays."""
    with ExitStack() as stack:
        for mend in (*_BOTH, _addresses, _forgetting_across_devices):
            for owner, name, value in mend(modules):
                stack.enter_context(_set(owner, name, value))
        yield


@contextmanager
def own_random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global generators of Python, NumPy and torch begin at ``seed``; afterwards they are as before.

    DeepCore seeds NumPy's and torch's itself, with the same number.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def _set(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute for a while."""
    before = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


Change = tuple[Any, str, Any]
"""Owner, name and value of an attribute."""


def _silence(modules: Modules) -> list[Change]:
    """It prints the progress of every loop to standard output, where our tables go."""
    return [(module, "print", _say_nothing) for module in modules.every]


def _say_nothing(*_: object, **__: object) -> None:
    return None


def _in1d(_: Modules) -> list[Change]:
    """kCenterGreedy and ContextualDiversity call ``numpy.in1d``, which NumPy 2.4 no longer has."""
    return [] if hasattr(np, "in1d") else [(np, "in1d", np.isin)]


def _deepfool_on_leaves(modules: Modules) -> list[Change]:
    """DeepFool adds to its images in place.

    On a GPU they are copies of what requires gradients; on a CPU they are the leaves themselves, which torch refuses to change.
    """
    kind = getattr(modules.methods, "DeepFool", None)
    if kind is None or "deep_fool" not in vars(kind):
        return []
    theirs: Callable[[Any, Tensor], Any] = kind.deep_fool

    def deep_fool(self: Any, inputs: Tensor) -> Any:
        return theirs(self, inputs.requires_grad_(True).clone())  # a copy with a history is no leaf

    return [(kind, "deep_fool", deep_fool)]


def _single_centre(modules: Modules) -> list[Change]:
    """``k_center_greedy`` fails for a budget of 1: it takes the minimum of a matrix without rows.

    The one centre is the random first one, drawn as it draws it.
    """
    return _wrapped(modules, "k_center_greedy", _with_single_centre)


def _wrapped(modules: Modules, name: str, wrap: Callable[[Any], Any]) -> list[Change]:
    """The function of that name, wrapped in every module that has it."""
    return [(module, name, wrap(vars(module)[name])) for module in modules.every if name in vars(module)]


def _with_single_centre(theirs: Callable[..., Any]) -> Callable[..., Any]:
    def k_center_greedy(matrix: Any, *, budget: int, random_seed: int | None, index: Any = None, **more: Any) -> Any:
        if budget != 1 or len(more.get("already_selected", ())):
            return theirs(matrix, budget=budget, random_seed=random_seed, index=index, **more)
        np.random.seed(random_seed)  # noqa: NPY002
        first = np.array([np.random.randint(0, len(matrix))])  # noqa: NPY002
        return first if index is None else index[first]

    return k_center_greedy


class _Within(float):
    """A share such as .9, by which a product is never above what is multiplied, of whatever sign."""

    def __mul__(self, gain: Any) -> Any:
        return float(self) * gain if gain >= 0 else gain / float(self)


def _endless_greedy(modules: Modules) -> list[Change]:
    """``ApproximateLazyGreedy`` never ends where all gains are below 0, as GraphCut's are for more than half of a class.

    It takes a sample whose gain is at least ``beta`` times the largest, which is more than the largest if that is below 0.
    """
    kinds: set[Any] = {vars(module).get("ApproximateLazyGreedy") for module in modules.every} - {None}
    return [(kind, "select", _with_share_below(kind.select)) for kind in kinds]


def _with_share_below(theirs: Callable[..., Any]) -> Callable[..., Any]:
    def select(self: Any, *args: Any, **more: Any) -> Any:
        self.beta = _Within(self.beta)
        return theirs(self, *args, **more)

    return select


def _lstsq(_: Modules) -> list[Change]:
    """GradMatch on a GPU calls ``torch.lstsq(right, matrix)``, which torch 2 only keeps to refuse."""

    def lstsq(right: Tensor, matrix: Tensor) -> tuple[Tensor, None]:
        return torch.linalg.lstsq(matrix, right).solution, None

    return [(torch, "lstsq", lstsq)]


def _one_distance(modules: Modules) -> list[Change]:
    """``euclidean_dist`` of a single row writes a product into a sum of two expanded vectors.

    Its strides are those of a column; cuBLAS takes them for a matrix with rows of length 1, and refuses. Herding and
    kCenterGreedy measure from one row at a time.
    """
    return _wrapped(modules, "euclidean_dist", _of_two_rows)


def _of_two_rows(theirs: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def euclidean_dist(x: Tensor, y: Tensor) -> Tensor:
        return theirs(x.expand(2, -1), y)[:1] if x.device.type == "cuda" and len(x) == 1 else theirs(x, y)

    return euclidean_dist


_BOTH = (_in1d, _deepfool_on_leaves, _single_centre, _endless_greedy, _lstsq, _one_distance)
"""Mends that all calls need."""


def _addresses(_: Modules) -> list[Change]:
    """Networks with ImageNet weights (kCenterGreedy, Cal) look up where those are in ``model_urls``, which torchvision no
    longer has; it keeps the same addresses with its weights.
    """
    from torchvision import models

    named = {name: models.get_model_weights(name) for name in models.list_models(module=models)}
    urls = {name: weights["IMAGENET1K_V1"].url for name, weights in named.items() if "IMAGENET1K_V1" in weights.__members__}
    urls["inception_v3_google"] = urls["inception_v3"]
    owners = (importlib.import_module(f"torchvision.models.{name}") for name in ("resnet", "vgg", "inception", "mobilenetv3"))
    return [(owner, "model_urls", urls) for owner in owners if not hasattr(owner, "model_urls")]


def _forgetting_across_devices(modules: Modules) -> list[Change]:
    """Forgetting on a GPU picks from a tensor on the CPU with a mask on the GPU, which torch 2 refuses.

    What it counts stays on the CPU.
    """
    kind = getattr(modules.methods, "Forgetting", None)
    if kind is None or not {"before_run", "after_loss"} <= vars(kind).keys():
        return []
    begin, count = kind.before_run, kind.after_loss

    def before_run(self: Any) -> None:
        begin(self)
        self.forgetting_events, self.last_acc = self.forgetting_events.cpu(), self.last_acc.cpu()

    def after_loss(self: Any, outputs: Tensor, loss: Tensor, targets: Tensor, batch_inds: Any, epoch: int) -> None:
        count(self, outputs.cpu(), loss, targets.cpu(), batch_inds, epoch)

    return [(kind, "before_run", before_run), (kind, "after_loss", after_loss)]


def _one_gpu(modules: Modules) -> list[Change]:
    """Where there are several GPUs it spreads its network over all of them, whichever was asked for."""
    utilities = getattr(modules.nets, "nets_utils", None)
    if torch.cuda.device_count() < 2 or utilities is None:
        return []

    def alone(network: torch.nn.Module, **_: Any) -> torch.nn.Module:
        return network

    return [(utilities, "MyDataParallel", alone)]
