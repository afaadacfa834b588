"""Cases on what follows from the end of a run, in the same change."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

import anyio
import pytest

from engine.errors import Conflict, StoreUnavailable
from engine.events import Accepted, EventOutcome
from engine.runs import Run, RunState
from engine.store.base import EventFilter, RunFilter, Store
from engine.store.changes import Accept, Change, End, Finish
from engine.testing.store_contract.material import (
    a_join,
    a_run,
    accept,
    accept_run,
    an_entry,
    an_event,
    answers,
    enqueue,
    finish,
    make,
    start,
    step,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

_SAME_CHANGE = (
    "Store: The events that follow from a run's end (`then` of `Finish` and `End`) are accepted in the same change as "
    "the end: neither is there without the other."
)
_ANSWERS = "Store: The change's result is the answers of these events."


async def _running(store: Store) -> Run:
    _, run, accepted = accept_run()
    await make(store, accepted, start(run))
    return run


def _finish(run: Run, then: Accept) -> Finish:
    return finish(run, then=then)


class FollowingCases(Place):
    """**Follow-ups** of the contract."""

    @pytest.mark.parametrize("others", [0, 1], ids=["alone", "among others"])
    @pytest.mark.parametrize("waiting", [False, True], ids=["Finish", "End"])
    @promise(_SAME_CHANGE, _ANSWERS)
    async def test_the_end_of_a_run_and_what_follows_from_it_are_there_together(
        self, store: Store, waiting: bool, others: int
    ) -> None:
        run = await _running(store)
        change: Change
        event, follow_up, then = accept_run(trigger="after")
        if waiting:
            _, run, accepted = accept_run()
            await make(store, accepted)
            change = End(run=run.id, step=step(RunState.CANCELLED), then=then)
        else:
            change = _finish(run, then)
        beside = [accept_run()[2] for _ in range(others)]
        result, *_ = await make(store, change, *beside)
        assert answers(result) == [Accepted(event=event.id, runs=(follow_up.id,), outcomes=then.entries[0].outcomes)]
        ended = await store.run(run.id)
        assert ended is not None
        assert ended.state is (RunState.CANCELLED if waiting else RunState.SUCCEEDED)
        assert await store.run(follow_up.id) == follow_up
        assert await store.event(event.id) is not None
        assert (await store.ledger()).missing == ()

    @promise(_SAME_CHANGE)
    async def test_nothing_follows_from_an_end_that_can_not_be(self, store: Store) -> None:
        run = await _running(store)
        await make(store, finish(run))
        event, follow_up, then = accept_run(trigger="after")
        (result,) = await store.apply([_finish(run, then)])
        assert isinstance(result, Conflict)
        assert run.id in str(result)
        assert await store.event(event.id) is None
        assert await store.run(follow_up.id) is None

    @promise(_SAME_CHANGE)
    async def test_a_run_does_not_end_without_what_follows_from_it(self, store: Store) -> None:
        run = await _running(store)
        window = an_event()
        gone = a_run(window, state=RunState.PENDING, window="w")
        await make(store, accept(an_entry(window, gone)), enqueue(gone))
        late, (_, other, beside) = an_event(), accept_run()
        joining = accept(an_entry(late, joins=[a_join(late, gone)]))
        results = await store.apply([_finish(run, joining), beside])
        assert isinstance(results[0], Conflict)
        assert gone.id in str(results[0])
        assert answers(results[1])[0].runs == (other.id,)
        still = await store.run(run.id)
        assert still is not None
        assert still.state is RunState.RUNNING
        assert await store.event(late.id) is None
        # Decided anew, it can be made.
        _, follow_up, then = accept_run(trigger="after")
        await make(store, _finish(run, then))
        assert await store.run(follow_up.id) == follow_up

    @promise(_SAME_CHANGE, _ANSWERS)
    async def test_a_follow_up_may_join_a_pending_run(self, store: Store) -> None:
        run = await _running(store)
        window = an_event()
        pending = a_run(window, state=RunState.PENDING, window="w")
        joining = an_event()
        (_, result) = await make(
            store,
            accept(an_entry(window, pending)),
            _finish(run, accept(an_entry(joining, joins=[a_join(joining, pending)]))),
        )
        assert answers(result)[0].runs == (pending.id,)
        found = await store.run(pending.id)
        assert found is not None
        assert (found.event, found.event_count) == (joining.id, 2)

    @promise(_SAME_CHANGE, _ANSWERS)
    async def test_a_run_ends_also_where_what_follows_came_before(self, store: Store) -> None:
        run = await _running(store)
        first, again = an_event("jobs", run.id), an_event("jobs", run.id)
        made, never = a_run(first, trigger="after"), a_run(again, trigger="another")
        await make(store, accept(an_entry(first, made)))
        (result,) = await make(store, _finish(run, accept(an_entry(again, never))))
        assert [(answer.event, answer.duplicate) for answer in answers(result)] == [(first.id, True)]
        ended = await store.run(run.id)
        assert ended is not None
        assert ended.state is RunState.SUCCEEDED
        assert await store.run(never.id) is None

    @promise(_SAME_CHANGE)
    async def test_a_follow_up_whose_run_is_there_is_deduplicated_and_the_run_ends(self, store: Store) -> None:
        run = await _running(store)
        first, again = an_event("jobs", "k"), an_event("others", "k")
        made, never = a_run(first, trigger="after"), a_run(again, trigger="after")
        await make(store, accept(an_entry(first, made)))
        (result,) = await make(store, _finish(run, accept(an_entry(again, never))))
        assert [outcome.outcome for outcome in answers(result)[0].outcomes] == [EventOutcome.DEDUPLICATED]
        assert await store.run(never.id) is None

    @promise(_SAME_CHANGE)
    async def test_power_loss_leaves_both_or_neither(self, store: Store) -> None:
        run = await _running(store)
        _, follow_up, then = accept_run(trigger="after")
        await make(store, _finish(run, then))
        self.lose_power()
        async with self.opened() as found:
            ended = await found.run(run.id)
            assert ended is not None
            assert ended.state is RunState.SUCCEEDED
            assert await found.run(follow_up.id) == follow_up

    @promise(_SAME_CHANGE)
    async def test_a_store_that_refuses_takes_neither(self, store: Store) -> None:
        run = await _running(store)
        event, _, then = accept_run(trigger="after")
        async with self.refuse_writes(store):
            with pytest.raises(StoreUnavailable), anyio.fail_after(30):
                await store.apply([_finish(run, then)])
        still = await store.run(run.id)
        assert still is not None
        assert still.state is RunState.RUNNING
        assert await store.event(event.id) is None
        assert len(await store.runs(RunFilter(), limit=10)) == 1
        assert len(await store.events(EventFilter(), limit=10)) == 1
