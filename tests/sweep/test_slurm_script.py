"""What a batch script says, and what becomes of setup lines; bash itself runs them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from probegrid.errors import ConfigError
from probegrid.schema import Resources
from probegrid.sweep.options import SlurmOptions
from probegrid.sweep.scheduler import JobRequest
from probegrid.sweep.slurm_script import check_names, guarded, parameters

REQUEST = JobRequest("m-none-auto", (0, 1), Resources(gpus=2, cpus=4, mem_gb=8, timeout_min=60))
PLACE = Path("results") / "submissions" / "1"


def script(after: str | None = None, **options: object) -> dict[str, str | bool]:
    """The ``#SBATCH`` options of a job, by submitit's own writing."""
    from submitit.slurm.slurm import _make_sbatch_string

    values = parameters(SlurmOptions(**options), REQUEST, PLACE, at_once=None, after=after)
    text = _make_sbatch_string("run", "folder", **values)
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


def test_a_job_asks_for_what_its_plan_says() -> None:
    said = script(partition="gpu")
    assert said["gpus-per-node"] == "2"
    assert said["cpus-per-task"] == "4"
    assert said["mem"] == "8000M"
    assert said["time"] == "60"
    assert said["job-name"] == "probegrid-m-none-auto"
    assert said["partition"] == "gpu"
    assert "wckey" not in said


@pytest.mark.parametrize("name", ["mem", "time", "job_name", "job-name", "cpus_per_task", "gpus_per_node"])
def test_null_leaves_an_option_to_the_cluster_and_a_given_value_wins(name: str) -> None:
    option = name.replace("_", "-")
    assert option not in script(extra={name: None})
    assert script(extra={name: "5"})[option] == "5"
    assert script().keys() - script(extra={name: None}).keys() == {option}


def test_the_same_in_other_words_stands_alone() -> None:
    assert "mem" not in script(extra={"mem_per_cpu": "2G"})
    assert "gpus-per-node" not in script(extra={"gres": "gpu:a100:2"})
    assert script(extra={"exclusive": True})["exclusive"] == ""
    assert "exclusive" not in script(extra={"exclusive": False})


def test_a_lane_and_the_users_own_dependency_both_hold() -> None:
    assert script("12")["dependency"] == "afterany:12"
    assert script("12", extra={"dependency": "afterok:7"})["dependency"] == "afterok:7,afterany:12"
    assert script(extra={"dependency": "afterok:7"})["dependency"] == "afterok:7"


@pytest.mark.parametrize("name", ["output", "array", "nodes", "chdir", "signal"])
def test_what_would_break_the_sweep_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"extra\.{name} is probegrid's own to say"):
        SlurmOptions(extra={name: "x"})


@pytest.mark.parametrize("character", ["\n", "\r", "\x00", "\x1b", "\u2028"])
def test_control_characters_are_refused_in_every_value(character: str) -> None:
    for options in (
        {"partition": f"gpu{character}#SBATCH --x"},
        {"setup": [f"export A=1{character}rm -rf /"]},
        {"srun_args": [character]},
        {"extra": {"comment": {"deep": character}}},
        {"extra": {f"a{character}": "b"}},
        {"python": character},
    ):
        with pytest.raises(ConfigError, match=r"holds (the control|a NUL) character"):
            SlurmOptions(**options)
    with pytest.raises(ConfigError, match="holds the control character"):
        check_names(PLACE, [f"model{character}"])
    if character != "\x00":  # which no path can have
        with pytest.raises(ConfigError, match="results_dir"):
            check_names(Path(f"results{character}"), [])


def run(setup: Sequence[str], folder: Path, before: str = "") -> tuple[int, str, str | None]:
    """Exit status, what the script prints after its setup, and why it ended, of a script with this setup."""
    file = folder / "script"
    file.write_text("\n".join(["#!/bin/bash", before, *guarded(setup, folder), "echo job runs with A=$A"]))
    ended = subprocess.run(
        ["bash", str(file)],
        env=os.environ | {"SLURM_JOB_ID": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    end = folder / "7.end.txt"
    return ended.returncode, ended.stdout.strip(), end.read_text().strip() if end.exists() else None


def test_setup_that_works_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "7.end.txt").write_text("of an earlier try")
    (tmp_path / "sourced").write_text("false\n[ -n '' ]\nexport A=2\n")
    setup = [
        "false || true",
        "if [ -d /nowhere ]; then",
        "  exit 3",
        "fi",
        "helper() { false; true; }",
        "helper",
        f"source {tmp_path}/sourced",
    ]
    assert run(setup, tmp_path) == (0, "job runs with A=2", None)


@pytest.mark.parametrize(
    ("setup", "status", "said"),
    [
        (["module load nosuch", "echo on"], 127, "`module load nosuch` failed with exit status 127"),
        (["for x in 1 2; do", "  cd /nowhere", "done"], 1, "`cd /nowhere` failed with exit status 1"),
        (["true && false"], 1, "`true && false` failed"),
        (["helper() { return 4; }", "helper now"], 4, "`helper now` failed with exit status 4"),
        (["source /nowhere/activate"], 1, "`source /nowhere/activate` failed"),
        (["[ -d /nowhere ] || exit 5"], 5, "the setup ended the job with exit status 5"),
        (["exit 0"], 1, "the setup ended the job with exit status 0"),
    ],
)
def test_the_first_line_that_fails_ends_the_job_and_is_named(
    setup: list[str], status: int, said: str, tmp_path: Path
) -> None:
    code, printed, end = run(setup, tmp_path)
    assert code == status
    assert "job runs" not in printed
    assert end is not None
    assert end.startswith("SetupFailed: ")
    assert said in end


def test_each_task_of_an_array_has_its_own_end(tmp_path: Path) -> None:
    before = "export SLURM_ARRAY_JOB_ID=5 SLURM_ARRAY_TASK_ID=3"
    assert run(["false"], tmp_path, before)[2] is None
    assert (tmp_path / "5_3.end.txt").exists()
