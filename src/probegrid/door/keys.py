"""Which keys there are and of what type, by the schema and by the launchers in Hydra's config store."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from hydra.conf import HydraConf
from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf

from probegrid.schema import Config

GROUPS = ("model", "quantization", "device_map", "dataset", "prompt", "decoding", "probe", "tracking")
"""Groups whose choices are a part of a cell; a key of one begins with its name."""
PATHS = (
    "model.path",
    "model.chat_template",
    "dataset.path",
    "dataset.judge",
    "probe.from_cell",
    "probe.entailment",
    "report.folder",
    "store_dir",
    "results_dir",
)
"""Keys that may name a file or a folder, where ``~`` is the home folder."""
SPELLED = {"from_cell": "from"}
"""Keys that are typed otherwise than their fields are called: ``from`` is a word of Python's, which no field can be."""

_LAUNCHER = "hydra.launcher"
_hints_of: dict[type[Any], dict[str, Any]] = {}


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


def is_of_mapping(key: str) -> bool:
    """Whether it is a key of the user's own choice, ``model.template_kwargs.enable_thinking``."""
    return is_mapping(key.rpartition(".")[0])


def is_mapping(key: str) -> bool:
    """Whether the key holds keys of the user's own choice, ``model.template_kwargs``."""
    return any(get_origin(hint) is dict for hint in _hints(key))


def dataclass_of(key: str) -> type[Any] | None:
    """The dataclass of the keys below this one; None where it holds a value, or several classes could be meant."""
    held = [hint for hint in _hints(key) if isinstance(hint, type) and is_dataclass(hint)]
    return held[0] if len(held) == 1 else None


def value_above(key: str) -> str | None:
    """The key below which this one is typed, where it holds a value and no keys: ``seed`` of ``seed.a``; else None."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        above = ".".join(parts[:count])
        hints = _hints(above)
        if hints and not any(hint is Any or get_origin(hint) is dict or is_dataclass(hint) for hint in hints):
            return above
    return None


def enum_names(key: str) -> list[str]:
    """The values of a key that has a fixed number of them; none for any other key."""
    for hint in _hints(key):
        if isinstance(hint, type) and issubclass(hint, Enum):
            return [member.name for member in hint]
    return []


def keys_of(class_name: str) -> list[str]:
    """The keys of a part of the config as they are typed, by the name of its dataclass."""
    roots = [Config, HydraConf, *_launchers().values()]
    found = [owner for root in roots for owner in _dataclasses(root) if owner.__name__ == class_name]
    return list(dict.fromkeys(key for owner in found for key in _keys(owner)))


def keys_beside(key: str) -> dict[str, list[str]]:
    """Every key that may stand in this one's place, each with the choices of its group that have it."""
    found: dict[str, list[str]] = {}
    for choice, owner in _choices(key.rpartition(".")[0]):
        for name in _keys(owner):
            found.setdefault(name, []).append(choice)
    return found


def _choices(group: str) -> Iterator[tuple[str, type[Any]]]:
    """What can be chosen for a group by its class: datasets, probes, launchers."""
    if group == _LAUNCHER:
        yield from _launchers().items()
    elif group in ("dataset", "probe"):
        nodes = ConfigStore.instance().repo.get("schema", {}).get(group, {})
        yield from _types(nodes)


def _keys(owner: type[Any]) -> list[str]:
    return [SPELLED.get(part.name, part.name) for part in fields(owner) if not part.name.startswith("_")]


def _is_of(key: str, types: set[object]) -> bool:
    found = _hints(key) - {type(None)}
    return bool(found) and found <= types


def _hints(key: str) -> frozenset[Any]:
    """The types of a key in all the classes that have it, unions taken apart; none where no class has it."""
    owners: list[type[Any]] = [Config]
    parts = key.split(".")
    if key.startswith(f"{_LAUNCHER}."):
        owners, parts = list(_launchers().values()), parts[2:]
    hints: set[Any] = set()
    for part in parts:
        hints = {member for owner in owners for member in _members(_type_hints(owner).get(part))}
        held = [hint for hint in hints if isinstance(hint, type) and is_dataclass(hint)]
        owners = [owner for hint in held for owner in (hint, *_subclasses(hint))]
    return frozenset(hints)


def _type_hints(owner: type[Any]) -> dict[str, Any]:
    """Those of a class, kept: each look compiles its annotations anew, and a cell has hundreds of looks."""
    if owner not in _hints_of:
        _hints_of[owner] = get_type_hints(owner)
    return _hints_of[owner]


def _members(hint: Any) -> Iterator[Any]:
    """A type, or those of a union with None; nothing for no type."""
    if type(None) in get_args(hint):
        yield from get_args(hint)
    elif hint is not None:
        yield hint


def _launchers() -> dict[str, type[Any]]:
    """The options of every launcher that is registered, ours or another's, by its name."""
    return dict(_types(ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})))


def _types(nodes: dict[str, Any]) -> Iterator[tuple[str, type[Any]]]:
    for name, node in nodes.items():
        owner = OmegaConf.get_type(node.node) if isinstance(node, ConfigNode) else None
        if owner is not None and is_dataclass(owner) and not inspect.isabstract(owner):
            yield name.removesuffix(".yaml"), owner


def _dataclasses(root: type[Any]) -> Iterator[type[Any]]:
    """A dataclass, those its fields may hold, and the subclasses of each."""
    yield root
    for hint in _type_hints(root).values():
        for candidate in (hint, *get_args(hint)):
            if isinstance(candidate, type) and is_dataclass(candidate):
                yield from _dataclasses(candidate)
    for child in root.__subclasses__():
        yield from _dataclasses(child)


def _subclasses(root: type[Any]) -> Iterator[type[Any]]:
    for child in root.__subclasses__():
        yield child
        yield from _subclasses(child)
