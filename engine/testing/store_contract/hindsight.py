"""Cases on what is needed to say later why something did not run: spans, and what became of due instants."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from engine.clock import rfc3339
from engine.events import Event, EventOutcome, Outcome, Seen
from engine.runs import Origin, Run, RunState
from engine.spans import Span, SpanKind
from engine.store.changes import Accept
from engine.testing.store_contract.material import (
    NOON,
    a_join,
    a_missed_run,
    a_run,
    accept,
    an_entry,
    an_event,
    at,
    finish,
    make,
    start,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

TIMER = "timer:bake"
EARLY, LATE = at(-1e6), at(1e6)


def a_span(kind: SpanKind = SpanKind.PAUSE, name: str = "bake", began: float = 0, ended: float | None = None) -> Span:
    """Make a span, in seconds after noon."""
    ends = None if ended is None else at(ended)
    return Span(kind=kind, name=name, began_at=at(began), ended_at=ends, detail={"said": name})


def noted(*spans: Span) -> Accept:
    """Make a change that notes spans."""
    return Accept(entries=(), spans=spans)


def due(seconds: float) -> Event:
    """Make the event of a due instant of the timer."""
    return replace(an_event(TIMER, rfc3339(at(seconds))), time=at(seconds))


def missed(seconds: float, last: float | None = None, count: int = 1) -> Run:
    """Make the record of a missed instant, or of several together."""
    first = at(seconds)
    if last is None:
        return replace(a_missed_run(f"missed {rfc3339(first)}"), origin=Origin.SCHEDULE, scheduled_for=first)
    return replace(
        a_missed_run(f"missed {rfc3339(first)}/{rfc3339(at(last))}"), origin=Origin.SCHEDULE, scheduled_for=first,
        outputs={"instants": count, "first": rfc3339(first), "last": rfc3339(at(last))},
    )  # fmt: skip


class HindsightCases(Place):
    """What the store tells of the past of a trigger."""

    @promise(
        "Store: The spans of an `Accept` are noted in the same transaction as its events, in place of those of the "
        "same kind, name and beginning.",
        "Store.spans: Return the spans of a kind, and of one name where it is given, that meet a time, by their "
        "beginnings.",
    )
    async def test_spans_are_noted_changed_and_found_by_the_time_that_they_meet(self) -> None:
        async with self.opened() as store:
            old, other, now = (
                a_span(began=-100, ended=-50),
                a_span(name="mill", began=-80, ended=-40),
                a_span(began=-30),
            )
            life = a_span(SpanKind.ENGINE, "boot", -200, -10)
            await make(store, noted(now, old), noted(other, life), noted(replace(now, detail={"said": "another"})))
            now = replace(now, detail={"said": "another"})
            assert await store.spans(SpanKind.PAUSE, name="bake", start=EARLY, end=LATE, limit=9) == [old, now]
            assert await store.spans(SpanKind.PAUSE, start=EARLY, end=LATE, limit=9) == [old, other, now]
            assert await store.spans(SpanKind.PAUSE, start=at(-50), end=at(-30), limit=9) == [other]
            assert await store.spans(SpanKind.PAUSE, start=at(10), end=at(20), limit=9) == [now]
            assert await store.spans(SpanKind.ENGINE, start=EARLY, end=LATE, limit=9) == [life]
            taken = an_event(key="k")
            await make(store, accept(an_entry(taken)))
            [answer] = await store.apply(
                [replace(accept(an_entry(replace(an_event(), id=taken.id))), spans=(a_span(began=1),))]
            )
            assert isinstance(answer, Exception)
            assert await store.spans(SpanKind.PAUSE, start=at(-20), end=LATE, limit=9) == [now]

    @promise("Store.spans: Where there are more than `limit`, the last ones.")
    async def test_of_many_spans_the_last_ones_are_found(self) -> None:
        async with self.opened() as store:
            spans = [a_span(began=number, ended=number + 0.5) for number in range(5)]
            await make(store, noted(*spans))
            assert await store.spans(SpanKind.PAUSE, name="bake", start=EARLY, end=LATE, limit=2) == spans[-2:]

    @promise("Store: Those that ended before its `forget_spans` are gone afterwards.")
    async def test_spans_are_forgotten(self) -> None:
        async with self.opened() as store:
            gone, kept, still = a_span(began=-9, ended=-5), a_span(began=-8, ended=-3), a_span(began=-10)
            await make(store, noted(gone, kept, still), Accept(entries=(), forget_spans=at(-4)))
            assert await store.spans(SpanKind.PAUSE, start=EARLY, end=LATE, limit=9) == [still, kept]

    @promise(
        "Store.open_spans: Return at most `limit` spans of a kind that still hold, by their names, of names later than "
        "`after`.",
        "Store.first_span: Return the first span of a kind and name that is known, or None.",
    )
    async def test_spans_that_still_hold_and_the_first_one_are_found(self) -> None:
        async with self.opened() as store:
            ended, one, two, three = a_span(began=-9, ended=-5), a_span(), a_span(name="cut"), a_span(name="dry")
            await make(store, noted(three, two, one, ended, a_span(SpanKind.SOURCE)))
            assert await store.open_spans(SpanKind.PAUSE, after="", limit=2) == [one, two]
            assert await store.open_spans(SpanKind.PAUSE, after="cut", limit=2) == [three]
            assert await store.first_span(SpanKind.PAUSE, "bake") == ended
            assert await store.first_span(SpanKind.PAUSE, "mill") is None

    @promise(
        "Store.fired: Return at most `limit` events of a timer by their due instants, from `start` to before `end`, in "
        "their order.",
        "Store.fired: `source` is the timer's id; each comes with what came of it at the trigger.",
        "Met: An event that a trigger met, with its outcome there, and where the run that came of it stands now. - "
        "`state`, `last`: the run's, and the last step of its trace; None where there is no run. - `place`: orders "
        "what was received at the same instant.",
    )
    async def test_due_instants_that_fired_are_found_with_what_came_of_them(self) -> None:
        async with self.opened() as store:
            events = [due(number) for number in (10, 10.5, 11, 12)]
            runs = [replace(a_run(event), origin=Origin.SCHEDULE) for event in events[:3]]
            off = Outcome(
                trigger="bake", outcome=EventOutcome.PAUSED, code="job_disabled", reason="paused: it is off",
                gates=(Seen("filter", "pass", {"data.x": 1}), Seen("pause", "drop", None)),
            )  # fmt: skip
            entries = [an_entry(event, run) for event, run in zip(events, runs, strict=False)]
            await make(
                store,
                accept(*entries, an_entry(events[3], outcomes=[off]), an_entry(due(13), a_run(due(13), trigger="x"))),
            )
            await make(store, start(runs[0]), finish(runs[0]))
            found = await store.fired("bake", TIMER, start=at(10), end=at(20), limit=9)
            assert [met.event.id for met in sorted(found, key=lambda met: met.event.time or NOON)] == [
                e.id for e in events
            ]
            by_event = {met.event.id: met for met in found}
            first = by_event[events[0].id]
            assert (first.state, first.outcome.run) == (RunState.SUCCEEDED, runs[0].id)
            assert first.last is not None
            assert first.last.state is RunState.SUCCEEDED
            last = by_event[events[3].id]
            assert (last.state, last.last, last.outcome) == (None, None, off)
            assert len(await store.fired("bake", TIMER, start=at(10), end=at(20), limit=2)) == 2
            assert [met.event.id for met in await store.fired("bake", TIMER, start=at(10.5), end=at(11), limit=9)] == [
                events[1].id
            ]
            assert await store.fired("bake", "timer:other", start=at(10), end=at(20), limit=9) == []

    @promise(
        "Store.missed: Return what is recorded of missed due instants of a trigger, from `start` to before `end`, in "
        "their order.",
        "Store.missed: At most `limit` that begin there, and one that begins before and ends there.",
        "Missed: The record of one missed due instant, or of `count` from the first to the last.",
        "Store.recorded_instants: Return how many due instants of a timer are recorded, from `start` to before `end`: "
        "as events, or as missed.",
        "Store.recorded_instants: Those that are told of together count if the first of them lies there.",
    )
    async def test_missed_instants_are_found_one_by_one_or_together(self) -> None:
        async with self.opened() as store:
            gap, *single = missed(0, 50, 51), missed(51), missed(52), missed(60)
            fired = due(61)
            run = replace(a_run(fired), origin=Origin.SCHEDULE)
            await make(store, accept(an_entry(fired, run), missed=[gap, *single]))
            found = await store.missed("bake", start=at(0), end=at(100), limit=9)
            assert [(one.run.id, one.first, one.last, one.count) for one in found] == [
                (gap.id, at(0), at(50), 51), *[(one.id, one.scheduled_for, one.scheduled_for, 1) for one in single]
            ]  # fmt: skip
            assert [one.run.id for one in await store.missed("bake", start=at(20), end=at(52), limit=9)] == [
                gap.id, single[0].id
            ]  # fmt: skip
            assert [one.run.id for one in await store.missed("bake", start=at(51), end=at(100), limit=1)] == [
                single[0].id
            ]
            assert await store.missed("other", start=at(0), end=at(100), limit=9) == []
            assert await store.recorded_instants("bake", TIMER, start=at(0), end=at(62)) == 55
            assert await store.recorded_instants("bake", TIMER, start=at(1), end=at(55)) == 2

    @promise(
        "Store.met: Return at most `limit` events that a trigger met, received from `start` to before `end`, the "
        "oldest first.",
        "Store.met: `after` is when the last of the page before was received, and its place.",
    )
    async def test_events_that_a_trigger_met_are_found_page_by_page(self) -> None:
        async with self.opened() as store:
            events = [replace(an_event(), received_at=NOON + timedelta(seconds=number // 2)) for number in range(6)]
            run = a_run(events[0], state=RunState.PENDING)
            entries = [an_entry(events[0], run), *[an_entry(one, joins=[a_join(one, run)]) for one in events[1:]]]
            other = an_event()
            await make(store, *[accept(entry) for entry in entries], accept(an_entry(other, a_run(other, trigger="x"))))
            page = await store.met("bake", start=at(0), end=at(9), limit=3)
            assert [met.event.id for met in page] == [event.id for event in events[:3]]
            assert [met.outcome.outcome for met in page] == [EventOutcome.RUN, EventOutcome.JOINED, EventOutcome.JOINED]
            after = (page[-1].event.received_at, page[-1].place)
            page = await store.met("bake", start=at(0), end=at(9), after=after, limit=9)
            assert [met.event.id for met in page] == [event.id for event in events[3:]]
            assert [met.event.id for met in await store.met("bake", start=at(1), end=at(2), limit=9)] == [
                event.id for event in events[2:4]
            ]
