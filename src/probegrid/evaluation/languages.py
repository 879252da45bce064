"""Normalization of answers in languages other than English, as MLQA's official scorer does it.

Knows the articles and the punctuation of languages (mlqa_evaluation_v1.py, Lewis et al. 2020, arXiv 1910.07475): lower
case, every character of Unicode's punctuation removed, articles dropped, Chinese and Japanese cut into characters.
Texts are brought into one composed form (NFKC) first, so that an accent is the same however it was typed.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import groupby

_ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "fr": r"\b(un|une|des|le|la|les|l)\b",
    "it": r"\b(un|uno|una|il|lo|la|i|gli|le|l)\b",
    "pt": r"\b(um|uma|uns|umas|o|a|os|as)\b",
    "nl": r"\b(een|de|het)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "ar": r"(?<!\w)ال(?=\w)",
}
_BY_CHARACTER = frozenset({"zh", "ja", "th"})
"""Languages that put no space between words."""
OTHER = "other"
"""Any language, no word of which is dropped."""
LANGUAGES = (*_ARTICLES, *sorted(_BY_CHARACTER), OTHER)
"""What can be named."""

_CHARACTERS = re.compile(r"[぀-ヿ㐀-鿿豈-﫿฀-๿]")


def normalize(text: str, language: str) -> str:
    """The words of a text that count, by single spaces.

    Args:
        text: an answer or a reference.
        language: one of `LANGUAGES`.
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    bare = "".join(" " if _is_dash(sign) else "" if _is_punctuation(sign) else sign for sign in lowered)
    if language in _ARTICLES:
        bare = re.sub(_ARTICLES[language], " ", bare)
    if language in _BY_CHARACTER:
        bare = _CHARACTERS.sub(lambda found: f" {found[0]} ", bare)
    return " ".join(bare.split())


def words(text: str) -> list[str]:
    """Runs of letters and digits with the marks on them: vowel signs, as of Hindi, are no letters of Python's."""
    return _of_letters(text.isascii()).findall(text)


@cache
def marks() -> str:
    """Every combining mark, as ranges of a regular expression's class."""
    codes = [code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)).startswith("M")]
    runs = groupby(enumerate(codes), lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(run) for _, run in runs)]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ends)


@cache
def _of_letters(is_ascii: bool) -> re.Pattern[str]:
    return re.compile(r"[^\W_]+" if is_ascii else rf"(?:[^\W_]|[{marks()}])+")


def _is_punctuation(sign: str) -> bool:
    return unicodedata.category(sign).startswith("P") or sign in "$+<=>^`|~"


def _is_dash(sign: str) -> bool:
    return unicodedata.category(sign) == "Pd" and sign != "-"
