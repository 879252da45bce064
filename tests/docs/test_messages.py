"""Every message that the page of troubleshooting explains is one that the source can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pages
import pytest

MESSAGES = [block.text.strip() for block in pages.blocks("text") if block.page == "troubleshooting.md"]
_GAP = "\0"
"""What stands in a text where the source puts a value."""


@cache
def said() -> tuple[str, ...]:
    """Every text of the source, as one line, a gap where it is filled in."""
    sources = (pages.ROOT / "src" / "probegrid").rglob("*.py")
    return tuple(text for file in sources for text in _texts(ast.parse(file.read_text())))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else _GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def pattern(message: str) -> re.Pattern[str]:
    """Its words in their order, with a gap of the source where the reader has something of his own."""
    words = message.split("...")
    return re.compile(f".*{_GAP}.*".join(re.escape(word.strip()) for word in words), re.DOTALL)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_the_sources(message: str) -> None:
    assert any(pattern(message).search(text) for text in said()), message


def test_the_test_tells_what_is_said_from_what_is_not() -> None:
    assert len(MESSAGES) > 30
    assert not any(pattern("the moon is not in the local cache and").search(text) for text in said())
    assert len(set(MESSAGES)) == len(MESSAGES)
