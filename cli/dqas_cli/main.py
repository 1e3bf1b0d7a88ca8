"""The program ``dqas``: finds the command, and turns whatever goes wrong into one line.

Exit status: 0 done; 1 something is broken; 2 a mistake that the user can mend; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import io
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import click

from dqas_cli.bench import bench
from dqas_cli.doctor import doctor
from dqas_cli.figure import figure
from dqas_cli.import_ import import_
from dqas_cli.listing import list_
from dqas_cli.quantize import quantize
from dqas_cli.report import report
from dqas_cli.select import select
from dqas_cli.table import table
from dqas_plugin.errors import DqasError, OutOfMemoryError, PluginError, UserError, out_of_memory, unknown_name
from dqas_plugin.told import visible
from dqas_plugin.versions import installed

STOPPED = "stopped; the same command continues where it was"


class StoppedError(Exception):
    """Ctrl-C inside a command; Click would print an empty line for the original."""


class Program(click.Group):
    """A Click group with commands from plugins and with errors of one line.

    Plugins mean importing torch, so they are loaded for an unknown command, and for ``--help`` if a package other than this
    one brings plugins; our own add no commands.
    """

    debug = False
    _asked = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, those of installed plugins too."""
        if _strangers():
            self._ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; plugins are asked when there is no built-in one."""
        found = super().get_command(ctx, cmd_name)
        if found is None:
            self._ask_plugins()
            found = super().get_command(ctx, cmd_name)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does it, but a wrong name is answered with the nearest."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown_name("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command; a name that is taken is refused."""
        if (name or cmd.name) in self.commands:
            raise PluginError(f"a plugin adds the command '{name or cmd.name}', which is there already: it needs another name")
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C becomes :class:`StoppedError`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise StoppedError(str(stop) or STOPPED) from stop

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit with a status; with ``standalone_mode=False`` errors are raised instead, as in any Click program."""
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        return sys.exit(self._status(run)) if standalone_mode else run()

    def _status(self, run: Callable[[], Any]) -> int:
        """The exit status of a run; what went wrong is said on stderr."""
        self.debug = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(
                stream, io.TextIOWrapper
            ):  # names of files may be no text, and terminals may not know every character
                stream.reconfigure(errors="backslashreplace")
        try:
            result = run()
            if sys.stdout is not None:  # it may be closed
                sys.stdout.flush()
        except (StoppedError, KeyboardInterrupt, click.Abort) as stop:
            click.echo(f"dqas: {str(stop) or STOPPED}", err=True)
            return 130
        except Exception as error:
            return self._report(error)
        return result if isinstance(result, int) else 0

    def _report(self, error: Exception) -> int:
        """One line on stderr (after the traceback, if that was asked for), and the exit status."""
        if self.debug:
            traceback.print_exception(error)
        text, status = _in_words(error)
        click.echo(f"dqas: error: {visible(' '.join(text.split()))}", err=True)
        return status

    def _ask_plugins(self) -> None:
        if self._asked:
            return
        self._asked = True
        from dqas_plugin.plugins import plugins

        plugins().register_commands(self)  # what goes wrong is logged, and shown by doctor


def _strangers() -> bool:
    """Whether another package than this one brings plugins; reads the installed metadata, imports nothing."""
    return any(one.dist is None or one.dist.name != "dqas" for one in entry_points(group="dqas"))


def _of_the_system(error: OSError) -> str | None:
    """What the system cannot do for reasons that people can mend."""
    if error.errno == errno.ENAMETOOLONG:
        return f"'{str(error.filename)[:60]}…' is too long for the name of a file: shorten it"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" of {error.filename}" if error.filename else ", perhaps that of the output,"
        return f"the disk{where} is full: make room, and start the same command again"
    return None


def _in_words(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    if isinstance(error, click.UsageError):
        return _usage(error), 2
    if isinstance(error, click.ClickException):
        return error.format_message(), 2
    if out_of_memory(error):
        return str(OutOfMemoryError.of(error)), 1
    if isinstance(error, DqasError):
        return str(error), 2 if isinstance(error, UserError) else 1
    if isinstance(error, OSError) and (said := _of_the_system(error)):
        return said, 2
    what = f"{type(error).__name__}: {error}".rstrip(": .")
    return f"{what} (this is a fault of the program; DQAS_DEBUG=1 shows where it happened)", 1


def _usage(error: click.UsageError) -> str:
    """Click's complaint as one sentence, with the page that helps."""
    path = error.ctx.command_path if error.ctx else "dqas"
    if isinstance(error, click.NoSuchOption) and error.ctx:
        options = [one for parameter in error.ctx.command.get_params(error.ctx) for one in parameter.opts]
        return str(unknown_name("option", error.option_name, [one for one in options if one.startswith("--")]))
    text = error.format_message().rstrip(". ")
    return f"{text[:1].lower()}{text[1:]}; see {path} --help"


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    click.echo(f"dqas {installed('dqas') or '(not installed)'}")
    ctx.exit()


def _set_debug(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if isinstance(ctx.command, Program):
        ctx.command.debug = wanted


@click.group(
    "dqas",
    cls=Program,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version.")
@click.option("--debug", is_flag=True, hidden=True, expose_value=False, is_eager=True, envvar="DQAS_DEBUG", callback=_set_debug)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Choose a small training set, and measure whether the choice was good.

    Which samples of each class (--method), and how many of each class (--adaptive)?

    \b
    Examples:
      dqas bench --method graphcut --adaptive
      dqas bench --dataset cifar10 --method all --ratio 0.01,0.1
      dqas select --dataset digits --method graphcut --ratio 0.1 --out s.npz
      dqas list methods
      dqas doctor
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (bench, select, quantize, import_, table, figure, report, list_, doctor):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the program."""
    logging.basicConfig(format="dqas: %(message)s")
    cli.main(prog_name="dqas")
