"""Shell completion: Hydra's own, which is offered every value of an enum, and the groups of ``--config-dir``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from probegrid.door.arguments import parse_arguments
from probegrid.door.keys import enum_names
from probegrid.door.loader import ROOT, CellLoader, hydra_1_3, search_path
from probegrid.door.mistakes import user_errors
from probegrid.errors import ConfigError, UserError


def complete(commands: Sequence[str]) -> None:
    """Print what ``-sc install=bash`` (or ``uninstall``, or ``query``) asks for.

    Raises:
        ConfigError: it asks for none of these, or for a shell that is not known.
    """
    config_dir = None
    if any(command.startswith("query=") for command in commands):
        try:
            config_dir = _flags_first()
        except UserError:  # a flag that is being typed: there is nothing to offer
            return
    with hydra_1_3(), user_errors():
        try:
            hydra = Hydra("probegrid", CompletionLoader(search_path(config_dir)))
            hydra.shell_completion(ROOT, list(commands))
        except RuntimeError as error:  # by hand, without the line that a shell would hand over
            raise ConfigError("-sc query=SHELL is for shells to ask; write -sc install=bash.") from error
        except ValueError as error:
            raise ConfigError(f"{' '.join(str(error).split())}; write -sc install=bash.") from error


def _flags_first() -> str | None:
    """Put the flags of the line that is completed where Hydra's parser takes them; return its ``--config-dir``."""
    program, _, typed = os.environ.get("COMP_LINE", "").partition(" ")
    arguments = parse_arguments(typed.split())
    flags = ["-m"] if arguments.multirun else []
    ending = " " if typed.endswith(" ") or not arguments.overrides else ""
    os.environ["COMP_LINE"] = " ".join([program, *flags, *arguments.overrides]) + ending
    return arguments.config_dir if arguments.config_dir and os.path.isdir(arguments.config_dir) else None


class CompletionLoader(CellLoader):
    """Composes what is typed so far; an enum's value is its name."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """The config as plain values; Hydra's own exception, which completion survives, where something is wrong."""
        try:
            composed = super().load_configuration(config_name, overrides, run_mode)
        except UserError as error:
            raise ConfigCompositionException(str(error)) from error
        plain = OmegaConf.create(OmegaConf.to_container(composed, enum_to_str=True))
        assert isinstance(plain, DictConfig)
        return plain

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """The choices of a group, or the values of a key that is an enum; no group that nobody chooses from."""
        if results_filter is ObjectType.CONFIG and (names := enum_names(group_name)):
            return names
        found: list[str] = super().get_group_options(group_name, results_filter)
        hidden = (
            "basic" if group_name == "hydra/launcher" else "schema"
        )  # the former is Hydra's own: it runs no grid
        return [name for name in found if name != hidden]
