"""Pages that are one file: data, style and script inside it, nothing fetched, nothing run but our own script.

Knows templates and assets. What the data says is text: it stands in a block that no browser runs, and the page's
policy (Content-Security-Policy) lets run the very scripts that we put there, and reach no address.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_HARMLESS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What could end a block of data, or begin another, as JSON may write it too."""


@cache
def asset(name: str) -> str:
    """A file of ours by its path below this room (``assets/base.css``)."""
    return (resources.files("probegrid.report") / name).read_text(encoding="utf-8")


def data_block(values: Any) -> str:
    """Plain values as JSON that can stand in a ``<script type="application/json">``; not-a-number is null.

    A lone surrogate, which UTF-8 cannot hold, is written by its escape.
    """
    text = json.dumps(_plain(values), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, written in _HARMLESS.items():
        text = text.replace(character, written)
    return text.encode("utf-8", "backslashreplace").decode()


def policy(scripts: Sequence[str]) -> str:
    """The Content-Security-Policy of a page with these scripts inside it: they run, nothing else does or is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page from a template; text is escaped but for what `verbatim` marks."""
    page: str = _environment().get_template(template).render(values)
    return page.encode("utf-8", "backslashreplace").decode()


def verbatim(text: str) -> str:
    """Text of ours, or a block of data, that a template takes as it is."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704  # our own assets, and JSON whose every < is an escape


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("probegrid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
