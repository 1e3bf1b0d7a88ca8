"""HTML that is escaped by construction: text is escaped wherever it is put, and only :class:`Html` is taken as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_VOID = {"img", "meta", "link"}


class Html(str):
    """Markup that is safe already."""

    __slots__ = ()


def tag(name: str, attributes: Mapping[str, object] | None = None, *children: str) -> Html:
    """An element.

    Args:
        name: of the element.
        attributes: True is an attribute without a value; None and False leave it out.
        children: text, which is escaped, or :class:`Html`.
    """
    told = "".join(
        f" {key}" if value is True else f' {key}="{escape(str(value))}"'
        for key, value in (attributes or {}).items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{told}>" if name in _VOID else f"<{name}{told}>{together(children)}</{name}>")


def together(parts: Iterable[str], between: str = "") -> Html:
    """These parts in a row, with text between them."""
    return Html(_safe(between).join(map(_safe, parts)))


def _safe(part: str) -> str:
    return part if isinstance(part, Html) else escape(part)


def data_block(identity: str, content: Any) -> Html:
    """JSON for a script to read. Whatever it holds, it cannot end the element or begin another."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return tag("script", {"type": "application/json", "id": identity}, Html(text))


def listed(items: Iterable[str], kind: str = "ul", name: str | None = None) -> Html:
    """A list; nothing where there are no items."""
    found = [tag("li", None, one) for one in items]
    return tag(kind, {"class": name}, *found) if found else Html()
