"""Paths and hub ids: where one stands for a name, and what is called by one.

``model=Qwen/Qwen3-8B`` is ``model=custom model.path=Qwen/Qwen3-8B``; ``dataset=my.jsonl`` is ``dataset=jsonl
dataset.path=my.jsonl``. Either is called by the last part of its path, ``Qwen3-8B`` and ``my``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from probegrid.data.formats import data_stem, data_suffix

PLACED = {"model": "custom", "dataset": "jsonl"}
"""Groups in which a path or a hub id may stand for a name, and the choice that reads it."""


def is_place(group: str, value: str) -> bool:
    """Whether a value of a group looks like a path or a hub id and not like a name."""
    if group not in PLACED:
        return False
    is_file = group == "dataset" and data_suffix(value) is not None
    return "/" in value or value.startswith((".", "~")) or is_file


def short_name(path: str, taken: Collection[str] = ()) -> str:
    """What a checkpoint or a dataset is called by its path: the last part, or more of them where that is taken."""
    return next((name for name in _names(path) if name not in taken), _names(path)[-1])


def names_apart(paths: Sequence[str]) -> list[str]:
    """A name for each of some paths that their last parts do not tell apart; equal paths have equal names."""
    candidates = {path: _names(path) for path in paths}
    names: dict[str, str] = {}
    for length in range(max(map(len, candidates.values()))):
        names = {path: longer[min(length, len(longer) - 1)] for path, longer in candidates.items()}
        if len(set(names.values())) == len(names):
            return [names[path] for path in paths]
    return [_numbered(path, names) for path in paths]  # as `a b` and `a_b`, which are one name


def _numbered(path: str, names: Mapping[str, str]) -> str:
    alike = [other for other, name in names.items() if name == names[path]]
    return f"{names[path]}_{alike.index(path) + 1}" if len(alike) > 1 else names[path]


def _names(path: str) -> list[str]:
    """Names of a path, each longer than the one before: ``cities``, ``cities.csv``, ``data_cities.csv``, ..."""
    *folders, last = _parts(path)
    stem = data_stem(last)
    if folders and not re.search(r"\w", stem):  # ``parts/*.jsonl`` is called parts
        stem = folders[-1]
    longer = ["_".join([*folders[start:], last]) for start in range(len(folders), -1, -1)]
    return list(dict.fromkeys(map(_plain, [stem, *longer])))


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path from the root on, of a hub id owner and name."""
    local = Path(os.path.expanduser(path))
    if path.startswith((".", "/", "~")) or local.exists():
        whole = local.resolve() if local.name in ("", "..") else local.absolute()
        return whole.parts[1:] or ("root",)
    return local.parts


def _plain(name: str) -> str:
    """A name of letters, digits, dots, dashes and underscores, as files, runs and jobs are called."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "unnamed"
