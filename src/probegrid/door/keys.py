"""Which keys there are and of what type, by the schema and by the launchers in Hydra's config store."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_type_hints

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf

from probegrid.schema import Config

GROUPS = ("model", "quantization", "device_map", "dataset", "prompt", "decoding", "probe", "tracking")
"""Groups whose choices are a part of a cell; a key of one begins with its name."""
LAUNCHER = "hydra.launcher"
PATHS = (
    "model.path",
    "model.chat_template",
    "dataset.path",
    "probe.from_cell",
    "probe.entailment",
    "report.folder",
    "store_dir",
    "results_dir",
)
"""Keys that may name a file or a folder, where ``~`` is the home folder."""


def is_known(key: str) -> bool:
    """Whether some choice has this key, ``probe.layers`` or ``hydra.launcher.partition``."""
    return bool(_hints(key))


def is_text(key: str) -> bool:
    """Whether the key's value is a text, wherever there is one."""
    return _is_of(key, {str})


def is_text_list(key: str) -> bool:
    """Whether the key's value is a list of texts."""
    return _is_of(key, {list[str]})


def is_anything(key: str) -> bool:
    """Whether the schema leaves the type of the key's value open."""
    return Any in _hints(key)


def enum_names(key: str) -> list[str]:
    """The values of a key that has a fixed number of them; none for any other key."""
    for hint in _hints(key):
        if isinstance(hint, type) and issubclass(hint, Enum):
            return [member.name for member in hint]
    return []


def fields_of(class_name: str) -> list[str]:
    """The keys of a part of the config, by the name of its dataclass."""
    return [
        part.name
        for root in (Config, *_launchers())
        for owner in _dataclasses(root)
        if owner.__name__ == class_name
        for part in fields(owner)
        if not part.name.startswith("_")
    ]


def _is_of(key: str, types: set[object]) -> bool:
    found = _hints(key) - {type(None)}
    return bool(found) and found <= types


def _hints(key: str) -> frozenset[Any]:
    """The types of a key in all the classes that have it, unions taken apart; none where no class has it."""
    owners: list[type[Any]] = [Config]
    parts = key.split(".")
    if key.startswith(f"{LAUNCHER}."):
        owners, parts = _launchers(), parts[2:]
    hints: set[Any] = set()
    for part in parts:
        hints = {
            member for owner in owners for member in _members(_class_hints(owner).get(part))
        }
        held = [hint for hint in hints if isinstance(hint, type) and is_dataclass(hint)]
        owners = [owner for hint in held for owner in (hint, *_subclasses(hint))]
    return frozenset(hints)


@functools.cache
def _class_hints(owner: type[Any]) -> dict[str, Any]:
    return get_type_hints(owner)


def _members(hint: Any) -> Iterator[Any]:
    """A type, or those of a union; nothing for no type."""
    if hint is None:
        return
    if get_args(hint) and not isinstance(hint, type) and type(None) in get_args(hint):
        yield from get_args(hint)
    else:
        yield hint


def _launchers() -> list[type[Any]]:
    """The options of every launcher that is registered, ours or another's."""
    group = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    types = [OmegaConf.get_type(node.node) for node in group.values() if isinstance(node, ConfigNode)]
    return [found for found in types if found is not None and is_dataclass(found)]


def _dataclasses(root: type[Any]) -> Iterator[type[Any]]:
    """A dataclass, those its fields may hold, and the subclasses of each."""
    yield root
    for hint in _class_hints(root).values():
        for candidate in (hint, *get_args(hint)):
            if isinstance(candidate, type) and is_dataclass(candidate):
                yield from _dataclasses(candidate)
    for child in root.__subclasses__():
        yield from _dataclasses(child)


def _subclasses(root: type[Any]) -> Iterator[type[Any]]:
    for child in root.__subclasses__():
        yield child
        yield from _subclasses(child)
