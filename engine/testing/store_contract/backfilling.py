"""Cases on backfills, and on the lane of the queue that their runs wait in."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from engine.backfills import OPEN_STATES, TURNS, Backfill, BackfillState, Order
from engine.errors import Conflict
from engine.ids import new_id
from engine.runs import Lane, Origin, Run, RunState
from engine.store.base import QueuePlace, Store
from engine.store.changes import Accept, BeginBackfill, MoveBackfill, TurnBackfill
from engine.testing.store_contract.material import (
    NOON,
    a_run,
    accept,
    an_entry,
    an_event,
    answers,
    at,
    end,
    finish,
    make,
    start,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

_TOGETHER = "Store: What an `Accept` does to a backfill is made in the same transaction as its events."
_CONFLICT = (
    "Store: Where the backfill can't take it (its id or request is there already, or it is in another place or state), "
    "the whole `Accept` is a conflict: nothing of it is stored."
)
_SUCCEEDED = (
    "Store.succeeded_instants: Return the due instants of a trigger, from `start` to before `end`, that have run with "
    "success, each with its latest such run."
)
_COUNTS = "Store.succeeded_instants: Runs of the schedule and of backfills count."
_LANES = "Store.queue_head: Runs of backfills are in a lane of their own, all others in the live one."

INSTANTS = (at(-300), at(-200), at(-100))


def a_backfill(**fields: Any) -> Backfill:
    """Make a backfill of three instants."""
    given = {"id": new_id(), "trigger": "bake", "from_at": at(-300), "to_at": NOON, "total": 3, "created_at": NOON}
    return Backfill(**{**given, **fields})


def begin(backfill: Backfill, instants: tuple[datetime, ...] = INSTANTS) -> Accept:
    """Begin a backfill."""
    return Accept(entries=(), backfill=BeginBackfill(backfill=backfill, instants=instants))


def turn(backfill: Backfill, state: BackfillState, **fields: Any) -> Accept:
    """Bring a backfill to another state."""
    change = TurnBackfill(backfill=backfill.id, state=state, at=at(9), reason=f"{state}: a case says so", **fields)
    return Accept(entries=(), backfill=change)


def move(backfill: Backfill, before: int, position: int, run: Run | None = None) -> Accept:
    """Make instants of a backfill events: `run`, where it is given."""
    change = MoveBackfill(backfill=backfill.id, before=before, position=position)
    if run is None:
        return Accept(entries=(), backfill=change)
    event = replace(an_event(source=backfill.source, key=run.key), id=run.event)
    return Accept(entries=(an_entry(event, run),), backfill=change)


def run_of(backfill: Backfill, instant: datetime, **fields: Any) -> Run:
    """Make a run of a backfill."""
    key = f"{backfill.source} {instant.isoformat()}"
    return a_run(
        an_event(key=key), key=key, trigger=backfill.trigger, origin=Origin.BACKFILL, scheduled_for=instant, **fields
    )


class BackfillCases(Place):
    """**Backfills** of the contract, and the lanes of the queue."""

    @promise(
        "Store.backfill: Return a backfill, or None.",
        "Store.backfill_of_request: Return the backfill that a request began, or None.",
        "Store.backfill_instants: Return the instants of a backfill, in the order in which it runs them.",
    )
    async def test_a_backfill_is_read_as_it_was_begun_also_after_a_restart(self) -> None:
        plain = a_backfill()
        whole = a_backfill(
            timezone="Europe/Berlin",
            max_parallel=7,
            order=Order.NEWEST,
            only_missing=True,
            skipped=4,
            reason="ü",
            request="r1",
        )
        async with self.opened() as store:
            await make(store, begin(plain), begin(whole, tuple(reversed(INSTANTS))))
            assert await store.backfill(new_id()) is None
            assert await store.backfill_instants(new_id()) == ()
        async with self.opened() as store:
            assert await store.backfill(plain.id) == plain
            assert await store.backfill(whole.id) == await store.backfill_of_request("r1") == whole
            assert await store.backfill_of_request("r2") is None
            assert await store.backfill_instants(plain.id) == INSTANTS
            assert await store.backfill_instants(whole.id) == tuple(reversed(INSTANTS))

    @promise(
        "Store.backfills: Return at most `limit` backfills, the newest first; those before the id `before` where it is "
        "given.",
        "Store.open_backfills: Return all backfills that have something left to do, the oldest first.",
    )
    async def test_backfills_are_listed_the_newest_first_and_open_ones_apart(self, store: Store) -> None:
        made = [a_backfill(state=state) for state in (*BackfillState, *BackfillState)]
        await make(store, *(begin(one) for one in made))
        newest = list(reversed(made))
        assert await store.backfills(limit=100) == newest
        assert await store.backfills(limit=3) == newest[:3]
        assert await store.backfills(limit=3, before=newest[2].id) == newest[3:6]
        assert await store.open_backfills() == [one for one in made if one.state in OPEN_STATES]

    @promise(_TOGETHER)
    async def test_a_backfill_moves_in_the_commit_of_its_events(self, store: Store) -> None:
        backfill = a_backfill()
        await make(store, begin(backfill))
        first, second = run_of(backfill, INSTANTS[0]), run_of(backfill, INSTANTS[1])
        results = await make(store, move(backfill, 0, 1, first), move(backfill, 1, 2, second))
        assert [answers(result)[0].runs for result in results] == [(first.id,), (second.id,)]
        assert await store.backfill(backfill.id) == replace(backfill, position=2)
        assert await store.run(second.id) == second

    @promise(_TOGETHER)
    async def test_a_backfill_begins_moves_and_turns_in_one_call_in_that_order(self, store: Store) -> None:
        backfill = a_backfill(total=1)
        ends = {RunState.SUCCEEDED: 1}
        await make(
            store, begin(backfill, INSTANTS[:1]), turn(backfill, BackfillState.PAUSED),
            turn(backfill, BackfillState.RUNNING), move(backfill, 0, 1, run_of(backfill, INSTANTS[0])),
            turn(backfill, BackfillState.COMPLETED, ends=ends),
        )  # fmt: skip
        reason = "completed: a case says so"
        expected = replace(
            backfill, position=1, state=BackfillState.COMPLETED, state_reason=reason, finished_at=at(9), ends=ends
        )
        assert await store.backfill(backfill.id) == expected

    @pytest.mark.parametrize("wrong", ["begun twice", "asked for twice", "another place", "paused", "unknown"])
    @promise(_CONFLICT)
    async def test_what_a_backfill_can_not_take_leaves_nothing(self, store: Store, wrong: str) -> None:
        backfill = a_backfill(request="r1")
        await make(store, begin(backfill))
        run = run_of(backfill, INSTANTS[0])
        change = move(backfill, 0, 1, run)
        if wrong == "asked for twice":
            change = replace(change, backfill=begin(a_backfill(request="r1")).backfill)
        elif wrong == "begun twice":
            change = replace(change, backfill=begin(backfill).backfill)
        elif wrong == "another place":
            change = replace(change, backfill=MoveBackfill(backfill=backfill.id, before=1, position=2))
        elif wrong == "paused":
            await make(store, turn(backfill, BackfillState.PAUSED))
        else:
            change = replace(change, backfill=MoveBackfill(backfill=new_id(), before=0, position=1))
        before = await store.backfill(backfill.id)
        beside = accept(an_entry(an_event()))
        (refused, made) = await store.apply([change, beside])
        assert isinstance(refused, Conflict)
        assert len(answers(made)) == 1
        assert await store.run(run.id) is None
        assert await store.event(run.event) is None
        assert await store.backfill(backfill.id) == before

    @pytest.mark.parametrize("state", BackfillState)
    @promise(_CONFLICT)
    async def test_a_backfill_turns_only_as_the_table_says(self, store: Store, state: BackfillState) -> None:
        for then in BackfillState:
            backfill = a_backfill(state=state)
            await make(store, begin(backfill))
            (result,) = await store.apply([turn(backfill, then)])
            found = await store.backfill(backfill.id)
            assert found is not None
            if then in TURNS[state]:
                assert (result, found.state) == ([], then)
            else:
                assert isinstance(result, Conflict)
                assert found == backfill

    @promise(
        "Store.backfill_counts: Return how many runs of a backfill stand in each state.",
        "Store.backfill_runs: Return all runs of a backfill that have not ended.",
    )
    async def test_the_runs_of_a_backfill_are_counted_and_the_open_ones_read(self, store: Store) -> None:
        backfill, other = a_backfill(total=4), a_backfill()
        await make(store, begin(backfill), begin(other))
        runs = [run_of(backfill, at(-400 + n)) for n in range(5)]
        await make(store, *(move(backfill, n, n + 1, run) for n, run in enumerate(runs)))
        await make(store, move(other, 0, 1, run_of(other, INSTANTS[0])))
        await make(store, start(runs[0]), start(runs[1]), start(runs[2]))
        await make(store, finish(runs[0]), finish(runs[1], RunState.RETRYING), end(runs[3]))
        assert await store.backfill_counts(backfill) == {
            RunState.SUCCEEDED: 1, RunState.RETRYING: 1, RunState.RUNNING: 1, RunState.CANCELLED: 1, RunState.QUEUED: 1,
        }  # fmt: skip
        found = await store.backfill_runs(backfill)
        assert {run.id for run in found} == {runs[1].id, runs[2].id, runs[4].id}
        assert runs[4] in found

    @promise(_SUCCEEDED, _COUNTS)
    async def test_instants_that_ran_with_success_are_told_with_their_latest_run(self, store: Store) -> None:
        async def ran(instant: datetime, state: RunState, **fields: Any) -> Run:
            event = an_event()
            run = a_run(event, scheduled_for=instant, **{"origin": Origin.SCHEDULE, "trigger": "bake", **fields})
            await make(store, accept(an_entry(event, run)), start(run), finish(run, state))
            return run

        first = await ran(at(0), RunState.SUCCEEDED)
        await ran(at(60), RunState.FAILED)
        await ran(at(120), RunState.SUCCEEDED)
        again = await ran(at(120), RunState.SUCCEEDED, origin=Origin.BACKFILL)
        await ran(at(180), RunState.SUCCEEDED, origin=Origin.MANUAL)
        await ran(at(180), RunState.SUCCEEDED, trigger="other")
        last = await ran(at(240), RunState.SUCCEEDED)
        found = await store.succeeded_instants("bake", start=at(0), end=at(240))
        assert found == {at(0): first.id, at(120): again.id}
        assert await store.succeeded_instants("bake", start=at(1), end=at(241)) == {
            at(120): again.id, at(240): last.id
        }  # fmt: skip
        assert await store.succeeded_instants("none", start=at(0), end=at(241)) == {}

    @promise(_LANES)
    async def test_runs_of_backfills_wait_in_a_lane_of_their_own(self, store: Store) -> None:
        backfill = a_backfill(total=3)
        await make(store, begin(backfill))
        late = [run_of(backfill, instant, rank=rank) for instant, rank in zip(INSTANTS, (5, 1, 3), strict=True)]
        await make(store, *(move(backfill, n, n + 1, run) for n, run in enumerate(late)))
        event = an_event()
        live = a_run(event, rank=2)
        await make(store, accept(an_entry(event, live)))
        late.sort(key=lambda run: run.rank)

        async def read(lane: Lane, after: QueuePlace | None = None) -> list[Run]:
            return [run for run, _ in await store.queue_head("oven", after=after, limit=10, lane=lane)]

        assert await read(Lane.LIVE) == [live]
        assert await read(Lane.BACKFILL) == late
        assert await read(Lane.BACKFILL, QueuePlace(1, late[0].id)) == late[1:]
        assert (await store.counts())[RunState.QUEUED] == 4
        assert await store.queued_jobs() == await store.queued_jobs(Lane.BACKFILL) == ["oven"]
        await make(store, end(live))
        assert (await store.queued_jobs(), await store.queued_jobs(Lane.BACKFILL)) == ([], ["oven"])
