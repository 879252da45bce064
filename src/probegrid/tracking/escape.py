r"""Text from recorded cells, which may be somebody else's, made harmless where it is shown.

A name, a note or an error's message ends up in LaTeX, in a spreadsheet, in Markdown that a browser renders, and on
terminals. It must be text there: no command, no formula, no tag, no link, no cursor that moves.
"""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "†": r"\textsuperscript{\textdagger}",
    "‡": r"\textsuperscript{\textdaggerdbl}",
    "§": r"\textsuperscript{\S}",
}
_FORMULA = re.compile(r"\s*[=+\-@\t\r|]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)")
_BEGINS_BLOCK = re.compile(r"^( *)((?:[*+-]|#{1,6}) |>)")
"""What would make a line an item of a list, a heading or a quotation."""
_LINK_ENDS = re.compile(r"\](?=[(\[:])")
_UNSEEN = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Characters without a width, and those that turn the direction of what follows."""


def one_line(text: str) -> str:
    """For a terminal, or a comment: line ends are blanks, what moves a cursor or cannot be seen shows by its escape."""
    line = " ".join(text.splitlines()) if text.splitlines() else text
    return "".join(one if one.isprintable() and not _UNSEEN.match(one) else _escape(one) for one in line)


def latex_text(text: str) -> str:
    """For a table or a caption of LaTeX."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def csv_field(value: object) -> object:
    """For a field of a CSV: text that a spreadsheet would compute gets an apostrophe before it; numbers stay."""
    if not isinstance(value, str):
        return value
    line = one_line(value)
    return f"'{line}" if _FORMULA.match(line) and not _NUMBER.fullmatch(line) else line


def markdown_text(text: str) -> str:
    r"""For a line, or a cell of a table, of Markdown: no tag, no link or image, no further column, no list or heading.

    Brackets that make no link stay (``0.933 [0.907, 0.956]``).
    """
    line = one_line(text).replace("\\", r"\\").replace("|", r"\|").replace("`", r"\`")
    line = _BEGINS_BLOCK.sub(r"\1\\\2", line)
    return _LINK_ENDS.sub(r"\]", line.replace("&", "&amp;").replace("<", "&lt;"))


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
