"""The command line: Hydra composes, an action acts, an error becomes a sentence and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError, ProbegridError
from probegrid.tracking.redaction import (
    hide_in_tracebacks,
    redact,
    redacted_stdout,
    redacted_traceback,
    remember,
)

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

    from probegrid.door.loader import CellLoader
    from probegrid.sweep.options import LauncherOptions


def command() -> None:
    """Entry point of the console command ``probegrid``: do as `main`, in a process that is the command's own."""
    from probegrid.hardware.threads import share_cores
    from probegrid.models.torchless import own_this_process

    share_cores()
    own_this_process()
    main()


def main() -> None:
    """Do what was typed, and exit with 0, 1 or 2 as the README says."""
    hide_in_tracebacks()
    remember(sys.argv[1:])
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in map(str.lower, sys.argv[1:])
    try:
        _answer(sys.argv[1:])
        sys.stdout.flush()
    except ProbegridError as error:
        if show_traceback:
            sys.stderr.write(redacted_traceback(error))
        sys.exit(_report(redact(str(error)), error.exit_status))
    except BrokenPipeError:  # whoever read it has seen enough; Python would say so once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt as error:  # a launcher's names the signal
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would cut the end short
        number = error.args[0] if error.args else signal.SIGINT
        sys.exit(_report("interrupted; the same command goes on from here.", 128 + number))


def _answer(words: list[str]) -> None:
    from probegrid.door.arguments import parse_arguments

    _refuse_deleted_folder()
    arguments = parse_arguments(words)
    if arguments.help:
        from probegrid.compose import register
        from probegrid.door.help import help_text
        from probegrid.plugins import are_any_outside

        if are_any_outside():  # else the files say it all, and at once
            register()
        print(help_text(arguments.config_dir))
    elif arguments.shell_completion:
        from probegrid.compose import register
        from probegrid.door.completion import complete

        register()
        complete(arguments.overrides)
    else:
        _compose_and_act(arguments)


def _refuse_deleted_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("the folder that this command runs in was deleted; cd to another one.") from error


def _compose_and_act(arguments: Namespace) -> None:
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    from probegrid.compose import register
    from probegrid.door.arguments import hydra_parser
    from probegrid.door.loader import ROOT, hydra_1_3, loader_for

    register()
    name, words = arguments.config_name or ROOT, arguments.overrides
    with hydra_1_3():
        loader = loader_for(words, arguments.config_dir)
        hydra = Hydra("probegrid", loader)
        GlobalHydra.instance().initialize(hydra)
        try:
            if arguments.cfg is not None:
                with redacted_stdout():
                    if (value := _value(hydra, name, arguments)) is not None:
                        print(value)
                    else:
                        hydra.show_cfg(name, words, arguments.cfg, arguments.package, arguments.resolve)
            elif arguments.info is not None:
                with redacted_stdout():
                    hydra.show_info(arguments.info, name, words)
            elif arguments.hydra_help:
                hydra.hydra_help(name, hydra_parser(), arguments)
            else:
                _run(hydra, loader, name, words, is_grid=arguments.multirun)
        finally:
            GlobalHydra.instance().clear()


def _value(hydra: Hydra, name: str, arguments: Namespace) -> str | None:
    """What ``--package`` names, where it is a value, which Hydra prints as Python writes it, and null not at all.

    Raises:
        ConfigError: there is no such part.
    """
    if arguments.package in (None, "_global_"):
        return None
    from hydra.types import RunMode
    from omegaconf import Container, DictConfig, OmegaConf

    from probegrid.door.mistakes import no_such_key

    whole = hydra.compose_config(name, arguments.overrides, RunMode.RUN)
    part: object = hydra.get_sanitized_cfg(whole, arguments.cfg)
    keys = arguments.package.split(".")
    for depth, key in enumerate(keys):
        names = list(map(str, part)) if isinstance(part, DictConfig) else []
        if not isinstance(part, DictConfig) or key not in part:
            raise ConfigError(no_such_key(".".join(keys[: depth + 1]), names))
        part = part.get(key)
    return None if isinstance(part, Container) else OmegaConf.to_yaml([part]).removeprefix("- ").rstrip()


def _run(hydra: Hydra, loader: CellLoader, name: str, words: list[str], *, is_grid: bool) -> None:
    """Run one cell, or a grid: where one is asked for, or a preset is one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from probegrid.compose import to_spec
    from probegrid.disk import full_disk, permission_errors
    from probegrid.door.mistakes import user_errors

    failures: list[ProbegridError] = []  # Hydra prints a line of its own about what passes through it

    def task(composed: DictConfig) -> None:
        from probegrid.actions import act_alone

        try:
            chosen = HydraConfig.get()
            spec = to_spec(composed, chosen, loader)
            act_alone(spec, tuple(chosen.overrides.task), _asked_launcher(chosen))
        except ProbegridError as error:
            failures.append(error)

    with user_errors(), full_disk("what goes below results_dir or store_dir"), permission_errors():
        if not is_grid:
            master = hydra.compose_config(name, words, RunMode.MULTIRUN, validate_sweep_overrides=False)
            is_grid = master.hydra.mode is RunMode.MULTIRUN
        if is_grid:
            hydra.multirun(name, task, [*words, "hydra.mode=MULTIRUN"])
        else:
            hydra.run(name, task, [*words, "hydra.mode=RUN"])
    for failure in failures:
        raise failure


def _asked_launcher(hydra: HydraConf) -> LauncherOptions | None:
    """The options of a launcher that a command without ``-m`` asks for; None: the cell runs in this process."""
    is_default = hydra.runtime.choices["hydra/launcher"] == "local"
    if is_default and not any("hydra.launcher." in override for override in hydra.overrides.hydra):
        return None
    from omegaconf import OmegaConf

    from probegrid.sweep.options import LauncherOptions

    options = OmegaConf.to_object(hydra.launcher) if OmegaConf.is_config(hydra.launcher) else None
    return options if isinstance(options, LauncherOptions) else None


def _report(sentence: str, status: int) -> int:
    print(f"probegrid: {sentence}", file=sys.stderr)
    return status
