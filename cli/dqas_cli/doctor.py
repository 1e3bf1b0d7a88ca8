"""``dqas doctor``: what works on this machine, what does not, and how to mend it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from dqas_cli.files import check_cache
from dqas_cli.printing import size
from dqas_plugin.errors import DqasError
from dqas_plugin.versions import installed

ENOUGH_SPACE = 1_000_000_000
"""Free bytes under which the cache folder is a problem: Tiny ImageNet takes 1.3 GB decoded."""

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "numba",
    "safetensors",
    "matplotlib",
    "pillow",
)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    well: bool
    what: str
    text: str


@click.command()
@click.option("--root", default="data", show_default=True, metavar="DIR", help="Folder with datasets' files.")
@click.pass_context
def doctor(ctx: click.Context, root: str) -> None:
    """Check versions, devices, folders and plugins; say how to mend what is broken."""
    broken = 0
    for finding in findings(root):
        broken += not finding.well
        click.echo(f"{'ok' if finding.well else 'PROBLEM':<8}{finding.what:<14}{finding.text}")
    click.echo(f"{broken} problem{'s' * (broken != 1)}" if broken else "everything works")
    ctx.exit(1 if broken else 0)


def findings(root: str) -> Iterator[Finding]:
    """Every check in turn; one that fails itself is a problem, too, and stops no other."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("versions", versions),
        ("device", devices),
        ("bf16", bf16),
        ("cache", cache),
        ("data", lambda: data_root(root)),
        ("plugins", loaded_plugins),
    )
    for what, check in checks:
        try:
            yield from check()
        except Exception as error:
            text = str(error) if isinstance(error, DqasError) else f"{type(error).__name__}: {error}"
            yield Finding(False, what, " ".join(text.split()))


def versions() -> Iterator[Finding]:
    """Python and the packages; a missing one is a problem."""
    yield Finding(True, "python", f"{platform.python_version()} on {platform.machine()}")
    own = installed("dqas") or "run from its source folder, not installed: no plugins from entry points"
    yield Finding(True, "dqas", own)
    for package in PACKAGES:
        found = installed(package)
        yield Finding(found is not None, package, found or f"missing: pip install {package}")


def devices() -> Iterator[Finding]:
    """Processor threads and GPUs; torch and torchvision must fit together."""
    import torch

    try:
        import torchvision  # noqa: F401  # a torchvision for another torch fails here
    except (ImportError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        yield Finding(
            False, "device", f"torchvision does not fit torch ({reason}): pip install --force-reinstall torch torchvision"
        )
    yield Finding(True, "device", f"cpu, {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        yield Finding(True, "device", "no GPU that torch can use")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(True, "device", f"cuda:{index}, {properties.name}, {size(properties.total_memory)}")


def bf16() -> Iterator[Finding]:
    """What the probe says of bf16 for the default network on 32-pixel images."""
    import torch

    from dqas_plugin.lookup import resolve_model
    from dqas_plugin.precision import resolve

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        precision = resolve("auto", resolve_model("convnet3-small"), (3, 32, 32), device)
        said = "faster, and used" if precision == "bf16" else "no faster than fp32, and not used"
        yield Finding(True, "bf16", f"{said} for convnet3-small on {device}")


def cache() -> Iterator[Finding]:
    """The cache folder: where, how large, writable, and with room left."""
    folder = check_cache()
    used = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
    free = shutil.disk_usage(folder).free
    where = f"{folder}, {size(used)} used, {size(free)} free"
    yield Finding(free >= ENOUGH_SPACE, "cache", where if free >= ENOUGH_SPACE else f"{where}: make room, or set DQAS_CACHE")


def data_root(root: str) -> Iterator[Finding]:
    """The folder where datasets' files are looked for."""
    folder = Path(root)
    if not folder.exists():
        yield Finding(True, "data", f"{folder} does not exist yet; downloads make it, --root names another folder")
        return
    if not folder.is_dir():
        yield Finding(False, "data", f"{folder} is no folder: name another one with --root")
        return
    held = sorted(one.name for one in folder.iterdir())
    yield Finding(True, "data", f"{folder} holds {', '.join(held[:8]) or 'nothing'}{' …' * (len(held) > 8)}")


def loaded_plugins() -> Iterator[Finding]:
    """How many plugins are loaded, and each that is broken."""
    from dqas_plugin.plugins import plugins

    loaded = plugins()
    names = ", ".join(one.name for one in loaded.overview())
    yield Finding(True, "plugins", names)
    for problem in loaded.problems:
        yield Finding(False, "plugin", f"{problem.plugin}: {problem.message}")
