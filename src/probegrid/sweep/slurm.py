"""The jobs on a SLURM cluster, submitted through submitit; their states from squeue and sacct.

submitit writes the batch script and pickles the job. Its results, its polling and its guess of why a job was told to
go are not used: how cells end is on disk, written by their workers, and a job asks SLURM how much time it has.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import replace

from probegrid.disk import full_disk, locked, user_name
from probegrid.errors import ConfigError, ProbegridError, RunError
from probegrid.sweep import lanes, slurm_queue
from probegrid.sweep.interrupts import uninterrupted
from probegrid.sweep.options import SAID_BY, SlurmOptions, plain
from probegrid.sweep.scheduler import Ending, JobPhase, JobRequest, JobState, MakeCall
from probegrid.sweep.slurm_queue import Listed
from probegrid.sweep.slurm_script import parameters
from probegrid.tracking.redaction import holds_secret
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Job, Submission

_TOO_LITTLE = {"TIMEOUT": "timeout_min", "OUT_OF_MEMORY": "mem_gb"}
"""The resource of which a job had too little where it ends so."""
_SILENCE = ("Unable to contact", "timed out", "Connection refused")
"""Words of sbatch where it is not the job that is wrong."""


class SlurmScheduler:
    """Runs jobs on a SLURM cluster."""

    name = "slurm"

    def __init__(self, options: SlurmOptions | None = None) -> None:
        """Take the options of submitting; None where jobs are only looked at."""
        self._options = options or SlurmOptions()

    def submit(
        self, folder: SweepFolder, packs: Sequence[Sequence[JobRequest]], make_call: MakeCall
    ) -> Submission:
        """Submit each pack as a job or an array; several packs under ``max_parallel`` job by job, in lanes."""
        submission = Submission(
            folder.next_submission(),
            self.name,
            socket.gethostname(),
            (),
            plain(self._options),
            user_name(os.getuid()),
        )
        if holds_secret(submission.options):  # submitit's scripts hold ``setup`` as it is
            folder.submission_dir(submission.number).chmod(0o700)
        with locked(folder.path / lanes.LOCK):
            most = self._options.max_parallel
            held = lanes.lanes_of(folder, slurm_queue.queue() or {}, most) if most else None
            if held and not (held.is_empty and len(packs) == 1):
                packs = [[request] for requests in packs for request in requests]
            try:
                for requests in packs:
                    after = held.turn() if held else None
                    with uninterrupted():
                        jobs = self._sbatch(folder, submission.number, requests, make_call, after)
                        submission = replace(submission, jobs=(*submission.jobs, *jobs))
                        folder.write_submission(submission)
                    if held:
                        held.add(lanes.array_of(jobs[0].id), after, len(jobs))
            except ProbegridError:
                slurm_queue.cancel([job.id for job in submission.jobs])
                folder.write_submission(replace(submission, jobs=()))
                raise
        return submission

    def states(self, folder: SweepFolder, submission: Submission) -> dict[str, JobState]:
        """Where each job is, by squeue and, for those it forgot, by sacct.

        Another user's job that neither names is left out: a cluster may keep one's jobs from the others.
        """
        listed = slurm_queue.queue(submission.user)
        if listed is None:
            return {}
        forgotten = [job.id for job in submission.jobs if job.id not in listed]
        if forgotten:
            listed |= slurm_queue.accounted(forgotten, submission.user)
        return {
            job.id: _state(folder, submission, job, listed.get(job.id, slurm_queue.GONE))
            for job in submission.jobs
            if job.id in listed or not submission.is_anothers
        }

    def fill(self, folder: SweepFolder) -> None:
        """Give free lanes to jobs that wait."""
        lanes.fill(folder, self._options.max_parallel, self._options.extra.get("dependency") or "")

    def cancel(self, folder: SweepFolder, submission: Submission) -> None:
        """Cancel the jobs that have not ended."""
        ids = [job.id for job in submission.jobs]
        if not slurm_queue.cancel(ids, user=submission.user):
            if submission.is_anothers:
                raise RunError(
                    f"the jobs are {submission.user}'s, who alone can end them (`scancel {' '.join(ids)}`); "
                    "no further cell is begun."
                )
            raise RunError(
                f"SLURM does not answer, so that jobs may go on; once it does, `scancel {' '.join(ids)}` ends them."
            )

    def withdraw(self, folder: SweepFolder, submission: Submission, jobs: Sequence[str]) -> set[str]:
        """Cancel those of the jobs that have not started."""
        slurm_queue.cancel(jobs, only_queued=True)
        listed = slurm_queue.queue() or {}
        return {job for job in jobs if listed.get(job, slurm_queue.GONE).state == "CANCELLED"}

    def _sbatch(
        self,
        folder: SweepFolder,
        number: int,
        requests: Sequence[JobRequest],
        make_call: MakeCall,
        after: str | None,
    ) -> list[Job]:
        """Submit a job, or an array where there are several requests."""
        import submitit

        options, place = self._options, folder.submission_dir(number)
        executor = submitit.SlurmExecutor(folder=place, python=options.python)
        executor.update_parameters(
            **parameters(options, requests[0], place, at_once=options.max_parallel, after=after)
        )
        calls = [make_call(str(folder.results_dir), folder.id, number, request.cells) for request in requests]
        try:
            with full_disk(place), executor.batch():
                submitted = [executor.submit(call) for call in calls]
            ids = [job.job_id for job in submitted]
        except submitit.core.utils.FailedJobError as error:
            raise _refusal(str(error)) from error
        return [
            Job(job_id, request.name, request.cells, request.resources, str(place / f"{job_id}_0_log.out"))
            for job_id, request in zip(ids, requests, strict=True)
        ]


def _refusal(stderr: str) -> ProbegridError:
    lines = [line for line in stderr.splitlines() if "error:" in line]
    said = "; ".join(line.partition("error:")[2].strip() for line in lines) or stderr.strip()
    if any(words in said for words in _SILENCE):
        return RunError(f"SLURM does not answer: {said}. Run the same command again later.")
    return ConfigError(
        f"SLURM refuses a job: {said}. Mend it in the hydra.launcher.* options or model.resources.*."
    )


def _state(folder: SweepFolder, submission: Submission, job: Job, listed: Listed) -> JobState:
    if listed.is_queued:
        return JobState(JobPhase.queued, _why_it_waits(folder, submission, job, listed))
    if listed.is_running:
        return JobState(JobPhase.running, node=listed.node, left_s=listed.left_s)
    if listed.state == "COMPLETED":
        return JobState(JobPhase.ended, ending=Ending.completed)
    if listed.state == "CANCELLED":
        return JobState(JobPhase.ended, listed.reason or "by scancel", Ending.cancelled)
    said = folder.read_end(submission.number, job.id) if listed.state in ("FAILED", "TIMEOUT") else None
    if said is not None:
        return JobState(JobPhase.ended, said, Ending.hopeless)
    reason = f"{listed.state} ({listed.reason})" if listed.reason else listed.state
    return JobState(JobPhase.ended, reason + _mended_by(submission, job, listed.state), Ending.died)


def _why_it_waits(folder: SweepFolder, submission: Submission, job: Job, listed: Listed) -> str:
    restarts = folder.read_note(submission.number, job.id).restarts
    most = submission.options.get("max_parallel")
    reason = f"its turn comes later, max_parallel={most}" if listed.after and most else listed.reason
    return "; ".join(filter(None, (f"to start again after {restarts[-1]}" if restarts else "", reason)))


def _mended_by(submission: Submission, job: Job, state: str) -> str:
    """What to raise where a job asked for too little."""
    return f"; raise {asked_by(submission, job, _TOO_LITTLE[state])}" if state in _TOO_LITTLE else ""


def asked_by(submission: Submission, job: Job, resource: str) -> str:
    """The key that says how much of a resource a job asks for, and its value."""
    extra = submission.options.get("extra", {})
    for option in SAID_BY[resource]:
        if option in extra:
            return f"hydra.launcher.extra.{option}={extra[option]}"
    return f"model.resources.{resource}={getattr(job.resources, resource)}"
