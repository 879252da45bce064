"""Doors for parts from outside: probes, datasets, rules of correctness and judges of one's own.

A part is found through an entry point of its group (``probegrid.probes``, ``probegrid.datasets``, ``probegrid.rules``,
``probegrid.judges``) that names its class, or the judge or its module; or in one of the modules that the environment
variable ``PROBEGRID_PLUGINS`` names, separated by commas. Knows how parts are found, not what they are.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import sys
from abc import ABC
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from probegrid.errors import ConfigError

VARIABLE = "PROBEGRID_PLUGINS"
_DOORS = ("probes", "datasets", "rules", "judges")
T = TypeVar("T")


def config_classes(door: str, package: ModuleType, base: type[T]) -> Iterator[tuple[str, type[T]]]:
    """Every config class of a door by the name of its choice: those of our own package, then those from outside.

    Args:
        door: ``probes`` or ``datasets``.
        package: ours; a module of it holds one, and gives it its name.
        base: what they are.

    Raises:
        ConfigError: one from outside has the name of another.
    """
    owners: dict[str, type[T]] = {}
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        for owner in _parts_of(module, base):
            owners[found.name] = owner
            yield found.name, owner
    for owner in from_outside(door, base):
        name = owner.__dict__.get("choice") or owner.__module__.rpartition(".")[2]
        if name in owners:
            raise ConfigError(
                f"{owner.__module__}.{owner.__name__} is called {name}, and so is {owners[name].__module__}; give it "
                "another name: choice: ClassVar = '...'."
            )
        owners[name] = owner
        yield name, owner


def are_any_outside() -> bool:
    """Whether any part from outside is declared; nothing is imported."""
    if os.environ.get(VARIABLE):
        return True
    return any(map(_declared, _DOORS))


def from_outside(door: str, base: type[T]) -> list[type[T]]:
    """The classes from outside that are a ``base``, each once, by the order in which they are found.

    Args:
        door: ``probes``, ``datasets`` or ``rules``.
        base: what they must be; abstract ones, and those that a module only imports, are passed over.

    Raises:
        ConfigError: a module cannot be imported, or an entry point names no such class.
    """
    found = [
        *_installed(door, base),
        *(part for module in _named_modules() for part in _parts_of(module, base)),
    ]
    return list(dict.fromkeys(found))


def instances_from_outside(door: str, base: type[T]) -> list[T]:
    """The objects from outside that are a ``base``, each once, by the order in which they are found.

    Args:
        door: ``judges``.
        base: what they are; what a module only imports from ours is passed over.

    Raises:
        ConfigError: a module cannot be imported, or an entry point names no such object.
    """
    found: list[T] = []
    for point in _declared(door):
        part = _load(point)
        if isinstance(part, base):
            found.append(part)
        elif isinstance(part, ModuleType):
            found.extend(value for value in vars(part).values() if isinstance(value, base))
        else:
            raise ConfigError(
                f"the entry point {point.name} of the group probegrid.{door} names {point.value}, which is no "
                f"{base.__name__}; mend or uninstall {_owner(point)}."
            )
    named = [value for module in _named_modules() for value in vars(module).values()]
    return list(dict.fromkeys([*found, *(value for value in named if isinstance(value, base))]))


def _installed(door: str, base: type[T]) -> Iterator[type[T]]:
    for point in _declared(door):
        part = _load(point)
        if isinstance(part, ModuleType):
            yield from _parts_of(part, base)
        elif isinstance(part, type) and issubclass(part, base):
            yield part
        else:
            raise ConfigError(
                f"the entry point {point.name} of the group probegrid.{door} names {point.value}, which is no "
                f"{base.__name__}; mend or uninstall {_owner(point)}."
            )


def _declared(door: str) -> list[EntryPoint]:
    """The entry points of a door, as of now: what is installed meanwhile changes the folder it is installed into."""
    places = tuple((place, _changed_at(place)) for place in sys.path)
    return [point for point in _entry_points(places) if point.group == f"probegrid.{door}"]


def _changed_at(place: str) -> int:
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:  # a path that is not there holds nothing
        return 0


@functools.lru_cache(maxsize=8)
def _entry_points(places: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """Ours of every package in these places: some two hundred files, read once and not at each composition."""
    declared = entry_points()
    return tuple(point for door in _DOORS for point in declared.select(group=f"probegrid.{door}"))


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise ConfigError(
            f"{point.value}, an entry point of {_owner(point)}, cannot be imported ({_reason(error)}); mend or "
            "uninstall it."
        ) from error


def _named_modules() -> Iterator[ModuleType]:
    """The modules of the environment variable; a file in the working folder is one, as for ``python -m``."""
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.append(here)
    for name in names:
        try:
            yield importlib.import_module(name)
        except Exception as error:  # as above
            raise ConfigError(
                f"{VARIABLE}={os.environ[VARIABLE]}: the module {name} cannot be imported ({_reason(error)}); "
                f"{_mend(name, error)}."
            ) from error


def _mend(name: str, error: Exception) -> str:
    """What to do about a module that cannot be imported."""
    stem = Path(name).stem if name.endswith(".py") else Path(name).name
    if stem != name and stem.isidentifier():
        return f"modules are named, not files: {VARIABLE}={stem}"
    if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
        return (
            f"run where {name.partition('.')[0]}.py lies, put its folder on PYTHONPATH, or take its name out"
        )
    return "mend it, or take its name out"


def _parts_of(module: ModuleType, base: type[T]) -> Iterator[type[T]]:
    for value in vars(module).values():
        is_own = isinstance(value, type) and value.__module__ == module.__name__
        if is_own and issubclass(value, base) and not (inspect.isabstract(value) or ABC in value.__bases__):
            yield value


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "the package that declares it"


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
