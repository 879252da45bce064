"""Composes cells: Hydra's config loader, with a grammar for people and keys that apply where they can.

Hydra composes a grid's master config with the default choice of a swept group, and refuses a key that only other
choices have. Here such a key is left out of the master, and of each cell whose choices lack it.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ConfigDefault
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf

from probegrid.door import keys
from probegrid.door.mistakes import composing, missing_key, no_such_key, not_global, user_errors
from probegrid.door.overrides import in_grammar, parse, quoted, refuse_slips
from probegrid.door.places import PLACED, is_place
from probegrid.door.yaml_files import ReadOnce, file_of
from probegrid.errors import ConfigError
from probegrid.schema import Config

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


def loader_for(words: Sequence[str], config_dir: str | os.PathLike[str] | None = None) -> CellLoader:
    """The loader that composes what was typed: the shared one, but where a search path is typed, which changes it.

    Raises:
        ConfigError: there is no such folder.
    """
    if any("hydra.searchpath" in word for word in words):
        return CellLoader(search_path(config_dir))
    return shared_loader(config_dir)


def shared_loader(config_dir: str | os.PathLike[str] | None = None) -> CellLoader:
    """The loader of whoever composes cell after cell; a new one where a file or a registered class is another.

    Raises:
        ConfigError: there is no such folder.
    """
    Plugins.instance()  # registers the launchers' classes, which would else be other ones the second time
    folders = [Path(str(importlib.util.find_spec(CONFIG_MODULE).origin)).parent]  # type: ignore[union-attr]
    if config_dir is not None:
        folders.append(users_folder(config_dir))
    files = [(file, file.stat()) for folder in folders for file in sorted(folder.rglob("*.yaml"))]
    state = (
        *folders,
        *((file, status.st_mtime_ns, status.st_size, status.st_ino) for file, status in files),
        *_registered(ConfigStore.instance().repo),
    )
    if state not in _loaders:
        _loaders.clear()
        _loaders[state] = CellLoader(search_path(config_dir))
    return _loaders[state]


_loaders: dict[tuple[object, ...], CellLoader] = {}


def _registered(group: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The classes in Hydra's config store, each with its name."""
    for name, node in group.items():
        if isinstance(node, dict):
            yield from _registered(node)
        else:
            yield name, OmegaConf.get_type(node.node)


class CellLoader(ConfigLoaderImpl):
    """Hydra's config loader for probegrid's groups.

    What a list of choices comes to is composed once for all cells that share it, each of which sets its values in a
    copy: composing takes most of the time of a submission, and nearly all of it goes to the choices.
    """

    def __init__(self, path: ConfigSearchPath) -> None:
        super().__init__(path)
        self._files = ReadOnce(self.repository)
        self.repository = self._files  # type: ignore[assignment]  # all that is asked of it
        self._chosen: dict[tuple[object, ...], bytes] = {}
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
        refuse_slips(overrides, self.repository.group_exists)
        words = [in_grammar(word, grid=is_grid) for word in overrides]
        with user_errors(self.get_sources(), words):
            if validate_sweep_overrides:
                self.validate_sweep_overrides_legal([parse(word) for word in words], run_mode, from_shell)
            loaded = self._load(config_name, words, run_mode)
            if not is_grid or not self._sweeps_a_group(words, loaded.config):
                for key, owner in loaded.lacking.items():
                    raise ConfigError(no_such_key(key, keys.keys_of(owner)))
        if is_grid:  # for the sweeper, whose cells may have what the master config lacks
            loaded.config.hydra.overrides.task = [word for word in words if not _is_hydras(word)]
        return loaded.config

    def load_cell(self, master: DictConfig, overrides: Sequence[str]) -> ComposedConfig:
        """Compose a cell of a grid; keys that its choices lack are left out.

        Args:
            master: the grid's config.
            overrides: the cell's, one value each, in Hydra's grammar.

        Raises:
            ConfigError: an override or a file is wrong.
        """
        shared = [str(word) for word in master.hydra.overrides.hydra]
        words = [*shared, *overrides]
        with user_errors(self.get_sources(), words):
            loaded = self._load(master.hydra.job.config_name, words, RunMode.RUN)
            OmegaConf.copy_cache(from_config=master, to_config=loaded.config)
        return replace(loaded, overrides=tuple(word for word in loaded.overrides if word not in shared))

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
                self._datasets[words] = OmegaConf.to_object(
                    self._load(ROOT, words, RunMode.RUN).config.dataset
                )
        return copy.copy(self._datasets[words])

    def written_path(self, group: str, choice: str) -> str | None:
        """The path that a choice's file gives, as it is written; None where it gives none."""
        found = self.repository.load_config(f"{group}/{choice}")
        written = found and OmegaConf.to_container(found.config, resolve=False)
        return written.get("path") if isinstance(written, dict) else None

    def own_path(self, group: str, choice: str) -> str | None:
        """The path that a choice has by itself; None for none."""
        if (group, choice) not in self._own_paths:
            own = self._stated_path(f"{group}/{choice}")
            if own is None:
                with user_errors(self.get_sources()):
                    part = self._load(ROOT, [f"{group}={choice}"], RunMode.RUN).config[group]
                    own = MISSING if OmegaConf.is_missing(part, "path") else part.path
            self._own_paths[group, choice] = own
        path = self._own_paths[group, choice]
        return None if path == MISSING else path

    def _stated_path(self, name: str) -> str | None:
        """What a config says of its path by itself, ``???`` included; None where only composing tells."""
        found = self.repository.load_config(name)
        if found is None:
            return None
        defaults = found.defaults_list or []
        if defaults and not defaults[-1].is_self():
            return None  # what comes after it may say another
        if OmegaConf.is_missing(found.config, "path"):
            return str(MISSING)
        if "path" in found.config:
            written = OmegaConf.to_container(found.config, resolve=False)
            path = written.get("path") if isinstance(written, dict) else None
            return path if isinstance(path, str) and "${" not in path and not path.startswith("~") else None
        others = [one for one in defaults if not one.is_self()]
        if len(others) != 1 or not isinstance(others[0], ConfigDefault):
            return None
        return self._stated_path(str(others[0].path).lstrip("/"))

    def _load(self, config_name: str | None, words: Sequence[str], run_mode: RunMode) -> ComposedConfig:
        """Compose the choices, then set the values; those of keys that the choices lack are left out."""
        parts = [(word, [parse(part) for part in self._placed(word, words)]) for word in words]
        choices = [one for _, overrides in parts for one in overrides if self._is_choice(one)]
        config = self._load_choices(config_name, choices, run_mode)
        lacking: dict[str, str] = {}
        kept, applied = [], []
        for word, overrides in parts:
            try:
                for one in overrides:
                    self._set(one, config)
            except ConfigCompositionException as error:
                missing = missing_key(error)
                if missing is None or not _may_apply_elsewhere(missing[0]):
                    raise
                lacking[missing[0]] = missing[1]
            else:
                kept.append(word)
                applied += overrides
        _note(applied, config)
        _expand_home(config)
        return ComposedConfig(config, tuple(kept), lacking)

    def _load_choices(
        self, config_name: str | None, choices: Sequence[Override], run_mode: RunMode
    ) -> DictConfig:
        words = [str(one.input_line) for one in choices]
        key = (config_name, JobRuntime.instance().get("name"), *words)
        known = self._chosen.get((run_mode, *key))
        if known is not None:
            copied: DictConfig = pickle.loads(known)  # noqa: S301  # written below
            copied.hydra.runtime.cwd = os.getcwd()
            return copied
        with composing():
            config = super().load_configuration(config_name, words, run_mode, validate_sweep_overrides=False)
        self._name_preset(config)
        # a grid's master config differs where a choice is missing, which it may do without, and a cell not
        chosen = config.hydra.runtime.choices
        is_whole = not (
            self._files.names_gaps or any(OmegaConf.is_missing(chosen, group) for group in chosen)
        )
        for mode in RunMode if is_whole else [run_mode]:
            self._chosen[mode, *key] = pickle.dumps(config)
        return config

    def _name_preset(self, config: DictConfig) -> None:
        """Write down which preset was chosen, where its file does not say so.

        Raises:
            ConfigError: the values of its file are of no cell.
        """
        named = config.hydra.runtime.choices.get("experiment")
        said = OmegaConf.select(config, "experiment")
        if isinstance(said, DictConfig):
            preset = f"experiment/{named}"
            raise ConfigError(not_global(file_of(self.get_sources(), preset) or preset))
        if said is None and isinstance(named, str) and "experiment" in config:
            config.experiment = named

    def _is_choice(self, override: Override) -> bool:
        """Whether it decides which files are read, and not what is set in them."""
        is_group = self.repository.group_exists(override.key_or_group)
        return (is_group and not isinstance(override.value(), dict)) or _key(override) == "hydra.searchpath"

    def _set(self, override: Override, config: DictConfig) -> None:
        if not self._is_choice(override) and not override.is_sweep_override():
            if (above := keys.value_above(override.key_or_group)) is not None:
                raise ConfigError(
                    f"{override.input_line}: {above} has no keys, it is a value; write {above}=<value>."
                )
            name = str(override.value()).lower()
            if isinstance(override.value(), bool) and name in keys.enum_names(override.key_or_group):
                key = str(override.input_line).partition("=")[0]
                override = parse(f"{key}={quoted(name)}")  # probe.away=false: Hydra takes it for no name
            _begin(override, config)
            with composing():
                self._apply_overrides_to_config([override], config)

    def _placed(self, word: str, words: Sequence[str]) -> Iterator[str]:
        """An override; where it has a path or a hub id for a name, the choice that reads it, and the path."""
        group = word.partition("=")[0]
        value = parse(word).value() if group in PLACED else None
        if not isinstance(value, str) or not self._is_place(group, value):
            yield word
            return
        if given := next((other for other in words if other.startswith(f"{group}.path=")), None):
            raise ConfigError(f"{word} and {given} both say where the {group} is; give one of them.")
        yield f"{group}={PLACED[group]}"
        yield f"{group}.path={quoted(value)}"

    def _is_place(self, group: str, value: str) -> bool:
        is_choice = not value.startswith((".", "/", "~")) and self.repository.config_exists(
            f"{group}/{value}"
        )
        return is_place(group, value) and not is_choice

    def _sweeps_a_group(self, words: Sequence[str], master: DictConfig) -> bool:
        """Whether cells of the grid can differ in the keys they have."""
        swept = [parse(word).key_or_group for word in words if parse(word).is_sweep_override()]
        preset = OmegaConf.select(master, "hydra.sweeper.params") or ()
        return any(self.repository.group_exists(key) for key in (*swept, *map(str, preset)))


def _begin(override: Override, config: DictConfig) -> None:
    """Begin a part that is null, ``model.architecture``, where its keys are typed: OmegaConf adds none to null."""
    key = override.key_or_group
    parts = [key] if isinstance(override.value(), dict) else []
    for part in (*parts, key.rpartition(".")[0]):
        owner = keys.dataclass_of(part)
        group, _, name = part.rpartition(".")
        holder = OmegaConf.select(config, group) if owner else None
        if isinstance(holder, DictConfig) and name in holder and holder[name] is None:
            holder[name] = OmegaConf.structured(owner)


def _key(override: Override) -> str:
    return str(override.get_key_element())


def _is_hydras(word: str) -> bool:
    return parse(word).is_hydra_override()


def _may_apply_elsewhere(key: str) -> bool:
    """Whether other choices of the key's group may have it."""
    return key.partition(".")[0] in keys.GROUPS and keys.is_known(key)


def _note(overrides: Sequence[Override], config: DictConfig) -> None:
    """Write down what was typed, where Hydra does."""
    ours = [one for one in overrides if not one.is_hydra_override()]
    config.hydra.overrides.hydra = [one.input_line for one in overrides if one.is_hydra_override()]
    config.hydra.overrides.task = [one.input_line for one in ours]
    named = config.hydra.job.config.override_dirname
    config.hydra.job.override_dirname = get_overrides_dirname(
        ours, named.exclude_keys, item_sep=named.item_sep, kv_sep=named.kv_sep
    )


def _expand_home(config: DictConfig) -> None:
    """Write the home folder for ``~`` in every key that may name a file, folders of the environment included."""
    folders = (
        ("store_dir", "results_dir") if "store_dir" in config else ()
    )  # --hydra-help composes Hydra's alone
    for key in folders:
        if OmegaConf.is_interpolation(config, key) and config[key][:1] in ("", "~"):
            config[key] = config[key] or getattr(Config, key)  # an empty variable is none
        elif config[key] == "":  # the working folder itself would be filled
            raise ConfigError(f"{key}= names no folder; give one, or leave it out: {getattr(Config, key)}.")
    for key in keys.PATHS:
        group, _, name = key.rpartition(".")
        part = OmegaConf.select(config, group) if group else config
        if not isinstance(part, DictConfig) or name not in part or OmegaConf.is_interpolation(part, name):
            continue
        value = part[name]
        if isinstance(value, str) and value.startswith("~"):
            part[name] = os.path.expanduser(value)
            if part[name].startswith("~"):
                raise ConfigError(
                    f"{key}={value} is in no user's home folder; ./{value} is a file called so."
                )
