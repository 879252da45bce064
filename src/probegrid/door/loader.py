"""Composes cells: Hydra's config loader, with a grammar for people and keys that apply where they can.

Hydra composes a grid's master config with the default choice of a swept group, and refuses a key that only other
choices have. Here such a key is left out of the master, and of each cell whose choices lack it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from probegrid.door import keys
from probegrid.door.mistakes import missing_key, no_such_key, user_errors
from probegrid.door.overrides import in_grammar, parse, quoted, refuse_repeated
from probegrid.door.places import PLACED, is_place
from probegrid.door.yaml_files import ReadOnce
from probegrid.errors import ConfigError

CONFIG_MODULE = "probegrid.conf"
ROOT = "config"
"""The config that all others are groups of."""


@dataclass(frozen=True)
class ComposedConfig:
    """What a list of overrides came to."""

    config: DictConfig
    """With Hydra's own part, ``hydra``."""
    overrides: tuple[str, ...]
    """Those that applied."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Keys of the others, which its choices lack, each with the dataclass that it is not in."""


def search_path(config_dir: str | os.PathLike[str] | None = None) -> ConfigSearchPath:
    """Where YAML files are looked for: probegrid's own groups, and before them a folder of the user's.

    Raises:
        ConfigError: there is no such folder.
    """
    path = create_config_search_path(f"pkg://{CONFIG_MODULE}")
    if config_dir is not None:
        folder = users_folder(config_dir)
        path.prepend("command-line", f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    return path


def users_folder(config_dir: str | os.PathLike[str]) -> Path:
    """The folder of the user's own groups.

    Raises:
        ConfigError: there is none.
    """
    folder = Path(config_dir).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {config_dir} is no folder; give the one that holds your groups.")
    return folder


@contextmanager
def hydra_1_3() -> Iterator[None]:
    """Compose as Hydra 1.3 does, whatever a program around us has asked of it, and leave that as it was."""
    base = version.VersionBase.instance()
    before = base.getbase()
    version.setbase("1.3")
    setup_globals()
    try:
        yield
    finally:
        base.version_base = before


class CellLoader(ConfigLoaderImpl):
    """Hydra's config loader for probegrid's groups."""

    def __init__(self, path: ConfigSearchPath) -> None:
        super().__init__(path)
        self.repository = ReadOnce(self.repository)  # type: ignore[assignment]  # all that is asked of it
        self._lacking: dict[tuple[str, ...], dict[str, str]] = {}
        self._datasets: dict[tuple[str, ...], Any] = {}
        self._own_paths: dict[tuple[str, str], str | None] = {}

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose one cell, or the master config of a grid.

        Raises:
            ConfigError: an override or a file is wrong.
        """
        is_grid = run_mode is RunMode.MULTIRUN
        words = [in_grammar(word, grid=is_grid) for word in overrides]
        refuse_repeated(overrides, self.repository.group_exists)
        with user_errors(self.get_sources()):
            if not is_grid:
                return self._load(config_name, words, run_mode, validate_sweep_overrides)
            master = self._load_what_applies(config_name, words, run_mode, validate_sweep_overrides)
            if not self._sweeps_a_group(words, master.config):
                for key, owner in master.lacking.items():
                    raise ConfigError(no_such_key(key, keys.fields_of(owner)))
            master.config.hydra.overrides.task = [word for word in words if not _is_hydras(word)]
            return master.config

    def load_cell(self, master: DictConfig, overrides: Sequence[str]) -> ComposedConfig:
        """Compose a cell of a grid; keys that its choices lack are left out.

        Args:
            master: the grid's config.
            overrides: the cell's, one value each, in Hydra's grammar.

        Raises:
            ConfigError: an override or a file is wrong.
        """
        shared = OmegaConf.to_container(master.hydra.overrides.hydra)
        assert isinstance(shared, list)
        with user_errors(self.get_sources()):
            words = [*map(str, shared), *overrides]
            loaded = self._load_what_applies(master.hydra.job.config_name, words, RunMode.RUN, True)
            OmegaConf.copy_cache(from_config=master, to_config=loaded.config)
        kept = tuple(word for word in loaded.overrides if word not in shared)
        return ComposedConfig(loaded.config, kept, loaded.lacking)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose a cell for whoever needs Hydra's config alone."""
        return self.load_cell(master_config, sweep_overrides).config

    def load_dataset(self, choice: str, path: str, seed: int) -> Any:
        """The typed config of a dataset by its choice, its path (empty: its own) and the base seed.

        Raises:
            ConfigError: its file, or a value of it, is wrong.
        """
        words = (f"dataset={choice}", f"seed={seed}", *([f"dataset.path={quoted(path)}"] if path else []))
        with user_errors(self.get_sources()):
            if words not in self._datasets:
                self._datasets[words] = OmegaConf.to_object(self._load(ROOT, words, RunMode.RUN).dataset)
        return copy.copy(self._datasets[words])

    def written_path(self, group: str, choice: str) -> str | None:
        """The path that a choice's file gives, as it is written; None where it gives none."""
        found = self.repository.load_config(f"{group}/{choice}")
        written = found and OmegaConf.to_container(found.config, resolve=False)
        return written.get("path") if isinstance(written, dict) else None

    def own_path(self, group: str, choice: str) -> str | None:
        """The path that a choice has by itself; None for none."""
        if (group, choice) not in self._own_paths:
            with user_errors(self.get_sources()):
                part = self._load(ROOT, [f"{group}={choice}"], RunMode.RUN)[group]
                own = None if OmegaConf.is_missing(part, "path") else part.path
            self._own_paths[group, choice] = own
        return self._own_paths[group, choice]

    def _load_what_applies(
        self, config_name: str | None, words: Sequence[str], run_mode: RunMode, validate: bool
    ) -> ComposedConfig:
        choices = tuple(word for word in words if self.repository.group_exists(_key(word)))
        lacking = dict(self._lacking.get(choices, {}))  # the same choices lack the same keys
        while True:
            kept = [word for word in words if _key(word) not in lacking]
            try:
                config = self._load(config_name, kept, run_mode, validate)
            except ConfigCompositionException as error:
                missing = missing_key(error)
                if missing is None or missing[0] in lacking or not _may_apply_elsewhere(missing[0]):
                    raise
                lacking[missing[0]] = missing[1]
            else:
                self._lacking[choices] = lacking
                typed = {_key(word) for word in words}
                return ComposedConfig(
                    config, tuple(kept), {key: owner for key, owner in lacking.items() if key in typed}
                )

    def _load(
        self, config_name: str | None, words: Sequence[str], run_mode: RunMode, validate: bool = True
    ) -> DictConfig:
        placed = [part for word in words for part in self._placed(word, words)]
        composed = super().load_configuration(
            config_name, placed, run_mode, validate_sweep_overrides=validate
        )
        _expand_home(composed)
        return composed

    def _placed(self, word: str, words: Sequence[str]) -> Iterator[str]:
        """An override; where it has a path or a hub id for a name, the choice that reads it, and the path."""
        group = _key(word)
        value = parse(word).value() if group in PLACED else None
        if not isinstance(value, str) or not self._is_place(group, value):
            yield word
            return
        if given := next((other for other in words if _key(other) == f"{group}.path"), None):
            raise ConfigError(f"{word} and {given} both say where the {group} is; give one of them.")
        yield f"{group}={PLACED[group]}"
        yield f"{group}.path={quoted(value)}"

    def _is_place(self, group: str, value: str) -> bool:
        is_choice = not value.startswith((".", "/", "~")) and self.repository.config_exists(f"{group}/{value}")
        return is_place(group, value) and not is_choice

    def _sweeps_a_group(self, words: Sequence[str], master: DictConfig) -> bool:
        """Whether cells of the grid can differ in the keys they have."""
        swept = [_key(word) for word in words if parse(word).is_sweep_override()]
        preset = OmegaConf.select(master, "hydra.sweeper.params") or ()
        return any(self.repository.group_exists(key) for key in (*swept, *map(str, preset)))

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        """As Hydra's own, but words that many cells share are parsed once."""
        parsed = [parse(word) for word in overrides]
        repository = CachingConfigRepository(self.repository)
        self._process_config_searchpath(config_name, parsed, repository)
        return parsed, repository


def _key(word: str) -> str:
    return word.partition("=")[0]


def _is_hydras(word: str) -> bool:
    return _key(word).lstrip("+~").startswith(("hydra.", "hydra/"))


def _may_apply_elsewhere(key: str) -> bool:
    """Whether other choices of the key's group may have it."""
    return key.partition(".")[0] in keys.GROUPS and keys.is_known(key)


def _expand_home(config: DictConfig) -> None:
    """Write the home folder for ``~`` in every key that may name a file."""
    for key in keys.PATHS:
        group, _, name = key.rpartition(".")
        part = OmegaConf.select(config, group) if group else config
        if not isinstance(part, DictConfig) or name not in part or OmegaConf.is_interpolation(part, name):
            continue
        value = part[name]
        if isinstance(value, str) and value.startswith("~"):
            part[name] = os.path.expanduser(value)
