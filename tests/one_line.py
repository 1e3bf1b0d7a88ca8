"""Mistakes of the user's on the command line: one line on stderr, exit status 2."""

from __future__ import annotations

from click.testing import CliRunner

from dqas_cli.main import cli


def check(line: str, *said: str) -> None:
    """One line, no traceback, with these words."""
    assert line.startswith("dqas: error: "), line
    assert line.count("\n") == 1, line
    assert line.endswith("\n")
    assert "Traceback" not in line
    for words in said:
        assert words in line, line


def refused(arguments: str, *said: str) -> None:
    """The command ends with such a line, and prints nothing else."""
    result = CliRunner().invoke(cli, arguments.split())
    assert result.exit_code == 2, f"{result.exit_code}: {result.output}"
    assert result.stdout == ""
    check(result.stderr, *said)
