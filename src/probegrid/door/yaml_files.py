"""The YAML files of the groups: which one a config comes from, on which line, and what is wrong with one.

Each file is read once for all cells.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import yaml
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.default_element import ConfigDefault, InputDefault
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import MISSING, DictConfig

from probegrid.errors import ConfigError


class ReadOnce(CachingConfigRepository):
    """Reads each YAML file once for all cells, not once a cell; composing takes half the time.

    Hydra's own caching repository lives for one cell, which writes into what it is given: here it gets a copy.
    """

    names_gaps = False
    """Whether a defaults list names ``???`` where no choice can fill it."""

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A copy of what the file says.

        Raises:
            ConfigError: it is no YAML, or not laid out as Hydra's are.
        """
        try:
            found = super().load_config(config_path)
        except (yaml.YAMLError, ValueError, OSError) as error:
            raise ConfigError(_unreadable(self._name(config_path), error)) from error
        if found is not None and not isinstance(found.config, DictConfig):
            raise ConfigError(
                f"{self._name(config_path)} holds no keys with values; write `key: value` lines."
            )
        if found is None:
            return None
        if config_path not in self._kept:
            # read back in a fifth of the time that a deep copy takes
            self._kept[config_path] = pickle.dumps(found.config)
            self.names_gaps |= any(_is_gap(default) for default in found.defaults_list or ())
        return replace(found, config=pickle.loads(self._kept[config_path]))  # noqa: S301  # written here

    @functools.cached_property
    def _kept(self) -> dict[str, bytes]:
        return {}

    def _name(self, config_path: str) -> str:
        return str(file_of(self.get_sources(), config_path) or config_path)


def _is_gap(default: InputDefault) -> bool:
    return isinstance(default, ConfigDefault) and default.path == MISSING


def file_of(sources: Sequence[ConfigSource], config_path: str) -> Path | None:
    """The file that Hydra reads for a config, ``model/mine``; None where it is none of a folder."""
    for source in sources:
        if source.is_config(config_path):
            if source.scheme() != "file":
                return None
            return _shown(Path(source.path) / f"{config_path.removesuffix('.yaml')}.yaml")
    return None


def place_of(sources: Sequence[ConfigSource], config_path: str, what: str) -> str | None:
    """File and line of a key, or of a name in a defaults list; None where the config is of no folder."""
    file = file_of(sources, config_path)
    if file is None:
        return None
    line = _line(file, what)
    return str(file) if line is None else f"{file}, line {line}"


def _shown(file: Path) -> Path:
    here = Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def _line(file: Path, what: str) -> int | None:
    """The line of a key by its full name in the config, of which the file may hold the end; or of a value."""
    root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    keys = [part.partition("[")[0] for part in what.split(".")]
    for start in range(len(keys)):
        if (node := _find(root, keys[start:])) is not None:
            return int(node.start_mark.line) + 1
    named = (node for node in _scalars(root) if what in re.split(r"[/@\s]", node.value))
    return next((int(node.start_mark.line) + 1 for node in named), None)


def _find(node: yaml.Node | None, keys: Sequence[str]) -> yaml.Node | None:
    """The node of the last of some nested keys."""
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == keys[0]:
            return key if len(keys) == 1 else _find(value, keys[1:])
    return None


def _scalars(node: yaml.Node | None) -> list[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        return [node]
    if isinstance(node, yaml.MappingNode):
        return [found for pair in node.value for one in pair for found in _scalars(one)]
    if isinstance(node, yaml.SequenceNode):
        return [found for one in node.value for found in _scalars(one)]
    return []


def _unreadable(file: str, error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = " ".join(filter(None, (error.context, error.problem)))
        return f"{file}, line {error.problem_mark.line + 1}: no YAML: {what}."
    if isinstance(error, UnicodeDecodeError):
        return f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8."
    if isinstance(error, OSError) and error.strerror:
        return f"{file} cannot be read: {error.strerror}."
    return f"{file}: {str(error).splitlines()[0].rstrip('.')}."
