"""Which part of a text is the answer: by a pattern, a letter among options, or a number.

Knows how models write what they were asked for (``The answer is (B)``, ``#### 72``) and when nothing was: options that
were recited, a thought that never ended, a text that was cut off before its result.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from probegrid.errors import ConfigError
from probegrid.evaluation.languages import marks
from probegrid.evaluation.numbers import result_in

_LETTERS = string.ascii_uppercase
_THOUGHT = re.compile(r"<(think|thinking|thought)>|</(think|thinking|thought)>")


@dataclass(frozen=True)
class Extracted:
    """The answer in a text."""

    text: str
    """The answer itself."""
    by: str
    """What it was found by: ``text`` (all of it), ``pattern 1``, ``answer is``, ``last number``, ``option``, ..."""


def without_thought(text: str) -> str | None:
    """What follows the last thought; None where one was begun and never closed, so that there is no answer."""
    marks = list(_THOUGHT.finditer(text))
    if not marks:
        return text
    last = marks[-1]
    return text[last.end() :] if last[0].startswith("</") else None


def compiled(pattern: str) -> list[re.Pattern[str]]:
    """The patterns of ``prompt.answer_pattern``, one a line.

    Raises:
        ConfigError: one is no regular expression.
    """
    made = []
    for line in filter(None, map(str.strip, pattern.splitlines())):
        try:
            made.append(re.compile(line))
        except re.error as error:
            raise ConfigError(
                f"prompt.answer_pattern={line} is no regular expression ({error}); its first group is the answer."
            ) from error
    return made


def by_pattern(text: str, patterns: Sequence[re.Pattern[str]]) -> Extracted | None:
    """The last match of the first pattern that matches: its first group, or all of it where it has none."""
    for number, pattern in enumerate(patterns, 1):
        if found := list(pattern.finditer(text)):
            last = found[-1]
            said = next((group for group in last.groups() if group is not None), last[0])
            return Extracted(said.strip(), f"pattern {number}")
    return None


def by_number(text: str, *, is_whole: bool) -> Extracted | None:
    """The number that a text gives as its result."""
    found = result_in(text, is_whole=is_whole)
    return None if found is None else Extracted(found[0].text, found[1])


def by_letter(text: str, options: Sequence[str], *, is_whole: bool = True) -> Extracted | None:
    """The letter of the option that a text chooses; None where it chooses none, or recites several.

    Args:
        text: an answer.
        options: in the order of their letters; empty: five letters are known, and no option by its text.
        is_whole: whether the text ended by itself: "the answer is a" may go on.
    """
    letters = _LETTERS[: len(options) or 5]
    text = unicodedata.normalize("NFKC", text)
    bare = text.strip().strip("*()[]{}.:").strip()
    if len(bare) == 1 and bare.upper() in letters:
        return Extracted(bare.upper(), "letter")
    if boxed := re.findall(rf"\\boxed\{{\W*(?:\\?text\w*\W+)?([{letters}])\b", text):
        return Extracted(boxed[-1], "boxed")
    # a small letter at an end alone: "the answer is a comet" begins with an article
    named = re.compile(
        r"(?i:\b(?:answer|choice|option)\b)\W{0,3}(?i:is|:)?\W{0,4}"
        rf"(?:([{letters}])(?![A-Za-z'\u2019])|([{letters.lower()}])(?=[.)*\]\s]*$))(\W{{0,3}}(?:or|and|/)\W+[{letters}]\b)?",
        re.MULTILINE,
    )
    if found := list(named.finditer(text)):
        large, small, another = found[-1].groups()
        is_cut = bool(small) and not is_whole and not text[found[-1].end() :].strip()
        return None if another or is_cut else Extracted(large or small.upper(), "answer is")
    # "A comet of mass m" begins with an article, "A." or "A)" with a letter
    at_start = set(re.findall(rf"(?m)^\W{{0,3}}([{letters}])\s*(?:[.):*]|$)", text))
    if at_start:
        return Extracted(at_start.pop(), "line") if len(at_start) == 1 else None
    in_brackets = set(re.findall(rf"\(([{letters}])\)", text))
    if in_brackets:
        return Extracted(in_brackets.pop(), "brackets") if len(in_brackets) == 1 else None
    return _by_text(text, options)


def _by_text(text: str, options: Sequence[str]) -> Extracted | None:
    """The letter of the one option that stands in a text as a whole, one inside another left out."""
    said = f" {_words(text)} "
    held = [place for place, option in enumerate(options) if _words(option) and f" {_words(option)} " in said]
    longest = [
        place
        for place in held
        if not any(
            other != place and f" {_words(options[place])} " in f" {_words(options[other])} "
            for other in held
        )
    ]
    return Extracted(_LETTERS[longest[0]], "option") if len(longest) == 1 else None


def _words(text: str) -> str:
    folded = text.casefold()
    letters = r"\w" if folded.isascii() else rf"\w{marks()}"
    runs = (run.rstrip(".+-") for run in re.findall(rf"[{letters}.+-]+", folded))
    return " ".join(filter(None, runs))
