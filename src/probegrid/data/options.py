"""Questions with options: how published sets and people write what may be chosen, and which option is right.

Knows lists of texts, labelled lists, objects by letter, objects that mark the right ones, and answers that are a
letter, a label, a place counted from 0 or from 1, or the option itself. What could be read in two ways is refused.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from probegrid.data.cells import is_missing
from probegrid.data.example import Question
from probegrid.data.spelling import unspelled
from probegrid.data.table import text
from probegrid.errors import DataError

LETTERS = string.ascii_uppercase
"""The options' names in a prompt, in their order."""


@dataclass(frozen=True)
class Options:
    """What may be chosen."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    """By which the set calls them; empty: by their place or letter."""
    right: tuple[int, ...] = ()
    """Those that the set marks as right, where it does so beside the options."""


def read_options(value: object, what: str) -> Options:
    """Options as a set has them.

    They may be ``[text, ...]``, ``[{label, text}, ...]``, ``{text: [...], label: [...]}``, ``{letter: text}``,
    ``{text: 0 or 1}`` or ``{choices: [...], labels: [0 or 1, ...]}``, each also written as a text.

    Raises:
        DataError: it is none of these, or there are fewer than two or more than letters.
    """
    found = _read(unspelled(value), what)
    if not 2 <= len(found.texts) <= len(LETTERS):
        raise DataError(f"{what} are {len(found.texts)}; 2 to {len(LETTERS)} can be lettered.")
    return found


def _read(value: object, what: str) -> Options:
    if isinstance(value, Mapping):
        names = {str(name).lower(): content for name, content in value.items()}
        for texts, labels in (("text", "label"), ("choices", "labels")):
            if isinstance(names.get(texts), list) and isinstance(names.get(labels), list):
                return _labelled(names[texts], names[labels], what)
        if names and all(content in (0, 1) for content in names.values()):
            marks = list(value.values())
            return _marked(list(value), marks, what)
        found = {name: content for name, content in value.items() if not is_missing(content)}  # of a struct
        if found and all(isinstance(content, str | int | float) for content in found.values()):
            return _labelled(list(found.values()), list(found), what)
    if isinstance(value, list) and (items := without_last_gaps(value)):
        rows = [
            {str(name).lower(): content for name, content in item.items()}
            for item in items
            if isinstance(item, Mapping)
        ]
        if len(rows) == len(items):
            if all({"text", "label"} <= row.keys() for row in rows):
                return _labelled([row["text"] for row in rows], [row["label"] for row in rows], what)
        elif all(isinstance(item, str | int | float) for item in items):
            return Options(tuple(text(item, what) for item in items))
    raise DataError(
        f"{what} are {str(value)[:60]!r}; a list of texts, or texts with their labels, is expected."
    )


def without_last_gaps(values: Sequence[object]) -> list[object]:
    """Options of a row that has fewer of them than others; a gap between two stays, and is no option."""
    count = max((place for place, value in enumerate(values, 1) if not is_missing(value)), default=0)
    return list(values[:count])


def _labelled(texts: Sequence[object], labels: Sequence[object], what: str) -> Options:
    if len(texts) != len(labels):
        raise DataError(f"{what} are {len(texts)} texts with {len(labels)} labels; each needs one.")
    if all(isinstance(label, int) and label in (0, 1) for label in labels):
        return _marked(texts, labels, what)
    return Options(tuple(text(each, what) for each in texts), tuple(str(label) for label in labels))


def _marked(texts: Sequence[object], marks: Sequence[object], what: str) -> Options:
    right = tuple(index for index, mark in enumerate(marks) if mark)
    return Options(tuple(text(each, what) for each in texts), right=right)


def right_option(options: Options, answer: object, what: str, first: int | None = None) -> int:
    """The place, from 0, of the option that an answer names.

    Args:
        options: what may be chosen.
        answer: a label, a letter, a place or the option's text.
        what: names the answer in a message.
        first: what the first place is called, 0 or 1; None: not known.

    Raises:
        DataError: no option is named so, or two readings name different ones.
    """
    word = text(answer, what).strip()
    if word in options.labels:
        return options.labels.index(word)
    alike = [place for place, option in enumerate(options.texts) if option.strip() == word]
    if len(alike) > 1:
        raise DataError(
            f"{what} is {word!r}, the text of {len(alike)} options; name one of them by its letter."
        )
    found = set(_readings(options, word, first))
    if len(found) == 1:
        return found.pop()
    if not found:
        raise DataError(
            f"{what} is {word!r}, which names none of the {len(options.texts)} options: a letter, a label, a place "
            "or an option's text is expected."
        )
    raise DataError(
        f"{what} is {word!r}, which could be read in several ways; say what the first option is called with "
        "dataset.first_option=0 or dataset.first_option=1."
    )


def _readings(options: Options, word: str, first: int | None) -> list[int]:
    """The places that a word can mean, each reading's."""
    count = len(options.texts)
    if first is not None and word.isdecimal():
        return [int(word) - first] if 0 <= int(word) - first < count else []
    found = [index for index, option in enumerate(options.texts) if option.strip() == word]
    if len(word) == 1 and word.upper() in LETTERS[:count]:
        found.append(LETTERS.index(word.upper()))
    if word.isdecimal():
        found += [int(word) - base for base in (0, 1) if 0 <= int(word) - base < count]
    return found


def with_options(
    question: Question, texts: Sequence[str], right: int, shuffled_by: str | None = None
) -> Question:
    """A question with lettered options; its references are the right one's letter, then its text.

    Args:
        question: without them.
        texts: the options in the set's order.
        right: place of the right one, from 0.
        shuffled_by: seed of the order in which they are lettered; None: the set's own.
    """
    order = list(range(len(texts)))
    if shuffled_by is not None:
        Random(f"options/{shuffled_by}/{question.id}").shuffle(order)
    letter, said = LETTERS[order.index(right)], texts[right]
    is_letter = (
        len(said.strip()) == 1 and said.strip().isalpha()
    )  # a blood type: no text to be told from a letter
    return replace(
        question,
        options=tuple(texts[place] for place in order),
        references=(letter,) if is_letter else (letter, said),
    )
