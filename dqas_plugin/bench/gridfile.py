"""Grids as TOML files: what ``dqas bench`` is to run, with several datasets or settings in one run.

``[defaults]`` holds what all grids have in common, every ``[[grid]]`` what it has otherwise. The keys are the long options of
``dqas bench`` that say what is run; those that say how (``--results``, ``--jobs``, ``--device`` …) stay on the command line::

    title = "GraphCut on two datasets"

    [defaults]
    method = ["graphcut", "herding"]
    adaptive = true

    [[grid]]
    dataset = "digits"
    ratio = [0.05, 0.1]

    [[grid]]
    dataset = "shapes"
    dataset-option = { modes = 30 }
    aipc = 20
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqas_plugin import given
from dqas_plugin.bench.gridspec import GridSpec
from dqas_plugin.errors import UserError, nearest, unknown_name
from dqas_plugin.quantization.settings import BINS_ON, REBUILDS, SCORES
from dqas_plugin.untrusted import read_bytes

Table = Mapping[str, Any]
Read = Callable[[str, Any], Any]
"""``read(key, value)``: the checked value of a key."""

HOW = ("deepcore", "device", "estimate", "executor", "executor-option", "grid", "jobs", "price", "results", "root")
"""Options of ``dqas bench`` that say how to run; a file has none of them."""

_LONGEST = 1 << 20  # bytes of a file
_LONGEST_SHOWN = 60  # characters of a value in a message
_TABLES = ("title", "defaults", "grid")
_SHIPPED = Path(__file__).with_name("grids")


@dataclass(frozen=True)
class ShippedGrid:
    """A grid file that comes with the program.

    Attributes:
        name: by which ``--grid`` finds it.
        title: what it is, in a line.
        path: of the file, to read or to copy.
    """

    name: str
    title: str
    path: Path


def shipped_grids() -> list[ShippedGrid]:
    """The grid files that come with the program."""
    return [ShippedGrid(one.stem, _parsed(one, one.name).get("title", ""), one) for one in sorted(_SHIPPED.glob("*.toml"))]


def read_grid(name: Path | str) -> list[GridSpec]:
    """The grids of a file.

    Args:
        name: path of the file, or the name of a shipped one.

    Raises:
        UserError: if there is no such file, it is not TOML, or has anything that a grid file does not have.
    """
    path = _found(str(name))
    shown = path.name if path.parent == _SHIPPED else str(name)
    return _specs(_parsed(path, shown), shown)


def _found(name: str) -> Path:
    path, stem = Path(name), name.removesuffix(".toml")
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"the grid {name} is a folder: name a TOML file in it")
    shipped = {one.stem: one for one in _SHIPPED.glob("*.toml")}
    if stem not in shipped:
        raise UserError(f"there is no grid file {name}, and no shipped grid of that name: {nearest(stem, shipped)}")
    return shipped[stem]


def _parsed(path: Path, shown: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(read_bytes(path, _LONGEST).decode())
        json.dumps(found, default=str)  # dotted keys nest without end, numbers are longer than Python prints them
    except OSError as error:
        raise UserError(f"cannot read the grid {shown} ({error.strerror}): name a file you can read") from error
    except RecursionError as error:
        raise UserError(f"the grid {shown} is nested too deeply for a grid: mend it, or see dqas list grids") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise UserError(f"the grid {shown} is not TOML ({str(error).rstrip('.')}): mend it, or see dqas list grids") from error
    return found


def _specs(document: Table, shown: str) -> list[GridSpec]:
    for name in document:
        if name in _KEYS:
            raise UserError(f"{shown}: '{name}' stands outside of a table: move it into [defaults] or a [[grid]]")
        if name not in _TABLES:
            raise UserError(f"{shown}: {unknown_name('table', name, _TABLES)}")
    if not isinstance(document.get("title", ""), str):
        raise UserError(f"{shown}: title must be text, not {_shown(document['title'])}")
    grids = document.get("grid", [])
    if not isinstance(grids, list) or not all(isinstance(one, dict) for one in grids):
        raise UserError(f"{shown}: grid must be a list of tables: write each as [[grid]]")
    if not grids:
        raise UserError(f"{shown} has no [[grid]] table, so there is nothing to run: add one")
    defaults = _fields(document.get("defaults", {}), f"{shown}, [defaults]")
    return [_spec(defaults, one, f"{shown}, grid {number}") for number, one in enumerate(grids, 1)]


def _spec(defaults: Table, table: Table, where: str) -> GridSpec:
    own = _fields(table, where)
    given_otherwise = {field for name, fields in _INSTEAD.items() if name in own for field in fields}
    if own.get("adaptive") is False:
        given_otherwise |= {"allocator", "allocator_options"}
    merged = {name: value for name, value in defaults.items() if name not in given_otherwise} | own
    if not merged:
        raise UserError(f"{where} is empty: say at least which dataset or method it runs")
    if merged.get("adaptive") is False and "allocator" in merged:
        raise UserError(f"{where}: adaptive = false and an allocator contradict each other: leave one of them out")
    return GridSpec(**merged, where=where)


_INSTEAD = {"ratios": ("aipc",), "aipc": ("ratios",), "epochs": ("iterations",), "iterations": ("epochs",)}
"""Fields of the defaults that a field of a grid takes the place of."""


def _fields(table: Any, where: str) -> dict[str, Any]:
    """The values of a table by fields of :class:`GridSpec`."""
    if not isinstance(table, dict):
        raise UserError(f"{where} must be a table of options, not {_shown(table)}")
    found = {}
    for key, value in table.items():
        if key in HOW:
            raise UserError(f"{where}: '{key}' says how to run and not what: give it on the command line, as --{key}")
        if key not in _KEYS:
            raise UserError(f"{where}: {unknown_name('key', key, _KEYS)}")
        name, read = _KEYS[key]
        try:
            found[name] = read(key, value)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    return found


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{key} must be text in quotation marks, not {_shown(value)}")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{key} must be true or false, not {_shown(value)}")
    return value


def _word(kind: str, valid: tuple[str, ...]) -> Read:
    def read(key: str, value: Any) -> str:
        if _text(key, value) not in valid:
            raise unknown_name(kind, value, valid)
        return str(value)

    return read


def _number(read: given.Read[Any]) -> Read:
    """A number that ``read`` accepts, too."""

    def checked(key: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{key} must be a number, not {_shown(value)}")
        return read(key, str(value))

    return checked


def _size(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f'{key} must be a number of bytes or a size such as "500MB", not {_shown(value)}')
    return given.read_size(key, str(value))


def _several(read: Read) -> Read:
    """One value or a list of some; each is kept once, in order."""

    def checked(key: str, value: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise UserError(f"{key} is an empty list: give at least one value, or leave it out")
        return tuple(dict.fromkeys(read(key, one) for one in values))

    return checked


def _names(key: str, value: Any) -> tuple[str, ...]:
    """Names in a list, or with commas between them."""
    return given.separated(key, _several(_text)(key, value), given.read_name)


def _joined(key: str, value: Any) -> str:
    return ",".join(_names(key, value))


def _options(key: str, value: Any) -> dict[str, str]:
    """A table of options, as the texts that they would be on the command line."""
    if not isinstance(value, dict) or not all(isinstance(one, str | bool | int | float) for one in value.values()):
        raise UserError(f"{key} must be a table of single values such as {{ name = 3 }}, not {_shown(value)}")
    return {name: one if isinstance(one, str) else json.dumps(one) for name, one in value.items()}


_count = _number(given.read_count)

_KEYS: dict[str, tuple[str, Read]] = {
    "dataset": ("dataset", _text),
    "dataset-option": ("dataset_options", _options),
    "test-from": ("test_from", _text),
    "method": ("methods", _names),
    "ratio": ("ratios", _several(_number(given.read_ratio))),
    "aipc": ("aipc", _several(_count)),
    "method-option": ("method_options", _options),
    "features": ("features", _text),
    "max-memory": ("max_memory", _size),
    "adaptive": ("adaptive", _flag),
    "allocator": ("allocator", _joined),
    "refiner": ("refiner", _text),
    "refine-share": ("refine_share", _number(given.read_share)),
    "proxy": ("proxy", _text),
    "goal": ("goal", _text),
    "allocator-option": ("allocator_options", _options),
    "refiner-option": ("refiner_options", _options),
    "scorer": ("scorer", _text),
    "bins-on": ("bins_on", _word("kind of images to make bins of", BINS_ON)),
    "no-patches": ("no_patches", _flag),
    "drop-rate": ("drop_rate", _number(lambda _, text: float(text))),
    "patch-size": ("patch_size", _count),
    "patch-scores": ("patch_scores", _word("patch score", SCORES)),
    "rebuild": ("rebuild", _word("way to rebuild images", REBUILDS)),
    "model": ("model", _text),
    "recipe": ("recipe_name", _text),
    "epochs": ("epochs", _count),
    "iterations": ("iterations", _count),
    "batch": ("batch", _count),
    "lr": ("lr", _number(given.read_positive)),
    "prior": ("prior", _text),
    "seeds": ("seeds", _count),
}
"""For every key the field that it sets, and how its value is read."""
