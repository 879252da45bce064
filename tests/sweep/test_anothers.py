"""Another user's sweep in a shared folder: it is seen as it is, not ended, not written over, and holds up nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from other_user import another_user, only_root

from probegrid.disk import user_name
from probegrid.errors import RunError, StoreError
from probegrid.schema import Resources
from probegrid.sweep import launch, slurm_queue
from probegrid.sweep.local import LocalScheduler
from probegrid.sweep.rows import Stage, observe
from probegrid.sweep.slurm import SlurmScheduler
from probegrid.sweep.status import cancel_sweep, show_sweeps
from probegrid.sweep.stop import stop_sweep
from probegrid.tracking.sweep_folder import SweepFolder, list_sweeps
from probegrid.tracking.sweep_state import Job, Manifest, ManifestCell, Submission

JOBS = tuple(Job(f"4{n}", "m-none-auto", (n,), Resources(), "/nowhere") for n in range(2))


def sweep(
    results_dir: Path,
    name: str,
    scheduler: str = "slurm",
    user: str = "anne",
    host: str = os.uname().nodename,
) -> SweepFolder:
    """A sweep of two cells, each with a job."""
    folder = SweepFolder(results_dir, name)
    cells = (ManifestCell("a", ()), ManifestCell("b", ()))
    folder.write_manifest(Manifest(name, cells, ("probegrid", "-m"), "/", "host", None, {}, {}))
    folder.write_submission(Submission(folder.next_submission(), scheduler, host, JOBS, {}, user))
    return folder


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """By user, the lines of squeue; no accounting, and nobody ends what is another's."""
    lines: dict[str, str] = {}

    def run(*command: str) -> str | None:
        if command[0] == "squeue":
            return next((lines[user] for user in lines if f"--user={user}" in command), "")
        return None

    monkeypatch.setattr(slurm_queue, "run", run)
    return lines


def test_jobs_of_another_are_seen_by_the_name_of_their_user(tmp_path: Path, queued: dict[str, str]) -> None:
    folder = sweep(tmp_path, "one")
    queued["anne"] = "40|RUNNING|None|n1|1:00:00|\n41|PENDING|Priority||1:00:00|\n"
    assert [row.stage for row in observe(folder)] == [Stage.queued, Stage.queued]
    queued["anne"] = "40|FAILED|NonZeroExitCode|n1|0:00|\n"
    rows = observe(folder)
    assert [row.stage for row in rows] == [Stage.lost, Stage.unknown]
    assert rows[1].detail == "its scheduler says nothing of anne's job"


def test_an_own_job_that_slurm_forgot_is_lost(tmp_path: Path, queued: dict[str, str]) -> None:
    assert not queued
    for user in ("", user_name(os.getuid())):
        folder = sweep(tmp_path, f"of-{user}", user=user)
        assert [row.stage for row in observe(folder)] == [Stage.lost, Stage.lost]


def test_jobs_of_another_that_go_on_are_not_called_cancelled(tmp_path: Path, queued: dict[str, str]) -> None:
    folder = sweep(tmp_path, "one")
    queued["anne"] = "40|RUNNING|None|n1|1:00:00|\n"
    with pytest.raises(RunError, match=r"the jobs are anne's, who alone can end them \(`scancel 40 41`\)"):
        SlurmScheduler().cancel(folder, folder.read_submission(1))
    queued["anne"] = "40|CANCELLED|None|n1|0:00|\n"
    SlurmScheduler().cancel(folder, folder.read_submission(1))


def test_a_sweep_that_anothers_jobs_read_is_not_written_anew(tmp_path: Path, queued: dict[str, str]) -> None:
    folder = sweep(tmp_path, "one")
    queued["anne"] = "40|RUNNING|None|n1|1:00:00|\n41|CANCELLED|None||0:00|\n"
    with pytest.raises(RunError, match="jobs of anne are at work on this sweep"):
        launch._refuse_anothers(folder, observe(folder))
    queued["anne"] = "40|CANCELLED|None|n1|0:00|\n41|CANCELLED|None||0:00|\n"
    launch._refuse_anothers(folder, observe(folder))
    mine = sweep(tmp_path, "mine", user=user_name(os.getuid()))
    queued[user_name(os.getuid())] = "40|RUNNING|None|n1|1:00:00|\n"
    launch._refuse_anothers(mine, observe(mine))


def test_what_runs_on_another_machine_is_not_called_cancelled(tmp_path: Path) -> None:
    folder = sweep(tmp_path, "one", "local", user_name(os.getuid()), host="elsewhere")
    rows = observe(folder)
    assert [(row.stage, row.detail) for row in rows] == [
        (Stage.unknown, "it was started on elsewhere, which alone can say")
    ] * 2
    with pytest.raises(RunError, match="what runs on elsewhere, if anything does, goes on"):
        stop_sweep(folder, "action=cancel")
    stop = folder.read_stop()
    assert stop is not None
    assert stop.cells == (0, 1)  # whoever has them begins them no more


@pytest.fixture
def running(tmp_path: Path) -> Iterator[SweepFolder]:
    """A sweep on this machine, whose runner is a process of root's."""
    folder = sweep(tmp_path / "results", "local", "local", user="root")
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleeps, start_new_session=True) as runner:
        created = psutil.Process(runner.pid).create_time()
        folder.write_json(folder.submission_dir(1) / "runner.json", {"pid": runner.pid, "created": created})
        yield folder
        os.kill(runner.pid, signal.SIGKILL)


@only_root
def test_a_runner_of_another_is_not_ended_and_that_is_said(running: SweepFolder) -> None:
    submission = running.read_submission(1)
    with (
        another_user(running.path),
        pytest.raises(RunError, match="what runs is root's, who alone can end it"),
    ):
        LocalScheduler().cancel(running, submission)
    assert [row.stage for row in observe(running)] == [Stage.queued, Stage.queued]


@only_root
def test_a_closed_sweep_holds_up_nobody(
    tmp_path: Path, queued: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not queued
    closed, own = sweep(tmp_path / "results", "closed"), sweep(tmp_path / "results", "own", user="")
    show_sweeps(tmp_path / "results")  # which imports what the other user may not read
    (own.path / "status.html").unlink()
    capsys.readouterr()
    closed.manifest_file.chmod(0o600)
    os.utime(closed.manifest_file, (0, 0))
    with another_user(tmp_path / "results"):
        show_sweeps(tmp_path / "results")
        assert f"sweep {own.id}: probegrid -m" in capsys.readouterr().out
        cancel_sweep(tmp_path / "results")
        said = capsys.readouterr().out
    assert f"sweep closed: cannot read {closed.manifest_file}: no permission, it belongs to root" in said
    assert "no sweep is running" in said
    own.path.parent.chmod(0o700)
    with (
        another_user(tmp_path / "results"),
        pytest.raises(StoreError, match=r"cannot read .*\.sweeps: no perm"),
    ):
        list_sweeps(tmp_path / "results")
