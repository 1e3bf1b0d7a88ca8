"""Any options of any command, for as long as wanted; ``tests/test_cli_options.py`` tries some of them.

python stress/cli_options.py --minutes 30 [--command select]
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import click
from hypothesis import HealthCheck, Phase, given, settings

from cli_values import command_lines, leaves, place, run
from dqas_cli.main import cli


def try_some(
    path: tuple[str, ...], command: click.Command, folder: Path, counts: Counter[str], defects: dict[str, str]
) -> None:
    """A hundred lines of a command; what came of them is counted, and each kind of defect kept once."""

    @settings(max_examples=100, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(command_lines(command))
    def some(arguments: list[str]) -> None:
        line, started = [*path, *arguments], time.monotonic()
        try:
            result = run(cli, line, folder)
        except AssertionError as error:
            counts["defect"] += 1
            defects.setdefault(re.sub(r"'[^']*'|\d+|/\S+", "…", str(error))[-120:], str(error))
        else:
            counts["done" if result.exit_code == 0 else "refused"] += 1
        if time.monotonic() - started > 20:
            defects.setdefault(f"slow {path}", f"slow: {line}")

    some()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--command", action="append", help="only this one; may be repeated")
    asked = parser.parse_args()
    warnings.simplefilter("error")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    defects: dict[str, str] = {}
    until = time.monotonic() + 60 * asked.minutes
    commands = [one for one in leaves(cli) if not asked.command or one[0][0] in asked.command]
    with tempfile.TemporaryDirectory() as name, place(Path(name)):
        while time.monotonic() < until:
            for path, command in commands:
                try_some(path, command, Path(name), counts[path[0]], defects)
    print(f"{'command':<12}{'lines':>10}{'done':>10}{'refused':>10}{'defects':>10}")
    for command, found in sorted(counts.items()):
        print(f"{command:<12}{found.total():>10,}{found['done']:>10,}{found['refused']:>10,}{found['defect']:>10,}")
    for one in defects.values():
        print(one[:700])


if __name__ == "__main__":
    main()
