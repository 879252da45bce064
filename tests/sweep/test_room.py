"""Which jobs run side by side on a machine: by cards, memory and the user's limit."""

from __future__ import annotations

from probegrid.schema import Resources
from probegrid.sweep.room import Room
from probegrid.tracking.sweep_state import Job

CARDS = ("a", "b", "c", "d")


def job(cards: int | None, *, mem_gb: float | None = 8.0, takes_more: bool = False) -> Job:
    return Job("id", "name", (0,), Resources(mem_gb=mem_gb), "log", cards, takes_more)


def test_each_job_has_cards_of_its_own_until_none_is_left() -> None:
    room, jobs = Room(CARDS, 1000, None), [job(1), job(2), job(2)]
    assert room.take(0, jobs) == ("a",)
    assert room.take(1, jobs[1:]) == ("b", "c")
    assert room.take(2, jobs[2:]) is None
    room.let_go(0)
    assert room.take(2, jobs[2:]) == ("a", "d")


def test_cards_that_nobody_waits_for_go_to_who_makes_use_of_them() -> None:
    several = [job(1, takes_more=True), job(1, takes_more=True)]
    room = Room(CARDS, 1000, None)
    assert [room.take(0, several), room.take(1, several[1:])] == [("a", "b"), ("c", "d")]
    assert Room(CARDS, 1000, None).take(0, [job(3, takes_more=True)]) == ("a", "b", "c")
    assert Room(CARDS, 1000, None).take(0, [job(2, takes_more=True), job(0)]) == CARDS
    assert Room(CARDS, 1000, None).take(0, [job(1, takes_more=True)] * 9) == ("a",)
    assert Room(CARDS, 1000, None).take(0, [job(1)]) == ("a",)


def test_a_job_of_which_nothing_is_known_has_all_and_one_that_wants_too_many_has_what_there_is() -> None:
    assert Room(CARDS, 1000, None).take(0, [job(None)]) == CARDS
    assert Room(CARDS, 1000, None).take(0, [job(8)]) == CARDS
    assert Room((), 1000, None).take(0, [job(1)]) == ()


def test_one_job_at_a_time_computes_on_the_cpu_unless_more_are_asked_for() -> None:
    room = Room(CARDS, 1000, None)
    assert room.take(0, [job(0)]) == ()
    assert room.take(1, [job(0)]) is None
    assert room.take(1, [job(1)]) == ("a",)
    room = Room((), 1000, 2)
    assert [room.take(number, [job(0)]) for number in range(3)] == [(), (), None]


def test_the_limit_and_the_memory_hold_for_all() -> None:
    room = Room(CARDS, 1000, 2)
    assert [room.take(number, [job(1)]) for number in range(3)] == [("a",), ("b",), None]
    room = Room(CARDS, 20, None)
    assert room.take(0, [job(1, mem_gb=15)]) == ("a",)
    assert room.take(1, [job(1, mem_gb=8)]) is None
    assert room.take(1, [job(1, mem_gb=4)]) == ("b",)
    assert Room(CARDS, 20, None).take(0, [job(1, mem_gb=500)]) == ("a",)  # alone it may try
