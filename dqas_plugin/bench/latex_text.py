"""Text for LaTeX: whatever is in a name or a sentence, the document compiles, with pdfLaTeX and its usual fonts too."""

from __future__ import annotations

import re
from unicodedata import normalize

_APART = "\0"
_SIGNS = {
    _APART: "{}",
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\rightarrow$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "œ": r"\oe{}",
    "ł": r"\l{}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0308": '"',
    "\u030a": "r",
    "\u030c": "v",
    "\u0327": "c",
}


def escaped(text: str) -> str:
    """The text with every sign that means something to TeX written out; letters of rare scripts are given by their number."""
    apart = re.sub("-(?=-)", f"-{_APART}", " ".join(text.split()))  # options keep both their hyphens
    return "".join(map(_letter, apart))


def comment(text: str) -> str:
    """The text as a line that TeX skips."""
    return "% " + " ".join(text.split())


def _letter(one: str) -> str:
    if one in _SIGNS:
        return _SIGNS[one]
    if " " <= one <= "~":
        return one
    parts = normalize("NFD", one)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"(U+{ord(one):04X})"
