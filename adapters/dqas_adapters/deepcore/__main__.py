"""``python -m dqas_adapters.deepcore PATH/main.py …``: DeepCore's benchmark with adaptive class counts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dqas_plugin.errors import DqasError, UserError


@click.command(
    "python -m dqas_adapters.deepcore",
    context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
    epilog="Options of ours stand before main.py, those of DeepCore after it.",
)
@click.option("--allocator", default="adaptive", show_default=True, metavar="NAME", help="Rule for class counts.")
@click.option("--goal", default="mean", show_default=True, metavar="NAME", help="What is better: mean, natural or worst.")
@click.option("--proxy", default="probe", show_default=True, metavar="NAME", help="What the rule trains: probe or train.")
@click.argument("main", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def program(allocator: str, goal: str, proxy: str, main: Path, arguments: tuple[str, ...]) -> None:
    """Run the main.py of a DeepCore checkout, unchanged, with class counts chosen by DQAS.

    With --selection AdaptiveNAME (AdaptiveHerding, AdaptiveGraphCut, AdaptiveEntropy …) the samples are chosen by DeepCore's
    method, and how many of each class by the allocator. What is decided is printed to standard error.

    \b
    Example:
      python -m dqas_adapters.deepcore DeepCore/main.py --dataset CIFAR10 --fraction 0.1 --selection AdaptiveGraphCut
    """
    from dqas_adapters.deepcore.benchmark import run

    try:
        run(main, arguments, report=_say, allocator=allocator, goal=goal, proxy=proxy)
    except DqasError as error:
        _say(f"error: {' '.join(str(error).split())}")
        sys.exit(2 if isinstance(error, UserError) else 1)


def _say(words: str) -> None:
    click.echo(f"dqas: {words}", err=True)


if __name__ == "__main__":
    program()
