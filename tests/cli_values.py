"""Command lines as nobody would type them, drawn from what Click knows of each command, of new ones by themselves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import click
from click.testing import CliRunner, Result
from hypothesis import strategies as st

from hostile import alarm

JUNK = (
    *(
        "",
        " ",
        "x",
        "-",
        "--",
        "-1",
        "0",
        "1",
        "2",
        "0.5",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e-999",
        "0x10",
        "१",
        "1_000",
        "+1",
    ),
    *(
        "9" * 20,
        "9" * 5000,
        "none",
        "None",
        "true",
        "null",
        "all",
        "auto",
        ",",
        "1,,2",
        "0.1,0.2",
        "a,b",
        "=",
        "a=",
        "=b",
        "a=b=c",
    ),
    *(
        ".",
        "..",
        "/",
        "~",
        "~nobody",
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "nowhere",
        "file",
        "file/below",
        "a b",
        "ünïcode 💥",
    ),
    *("\udcff", "\x1b[31m", "a\nb", "%s", "{}", "$(id)", "';--", "\\", "*", "a" * 300, "a" * 5000, "x" * 250 + "/" + "y" * 250),
    *(
        ":",
        "folder:",
        "folder:nowhere",
        "folder:.",
        "parquet:file",
        "dc:x+y",
        "hf:.",
        "ranking:file",
        "dq-bins:.",
        "digits:x",
        "timm:",
        "timm:x",
    ),
    *(
        "timm:resnet18@file",
        "random:x",
        "graphcut:",
        "deepcore:x",
        "cuda:99",
        "cuda:-1",
        "cuda:x",
        "mps",
        "meta",
        "xla",
        "cpu:7",
        "cpu",
        "cpu:0",
    ),
)
"""What may stand for a value; no zero bytes, which no command line can hold."""

KNOWN: Mapping[str, Sequence[str]] = {
    "dataset": ("digits", "shapes", "cifar10", "tiny-imagenet", "fashion-mnist"),
    "dataset_options": (
        "classes=3",
        "per_class=20",
        "size=8",
        "modes=30",
        "test_share=0.5",
        "mirror=false",
        "size=-1",
        "per_class=10000000000",
    ),
    "test_from": ("digits", "shapes"),
    "root": ("data", "."),
    "method": ("random", "graphcut", "herding", "dq", "k-center"),
    "methods": ("random", "graphcut", "random,herding", "all", "dqas"),
    "method_options": ("objective=eq7", "compat=paper", "bins=3", "repeat=2"),
    "features": ("proxy", "timm:nothing"),
    "max_memory": ("500MB", "4GiB", "1", "1e9", "0.5"),
    "ratio": ("0.05", "0.1", "1", "0.001"),
    "ratios": ("0.05,0.1", "1", "0.01"),
    "aipc": ("1", "5", "1,5", "1000"),
    "allocator": ("adaptive", "uniform", "paper", "proportional", "adaptive,paper"),
    "allocator_options": ("iterations=5", "init=uniform", "iterations=0"),
    "refiner": ("error-reduction", "random", "none"),
    "refiner_options": ("rounds=1", "scorer=ridge", "rounds=-1"),
    "refine_share": ("0.1", "0.9"),
    "scorer": ("ridge", "kap2nd", "influence"),
    "bins_on": ("original", "reconstructed"),
    "drop_rate": ("0.25", "0", "0.99", "1", "-0.5"),
    "patch_size": ("1", "2", "4", "3"),
    "model": ("convnet3-small", "convnet3"),
    "epochs": ("1", "3"),
    "iterations": ("2", "10"),
    "batch": ("1", "64"),
    "lr": ("0.1", "1e-3"),
    "seeds": ("1", "3", "100", "999999999999999999"),
    "seed": ("0", "7"),
    "grid": ("quick-table2", "table2"),
    "jobs": ("1", "2", "1000000"),
    "executor": ("local", "ray", "slurm"),
    "executor_options": ("partition=x", "minutes=1"),
    "price": ("2.50",),
    "bins": ("1", "3", "10"),
    "device": ("auto", "cpu"),
    "out": ("s.npz", "new", "new/s.npz", "page.html", "f.png", "t.tex"),
    "results": ("results",),
    "form": ("selection", "ranking", "dream", "dc", "mtt", "hf", "parquet", "dq", "deepcore", "folder", "images"),
    "path": ("file", ".", "s.npz", "results/results.sqlite"),
    "pairs": ("factor=2", "run=0", "size=8", "check=false"),
    "format_": ("parquet", "hf", "webdataset", "dc", "dq", "md", "html", "latex", "csv", "json", "plain"),
    "format_options": ("shard=0", "seed=1", "style=dc-benchmark", "bins=true"),
    "number": ("1", "2", "3", "4", "5"),
    "name": ("1", "3", "curves"),
    "recipe": ("quick",),
    "mae_weights": ("file",),
}
"""Good and nearly good values, by the name of the parameter."""


def words_of(parameter: click.Parameter) -> tuple[str, ...]:
    """Values that might be right: those known, those of its list of words, and its default."""
    listed = (
        re.fullmatch(r"\[(.+)\]", parameter.metavar or "") if isinstance(parameter, click.Option | click.Argument) else None
    )
    default = parameter.default
    usual = (str(default),) if isinstance(default, str | int | float) else ()
    return (*KNOWN.get(str(parameter.name), ()), *(listed[1].split("|") if listed else ()), *usual)


def values(parameter: click.Parameter) -> st.SearchStrategy[str]:
    """A value: right, nearly right, or anything."""
    words = words_of(parameter)
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
    if not words:
        return st.one_of(st.sampled_from(JUNK), text)
    right = st.sampled_from(words)
    misspelt = right.flatmap(
        lambda word: st.sampled_from([word[1:], word + "x", word.upper(), f"{word},", f"{word}:x", f" {word}"])
    )
    return st.one_of(right, right, right, right, misspelt, st.sampled_from(JUNK), text)


@st.composite
def command_lines(draw: st.DrawFn, command: click.Command) -> list[str]:
    """Arguments of a command: those that must be there, mostly, and a few others; ``bench`` only estimates."""
    context = click.Context(command)
    parameters = [one for one in command.get_params(context) if one.name != "help"]
    must = [one for one in parameters if one.required or isinstance(one, click.Argument)]
    may = [one for one in parameters if one not in must]
    if must and draw(st.integers(0, 9)) == 0:
        must = must[1:]
    chosen = draw(st.lists(st.sampled_from(may), max_size=4)) if may else []
    line: list[str] = []
    for one in [*must, *chosen]:
        if isinstance(one, click.Argument):
            line.append(draw(values(one)))
        elif isinstance(one, click.Option) and (one.is_flag or one.count):
            line.append(one.opts[0])
        else:
            value = draw(values(one))
            line += [f"{one.opts[0]}={value}"] if draw(st.booleans()) else [one.opts[0], value]
    return [*line, *(one.opts[0] for one in may if one.name in CHEAPER)]


CHEAPER = ("estimate",)
"""Flags that keep a command from its work: they are always given."""


SECONDS = 60
"""On the clock, that a command may take in which nothing is trained."""

STATUSES = {"doctor": (0, 1)}
"""Of commands that end with others than 0 and 2: 1 is a machine with a problem."""


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and where it is, those of groups in groups too."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


@contextmanager
def place(folder: Path) -> Iterator[None]:
    """Inside, the current folder has some results and a file that is nothing, and no network is trained.

    What would train or measure says so instead, as a mistake of the user's.

    Args:
        folder: empty.
    """
    import matplotlib
    import torch

    from dqas_plugin import precision
    from dqas_plugin.bench import cost
    from dqas_plugin.errors import UserError
    from evidence_problem import stored, toy_cells

    def refuse(*_: object, **__: object) -> None:
        raise UserError("nothing is trained here")

    for one in ("here", "cache", "home"):
        (folder / one).mkdir()
    stored(folder / "here" / "results", toy_cells(ratios=[0.1], seeds=1))
    (folder / "here" / "file").write_bytes(b"nothing\n")
    environment = {"DQAS_CACHE": str(folder / "cache"), "HOME": str(folder / "home")}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # has its list of fonts, which takes long to make
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(mock.patch.object(torch.Tensor, "backward", refuse))
        stack.enter_context(mock.patch.object(cost, "train", return_value=SimpleNamespace(images_per_second=1000.0)))
        stack.enter_context(mock.patch.object(precision, "resolve", return_value="fp32"))
        stack.enter_context(chdir(folder / "here"))
        yield


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Files that are not in the cache, their lengths and times."""
    found = [one for one in sorted(folder.rglob("*")) if not one.is_dir() and one.name != "results.sqlite-shm"]
    found = [one for one in found if not one.is_relative_to(folder / "cache")]
    return {str(one.relative_to(folder)): (one.lstat().st_size, one.lstat().st_mtime_ns) for one in found}


def run(program: click.Group, line: list[str], folder: Path) -> Result:
    """Run a command line inside :func:`place`, and see what came of it.

    Raises:
        AssertionError: a traceback, another status than 0 and 2, several errors or none, something left behind by a refusal.
    """
    from dqas_plugin.datasets.download import no_downloads

    before = listing(folder)
    with no_downloads(), alarm(SECONDS):
        result = CliRunner().invoke(program, line)
    _check(line, result)
    after = listing(folder)
    if result.exit_code:
        assert after == before, f"{line}: left something behind: {sorted(after.keys() ^ before.keys())}"
    for name in after.keys() - before.keys():
        (folder / name).unlink()
    return result


def _check(line: list[str], result: Result) -> None:
    shown = f"dqas {' '.join(one if len(one) < 100 else one[:100] + '…' for one in line)!r}"
    said = result.stderr
    assert result.exit_code in STATUSES.get(line[0], (0, 2)), f"{shown}: {result.exit_code}: {said[-600:]}"
    assert "Traceback" not in said, shown
    assert "fault of the program" not in said, f"{shown}: {said}"
    assert not set("\x1b\x07") & set(said), f"{shown}: {said!r}"
    if result.exit_code == 2:
        errors = [one for one in said.splitlines() if one.startswith("dqas: error: ")]
        assert len(errors) == 1, f"{shown}: {said}"
        assert said.endswith(f"{errors[0]}\n"), f"{shown}: {said}"
        assert len(errors[0]) > len("dqas: error: ") + 5, shown
