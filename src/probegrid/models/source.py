"""The code of a model's own classes, which says of them what nothing else does."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import Any


@cache
def code_of(owner: Any) -> str:
    """The source of a class or a module; empty where there is none, as of what was made at run time.

    It is what `inspect.getsource` gives, which parses the whole file again for each class in it.
    """
    try:
        if inspect.isclass(owner):
            classes = _classes(inspect.getsource(sys.modules[owner.__module__]))
            if owner.__qualname__ in classes:
                return classes[owner.__qualname__]
        return inspect.getsource(owner)
    except (KeyError, OSError, TypeError):
        return ""


@cache
def _classes(source: str) -> dict[str, str]:
    """The source of each class on the top level of a module's."""
    lines = source.split("\n")
    found: dict[str, str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.setdefault(node.name, "\n".join(lines[first - 1 : node.end_lineno]))
    return found
