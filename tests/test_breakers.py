"""Breakers, and the quarantine that they bring about: what counts, what is held back, and who ends it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.breakers import Breakers, Count, Guarded, key_of, place_of
from engine.errors import NotFound, StoreUnavailable
from engine.events import Accepted, EventOutcome
from engine.plugin import Source
from engine.quarantine import QUARANTINED_TYPE
from engine.runs import RunState
from engine.store.base import EventFilter
from engine.store.changes import Accept, Purge
from engine.testing import VirtualClock
from engine.triggers import Breaker, SharedSource, Trigger
from tests.organs import Bench, Heard, Listed, bench, event, trigger

pytestmark = pytest.mark.anyio

THREE = Breaker(limit=3, per_s=60.0)
PLACE = ("trigger", "on-grain")


def codes(answers: Sequence[Accepted]) -> list[str]:
    return [outcome.code for answer in answers for outcome in answer.outcomes]


async def announced(desk: Bench) -> list[str]:
    """Return what the engine told of quarantines, the newest first."""
    await desk.settle()
    found = await desk.store.events(EventFilter(type=QUARANTINED_TYPE), limit=50)
    return [stored.event.subject or "" for stored in found]


# Pure


@given(
    st.lists(st.integers(0, 30), max_size=60), st.integers(1, 5), st.integers(1, 40),
)  # fmt: skip
def test_it_counts_exactly_as_a_slow_count_does(gaps: list[int], limit: int, per: int) -> None:
    count, rule, now = Count(), Breaker(limit=limit, per_s=per / 1e6), 0
    passed: list[int] = []
    for gap in gaps:
        now += gap
        expected = sum(at > now - per for at in passed) < limit
        assert count.let_through(rule, now) is expected
        if expected:
            passed.append(now)
        assert len(count) <= limit


@given(st.data())
def test_what_is_taken_back_was_never_counted(data: st.DataObject) -> None:
    rule, kept, with_more = Breaker(limit=4, per_s=1.0), Count(), Count()
    now = 0
    for _ in range(data.draw(st.integers(0, 20))):
        now += data.draw(st.integers(1, 500_000))
        if data.draw(st.booleans()):
            assert with_more.let_through(rule, now) is kept.let_through(rule, now)
        elif with_more.let_through(rule, now):
            with_more.take_back(now)
    assert list(with_more._passed)[-4:] == list(kept._passed)[-4:] or len(with_more) <= len(kept) + 4


@given(st.lists(st.sampled_from(["ask", "settle", "undo", "release"]), max_size=60), st.integers(1, 4))
def test_a_quarantine_holds_as_long_as_something_durable_or_on_its_way_says_so(acts: list[str], limit: int) -> None:
    """However commits end, no event is held back durably for a quarantine that the store does not have."""
    breakers, rule, now = Breakers(), Breaker(limit=limit, per_s=3600.0), VirtualClock().now()
    way: list[tuple[Guarded, bool]] = []
    stored: object = None
    told: list[object] = []
    breakers.on_trip = told.append
    for act in acts:
        now += timedelta(seconds=1)
        if act == "ask":
            asked = breakers.ask(PLACE, rule, now, "e")
            way.append((asked, bool(breakers.to_store([asked]))))
        elif act == "release":
            if breakers.release(PLACE) is not None:
                stored = None
                way = [(one, False) if one.quarantine is not None else (one, carried) for one, carried in way]
        elif way:
            one, carries = way.pop(0)
            if act == "settle":
                if carries:
                    stored = one.quarantine
                breakers.settle([one])
                if one.quarantine is not None and breakers.find(PLACE) is one.quarantine:
                    assert stored == one.quarantine
            else:
                breakers.undo([one])
    held = breakers.find(PLACE)
    assert held is None or held == stored or any(one.quarantine is held for one, _ in way)
    assert len(set(map(id, told))) == len(told)


def test_a_place_is_read_from_its_key() -> None:
    for place in (PLACE, ("source", "webhook:team/deploy"), ("source", "x")):
        assert place_of(key_of(place)) == place


# At the door


async def test_beyond_the_limit_events_are_recorded_and_nothing_runs_until_it_is_released(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        answers = await desk.emit(*(event() for _ in range(5)))
        assert codes(answers) == ["matched"] * 3 + ["trigger_quarantined"] * 2
        outcome = answers[3].outcomes[0]
        assert (outcome.outcome, outcome.run) == (EventOutcome.QUARANTINED, None)
        assert outcome.reason.startswith("quarantined: trigger on-grain is in quarantine since ")
        assert outcome.reason.endswith("as more than 3 events came in 1m")
        assert outcome.gates[0].saw["limit"] == 3
        await desk.advance(3600)
        assert codes([await desk.emit_one(event())]) == ["trigger_quarantined"]
        assert (desk.guards.checks()[0]["ok"], len(desk.script.begun)) == (False, 3)
        released = await desk.guards.release_trigger("on-grain", who="ann")
        assert released is not None
        assert released.triggers == ("on-grain",)
        assert await desk.guards.release_trigger("on-grain") is None
        again = await desk.emit(*(event() for _ in range(4)))
        assert codes(again) == ["matched"] * 3 + ["trigger_quarantined"]
        assert (await desk.store.ledger()).missing == ()


async def test_an_even_stream_at_the_limit_passes(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        for _ in range(12):
            assert codes([await desk.emit_one(event())]) == ["matched"]
            await desk.advance(20)


async def test_it_is_told_once_by_an_event_that_rules_hear(tmp_path: Path) -> None:
    listening = Heard(type=QUARANTINED_TYPE)
    teller = trigger("tell", source="event:q", on=listening)
    clock = VirtualClock()
    triggers = [trigger(breaker=THREE), teller]
    async with bench(tmp_path / "s.db", triggers=triggers, hearing=[("event:q", listening)], clock=clock) as desk:
        await desk.emit(*(event() for _ in range(9)))
        assert await announced(desk) == ["on-grain"]
        (told,) = [events for events in desk.script.events.values() if events[0].type == QUARANTINED_TYPE]
        assert told[0].data["reason"].startswith("trigger on-grain is in quarantine since ")
        assert told[0].source == "engine:quarantine"
    async with bench(tmp_path / "s.db", triggers=triggers, hearing=[("event:q", listening)], clock=clock) as desk:
        assert await announced(desk) == ["on-grain"]
        assert desk.script.begun == []


async def test_it_is_told_once_also_where_what_was_told_is_kept_no_longer(tmp_path: Path) -> None:
    clock, triggers = VirtualClock(), [trigger(breaker=THREE)]
    async with bench(tmp_path / "s.db", triggers=triggers, clock=clock) as desk:
        await desk.emit(*(event() for _ in range(5)))
        assert await announced(desk) == ["on-grain"]
        await clock.advance(4 * 86_400)
        (told,) = await desk.store.events(EventFilter(type=QUARANTINED_TYPE), limit=2)
        await desk.emit(event())  # the newest is never removed
        await desk.journal.submit(Accept(entries=(), purge=Purge(before=clock.now(), events=(told.event.id,))))
        assert await announced(desk) == []
    async with bench(tmp_path / "s.db", triggers=triggers, clock=clock) as desk:
        assert await announced(desk) == []
        assert desk.guards.quarantined().keys() == {"on-grain"}


async def test_a_quarantine_outlives_the_engine_and_so_does_its_end(tmp_path: Path) -> None:
    clock, triggers = VirtualClock(), [trigger(breaker=THREE)]
    async with bench(tmp_path / "s.db", triggers=triggers, clock=clock) as desk:
        await desk.emit(*(event() for _ in range(5)))
    async with bench(tmp_path / "s.db", triggers=triggers, clock=clock) as desk:
        assert codes([await desk.emit_one(event())]) == ["trigger_quarantined"]
        view = desk.guards.view_of("on-grain")["quarantine"]
        assert (view["held_back"], view["limit"], view["scope"]) == (3, 3, "trigger")
        await desk.guards.release_trigger("on-grain")
    async with bench(tmp_path / "s.db", triggers=triggers, clock=clock) as desk:
        assert codes(await desk.emit(*(event() for _ in range(3)))) == ["matched"] * 3
    await clock.advance(61)
    async with bench(tmp_path / "s.db", triggers=triggers, clock=clock) as desk:
        assert await desk.store.memory("engine:quarantine", after=None, limit=9) == {}


async def test_what_came_before_a_restart_counts(tmp_path: Path) -> None:
    clock, triggers = VirtualClock(), [trigger(breaker=THREE)]
    async with bench(tmp_path / "s.db", triggers=triggers, clock=clock) as desk:
        await desk.emit(event(), event())
    await clock.advance(30)
    async with bench(tmp_path / "s.db", triggers=triggers, clock=clock) as desk:
        assert codes(await desk.emit(event(), event())) == ["matched", "trigger_quarantined"]


async def test_a_trigger_without_its_breaker_is_free_again(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)], clock=clock) as desk:
        await desk.emit(*(event() for _ in range(5)))
    async with bench(tmp_path / "s.db", triggers=[trigger()], clock=clock) as desk:
        assert codes([await desk.emit_one(event())]) == ["matched"]
    await clock.advance(60)
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)], clock=clock) as desk:
        assert codes([await desk.emit_one(event())]) == ["matched"]


async def test_what_is_not_stored_is_not_counted_and_brings_no_quarantine_about(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        desk.store.write_error = StoreUnavailable("the disk is full")
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await desk.emit(*(event() for _ in range(5)))
        desk.store.write_error = None
        await desk.advance(5)
        assert desk.guards.checks()[0]["ok"]
        answers = await desk.emit(*(event() for _ in range(3)))
        assert codes(answers) == ["matched"] * 3
        assert await announced(desk) == []


async def test_repeats_that_the_store_knows_are_not_counted(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        for _ in range(10):
            await desk.emit_one(event(key="k"))
        assert codes(await desk.emit(event(), event())) == ["matched"] * 2
        assert desk.guards.checks()[0]["ok"]


async def test_events_on_their_way_make_the_quarantine_durable_that_holds_them_back(tmp_path: Path) -> None:
    """The event that opened the breaker turns out to be a repeat; the one after it is held back all the same."""
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        await desk.emit(event(key="k"), event(), event())
        desk.store.hold = anyio.Event()
        async with anyio.create_task_group() as group:
            for one in (event(key="k"), event()):
                group.start_soon(desk.emit_one, one)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            desk.store.hold.set()
        desk.store.hold = None
        held = await desk.store.memory("engine:quarantine", after=None, limit=9)
        assert list(held) == ["trigger:on-grain"]
        assert not desk.guards.checks()[0]["ok"]


async def test_a_release_that_the_store_refuses_is_none(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        await desk.emit(*(event() for _ in range(5)))
        await desk.settle()
        desk.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await desk.guards.release_trigger("on-grain")
        desk.store.write_error = None
        await desk.advance(5)
        assert codes([await desk.emit_one(event())]) == ["trigger_quarantined"]
        with pytest.raises(NotFound, match="on-grain"):
            await desk.guards.release_trigger("on-grian")


async def test_people_pass_by_name_and_are_counted_otherwise(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        answers = [await desk.intake.fire("on-grain") for _ in range(4)]
        assert codes(answers) == ["fired"] * 3 + ["trigger_quarantined"]
        passed = await desk.intake.fire("on-grain", bypass=frozenset({"quarantine"}))
        assert codes([passed]) == ["fired"]


async def test_replays_and_retries_are_neither_counted_nor_held_back(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        answers = await desk.emit(*(event() for _ in range(5)))
        which = EventFilter(trigger="on-grain", outcome=EventOutcome.QUARANTINED)
        held = await desk.store.events(which, limit=9)
        assert {stored.event.id for stored in held} == {answer.event for answer in answers[3:]}
        for stored in held:
            replayed = await desk.intake.rehearsal.replay(stored, trigger="on-grain", reason="released")
            assert codes([replayed]) == ["replayed"]
        await desk.settle()
        run = await desk.run_of(answers[0].runs[0])
        assert run.state is RunState.SUCCEEDED
        await desk.intake.again(run, await desk.store.run_events(run.id), reason="once more")
        await desk.guards.release_trigger("on-grain")
        assert codes(await desk.emit(*(event() for _ in range(3)))) == ["matched"] * 3


async def test_a_rehearsal_tells_of_it_and_changes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        for _ in range(9):
            assert desk.intake.rehearsal.test("on-grain", event()).outcome.code == "matched"
        await desk.emit(*(event() for _ in range(3)))
        tried = desk.intake.rehearsal.test("on-grain", event())
        assert (tried.outcome.code, tried.outcome.gates[0].gate) == ("trigger_quarantined", "quarantine")
        assert desk.guards.checks()[0]["ok"]


# Sources


def on_orders(name: str, breaker: Breaker | None = THREE, on: Source | None = None) -> Trigger:
    source = on or Listed()
    shared = SharedSource(name="orders", id="mill", on=source, breaker=breaker)
    return trigger(name, shared=shared, on=source, filter="data == {} || data.n < 9")


async def test_a_source_counts_each_event_once_whatever_triggers_it_meets(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[on_orders("a"), on_orders("b")]) as desk:
        answers = await desk.emit(*(event() for _ in range(4)))
        assert codes(answers) == ["matched"] * 6 + ["source_quarantined"] * 2
        assert answers[3].outcomes[0].reason.startswith("quarantined: source orders is in quarantine since ")
        assert codes([await desk.intake.fire("a")]) == ["fired"]
        assert desk.guards.source_view("mill")["quarantine"]["held_back"] == 1
        assert await announced(desk) == ["orders"]
        released = await desk.guards.release_source("orders")
        assert released is not None
        assert released.triggers == ("a", "b")
        assert codes([await desk.emit_one(event())]) == ["matched"] * 2


async def test_events_that_a_filter_drops_count_too(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[on_orders("a")]) as desk:
        answers = await desk.emit(*(event(data={"n": 9}) for _ in range(4)))
        assert codes(answers) == ["filter_false"] * 3 + ["source_quarantined"]


async def test_the_quarantine_is_in_the_commit_of_the_event_that_brings_it_about(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(breaker=THREE)]) as desk:
        await desk.emit(*(event() for _ in range(4)))
        with_memory = [
            entry.event.id
            for change in desk.store.changes
            if isinstance(change, Accept)
            for entry in change.entries
            if entry.memory is not None
        ]
        (found,) = (await desk.store.memory("engine:quarantine", after=None, limit=9)).values()
        assert with_memory == [found["event"]]
