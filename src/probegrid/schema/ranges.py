"""What a number or a text of the configuration may be: declared with its field, checked by one function.

    num_samples: int = number_field(400, least=1, most=MOST_ROWS, below="asks for no example")

A number that declares nothing must be finite and no larger than computers count; a text must be one that can be
written to a file. So the fields of a plug-in's own dataclass are looked at too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from probegrid.errors import ConfigError

LARGEST_SEED = 2**31 - 1
"""Every generator there is takes it."""
MOST_ROWS = 10**9
"""Examples, samples, resamples: more than any of it are a typing error."""

MOST_GPUS = 256
MOST_GB = 10**6
MOST_TOKENS = 10**6

_LARGEST = 2**53
"""The largest number that whole and floating-point numbers agree on."""
_LONGEST_SHOWN = 24
_LONGEST_PATH = 4095
"""Bytes of a path, and of each of its names, that file systems take."""
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Range:
    """What a number may be; ends are allowed unless ``above`` is set."""

    least: float = -_LARGEST
    most: float = _LARGEST
    above: float | None = None
    """A number that it must exceed."""
    unit: str = ""
    below: str = ""
    """What a smaller one would mean (``asks for no example``)."""
    hint: str = ""
    """What to do instead."""

    def refusal(self, value: float) -> str | None:
        """What is wrong with a number, and what would be right; None for nothing."""
        if isinstance(value, float) and not math.isfinite(value):
            return f"is not a finite number; give {self.allowed()}"
        if (self.above is not None and value <= self.above) or value < self.least:
            wrong = self.below or (
                "is negative" if value < 0 else "is not positive" if self.above == 0 else "is too small"
            )
            return f"{wrong}; {self.hint or f'give {self.allowed()}'}"
        if value > self.most:
            return f"is too large; give {self.allowed()}"
        return None

    def allowed(self) -> str:
        """The range in words."""
        unit = f" {self.unit}" if self.unit else ""
        most = f"{self.most:g}" if self.most != int(self.most) else str(int(self.most))
        if self.above is not None:
            return f"more than {self.above:g}{unit}, at most {most}"
        if self.least == -_LARGEST:
            return f"a number between -{most} and {most}"
        return f"{self.least:g} or more{unit}, at most {most}"


@dataclass(frozen=True)
class _Path:
    """That a text is a path, an id or a URI: on one line, and no longer than file systems take."""


ANY_NUMBER = Range()
_KEY = "probegrid"


def number_field(
    default: Any,
    *,
    least: float = -_LARGEST,
    above: float | None = None,
    most: float = _LARGEST,
    unit: str = "",
    below: str = "",
    hint: str = "",
) -> Any:
    """Declare a field that holds a number, or numbers, and what they may be; a list is its own default's copy."""
    declared = {_KEY: Range(least, most, above, unit, below, hint)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=declared)
    return field(default=default, metadata=declared)


def seed_field(default: int = 0) -> Any:
    """Declare a field that holds a seed."""
    return number_field(default, least=0, most=LARGEST_SEED)


def path_field(default: str | None) -> Any:
    """Declare a field that holds a path, a hub id or a URI."""
    return field(default=default, metadata={_KEY: _Path()})


def check(values: object, prefix: str) -> None:
    """Check every number and text of a dataclass, in lists, mappings and dataclasses within it too.

    Args:
        values: the dataclass.
        prefix: its own key (``decoding``); empty for the root.

    Raises:
        ConfigError: a value is out of its range, not finite, or cannot be written.
    """
    assert is_dataclass(values)
    for part in fields(values):
        name = f"{prefix}.{part.name}" if prefix else part.name
        _check_value(getattr(values, part.name), name, declared(type(values), part.name))


def declared(owner: type, name: str) -> Range | _Path | None:
    """What a class, or the nearest one it is derived from, says of a field: a new default changes no range."""
    for each in owner.__mro__:
        found = getattr(each, "__dataclass_fields__", {}).get(name)
        if found is not None and _KEY in found.metadata:
            allowed: Range | _Path = found.metadata[_KEY]
            return allowed
    return None


def _check_value(value: object, name: str, allowed: Range | _Path | None) -> None:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        refusal = (allowed if isinstance(allowed, Range) else ANY_NUMBER).refusal(value)
        if refusal is not None:
            raise ConfigError(f"{name}={shown(value)} {refusal}.")
    elif isinstance(value, str):
        _check_text(value, name, is_path=isinstance(allowed, _Path))
    elif isinstance(value, Mapping):
        for key, content in value.items():
            _check_value(key, f"a key of {name}", None)
            _check_value(content, f"{name}.{key}", allowed)
    elif isinstance(value, list | tuple):
        for content in value:
            _check_value(content, name, allowed)
    elif is_dataclass(value):
        check(value, name)


def _check_text(text: str, name: str, *, is_path: bool) -> None:
    try:
        n_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name}={shown(text)} is no text in UTF-8; type it again.") from error
    if "\0" in text:
        raise ConfigError(f"{name}={shown(text)} holds a NUL character; remove it.")
    if not is_path:
        return
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ConfigError(f"{name}={shown(text)} holds a line break or another control character; remove it.")
    is_url = "://" in text
    longest = max((len(part.encode()) for part in text.split("/")), default=0)
    if n_bytes > _LONGEST_PATH or (longest > _LONGEST_NAME and not is_url):
        raise ConfigError(
            f"{name}={shown(text)} is too long ({n_bytes} bytes): a path has at most {_LONGEST_PATH}, "
            f"each name in it {_LONGEST_NAME}."
        )


def shown(value: float | str) -> str:
    """A value on one line, shortened."""
    if (
        isinstance(value, int) and value.bit_length() > 3 * _LONGEST_SHOWN
    ):  # str() refuses more than 4300 digits
        return f"(about {'-' if value < 0 else ''}10^{int(abs(value).bit_length() * math.log10(2))})"
    text = value if isinstance(value, str) else str(value)
    line = text.encode("unicode_escape", "surrogatepass").decode() if not text.isprintable() else text
    return (
        line
        if len(line) <= 2 * _LONGEST_SHOWN
        else f"{line[:_LONGEST_SHOWN]}...{line[-_LONGEST_SHOWN // 2 :]}"
    )
