"""What the cells of answers mean: a text, a number, a list however it is written, a structure of a known set.

Knows what a gap turns whole numbers into, and the structures of SQuAD and TriviaQA. How cells were read is counted, and
said: what would be half understood is refused with the key that mends it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from probegrid.data.spelling import is_bracketed, spelled
from probegrid.data.table import Table, cell, is_gap, text
from probegrid.errors import DataError


class Booleans(Enum):
    """How a true or a false answer is written."""

    yes_no = "yes_no"
    """``yes`` and ``no``."""
    true_false = "true_false"
    """``true`` and ``false``."""


_WRITTEN = {Booleans.yes_no: ("no", "yes"), Booleans.true_false: ("false", "true")}
_BOOLEAN_WORDS = frozenset({"True", "False", "TRUE", "FALSE"})
_GAP_WORDS = frozenset({"nan", "NaN", "<NA>", "NaT", "#N/A"})
"""What a table's writer leaves where a value is missing; ``NA`` and ``None`` are also words."""
_NO_WORDS = frozenset({"None", "null", "NULL"})
_WHOLE_FLOAT = re.compile(r"\s*-?\d+\.0\s*")
_NUMBER = re.compile(r"\s*-?\d+(\.\d+)?([eE][-+]?\d+)?\s*")
_SEPARATORS = ("; ", ";", "|")
_TEXT_KEYS = ("text", "input_text", "spans")
"""Where SQuAD's, CoQA's and DROP's answers keep their texts."""
_NAMED = (("value", "aliases"), ("Value", "Aliases"))
"""TriviaQA's answer, of the hub and of the release: the name itself and all its aliases."""


def is_gap_word(value: object) -> bool:
    """Whether a cell is what a table's writer left where a value is missing, as a text."""
    return isinstance(value, str) and value.strip() in _GAP_WORDS


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing, or the word that stands for it."""
    return is_gap(value) or is_gap_word(value)


def worded(value: object, what: str) -> str:
    """A cell as a text, which the word that stands for a gap is not.

    Raises:
        DataError: it is none; ``what`` names it.
    """
    if is_gap_word(value):
        raise DataError(f"{what} is {value!r}, which a table's writer leaves in a gap; a text is expected.")
    return text(value, what)


class Texts(Enum):
    """What all texts of a column are, where a table's writer made texts of other values."""

    words = "words"
    floats = "floats"
    """Numbers, some of them whole ones with a point, as beside a gap."""
    booleans = "booleans"
    """Python's or a spreadsheet's true and false."""


@dataclass
class AnswerCells:
    """Reads the cells of one column of answers, and remembers how."""

    column: str
    separator: str | None = None
    """What stands between the answers of one cell; None: a cell is one answer."""
    booleans: Booleans | None = None
    """How true and false are written; None: they are refused."""
    as_text: bool = False
    """Take texts as they stand: nothing is read out of one."""
    are: Texts = Texts.words
    """What all texts of the column are."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many cells were read how."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first cell of each kind."""

    def read(self, value: object, what: str) -> tuple[str, ...] | None:
        """The accepted answers of a cell, gaps and repeats left out; None where the cell is a gap.

        Raises:
            DataError: it holds something that is no answer; ``what`` names it.
        """
        if self._is_gap(value):
            self._count("gaps", value)
            return None
        gaps = self.counts["items"]
        found = tuple(dict.fromkeys(self._answers(value, what)))
        if not found and self.counts["items"] > gaps:  # a list of gaps alone is no question without an answer
            self._count("gaps", value)
            return None
        return found

    def notes(self) -> tuple[str, ...]:
        """How cells were read, and what looks like something else than it was read as."""
        return tuple(
            f"{_cells(count)} of '{self.column}': {_SAID[kind]} ({self.examples[kind]}{_MENDS.get(kind, '')})"
            for kind, count in self.counts.items()
            if kind in _SAID
        )

    def _answers(self, value: object, what: str) -> Iterator[str]:
        if self._is_gap(value):
            self._count("items", value)
        elif isinstance(value, bool):
            yield self._boolean(value, what)
        elif isinstance(value, str):
            yield from self._of_text(value, what)
        elif isinstance(value, list | tuple | set):
            for item in value:
                yield from self._item(item, what)
        elif isinstance(value, Mapping):
            yield from self._of_structure(value, what)
        else:
            if isinstance(value, float) and value.is_integer():
                self._count("floats", value)
            yield text(value, what)

    def _item(self, item: object, what: str) -> Iterator[str]:
        """An answer inside a list: a text there is one answer, whatever it looks like."""
        if isinstance(item, str) and not self._is_gap(item):
            yield text(item, what)
        else:
            yield from self._answers(item, what)

    def _of_text(self, value: str, what: str) -> Iterator[str]:
        if self.as_text:
            yield text(value, what)
            return
        inside = self._inside(value, what)
        if inside is not None:
            self._count("lists", value)
            yield from self._answers(inside, what)
        elif self.separator is not None and self.separator in value:
            self._count("separated", value)
            parts = (part.strip() for part in value.split(self.separator))
            yield from (text(part, what) for part in parts if part)
        elif self._is_boolean(value):
            yield self._boolean(value.strip().lower() == "true", what)
        elif self.are is Texts.floats and _WHOLE_FLOAT.fullmatch(value):
            self._count("floats", value)
            yield value.strip()[: -len(".0")]
        else:
            if self.separator is None and any(sign in value for sign in _SEPARATORS):
                self._count("joined", value)
            if value.strip() in _NO_WORDS:
                self._count("words", value)
            yield text(value, what)

    def _inside(self, value: str, what: str) -> object:
        """The list or structure that a text spells; None where it is a text of its own."""
        if not is_bracketed(value):
            return None
        stripped = value.strip()
        found = spelled(stripped)
        if isinstance(found, list | tuple | set | dict):
            return found
        if stripped[1:].lstrip()[:1] in ("'", '"'):
            raise DataError(
                f"{what} is {_short(value)}, a list that cannot be read; write it as JSON, or take such cells as they "
                "stand with dataset.as_text=true."
            )
        self._count("brackets", value)
        return None

    def _of_structure(self, value: Mapping[Any, Any], what: str) -> Iterator[str]:
        for key in _TEXT_KEYS:
            if key in value:
                yield from self._answers(value[key], what)
                return
        for name, aliases in _NAMED:
            if name in value:
                yield from self._answers([value[name], value.get(aliases) or []], what)
                return
        keys = ", ".join(map(str, value))
        raise DataError(
            f"{what} is {_short(value)}; a text is expected, or one of SQuAD's or TriviaQA's structures: name the part "
            f"that holds the answer, dataset.answers_column={self.column}.<one of {keys}>."
        )

    def _boolean(self, value: bool, what: str) -> str:
        if self.booleans is None:
            raise DataError(
                f"{what} is {value}; a text is expected: say how it is written with dataset.booleans=yes_no or "
                "dataset.booleans=true_false."
            )
        self._count("booleans", value)
        return _WRITTEN[self.booleans][value]

    def _is_boolean(self, value: str) -> bool:
        is_word = value.strip().lower() in ("true", "false")
        return is_word and (self.booleans is not None or self.are is Texts.booleans)

    def _is_gap(self, value: object) -> bool:
        return is_gap(value) or (not self.as_text and is_gap_word(value))

    def _count(self, kind: str, value: object) -> None:
        self.counts[kind] += 1
        self.examples.setdefault(kind, _short(value))


_SAID = {
    "lists": "a list written as a text, each item of it a reference",
    "separated": "divided by dataset.answers_separator",
    "floats": "a whole number written with a point, read without it",
    "booleans": "true or false, written by dataset.booleans",
    "items": "a gap in a list, left out",
    "words": "a word that may stand for a gap, read as the text it is",
    "brackets": "looks like a list, read as the text it is",
    "joined": "holds a separator, read as one reference",
}
_MENDS = {"joined": "; dataset.answers_separator makes several of it"}


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def texts_of(table: Table, column: str) -> Texts:
    """What the texts of a column are; gaps are passed over, and words where a cell is no text."""
    found = []
    for index in range(len(table)):
        value = cell(table.row(index), column, table.where(index))
        if is_missing(value):
            continue
        if not isinstance(value, str):
            return Texts.words
        if is_bracketed(value):  # a list says nothing of the numbers beside it
            continue
        found.append(value.strip())
    if found and all(word in _BOOLEAN_WORDS for word in found):
        return Texts.booleans
    if all(map(_NUMBER.fullmatch, found)) and any(map(_WHOLE_FLOAT.fullmatch, found)):
        return Texts.floats
    return Texts.words


def _short(value: object, most: int = 60) -> str:
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}..."


def joined(notes: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The notes of several columns, each once."""
    return tuple(dict.fromkeys(note for of_column in notes for note in of_column))
