"""Cases on opening, closing, and what outlives the process."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

import os

import pytest

from engine.errors import Conflict, StoreDamaged, StoreError, StoreInUse, StoreUnavailable, StoreVersion
from engine.runs import RunState
from engine.store.base import EventFilter, RunFilter
from engine.testing.store_contract.material import (
    a_run,
    accept,
    accept_run,
    an_entry,
    an_event,
    answers,
    finish,
    make,
    start,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

KEPT_RUNS = 50


class OpeningCases(Place):
    """**Opening** and **Durability** of the contract."""

    @promise(
        "Store: A place where events and runs are durable.",
        "Store.open: Open the store; see above for what is refused, and how.",
        "Store: `open` makes a new store, or opens an existing one after checking it.",
        "Store.close: Close the store.",
    )
    async def test_a_store_is_made_empty_and_opened_again_with_what_it_kept(self) -> None:
        event, run, change = accept_run()
        async with self.opened() as store:
            assert await store.events(EventFilter(), limit=10) == []
            assert await store.runs(RunFilter(), limit=10) == []
            await make(store, change)
        async with self.opened() as store:
            found = await store.event(event.id)
            assert found is not None
            assert found.event == event
            assert await store.run(run.id) == run
            assert await store.check() == []

    @promise(
        "Store: A store that is damaged (StoreDamaged) or written by a newer engine (StoreVersion) is "
        "refused "
        "and left as it is."
    )
    async def test_a_damaged_store_is_refused_and_left_as_it_is(self) -> None:
        await self._keep_something()
        self.damage()
        await self._refused(StoreDamaged)

    @promise(
        "Store: A store that is damaged (StoreDamaged) or written by a newer engine (StoreVersion) is "
        "refused "
        "and left as it is."
    )
    async def test_a_store_of_a_newer_engine_is_refused_and_left_as_it_is(self) -> None:
        await self._keep_something()
        self.outdate()
        await self._refused(StoreVersion)

    async def _refused(self, error: type[StoreError]) -> None:
        before = self.contents()
        for _ in range(2):
            store = self.make_store()
            with pytest.raises(error):
                await store.open()
            await store.close()
            assert self.contents() == before
        assert self.copies() == 0

    @promise(
        "Store: An older one is first copied beside itself, then migrated; interrupted migrations leave it as it was."
    )
    async def test_an_older_store_is_copied_beside_itself_and_migrated(self) -> None:
        run_id = await self._keep_something()
        self.age()
        assert self.copies() == 0
        async with self.opened() as store:
            assert self.copies() == 1
            assert await store.run(run_id) is not None
            assert await store.check() == []
            await make(store, accept_run()[2])
        async with self.opened() as store:
            assert len(await store.runs(RunFilter(), limit=100)) == KEPT_RUNS + 1
        assert self.copies() == 1

    @promise(
        "Store: An older one is first copied beside itself, then migrated; interrupted migrations leave it as it was."
    )
    async def test_a_migration_that_breaks_off_leaves_the_store_as_it_was(self) -> None:
        run_id = await self._keep_something()
        self.age(migration_fails=True)
        before = self.contents()
        store = self.make_store()
        with pytest.raises(StoreError):
            await store.open()
        await store.close()
        assert self.contents() == before
        self.age()
        async with self.opened() as store:
            assert await store.run(run_id) is not None

    @promise(
        "Store: A store that another engine has open is refused with StoreInUse, which names that engine's process."
    )
    async def test_a_store_that_is_open_already_is_refused_and_its_process_named(self) -> None:
        async with self.opened() as first:
            second = self.make_store()
            with pytest.raises(StoreInUse, match=str(os.getpid())) as refused:
                await second.open()
            assert refused.value.pid == os.getpid()
            await second.close()
            await make(first, accept_run()[2])
        async with self.opened():
            pass

    @promise("Store.close: What was applied is durable already; closing twice does nothing.")
    async def test_closing_twice_does_nothing_and_a_closed_store_takes_nothing(self) -> None:
        store = self.make_store()
        await store.close()
        await store.open()
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.apply([accept_run()[2]])
        with pytest.raises(StoreUnavailable):
            await store.counts()

    @promise(
        "Store: When `apply` returns, its changes survive the death of the process and of the machine's power.",
        "Store.apply: Make changes durable in one transaction; return a result for each, in their order.",
        "Store.apply: Without changes it only finds out whether the store can be written, and raises where it can't.",
        "Store.close: What was applied is durable already; closing twice does nothing.",
    )
    async def test_what_was_applied_survives_without_a_close(self) -> None:
        applied = []
        async with self.opened() as store:
            for _ in range(20):
                _, run, change = accept_run()
                await make(store, change, start(run))
                applied.append(run.id)
            self.lose_power()
            async with self.opened() as found:
                assert {run.id for run in await found.running()} == set(applied)
                assert await found.check() == []

    @promise("Store.apply: Make changes durable in one transaction; return a result for each, in their order.")
    async def test_apply_returns_a_result_for_each_change_in_their_order(self) -> None:
        first, second, third = an_event(key="one"), an_event(), an_event(key="one")
        run = a_run(second)
        unknown = a_run(second)
        async with self.opened() as store:
            assert await store.apply([]) == []
            results = await store.apply(
                [
                    accept(an_entry(first), an_entry(second, run)),
                    start(unknown),
                    start(run),
                    accept(an_entry(third)),
                    finish(run),
                ]
            )
            assert [answer.event for answer in answers(results[0])] == [first.id, second.id]
            assert [answer.runs for answer in answers(results[0])] == [(), (run.id,)]
            assert isinstance(results[1], Conflict)
            assert results[2] is None
            assert answers(results[3])[0].duplicate
            assert results[4] is None

    @promise("Store: When it raises StoreUnavailable, none of them was made, and the same call may be made again.")
    async def test_what_a_store_refuses_leaves_nothing_and_can_be_applied_again(self) -> None:
        event, run, change = accept_run()
        async with self.opened() as store:
            async with self.refuse_writes(store):
                for _ in range(2):
                    with pytest.raises(StoreUnavailable):
                        await store.apply([change, start(run)])
                assert await store.event(event.id) is None
                assert await store.run(run.id) is None
            await make(store, change, start(run))
            found = await store.run(run.id)
            assert found is not None
            assert found.state is RunState.RUNNING
            assert await store.check() == []

    @promise("Store.tidy: Start to tidy up; called when nothing waits to be written.")
    async def test_tidying_up_changes_nothing_that_can_be_read(self) -> None:
        async with self.opened() as store:
            made = [accept_run() for _ in range(500)]
            await make(store, *(change for _, _, change in made))
            before = await store.runs(RunFilter(), limit=1000)
            store.tidy()
            store.tidy()
            await make(store, *(start(run) for _, run, _ in made[:10]))
            assert len(await store.runs(RunFilter(), limit=1000)) == len(before) == 500
            assert len(await store.running()) == 10
            store.tidy()
            assert await store.check() == []
        store.tidy()

    async def _keep_something(self) -> str:
        """Let a store keep enough that it fills more than one page; return the id of a run."""
        async with self.opened() as store:
            _, run, change = accept_run()
            await make(store, change, *(accept_run()[2] for _ in range(KEPT_RUNS - 1)), start(run), finish(run))
        return run.id
