"""Tables as text: read back with other people's readers, and whatever names they hold."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dqas_plugin.bench import layout
from dqas_plugin.bench.latex_text import escaped
from dqas_plugin.bench.tables.parts import Head, Table, Value
from dqas_plugin.errors import UserError

EVIL = r"a_b & 5 % $x$ #1 ~{q}^ \cmd <b>bold</b> | `t` *s* [0.1] “é” – --method 日 " + "'\""
HEADS = (
    Head("method", label=True),
    Head("accuracy", "5 % (50)"),
    Head("paper", "5 % (50)"),
    Head("accuracy", "10 % (100)"),
    Head("seconds"),
)
TABLE = Table(
    title="Table 2: methods",
    caption=("digits, last epoch.", "Bold: best."),
    protocol={"dataset": "digits", "seeds": "0 to 2"},
    heads=HEADS,
    rows=(
        (
            Value("random", marks=(1,)),
            Value("81.0 ± 1.0 (3)", numbers={"mean": 81.04, "std": 1.02, "n": 3}),
            Value("64.5", numbers={"mean": 64.5}),
            Value("missing", missing=True),
            Value("1.5", numbers={"seconds": 1.53}),
        ),
        (
            Value("graphcut"),
            Value("83.2 (1)", bold=True, numbers={"mean": 83.2, "n": 1}),
            Value(),
            Value("85.0 ± 0.1 (2)", bold=True, numbers={"mean": 85.0, "std": 0.1, "n": 2}),
            Value(),
        ),
    ),
    findings=("5 %: nothing.",),
    footnotes=("As printed.",),
    commands=("dqas bench --method random --ratio 0.1",),
)
EVIL_TABLE = replace(
    TABLE,
    title=EVIL,
    caption=(EVIL,),
    heads=(Head(EVIL, label=True), Head(EVIL, EVIL)),
    rows=((Value(EVIL, marks=(1,)), Value(EVIL, bold=True)), (Value("[x]"), Value(EVIL, missing=True))),
    rules=(1,),
    findings=(EVIL,),
    footnotes=(EVIL,),
    commands=(EVIL,),
)

PLAIN = """\
Table 2: methods

digits, last epoch.
Bold: best.

            5 % (50)               10 % (100)
method      accuracy        paper  accuracy         seconds
random [1]  81.0 ± 1.0 (3)  64.5   missing          1.5
graphcut    83.2 (1)*              85.0 ± 0.1 (2)*

* stands for bold.

5 %: nothing.

[1] As printed.

To fill what is missing:
  dqas bench --method random --ratio 0.1"""


def test_plain() -> None:
    assert layout.plain([TABLE]) == PLAIN
    assert layout.plain([TABLE, TABLE]) == f"{PLAIN}\n\n\n{PLAIN}"


def test_plain_is_cut_between_groups() -> None:
    text = layout.plain([TABLE], 40)
    blocks = [block for block in text.split("\n\n") if "random [1]" in block]
    assert [block.splitlines()[-1].split()[0] for block in blocks] == ["graphcut"] * len(blocks)
    assert len(blocks) == 2
    assert "64.5" in blocks[0]
    assert "85.0" in blocks[1]
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 40
    narrow = layout.pieces(TABLE, 1, 2)
    assert narrow == [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert layout.pieces(TABLE, 1000, 2) == [[0, 1, 2, 3, 4]]


def test_markdown() -> None:
    lines = layout.markdown([TABLE]).splitlines()
    assert lines[0] == "**Table 2: methods**"
    assert lines[4:8] == [
        "| method | 5 % (50) accuracy | 5 % (50) paper | 10 % (100) accuracy | seconds |",
        "| --- | --- | --- | --- | --- |",
        "| random<sup>1</sup> | 81.0 ± 1.0 (3) | 64.5 | *missing* | 1.5 |",
        "| graphcut | **83.2 (1)** |  | **85.0 ± 0.1 (2)** |  |",
    ]
    assert lines[-3:] == ["```sh", "dqas bench --method random --ratio 0.1", "```"]


def test_markdown_of_any_name() -> None:
    lines = layout.markdown([EVIL_TABLE]).splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in rows] == [3, 3, 3, 3]
    assert "<b>" not in "\n".join(lines[: lines.index("```sh")]).replace(r"\<b>", "")


def test_csv_has_unrounded_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(layout.csv([TABLE]))))
    assert len(rows) == 2
    first, second = rows
    assert (first["dataset"], first["seeds"], first["method"], first["table"]) == (
        "digits",
        "0 to 2",
        "random",
        "Table 2: methods",
    )
    assert [first[f"5 % (50) accuracy {name}"] for name in ("mean", "std", "n")] == ["81.04", "1.02", "3"]
    assert first["5 % (50) paper mean"] == "64.5"
    assert first["10 % (100) accuracy mean"] == ""  # what is missing is empty
    assert second["5 % (50) accuracy std"] == ""
    assert first["seconds seconds"] == "1.53"


def test_csv_of_several_tables_has_one_head() -> None:
    other = replace(TABLE, heads=(HEADS[0], Head("accuracy", "20 %")), rows=((Value(EVIL), Value("x")),))
    rows = list(csv.DictReader(io.StringIO(layout.csv([TABLE, other]))))
    assert [row["method"] for row in rows] == ["random", "graphcut", EVIL]
    assert (rows[2]["20 % accuracy"], rows[2]["5 % (50) accuracy mean"], rows[0]["20 % accuracy"]) == ("x", "", "")


class Reader(HTMLParser):
    """Texts of the cells of all rows, and what was opened and not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_html() -> None:
    read = Reader(layout.page([TABLE]))
    assert read.open == []
    assert read.rows == [
        ["", "5 % (50)", "10 % (100)", ""],
        ["method", "accuracy", "paper", "accuracy", "seconds"],
        ["random1", "81.0 ± 1.0 (3)", "64.5", "missing", "1.5"],
        ["graphcut", "83.2 (1)", "", "85.0 ± 0.1 (2)", ""],
    ]
    part = layout.html(TABLE)
    assert part.startswith("<section")
    assert '<td class="missing">missing</td>' in part
    assert part.count('<strong class="best">') == 2


def test_html_of_any_name() -> None:
    read = Reader(layout.page([EVIL_TABLE]))
    assert read.open == []
    assert read.rows == [["", EVIL], [EVIL, EVIL], [f"{EVIL}1", EVIL], ["[x]", EVIL]]


def test_latex() -> None:
    text = layout.latex([TABLE])
    assert "% needs \\usepackage{booktabs}" in text
    assert r" & \multicolumn{2}{l}{5 \% (50)} & \multicolumn{1}{l}{10 \% (100)} &  \\" in text
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-4}" in text
    assert r"random\textsuperscript{1} & 81.0 $\pm$ 1.0 (3) & 64.5 & \emph{missing} & 1.5 \\" in text
    assert r"\textbf{85.0 $\pm$ 0.1 (2)}" in text
    assert "% dqas bench --method random --ratio 0.1" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert text.index(r"\end{table}") < text.index(r"{\scriptsize\noindent {[}1] As printed.\par}")


def test_latex_escapes() -> None:
    assert escaped("--a –") == "-{}-a --"
    assert escaped("50 % of a_b & {c}") == r"50 \% of a\_b \& \{c\}"
    assert escaped("é Å ß 日") == r"\'{e} \r{A} \ss{} (U+65E5)"
    assert escaped("a\nb\\") == r"a b\textbackslash{}"


def test_latex_is_cut_to_the_page() -> None:
    wide = replace(
        TABLE,
        heads=(HEADS[0], *(Head("accuracy", f"{number} %") for number in range(12))),
        rows=((Value("random"), *[Value("81.0 ± 1.0 (3)")] * 12),),
    )
    text = layout.latex([wide])
    assert text.count(r"\begin{table}") > 2
    assert all(f"{{{number} \\%}}" in text for number in range(12))
    assert "(1 of " in text


@pytest.mark.parametrize("engine", ["pdflatex", "tectonic"])
def test_latex_compiles(engine: str, tmp_path: Path) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    body = layout.latex([TABLE, EVIL_TABLE])
    (tmp_path / "t.tex").write_text(
        f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n",
        encoding="utf-8",
    )
    call = ["-interaction=nonstopmode", "-halt-on-error", "t.tex"] if engine == "pdflatex" else ["t.tex"]
    done = subprocess.run([engine, *call], cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def test_formats() -> None:
    assert layout.render([TABLE], "plain", 1000) == PLAIN
    for form, start in {"md": "**", "latex": "%", "csv": "table,", "html": "<!DOCTYPE html>"}.items():
        assert layout.render([TABLE], form).startswith(start)
    with pytest.raises(UserError, match="unknown format 'markdown'"):
        layout.render([TABLE], "markdown")


def test_the_format_follows_from_the_file_or_the_place() -> None:
    chosen = layout.chosen_format
    assert chosen(None, None, terminal=True) == "plain"
    assert chosen(None, None, terminal=False) == "md"
    for name, form in {"t.tex": "latex", "t.CSV": "csv", "t.html": "html", "t.txt": "plain", "t.md": "md", "t": "md"}.items():
        assert chosen(None, Path(name), terminal=True) == form
    assert chosen("csv", Path("t.tex"), terminal=True) == "csv"


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "t.md"
    layout.write("äöü", target)
    layout.write("new", target)
    assert target.read_bytes() == b"new\n"
    assert [one.name for one in tmp_path.iterdir()] == ["t.md"]
    with pytest.raises(UserError, match="is a folder: name a file"):
        layout.write("x", tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        layout.write("x", target / "below.md")
