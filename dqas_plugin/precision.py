"""Where and in what number format a network runs: fp32, or bf16 autocast where that is faster.

Whether bf16 pays on a processor depends on its instructions (AVX512-BF16, AMX) and on the network, so it is measured once with
a few training steps: on one thread and in processor time, so that other programs do not decide it. The answer is kept in the
cache folder: the same machine must always decide the same, or the same seed would not give the same result.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dqas_plugin.cache_entry import cached_entry
from dqas_plugin.data import at_once
from dqas_plugin.errors import UserError, unknown_name
from dqas_plugin.models import Network, Shape
from dqas_plugin.paths import cache_folder

Build = Callable[[Shape, int], Network]

WORTHWHILE = 1.1
"""How many times faster than fp32 bf16 must be to be used."""

_PROBE_BATCH, _PROBE_PIXELS = 32, 2**21  # fewer images from 257 px on
_PROBE_SECONDS = 0.3  # many rounds of a step of a millisecond, one of a step of a second
_FINE_CLOCK = time.get_clock_info("thread_time").resolution < 1e-4  # not on Windows
_HOPELESS = 4.0  # emulated bf16 is slower by far: then two steps are enough to know


def resolve_device(device: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        UserError: if the name means nothing or this machine has no such device.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        count = torch.cuda.device_count()
        here = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise UserError(f"device '{device}' is not available here: choose one of {here}") from error
    if found.type == "meta":
        raise UserError("device 'meta' computes nothing: choose cpu")
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found


def device_kind(name: str) -> str:
    """``cpu`` or ``cuda``, of a device that need not be on this machine if it is named without an index.

    Raises:
        UserError: if the name means nothing, or names a device that is not here.
    """
    if ":" in name:
        return resolve_device(name).type
    try:
        return torch.device(name).type
    except RuntimeError as error:
        raise UserError(f"device '{name}' is unknown: choose cpu, cuda or cuda:0") from error


def resolve(precision: str, build: Build, image_shape: Shape, device: torch.device | str = "cpu") -> str:
    """``fp32`` or ``bf16``: what training of this network on this device uses.

    Args:
        precision: ``fp32`` and ``bf16`` stand as they are; ``auto`` means bf16 on a GPU that has it, and on a CPU what the
            probe found faster, now or earlier on this machine.
        build: makes the network.
        image_shape: (channels, height, width).
        device: where it will run.
    """
    if precision in ("fp32", "bf16"):
        return precision
    if precision != "auto":
        raise unknown_name("precision", precision, ("auto", "fp32", "bf16"))
    place = resolve_device(device)
    if place.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if place.type != "cpu":
        return "fp32"
    with torch.random.fork_rng(devices=[]):
        network = build(image_shape, 10)
        entry = cache_folder("precision") / _machine_and_network(network, image_shape)
        return _answer(entry, lambda: _probe(network, image_shape))


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a network computes in ``precision`` on ``device``."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _machine_and_network(network: nn.Module, image_shape: Shape) -> str:
    """Digest of everything the answer depends on; the network by its layers, whatever it is called."""
    described = (_processor(), torch.__version__, image_shape, _PROBE_BATCH, WORTHWHILE, repr(network))
    return hashlib.blake2b(repr(described).encode(), digest_size=12).hexdigest()


def _processor() -> str:
    """Name of the CPU; different instruction sets under one name (virtual machines) are told apart as well."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(errors="replace").split("\n\n", 1)[0].splitlines()
        name = "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
    return f"{name} {torch.backends.cpu.get_cpu_capability()}"


def _answer(entry: Path, probe: Callable[[], float]) -> str:
    """What is kept there; if nothing is, the probe decides. Of several processes one asks it, so that all of them agree.

    It is kept twice. Damage to one must not have it measured again: it could come out otherwise this time, and the rest of a
    grid would be computed in another arithmetic.
    """
    name, second = "the faster precision", entry.with_name(f"{entry.name}-copy")

    def measured(_: Path) -> dict[str, Any]:
        ratio = probe()
        return {"precision": "bf16" if ratio >= WORTHWHILE else "fp32", "fp32_over_bf16": round(ratio, 3)}

    def read(_: Path, meta: dict[str, Any]) -> str:
        if meta["precision"] not in ("fp32", "bf16"):
            raise ValueError(f"{meta['precision']} is no precision")
        return str(meta["precision"])

    def copied(_: Path) -> dict[str, Any]:
        return {"precision": cached_entry(second, name, measured, read)}

    answer = cached_entry(entry, name, copied, read)
    return cached_entry(second, name, lambda _: {"precision": answer}, read)


def _probe(network: Network, image_shape: Shape) -> float:
    """Time of a training step in fp32 over that in bf16, on one thread of the CPU: the best of a few, taken in turn."""
    network.to(memory_format=torch.channels_last).train()
    channels, height, width = image_shape
    count = at_once((height, width), _PROBE_BATCH, _PROBE_PIXELS)
    pixels = torch.rand(count, height, width, channels).permute(0, 3, 1, 2)
    labels = torch.arange(count) % network.head.out_features
    with _one_thread():
        first = [_step_seconds(network, pixels, labels, kind) for kind in ("fp32", "bf16")]
        if first[1] > _HOPELESS * first[0]:
            return first[0] / first[1]
        times: list[list[float]] = []
        started = time.perf_counter()
        while not times or time.perf_counter() - started < _PROBE_SECONDS:
            times.append([_step_seconds(network, pixels, labels, kind) for kind in ("fp32", "bf16")])
    return min(pair[0] for pair in times) / min(pair[1] for pair in times)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _clock() -> float:
    """Processor time of this thread (torch runs forward and backward in it), or wall time where that is coarse."""
    return time.thread_time() if _FINE_CLOCK else time.perf_counter()


def _step_seconds(network: Network, pixels: torch.Tensor, labels: torch.Tensor, precision: str) -> float:
    started = _clock()
    with autocast(precision, torch.device("cpu")):
        logits = network(pixels)
    functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
    network.zero_grad()
    return _clock() - started
