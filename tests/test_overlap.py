"""Overlap: the pure decision, against a slow and obvious reading of the rule."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from engine.decide.overlap import CAUGHT_UP, REPLACES, Action, Decision, OpenRun, OpenRuns, decide
from engine.jobs import Overlap
from engine.runs import Origin, Run, RunState, Step
from tests.organs import job

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

open_run = st.builds(
    OpenRun,
    id=st.just(""),
    trigger=st.sampled_from(["a", "b"]),
    begun=st.booleans(),
    scheduled=st.booleans(),
    exempt=st.booleans(),
    leaving=st.booleans(),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[int | None, list[OpenRun]]:
    limit = draw(st.none() | st.integers(1, 4))
    runs = draw(st.lists(open_run, max_size=7))
    for number, one in enumerate(runs):
        one.id = f"run-{number}"
    return limit, [one for one in runs if one.begun or not one.exempt]


def outcome(
    overlap: Overlap, situation: tuple[int | None, list[OpenRun]], *, scheduled: bool, exempt: bool
) -> Decision:
    limit, runs = situation
    return decide(overlap, limit=limit, trigger="a", scheduled=scheduled, exempt=exempt, open_runs=runs)


@given(st.sampled_from(Overlap), situations(), st.booleans(), st.booleans())
def test_overlap_counts_only_where_the_limit_is_reached(
    overlap: Overlap, situation: tuple[int | None, list[OpenRun]], scheduled: bool, exempt: bool
) -> None:
    limit, runs = situation
    found = outcome(overlap, situation, scheduled=scheduled, exempt=exempt)
    assert (found.action is Action.START) == (limit is None or len(runs) < limit)
    if exempt:
        assert found.action in (Action.START, Action.QUEUE)


@given(situations(), st.booleans())
def test_queue_has_room_for_one_due_instant_of_a_trigger(
    situation: tuple[int | None, list[OpenRun]], scheduled: bool
) -> None:
    found = outcome(Overlap.QUEUE, situation, scheduled=scheduled, exempt=False)
    waits = [
        one.id for one in situation[1] if one.trigger == "a" and one.scheduled and not (one.begun or one.exempt)
    ]  # fmt: skip
    if found.action is Action.SKIP:
        assert scheduled
        assert found.run == waits[0]
    elif found.action is Action.QUEUE:
        assert not (scheduled and waits)
    assert found.action is not Action.REPLACE


@given(situations(), st.booleans())
def test_skip_skips_each_run_at_the_limit_and_names_who_has_begun(
    situation: tuple[int | None, list[OpenRun]], scheduled: bool
) -> None:
    found = outcome(Overlap.SKIP, situation, scheduled=scheduled, exempt=False)
    if found.action is Action.START:
        return
    assert found.action is Action.SKIP
    begun = [one.id for one in situation[1] if one.begun]
    assert found.run == (begun or [situation[1][0].id])[0]


@given(situations(), st.booleans())
def test_replace_takes_only_the_places_it_needs_and_never_an_exempt_one(
    situation: tuple[int | None, list[OpenRun]], scheduled: bool
) -> None:
    limit, runs = situation
    found = outcome(Overlap.REPLACE, situation, scheduled=scheduled, exempt=False)
    if found.action is Action.START:
        return
    assert limit is not None
    by_id = {one.id: one for one in runs}
    taken = [by_id[name] for name in (*found.drops, *([found.cancels] if found.cancels else []))]
    assert all(not one.exempt and not one.leaving for one in taken)
    assert all(not by_id[name].begun and by_id[name].trigger == "a" for name in found.drops)
    mine = {one.id for one in runs if one.trigger == "a" and not (one.begun or one.exempt or one.leaving)}
    assert set(found.drops) == mine
    left = [one for one in runs if not one.leaving and one not in taken]
    if found.cancels is not None:
        assert by_id[found.cancels].begun
        assert len(left) >= limit - 1
        assert all(one.id > found.cancels for one in left if one.begun and not one.exempt)
    else:
        assert len(left) < limit or not any(one.begun and not one.exempt for one in left)
    assert (found.action is Action.REPLACE) == bool(taken)
    waited_for = {one.id for one in taken} | {one.id for one in situation[1] if one.leaving}
    assert found.action is not Action.REPLACE or found.run in waited_for


def run(name: str, state: RunState = RunState.QUEUED, code: str = "due", **fields: object) -> Run:
    step = Step(at=AT, state=state, code=code, reason=code)
    given = {
        "job": "bake", "trigger": "a", "origin": Origin.SCHEDULE, "key": name, "event": name, "priority": 5,
        "rank": 0, "created_at": AT, "trace": (step,), **fields,
    }  # fmt: skip
    return Run(id=name, state=state, code=code, reason=code, **given)  # type: ignore[arg-type]


def test_a_run_counts_from_when_it_is_added_until_it_ends() -> None:
    known = OpenRuns([job(concurrency=1, overlap=Overlap.SKIP), job("free")])
    assert known.decide("bake", "a", Origin.EVENT).action is Action.START
    known.add(run("one", attempt=1))
    assert known.decide("bake", "b", Origin.MANUAL) == Decision(action=Action.SKIP, run="one")
    assert known.decide("bake", "b", Origin.MANUAL, without={"one"}).action is Action.START
    assert known.decide("free", "a", Origin.EVENT).action is Action.START
    known.end("bake", "one")
    assert known.decide("bake", "a", Origin.EVENT).action is Action.START


def test_a_long_queue_of_events_is_not_held_in_memory() -> None:
    known = OpenRuns([job(concurrency=1)])
    known.add(run("waits", origin=Origin.EVENT))
    assert known.find("bake", "waits") is None
    known.add(run("by-clock"))
    assert known.find("bake", "by-clock") is not None


def test_one_that_has_begun_and_waits_again_after_two_starts_counts_for_the_room_of_due_instants() -> None:
    """Found by the machine of limits: the second start did not take it up as in the way, and nobody counted it."""
    known = OpenRuns([job(concurrency=2)])
    begun, waits = run("begun", origin=Origin.EVENT, attempt=1), run("by-clock")
    known.add(waits)
    found = known.decide("bake", "a", Origin.SCHEDULE, queued=lambda: [begun, waits])
    assert (found.action, found.run) == (Action.SKIP, "by-clock")
    known.add(begun)
    assert known.decide("bake", "a", Origin.SCHEDULE, queued=lambda: [begun, waits]) == found


def test_what_makes_up_for_missed_instants_puts_nobody_off_while_it_waits() -> None:
    known = OpenRuns([job(concurrency=1)])
    known.add(run("late", code=CAUGHT_UP))
    assert known.decide("bake", "a", Origin.SCHEDULE).action is Action.START
    known.add(run("now", attempt=1))
    known.add(run("next"))
    assert known.decide("bake", "a", Origin.SCHEDULE).action is Action.SKIP
    assert known.decide("bake", "a", Origin.SCHEDULE, caught_up=True).action is Action.QUEUE
    assert known.decide("bake", "a", Origin.BACKFILL).action is Action.QUEUE
    assert known.decide("bake", "b", Origin.SCHEDULE).action is Action.QUEUE


def test_a_run_that_is_leaving_is_not_replaced_again() -> None:
    known = OpenRuns([job(concurrency=1, overlap=Overlap.REPLACE)])
    known.add(run("old", attempt=1))
    assert known.decide("bake", "a", Origin.EVENT).cancels == "old"
    known.leave("bake", "old")
    known.add(run("new", code=REPLACES))
    found = known.decide("bake", "a", Origin.EVENT)
    assert (found.cancels, found.drops) == (None, ("new",))
    assert [one.id for one in known.replacing()] == ["new"]


def test_a_limit_that_is_taken_away_or_changed_holds_from_then_on() -> None:
    known = OpenRuns([job(concurrency=1, overlap=Overlap.SKIP)])
    known.add(run("one", attempt=1))
    known.limit(job(concurrency=2, overlap=Overlap.SKIP))
    assert known.decide("bake", "a", Origin.EVENT).action is Action.START
    known.limit(job())
    assert known.jobs == []
    assert known.decide("bake", "a", Origin.EVENT).action is Action.START
