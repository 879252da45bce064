"""What squeue says, read."""

from __future__ import annotations

import pytest

from probegrid.sweep.slurm_queue import Listed, parse_queue, seconds


def test_lines_of_squeue() -> None:
    text = (
        "12|RUNNING|None|n1|1-02:03:04|(null)\n"
        "13|PENDING|Dependency||1:00:00|afterok:7(unfulfilled),afterany:12(unfulfilled)\n"
        "14_3|PENDING|Resources||UNLIMITED|\n"
        "slurm_load_jobs error: Socket timed out\n"
    )
    assert parse_queue(text) == {
        "12": Listed("RUNNING", "", "n1", 93784.0),
        "13": Listed("PENDING", "Dependency", "", 3600.0, ("7", "12")),
        "14_3": Listed("PENDING", "Resources"),
    }


@pytest.mark.parametrize(
    ("text", "expected"), [("0:42", 42), ("59:59", 3599), ("2:00:00", 7200), ("INVALID", None), ("", None)]
)
def test_times(text: str, expected: float | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("state", "queued", "running"),
    [
        ("PENDING", True, False),
        ("COMPLETING", False, True),
        ("NODE_FAIL", False, False),
        ("GONE", False, False),
    ],
)
def test_where_a_job_is(state: str, queued: bool, running: bool) -> None:
    assert (Listed(state).is_queued, Listed(state).is_running) == (queued, running)
