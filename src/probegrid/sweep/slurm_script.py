"""What a batch script says: the options of sbatch for a job, and the user's setup, of which a failing line ends it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probegrid.errors import ConfigError, closest
from probegrid.sweep import slurm_queue
from probegrid.sweep.lanes import joined
from probegrid.sweep.options import SAID_BY, SlurmOptions, refuse_control_characters
from probegrid.sweep.scheduler import JobRequest

_GUARD = """\
rm -f {file}
probegrid_end() {{
  trap - ERR EXIT
  printf '%s\\n' "SetupFailed: $2; mend hydra.launcher.setup." > {file}.tmp && mv {file}.tmp {file}
  echo "probegrid: $2" >&2
  exit $(( $1 ? $1 : 1 ))
}}
trap 'probegrid_status=$? probegrid_line=$LINENO; (( ${{#BASH_SOURCE[@]}} > 1 )) || probegrid_end $probegrid_status \
"\\`$(sed -n "${{probegrid_line}}s/^[[:space:]]*//p" "$0")\\` failed with exit status $probegrid_status"' ERR
trap 'probegrid_status=$?; probegrid_end $probegrid_status \
"the setup ended the job with exit status $probegrid_status"' EXIT"""
"""The ERR trap goes off where ``set -e`` would end a shell, but not for what a sourced file copes with itself. The
line is read from the script: bash's own word for it names the last command in a function, as ``module`` is one."""

_UNGUARD = """\
case "$(trap -p EXIT)" in *probegrid_end*) trap - EXIT;; esac
trap - ERR"""


def parameters(
    options: SlurmOptions, request: JobRequest, place: Path, *, at_once: int | None, after: str | None
) -> dict[str, Any]:
    """What submitit is to write into the script of a job, or of an array of such jobs.

    Args:
        options: the launcher's.
        request: the job, or the first of the array.
        place: folder of the submission.
        at_once: tasks of the array that run at once; None: all.
        after: id of the job whose end it waits for, if any.
    """
    values = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        **_asked(options, request),
    }
    given = {name: value for name, value in options.extra.items() if value is not None and value is not False}
    if dependency := joined(str(given.pop("dependency", "")), after):
        given["dependency"] = dependency
    values |= dict.fromkeys(options.extra)
    cpus = given.get("cpus_per_task", values.get("cpus_per_task"))
    own = {
        "ntasks_per_node": 1,
        "signal_delay_s": options.signal_delay_s,
        "stderr_to_stdout": True,
        "array_parallelism": at_once,
        "setup": guarded(options.setup, place) if options.setup else None,
        # srun does not inherit sbatch's CPUs since SLURM 22.05, and on a whole node starts a task a CPU
        "srun_args": ["--ntasks=1", *([f"--cpus-per-task={cpus}"] if cpus else []), *options.srun_args],
        "additional_parameters": given or None,
    }
    set_values = {name: value for name, value in (values | own).items() if value is not None}
    left_out = dict.fromkeys(name for name in ("job_name", "time", "wckey") if name not in set_values)
    return left_out | set_values


def _asked(options: SlurmOptions, request: JobRequest) -> dict[str, Any]:
    """What a plan asks for, but for what the user says in other words."""
    asked = request.resources
    memory = None if asked.mem_gb is None else f"{round(asked.mem_gb * 1000)}M"
    values = {
        "gpus": asked.gpus or None,
        "cpus": asked.cpus,
        "mem_gb": memory,
        "timeout_min": asked.timeout_min,
    }
    name = {"job_name": f"probegrid-{request.name}"}
    return name | {
        SAID_BY[resource][0]: value for resource, value in values.items() if not options.says(resource)
    }


def guarded(setup: Sequence[str], place: Path) -> list[str]:
    """The user's lines, of which the first that fails ends the job and leaves its name in the job's ``end`` file."""
    job = "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
    file = f'{shlex.quote(str(place.resolve()))}/"{job}.end.txt"'
    return [_GUARD.format(file=file), *setup, _UNGUARD]


def check_options(options: SlurmOptions) -> None:
    """Refuse what this cluster would refuse, before a cell is looked at.

    Raises:
        ConfigError: SLURM is missing or does not answer, a partition or an option of sbatch is unknown, or the setup
            is no bash.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "hydra/launcher=slurm needs sbatch, which is not on this machine; "
            "run on a login node, or use hydra/launcher=local."
        )
    known = set(re.findall(r"--([a-z][a-z-]+)", slurm_queue.run("sbatch", "--help") or ""))
    for name in options.extra:
        if known and name.replace("_", "-") not in known:
            raise ConfigError(
                f"hydra.launcher.extra.{name} is no option of sbatch; {closest(name, sorted(known))}."
            )
    listed = slurm_queue.run("sinfo", "--noheader", "--format=%R")
    if listed is None:
        raise ConfigError("SLURM does not answer (sinfo fails); check SLURM_CONF and that slurmctld runs.")
    partitions = sorted(set(listed.split()))
    for partition in filter(None, (options.partition or "").split(",")):
        if partition not in partitions:
            raise ConfigError(
                f"hydra.launcher.partition={partition} is not one of this cluster's; "
                f"{closest(partition, partitions)}."
            )
    _check_setup(options.setup)


def check_names(place: Path, names: Sequence[str]) -> None:
    """Refuse a folder, or names of jobs, that would not stay on their line of a script.

    Raises:
        ConfigError: one holds a line end or another control character.
    """
    refuse_control_characters("results_dir", str(place.resolve()))
    for name in names:
        refuse_control_characters("a job's name, of the choices of its groups,", name)


def _check_setup(setup: Sequence[str]) -> None:
    parsed = subprocess.run(
        ["bash", "-n"], input="\n".join(setup), capture_output=True, text=True, check=False
    )
    if parsed.returncode:
        said = parsed.stderr.strip().partition("\n")[0].removeprefix("bash: ")
        raise ConfigError(f"hydra.launcher.setup does not parse as bash: {said}.")
