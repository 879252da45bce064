"""Takes secrets out of anything that is written, sent, logged or printed.

What counts as a secret: the value of a key or an environment variable whose name says so (`secret_names`), the
password of a URI, what a URL carries in its query to be let in (``?token=``, ``&sig=``), strings in the shape of a
well-known token (``hf_...``), and whatever `remember` was shown. Structured values are taken apart; in running text,
where a secret has no certain end, what was remembered is hidden to the letter and the rest by its surroundings. When in
doubt a string is hidden. The tokens of a language model are no secret.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from types import TracebackType
from typing import Any, TypeVar, cast
from urllib.parse import unquote

from probegrid.tracking.secret_names import (
    names_secret,
    names_secret_in_query,
    names_secret_variable,
    names_token_only,
)

HIDDEN = "***"

T = TypeVar("T")

_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])hf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{8,}"
    r"|(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}"
    r"|\b(?:gh[opsru]_|github_pat_)\w{20,}"
    r"|\bglpat-[\w-]{16,}"
    r"|\bsk-(?=[\w-]*\d)[\w-]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bdapi[0-9a-f]{32}\b"
    r"|\bxox[abeprs]-[\w-]{10,}"
    r"|\bAIza[\w-]{35}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"
    r"|(?<=\bBearer )[\w.~+/=-]{8,}"
)
# Hydra writes ``:`` as ``\:``. A port is no password: it ends where the host does.
_UP_TO_COLON = r"(?P<before>[a-z][a-z0-9+.-]*\\?:\\?/\\?/[^\s/:@\\]*\\?:)"
_NO_PORT = r"""(?!\d{1,5}(?:[/?#\s,;.)\]"']|\\(?!@)|$))"""
_URI = re.compile(rf"\s*[\"']?{_UP_TO_COLON}{_NO_PORT}(?P<password>.*)@", re.IGNORECASE | re.DOTALL)
_URI_PASSWORD = re.compile(rf"{_UP_TO_COLON}{_NO_PORT}(?P<password>[^\s\"'<>]*)@", re.IGNORECASE)
_URI_USER = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*\\?:\\?/\\?/)(?![a-z]{1,8}\\?@)(?P<password>[^\s/:@\\]+)\\?@", re.IGNORECASE
)
_QUERY = re.compile(r"(?<=[?&;#])(?P<name>[\w.~-]+)=(?P<value>[^&\s\"'<>#;]+)")
_ASSIGNMENT = re.compile(
    r"(?<![\w.?&;#-])(?P<name>[\w.-]*(?:token|pass(?:word|wd|phrase)|secret|credential|key|authorization)[\w.-]*)"
    r"""(?P<equals>["']?(?::[ ]?|=))(?P<value>"[^"\n]*"|'[^'\n]*'|\S+)""",
    re.IGNORECASE,
)
_OVERRIDE = re.compile(r"(?P<key>[+~]{0,2}[A-Za-z_-][\w./@:-]*)=(?P<value>.*)", re.DOTALL)
_NO_VALUE = re.compile(r"(?:none|null|true|false|\"\"|''|\*\*\*)\W*", re.IGNORECASE)
_NUMBER = re.compile(r"[\d._]+\W*")
_SPECIAL_TO_HYDRA = re.compile(r"([\\()\[\]{}:=, \t])")

_LONG_ENOUGH_TO_BE_UNIQUE = 8
_SHORTEST_SECRET = 4

_remembered: set[str] = set()
"""Secrets that this process was given, in every form in which they may turn up."""


def redact(value: T) -> T:
    """Return ``value`` with every secret replaced by ``***``.

    Strings are searched in mappings, lists and tuples of any depth. A mapping comes back as a dict,
    everything else in its own type. Redacting twice changes nothing more.
    """
    return cast(T, _redact(value, _known_secrets()))


def redact_override(override: str) -> str:
    """Take the secrets out of one ``key=value``, whose value is a secret to its end where the key says so."""
    found = _OVERRIDE.fullmatch(override)
    if found is None:
        return redact(override)
    key, value = found["key"], found["value"]
    if _is_secret(key, value):
        return f"{key}={HIDDEN}"
    plain = _plain(value)
    shown = redact(plain)
    return f"{key}={shown if shown != plain else redact(value)}"


def redact_command(argv: Sequence[str]) -> str:
    """Join a command line as a shell would read it, secrets in ``key=value`` and ``--key value`` hidden."""
    return shlex.join(redact_words(argv))


def redact_words(argv: Sequence[str]) -> list[str]:
    """Do as `redact_command`, and leave the words apart."""
    words: list[str] = []
    hide_next = False
    for word in argv:
        words.append(HIDDEN if hide_next else redact_override(word))
        hide_next = not hide_next and "=" not in word and word.startswith("-") and names_secret(word)
    return words


def redact_yaml(text: str) -> str:
    """Take the secrets out of a YAML document that holds a config; its leading comments stay."""
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return redact(text)
    if not isinstance(content, dict | list) or not holds_secret(content):
        return redact(text)
    head = [line for line in text.splitlines() if line.startswith("#")]
    return "\n".join([*head, yaml.safe_dump(redact(content), sort_keys=False, allow_unicode=True)])


def holds_secret(value: object) -> bool:
    """Whether `redact` would hide something of it: then whatever must hold it is for its owner's eyes alone."""
    return bool(redact(value) != value)


def remember(value: object) -> None:
    """Hide the secrets of a config, or of a command line's words, wherever else this process writes them."""
    for secret in _secrets_in(value):
        forms = {secret, _unescaped(secret)}
        forms |= {unquote(form) for form in forms}
        forms |= {repr(form)[1:-1] for form in forms} | {json.dumps(form)[1:-1] for form in forms}
        forms |= {_SPECIAL_TO_HYDRA.sub(r"\\\1", form) for form in forms}
        _remembered.update(filter(_is_telling, forms))


def redacted_traceback(error: BaseException) -> str:
    """Return what Python prints of an uncaught exception, secrets removed."""
    return redact("".join(traceback.format_exception(error)))


@contextmanager
def redacted_stdout() -> Iterator[None]:
    """Print what is printed in the block, a config as YAML, when it ends and without its secrets."""
    with redirect_stdout(io.StringIO()) as held:
        try:
            yield
        finally:
            print(redact_yaml(held.getvalue()), end="", file=sys.__stdout__, flush=True)


def hide_in_tracebacks() -> None:
    """Print what nobody catches, in any thread, without secrets."""

    def show(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        sys.stderr.write(redacted_traceback(error))

    def show_of_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_value is not None:
            sys.stderr.write(redacted_traceback(found.exc_value))

    sys.excepthook, threading.excepthook = show, show_of_thread


def _redact(value: Any, known: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _redact_text(_URI.sub(_hide_password, value, count=1) if _URI.match(value) else value, known)
    if isinstance(value, Mapping):
        return {_redact(key, known): _redact_entry(key, content, known) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_redact(content, known) for content in value)
    return value


def _redact_entry(key: object, content: Any, known: Sequence[str]) -> Any:
    if isinstance(key, str) and names_secret(key):
        return _hide(content, known, numbers=not names_token_only(key))
    return _redact(content, known)


def _hide(value: Any, known: Sequence[str], *, numbers: bool) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and not numbers:
        return value
    if isinstance(value, Mapping):
        return {_redact(key, known): _hide(content, known, numbers=numbers) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_hide(content, known, numbers=numbers) for content in value)
    return HIDDEN


def _redact_text(text: str, known: Sequence[str]) -> str:
    for secret in known:
        if len(secret) >= _LONG_ENOUGH_TO_BE_UNIQUE:
            text = text.replace(secret, HIDDEN)
        elif secret in text:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", HIDDEN, text)
    text = _URI_PASSWORD.sub(_hide_password, text)
    text = _URI_USER.sub(_hide_password, text)
    text = _QUERY.sub(_hide_in_query, text)
    text = _ASSIGNMENT.sub(_hide_assigned, text)
    return _SHAPES.sub(HIDDEN, text)


def _hide_password(found: re.Match[str]) -> str:
    return f"{found['before']}{HIDDEN}@"


def _hide_in_query(found: re.Match[str]) -> str:
    hidden = names_secret_in_query(found["name"])
    return f"{found['name']}={HIDDEN if hidden else found['value']}"


def _hide_assigned(found: re.Match[str]) -> str:
    hidden = _is_secret(found["name"], found["value"]) and _NO_VALUE.fullmatch(found["value"]) is None
    return f"{found['name']}{found['equals']}{HIDDEN if hidden else found['value']}"


def _is_secret(name: str, value: str) -> bool:
    """Whether a name says that this value, a text, is a secret; a number of tokens is none."""
    if not names_secret(name):
        return False
    return not names_token_only(name) or _NUMBER.fullmatch(value) is None


def _plain(value: str) -> str:
    """The value of an override without the quotes and backslashes that Hydra's grammar asks for."""
    return _unescaped(_unquoted(value))


def _unquoted(value: str) -> str:
    quoted = re.fullmatch(r"\s*(['\"])(.*)\1\s*", value, re.DOTALL)
    return quoted[2] if quoted else value


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)


def _known_secrets() -> list[str]:
    """What was remembered, and the secrets of the environment; the longest first (one may contain another)."""
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SECRET and names_secret_variable(name)
    }
    for value in os.environ.values():
        uri = _URI.match(value) if "@" in value else None
        if uri is not None and _is_telling(uri["password"]):
            found |= {uri["password"], unquote(uri["password"])}
    return sorted(found | _remembered, key=len, reverse=True)


def _secrets_in(value: object, *, is_secret: bool = False) -> Iterator[str]:
    """The strings of a config, or of overrides, that are secrets."""
    if isinstance(value, Mapping):
        for name, content in value.items():
            yield from _secrets_in(content, is_secret=is_secret or names_secret(str(name)))
    elif isinstance(value, list | tuple):
        for content in value:
            yield from _secrets_in(content, is_secret=is_secret)
    elif isinstance(value, str):
        yield from _secrets_of_string(value, is_secret=is_secret)


def _secrets_of_string(text: str, *, is_secret: bool) -> Iterator[str]:
    override = None if is_secret else _OVERRIDE.fullmatch(text)
    if override is None:
        if is_secret:
            yield text
        yield from _secrets_of_url(text)
        return
    for value in (_unquoted(override["value"]), _plain(override["value"])):
        if _is_secret(override["key"], value):
            yield value
        yield from _secrets_of_url(value)


def _secrets_of_url(text: str) -> Iterator[str]:
    with_password = _URI.match(text)
    if with_password is not None:
        yield with_password["password"]
    yield from (user["password"] for user in _URI_USER.finditer(text))
    yield from (found["value"] for found in _QUERY.finditer(text) if names_secret_in_query(found["name"]))


def _is_telling(secret: str) -> bool:
    """Whether a secret can be told from an ordinary word: ``test`` must not be hidden wherever it stands."""
    if len(secret) >= _LONG_ENOUGH_TO_BE_UNIQUE:
        return True
    return len(secret) >= _SHORTEST_SECRET and not secret.isalpha()
