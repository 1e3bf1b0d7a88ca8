"""What ``mkdocs`` does to a page before it renders it: the pages are read in the repository, too."""

from __future__ import annotations

import re
from typing import Any

_COMMENT = re.compile(r"<!-- \[\[\[.*?\]\]\] -->\n?", re.DOTALL)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]*)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take out the marks of generated parts; name files of the repository, which are no pages, instead of linking to them."""
    return _OUTSIDE.sub(_named, _COMMENT.sub("", markdown))


def _named(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}` in the repository)"
