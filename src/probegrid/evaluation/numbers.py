r"""Numbers in answers: which one an answer gives, and whether two are the same.

Knows how people and models write numbers: thousands with commas, fractions and mixed numbers, percent and units,
currency in front, minus signs of both kinds, powers of ten, decimal commas and other signs between thousands where they
can be nothing else; and how a chain of reasoning names its result (``#### 72``, ``\boxed{72}``, ``the answer is 72``).
Number words are not read, but for the large ones behind a number (``12 million``).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)|\d+)"
_NUMBER = (
    r"(?<![\w.])(?P<sign{n}>[-+]\s?)?[$€£¥]?\s?(?P<sign2{n}>-)?"
    rf"(?:(?P<whole{{n}}>\d+)\s+(?P<up{{n}}>\d+)\s?/\s?(?P<down{{n}}>\d+)"
    rf"|(?P<top{{n}}>{_DIGITS}(?:\.\d+)?)\s?/\s?(?P<bottom{{n}}>\d+(?:\.\d+)?)"
    rf"|(?P<plain{{n}}>(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?))"
    r"(?P<unit{n}>\s?(?:%|°?[^\W\d_]+))?"
)
_ONE = re.compile(_NUMBER.replace("{n}", ""))
_NAMED = tuple(
    re.compile(lead + _NUMBER.replace("{n}", "").replace(r"(?<![\w.])", "", 1))
    for lead in (
        r"####\s*",
        r"\\boxed\{\s*",
        r"(?i:\banswer\b)\s*(?i:is|:|=)?\s*[*\\(\[]{0,4}\s*",
    )
)
"""How a result is named, the surest way first."""
_FRACTION = re.compile(r"\\[dt]?frac\{\s*(-?\d+)\s*\}\{\s*(\d+)\s*\}")
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_RAISED = re.compile(r"(?<=\d)[\u207b\u00b9\u00b2\u00b3\u2070\u2074-\u2079]+")
_POWER = r"\s?(?:\^|\*\*)\s?\{?([-+]?\d+)\}?"
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(found), written)
    for found, written in (
        (rf"(?<=\d)\s?(?:[x*\u00d7\u00b7]|\\times|\\cdot)\s?10{_POWER}", r"e\1"),  # 2 x 10^3
        (rf"(?<![\w.,])10{_POWER}", r"1e\1"),
        (r"(?<![\d.,])(0),(\d+)(?![\d.,]*\d)", r"\1.\2"),  # 0,123 is no number of thousands
        (r"(?<![\d.,])(\d+),(\d{1,2}|\d{4,})(?![\d.,]*\d)", r"\1.\2"),  # 3,5; but 1,2,3 is a list
    )
)
"""Ways of writing a number, and ours."""
_THOUSANDS = re.compile(
    r"(?<![\d.,'])(?<!\d )[1-9]\d{0,2}"
    r"(?:(?:(?: \d{3})+|(?:'\d{3})+)(?! ?\d|'\d|/)|(?:\.\d{3}){2,}(?![\d.])|(?:\.\d{3})+(?=,\d))"
)
"""Thousands apart by spaces, apostrophes or points, where they are no decimals: 1 000, 1'000, 1.000.000, 1.000,5."""
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12}


_UNITS = {
    name: symbol
    for symbol, names in {
        "%": "% percent",
        "km": "km kilometer kilometers kilometre kilometres",
        "m": "m meter meters metre metres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "mi": "mi mile miles",
        "ft": "ft foot feet",
        "in": "inch inches",
        "yd": "yd yard yards",
        "kg": "kg kilogram kilograms",
        "g": "g gram grams",
        "mg": "mg milligram milligrams",
        "lb": "lb lbs pound pounds",
        "oz": "oz ounce ounces",
        "l": "l liter liters litre litres",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "s": "s sec second seconds",
        "min": "min minute minutes",
        "h": "h hr hour hours",
        "d": "day days",
        "wk": "week weeks",
        "mo": "month months",
        "a": "year years",
        "°c": "°c",
        "°f": "°f",
        "usd": "usd dollar dollars",
        "ct": "cent cents",
        "eur": "eur euro euros",
    }.items()
    for name in names.split()
}
"""Units that are told apart by their names; none is converted into another."""


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    is_whole: bool
    """Whether it was written without a point, a fraction or an exponent."""
    unit: str = ""
    """The unit behind it by its symbol (``km`` of ``kilometers``); empty: none that is known."""
    text: str = ""
    """How it was written."""
    scale: int = 1
    """What a word behind it multiplies it by, which ``value`` leaves out: 10^6 of ``12 million``."""

    def equals(self, other: Number, tolerance: float) -> bool:
        """Whether the two are the same: whole ones exactly, others within a tolerance; units where both have some.

        Args:
            other: the one to match.
            tolerance: largest difference by the larger of 1 and the other's size.
        """
        if self.unit and other.unit and self.unit != other.unit:
            return False
        pairs = [(self.value * self.scale, other.value * other.scale)]
        if 1 in (self.scale, other.scale):  # a question that asks for millions has 12 as its answer
            pairs.append((self.value, other.value))
        if self.is_whole and other.is_whole:
            return any(one == wanted for one, wanted in pairs)
        return any(
            abs(one - wanted) <= Fraction(tolerance) * max(Fraction(1), abs(wanted)) for one, wanted in pairs
        )

    @property
    def canonical(self) -> str:
        """The number and its unit, the same for all ways of writing it."""
        scaled = self.value * self.scale
        value = str(scaled.numerator) if scaled.denominator == 1 else str(float(scaled))
        return f"{value} {self.unit}".strip()


def numbers_in(text: str) -> list[Number]:
    """Every number of a text, in order."""
    return _found(_ONE, _plain(text))


def _found(pattern: re.Pattern[str], plain: str) -> list[Number]:
    made = (_number(found) for found in pattern.finditer(plain))
    return [number for number in made if number is not None]


def result_in(text: str, *, is_whole: bool = True) -> tuple[Number, str] | None:
    """The number that a text gives as its result, and by what it was found.

    That is the last one that is named as the answer; else the last of the last line, where the text ended by itself:
    the last number of a text that was cut off is a step, and the number it was cut in is
    none (``The answer is 7`` may have become 72).

    Args:
        text: an answer.
        is_whole: whether it ended by itself.
    """
    plain = _plain(text if is_whole else _without_cut_number(text.rstrip()))
    for pattern, by in zip(_NAMED, ("####", "boxed", "answer is"), strict=True):
        if found := _found(pattern, plain):
            return found[-1], by
    lines = [line for line in plain.splitlines() if line.strip()]
    if not is_whole or not lines:
        return None
    found = _found(_ONE, lines[-1])
    return (found[-1], "last number") if found else None


def _without_cut_number(text: str) -> str:
    """A text that was cut off, without the number it ends in."""
    end = len(text)
    while end and (text[end - 1].isdecimal() or text[end - 1] in ".,/"):
        end -= 1
    return text[:end]


def only_number(text: str) -> Number | None:
    """The number that a reference is; None where it is none, or more than one."""
    found = numbers_in(text)
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    """One spelling for minus signs, fractions and spaces."""
    text = _FRACTION.sub(r"\1/\2", _VULGAR.sub(" ", text))
    text = _RAISED.sub(lambda found: f"^{found[0]}", text)
    text = text.replace("\\$", "$").replace("\\!", "").replace("{,}", ",")
    # white space as one sign: a model that goes on with spaces would have patterns try every length of every run
    lines = (" ".join(unicodedata.normalize("NFKC", line).split()) for line in text.split("\n"))
    plain = "\n".join(filter(None, lines)).translate(_SIGNS)
    plain = _THOUSANDS.sub(lambda found: re.sub(r"[ '.]", "", found[0]), plain)
    for found, written in _SPELLINGS:
        plain = found.sub(written, plain)
    return plain


_SIGNS = {0x2212: "-", 0x2010: "-", 0x2011: "-", 0x2044: "/", 0x2013: "-", 0x2019: "'"}


def _number(found: re.Match[str]) -> Number | None:
    """The number of a match; None for one that divides by zero, or has more digits than anyone counts."""
    parts = found.groupdict()
    try:
        if parts["whole"]:
            size = int(parts["whole"]) + Fraction(int(parts["up"]), int(parts["down"]))
        elif parts["top"]:
            size = _as_fraction(parts["top"]) / _as_fraction(parts["bottom"])
        else:
            size = _as_fraction(parts["plain"])
    except (ZeroDivisionError, ValueError):
        return None
    is_negative = (parts["sign"] or "").strip() == "-" or parts["sign2"] == "-"
    behind = (parts["unit"] or "").strip().lower()
    unit, scale = _UNITS.get(behind, ""), _SCALES.get(behind, 1)
    begin = found.start(next(name for name in ("sign", "sign2", "whole", "top", "plain") if parts[name]))
    end = found.end() if unit or scale > 1 or not parts["unit"] else found.start("unit")
    return Number(
        -size if is_negative else size,
        is_whole=bool(parts["plain"]) and re.search(r"[.eE]", parts["plain"]) is None,
        unit=unit,
        text=found.string[begin:end].strip(),
        scale=scale,
    )


def _as_fraction(written: str) -> Fraction:
    text = written.replace(",", "")
    exponent = re.search(r"[eE]([-+]?\d+)", text)
    if len(text) > _LONGEST or (
        exponent and abs(int(exponent[1])) > _LONGEST
    ):  # 1e999999999 has a billion digits
        raise ValueError(text[:_LONGEST])
    return Fraction(text)


_LONGEST = 400
"""Digits of a number, and the largest exponent."""
