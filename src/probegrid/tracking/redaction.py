"""One function that takes secrets out of anything that is written, sent or logged.

What counts as a secret: the value of a key or an environment variable whose name says so (``hf_token``,
``*password*``, ``*secret*``, ...), the password of a URI, and strings in the shape of a well-known token
(``hf_...``). When in doubt a string is hidden. The tokens of a language model are no secret: names with
``tokens`` or ``tokeniz`` are let be, and so are the numbers under any other ``*token*`` key.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

HIDDEN = "***"

T = TypeVar("T")

_UNMISTAKABLE = (
    r"(?:password|passwd|passphrase|secret|credential"
    r"|(?:api|access|private)[_-]?key|(?:api|auth|access)[_-]?tokens)"
)
_IS_SECRET = re.compile(rf"{_UNMISTAKABLE}|token(?!iz|s)", re.IGNORECASE)
_IS_UNMISTAKABLE = re.compile(_UNMISTAKABLE, re.IGNORECASE)

_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])hf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{8,}"
    r"|(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}"
    r"|\b(?:gh[opsru]_|github_pat_)\w{20,}"
    r"|\bglpat-[\w-]{16,}"
    r"|\bsk-[\w-]{20,}"
    r"|\bAKIA[A-Z0-9]{16}\b"
    r"|(?<=\bBearer )[\w.~+/=-]{8,}"
)
_URI_PASSWORD = re.compile(r"""([a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s"'<>]*@""", re.IGNORECASE)
_URI_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/:@]+@", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    rf"""((?:token|{_UNMISTAKABLE}[\w.-]*)(?:["']?:[ ]?|=))(?:"[^"\n]*"|'[^'\n]*'|\S)+""", re.IGNORECASE
)
_LONG_ENOUGH_TO_BE_UNIQUE = 8
_SHORTEST_SECRET = 4


def redact(value: T) -> T:
    """Return ``value`` with every secret replaced by ``***``.

    Strings are searched in mappings, lists and tuples of any depth. A mapping comes back as a dict,
    everything else in its own type. Redacting twice changes nothing more.
    """
    return cast(T, _redact(value))


def redact_command(argv: Sequence[str]) -> str:
    """Join a command line as a shell would read it, secrets in ``key=value`` and ``--key value`` hidden."""
    words: list[str] = []
    hide_next = False
    for word in argv:
        key, equals, value = word.partition("=")
        secret = _names_secret(key, value)
        if hide_next:
            words.append(HIDDEN)
        elif secret and equals:
            words.append(f"{key}={HIDDEN}")
        else:
            words.append(redact(word))
        hide_next = secret and not equals and not hide_next and word.startswith("-")
    return shlex.join(words)


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return _redact_text(value)
    if isinstance(value, Mapping):
        return {_redact(key): _redact_entry(key, content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_redact(content) for content in value)
    return value


def _redact_entry(key: object, content: Any) -> Any:
    if isinstance(key, str) and _IS_SECRET.search(key):
        return _hide(content, numbers=_IS_UNMISTAKABLE.search(key) is not None)
    return _redact(content)


def _hide(value: Any, *, numbers: bool) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and not numbers:
        return value
    if isinstance(value, Mapping):
        return {_redact(key): _hide(content, numbers=numbers) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_hide(content, numbers=numbers) for content in value)
    return HIDDEN


def _redact_text(text: str) -> str:
    for secret in _environment_secrets():
        if len(secret) >= _LONG_ENOUGH_TO_BE_UNIQUE:
            text = text.replace(secret, HIDDEN)
        else:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", HIDDEN, text)
    text = _URI_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    text = _URI_USER.sub(rf"\1{HIDDEN}@", text)
    text = _ASSIGNMENT.sub(rf"\1{HIDDEN}", text)
    return _SHAPES.sub(HIDDEN, text)


def _environment_secrets() -> list[str]:
    """Values of the environment variables named like secrets, the longest first (one may contain another)."""
    values = {
        value
        for name, value in os.environ.items()
        if _IS_SECRET.search(name) and len(value) >= _SHORTEST_SECRET
    }
    return sorted(values, key=len, reverse=True)


def _names_secret(key: str, value: str) -> bool:
    if _IS_UNMISTAKABLE.search(key):
        return True
    return _IS_SECRET.search(key) is not None and re.fullmatch(r"[\d._]+", value) is None
