"""The limits: how many runs may start, in all and of a job."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.decide.limits import Slots
from tests.organs import job


def test_the_limit_of_all_and_that_of_a_job_both_hold() -> None:
    slots = Slots(2)
    slots.limit(job("bake", concurrency=1))
    slots.take("bake")
    assert not slots.may_start("bake")
    assert slots.said_of_wait("bake") == "a slot of job bake"
    assert slots.may_start("mill")
    slots.take("mill")
    assert not slots.may_start("mill")
    assert slots.said_of_wait("mill") == "a slot of the engine"
    slots.give("bake")
    assert slots.may_start("bake")
    assert (slots.taken, slots.taken_by("bake"), slots.taken_by("mill")) == (1, 0, 1)


def test_nothing_of_a_disabled_job_starts_and_another_version_of_it_may() -> None:
    slots = Slots(2)
    slots.limit(job("bake", enabled=False))
    assert not slots.may_start("bake")
    slots.limit(job("bake"))
    assert slots.may_start("bake")


@given(
    most=st.integers(1, 4),
    limits=st.lists(st.none() | st.integers(1, 3), min_size=3, max_size=3),
    moves=st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=60),
)
def test_no_limit_is_ever_exceeded(most: int, limits: list[int | None], moves: list[tuple[bool, int]]) -> None:
    slots = Slots(most)
    names = [f"job-{number}" for number in range(3)]
    for name, limit in zip(names, limits, strict=True):
        slots.limit(job(name, concurrency=limit))
    for begins, number in moves:
        name = names[number]
        if begins and slots.may_start(name):
            slots.take(name)
        elif not begins and slots.taken_by(name):
            slots.give(name)
        counts = [slots.taken_by(each) for each in names]
        assert sum(counts) == slots.taken <= most
        assert all(limit is None or count <= limit for count, limit in zip(counts, limits, strict=True))
