"""The jobs on a SLURM cluster, submitted through submitit; their states from squeue and sacct.

submitit writes the batch script, pickles the job and requeues it on SIGUSR2 (preemption, time limit). Its results
and its polling are not used: how cells end is on disk, written by their workers.
"""

from __future__ import annotations

import getpass
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from probegrid.disk import full_disk
from probegrid.errors import ConfigError, closest
from probegrid.schema import Resources
from probegrid.sweep.options import SlurmOptions
from probegrid.sweep.pack_job import PackJob
from probegrid.sweep.scheduler import JobPhase, JobRequest, JobState
from probegrid.tracking.sweep_folder import Job, Submission, SweepFolder

_COMMAND_TIMEOUT_S = 60
_QUEUED = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_RUNNING = {
    "RUNNING",
    "COMPLETING",
    "CONFIGURING",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
}
_MEANT = {"COMPLETED", "CANCELLED"}
"""Endings somebody wanted; after any other what is left may be submitted again."""


class SlurmScheduler:
    """Runs jobs on a SLURM cluster."""

    name = "slurm"

    def __init__(self, options: SlurmOptions | None = None) -> None:
        """Take the options of submitting; None where jobs are only looked at."""
        self._options = options or SlurmOptions()

    def submit(self, folder: SweepFolder, packs: Sequence[Sequence[JobRequest]]) -> Submission:
        """Submit each pack as a job, or as an array where it has several."""
        number = folder.next_submission()
        jobs: list[Job] = []
        lanes = min(len(packs), self._options.max_parallel or len(packs))
        last_in_lane: dict[int, str] = {}
        try:
            for index, requests in enumerate(packs):
                after = last_in_lane.get(index % lanes)
                submitted = self._submit_pack(folder, number, requests, lanes, after)
                last_in_lane[index % lanes] = submitted[0].id.partition("_")[0]
                jobs += submitted
        except BaseException:  # refused, or interrupted: nobody would know of these jobs
            _scancel([job.id for job in jobs])
            raise
        submission = Submission(number, self.name, socket.gethostname(), tuple(jobs))
        folder.write_submission(submission)
        return submission

    def states(self, folder: SweepFolder, submission: Submission) -> dict[str, JobState]:
        """Where each job is, by squeue and, for those it forgot, by sacct."""
        queue = _run("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r")
        if queue is None:
            return {}
        listed = _table(queue)
        forgotten = [job.id for job in submission.jobs if job.id not in listed]
        if forgotten:
            listed |= _accounted(forgotten)
        lost = ("GONE", "SLURM no longer knows it")
        return {job.id: _state(*listed.get(job.id, lost)) for job in submission.jobs}

    def cancel(self, folder: SweepFolder, submission: Submission) -> None:
        """Cancel the jobs that have not ended."""
        _scancel([job.id for job in submission.jobs])

    def _submit_pack(
        self,
        folder: SweepFolder,
        number: int,
        requests: Sequence[JobRequest],
        lanes: int,
        after: str | None,
    ) -> list[Job]:
        import submitit

        options, place = self._options, folder.submission_dir(number)
        executor = submitit.SlurmExecutor(
            folder=place, max_num_timeout=options.max_timeouts, python=options.python
        )
        executor.update_parameters(**self._parameters(requests[0], lanes, after))
        calls = [PackJob(str(folder.results_dir), folder.id, number, request.cells) for request in requests]
        try:
            with full_disk(place), executor.batch():
                submitted = [executor.submit(call) for call in calls]
            ids = [job.job_id for job in submitted]
        except submitit.core.utils.FailedJobError as error:
            raise ConfigError(_refusal(str(error))) from error
        return [
            Job(job_id, request.name, request.cells, request.resources, str(place / f"{job_id}_0_log.out"))
            for job_id, request in zip(ids, requests, strict=True)
        ]

    def _parameters(self, request: JobRequest, lanes: int, after: str | None) -> dict[str, Any]:
        options, asked = self._options, request.resources
        values = {
            "job_name": f"probegrid-{request.name}",
            "partition": options.partition,
            "account": options.account,
            "qos": options.qos,
            "constraint": options.constraint,
            "setup": options.setup or None,
            "additional_parameters": options.extra or None,
            "signal_delay_s": options.signal_delay_s,
            "stderr_to_stdout": True,
            "dependency": f"afterany:{after}" if after else None,
            "array_parallelism": max(1, options.max_parallel // lanes) if options.max_parallel else None,
            # srun does not inherit sbatch's CPUs since SLURM 22.05, and on a whole node starts a task a CPU
            "srun_args": ["--ntasks=1", f"--cpus-per-task={asked.cpus}", *options.srun_args],
            **_asked(asked),
        }
        return {name: value for name, value in values.items() if value is not None}


def check_options(options: SlurmOptions) -> None:
    """Refuse what this cluster would refuse, before a cell is looked at.

    Raises:
        ConfigError: SLURM is missing or does not answer, or a partition or an option of sbatch is unknown.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "hydra/launcher=slurm needs sbatch, which is not on this machine; "
            "run on a login node, or use hydra/launcher=local."
        )
    known = set(re.findall(r"--([a-z][a-z-]+)", _run("sbatch", "--help") or ""))
    for name in options.extra:
        if known and name.replace("_", "-") not in known:
            raise ConfigError(
                f"hydra.launcher.extra.{name} is no option of sbatch; {closest(name, sorted(known))}."
            )
    listed = _run("sinfo", "--noheader", "--format=%R")
    if listed is None:
        raise ConfigError("SLURM does not answer (sinfo fails); check SLURM_CONF and that slurmctld runs.")
    partitions = sorted(set(listed.split()))
    for partition in filter(None, (options.partition or "").split(",")):
        if partition not in partitions:
            raise ConfigError(
                f"hydra.launcher.partition={partition} is not one of this cluster's; "
                f"{closest(partition, partitions)}."
            )


def _asked(resources: Resources) -> dict[str, Any]:
    return {
        "gpus_per_node": resources.gpus or None,
        "cpus_per_task": resources.cpus,
        "ntasks_per_node": 1,
        "mem": f"{round((resources.mem_gb or 0) * 1000)}M",
        "time": resources.timeout_min,
    }


def _refusal(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if "error:" in line]
    said = "; ".join(line.partition("error:")[2].strip() for line in lines) or stderr.strip()
    return f"SLURM refuses a job: {said}. Mend it in the hydra.launcher.* options or model.resources.*."


def _state(state: str, reason: str) -> JobState:
    if state in _QUEUED:
        return JobState(JobPhase.queued, reason)
    if state in _RUNNING:
        return JobState(JobPhase.running)
    return JobState(
        JobPhase.ended, state if reason in ("", "None") else f"{state} ({reason})", state not in _MEANT
    )


def _table(text: str) -> dict[str, tuple[str, str]]:
    """Job id to state and reason, of lines ``id|state|reason``; sacct says ``CANCELLED by 0``."""
    rows = (line.strip().split("|") for line in text.splitlines() if line.count("|") >= 2)
    return {row[0]: (row[1].partition(" ")[0], row[2]) for row in rows}


def _accounted(ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    text = _run(
        "sacct",
        "--allocations",
        "--noheader",
        "--parsable2",
        "--format=JobID,State,Reason",
        f"--jobs={','.join(ids)}",
    )
    return _table(text or "")


def _scancel(ids: Sequence[str]) -> None:
    if ids:
        _run("scancel", "--quiet", f"--user={getpass.getuser()}", *ids)


def _run(*command: str) -> str | None:
    """What a program prints; None if it fails or hangs."""
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout
