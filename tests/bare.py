"""The program where nothing is installed but what it cannot do without.

Run as a script it calls the program as every line of :data:`WORK` and :data:`REFUSED` says and prints what became of each, as
JSON. ``--pretend`` hides the packages of the extras; without it the script belongs into an environment that lacks them, as
``.ci/bare`` makes one.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
HIDDEN = {re.split("[>=]", one)[0].replace("-", "_") for name in EXTRAS for one in EXTRAS[name]} - {"setuptools"}

WORK = (
    "--help",
    "list plugins",
    "list executors",
    "list importers",
    "list exporters",
    "bench --method random --ratio 0.05 --seeds 1 --iterations 3 --jobs 1 --results kept",
    "bench --method random --seeds 1 --executor ray --estimate --results estimated",
)
# the files are not there: had anything been read before the package was looked for, that would be the complaint
REFUSED = {
    "huggingface": (
        "select --dataset folder:nowhere --aipc 1 --format hf --out new",
        "import dream nowhere.pt --to hf --out new",
    ),
    "webdataset": (
        "select --dataset folder:nowhere --aipc 1 --format webdataset --out new",
        "import dream nowhere.pt --to webdataset --out new",
    ),
    "ray": ("bench --dataset folder:nowhere --executor ray --results new",),
    "slurm": (
        "bench --dataset folder:nowhere --executor slurm --results new",
        "bench --dataset folder:nowhere --executor slurm --executor-option cluster=local --results new",
    ),
}


class Hide(MetaPathFinder):
    """What another finder finds, but for the packages of the extras."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        found: ModuleSpec | None = self.other.find_spec(fullname, path, target)
        return None if fullname.partition(".")[0] in HIDDEN else found


def outcomes(lines: Sequence[str]) -> dict[str, tuple[int, str, list[str]]]:
    """Exit status, output and what lies in the folder afterwards, of each line."""
    from click.testing import CliRunner

    from dqas_adapters import distilled, hugging_face, ray, slurm, webdataset
    from dqas_cli.main import cli
    from dqas_plugin.plugins import plugins

    there = {one.name for one in plugins().overview()}
    for name, module in {"distilled": distilled, "hf": hugging_face, "ray": ray, "slurm": slurm, "wds": webdataset}.items():
        if module not in [plugins()._manager.get_plugin(one) for one in there]:  # a checkout that is not installed
            plugins().register(module, name)
    found = {}
    for line in lines:
        done = CliRunner().invoke(cli, line.split())
        found[line] = (done.exit_code, done.output, sorted(one.name for one in Path.cwd().iterdir()))
    return found


def complaint(line: str, status: int, output: str, there: Sequence[str]) -> str:
    """What is wrong about the outcome of a line; empty: nothing."""
    told = output.splitlines()
    if line in WORK:
        return "" if status == 0 and "skipped" not in output else output
    [extra] = [name for name, lines in REFUSED.items() if line in lines]
    if status != 2 or "new" in there:
        return f"exit status {status}, and there are {', '.join(there)}: {output}"
    in_words = len(told) == 1 and told[0].startswith("dqas: error: the ") and told[0].endswith(f': pip install "dqas[{extra}]"')
    return "" if in_words else output


if __name__ == "__main__":
    if "--pretend" in sys.argv:
        sys.meta_path[:] = map(Hide, sys.meta_path)
    elif present := [one for one in sorted(HIDDEN) if importlib.util.find_spec(one)]:
        sys.exit(f"this environment is not bare, it has {', '.join(present)}")
    found = outcomes([*WORK, *(line for lines in REFUSED.values() for line in lines)])
    json.dump(found, sys.stdout, indent=1)
    sys.exit(any(complaint(line, *one) for line, one in found.items()))
