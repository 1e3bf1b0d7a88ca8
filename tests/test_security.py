"""What SECURITY.md says of the code: no call in it executes what is in a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(one for folder in ("dqas_plugin", "adapters", "cli") for one in (ROOT / folder).rglob("*.py"))

PICKLES = {"dqas_plugin/bench/executors.py"}  # between a driver and its own processes
PROGRAMS = {"adapters/dqas_adapters/slurm.py"}
FORBIDDEN = {"eval", "exec", "compile", "os.system", "os.popen", "extractall", "extract", "unpack_archive", "yaml.load"}


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, str]]]:
    """The name of every called function, with its module as it is written, and its keyword arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield name, {one.arg: ast.unparse(one.value) for one in node.keywords if one.arg}


def offences(text: str, file: str) -> list[str]:
    """The calls in a file that SECURITY.md denies."""
    found = []
    for name, keywords in calls(ast.parse(text)):
        last = name.rpartition(".")[2]
        bad = (
            name in FORBIDDEN
            or (last in FORBIDDEN and last.startswith(("extract", "unpack")))
            or (name == "torch.load" and keywords.get("weights_only") != "True")
            or (name in {"np.load", "numpy.load"} and keywords.get("allow_pickle") != "False")
            or (name.startswith(("pickle.load", "pickle.Unpickler")) and file not in PICKLES)
            or (name.startswith("subprocess.") and file not in PROGRAMS)
            or keywords.get("shell", "False") != "False"
            or keywords.get("trust_remote_code", "False") != "False"
        )
        if bad:
            found.append(f"{file}: {name}")
    return found


def test_no_call_executes_what_is_in_a_file() -> None:
    assert len(FILES) > 100
    assert [one for file in FILES for one in offences(file.read_text(), file.relative_to(ROOT).as_posix())] == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, mmap_mode='r')",
        "pickle.loads(data)",
        "pickle.Unpickler(file)",
        "subprocess.run(['gs'])",
        "run('gs', shell=True)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(file)",
        "load_dataset(name, trust_remote_code=True)",
    ],
)
def test_such_calls_are_found(line: str) -> None:
    assert offences(line, "dqas_plugin/some.py") != []


def test_the_page_says_what_pillow_may_decode() -> None:
    from dqas_plugin.datasets.decode import _FORMATS

    page = (ROOT / "SECURITY.md").read_text()
    assert ", ".join(_FORMATS[:-1]).replace("WEBP", "WebP") + f" and {_FORMATS[-1]}" in page
