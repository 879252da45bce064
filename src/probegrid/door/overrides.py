"""What a person typed, in the grammar of Hydra's overrides.

Hydra's grammar has no unquoted ``=``, ``#``, ``&``, ``~`` or letter beyond ASCII, and takes ``1e5`` for a number
wherever it stands. Where the schema says that a value is a text, it is quoted here if Hydra would refuse it or read
another type in it; what Hydra reads as a text (a quoted value, an interpolation, an escape) is let be.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import MISSING

from probegrid.door.keys import (
    GROUPS,
    PATHS,
    SPELLED,
    is_anything,
    is_known,
    is_mapping,
    is_of_mapping,
    is_text,
    is_text_list,
)
from probegrid.door.mistakes import not_an_override
from probegrid.door.places import PLACED
from probegrid.errors import ConfigError

_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_QUOTES = "'\""


@functools.lru_cache(maxsize=4096)
def parse(override: str) -> Override:
    """An override as Hydra reads it; the same object for the same words.

    Raises:
        OverrideParseException: it is none.
        ConfigError: a number in it is too long for Python.
    """
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
    except ValueError as error:
        raise ConfigError(
            "a number on the command line has more than 4300 digits; give a shorter one."
        ) from error
    return parsed


def quoted(text: str) -> str:
    """A text that Hydra reads back as it is."""
    return QuotedString(text, Quote.single).with_quotes()


@functools.lru_cache(maxsize=4096)
def in_grammar(word: str, *, grid: bool) -> str:
    """An override in Hydra's grammar.

    Args:
        word: as it was typed.
        grid: whether a comma separates the values of a grid; else it is a part of a text.
    """
    key, equals, value = word.partition("=")
    for field, typed in SPELLED.items():
        key = re.sub(rf"^(\+*probe)\.{typed}$", rf"\1.{field}", key)
    name = key.lstrip("+").partition("@")[0]
    if is_of_mapping(name) or (value.startswith("{") and is_mapping(name)):
        key = f"++{name}"  # Hydra takes new keys with a plus only
    if not equals or not value:
        return key + equals
    is_one = not grid or (name in {*PLACED, *PATHS} and _exists(value))  # a file may have a comma in its name
    parts = [value] if is_one else _split(value)
    if name in PLACED and not grid and len(_split(value)) > 1 and not _exists(value):
        return f"{key}={value}"  # no path but a list of names, which Hydra refuses without -m
    if is_text(name) or name in PLACED:
        return f"{key}={','.join(map(_text, parts))}"
    if is_text_list(name):
        return f"{key}={','.join(map(_text_list, parts))}"
    if is_anything(name):
        return f"{key}={','.join(part if _parses(part) else _text(part) for part in parts)}"
    return f"{key}={value}"


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long for a name, or none
        return False


def _text(value: str) -> str:
    """A text, quoted if Hydra would read something else."""
    try:
        parsed = parse(f"text={value}")
    except HydraException:
        return value if _is_cut_short(value) else quoted(value)
    is_number = isinstance(parsed.value(), bool | int | float)
    is_list = parsed.value_type is ValueType.SIMPLE_CHOICE_SWEEP
    return quoted(value) if is_number or is_list else value


def _text_list(value: str) -> str:
    """A list of texts, each quoted if the list could not be read otherwise."""
    if _parses(value) or not (value.startswith("[") and value.endswith("]")):
        return value
    return f"[{','.join(map(_text, _split(value[1:-1])))}]"


def _parses(value: str) -> bool:
    try:
        parse(f"value={value}")
    except HydraException:
        return False
    return True


def _is_cut_short(value: str) -> bool:
    """Whether it begins like a quoted text, a list or a mapping that never ends: a slip, not a name."""
    opening = value[:1]
    if opening and opening in _QUOTES:
        return True
    closing = _BRACKETS.get(opening)
    return closing is not None and value.count(opening) != value.count(closing)


def _split(value: str) -> list[str]:
    """Divide at the commas that stand in no quotes and no brackets; a bracket that never closes is none."""
    parts, depth, quote = [""], 0, ""
    for before, sign in zip(" " + value, value, strict=False):
        if quote:
            quote = "" if sign == quote and before != "\\" else quote
        elif sign in _QUOTES and not parts[-1].strip():
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif sign == "," and depth <= 0 and before != "\\":
            parts.append("")
            continue
        parts[-1] += sign
    if depth > 0:
        return value.split(",")
    return [part.strip() for part in parts]


def refuse_slips(words: Sequence[str], is_group: Callable[[str], bool]) -> None:
    """Refuse what Hydra would take, but not as it was meant, or would refuse in words of its own.

    A word without a key, a group chosen twice (of which Hydra forgets the first), by a list or by ``???``, a part of
    every cell that is removed (``~seed``) or added again (``+seed=1``).

    Args:
        words: as they were typed.
        is_group: whether a key is a group's name.

    Raises:
        ConfigError: one of these.
    """
    typed: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        name = key.lstrip("+~")
        if not name:
            raise ConfigError(not_an_override(word))
        if (name in GROUPS or is_known(name)) and key != name and not key.startswith("++"):
            what = "removes" if key.startswith("~") else "adds"
            raise ConfigError(f"{word} {what} a part that every cell has; give it a value: {name}=<value>.")
        if not equals or not is_group(name):
            continue
        if name in GROUPS and (value.startswith("[") or value == MISSING):
            raise ConfigError(
                f"{word}: {name} is chosen by one name, {name}=<name>; -m {name}=<name>,<name> is a grid."
            )
        if typed.get(name) == word:
            raise ConfigError(f"{word} is given twice; give it once.")
        if name in typed:
            raise ConfigError(
                f"{name} is given twice ({typed[name]} and {word}); give it once, or run both as a grid: "
                f"-m {name}={typed[name].partition('=')[2]},{value}."
            )
        typed[name] = word
