"""What a person is told of a cell, from what its worker wrote, its job's state and a deliberate end."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from probegrid.errors import StoreError
from probegrid.schema import Resources
from probegrid.sweep.rows import CellRow, Stage, _row, observe, span
from probegrid.sweep.scheduler import Ending, JobPhase, JobState
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import CellState, Job, Manifest, ManifestCell, Phase, Stop, Submission

QUEUED, RUNS = JobState(JobPhase.queued, "Priority"), JobState(JobPhase.running, node="n7", left_s=3600)
STOP = Stop("action=cancel", (0,), 2)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path, "sweep")


def row(
    folder: SweepFolder, job: JobState | None, state: CellState | None = None, stop: Stop | None = None
) -> CellRow:
    """The row of the one cell, whose job of submission 2 is in this state."""
    described = Job("12", "m-none-auto", (0,), Resources(timeout_min=60), str(folder.path / "12.out"))
    manifest = Manifest("sweep", (ManifestCell("m", ()),), (), "", "", None, {}, {})
    submission = Submission(2, "slurm", "here", (described,))
    states = {2: {} if job is None else {"12": job}}
    return _row(folder, manifest, 0, state, (submission, described), states, stop)


def ended(ending: Ending, reason: str = "") -> JobState:
    return JobState(JobPhase.ended, reason, ending)


@pytest.mark.parametrize(
    ("job", "stage", "detail"),
    [
        (None, Stage.unknown, "its scheduler does not answer"),
        (QUEUED, Stage.queued, "Priority"),
        (RUNS, Stage.queued, "its job runs"),
        (ended(Ending.cancelled, "by scancel"), Stage.cancelled, "by scancel"),
        (ended(Ending.hopeless, "SetupFailed: x"), Stage.failed, "SetupFailed: x"),
        (ended(Ending.died, "NODE_FAIL"), Stage.lost, "its job ended: NODE_FAIL"),
        (ended(Ending.completed), Stage.lost, "its job ended"),
    ],
)
def test_a_cell_that_was_not_begun(
    folder: SweepFolder, job: JobState | None, stage: Stage, detail: str
) -> None:
    found = row(folder, job)
    assert (found.stage, found.detail) == (stage, detail)
    assert found.died == (job is not None and job.ending is Ending.died)
    assert found.traceback is None  # which was never written


def test_a_deliberate_end_is_no_loss_but_what_runs_still_runs(folder: SweepFolder) -> None:
    running = CellState(Phase.running, 2)
    for job in (QUEUED, RUNS, ended(Ending.died, "GONE"), ended(Ending.cancelled)):
        assert row(folder, job, stop=STOP).stage is Stage.cancelled
        assert row(folder, job, stop=STOP).detail == "action=cancel"
    assert row(folder, RUNS, running, STOP).stage is Stage.running
    assert row(folder, ended(Ending.died), running, STOP).stage is Stage.cancelled
    assert row(folder, None, stop=STOP).stage is Stage.unknown  # it may run for all that is known
    assert row(folder, QUEUED, stop=replace(STOP, submission=1)).stage is Stage.queued  # submitted since
    assert row(folder, QUEUED, stop=replace(STOP, cells=(1,))).stage is Stage.queued


def test_what_an_earlier_submission_said_is_past(folder: SweepFolder) -> None:
    assert row(folder, QUEUED, CellState(Phase.failed, 1, reason="old")).stage is Stage.queued
    assert row(folder, QUEUED, CellState(Phase.failed, 2, reason="new")).stage is Stage.failed


def test_a_cell_that_runs_says_how_long_it_has_and_where(folder: SweepFolder) -> None:
    now = time.time()
    state = CellState(Phase.running, 2, host="h", started=now - 200, beat=now - 10)
    log = folder.path / "12.out"
    log.parent.mkdir(parents=True)
    log.write_text("")

    first = row(folder, RUNS, state)
    assert (first.node, first.left_s, first.traceback) == ("n7", 3600, log)
    assert first.detail == "starting, 3 min, 60 min to its limit, on n7"
    counted = replace(state, step="answers", done=3, total=12, left_s=60.0)
    later = row(folder, replace(RUNS, node=""), counted)
    assert later.elapsed_s == pytest.approx(200, abs=2)
    assert later.left_s == pytest.approx(50, abs=2)  # ten seconds of the sixty have passed
    assert later.detail.startswith("answers 3/12, 3 min, about ")
    assert later.detail.endswith(" s left, on h")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (5900, "98 min"), (7300, "2 h 02 min")]
)
def test_times_as_a_person_says_them(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"a": 1}', "7"])
def test_a_damaged_file_of_a_sweep_is_named(folder: SweepFolder, content: str) -> None:
    folder.write_manifest(Manifest("sweep", (ManifestCell("m", ()),), (), "", "", None, {}, {}))
    number = folder.next_submission()
    job = Job("12", "m-none-auto", (0,), Resources(), "12.out")
    folder.write_submission(Submission(number, "local", socket.gethostname(), (job,)))
    assert [found.stage for found in observe(folder)] == [Stage.lost]
    files = [
        folder.manifest_file,
        folder.path / "submissions" / "1.json",
        folder.path / "submissions" / "1" / "runner.json",
        folder.path / "states" / "0.json",
        folder.path / "stop.json",
    ]
    for file in files:
        before = file.read_bytes() if file.exists() else None
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
        with pytest.raises(StoreError, match=f"{file} is damaged; delete it and run the same command again"):
            observe(folder)
        file.unlink() if before is None else file.write_bytes(before)
