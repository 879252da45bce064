"""Values that a table's writer spelled as texts: lists and objects in JSON, in Python, or as numpy prints them."""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from typing import Any

_BRACKETS = {"[": "]", "{": "}"}
_SEQUENCES = ("array", "list", "tuple", "set", "frozenset")


def is_bracketed(value: str) -> bool:
    """Whether a text begins and ends as a list or an object does."""
    stripped = value.strip()
    return _BRACKETS.get(stripped[:1]) == stripped[-1:]


def spelled(value: str) -> object:
    """The list, tuple, set or mapping that a text spells in JSON, Python or numpy; None where it spells none."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return _evaluated(ast.parse(_with_commas(value), mode="eval").body)
    except (_NotPlain, SyntaxError, TypeError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return None


class _NotPlain(Exception):
    """An expression that is no plain value."""


def _with_commas(value: str) -> str:
    """A comma between values that stand side by side: numpy prints none, and Python would join two texts into one."""
    pieces: list[str] = []
    before = None
    for token in tokenize.generate_tokens(io.StringIO(value).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            continue
        is_value = token.type in (tokenize.STRING, tokenize.NUMBER, tokenize.NAME)
        begins = is_value or token.string in ("[", "{", "-")
        if before is not None and begins and (before[0] or before[1] in ("]", "}", ")")):
            pieces.append(",")
        pieces.append(token.string)
        before = is_value, token.string
        if token.type == tokenize.NAME and token.string in _SEQUENCES:
            before = None  # a call's name
    return " ".join(pieces)


def _evaluated(node: ast.expr) -> Any:
    """A plain value of Python's: constants, lists, mappings, and arrays as numpy spells them."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str | int | float)):
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_evaluated(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_evaluated(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_evaluated, node.values), strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(_evaluated(node.operand))
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SEQUENCES:
        return _evaluated(node.args[0]) if node.args else []
    raise _NotPlain


_NAMES = {"nan": math.nan, "NaN": math.nan, "null": None, "true": True, "false": False}


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise _NotPlain


def unspelled(value: object) -> object:
    """A cell whose structure may have been written as a text: a SQuAD table that went through CSV."""
    if isinstance(value, str) and is_bracketed(value):
        found = spelled(value.strip())
        return value if found is None else found
    return value
