"""Cases for what is old: finding it, removing it, and that all still adds up."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from engine.runs import RunState
from engine.store.base import Purged, Store
from engine.store.changes import Accept, Purge
from engine.testing.store_contract.material import (
    NOON,
    a_join,
    a_missed_run,
    a_run,
    accept,
    accept_run,
    an_entry,
    an_event,
    at,
    end,
    enqueue,
    finish,
    make,
    start,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

LATER = NOON + timedelta(days=100)


def purge(*, events: tuple[str, ...] = (), runs: tuple[str, ...] = ()) -> Accept:
    """Make the change that removes events and runs."""
    return Accept(entries=(), purge=Purge(before=LATER, events=events, runs=runs))


class PurgingCases(Place):
    """What old rows are, and what becomes of them."""

    @promise(
        "Store: What an `Accept` purges is gone with all that it brought: an event with its outcomes, and a run.",
        "Store: It is counted in the same transaction.",
        "Store.purged: Return what was purged, ever.",
        "Purged: What was removed after its time. - `events`, `runs`, and `outcomes` by trigger: how many, ever. - "
        "`last_event`, `last_run`: the greatest id that is gone; empty where none is. - `before`: what came later than "
        "that is all there; None where nothing was removed.",
    )
    async def test_what_is_purged_is_gone_and_counted(self, store: Store) -> None:
        assert await store.purged() == Purged()
        (first, done, one), (second, other, two) = accept_run(), accept_run(trigger="b")
        alone, last = an_event(), an_event()
        await make(store, one, two, accept(an_entry(alone)), accept(an_entry(last)))
        await make(store, start(done), finish(done), start(other), finish(other))
        before = await store.ledger()
        await make(store, purge(events=(first.id, alone.id), runs=(done.id,)))
        assert await store.event(first.id) is None
        assert await store.event(alone.id) is None
        assert await store.run(done.id) is None
        assert await store.event(second.id) is not None
        found = await store.purged()
        assert found == Purged(
            events=2, runs=1, outcomes={"": 1, "bake": 1}, last_event=max(first.id, alone.id), last_run=done.id,
            before=LATER,
        )  # fmt: skip
        ledger = await store.ledger()
        assert (ledger.accepted, ledger.ended, ledger.waiting, ledger.purged) == (before.accepted, 2, 0, 2)
        assert ledger.missing == ()
        assert [(one.trigger, one.accepted, one.purged) for one in ledger.triggers] == [
            ("", 2, 1), ("b", 1, 0), ("bake", 1, 1)
        ]  # fmt: skip
        await make(store, purge(events=(first.id,), runs=(done.id,)))
        assert await store.purged() == found

    @promise("Ledger: `missing` tells, in words, of the rows that break the rule: of each kind the first hundred.")
    async def test_a_run_without_its_event_and_an_event_without_its_run_add_up_where_these_were_purged(
        self, store: Store
    ) -> None:
        (first, done, one), (second, other, two) = accept_run(), accept_run()
        gathered, joined = an_event(), an_event()
        gathering = a_run(gathered, state=RunState.PENDING, window="w")
        await make(store, one, two, accept(an_entry(gathered, gathering)))
        await make(store, accept(an_entry(joined, joins=[a_join(joined, gathering)])), accept(an_entry(an_event())))
        await make(store, enqueue(gathering), *(start(run) for run in (done, other, gathering)))
        await make(store, *(finish(run) for run in (done, other, gathering)), *(accept_run()[2] for _ in range(2)))
        await make(store, purge(events=(first.id, gathered.id), runs=(other.id,)))
        ledger = await store.ledger()
        assert ledger.missing == ()
        assert ledger.accepted == ledger.ended + ledger.waiting + ledger.purged
        assert (await store.run_events(done.id), len(await store.run_events(gathering.id))) == ((), 1)
        assert (await store.event(second.id)) is not None

    async def test_what_joined_after_the_clock_was_set_back_is_not_missed_where_it_was_purged_before_the_first(
        self, store: Store
    ) -> None:
        joined, gathered = an_event(), an_event()
        joined = replace(joined, received_at=NOON - timedelta(minutes=10))
        gathering = a_run(gathered, state=RunState.PENDING, window="w")
        await make(store, accept(an_entry(gathered, gathering)))
        await make(store, accept(an_entry(joined, joins=[a_join(joined, gathering)])), accept(an_entry(an_event())))
        await make(store, enqueue(gathering), start(gathering), finish(gathering), accept_run()[2])
        before = NOON - timedelta(minutes=5)
        await make(store, Accept(entries=(), purge=Purge(before=before, events=(joined.id,))))
        assert joined.id < gathered.id
        assert (await store.event(joined.id), await store.event(gathered.id) is not None) == (None, True)
        assert (await store.ledger()).missing == ()

    @promise("Store: A run that has not ended stays, and so does an event of one.")
    async def test_open_runs_and_their_events_are_not_purged(self, store: Store) -> None:
        (event, run, change), late = accept_run(state=RunState.PENDING, window="w"), an_event()
        await make(store, change, accept(an_entry(late, joins=[a_join(late, run)])), accept(an_entry(an_event())))
        await make(store, purge(events=(event.id, late.id), runs=(run.id,)))
        assert await store.run(run.id) is not None
        assert [one.id for one in await store.run_events(run.id)] == [event.id, late.id]
        assert await store.purged() == Purged()
        assert (await store.ledger()).missing == ()

    @promise(
        "Store.old_runs: Return a page of the runs that ended before an instant, in the order in which they were "
        "stored.",
        "Store.old_runs: At most `limit` runs are looked at.",
        "Store.old_runs: The newest run of all is never among them.",
        "Old: A page of what is old, and the place from which the next one goes on; None where there is none.",
        "OldRun: A run that ended long ago.",
    )
    async def test_old_runs_are_found_page_by_page(self, store: Store) -> None:
        made = [accept_run() for _ in range(5)]
        missed = a_missed_run("missed 1")
        await make(store, *(change for _, _, change in made), accept(missed=[missed]), accept_run()[2])
        runs = [run for _, run, _ in made]
        await make(store, *(start(run) for run in runs[:4]), finish(runs[0]), finish(runs[1], seconds=500))
        await make(store, finish(runs[2]), end(runs[4]))
        found, after, pages = [], 0, 0
        while True:
            page = await store.old_runs(before=at(100), after=after, limit=2)
            found += [one.id for one in page.items]
            pages += 1
            if page.after is None:
                break
            after = page.after
        assert found == [runs[0].id, runs[2].id, runs[4].id, missed.id]
        assert pages == 4
        [only] = (await store.old_runs(before=at(100), limit=1)).items
        assert (only.job, only.trigger, only.origin, only.state) == ("oven", "bake", runs[0].origin, "succeeded")
        assert (await store.old_runs(before=at(-100), limit=2)).after is None

    @promise(
        "Store.old_events: Return a page of the events that were received before an instant, in the order in which "
        "they were stored.",
        "Store.old_events: Those with a key were received before `keyed_before`, and all runs of each have ended.",
        "Store.old_events: At most `limit` events are looked at.",
        "Store.old_events: The newest event of all is never among them.",
        "OldEvent: An event that came long ago.",
    )
    async def test_old_events_are_found_page_by_page(self, store: Store) -> None:
        plain, keyed, older = an_event(), an_event(key="k"), replace(an_event(key="o"), received_at=at(-1000))
        (first, done, one), (_, _, two) = accept_run(), accept_run()
        changes = [accept(an_entry(each)) for each in (plain, keyed, older)]
        await make(store, *changes, one, two, accept(an_entry(an_event())))
        await make(store, start(done), finish(done))
        found, after = [], 0
        while True:
            page = await store.old_events(before=at(1), keyed_before=at(-500), after=after, limit=2)
            found += [each.id for each in page.items]
            if page.after is None:
                break
            after = page.after
        assert found == [plain.id, older.id, first.id]
        assert len((await store.old_events(before=at(1), keyed_before=at(-500), limit=1)).items) == 1

    @promise(
        "Store.oldest: Return when the first event or run that is there was stored, or None.",
        "Store.latest_ends: Return the ids of the newest run of each job in each state that is an end.",
        "Store.latest_ends: Reads all runs.",
        "Store.ends_of: Return, of those runs that are there, when each ended; None for one that has not.",
    )
    async def test_what_housekeeping_asks_of_runs(self, store: Store) -> None:
        assert await store.oldest() is None
        made = [accept_run() for _ in range(3)] + [accept_run(job="mill")]
        await make(store, *(change for _, _, change in made))
        first, second, third, other = (run for _, run, _ in made)
        assert await store.oldest() == NOON
        await make(store, *(start(run) for run in (first, second, other)), finish(first), finish(second), finish(other))
        assert await store.latest_ends() == {second.id, other.id}
        assert await store.ends_of([first.id, third.id, "none"]) == {first.id: at(3), third.id: None}

    @promise(
        "Store.size: Return how large the store is.",
        "StoreSize: How large the store is, in bytes: its files, and what of them is free for what comes.",
        "StoreSize: `unused` is what of that could be given back to the disk, and `shrinks` whether that is done while "
        "it is open.",
        "Store.shrink: Give some free room back to the disk, in a short while; return how many bytes.",
        "Store.shrink: Most stores have none.",
        "Store.lost: Say what became of the store where it is not the one any more that was opened, or None.",
    )
    async def test_room_that_was_freed_is_known_and_can_be_given_back(self, store: Store) -> None:
        events = [an_event(data="x" * 4000) for _ in range(200)]
        await make(store, *(accept(an_entry(event)) for event in events))
        before = await store.size()
        assert before.total >= 200 * 4000
        await make(store, purge(events=tuple(event.id for event in events[:-1])))
        after = await store.size()
        assert after.unused > before.unused
        assert store.lost() is None
        if after.shrinks:
            while freed := await store.shrink():
                assert freed > 0
            assert (await store.size()).unused < 100 * 4000
