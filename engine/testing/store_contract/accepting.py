"""Cases on accepting events: identity of events and runs, joins, cursors, all or nothing."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest
from msgspec.structs import replace

from engine.errors import Conflict
from engine.events import Accepted, Event, EventOutcome, Outcome
from engine.runs import Origin, Run, RunState
from engine.store.base import EventFilter, Result, RunFilter, Store
from engine.store.changes import Accept, Cursor, Memory
from engine.testing.store_contract.material import (
    NOON,
    a_join,
    a_missed_run,
    a_run,
    accept,
    accept_run,
    an_entry,
    an_event,
    answers,
    at,
    finish,
    make,
    start,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

_DUPLICATES = (
    "Store: An event whose source and key came before, in an earlier call or in the same one, is not "
    "stored, nor are "
    "its outcomes, runs and joins: its answer is that of the first time, with `duplicate` true."
)
_WHOLE = "Store: A change is made whole or not at all."
_EACH_FOR_ITSELF = (
    "Store: One that can't be made (its run is unknown, or in a state that forbids it) has an error as "
    "its result, "
    "and no effect; the others are made all the same."
)
_ONE_RUN = "Store: There is at most one run for a trigger, origin and key."
_DEDUPLICATED = (
    "Store: An event whose run there is already gets the outcome `deduplicated`, with that run, in place "
    "of a "
    "second one."
)
_CURSOR = (
    "Store: The cursor of an `Accept` moves in the same transaction as its events, also when all of them are "
    "duplicates."
)

_MEMORY = "Store: What an `Accept` has a source remember or forget changes in the same transaction as its events."
_LATER_VALUE = (
    "Store: A key that is remembered again has the later value; one that is forgotten and was not there is no error."
)


async def _apply(store: Store, batches: Sequence[Sequence[Accept]]) -> list[Result]:
    return [result for batch in batches for result in await store.apply(batch)]


def _memory(**values: object) -> Memory:
    return Memory(source="db", values=values)


def _again(answer: Accepted) -> Accepted:
    return replace(answer, duplicate=True)


class AcceptingCases(Place):
    """**Events**, **Runs**, **Cursors** and **Each for itself** of the contract."""

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
    @promise(_DUPLICATES)
    async def test_an_event_of_a_known_source_and_key_is_answered_as_the_first_time_and_not_stored(
        self, store: Store, together: bool
    ) -> None:
        window = an_event()
        open_run = a_run(window, state=RunState.PENDING, window="w")
        await make(store, accept(an_entry(window, open_run)))
        first, second = an_event(key="order-7"), an_event(key="order-7", data={"other": True})
        run, other = a_run(first), a_run(second, trigger="another")
        one = accept(an_entry(first, run))
        two = accept(an_entry(second, other, joins=[a_join(second, open_run)]))
        results = await _apply(store, [[one, two]] if together else [[one], [two]])
        (answer,), (repeat,) = answers(results[0]), answers(results[1])
        assert answer == Accepted(event=first.id, runs=(run.id,), outcomes=one.entries[0].outcomes)
        assert repeat == _again(answer)
        assert await store.event(second.id) is None
        assert await store.run(other.id) is None
        joined = await store.run(open_run.id)
        assert joined is not None
        assert joined.event_count == 1
        assert (await store.ledger()).missing == ()

    @promise(_DUPLICATES)
    async def test_a_key_twice_within_one_accept_is_one_event(self, store: Store) -> None:
        first, second, third = an_event(key="a"), an_event(key="a"), an_event(key="b")
        (result,) = await make(store, accept(an_entry(first), an_entry(second), an_entry(third)))
        found = answers(result)
        assert [(answer.event, answer.duplicate) for answer in found] == [
            (first.id, False),
            (first.id, True),
            (third.id, False),
        ]
        assert len(await store.events(EventFilter(), limit=10)) == 2

    @promise(_DUPLICATES)
    async def test_a_key_stays_known_when_the_store_is_opened_again(self) -> None:
        first = an_event(key="a")
        async with self.opened() as store:
            await make(store, accept(an_entry(first, a_run(first))))
        async with self.opened() as store:
            (result,) = await make(store, accept(an_entry(an_event(key="a"))))
            assert answers(result)[0].event == first.id
            assert answers(result)[0].duplicate

    @promise("Store: Events without a key are never duplicates.")
    async def test_events_without_a_key_are_all_stored(self, store: Store) -> None:
        events = [an_event(data={"same": 1}) for _ in range(3)]
        results = await make(store, accept(an_entry(events[0]), an_entry(events[1])), accept(an_entry(events[2])))
        found = [answer for result in results for answer in answers(result)]
        assert [answer.event for answer in found] == [event.id for event in events]
        assert not any(answer.duplicate for answer in found)

    @promise("Store: Equal keys of different sources are different events.")
    async def test_equal_keys_of_different_sources_are_different_events(self, store: Store) -> None:
        events = [an_event("mill", "7"), an_event("farm", "7")]
        await make(store, accept(*(an_entry(event) for event in events)))
        for event in events:
            found = await store.find_event(event.source, "7")
            assert found is not None
            assert found.event == event.id

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
    @promise(_ONE_RUN, _DEDUPLICATED)
    async def test_a_second_run_for_trigger_origin_and_key_is_not_made_and_its_event_says_so(
        self, store: Store, together: bool
    ) -> None:
        first, second = an_event("mill"), an_event("farm")
        run = a_run(first, key="2026-01-05")
        twin, own = a_run(second, key="2026-01-05"), a_run(second, trigger="other", key="2026-01-05")
        one, two = accept(an_entry(first, run)), accept(an_entry(second, twin, own))
        results = await _apply(store, [[one, two]] if together else [[one], [two]])
        (answer,) = answers(results[1])
        assert not answer.duplicate
        assert answer.runs == (run.id, own.id)
        known = answer.outcomes[0]
        assert (known.trigger, known.outcome, known.run) == ("bake", EventOutcome.DEDUPLICATED, run.id)
        assert answer.outcomes[1] == two.entries[0].outcomes[1]
        assert await store.run(twin.id) is None
        stored = await store.event(second.id)
        assert stored is not None
        assert sorted(stored.outcomes, key=_trigger) == sorted(answer.outcomes, key=_trigger)
        assert (await store.ledger()).missing == ()

    @promise(_ONE_RUN)
    async def test_a_run_differs_from_others_by_trigger_origin_or_key(self, store: Store) -> None:
        event = an_event()
        runs = [
            a_run(event, key="k"),
            a_run(event, key="other"),
            a_run(event, key="k", trigger="t"),
            a_run(event, key="k", origin=Origin.REPLAY),
        ]
        for run in runs:
            event = an_event()
            await make(store, accept(an_entry(event, replace(run, event=event.id))))
        assert len(await store.runs(RunFilter(), limit=10)) == 4

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
    @promise("Store: So do the `cursors` of further sources.")
    async def test_the_cursors_of_many_sources_move_in_one_change(self, store: Store, together: bool) -> None:
        event = an_event()
        many = tuple(Cursor(source=f"timer:{number}", value=number) for number in range(200))
        first = Accept(entries=(an_entry(event, a_run(event)),), cursor=Cursor(source="mill", value="a"), cursors=many)
        again = Accept(entries=(an_entry(an_event()),), cursors=(Cursor(source="timer:7", value="later"),))
        await _apply(store, [[first, again]] if together else [[first], [again]])
        assert await store.cursor("mill") == "a"
        found = await store.cursors("timer:")
        assert found == {cursor.source: cursor.value for cursor in many} | {"timer:7": "later"}

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
    @promise("Store: A missed run that is there already is left.")
    async def test_a_missed_run_that_is_there_already_is_left(self, store: Store, together: bool) -> None:
        event = an_event()
        run, missed, again = a_run(event, key="02:00"), a_missed_run("03:00"), a_missed_run("03:00")
        batch = [accept(an_entry(event, run), missed=[missed]), accept(missed=[a_missed_run("02:00"), again])]
        await _apply(store, [batch] if together else [[change] for change in batch])
        found = await store.runs(RunFilter(), limit=10)
        assert {each.id for each in found} == {run.id, missed.id}
        assert await store.run(missed.id) == missed
        assert await store.run_events(missed.id) == ()

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
    @promise(_ONE_RUN, _DEDUPLICATED, "Store: Changes take effect in the order in which they are given.")
    async def test_a_run_whose_instant_was_recorded_as_missed_is_not_made(self, store: Store, together: bool) -> None:
        event, missed = an_event(), a_missed_run("02:00")
        batch = [accept(missed=[missed]), accept(an_entry(event, a_run(event, key="02:00")))]
        results = await _apply(store, [batch] if together else [[change] for change in batch])
        (answer,) = answers(results[1])
        assert [(outcome.outcome, outcome.run) for outcome in answer.outcomes] == [
            (EventOutcome.DEDUPLICATED, missed.id)
        ]

    @promise(_CURSOR)
    async def test_a_cursor_moves_with_its_events_and_with_duplicates_too(self, store: Store) -> None:
        entries = [an_entry(an_event("db", "1")), an_entry(an_event("db", "2"))]
        await make(store, accept(*entries, cursor=Cursor(source="db", value={"id": 2})))
        assert await store.cursor("db") == {"id": 2}
        again = accept(an_entry(an_event("db", "2")), cursor=Cursor(source="db", value=[3, "x", None]))
        await make(store, again)
        assert await store.cursor("db") == [3, "x", None]
        await make(store, accept(cursor=Cursor(source="db", value=4)), accept(cursor=Cursor(source="db", value=5)))
        assert await store.cursor("db") == 5

    @promise(_CURSOR, _WHOLE)
    async def test_a_cursor_stays_where_its_events_could_not_be_stored(self, store: Store) -> None:
        await make(store, accept(cursor=Cursor(source="db", value=1)))
        event = an_event("db")
        lost = accept(an_entry(event, joins=[a_join(event, a_run(event))]), cursor=Cursor(source="db", value=2))
        (result,) = await store.apply([lost])
        assert isinstance(result, Conflict)
        assert await store.cursor("db") == 1

    @promise(_CURSOR, "Store: Reads see what was durable when they began.")
    async def test_events_are_never_seen_without_their_cursor(self, store: Store) -> None:
        async def write() -> None:
            for number in range(1, 30):
                entries = [an_entry(an_event("db")) for _ in range(5)]
                await make(store, accept(*entries, cursor=Cursor(source="db", value=number * 5)))

        async with anyio.create_task_group() as group:
            group.start_soon(write)
            seen = 0
            while seen < 29 * 5:
                cursor = await store.cursor("db") or 0
                seen = len(await store.events(EventFilter(source="db"), limit=1000))
                assert seen % 5 == 0
                assert seen >= cursor

    @promise("Store: So do the `memories` of further sources.")
    async def test_the_memory_of_further_sources_changes_along(self, store: Store) -> None:
        others = (Memory(source="one", values={"a": 1}), Memory(source="two", values={"a": 2}))
        event = an_event("db")
        await make(store, replace(accept(an_entry(event), memory=_memory(a=0)), memories=others))
        forgets = replace(accept(), memories=(Memory(source="one", values={"a": None}), others[1]))
        await make(store, forgets)
        found = [await store.memory(source, after=None, limit=9) for source in ("db", "one", "two")]
        assert found == [{"a": 0}, {}, {"a": 2}]

    @promise(_MEMORY)
    async def test_memory_changes_with_its_events_and_stays_where_they_could_not_be_stored(self, store: Store) -> None:
        event = an_event("db", "1")
        await make(store, accept(an_entry(event), memory=_memory(a=1, b={"x": [None]})))
        assert await store.memory("db", after=None, limit=9) == {"a": 1, "b": {"x": [None]}}
        await make(store, accept(an_entry(an_event("db", "1")), memory=_memory(c="with a duplicate")))
        lost_event = an_event("db")
        lost = accept(an_entry(lost_event, joins=[a_join(lost_event, a_run(lost_event))]), memory=_memory(a=2, b=None))
        (result,) = await store.apply([lost])
        assert isinstance(result, Conflict)
        assert await store.memory("db", after=None, limit=9) == {
            "a": 1,
            "b": {"x": [None]},
            "c": "with a duplicate",
        }

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "in two calls"])
    @promise(_LATER_VALUE)
    async def test_what_is_remembered_and_forgotten_later_counts(self, store: Store, together: bool) -> None:
        changes = [
            accept(memory=_memory(a=1, b=1, c=1)),
            accept(memory=_memory(a=2, b=None, never=None)),
            accept(memory=_memory(b=3, c=None)),
        ]
        for result in await _apply(store, [changes] if together else [[change] for change in changes]):
            assert answers(result) == []
        assert await store.memory("db", after=None, limit=9) == {"a": 2, "b": 3}
        assert await store.memory("other", after=None, limit=9) == {}

    @promise(_WHOLE, _EACH_FOR_ITSELF)
    async def test_an_accept_with_a_join_that_can_not_be_made_leaves_nothing_and_spares_the_others(
        self, store: Store
    ) -> None:
        opener = an_event()
        closed = a_run(opener, state=RunState.PENDING, window="w")
        await make(store, accept(an_entry(opener, closed)), start(closed))
        good, late, keyed = an_event(), an_event(), an_event(key="k")
        fine = a_run(good)
        results = await store.apply(
            [
                accept(an_entry(keyed), an_entry(late, a_run(late, trigger="t"), joins=[a_join(late, closed)])),
                accept(an_entry(good, fine)),
                start(fine),
            ]
        )
        assert isinstance(results[0], Conflict)
        assert closed.id in str(results[0])
        assert answers(results[1])[0].runs == (fine.id,)
        assert results[2] is None
        assert await store.event(late.id) is None
        assert await store.find_event("mill", "k") is None
        assert len(await store.runs(RunFilter(), limit=10)) == 2
        assert (await store.ledger()).missing == ()

    @promise(_WHOLE, _EACH_FOR_ITSELF)
    async def test_an_event_or_run_whose_id_is_there_already_changes_nothing(self, store: Store) -> None:
        event, run, change = accept_run()
        await make(store, change)
        fresh = an_event()
        taken = replace(a_run(fresh), id=run.id)
        results = await store.apply(
            [accept(an_entry(replace(an_event(), id=event.id))), accept(an_entry(fresh, taken))]
        )
        assert [type(result) for result in results] == [Conflict, Conflict]
        assert await store.event(fresh.id) is None
        assert await store.run(run.id) == run

    @promise(_WHOLE)
    async def test_joins_put_a_run_off_and_raise_its_priority(self, store: Store) -> None:
        first = an_event()
        run = a_run(first, state=RunState.PENDING, window="w", priority=5, closes_at=at(60))
        second, third, fourth = an_event(), an_event(), an_event()
        await make(
            store,
            accept(an_entry(first, run)),
            accept(an_entry(second, joins=[a_join(second, run, due_at=at(15), priority=8)])),
            accept(an_entry(third, joins=[a_join(third, run, due_at=at(25), priority=2)])),
        )
        await make(store, accept(an_entry(fourth, joins=[a_join(fourth, run, due_at=at(35), priority=3)])))
        found = await store.run(run.id)
        assert found == replace(run, event=fourth.id, event_count=4, due_at=at(35), priority=8)
        assert await store.run_events(run.id) == (first, second, third, fourth)

    @promise(_EACH_FOR_ITSELF)
    async def test_many_changes_in_one_call_are_made_like_few(self, store: Store) -> None:
        pairs: list[tuple[Event, Run]] = []
        entries = []
        for number in range(300):
            event = an_event(key=str(number))
            pairs.append((event, a_run(event)))
            entries.append(an_entry(*pairs[-1]))
        await make(store, accept(*entries), *(start(run) for _, run in pairs))
        assert len(await store.running()) == 300
        assert (await store.ledger()).accepted == 300

    @promise(
        "Store: An entry whose run is skipped for another run, or takes its place, names that one.",
        "Store: Where it is not there, or has ended, the change can't be made: so nothing is skipped for a run that is "
        "not open.",
    )
    @pytest.mark.parametrize("state", ["queued", "running", "ended", "missing", "new", "duplicate"])
    async def test_a_run_is_skipped_only_for_one_that_is_open(self, store: Store, state: str) -> None:
        _, first, change = accept_run()
        if state != "missing":
            await make(store, change)
        if state in ("running", "ended"):
            await make(store, start(first))
        if state == "ended":
            await make(store, finish(first))
        later = an_event()
        skipped = a_run(later, state=RunState.SKIPPED, finished_at=NOON)
        entries = [replace(an_entry(later, skipped), in_the_way=(first.id,))]
        if state in ("new", "duplicate"):
            source, key = ("mill", "k") if state == "duplicate" else ("mill", "fresh")
            await make(store, accept(an_entry(an_event("mill", "k"))))
            new_event = an_event(source, key)
            new = a_run(new_event)
            entries = [an_entry(new_event, new), replace(entries[0], in_the_way=(new.id,))]
        (result,) = await store.apply([accept(*entries)])
        if state in ("ended", "missing", "duplicate"):
            assert isinstance(result, Conflict)
            assert await store.run(skipped.id) is None
        else:
            assert not isinstance(result, Conflict)
            stored = await store.run(skipped.id)
            assert stored is not None
            assert (stored.state, stored.finished_at) == (RunState.SKIPPED, NOON)

    @promise("Store: Changes take effect in the order in which they are given.")
    async def test_a_run_is_in_the_way_until_its_end_takes_effect(self, store: Store) -> None:
        _, first, change = accept_run()
        await make(store, change, start(first))
        before, after = an_event(), an_event()
        results = await store.apply(
            [
                accept(replace(an_entry(before, a_run(before, state=RunState.SKIPPED)), in_the_way=(first.id,))),
                finish(first),
                accept(replace(an_entry(after, a_run(after, state=RunState.SKIPPED)), in_the_way=(first.id,))),
            ]
        )
        assert not isinstance(results[0], Conflict)
        assert isinstance(results[2], Conflict)


def _trigger(outcome: Outcome) -> str:
    return outcome.trigger or ""
