"""From groups and overrides to a typed ``Config``.

Knows Hydra's config store, its compose API and its errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import probegrid.data
import probegrid.probes
from probegrid.errors import ConfigError, closest
from probegrid.plugins import config_classes
from probegrid.schema import CellSpec, Choices, Config, DatasetConfig, ProbeConfig
from probegrid.sweep.options import LauncherOptions
from probegrid.tracking.naming import telling

CONFIG_MODULE = "probegrid.conf"


def register() -> None:
    """Put the schema into Hydra's config store: the root as ``schema``, datasets and probes by their modules' names."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, package, base in (
        ("dataset", probegrid.data, DatasetConfig),
        ("probe", probegrid.probes, ProbeConfig),
    ):
        for name, owner in config_classes(f"{group}s", package, base):
            store.store(group=f"schema/{group}", name=name, node=owner)
            if not owner.__module__.startswith(f"{package.__name__}."):
                store.store(group=group, name=name, node=_choice(group, name, owner))


def _choice(group: str, name: str, owner: type[Any]) -> dict[str, Any]:
    """What a YAML of ours says, for a class from outside: its schema, the root's seed, samples where it needs them."""
    draws = getattr(owner, "fewest_samples", 0) > 0
    defaults: list[Any] = [f"/schema/{group}/{name}@_here_"]
    if draws:
        defaults.append({"override /decoding@_global_.decoding": "sample"})
    seed = {"seed": "${seed}"} if "seed" in {part.name for part in fields(owner)} else {}
    return {"defaults": [*defaults, "_self_"], **seed}


def to_config(composed: DictConfig) -> Config:
    """Convert a composed config once, checks included.

    Raises:
        ConfigError: a value of the wrong type, or one that its dataclass refuses.
    """
    if OmegaConf.get_type(composed) is not Config:
        raise ConfigError(
            "the config does not start from probegrid's schema; keep `- schema` first in its defaults."
        )
    with user_errors():
        _refuse_unknown_keys(composed)
        values: dict[str, Any] = {part.name: composed[part.name] for part in fields(Config)}
        for name, value in values.items():
            if OmegaConf.is_config(value):
                values[name] = OmegaConf.to_object(value)
        return Config(**values)


def _refuse_unknown_keys(node: DictConfig, path: str = "") -> None:
    """Refuse what was added with ``+`` and is no field: it would be ignored."""
    owner = OmegaConf.get_type(node)
    if owner is None or not is_dataclass(owner):  # a plain dict takes any key
        return
    names = [part.name for part in fields(owner)]
    for key in map(str, node):
        if key not in names and f"{path}{key}" != "hydra":
            raise ConfigError(f"the config has no key {path}{key}; {closest(key, names)}.")
        if key in names and not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            _refuse_unknown_keys(node[key], f"{path}{key}.")


def to_spec(composed: DictConfig, hydra: Any) -> CellSpec:
    """Convert a composed config, whose ``hydra`` node says what was chosen, to all that a cell is made of.

    Raises:
        ConfigError: a value of the wrong type, or one that its dataclass refuses.
    """
    config, chosen = to_config(composed), hydra["runtime"]["choices"]
    choices = Choices(**{part.name: str(chosen[part.name]) for part in fields(Choices)})
    return CellSpec(config, choices, overrides=telling(hydra["overrides"]["task"], choices))


def spell_out(overrides: Sequence[str]) -> list[str]:
    """Write ``probe.from=`` by its field's name: ``from`` is a word of Python's, which no field can have."""
    return [re.sub(r"^probe\.from=", "probe.from_cell=", override) for override in overrides]


def compose_dataset(name: str) -> DatasetConfig:
    """The config of another dataset, as a group's name (``statements``) or with its path (``statements:cities.csv``).

    Raises:
        ConfigError: an unknown name.
    """
    group, _, path = name.partition(":")
    overrides = [f"dataset={group}", *([f"dataset.path={path}"] if path else [])]
    if GlobalHydra.instance().is_initialized():
        with user_errors():
            return to_config(compose("config", overrides=overrides)).dataset
    return compose_cell(overrides).config.dataset


def compose_cell(overrides: Sequence[str]) -> CellSpec:
    """Compose one cell from Python, as the command line would.

    Raises:
        ConfigError: an unknown name, key or value.
    """
    register()
    GlobalHydra.instance().clear()
    with user_errors(), initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        composed = compose("config", overrides=spell_out(overrides), return_hydra_config=True)
    return to_spec(composed, composed["hydra"])


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one sentence for the user."""
    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_unknown_choice(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        explanation = _syntax(error) or _unknown_key(error) or _wrong_value(error)
        raise ConfigError(explanation or _one_line(error)) from error
    except ValueError as error:
        if "Config group override must be" not in str(error):  # all that Hydra says of model=null
            raise
        raise ConfigError("a group is chosen by its name, group=name; it cannot be null.") from error


def _unknown_choice(error: MissingConfigException) -> str:
    missing, options = error.missing_cfg_file or "", error.options
    if not isinstance(missing, str) or not options:
        return _one_line(error)
    group, _, name = missing.rpartition("/")
    return f"{group}={name} is not known; {closest(name, options)}."


def _unknown_key(error: Exception) -> str | None:
    """A key that is no field, of an override (named by its path) or of a group's file (named by the file)."""
    text = f"{error} {error.__cause__}"
    found = re.search(r"Key '(?P<key>\w+)' not in '(?P<owner>\w+)'", text)
    if found is None:
        return None
    path = re.search(r"Could not override '([\w.]+)'", text)
    file = re.search(r"In '([\w/]+)'", text)
    names = [
        part.name
        for root in (Config, LauncherOptions)
        for owner in _dataclasses(root)
        if owner.__name__ == found["owner"]
        for part in fields(owner)
        if not part.name.startswith("_")
    ]
    where = path.group(1) if path else f"{found['key']} (in {file.group(1)})" if file else found["key"]
    return f"the config has no key {where}; {closest(found['key'], dict.fromkeys(names))}."


def _dataclasses(root: type) -> Iterator[type[Any]]:
    """A dataclass, those its fields may hold, and the subclasses of each."""
    yield root
    for hint in get_type_hints(root).values():
        for candidate in (hint, *get_args(hint)):
            if isinstance(candidate, type) and is_dataclass(candidate):
                yield from _dataclasses(candidate)
    children: list[type] = type.__subclasses__(root)
    for child in children:
        yield from _dataclasses(child)


def _syntax(error: Exception) -> str | None:
    if not isinstance(error, OverrideParseException):
        return None
    return (
        f"{error.override!r} is not an override; write group=name or key=value, and quote a value that holds commas, "
        "spaces or brackets: key='\"a, b\"'."
    )


def _wrong_value(error: Exception) -> str | None:
    override = re.search(r"Error merging override (\S+)", str(error))
    enum = re.search(r"Invalid value '(.*)', expected one of \[(.*)\]", str(error.__cause__))
    if override is not None and enum is not None:
        return f"{override.group(1)} is not allowed; {closest(enum.group(1), enum.group(2).split(', '))}."
    if override is not None and error.__cause__ is not None:
        return f"{override.group(1)} is not allowed: {str(error.__cause__).splitlines()[0]}."
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given and is not; add {error.full_key}=<value>."
    return None


def _one_line(error: Exception) -> str:
    text = "; ".join(filter(None, (str(error), str(error.__cause__ or ""))))
    lines = [line.strip() for line in text.splitlines()]
    kept = [
        line
        for line in lines
        if line and not line.startswith(("full_key:", "object_type=", "reference_type="))
    ]
    return "; ".join(dict.fromkeys(kept))
