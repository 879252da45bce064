"""Jobs that still wait with options that the same command no longer gives: said, or taken back to be submitted anew."""

from __future__ import annotations

from collections.abc import Sequence

from probegrid.sweep.check import CheckedCell
from probegrid.sweep.options import JOB_OPTIONS, LauncherOptions, SlurmOptions, plain
from probegrid.sweep.packs import pack
from probegrid.sweep.rows import latest_jobs, scheduler_of
from probegrid.sweep.scheduler import JobPhase
from probegrid.sweep.slurm import SlurmScheduler
from probegrid.sweep.table import say
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Job, Submission


def take_back_changed(
    folder: SweepFolder, checked: Sequence[CheckedCell], options: LauncherOptions
) -> set[int]:
    """Take back the jobs that wait with other options, under ``replace_queued``; without it name the way.

    Returns:
        Numbers of the cells that are on their way no more.
    """
    if not isinstance(options, SlurmOptions):
        return set()
    changed = [
        (submission, job, differences)
        for submission, job in _waiting(folder)
        if (differences := _differences(submission, job, checked, options))
    ]
    if not changed:
        return set()
    ids = ", ".join(job.id for _, job, _ in changed)
    many = len(changed) > 1
    said = "; ".join(dict.fromkeys(each for _, _, differences in changed for each in differences))
    if not options.replace_queued:
        say(
            f"{len(changed)} {'jobs that wait' if many else 'job that waits'} ({ids}) {'were' if many else 'was'} "
            f"submitted with other options and {'keep' if many else 'keeps'} them: {said}. "
            "The same command with hydra.launcher.replace_queued=true submits what waits again with these."
        )
        return set()
    taken = _take_back(folder, [(submission, job) for submission, job, _ in changed])
    say(f"submitted again with other options: {', '.join(sorted(taken))} ({said})")
    return {cell for _, job, _ in changed if job.id in taken for cell in job.cells}


def _waiting(folder: SweepFolder) -> list[tuple[Submission, Job]]:
    """The jobs in SLURM's queue that no other has followed."""
    latest = {
        job.id: (submission, job)
        for submission, jobs in latest_jobs(folder.read_submissions()).values()
        for job in jobs
    }
    found = []
    for submission in {each.number: each for each, _ in latest.values()}.values():
        if submission.scheduler != SlurmScheduler.name:
            continue
        states = scheduler_of(submission).states(folder, submission)
        phases = [(job, states[job.id].phase) for job in submission.jobs if job.id in states]
        at_work = {cell for job, phase in phases if phase is JobPhase.running for cell in job.cells}
        found += [
            (submission, job)
            for job, phase in phases
            if job.id in latest and phase is JobPhase.queued and not at_work.intersection(job.cells)
        ]
    return found


def _differences(
    submission: Submission, job: Job, checked: Sequence[CheckedCell], options: SlurmOptions
) -> list[str]:
    """What the job asks for otherwise than it would now: ``partition=gpu then, urgent now``."""
    now = {name: value for name, value in plain(options).items() if name in JOB_OPTIONS}
    then = {name: submission.options.get(name) for name in now}
    if not any(
        checked[cell].error or checked[cell].is_done for cell in job.cells
    ):  # as it was when it was packed
        now |= vars(pack(checked, job.cells, None)[0][0].resources)
        then |= vars(job.resources)
    return [f"{name}={then[name]} then, {now[name]} now" for name in now if then[name] != now[name]]


def _take_back(folder: SweepFolder, waiting: Sequence[tuple[Submission, Job]]) -> set[str]:
    """Ids of the jobs that could be taken back; those of a submission at once, so that none starts for another."""
    jobs: dict[int, list[str]] = {}
    for submission, job in waiting:
        jobs.setdefault(submission.number, []).append(job.id)
    by_number = {submission.number: submission for submission, _ in waiting}
    return {
        job
        for number, ids in jobs.items()
        for job in scheduler_of(by_number[number]).withdraw(folder, by_number[number], ids)
    }
