"""The command line: Hydra composes, an action acts, an error becomes a sentence and an exit status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from probegrid.compose import CONFIG_MODULE, register, spell_out, to_spec, user_errors
from probegrid.disk import full_disk
from probegrid.errors import ProbegridError

if TYPE_CHECKING:
    from hydra.conf import HydraConf

    from probegrid.sweep.options import LauncherOptions


def main() -> None:
    """Entry point of the console command ``probegrid``; exits with 0, 1 or 2 as the README says."""
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in map(str.lower, sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra's errors reach us instead of being printed and swallowed
    register()
    sys.argv[1:] = spell_out(sys.argv[1:])
    try:
        _compose_and_act()
    except ProbegridError as error:
        if show_traceback:
            traceback.print_exc()
        sys.exit(_report(str(error), error.exit_status))
    except KeyboardInterrupt as error:  # a launcher's names the signal
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would cut the end short
        number = error.args[0] if error.args else signal.SIGINT
        sys.exit(_report("interrupted; the same command goes on from here.", 128 + number))


def _compose_and_act() -> None:
    failures: list[
        ProbegridError
    ] = []  # Hydra would print a line of its own about an exception that passes through it

    def task(composed: DictConfig) -> None:
        from probegrid.actions import act_alone

        try:
            chosen = HydraConfig.get()
            act_alone(to_spec(composed, chosen), tuple(chosen.overrides.task), _asked_launcher(chosen))
        except ProbegridError as error:
            failures.append(error)

    with user_errors(), full_disk("what goes below results_dir or store_dir"):
        hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(task)()
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
