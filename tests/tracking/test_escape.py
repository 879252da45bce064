"""Text that was written to do something where it is shown does nothing there but show."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from probegrid.report.tables import Table
from probegrid.tracking.escape import csv_field, latex_text, markdown_text, one_line

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[click](javascript:alert(1))",
    "![](http://host/seen.png)",
    "[a][b]", "[b]: http://host", "a | b", "a \\| b", "`code", "\x1b[2J\x1b]0;mine\x07", "\x9b31m", "\r over",
    "=HYPERLINK(\"http://host\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1",
    "\\input{/etc/passwd}", "$x$ & y % z",
    "\\end{tabular}", "two\nlines", "\u202eevil", "zero\u200bwidth", "&lt;", "\ud800",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(), st.text("<>[]()!|\\`=+-@&;:%{}$_^~# ab\n\x1b"))


class Seen(HTMLParser):
    """What a browser would show of a page, and the tags it would heed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def without_blanks(text: str) -> str:
    return "".join(text.split())


@given(text=TEXTS)
def test_a_terminal_gets_one_line_and_no_command(text: str) -> None:
    shown = one_line(text)
    assert shown.isprintable()
    assert one_line(shown) == shown


@given(text=TEXTS, other=TEXTS)
def test_markdown_shows_it_as_text_in_its_own_cell(text: str, other: str) -> None:
    page = f"| name | other |\n| --- | --- |\n| x {markdown_text(text)} | x {markdown_text(other)} |\n"
    seen = Seen(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(page))
    assert seen.tags <= {"table", "thead", "tbody", "tr", "th", "td", "em", "strong", "s"}
    rows = (
        Seen(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(page)).text.strip().split("\n")
    )
    cells = [cell.strip() for cell in rows if cell.strip()]
    assert len(cells) == 4, cells


@given(text=TEXTS)
def test_markdown_keeps_every_character_but_its_own_emphasis(text: str) -> None:
    seen = Seen(MarkdownIt("commonmark", {"html": True}).render(f"x {markdown_text(text)}"))
    assert seen.tags <= {"p", "em", "strong"}
    if not set(text) & set("*_"):
        assert without_blanks(seen.text) == without_blanks(f"x {one_line(text)}")


@pytest.mark.parametrize("text", ["* an interval for small samples", "- none", "+ one", "## two", "> three"])
def test_a_line_of_markdown_stays_a_line(text: str) -> None:
    seen = Seen(MarkdownIt("commonmark", {"html": True}).render(markdown_text(text)))
    assert (seen.tags, seen.text.strip()) == ({"p"}, text)


@pytest.mark.parametrize(
    "text", ["0.933 [0.907, 0.956]", "0.5 [0.4, 0.6] (no interval)", "tiny-none-facts-gnll seed=1"]
)
def test_ordinary_text_is_let_be(text: str) -> None:
    assert markdown_text(text) == text
    assert one_line(text) == text
    assert csv_field(text) == text


@given(text=TEXTS)
def test_no_field_of_a_csv_is_a_formula(text: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerow([csv_field(text)])
    (row,) = csv.reader(io.StringIO(stream.getvalue()))
    is_number = re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?|[+-]?(inf|nan)", row[0]) is not None
    assert is_number or not row[0].lstrip().startswith(("=", "+", "-", "@"))
    assert row[0] in (one_line(text), f"'{one_line(text)}")


@pytest.mark.parametrize("value", [-0.5, "-0.5", "+1e-3", 3, None, "", "-inf"])
def test_numbers_of_a_csv_stay_numbers(value: object) -> None:
    assert csv_field(value) == value


@given(text=TEXTS)
def test_latex_gets_no_command_of_it(text: str) -> None:
    left = latex_text(text)
    for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"\textless{}", r"\textgreater{}",
                  r"\textbar{}", r"\textsuperscript{\textdagger}", r"\textsuperscript{\textdaggerdbl}",
                  r"\textsuperscript{\S}", r"\&", r"\%", r"\$", r"\#", r"\_", r"\{", r"\}"):  # fmt: skip
        left = left.replace(known, "")
    assert not set(left) & set("\\&%$#_{}~^\n")


@given(name=TEXTS, note=TEXTS)
def test_a_table_of_hostile_text_is_a_table(name: str, note: str) -> None:
    table = Table("t", "caption", ["cell", "n"], [[name, "1"]], 1, [{"cell": name, "n": 1}], [note])
    assert all(line.startswith("% ") for line in table.latex().split("\\end{table}\n")[-1].splitlines())
    rows = [line for line in table.markdown().splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    (record,) = csv.DictReader(io.StringIO(table.csv()))
    assert record["n"] == "1"
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(table.rich())
    assert "\x1b" not in console.file.getvalue()  # type: ignore[attr-defined]
