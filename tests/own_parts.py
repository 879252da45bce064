"""What ``docs/own_parts.md`` says, as files and commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "own_parts.md"


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def write_files(folder: Path) -> None:
    """The files that the page names, as it has them."""
    for block in blocks("python"):
        first, _, content = block.partition("\n")
        (folder / first.removeprefix("# file: ")).write_text(content)


def commands() -> list[list[str]]:
    """What the page types after ``probegrid``, in order."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("probegrid")]


def entry_points() -> str:
    """The lines that the page puts into a package's pyproject.toml."""
    (found,) = blocks("toml")
    return found
