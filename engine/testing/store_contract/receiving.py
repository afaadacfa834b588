"""Cases on what guards need: when events came to triggers, and what is remembered with one."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from msgspec.structs import replace

from engine.events import Event, EventOutcome, Outcome
from engine.replays import REPLAY_KEY, RETRY_KEY
from engine.store.base import EventFilter, Receipts, Store
from engine.store.changes import Entry, Memory
from engine.testing.store_contract.material import a_run, accept, an_entry, an_event, at, make
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

_RUN, _FILTERED = EventOutcome.RUN, EventOutcome.FILTERED


def came(seconds: float, **fields: object) -> Event:
    """Make an event that was received so many seconds after noon."""
    return replace(an_event(), received_at=at(seconds), **fields)


def dropped(event: Event, *, code: str = "filter_false", outcome: EventOutcome = _FILTERED) -> Entry:
    """Let an event come to no run at the trigger `bake`."""
    return an_entry(event, outcomes=[Outcome(trigger="bake", outcome=outcome, code=code, reason=f"{outcome}: so")])


class ReceivingCases(Place):
    """What triggers received, and what an event has remembered."""

    @promise(
        "Store.received: Return when the events that triggers received came, the newest first, at most `limit`.",
        "Receipts: Which events count as ones that triggers received.",
        "Receipts: Those with one of `outcomes` at one of `triggers` that came since `since`; copies of events and "
        "those of backfills never do, nor does what a disabled trigger met.",
        "Receipts: `by_hand` tells whether what people fired does.",
    )
    async def test_what_triggers_received_is_told_of_by_when_it_came(self, store: Store) -> None:
        events = [came(seconds) for seconds in (1, 2, 3, 5)]
        await make(store, accept(*(an_entry(event, a_run(event)) for event in events)))
        other, both = came(4), came(6)
        await make(store, accept(an_entry(other, a_run(other, trigger="mow"))))
        await make(store, accept(an_entry(both, a_run(both), a_run(both, trigger="mow"))))
        by_hand = came(7, source="manual")
        none = [
            came(8, key=f"{REPLAY_KEY}x"), came(8, key=f"{RETRY_KEY}x"), came(8, source="backfill:x"),
        ]  # fmt: skip
        await make(store, accept(*(an_entry(event, a_run(event)) for event in (by_hand, *none))))
        await make(store, accept(dropped(came(9))))
        await make(store, accept(dropped(came(10), code="trigger_disabled", outcome=EventOutcome.PAUSED)))
        which = Receipts(triggers=frozenset({"bake"}), outcomes=frozenset(EventOutcome), since=at(2), by_hand=False)
        assert await store.received(which, limit=9) == [at(9), at(6), at(5), at(3), at(2)]
        assert await store.received(which, limit=2) == [at(9), at(6)]
        assert await store.received(replace(which, by_hand=True), limit=2) == [at(9), at(7)]
        runs = replace(which, outcomes=frozenset({_RUN}))
        assert await store.received(runs, limit=9) == [at(6), at(5), at(3), at(2)]
        both_triggers = replace(runs, triggers=frozenset({"bake", "mow"}))
        assert await store.received(both_triggers, limit=9) == [at(6), at(5), at(4), at(3), at(2)]
        assert await store.received(replace(which, triggers=frozenset()), limit=9) == []

    @promise("EventFilter: `outcome` is that at `trigger`, which it goes with.")
    async def test_events_are_listed_by_what_they_came_to_at_a_trigger(self, store: Store) -> None:
        ran, filtered = came(1), came(2)
        await make(store, accept(an_entry(ran, a_run(ran)), dropped(filtered)))
        for outcome, event in ((_RUN, ran), (_FILTERED, filtered)):
            found = await store.events(EventFilter(trigger="bake", outcome=outcome), limit=9)
            assert [stored.event.id for stored in found] == [event.id]
        assert await store.events(EventFilter(trigger="mow", outcome=_RUN), limit=9) == []

    async def test_what_an_event_has_remembered_is_there_exactly_where_the_event_is(self, store: Store) -> None:
        first, again, other = an_event(key="k"), an_event(key="k"), an_event()

        def noting(event: Event, value: int) -> Entry:
            return replace(an_entry(event), memory=Memory(source="engine:guard", values={"a": value}))

        await make(store, accept(noting(first, 1)))
        await make(store, accept(noting(again, 2)))
        assert await store.memory("engine:guard", after=None, limit=9) == {"a": 1}
        await make(store, accept(noting(other, 3), noting(an_event(), 4)), accept(memory=_forget("a")))
        assert await store.memory("engine:guard", after=None, limit=9) == {}
        await make(store, accept(memory=_forget("a")), accept(noting(an_event(), 5)))
        assert await store.memory("engine:guard", after=None, limit=9) == {"a": 5}


def _forget(key: str) -> Memory:
    return Memory(source="engine:guard", values={key: None})
