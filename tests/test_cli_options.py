"""Any options of any command: it does what was asked, or ends in one sentence; nothing is written where nobody said so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cli_values
from cli_values import command_lines, leaves, run
from dqas_cli.main import cli
from dqas_plugin.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    found = tmp_path_factory.mktemp("options")
    with cli_values.place(found):
        yield found


@pytest.mark.parametrize(
    ("path", "command"), list(leaves(cli)), ids=lambda one: "-".join(one) if isinstance(one, tuple) else ""
)
def test_any_options(path: tuple[str, ...], command: click.Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQAS_CACHE", str(folder / "cache"))

    @settings(max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def any_options(data: st.DataObject) -> None:
        run(cli, [*path, *data.draw(command_lines(command))], folder)

    any_options()


@click.group()
def bad() -> None:
    """Commands that misbehave."""


@bad.command()
@click.option("--out")
def crash(out: str | None) -> None:
    raise KeyError(out)


@bad.command()
@click.option("--out")
def litter(out: str | None) -> None:
    Path("left").write_text(str(out))
    raise UserError("no")


@bad.command()
@click.option("--out")
def silent(out: str | None) -> None:
    raise SystemExit(2)


@pytest.mark.parametrize("name", ["crash", "litter", "silent"])
def test_commands_that_misbehave_are_told(name: str, folder: Path) -> None:
    with pytest.raises(AssertionError):
        run(bad, [name], folder)
    (folder / "here" / "left").unlink(missing_ok=True)
