"""A checkout of PatrickZH/DeepCore on this machine: found and read without running it, imported when a method runs.

DeepCore cannot be installed: what people have is a folder with ``main.py`` and the package ``deepcore``. The package of that
name on PyPI is another program.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from threading import RLock
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from dqas_plugin.errors import UserError
from dqas_plugin.untrusted import read_bytes

HOME = "DEEPCORE_HOME"
"""The environment variable with the path of the checkout; ``--deepcore PATH`` sets it."""

PACKAGE = "deepcore"
BASES = ("CoresetMethod", "EarlyTrain")
"""Classes of ``deepcore.methods`` that the others derive from, and that select nothing by themselves."""

ANSWERS = frozenset({"indices", "scores", "weights"})
"""Keys of the dictionary that ``select()`` returns."""

CALL_SIDE = frozenset(
    {
        *("self", "dst_train", "args", "fraction", "random_seed", "epochs", "specific_model", "balance", "pretrain_model"),
        *("torchvision_pretrain", "dst_pretrain_dict", "fraction_pretrain", "dst_test", "dst_val", "already_selected"),
    }
)
"""Arguments of its classes that whoever calls them sets, and that are no options."""

_LONGEST = 1 << 24  # bytes of a file
_GET = "git clone https://github.com/PatrickZH/DeepCore"
LOCK = RLock()
"""Held while DeepCore is imported or runs: both use what the whole process shares."""


@dataclass(frozen=True)
class Method:
    """A class of ``deepcore.methods``, as far as its source tells.

    Attributes:
        name: of the class.
        answers: which of :data:`ANSWERS` its ``select()`` returns.
        trains: it has a network, which it would train.
        watches: it looks at the training itself (it has an ``after_loss`` that does something).
        options: arguments of its own with a plain default (text, number, yes or no, nothing), and those defaults.
    """

    name: str
    answers: frozenset[str]
    trains: bool
    watches: bool
    options: Mapping[str, Any] = field(default_factory=dict)


class Modules(NamedTuple):
    """The imported parts of a checkout: its two packages, and every module that came with them."""

    methods: ModuleType
    nets: ModuleType
    every: tuple[ModuleType, ...]


@dataclass(frozen=True, eq=False)
class Checkout:
    """A folder that holds DeepCore.

    Attributes:
        path: the folder that ``main.py`` lies in, absolute.
        methods: the classes that can be asked to select, by name, in alphabetical order.
    """

    path: Path
    methods: Mapping[str, Method]

    @classmethod
    def at(cls, path: str | Path) -> Checkout:
        """The checkout in a folder. Its files are read; nothing is imported or run.

        Raises:
            UserError: if the folder holds no DeepCore, or another program of that name.
        """
        folder = Path(path).expanduser().resolve()
        _check_folder(folder)
        return cls(folder, MappingProxyType(_methods(folder / PACKAGE / "methods")))

    @cached_property
    def version(self) -> str:
        """Which DeepCore it is: the commit, if it is a git checkout, and a digest of its methods, which may be changed ones."""
        digest = hashlib.blake2b(digest_size=6)
        for file in sorted((self.path / PACKAGE / "methods").rglob("*.py")):
            name = os.fsencode(file.relative_to(self.path).as_posix())
            digest.update(name + b"\0" + _content(file) + b"\0")
        commit = _commit(self.path)
        methods = f"methods {digest.hexdigest()}"
        return f"commit {commit[:12]}, {methods}" if commit else methods

    @contextmanager
    def on_path(self) -> Iterator[None]:
        """Inside, ``import deepcore`` means this checkout; afterwards ``sys.path`` and ``sys.modules`` are as before."""
        with LOCK:
            before, path = _taken_out(), sys.path.copy()
            sys.path.insert(0, str(self.path))
            importlib.invalidate_caches()
            try:
                yield
            finally:
                sys.path[:] = path
                _taken_out()
                sys.modules.update(before)

    @cached_property
    def modules(self) -> Modules:
        """Its methods and networks, imported at the first call, for this object alone.

        Raises:
            UserError: if they cannot be imported, or come from somewhere else.
        """
        with self.on_path():
            try:
                methods, nets = (importlib.import_module(f"{PACKAGE}.{name}") for name in ("methods", "nets"))
            except (Exception, SystemExit) as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise UserError(f"DeepCore in {self.path} cannot be imported ({reason}): mend the checkout") from error
            every = tuple(module for name, module in sys.modules.items() if _is_ours(name))
            for module in (methods, nets):
                if not Path(module.__file__ or "").resolve().is_relative_to(self.path):
                    raise UserError(f"'{module.__name__}' came from {module.__file__}, not from {self.path}: mend the checkout")
            return Modules(methods, nets, every)


def configured() -> Checkout | None:
    """The checkout that the environment variable ``DEEPCORE_HOME`` names; None if it names none.

    Raises:
        UserError: see :meth:`Checkout.at`.
    """
    path = os.environ.get(HOME)
    return _opened(str(Path(path).expanduser().resolve())) if path else None


@cache
def _opened(path: str) -> Checkout:
    return Checkout.at(path)


def _taken_out() -> dict[str, ModuleType]:
    """Remove every module of a package of that name from ``sys.modules``; those that were there."""
    return {name: sys.modules.pop(name) for name in [*sys.modules] if _is_ours(name)}


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE


def _check_folder(folder: Path) -> None:
    package = folder / PACKAGE
    if (package / "methods" / "__init__.py").is_file() and (package / "nets" / "__init__.py").is_file():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: give the one of a DeepCore checkout ({_GET})")
    if (package / "__init__.py").is_file() or (folder / f"{PACKAGE}.py").is_file():
        raise UserError(
            f"{folder} holds a package '{PACKAGE}' without methods, which is another program of that name (the one on PyPI): "
            f"give the folder of a DeepCore checkout ({_GET})"
        )
    if (folder / "methods" / "__init__.py").is_file() and (folder / "nets" / "__init__.py").is_file():
        raise UserError(f"{folder} is the package inside a DeepCore checkout: give the folder above it, {folder.parent}")
    raise UserError(f"{folder} is no DeepCore checkout, it has no {PACKAGE}/methods: give the folder of one ({_GET})")


def _commit(folder: Path) -> str | None:
    """The commit that is checked out, as git's own files say; None for a folder that is no git checkout."""
    try:
        store = folder / ".git"
        if store.is_file():  # of a worktree: it names the real one
            store = folder / _content(store).decode().removeprefix("gitdir:").strip()
        head = _content(store / "HEAD").decode().strip()
        name = head.removeprefix("ref:").strip()
        if name == head:
            return _hash(head)
        shared = store / "commondir"
        base = store / _content(shared).decode().strip() if shared.is_file() else store
        loose = base / name
        if loose.is_file():
            return _hash(_content(loose).decode().strip())
        packed = _content(base / "packed-refs").decode().splitlines()
        return next((_hash(line.split()[0]) for line in packed if line.endswith(f" {name}")), None)
    except (OSError, ValueError, UserError):
        return None


def _content(file: Path) -> bytes:
    """All of a file.

    Raises:
        UserError: if it is none, or too long for what git or DeepCore write.
    """
    try:
        return read_bytes(file, _LONGEST)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file} of the DeepCore checkout cannot be read ({reason}): mend the checkout") from error


def _hash(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9a-f]{40,64}", text) else None


@dataclass(frozen=True)
class _Class:
    """A class statement: its bases, the keys of dictionaries in it, and what it does with a training."""

    bases: tuple[str, ...]
    keys: frozenset[str]
    watches: bool | None
    options: Mapping[str, Any]


def _methods(folder: Path) -> dict[str, Method]:
    """The classes that the package offers and that derive from DeepCore's base class."""
    known: dict[str, _Class] = {}
    offered: set[str] = set()
    for module, names in _imported(folder / "__init__.py"):
        file = folder / f"{module}.py"
        body = _parsed(file).body if file.is_file() else []
        found = {one.name: _described(one) for one in body if isinstance(one, ast.ClassDef)}
        known |= found
        offered |= set(found) if names is None else names & set(found)
    lines = {name: _line(name, known) for name in sorted(offered)}
    return {
        name: Method(
            name,
            ANSWERS & frozenset().union(*(known[one].keys for one in line)),
            any("EarlyTrain" in known[one].bases for one in line),
            next((known[one].watches for one in line if known[one].watches is not None), False) or False,
            known[name].options,
        )
        for name, line in lines.items()
        if name not in BASES and any(base in BASES for one in line for base in known[one].bases)
    }


def _line(name: str, known: Mapping[str, _Class]) -> list[str]:
    """The class and those that it derives from, nearest first, without the common bases."""
    line: list[str] = []
    waiting = [name]
    while waiting:
        one = waiting.pop(0)
        if one in known and one not in BASES and one not in line:
            line.append(one)
            waiting += known[one].bases
    return line


def _imported(init: Path) -> list[tuple[str, set[str] | None]]:
    """The modules that ``__init__.py`` imports from its own folder, and the names taken of each (None: all)."""
    found: list[tuple[str, set[str] | None]] = []
    for one in _parsed(init).body:
        if isinstance(one, ast.ImportFrom) and one.level == 1 and one.module:
            names = {alias.name for alias in one.names}
            found.append((one.module, None if "*" in names else names))
    return found


def _parsed(file: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd numbers and escapes
            return ast.parse(_content(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # MemoryError: Python's parser, of deep nesting
        raise UserError(f"{file} of the DeepCore checkout cannot be read ({error}): mend the checkout") from error


def _described(node: ast.ClassDef) -> _Class:
    inside = list(ast.walk(node))
    bases = [one for one in node.bases if isinstance(one, ast.Name | ast.Attribute)]
    names = [one.id if isinstance(one, ast.Name) else one.attr for one in bases]
    constants = [key for one in inside if isinstance(one, ast.Dict) for key in one.keys if isinstance(key, ast.Constant)]
    keys = {key.value for key in constants if isinstance(key.value, str)}
    hook = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "after_loss"), None)
    watches = None if hook is None else any(not _idle(one) for one in hook.body)
    maker = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    return _Class(tuple(names), frozenset(keys), watches, {} if maker is None else _defaults(maker.args))


def _idle(statement: ast.stmt) -> bool:
    """Whether it does nothing: ``pass``, ``…`` or a docstring."""
    return isinstance(statement, ast.Pass) or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))


def _defaults(arguments: ast.arguments) -> dict[str, Any]:
    """Names and plain defaults of the arguments that are options."""
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)][::-1]
    pairs += [(one, default) for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default]
    return {
        one.arg: default.value
        for one, default in pairs
        if one.arg not in CALL_SIDE
        and isinstance(default, ast.Constant)
        and isinstance(default.value, str | int | float | bool | None)
    }
