"""DeepCore's unchanged ``main.py`` run with our adaptive methods in its registry, on current torch and NumPy."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from dqas_adapters.deepcore.checkout import Checkout
from dqas_adapters.deepcore.mending import mended_methods
from dqas_adapters.deepcore.networks import networks_of
from dqas_adapters.deepcore.wrapper import PREFIX, Settings, adaptive, offered
from dqas_plugin.errors import UserError

_OWN = "utils"  # the module beside main.py that it imports


def run(
    main: Path,
    arguments: Sequence[str],
    *,
    report: Callable[[str], None],
    allocator: str = "adaptive",
    goal: str = "mean",
    proxy: str = "probe",
) -> None:
    """Run the benchmark as ``python main.py ARGUMENTS`` would; ``--selection AdaptiveNAME`` is a method of it, too.

    Args:
        main: its ``main.py``.
        arguments: its command line.
        report: told what the adaptive method does and decides.
        allocator: rule for class counts (``dqas list allocators``).
        goal: what "better" means to it.
        proxy: what it trains.

    Raises:
        UserError: for a path that is no DeepCore, an adaptive method that does not exist (with the nearest names), or a mistake
            that the selection finds.
        SystemExit: as the benchmark itself ends.
    """
    if not main.is_file():
        raise UserError(f"{main} is no file: give the main.py of a DeepCore checkout")
    checkout = Checkout.at(main.resolve().parent)
    name = selection_of(arguments)
    ours = name is not None and name not in checkout.methods and name.lower().startswith(PREFIX.lower())
    offer = offered(checkout, str(name)) if ours else None
    with ExitStack() as stack:
        stack.enter_context(_stand_ins())
        modules = checkout.modules
        stack.enter_context(checkout.on_path())
        sys.modules.update({one.__name__: one for one in modules.every})  # main.py gets these, not others of the same name
        stack.enter_context(mended_methods(modules))
        stack.enter_context(_readable_checkpoints())
        if offer is not None:
            called = stack.enter_context(networks_of(modules.nets))
            settings = Settings(allocator, goal, proxy, report, called, checkout.version)
            kind = vars(modules.methods)[offer.kind]
            setattr(modules.methods, f"{PREFIX}{offer.name}", adaptive(offer, kind, settings))
            stack.callback(delattr, modules.methods, f"{PREFIX}{offer.name}")
        stack.enter_context(_as_program(main, arguments))
        _mend_weighted_subsets()
        try:
            runpy.run_path(str(main), run_name="__main__")
        except pickle.UnpicklingError as error:
            raise UserError(
                f"the checkpoint to resume from holds more than tensors and plain values: {_line(error)}"
            ) from error


def selection_of(arguments: Sequence[str]) -> str | None:
    """The value of ``--selection`` on the benchmark's command line: the last one, or None."""
    found = None
    for place, one in enumerate(arguments):
        option, equals, value = one.partition("=")
        if option == "--selection":
            found = value if equals else next(iter(arguments[place + 1 : place + 2]), None)
    return found


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).partition(". ")[0]


@contextmanager
def _as_program(main: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Inside, the command line and the module ``utils`` are those of ``main.py``."""
    argv, own = sys.argv, sys.modules.pop(_OWN, None)
    sys.argv = [str(main), *arguments]
    try:
        yield
    finally:
        sys.argv = argv
        sys.modules.pop(_OWN, None)
        if own is not None:
            sys.modules[_OWN] = own


def _mend_weighted_subsets() -> None:
    """Samples with weights reach the training with their weights.

    Its ``WeightedSubset`` derives from torch's ``Subset`` and adds the weight to one sample. Since torch 2.0 a loader asks a
    ``Subset`` for a whole batch, and so got samples without weights. The class is that of this run's own module.
    """
    kind = getattr(_imported_own(), "WeightedSubset", None)
    if kind is not None and "__getitems__" not in vars(kind):
        kind.__getitems__ = lambda self, places: [self[one] for one in places]


def _imported_own() -> ModuleType | None:
    """The module beside main.py, if there is one."""
    return importlib.import_module(_OWN) if importlib.util.find_spec(_OWN) is not None else None


@contextmanager
def _readable_checkpoints() -> Iterator[None]:
    """``--resume`` reads its own checkpoints.

    torch.load reads tensors and plain values alone since torch 2.6; a checkpoint also has NumPy's indices, and a
    ``SimpleNamespace`` of lists. Neither runs code, and nothing else is let in.
    """
    with torch.serialization.safe_globals([*_array_parts(), SimpleNamespace]):
        yield


def _array_parts() -> list[Any]:
    """What a pickled NumPy array of numbers consists of, under its names in NumPy 1 and 2."""
    core = np._core.multiarray  # type: ignore[attr-defined]
    numbers = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    old = [(one, f"numpy.core.multiarray.{one.__name__}") for one in (core._reconstruct, core.scalar)]
    return [core._reconstruct, core.scalar, np.ndarray, np.dtype, *dict.fromkeys(numbers), *old]


@contextmanager
def _stand_ins() -> Iterator[None]:
    """``prefetch_generator`` and ``requests``, imported at the start whatever the dataset, where they are not installed.

    The first only loads ImageNet ahead of time, the second only downloads Tiny-ImageNet.
    """
    made = {name: make() for name, make in _STAND_INS.items() if importlib.util.find_spec(name) is None}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)


def _prefetch_generator() -> ModuleType:
    module = ModuleType("prefetch_generator")
    module.BackgroundGenerator = iter  # type: ignore[attr-defined]  # nothing is prefetched
    return module


def _requests() -> ModuleType:
    module = ModuleType("requests")

    def get(*_: Any, **__: Any) -> None:
        raise UserError("DeepCore downloads Tiny-ImageNet with 'requests', which is not installed: pip install requests")

    module.get = get  # type: ignore[attr-defined]
    return module


_STAND_INS: dict[str, Callable[[], ModuleType]] = {"prefetch_generator": _prefetch_generator, "requests": _requests}
