"""The pages that people read, README and site, as blocks and commands.

A command stands in a fenced block: every line of ``bash`` is one, and in ``console`` each line behind ``$``, with what
it prints below it. A line that ends in a backslash goes on in the next.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_OURS = ("families.md", "log.md")
"""Pages that are made, or are another file's text."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """What a page types, and the lines that it shows below."""

    page: str
    line: str
    printed: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The words as a shell hands them on, comments left out."""
        return shlex.split(self.line, comments=True)


def pages() -> list[Path]:
    """README and every page of the site that is written by hand."""
    return [ROOT / "README.md", *(page for page in sorted(DOCS.glob("*.md")) if page.name not in _NOT_OURS)]


def blocks(language: str | None = None) -> Iterator[Block]:
    """The fenced blocks of all pages, in order; of one language, if it is given."""
    for page in pages():
        for found in _FENCE.finditer(page.read_text()):
            if language in (None, found[1]):
                yield Block(page.name, found[1], found[2])


def commands() -> Iterator[Command]:
    """What all pages type, in order."""
    for block in blocks():
        text = block.text.replace("\\\n", " ")
        if block.language == "bash":
            for line in text.splitlines():
                if line.strip() and not line.startswith("#"):
                    yield Command(block.page, line)
        elif block.language == "console":
            _, *typed = re.split(r"^\$ ", text, flags=re.MULTILINE)
            for one in typed:
                line, *printed = one.splitlines()
                yield Command(block.page, line, tuple(printed))
