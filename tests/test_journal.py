"""The journal: one writer, batches in order, and what becomes of what waits when the store is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import journal as journal_module
from engine.audits import Audit
from engine.errors import Conflict, StoreDamaged, StoreUnavailable
from engine.journal import LARGEST_BATCH, LONGEST_PAUSE_S, MOST_WAITING, Journal
from engine.runs import RunState
from engine.store.base import Result, RunFilter
from engine.store.changes import Accept, Change
from engine.store.sqlite import SqliteStore
from engine.testing.clock import VirtualClock
from engine.testing.store_contract.material import a_run, accept, accept_run, an_entry, an_event, end, finish, start


async def settle() -> None:
    """Give the event loop the turns that a batch is gathered and written in."""
    for _ in range(50):
        await asyncio.sleep(0)


class FakeStore:
    """A store that keeps batches in a list, waits where it is told to, and fails on demand."""

    def __init__(self) -> None:
        self.batches: list[list[Change]] = []
        self.offered: list[list[Change]] = []
        self.tidied = 0
        self.failure: Exception | None = None
        self.unwritable: set[int] = set()
        self.refused: set[int] = set()
        self.gate: anyio.Event | None = None

    async def apply(self, changes: Sequence[Change], notes: Mapping[int, Audit] | None = None) -> list[Result]:
        self.offered.append(list(changes))
        if self.gate is not None:
            await self.gate.wait()
        else:
            await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if any(id(change) in self.unwritable for change in changes):
            raise OverflowError("a number does not fit")
        self.batches.append(list(changes))
        return [self._result(change) for change in changes]

    def _result(self, change: Change) -> Result:
        if id(change) in self.refused:
            return Conflict("the run has ended")
        return [] if isinstance(change, Accept) else None

    def tidy(self) -> None:
        self.tidied += 1

    @property
    def written(self) -> list[Change]:
        return [change for batch in self.batches for change in batch]


class Desk:
    """A journal at work on a fake store, under a virtual clock."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.clock = VirtualClock()
        self.journal = Journal(self.store, self.clock)
        self.ended = anyio.Event()

    async def run(self) -> None:
        await self.journal.run()
        self.ended.set()

    async def advance(self, seconds: float) -> None:
        """Let all that is begun come to where it waits, then let time pass."""
        await settle()
        await self.clock.advance(seconds)
        await settle()


@asynccontextmanager
async def at_work() -> AsyncIterator[Desk]:
    desk = Desk()
    async with anyio.create_task_group() as group:
        group.start_soon(desk.run)
        await settle()
        yield desk
        group.cancel_scope.cancel()


def some_accepts(count: int) -> list[Accept]:
    return [accept(an_entry(an_event())) for _ in range(count)]


def some_starts(count: int) -> list[Change]:
    return [start(a_run(an_event())) for _ in range(count)]


async def outcome(future: Awaitable[Any]) -> Any:
    """Return what a future brings, or the error that it raises; fail where it brings nothing."""
    with anyio.fail_after(5):
        try:
            return await future
        except Exception as error:
            return error


# Order and group commit


async def test_what_is_submitted_is_written_in_its_order_and_answered() -> None:
    async with at_work() as desk:
        changes = [change for pair in zip(some_accepts(30), some_starts(30), strict=True) for change in pair]
        futures = [desk.journal.submit(change) for change in changes]
        assert desk.journal.depth == 60
        results = [await outcome(future) for future in futures]
        assert desk.store.written == changes
        assert results == [[], None] * 30
        assert desk.journal.depth == 0


async def test_changes_that_wait_together_are_one_commit() -> None:
    async with at_work() as desk:
        await asyncio.gather(*(desk.journal.submit(change) for change in some_accepts(50)))
        assert [len(batch) for batch in desk.store.batches] == [50]
        assert (desk.journal.commits, desk.journal.changes) == (1, 50)


async def test_what_comes_while_a_commit_is_under_way_is_the_next_commit() -> None:
    async with at_work() as desk:
        desk.store.gate = anyio.Event()
        first = desk.journal.submit(some_accepts(1)[0])
        await settle()
        rest = [desk.journal.submit(change) for change in some_starts(40)]
        await settle()
        assert len(desk.store.offered) == 1
        assert not first.done()
        desk.store.gate.set()
        await asyncio.gather(first, *rest)
        assert [len(batch) for batch in desk.store.batches] == [1, 40]


async def test_a_change_that_comes_alone_as_the_one_before_did_waits_for_no_other() -> None:
    async def turns_until_offered(desk: Desk) -> int:
        before, turns = len(desk.store.offered), 0
        future = desk.journal.submit(some_accepts(1)[0])
        while len(desk.store.offered) == before:
            await asyncio.sleep(0)
            turns += 1
        await future
        return turns

    async with at_work() as desk:
        assert await turns_until_offered(desk) >= journal_module.QUIET_TURNS
        assert await turns_until_offered(desk) <= 2
        # Where others came with it, the next may not be alone either.
        await asyncio.gather(*(desk.journal.submit(change) for change in some_accepts(2)))
        assert await turns_until_offered(desk) >= journal_module.QUIET_TURNS


async def test_many_tasks_that_write_again_and_again_share_their_commits() -> None:
    async with at_work() as desk:

        async def client() -> None:
            for change in some_accepts(20):
                await desk.journal.submit(change)

        async with anyio.create_task_group() as group:
            for _ in range(32):
                group.start_soon(client)
        assert desk.journal.changes == 640
        assert desk.journal.commits <= 60


async def test_a_commit_holds_a_bounded_number_of_changes() -> None:
    async with at_work() as desk:
        changes = some_accepts(2 * LARGEST_BATCH + 5)
        await asyncio.gather(*(desk.journal.submit(change) for change in changes))
        assert [len(batch) for batch in desk.store.batches] == [LARGEST_BATCH, LARGEST_BATCH, 5]
        assert desk.store.written == changes


async def test_the_store_may_tidy_up_when_nothing_waits() -> None:
    async with at_work() as desk:
        await desk.journal.submit(some_accepts(1)[0])
        await settle()
        assert desk.store.tidied >= 1
        before = desk.store.tidied
        desk.store.gate = anyio.Event()
        futures = [desk.journal.submit(some_accepts(1)[0])]
        await settle()
        futures.append(desk.journal.submit(some_accepts(1)[0]))
        assert desk.store.tidied == before
        desk.store.gate.set()
        await asyncio.gather(*futures)
        await settle()
        assert desk.store.tidied == before + 1


# Each for itself


async def test_a_change_that_can_not_be_made_has_its_conflict_alone() -> None:
    async with at_work() as desk:
        changes = some_starts(3)
        desk.store.refused.add(id(changes[1]))
        results = [await outcome(future) for future in [desk.journal.submit(change) for change in changes]]
        assert isinstance(results[1], Conflict)
        assert results[0] is results[2] is None


@pytest.mark.parametrize("places", [[0], [4], [9], [2, 3], [0, 9], list(range(10))])
async def test_a_change_that_can_not_be_written_at_all_harms_nothing_but_itself(
    places: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with at_work() as desk:
        changes = some_starts(10)
        desk.store.unwritable = {id(changes[place]) for place in places}
        futures = [desk.journal.submit(change) for change in changes]
        results = [await outcome(future) for future in futures]
        assert [isinstance(result, OverflowError) for result in results] == [n in places for n in range(10)]
        assert desk.store.written == [change for n, change in enumerate(changes) if n not in places]
        assert desk.journal.failure is None
        refused = [record for record in caplog.records if getattr(record, "action", "") == "change_refused"]
        assert len(refused) == len(places)
        # And commits are shared again.
        before = len(desk.store.batches)
        await asyncio.gather(*(desk.journal.submit(change) for change in some_starts(10)))
        assert len(desk.store.batches) == before + 1


async def test_one_that_stopped_waiting_changes_nothing_for_the_others() -> None:
    async with at_work() as desk:
        desk.store.gate = anyio.Event()
        futures = [desk.journal.submit(change) for change in some_accepts(3)]
        await settle()
        futures[1].cancel()
        desk.store.gate.set()
        assert await futures[0] == await futures[2] == []
        assert len(desk.store.written) == 3


# The store is away


async def test_events_are_refused_while_the_store_is_away_and_the_rest_waits_in_its_order() -> None:
    async with at_work() as desk:
        desk.store.failure = StoreUnavailable("the disk is full")
        events, work = some_accepts(2), some_starts(3)
        refused = [desk.journal.submit(change) for change in events]
        kept = [desk.journal.submit(change) for change in work[:2]]
        for future in refused:
            with pytest.raises(StoreUnavailable, match="the disk is full"):
                await future
        assert str(desk.journal.failure) == "the disk is full"
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await desk.journal.submit(some_accepts(1)[0])
        kept.append(desk.journal.submit(work[2]))
        await desk.advance(60)
        assert not any(future.done() for future in kept)
        assert desk.store.written == []
        desk.store.failure = None
        await desk.advance(LONGEST_PAUSE_S)
        assert [await outcome(future) for future in kept] == [None, None, None]
        assert desk.store.written == work
        assert desk.journal.failure is None
        assert await desk.journal.submit(some_accepts(1)[0]) == []


async def test_events_are_taken_again_when_the_store_is_back_though_nothing_else_waited() -> None:
    async with at_work() as desk:
        desk.store.failure = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await desk.journal.submit(some_accepts(1)[0])
        desk.store.failure = None
        await desk.advance(LONGEST_PAUSE_S)
        assert await outcome(desk.journal.submit(some_accepts(1)[0])) == []
        assert desk.journal.failure is None


async def test_an_absent_store_is_asked_again_and_again_with_growing_pauses() -> None:
    async with at_work() as desk:
        desk.store.failure = StoreUnavailable("locked")
        future = desk.journal.submit(some_starts(1)[0])
        await desk.advance(1.0)
        early = len(desk.store.offered)
        assert 3 <= early <= 6
        await desk.advance(60.0)
        late = len(desk.store.offered) - early
        assert 60 / LONGEST_PAUSE_S - 1 <= late <= 60 / LONGEST_PAUSE_S + 5
        desk.store.failure = None
        await desk.advance(LONGEST_PAUSE_S)
        assert await outcome(future) is None
        # The pauses begin small again.
        desk.store.failure = StoreUnavailable("locked")
        future = desk.journal.submit(some_starts(1)[0])
        await settle()
        desk.store.failure = None
        await desk.advance(0.2)
        assert await outcome(future) is None


async def test_an_outage_is_logged_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.journal")
    async with at_work() as desk:
        desk.store.failure = StoreUnavailable("locked")
        future = desk.journal.submit(some_starts(1)[0])
        await desk.advance(30.0)
        desk.store.failure = None
        await desk.advance(LONGEST_PAUSE_S)
        await future
    actions = [getattr(record, "action", "") for record in caplog.records if record.name == "engine.journal"]
    assert actions == ["store_away", "store_back"]


async def test_events_beyond_what_may_wait_are_refused_and_all_else_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MOST_WAITING >= 1000
    monkeypatch.setattr(journal_module, "MOST_WAITING", 5)
    async with at_work() as desk:
        desk.store.gate = anyio.Event()
        taken = [desk.journal.submit(some_accepts(1)[0])]
        await settle()
        taken += [desk.journal.submit(change) for change in some_accepts(5)]
        with pytest.raises(StoreUnavailable, match="too many events wait"):
            await desk.journal.submit(some_accepts(1)[0])
        assert desk.journal.depth == 5
        taken.append(desk.journal.submit(some_starts(1)[0]))
        desk.store.gate.set()
        assert [await outcome(future) for future in taken] == [[]] * 6 + [None]
        assert await outcome(desk.journal.submit(some_accepts(1)[0])) == []


# The end


@pytest.mark.parametrize("told", [False, True], ids=["found by a write", "told from outside"])
async def test_damage_fails_all_that_waits_and_all_that_comes_and_ends_the_journal(told: bool) -> None:
    async with at_work() as desk:
        damage = StoreDamaged("page 3 is malformed")
        desk.store.gate = anyio.Event()
        futures = [desk.journal.submit(some_starts(1)[0])]
        await settle()
        futures += [desk.journal.submit(change) for change in [*some_accepts(2), *some_starts(2)]]
        if told:
            desk.journal.fail(damage)
        desk.store.failure = damage
        desk.store.gate.set()
        with anyio.fail_after(5):
            await desk.ended.wait()
        assert [type(await outcome(future)) for future in futures] == [StoreDamaged] * 5
        assert isinstance(desk.journal.failure, StoreDamaged)
        assert isinstance(await outcome(desk.journal.submit(some_starts(1)[0])), StoreDamaged)
        assert isinstance(await outcome(desk.journal.submit(some_accepts(1)[0])), StoreDamaged)
        assert len(desk.store.offered) == 1


async def test_close_writes_what_waits_and_ends() -> None:
    async with at_work() as desk:
        desk.store.gate = anyio.Event()
        futures = [desk.journal.submit(some_starts(1)[0])]
        await settle()
        futures += [desk.journal.submit(change) for change in some_starts(5)]
        desk.journal.close()
        await settle()
        assert not desk.ended.is_set()
        desk.store.gate.set()
        assert [await outcome(future) for future in futures] == [None] * 6
        with anyio.fail_after(5):
            await desk.ended.wait()


async def test_close_of_an_idle_journal_ends_it_at_once() -> None:
    async with at_work() as desk:
        desk.journal.close()
        with anyio.fail_after(5):
            await desk.ended.wait()


async def test_close_while_the_store_is_away_gives_up_what_waits_and_ends() -> None:
    async with at_work() as desk:
        desk.store.failure = StoreUnavailable("the disk is full")
        futures = [desk.journal.submit(change) for change in some_starts(3)]
        await settle()
        desk.journal.close()
        await desk.advance(2 * LONGEST_PAUSE_S)
        with anyio.fail_after(5):
            await desk.ended.wait()
        assert [type(await outcome(future)) for future in futures] == [StoreUnavailable] * 3


async def test_close_while_the_store_is_away_writes_what_waits_where_it_comes_back() -> None:
    async with at_work() as desk:
        desk.store.failure = StoreUnavailable("locked")
        futures = [desk.journal.submit(change) for change in some_starts(3)]
        await settle()
        desk.journal.close()
        desk.store.failure = None
        await desk.advance(2 * LONGEST_PAUSE_S)
        assert [await outcome(future) for future in futures] == [None] * 3
        with anyio.fail_after(5):
            await desk.ended.wait()


# With the real store


@asynccontextmanager
async def writing(path: Path) -> AsyncIterator[tuple[Journal, SqliteStore]]:
    clock = VirtualClock()
    store = SqliteStore(path, clock=clock)
    await store.open()
    journal = Journal(store, clock)
    async with anyio.create_task_group() as group:
        group.start_soon(journal.run)
        yield journal, store
        journal.close()
    await store.close()


async def test_a_slot_that_is_given_back_and_taken_anew_is_held_once_at_every_commit(tmp_path: Path) -> None:
    async with writing(tmp_path / "engine.db") as (journal, store):
        made = [accept_run() for _ in range(40)]
        await asyncio.gather(*(journal.submit(change) for _, _, change in made))
        seen: list[int] = []
        done = anyio.Event()

        async def watch() -> None:
            while not done.is_set():
                seen.append(len(await store.running()))

        async def relay() -> None:
            futures = []
            for before, (_, run, _) in zip([None, *(run for _, run, _ in made)], made, strict=False):
                if before is not None:
                    futures.append(journal.submit(finish(before)))
                futures.append(journal.submit(start(run)))
                if len(futures) % 7 == 0:
                    await asyncio.gather(*futures)
            await asyncio.gather(*futures)
            done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            group.start_soon(relay)
        assert set(seen) <= {0, 1}
        assert len(await store.runs(RunFilter(states=frozenset({RunState.SUCCEEDED})), limit=100)) == 39


async def test_what_can_not_be_written_to_the_real_store_harms_nothing_but_itself(tmp_path: Path) -> None:
    async with writing(tmp_path / "engine.db") as (journal, store):
        events = [an_event() for _ in range(5)]
        runs = [a_run(event, rank=2**70 if place == 2 else place) for place, event in enumerate(events)]
        futures = [journal.submit(accept(an_entry(event, run))) for event, run in zip(events, runs, strict=True)]
        results = [await outcome(future) for future in futures]
        assert isinstance(results[2], OverflowError)
        found = await store.runs(RunFilter(), limit=10)
        assert [run.id for run in found[::-1]] == [run.id for place, run in enumerate(runs) if place != 2]
        _, run, change = accept_run()
        assert await outcome(journal.submit(change)) != []
        assert await outcome(journal.submit(end(run))) is None
