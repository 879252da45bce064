"""The command line: Hydra composes, an action acts, an error becomes a sentence and an exit status."""

from __future__ import annotations

import os
import sys
import traceback

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from probegrid.compose import CONFIG_MODULE, register, spell_out, to_spec, user_errors
from probegrid.disk import full_disk
from probegrid.errors import ProbegridError


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
    except KeyboardInterrupt:
        sys.exit(_report("interrupted; the same command goes on from here.", 130))


def _compose_and_act() -> None:
    failures: list[
        ProbegridError
    ] = []  # Hydra would print a line of its own about an exception that passes through it

    def task(composed: DictConfig) -> None:
        from probegrid.actions import act

        try:
            act(to_spec(composed, HydraConfig.get()))
        except ProbegridError as error:
            failures.append(error)

    with user_errors(), full_disk("what goes below results_dir or store_dir"):
        hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(task)()
    for failure in failures:
        raise failure


def _report(sentence: str, status: int) -> int:
    print(f"probegrid: {sentence}", file=sys.stderr)
    return status
