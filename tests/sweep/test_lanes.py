"""Who waits for whom under ``max_parallel``, played through without a cluster."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from probegrid.sweep.lanes import Lanes, joined


def test_as_many_start_as_may_and_the_others_wait_in_lanes_of_equal_length() -> None:
    lanes, waits = Lanes(2), {}
    for job in "abcdef":
        waits[job] = lanes.turn()
        lanes.add(job, waits[job])
    assert waits == {"a": None, "b": None, "c": "a", "d": "b", "e": "c", "f": "d"}


def test_an_array_takes_as_many_lanes_as_its_tasks_may() -> None:
    lanes = Lanes(2)
    lanes.add("array", slots=7)
    waits = [lanes.turn()]
    lanes.add("x", waits[-1])
    waits.append(lanes.turn())
    lanes.add("y", waits[-1])
    assert waits == ["array", "array"]  # two run once its last tasks have ended
    assert lanes.turn() == "x"


def test_a_job_that_leaves_an_empty_lane_gives_it_away_and_one_with_a_successor_does_not() -> None:
    lanes = Lanes(2)
    for job, after in {"long": None, "short": None, "x": "long", "y": "x"}.items():
        lanes.add(job, after)
    assert lanes.free("short") == ["x"]
    assert lanes.free() == []
    assert lanes.free("long") == ["y"]


@given(st.integers(1, 4), st.lists(st.integers(1, 20), min_size=1, max_size=12), st.randoms())
def test_never_more_than_may_and_none_idle_whatever_they_take(
    most: int, seconds: list[int], chance: random.Random
) -> None:
    lanes, after = Lanes(most), {}
    for job in range(len(seconds)):
        after[str(job)] = lanes.turn()
        lanes.add(str(job), after[str(job)])
    left = {str(job): time for job, time in enumerate(seconds)}
    while left:
        running = [job for job in left if after[job] not in left]
        assert len(running) == min(most, len(left))
        ends = chance.choice(running)
        now = Lanes(most)
        for job in left:
            now.add(job, after[job] if after[job] in left else None)
        for freed in now.free(ends):
            after[freed] = ends
        del left[ends]


def test_the_users_own_dependency_stays() -> None:
    assert joined("afterok:7", "12") == "afterok:7,afterany:12"
    assert joined("", None) == ""
