"""Cases on what the queue, the timeline and a start after a crash read."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from datetime import datetime

import pytest

from engine.events import Event
from engine.runs import Lane, Origin, Run, RunState
from engine.store.base import HeldPlace, QueuePlace, Store
from engine.testing.store_contract.material import (
    a_join,
    a_run,
    accept,
    accept_run,
    an_entry,
    an_event,
    at,
    end,
    enqueue,
    finish,
    hold,
    make,
    start,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

_HEAD = (
    "Store.queue_head: Return at most `limit` queued runs of a job with their latest events, in queue "
    "order, from a "
    "place on."
)
_AFTER = "Store.queue_head: `after` None means from the head; the run at `after` itself is not returned."
_DUE = "Store.due: Return at most `limit` pending, retrying and held runs with their due times, the earliest first."
_NO_DUE = "Store.due: Those that have none are left out."
_HELD = (
    "Store.held: Return at most `limit` held runs of a trigger (None: of any), in the order of `HeldPlace`, from a "
    "place on."
)
_HELD_COUNTS = "Store.held_counts: Return how many runs are held, by trigger; those without any are left out."
_LATER = "Store.due: `after` None means from the earliest on, else those later than that due time and id."


def _held_place(run: Run) -> HeldPlace:
    return HeldPlace(run.trigger, run.rank, run.id)


class QueueingCases(Place):
    """What the queue's reads of the contract return."""

    @promise(_HEAD, _AFTER, "QueuePlace: A place in a job's queue: rank first, then id.")
    async def test_the_queue_is_read_by_rank_and_id_in_pages(self, store: Store) -> None:
        made: list[tuple[Event, Run]] = []
        for rank in (5, -3, 5, 9, 5, -(2**60), 2**60):
            event, run, change = accept_run(rank=rank)
            await make(store, change)
            made.append((event, run))
        await make(store, accept_run(job="other", rank=-100)[2], accept_run(state=RunState.HELD)[2])
        _, taken, change = accept_run(rank=-50)
        await make(store, change, start(taken))
        made.sort(key=lambda pair: QueuePlace(pair[1].rank, pair[1].id))
        expected = [(run, event) for event, run in made]
        assert await store.queue_head("oven", after=None, limit=100) == expected
        assert await store.queue_head("oven", after=None, limit=3) == expected[:3]
        for place, (run, _) in enumerate(expected):
            after = QueuePlace(run.rank, run.id)
            assert await store.queue_head("oven", after=after, limit=2) == expected[place + 1 : place + 3]
        assert await store.queue_head("none", after=None, limit=5) == []

    @promise(_HEAD)
    async def test_a_queued_run_comes_with_its_latest_event(self, store: Store) -> None:
        first, last = an_event(data=1), an_event(data=2)
        run = a_run(first, state=RunState.PENDING, window="w")
        joining = an_entry(last, joins=[a_join(last, run)])
        await make(store, accept(an_entry(first, run)), accept(joining), enqueue(run))
        assert [event for _, event in await store.queue_head("oven", after=None, limit=5)] == [last]

    @promise(
        "Store.line: Return at most `limit` queued runs of these lanes, of all jobs, in queue order, from a place on.",
        "Store.line: `after` None means from the head.",
        "Store.line: The cost grows with the limit and the number of jobs, not with what waits.",
        "Store.ahead: Return, for each job that has any, how many queued runs of these lanes stand before a place; "
        "None: all.",
    )
    async def test_the_line_is_what_is_queued_of_all_jobs_in_one_order(self, store: Store) -> None:
        expected: list[Run] = []
        for rank, job, origin in (
            (5, "oven", Origin.EVENT), (1, "mill", Origin.MANUAL), (3, "oven", Origin.SCHEDULE),
            (2, "mill", Origin.EVENT),
            (0, "mill", Origin.BACKFILL), (5, "oven", Origin.EVENT),
        ):  # fmt: skip
            _, run, change = accept_run(job=job, origin=origin, rank=rank)
            await make(store, change, accept_run(job=job, state=RunState.HELD)[2])
            if origin is not Origin.BACKFILL:
                expected.append(run)
            else:
                late = run
        expected.sort(key=lambda run: QueuePlace(run.rank, run.id))
        front = [lane for lane in Lane if lane is not Lane.BACKFILL]
        assert await store.line(lanes=front, limit=9) == expected
        assert await store.line(lanes=front, limit=2) == expected[:2]
        assert await store.line(lanes=list(Lane), limit=9) == [late, *expected]
        assert await store.line(lanes=[Lane.BACKFILL], limit=9) == [late]
        for place, run in enumerate(expected):
            here = QueuePlace(run.rank, run.id)
            assert await store.line(lanes=front, after=here, limit=3) == expected[place + 1 : place + 4]
            before = await store.ahead(lanes=front, before=here)
            assert sum(before.values()) == place
        assert await store.ahead(lanes=front) == {"oven": 3, "mill": 2}
        assert await store.ahead(lanes=[Lane.BACKFILL]) == {"mill": 1}

    @promise(
        "Store.in_the_way: Return, for each of the jobs, its runs that wait for another attempt, and those by due "
        "instants that wait.",
        "Store.in_the_way: At most `limit` of each job, the oldest first; at a cost that does not grow with what else "
        "waits.",
    )
    async def test_what_may_be_in_the_way_is_read_by_job(self, store: Store) -> None:
        expected: dict[str, list[Run]] = {"oven": [], "mill": []}
        for job in ("oven", "mill", "oven", "other"):
            for state in (RunState.QUEUED, RunState.HELD, RunState.PENDING):
                _, due, change = accept_run(job=job, state=state, origin=Origin.SCHEDULE)
                await make(store, change, accept_run(job=job, state=state)[2])
                if job in expected and state is not RunState.PENDING:
                    expected[job].append(due)
        _, tried, change = accept_run(job="mill")
        await make(store, change, start(tried), finish(tried, RunState.RETRYING))
        _, running, change = accept_run(job="mill", origin=Origin.SCHEDULE)
        await make(store, change, start(running))
        _, over, change = accept_run(job="mill", origin=Origin.SCHEDULE)
        await make(store, change, end(over))
        found = await store.in_the_way(["oven", "mill"], limit=100)
        assert [run.id for run in found] == [run.id for run in expected["oven"] + expected["mill"]] + [tried.id]
        assert found[-1].state is RunState.RETRYING
        assert [run.id for run in await store.in_the_way(["oven"], limit=2)] == [run.id for run in expected["oven"][:2]]
        assert await store.in_the_way([], limit=2) == []

    @promise(
        "Store.queued_jobs: Return the names of all jobs that have queued runs in a lane, at a cost that does not grow "
        "with their number."
    )
    async def test_the_jobs_with_queued_runs_are_named_once_each(self, store: Store) -> None:
        assert await store.queued_jobs() == []
        for job in ("b", "a", "b", "Z", "ä", "a.1"):
            await make(store, accept_run(job=job)[2])
        await make(store, accept_run(job="held", state=RunState.HELD)[2])
        _, run, change = accept_run(job="gone")
        await make(store, change, end(run))
        found = await store.queued_jobs()
        assert sorted(found) == sorted({"a", "b", "Z", "ä", "a.1"})

    @promise(
        "Store.waiting: Return how many runs of each trigger wait: are pending, queued, held or retrying.",
        "Store.waiting: Reads all of these.",
    )
    async def test_what_waits_is_counted_by_trigger(self, store: Store) -> None:
        assert await store.waiting() == {}
        for state in (RunState.PENDING, RunState.QUEUED, RunState.HELD):
            for origin in (Origin.EVENT, Origin.MANUAL, Origin.BACKFILL):
                await make(store, accept_run(state=state, origin=origin, trigger=f"on-{state}")[2])
        _, tried, change = accept_run(trigger="tried")
        await make(store, change, start(tried), finish(tried, RunState.RETRYING))
        _, going, change = accept_run(trigger="going")
        await make(store, change, start(going))
        _, over, change = accept_run(trigger="over")
        await make(store, change, end(over))
        assert await store.waiting() == {"on-pending": 3, "on-queued": 3, "on-held": 3, "tried": 1}

    @promise(_DUE, _LATER, _NO_DUE)
    async def test_what_waits_for_its_time_is_read_earliest_first_in_pages(self, store: Store) -> None:
        expected: list[tuple[datetime, str]] = []
        for seconds in (30, 10, 20, 10, 40):
            _, run, change = accept_run(state=RunState.PENDING, due_at=at(seconds))
            await make(store, change)
            expected.append((at(seconds), run.id))
        for seconds in (7, 35):
            _, run, change = accept_run()
            await make(store, change, start(run), finish(run, RunState.RETRYING, due_at=at(seconds)))
            expected.append((at(seconds), run.id))
        for seconds in (5, 25):
            _, run, change = accept_run()
            await make(store, change, hold(run, at(seconds)))
            expected.append((at(seconds), run.id))
        _, run, change = accept_run(state=RunState.PENDING, due_at=at(1))
        _, held, other = accept_run()
        await make(store, change, enqueue(run), accept_run()[2], other, hold(held))
        expected.sort()

        async def read(after: tuple[datetime, str] | None, limit: int) -> list[tuple[datetime, str]]:
            found = await store.due(after=after, limit=limit)
            assert all(run.state in (RunState.PENDING, RunState.RETRYING, RunState.HELD) for _, run in found)
            assert all(run.due_at == due_at for due_at, run in found)
            return [(due_at, run.id) for due_at, run in found]

        assert await read(None, 100) == expected
        assert await read(None, 2) == expected[:2]
        for place, known in enumerate(expected):
            assert await read(known, 3) == expected[place + 1 : place + 4]
        assert await read((at(20), ""), 100) == [pair for pair in expected if pair[0] >= at(20)]

    @promise(_HELD, _HELD_COUNTS, "HeldPlace: A place among the held runs: by trigger, then by rank, then by id.")
    async def test_held_runs_are_read_by_trigger_and_rank_in_pages(self, store: Store) -> None:
        made: list[Run] = []
        for trigger, rank in (("b", 5), ("a", 9), ("b", -3), ("a", 9), ("b", 5)):
            _, run, change = accept_run(trigger=trigger, rank=rank)
            await make(store, change, hold(run, at(9) if rank == 9 else None))
            made.append(run)
        _, ended, change = accept_run(trigger="a")
        _, ready, other = accept_run(trigger="c")
        await make(store, change, hold(ended), end(ended), other, hold(ready), enqueue(ready), accept_run()[2])
        made.sort(key=_held_place)
        expected = [run.id for run in made]

        async def read(trigger: str | None, after: Run | None, limit: int) -> list[str]:
            found = await store.held(trigger, after=None if after is None else _held_place(after), limit=limit)
            assert all(run.state is RunState.HELD for run in found)
            return [run.id for run in found]

        for name in (None, "a", "b"):
            mine = [run for run in made if name in (None, run.trigger)]
            assert await read(name, None, 100) == [run.id for run in mine]
            assert await read(name, None, 2) == [run.id for run in mine][:2]
            for place, run in enumerate(mine):
                assert await read(name, run, 2) == [each.id for each in mine[place + 1 : place + 3]]
        assert await read("c", None, 5) == []
        assert expected == await read(None, None, 5)
        assert await store.held_counts() == {"a": 2, "b": 3}

    @promise("Store.open_windows: Return all pending runs whose window (of a debounce, a batch or a join) is open.")
    async def test_open_windows_are_those_of_pending_runs(self, store: Store) -> None:
        _, gathering, change = accept_run(state=RunState.PENDING, window="w", closes_at=at(60))
        _, closed, other = accept_run(state=RunState.PENDING, window="w", trigger="t")
        without = accept_run(state=RunState.PENDING)[2]
        _, retried, last = accept_run(state=RunState.PENDING, window="v")
        await make(store, change, other, without, last, enqueue(closed))
        await make(store, start(retried), finish(retried, RunState.RETRYING))
        assert await store.open_windows() == [gathering]

    @pytest.mark.parametrize("reopened", [False, True], ids=["while open", "opened again"])
    @promise("Store.running: Return all running runs.")
    async def test_running_runs_are_all_found(self, reopened: bool) -> None:
        async with self.opened() as store:
            running = []
            for _ in range(5):
                _, run, change = accept_run()
                await make(store, change, accept_run()[2], accept_run(state=RunState.HELD)[2], start(run))
                running.append(run.id)
            await make(store, finish(run))
            if not reopened:
                assert {run.id for run in await store.running()} == set(running[:-1])
        async with self.opened() as store:
            assert {run.id for run in await store.running()} == set(running[:-1])
