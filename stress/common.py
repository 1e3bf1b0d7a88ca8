"""What the scripts in this folder share: where things are, the real program as a child process, and a table at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / one) for one in (".", "adapters", "cli", "tests")]


def program(*arguments: str | Path, cache: Path, mark: str = "", **options: object) -> subprocess.Popen[str]:
    """``dqas ARGUMENTS`` in a session of its own, with that cache; ``mark`` is in the environment of all its processes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would the child
    environment = os.environ | {"DQAS_CACHE": str(cache), "DQAS_MARK": mark}
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / one) for one in (".", "adapters", "cli"))
    command = [sys.executable, "-m", "dqas_cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]


def show(rows: Sequence[Mapping[str, object]]) -> None:
    """Print the rows as a table."""
    heads = list(dict.fromkeys(name for row in rows for name in row))
    texts = [heads, *([str(row.get(name, "")) for name in heads] for row in rows)]
    widths = [max(len(line[place]) for line in texts) for place in range(len(heads))]
    for line in texts:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)), flush=True)
