"""What statements are about, by their words: so that no entity, negation or near copy is on two sides of a split.

Knows texts and sources. Statements that were made from one template ("The city of _ is in _.") differ in the words that
fill it. The filling that tells most of them apart is what each is about (the city, not the country); a probe that has
seen a city in one statement may know the answer of the next. Templates are found, not given: a word that is in many
statements of a source belongs to the template, the others fill it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*")
_NEGATIONS = frozenset({"not", "never", "no", "cannot"})
_CARRIED = frozenset({"do", "does", "did"})  # what a negation brings along: "does not mean"
_ARTICLES = frozenset({"a", "an", "the"})
_SHARE = 0.05  # of a source's statements that hold a word of the template
_LEAST = 6  # statements at least that hold it
_FEWEST_OF_TEMPLATE = 6
_FEWEST_WORDS = 11  # below them one other word is another statement, not a near copy
_MOST_COPIES = 3  # more than so many texts that differ in one word come from a template

Key = tuple[str, str]


def normalized(text: str) -> str:
    """A text without case, outer and repeated white space, final punctuation and variants of Unicode's form."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(".!?…,;: ")


def subject_keys(texts: Sequence[str], sources: Sequence[str]) -> list[set[Key]]:
    """What each of n statements must not share with one on another side of a split.

    Args:
        texts: n statements.
        sources: the list that each was taken from; templates are looked for in each list.

    Returns:
        A set a statement: its normalized text, its text without negation, what it is about, and near copies.
    """
    words = [_words(text) for text in texts]
    keys: list[set[Key]] = [{("text", normalized(text))} for text in texts]
    for found, row in zip(keys, words, strict=True):
        found.add(("negated", " ".join(sorted(map(_stem, _content(row))))))
    _add_near_copies(keys, words)
    by_source = defaultdict(list)
    for index, source in enumerate(sources):
        by_source[source].append(index)
    for indices in by_source.values():
        for index, subject in zip(indices, _subjects([words[index] for index in indices]), strict=True):
            keys[index] |= subject
    return keys


def without_negation(text: str) -> tuple[str, bool]:
    """What a statement says with its negation left out, word by word, and whether it had one.

    Two statements that say the same so, one with a negation and one without, are each other's negation.
    """
    words = _words(text)
    return " ".join(map(_stem, _content(words))), any(word in _NEGATIONS for word in words)


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return _WORD.findall(re.sub(r"\b(\w+)n't\b", r"\1 not", folded))


def _content(words: Iterable[str]) -> list[str]:
    """Words without articles and negation."""
    return [word for word in words if word not in _NEGATIONS | _CARRIED | _ARTICLES]


def _stem(word: str) -> str:
    """A verb's or noun's form without its s: "means" and "does not mean" are one."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _add_near_copies(keys: list[set[Key]], words: Sequence[Sequence[str]]) -> None:
    """Long texts that differ in one word, unless many do so in the same place."""
    holders: dict[str, set[int]] = defaultdict(set)
    for index, row in enumerate(words):
        content = sorted({*_content(row)})
        if len(content) >= _FEWEST_WORDS:
            for place in range(len(content)):
                holders[" ".join(content[:place] + content[place + 1 :])].add(index)
    for rest, indices in holders.items():
        if len({" ".join(words[index]) for index in indices}) in range(2, _MOST_COPIES + 1):
            for index in indices:
                keys[index].add(("copy", rest))


def _subjects(words: Sequence[Sequence[str]]) -> list[set[Key]]:
    """What each statement of one source is about; empty where no template is found."""
    content = [_content(row) for row in words]
    counts = Counter(word for row in content for word in {*row})
    template = {word for word, count in counts.items() if count >= max(_LEAST, _SHARE * len(words))}
    framed = [_fillings(row, template) for row in content]
    by_frame = defaultdict(list)
    for index, (frame, _) in enumerate(framed):
        by_frame[frame].append(index)
    found: list[set[Key]] = [set() for _ in words]
    for frame, indices in by_frame.items():
        if "_" not in frame:
            continue
        fillings = [framed[index][1] for index in indices]
        if len(indices) >= _FEWEST_OF_TEMPLATE:
            place = _telling(fillings)
            for index, filling in zip(indices, fillings, strict=True):
                found[index].add(("about", filling[place]))
        for index, filling in zip(indices, fillings, strict=True):
            if len(filling) > 1:  # the same but for the last: "The city of Lodz is in _"
                found[index].add(("frame", " ".join((*frame, *filling[:-1]))))
    return found


def _fillings(words: Sequence[str], template: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The template's words with a gap for each filling, and the fillings."""
    frame: list[str] = []
    fillings: list[str] = []
    for word in words:
        if word in template:
            frame.append(_stem(word))
        elif frame and frame[-1] == "_":
            fillings[-1] += f" {word}"
        else:
            frame.append("_")
            fillings.append(word)
    return tuple(frame), tuple(fillings)


def _telling(fillings: Sequence[tuple[str, ...]]) -> int:
    """The gap whose fillings tell most statements apart, the first of equals."""
    distinct = [len({filling[place] for filling in fillings}) for place in range(len(fillings[0]))]
    return distinct.index(max(distinct))
