"""A table of the evidence as text: for a terminal, Markdown, LaTeX, CSV or HTML. It decides nothing about the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from csv import writer
from html import escape
from io import StringIO
from itertools import groupby
from pathlib import Path

from dqas_plugin.bench import latex_text
from dqas_plugin.bench.render import wrapped
from dqas_plugin.bench.tables.parts import Head, Table, Value
from dqas_plugin.errors import unknown_name
from dqas_plugin.paths import atomic_file

_GAP = "  "
_BEST = "*"
_MISSING_TEXT = "To fill what is missing:"
_PAGE_WIDTH = 90  # characters of the text width of an article in \scriptsize, with narrow gaps


def render(tables: Iterable[Table], form: str, width: int = 100) -> str:
    """The tables in one of :data:`FORMATS`, as one document (LaTeX: as pieces of one).

    Args:
        tables: in their order.
        form: name of the format.
        width: characters of a line, for ``plain``.

    Raises:
        UserError: for another format.
    """
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    return plain(tables, width) if form == "plain" else FORMATS[form](tables)


def chosen_format(given: str | None, file: Path | None, *, terminal: bool) -> str:
    """The format meant: as given, by the ending of the file, or by where it is printed.

    Args:
        given: name of a format, or None.
        file: that is to be written, or None.
        terminal: whether it is printed on one.
    """
    if given is not None:
        return given
    if file is not None:
        return _ENDINGS.get(file.suffix.lower(), "md")
    return "plain" if terminal else "md"


def write(text: str, file: Path) -> None:
    """Write the text as UTF-8; what was there is replaced, once all is written.

    Raises:
        UserError: if the file cannot be written.
    """
    with atomic_file(file) as whole:
        whole.write_text(f"{text}\n", encoding="utf-8")


# --- a terminal ------------------------------------------------------------------------------------------------------------


def plain(tables: Iterable[Table], width: int = 100) -> str:
    """For a terminal; tables that are wider are cut, between groups of columns where that will do."""
    return "\n\n\n".join(_plain(table, width) for table in tables)


def _plain(table: Table, width: int) -> str:
    parts = [wrapped([table.title], width), wrapped(table.caption, width)]
    texts = [[_plain_text(value) for value in row] for row in table.rows]
    parts += [_aligned(table, columns, texts) for columns in pieces(table, width, len(_GAP))]
    if any(value.bold for row in table.rows for value in row):
        parts.append(f"{_BEST} stands for bold.")
    parts += [wrapped(table.findings, width), wrapped(_numbered(table.footnotes, "[{}] {}"), width)]
    if table.commands:
        parts.append("\n".join([_MISSING_TEXT, *(f"{_GAP}{one}" for one in table.commands)]))
    return "\n\n".join(part for part in parts if part)


def _plain_text(value: Value) -> str:
    return value.text + (_BEST if value.bold else "") + (f" [{_marks(value)}]" if value.marks else "")


def _marks(value: Value) -> str:
    return ", ".join(map(str, value.marks))


def _numbered(texts: Sequence[str], form: str) -> list[str]:
    return [form.format(number, text) for number, text in enumerate(texts, start=1)]


def _aligned(table: Table, columns: Sequence[int], texts: Sequence[Sequence[str]]) -> str:
    """Some of the columns, below each other; groups stand above them."""
    widths = _widths(table, columns)
    heads = [table.heads[column] for column in columns]
    lines = [[head.text for head in heads], *([row[column] for column in columns] for row in texts)]
    body = [_GAP.join(one.ljust(size) for one, size in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "-" * max(map(len, body))
    for row in sorted(table.rules, reverse=True):
        body.insert(1 + row, rule)
    if any(head.group for head in heads):
        spans = _spans(heads)
        sizes = [sum(widths[start:end]) + len(_GAP) * (end - start - 1) for _, start, end in spans]
        body.insert(0, _GAP.join(name.ljust(size) for (name, _, _), size in zip(spans, sizes, strict=True)).rstrip())
    return "\n".join(body)


def _widths(table: Table, columns: Sequence[int]) -> list[int]:
    """Characters of each column; the last of a group is widened until the group's name fits above it."""
    found = [
        max(len(table.heads[column].text), *(len(_plain_text(row[column])) for row in table.rows), 0) for column in columns
    ]
    for name, start, end in _spans([table.heads[column] for column in columns]):
        found[end - 1] += max(0, len(name) - sum(found[start:end]) - len(_GAP) * (end - start - 1))
    return found


def _spans(heads: Sequence[Head]) -> list[tuple[str, int, int]]:
    """Groups of neighbours: name, first column, and the column after the last; each column without a group alone."""
    found: list[tuple[str, int, int]] = []
    for (name, _), members in groupby(enumerate(heads), key=lambda one: (one[1].group, 0 if one[1].group else one[0])):
        places = [place for place, _ in members]
        found.append((name, places[0], places[-1] + 1))
    return found


def pieces(table: Table, width: int, gap: int) -> list[list[int]]:
    """The columns of each piece of a table that is cut to fit: those that name the rows, and some of the others.

    Groups stay whole unless they are wider than a line.

    Args:
        table: to be cut.
        width: characters of a line; a single column may be wider.
        gap: characters between columns.
    """

    def fits(columns: Sequence[int]) -> bool:
        return sum(_widths(table, columns)) + gap * (len(columns) - 1) <= width

    labels = [column for column, head in enumerate(table.heads) if head.label]
    found: list[list[int]] = []
    for _, start, end in _spans(table.heads):
        group = [column for column in range(start, end) if column not in labels]
        for part in [group] if fits([*labels, *group]) else [[column] for column in group]:
            if found and fits([*found[-1], *part]):
                found[-1] += part
            elif part:
                found.append([*labels, *part])
    return found or [labels]


# --- Markdown ----------------------------------------------------------------------------------------------------------------


def markdown(tables: Iterable[Table]) -> str:
    """Markdown as GitHub reads it."""
    return "\n\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    lines = [[_escaped(head.name) for head in table.heads], ["---"] * len(table.heads)]
    lines += [[_markdown_text(value) for value in row] for row in table.rows]
    commands = "\n".join([_MISSING_TEXT, "", "```sh", *table.commands, "```"]) if table.commands else ""
    parts = [
        f"**{_escaped(table.title)}**",
        _escaped(" ".join(table.caption)),
        "\n".join("| " + " | ".join(line) + " |" for line in lines),
        "\n".join(f"- {_escaped(one)}" for one in table.findings),
        "\n".join(_numbered([_escaped(one) for one in table.footnotes], "{}. {}")),
        commands,
    ]
    return "\n\n".join(part for part in parts if part)


def _markdown_text(value: Value) -> str:
    text = _escaped(value.text)
    marks = f"<sup>{_marks(value)}</sup>" if value.marks else ""
    return (f"**{text}**" if value.bold else f"*{text}*" if value.missing and text else text) + marks


def _escaped(text: str) -> str:
    for one in "\\`*_|<~":
        text = text.replace(one, f"\\{one}")
    return " ".join(text.split()).replace("](", "]\\(")  # no links, and no pictures of other people's


# --- LaTeX -------------------------------------------------------------------------------------------------------------------


def latex(tables: Iterable[Table]) -> str:
    r"""One ``table`` for each piece that fits the width of a page; the preamble needs ``\usepackage{booktabs}``."""
    return "\n\n".join(["% needs \\usepackage{booktabs} in the preamble", *(_latex(table) for table in tables)])


def _latex(table: Table) -> str:
    cut = pieces(table, _PAGE_WIDTH, 2)
    shown = [_latex_piece(table, columns, number, len(cut)) for number, columns in enumerate(cut)]
    below = [latex_text.escaped(one) for one in (*table.findings, *_numbered(table.footnotes, "[{}] {}"))]
    if below:  # outside the floats, since it may be longer than a page
        below = [rf"\textbf{{{latex_text.escaped(table.title)}}}", *below]
        shown += ["", *(rf"{{\scriptsize\noindent {one}\par}}" for one in below)]
    said = [latex_text.comment(one) for one in ([_MISSING_TEXT, *table.commands] if table.commands else [])]
    return "\n".join([*shown, *said])


def _latex_piece(table: Table, columns: Sequence[int], number: int, count: int) -> str:
    heads = [table.heads[column] for column in columns]
    title = table.title if count == 1 else f"{table.title} ({number + 1} of {count})"
    said = table.caption if number == 0 else ()
    lines = [
        r"\begin{table}",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{\textbf{{{latex_text.escaped(title)}}} {latex_text.escaped(' '.join(said))}}}",
        rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
        r"\toprule",
        *_latex_groups(heads),
        _latex_row([latex_text.escaped(head.text) for head in heads]),
        r"\midrule",
    ]
    for place, row in enumerate(table.rows):
        lines += [r"\midrule"] if place in table.rules and place else []
        lines.append(_latex_row([_latex_text(row[column]) for column in columns]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _latex_groups(heads: Sequence[Head]) -> list[str]:
    spans = _spans(heads)
    if not any(name for name, _, _ in spans):
        return []
    over = [rf"\multicolumn{{{end - start}}}{{l}}{{{latex_text.escaped(name)}}}" if name else "" for name, start, end in spans]
    rules = [rf"\cmidrule(lr){{{start + 1}-{end}}}" for name, start, end in spans if name]
    return [_latex_row(over), "".join(rules)]


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _latex_text(value: Value) -> str:
    text = latex_text.escaped(value.text)
    text = rf"\textbf{{{text}}}" if value.bold else rf"\emph{{{text}}}" if value.missing and text else text
    return text + (rf"\textsuperscript{{{_marks(value)}}}" if value.marks else "")


# --- CSV ---------------------------------------------------------------------------------------------------------------------


def csv(tables: Iterable[Table]) -> str:
    """One line a row for programs: the protocol, then every number of every column unrounded; what is missing is empty.

    An apostrophe stands before text that a spreadsheet would take for a formula.
    """
    records = [record for table in tables for record in _records(table)]
    fields = list(dict.fromkeys(name for record in records for name in record))
    file = StringIO()
    lines = writer(file, lineterminator="\n")
    lines.writerow(map(_no_formula, fields))
    lines.writerows([_no_formula(record.get(name, "")) for name in fields] for record in records)
    return file.getvalue().rstrip("\n")


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and len(value) > 1 and value[0] in "=+-@" else value


def _records(table: Table) -> list[dict[str, object]]:
    columns = zip(*table.rows, strict=True) if table.rows else ([] for _ in table.heads)
    names = [list(dict.fromkeys(name for value in column for name in value.numbers)) for column in columns]
    found = []
    for row in table.rows:
        record: dict[str, object] = {"table": table.title, **table.protocol}
        for head, own, value in zip(table.heads, names, row, strict=True):
            if own:
                record |= {f"{head.name} {name}": value.numbers.get(name, "") for name in own}
            else:
                record[head.name] = "" if value.missing else value.text
        found.append(record)
    return found


# --- HTML --------------------------------------------------------------------------------------------------------------------


def html(table: Table) -> str:
    """A ``section`` for a page: heading, table, and what is said around it. Classes: ``best``, ``missing``, ``rule``."""
    parts = [
        f"<h2>{escape(table.title)}</h2>",
        _html_table(table),
        _html_list("ul", "findings", table.findings),
        _html_list("ol", "footnotes", table.footnotes),
    ]
    if table.commands:
        parts.append(f"<p>{_MISSING_TEXT}</p>\n<pre><code>{escape(chr(10).join(table.commands))}</code></pre>")
    return "\n".join(['<section class="evidence">', *(part for part in parts if part), "</section>"])


def page(tables: Iterable[Table]) -> str:
    """A page of its own."""
    shown = list(tables)
    title = escape(shown[0].title if shown else "")
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<style>\n{_STYLE}\n</style>'
    body = "\n".join(map(html, shown))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>'


_STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1a1a1a; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .6rem; max-width: 60rem; }
th, td { text-align: left; padding: .2rem .7rem; white-space: nowrap; }
thead tr:first-child th { border-top: 2px solid; }
thead tr:last-child th { border-bottom: 1px solid; }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 2px solid; }
tr.rule td, tr.rule th { border-top: 1px solid #999; }
tbody th { font-weight: normal; }
.missing { color: #a33; font-style: italic; }
pre { overflow-x: auto; background: #f4f4f4; padding: .6rem; }"""


def _html_table(table: Table) -> str:
    spans = _spans(table.heads)
    rows = []
    if any(name for name, _, _ in spans):
        groups = (f'<th colspan="{end - start}" scope="colgroup">{escape(name)}</th>' for name, start, end in spans)
        rows.append(f"<tr>{''.join(groups)}</tr>")
    heads = (f'<th scope="col">{escape(head.text)}</th>' for head in table.heads)
    rows.append(f"<tr>{''.join(heads)}</tr>")
    body = (_html_row(table, row, place in table.rules and place > 0) for place, row in enumerate(table.rows))
    return "\n".join(
        [
            f'<div class="scroll"><table>\n<caption>{escape(" ".join(table.caption))}</caption>',
            *("<thead>", *rows, "</thead>", "<tbody>", *body, "</tbody>"),
            "</table></div>",
        ]
    )


def _html_row(table: Table, row: Sequence[Value], rule: bool) -> str:
    cells = "".join(_html_cell(head, value) for head, value in zip(table.heads, row, strict=True))
    return f'<tr class="rule">{cells}</tr>' if rule else f"<tr>{cells}</tr>"


def _html_cell(head: Head, value: Value) -> str:
    text = f'<strong class="best">{escape(value.text)}</strong>' if value.bold else escape(value.text)
    text += f"<sup>{_marks(value)}</sup>" if value.marks else ""
    kind = ' class="missing"' if value.missing else ""
    return f'<th scope="row"{kind}>{text}</th>' if head.label else f"<td{kind}>{text}</td>"


def _html_list(kind: str, name: str, texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(one)}</li>" for one in texts)
    return f'<{kind} class="{name}">{items}</{kind}>' if items else ""


FORMATS: dict[str, Callable[[Iterable[Table]], str]] = {
    "plain": plain,
    "md": markdown,
    "latex": latex,
    "csv": csv,
    "html": page,
}
"""What a table may be written as."""

_ENDINGS = {".txt": "plain", ".md": "md", ".tex": "latex", ".csv": "csv", ".html": "html", ".htm": "html"}
