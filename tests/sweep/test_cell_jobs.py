"""The jobs of one cell: one evaluates it, those before it leave what they took, and who dies is replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Forked

from probegrid.schema import Resources
from probegrid.sweep.cell_jobs import CellJobs, has_ended
from probegrid.sweep.rows import latest_jobs
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import CellState, Job, Phase, Submission

EVALUATE = """
import sys, time
from probegrid.sweep.cell_jobs import CellJobs
from probegrid.tracking.sweep_folder import SweepFolder
with CellJobs(SweepFolder(sys.argv[1], "s"), 1, 0, 2) as jobs:
    jobs.has_read()
    print(jobs.may_evaluate({"load_s": 3.0}), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path, "s")


def test_one_of_them_evaluates_and_knows_what_the_others_took(folder: SweepFolder) -> None:
    with CellJobs(folder, 1, 0, 3) as first, CellJobs(folder, 1, 0, 3) as second:
        assert second.began == first.began <= time.time()
        assert first.others_go_on()
        second.has_read()
        assert list(first.others()) == [{}]
        assert first.may_evaluate({"load_s": 1.0})
        assert not second.may_evaluate({"load_s": 2.0})
        assert second.is_being_evaluated()
        assert list(first.others()) == [{"load_s": 2.0}]
    with CellJobs(folder, 1, 0, 3) as third:
        assert not third.others_go_on()
        assert not third.is_being_evaluated()


def test_what_is_evaluated_is_not_evaluated_again(folder: SweepFolder) -> None:
    with CellJobs(folder, 2, 0, 2) as first:
        assert first.may_evaluate({})
        folder.write_state(0, CellState(Phase.done, 2))
    with CellJobs(folder, 2, 0, 2) as late:
        assert not late.may_evaluate({})
        assert has_ended(folder.read_state(0), 2)
    with CellJobs(folder, 3, 0, 2) as forced:  # a later command's
        assert forced.may_evaluate({})


def test_who_dies_while_it_evaluates_has_it_no_more(folder: SweepFolder) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", EVALUATE, str(folder.results_dir)]
    with Forked(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with CellJobs(folder, 1, 0, 2) as mine:
            assert not mine.may_evaluate({})
            assert mine.is_being_evaluated()
            other.kill()
            other.wait()
            assert not mine.is_being_evaluated()
            assert not mine.others_go_on()
            assert mine.may_evaluate({})
            assert list(mine.others()) == [{"load_s": 3.0}]


def test_a_cell_s_latest_jobs_are_those_that_share_it() -> None:
    def job(name: str, *cells: int) -> Job:
        return Job(name, name, cells, Resources(), "log")

    first = Submission(1, "local", "here", (job("a", 0, 1), job("b", 0, 1), job("c", 2)))
    again = Submission(2, "local", "here", (job("d", 1), job("e", 1)))
    found = {cell: [job.id for job in jobs] for cell, (_, jobs) in latest_jobs([first, again]).items()}
    assert found == {0: ["a", "b"], 1: ["d", "e"], 2: ["c"]}
