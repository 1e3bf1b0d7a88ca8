"""The documentation as a whole: every page is in the menu, every link leads somewhere, every command on a page exists."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from deepcore_runs import STANDIN
from dqas_adapters.deepcore.__main__ import program
from dqas_adapters.deepcore.checkout import HOME
from dqas_cli.import_ import found_format
from dqas_cli.main import cli
from dqas_plugin.errors import UserError
from dqas_plugin.plugins import plugins

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(one.relative_to(ROOT).as_posix() for one in (ROOT / "docs").glob("**/*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *PAGES]


def text_of(document: str) -> str:
    """A document without its blocks of code, in which a bracket is no link."""
    text = (ROOT / document).read_text()
    return re.sub(r"^```.*?^```|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(document: str) -> set[str]:
    """Where a link into a page may lead: its headings, in the form that GitHub and the site give them."""
    headings = re.findall(r"^#+ (.+)$", text_of(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


def links(document: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", text_of(document))
    return [one for one in found if not re.match(r"[a-z]+:", one)]


def test_the_menu_has_exactly_the_pages() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\n\n")[0]
    listed = re.findall(r": (\S+\.md)$", menu, flags=re.MULTILINE)
    assert sorted(f"docs/{one}" for one in listed) == PAGES
    assert listed[0] == "index.md"


def test_helpers_of_the_pages_are_not_on_the_site() -> None:
    left_out = (ROOT / "mkdocs.yml").read_text().partition("exclude_docs: |\n")[2].partition("\n\n")[0].split()
    endings = {one.suffix for one in (ROOT / "docs").iterdir() if one.is_file() and one.suffix != ".md"}
    assert endings == {one.removeprefix("*") for one in left_out}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent.joinpath(path).resolve() if path else ROOT / document
        assert target.exists(), f"{document} links to {link}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), f"{document} links to {link}"


def test_the_checks_of_links_see_them() -> None:
    assert "images/figure-3.svg" in links("docs/index.md")
    assert "evidence.md#the-pictures-of-these-pages" in links("docs/index.md")
    assert "the-pictures-of-these-pages" in anchors("docs/evidence.md")
    assert "dqas_selection_madeselection-request" in anchors("docs/hooks.md")


def test_pictures_come_with_the_command_that_makes_them() -> None:
    made = "\n".join((ROOT / one).read_text() for one in ("docs/evidence.md", "README.md"))
    for picture in (ROOT / "docs" / "images").iterdir():
        assert re.search(rf"dqas figure .*--out docs/images/{re.escape(picture.name)}$", made, flags=re.MULTILINE)


# --- commands ------------------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """A command of this program on a page; ``whole`` if it is there to be typed, and not only named in a sentence."""

    document: str
    line: str
    whole: bool


def commands() -> Iterator[Told]:
    start = r"(?:dqas [a-z]|python -m dqas_)"
    for document in DOCUMENTS:
        if document == "docs/help.md":  # made from the commands themselves
            continue
        text = (ROOT / document).read_text()
        for typed, named in re.findall(rf"^    ({start}.*)$|`({start}[^`]*)`", text, flags=re.MULTILINE):
            line = re.sub(r"\s+#\s.*", "", typed or named)
            yield from (Told(document, one.strip(), bool(typed)) for one in line.split("&&") if "…" not in one or typed)


COMMANDS = sorted(set(commands()))


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A folder in which ``DeepCore`` is a checkout."""
    (tmp_path / "DeepCore").symlink_to(STANDIN, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME, "")
    yield
    plugins.cache_clear()


def test_there_are_commands_to_check() -> None:
    typed = [one.line.split() for one in COMMANDS if one.whole]
    assert len(typed) > 40
    assert {one[1] for one in typed} > {"bench", "select", "quantize", "import", "list", "figure", "doctor", "-m"}


def parsed(words: list[str]) -> click.Context:
    """The command with its options, checked as far as that needs no data."""
    if words[0] == "python":
        return program.make_context("python", words[3:])
    command = cli.get_command(click.Context(cli), words[1])
    assert command is not None
    return command.make_context(words[1], words[2:])


@pytest.mark.parametrize("told", COMMANDS, ids=lambda one: f"{one.document}: {one.line}")
@pytest.mark.usefixtures("checkout")
def test_commands_exist_with_these_options(told: Told) -> None:
    words = shlex.split(told.line)
    if words[:2] == ["dqas", "hello"]:
        pytest.skip("a command that an example adds")
    try:
        context = parsed(words)
    except click.MissingParameter:
        if told.whole:
            raise
        return
    if context.info_name == "import":
        found_format(context.params["form"])
    if context.info_name in ("select", "import") and context.params["format_"] not in (None, "NAME"):
        assert context.params["format_"] in plugins().exporters


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize(
    "line", ["dqas bench --adaptiv", "dqas figure 2", "dqas import drem x --out y", "dqas bench --ratio 7"]
)
def test_wrong_commands_are_seen(line: str) -> None:
    with pytest.raises((UserError, click.UsageError)):
        found_format(parsed(shlex.split(line)).params["form"])


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra docs is not installed")
def test_the_site_is_built(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(call, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "plugins" / "index.html").read_text()
    assert "[[[cog" not in page
    assert "../examples" not in page, "what is no page is named, not linked to"
    assert not list((tmp_path / "site").rglob("pages.py"))
