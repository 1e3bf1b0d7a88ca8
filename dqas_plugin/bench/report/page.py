"""The report: one HTML file that needs nothing else, neither files nor a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from dqas_plugin.bench import render
from dqas_plugin.bench.report import images
from dqas_plugin.bench.report.classes import class_counts
from dqas_plugin.bench.report.curves import curves
from dqas_plugin.bench.report.headlines import headlines, unfinished
from dqas_plugin.bench.report.markup import Html, data_block, listed, tag, together
from dqas_plugin.bench.report.numbers import accuracies, costs
from dqas_plugin.bench.report.origins import Measured, cost, environment, measured, protocol, reproduction
from dqas_plugin.bench.report.pairs import Pair, name_of, pairs
from dqas_plugin.bench.report.verdicts import Judged, judged, note, tally, verdicts
from dqas_plugin.bench.table import Section
from dqas_plugin.paths import atomic_file
from dqas_plugin.versions import installed


class _Shown(NamedTuple):
    """A table of results, and what the page says of it."""

    identity: str
    name: str
    section: Section
    found: list[Judged]
    pairs: list[Pair]
    measured: Measured
    pictures: Html


def write(sections: Sequence[Section], folder: Path | str, out: Path) -> list[str]:
    """Write the report; a file of that name is replaced.

    Args:
        sections: of :func:`dqas_plugin.bench.evidence.read`.
        folder: where they come from: their selections lie there, too.
        out: the file.

    Returns:
        what the report says first, in sentences.

    Raises:
        UserError: if the file cannot be written.
    """
    shown = _shown(sections, Path(folder))
    text = _page(shown, folder)
    with atomic_file(out) as temporary:
        temporary.write_bytes(text.encode(errors="replace"))  # names of folders may be no text
    return [sentence for one in shown for sentence in headlines(one.name, one.found)]


def _shown(sections: Sequence[Section], folder: Path) -> list[_Shown]:
    room = images.PAGE
    found = []
    for number, (section, part) in enumerate(zip(sections, measured(folder, sections), strict=True), start=1):
        compared = pairs(section)
        try:
            sheet = images.contact_sheet(compared, lambda key: folder / "selections" / f"{key}.npz", room)
            room -= len(sheet)
        except images.NoPicturesError as left:
            sheet = tag("p", None, str(left))
        name = name_of(section, sections)
        found.append(_Shown(f"table-{number}", name, section, judged(section), compared, part, sheet))
    return found


def _page(shown: Sequence[_Shown], folder: Path | str) -> str:
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    names = ", ".join(dict.fromkeys(one.name for one in shown))
    head = [
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("title", None, f"Does adaptive sampling help? {names}"),
        tag("style", None, Html(style)),
    ]
    body = [
        tag("a", {"class": "skip", "href": "#summary"}, "Skip to the summary"),
        _contents(shown),
        tag("main", None, _summary(names, shown), *map(_table, shown), _origin(shown, folder)),
        data_block("curves", {one.identity: curves(one.section, one.found) for one in shown}),
        tag("script", None, Html(script)),
    ]
    whole = tag("html", {"lang": "en"}, tag("head", None, *head), tag("body", None, *body))
    return f"<!DOCTYPE html>\n{whole}\n"


def _digest(text: str) -> str:
    """What a content security policy allows this inline text by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


_PARTS = {
    "verdicts": "Verdicts",
    "curves": "Curves",
    "accuracies": "Accuracies",
    "classes": "Classes",
    "images": "Images",
    "cost": "Cost",
    "protocol": "Protocol",
}


def _contents(shown: Sequence[_Shown]) -> Html:
    tables = [together([_link(one.identity, one.name), listed(_parts_of(one.identity))]) for one in shown]
    rest = [_link("environment", "Environment"), _link("commands", "Commands"), _link("reading", "How to read this")]
    links = [_link("summary", "Summary"), *tables, *rest]
    return tag("nav", {"aria-label": "Contents"}, listed(links))


def _parts_of(identity: str) -> list[Html]:
    return [_link(f"{identity}-{key}", name) for key, name in _PARTS.items()]


def _link(target: str, text: str) -> Html:
    return tag("a", {"href": f"#{target}"}, text)


def _summary(names: str, shown: Sequence[_Shown]) -> Html:
    cards = [tag("div", {"class": "card"}, *_sentences(headlines(one.name, one.found)), tally(one.found)) for one in shown]
    title = [tag("p", {"class": "above"}, names), tag("h1", None, "Does adaptive sampling help?")]
    return tag("header", {"id": "summary"}, *title, *cards)


def _sentences(texts: Iterable[str]) -> list[Html]:
    return [tag("p", {"class": "headline"} if place == 0 else None, text) for place, text in enumerate(texts)]


def _table(one: _Shown) -> Html:
    section, identity = one.section, one.identity
    said = [
        tag("p", {"class": "caption"}, f"{render.caption(section)}."),
        *(tag("p", None, text) for text in unfinished(section)),
    ]
    parts = {
        "verdicts": [tag("p", None, note(one.found)), verdicts(one.found)]
        if one.found
        else [tag("p", None, "Nothing is compared with even counts.")],
        "curves": [_figure(one)],
        "accuracies": [tag("p", None, _PROTOCOL), accuracies(section)],
        "classes": [class_counts(section, one.pairs, f"{identity}-class")],
        "images": [one.pictures],
        "cost": [tag("p", None, cost(one.measured)), costs(section)],
        "protocol": [protocol(section, one.measured)],
    }
    inner = [
        tag("section", {"id": f"{identity}-{key}"}, tag("h3", None, _PARTS[key]), *content) for key, content in parts.items()
    ]
    return tag("section", {"id": identity, "class": "table"}, tag("h2", None, one.name), *said, *inner)


_PROTOCOL = (
    "Test accuracy in %, mean ± standard deviation over seeds: of the classes after the last step of the training, of the "
    "lowest class, of all test images alike, and of the classes at the best evaluation, which is chosen on test labels and "
    "stands here for comparison with others only. A click on a head sorts."
)


def _figure(one: _Shown) -> Html:
    without = tag("noscript", None, tag("p", None, "The curves are drawn by a script; the same numbers are in the tables."))
    caption = tag("figcaption", None, "Bars are one standard deviation over seeds; of differences, the 95 % interval.")
    return tag(
        "figure", {"class": "curves", "data-curves": one.identity, "aria-label": f"Curves of {one.name}"}, without, caption
    )


def _origin(shown: Sequence[_Shown], folder: Path | str) -> Html:
    parts = [one.measured for one in shown]
    versions = tag("section", {"id": "environment"}, tag("h2", None, "Environment"), environment(parts))
    again = tag(
        "section",
        {"id": "commands"},
        tag("h2", None, "Commands"),
        tag("p", None, "These lines measure all of it again; where the results are, they print them in seconds."),
        reproduction(parts, folder),
    )
    reading = tag("section", {"id": "reading"}, tag("h2", None, "How to read this"), listed(_READING))
    made = tag("footer", None, f"dqas {installed('dqas') or ''}".strip() + f", from the results in {folder}")
    return together([versions, again, reading, made])


_EVEN = (
    "Even: the same method with the budget split evenly over the classes. Adaptive sampling is what is added to it: class "
    "counts chosen by an allocator, the last images by a refiner, or both."
)
_READING = (
    _EVEN,
    "Random: images drawn at random, the same number from each class.",
    "Nothing is chosen on test labels, except the best epoch.",
    "No clear difference is no proof of equality: with few seeds the intervals are wide.",
    "This page is one file: it loads nothing and sends nothing.",
)
