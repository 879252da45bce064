"""From groups and overrides to a typed ``CellSpec``: all that a cell is made of, checked.

What is wrong is said here, in one sentence, before anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

import probegrid.data
import probegrid.probes
from probegrid.data.jsonl import JsonlConfig
from probegrid.door.keys import is_text_list
from probegrid.door.loader import ROOT, CellLoader, hydra_1_3, loader_for
from probegrid.door.mistakes import no_such_key, user_errors
from probegrid.door.places import PLACED, is_place, short_name
from probegrid.errors import ConfigError, closest
from probegrid.models.as_stored import as_stored
from probegrid.plugins import config_classes
from probegrid.probes import ActivationProbe, TrainedProbe
from probegrid.schema import CellSpec, Choices, Config, DatasetConfig, ModelConfig, ProbeConfig
from probegrid.tracking.naming import telling
from probegrid.tracking.redaction import redact_override


def register() -> None:
    """Put the schema into Hydra's config store: the root as ``schema``, datasets and probes by their modules' names.

    What the store holds already stays: a class becomes a config node in milliseconds, and each composition asks.
    """
    store = ConfigStore.instance()
    held = store.repo.get("schema", {})
    if not _is_node_of(store.repo.get("schema.yaml"), Config):
        store.store(name="schema", node=Config)
    for group, package, base in (
        ("dataset", probegrid.data, DatasetConfig),
        ("probe", probegrid.probes, ProbeConfig),
    ):
        for name, owner in config_classes(f"{group}s", package, base):
            if not _is_node_of(held.get(group, {}).get(f"{name}.yaml"), owner):
                store.store(group=f"schema/{group}", name=name, node=owner)
            if not owner.__module__.startswith(f"{package.__name__}."):
                store.store(group=group, name=name, node=_choice(group, name, owner))


def _is_node_of(node: object, owner: type[Any]) -> bool:
    return isinstance(node, ConfigNode) and OmegaConf.get_type(node.node) is owner


def _choice(group: str, name: str, owner: type[Any]) -> dict[str, Any]:
    """What a YAML of ours says, for a class from outside: its schema, the root's seed, samples where it needs them."""
    draws = getattr(owner, "fewest_samples", 0) > 0
    defaults: list[Any] = [f"/schema/{group}/{name}@_here_"]
    if draws:
        defaults.append({"override /decoding@_global_.decoding": "sample"})
    seed = {"seed": "${seed}"} if "seed" in {part.name for part in fields(owner)} else {}
    return {"defaults": [*defaults, "_self_"], **seed}


def compose_cell(
    overrides: Sequence[str], config_dir: str | os.PathLike[str] | None = None, *, refuse_grids: bool = False
) -> CellSpec:
    """Compose one cell from Python, as the command line would; a Hydra application around it is left as it is.

    Args:
        overrides: as typed.
        config_dir: a folder of groups of one's own.
        refuse_grids: whether a preset that is a grid is a mistake, and not one of its cells.

    Raises:
        ConfigError: an unknown name, key or value.
    """
    register()
    with hydra_1_3():
        loader = loader_for(overrides, config_dir)
        composed = loader.load_configuration(ROOT, list(overrides), RunMode.RUN)
        if refuse_grids and composed.hydra.mode is RunMode.MULTIRUN:
            raise ConfigError(
                f"experiment={composed.experiment} is a grid, not a cell; call probegrid.sweep, or give what it varies."
            )
        return to_spec(composed, composed.hydra, loader)


def to_spec(composed: DictConfig, hydra: Any, loader: CellLoader) -> CellSpec:
    """Convert a composed config to all that a cell is made of.

    Args:
        composed: every value.
        hydra: Hydra's own part, which says what was typed and chosen.
        loader: what composed it, and composes the datasets of ``probe.test_on``.

    Raises:
        ConfigError: a value of the wrong type, or one that its dataclass refuses.
    """
    config = to_config(composed)
    chosen = {part.name: str(hydra.runtime.choices[part.name]) for part in fields(Choices)}
    named = {group: _name(group, chosen[group], getattr(config, group), loader) for group in PLACED}
    choices = Choices(**chosen | named)
    _refuse_files(config)
    overrides = tuple(map(redact_override, telling(list(hydra.overrides.task), choices)))
    return as_stored(CellSpec(config, choices, _test_sets(config, loader), overrides))


def _refuse_files(config: Config) -> None:
    """Refuse a file where folders are written, which would be found when all is computed.

    Raises:
        ConfigError: one is named, or lies on the way.
    """
    for key in ("store_dir", "results_dir"):
        folder = Path(getattr(config, key))
        file = next((part for part in (folder, *folder.parents) if part.is_file()), None)
        if file is not None:
            raise ConfigError(f"{key}={folder}: {file} is a file; name a folder, which need not be there.")


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
    """Refuse what was added with ``+`` and is no field, which would be ignored, and a list in a list of texts.

    The latter OmegaConf finds when it writes the config, after all has been computed.
    """
    owner = OmegaConf.get_type(node)
    if owner is None or not is_dataclass(owner):  # a plain dict takes any key
        return
    names = [part.name for part in fields(owner)]
    for key in map(str, node):
        if key not in names and f"{path}{key}" != "hydra":
            raise ConfigError(no_such_key(f"{path}{key}", names))
        if key not in names or OmegaConf.is_missing(node, key):
            continue
        holds_texts = is_text_list(f"{path}{key}")
        if OmegaConf.is_interpolation(node, key) and not holds_texts:
            continue  # parsing one takes a millisecond, and what it stands for is looked at where it is
        value = node[key]
        if isinstance(value, DictConfig):
            _refuse_unknown_keys(value, f"{path}{key}.")
        if not holds_texts or value is None:
            continue
        if not isinstance(value, ListConfig):  # an interpolation is not validated
            raise ConfigError(f"{path}{key}={value} is no list; it takes texts, such as {key}=[a,b].")
        if any(map(OmegaConf.is_config, value)):
            raise ConfigError(f"{path}{key} holds a list or a mapping where it takes texts: {value}.")


def _name(group: str, choice: str, part: ModelConfig | DatasetConfig, loader: CellLoader) -> str:
    """What is run: the choice, or where its path is another than its own, that path's short name."""
    default = next(one.default for one in fields(part) if one.name == "path")
    if part.path is None or part.path == (loader.written_path(group, choice) or default):
        return choice
    if part.path == loader.own_path(group, choice):
        return choice
    return short_name(part.path, taken={*loader.get_group_options(group)} - {choice})


def _test_sets(config: Config, loader: CellLoader) -> dict[str, DatasetConfig]:
    """The datasets of ``probe.test_on`` by the stem of their path or by their name.

    Raises:
        ConfigError: one is unknown or holds questions, two have one stem, or the probe cannot be tested so.
    """
    probe = config.probe
    if not isinstance(probe, TrainedProbe) or not probe.test_on:
        return {}
    if not isinstance(probe, ActivationProbe):
        raise ConfigError(
            "probe.test_on tests activation probes (logistic, mass_mean); drop it for this probe."
        )
    sets: dict[str, DatasetConfig] = {}
    for asked in probe.test_on:
        choice, path = _test_set(asked, loader)
        found = loader.load_dataset(choice, path, config.seed)
        if _is_of_questions(found):
            raise ConfigError(f"probe.test_on={asked} holds questions; name datasets of statements.")
        name = _name("dataset", choice, found, loader)
        if name in sets:
            raise ConfigError(f"probe.test_on names two datasets '{name}'; give their files different names.")
        sets[name] = found
    return sets


def _test_set(asked: str, loader: CellLoader) -> tuple[str, str]:
    """The choice and the path of ``statements``, ``statements:cities.csv`` or ``cities.csv``; empty: its own path."""
    known = loader.get_group_options("dataset")
    choice, colon, path = asked.partition(":")
    if choice in known and colon and not path:
        raise ConfigError(f"probe.test_on={asked} names no file after its colon; give {choice}:<file>.")
    if choice in known:
        return choice, path
    if is_place("dataset", asked):
        return PLACED["dataset"], asked
    statements = [name for name in known if not _is_of_questions(loader.load_dataset(name, "", 0))]
    raise ConfigError(f"probe.test_on={asked} is not known; {closest(choice, statements)}.")


def _is_of_questions(dataset: DatasetConfig) -> bool:
    """Whether it can hold nothing but questions; what a file of one's own holds is known when it is read."""
    return dataset.holds_questions and not isinstance(dataset, JsonlConfig)
