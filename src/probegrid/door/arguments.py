"""The command line: flags wherever they stand between overrides.

Hydra's own parser takes them before or after all overrides only, and prints its usage where a flag is unknown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from probegrid.errors import ConfigError, closest

_NOT_OURS = {
    "experimental_rerun": "the same command again goes on where it stopped",
    "config_path": "it would take the place of all groups; add yours with --config-dir FOLDER",
}
_COMMANDS = ("run", "multirun", "cfg", "shell_completion", "info")


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags, and the ``overrides`` among them; ``--version`` ends the program.

    Raises:
        ConfigError: a flag is unknown, lacks its value, or says something else than another one.
    """
    arguments = hydra_parser().parse_intermixed_args(list(words))
    for name, instead in _NOT_OURS.items():
        if getattr(arguments, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is not for probegrid: {instead}.")
    asked = [name for name in _COMMANDS if getattr(arguments, name)]
    if len(asked) > 1:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise ConfigError(f"{flags} exclude each other; give one of them.")
    for flag, is_given in (("--resolve", arguments.resolve), ("--package", arguments.package is not None)):
        if is_given and arguments.cfg is None:
            raise ConfigError(f"{flag} goes with --cfg; give both.")
    return arguments


def words_of(overrides: Sequence[str]) -> list[str]:
    """What was handed to a function of Python's as overrides, each word a text.

    Raises:
        ConfigError: it is no list of texts, or a flag of the command is among them.
    """
    if isinstance(overrides, str):
        raise ConfigError(
            f"the overrides are one text, {overrides!r}; give a list of them: {overrides.split()}."
        )
    words = list(overrides) if isinstance(overrides, Sequence) else []
    if not isinstance(overrides, Sequence) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f'{overrides!r} is no list of overrides; give texts: ["model=tiny", "seed=1"].')
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("-") and flag in _flags():
            raise ConfigError(f"{word} is a flag of the command; {_IN_PYTHON.get(flag, 'leave it out')}.")
    return words


_IN_PYTHON = {
    **dict.fromkeys(("-m", "--multirun"), "call probegrid.sweep without it"),
    **dict.fromkeys(("-cd", "--config-dir"), "give config_dir=FOLDER beside the overrides"),
}
"""What stands in a flag's place where a function is called."""


def _flags() -> set[str]:
    return {string for action in hydra_parser()._actions for string in action.option_strings}


def hydra_parser() -> argparse.ArgumentParser:
    """Hydra's parser with probegrid's own version; what it refuses, it refuses in one sentence."""
    parser: argparse.ArgumentParser = get_args_parser()
    for action in parser._actions:  # argparse offers no other way to them
        if "--version" in action.option_strings:
            action.version = f"probegrid {version('probegrid')}"  # type: ignore[attr-defined]
    offered = [action.option_strings for action in parser._actions if action.dest not in _NOT_OURS]
    flags = [flag for strings in offered for flag in strings if flag.startswith("--")]

    def refuse(message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            raise ConfigError(f"{unknown} is no flag; {closest(unknown, flags)}.")
        raise ConfigError(f"{message}; `probegrid --help` shows how.")

    parser.error = refuse  # type: ignore[method-assign]  # Hydra makes the parser, of argparse's own class
    return parser
