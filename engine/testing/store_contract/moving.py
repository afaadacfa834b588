"""Cases on how runs move from state to state, and on the order of changes."""
# ruff: noqa: S101 - a suite is assertions

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.errors import Conflict, EngineError
from engine.runs import ENDED, TRANSITIONS, WAITING, Run, RunState
from engine.store.base import Store
from engine.store.changes import ENQUEUEABLE, HOLDABLE, STARTABLE, Adopt, AskCancel, Change, Finish, NoteProcess
from engine.testing.store_contract.material import (
    BOOT,
    a_join,
    a_missed_run,
    a_run,
    accept,
    an_entry,
    an_event,
    answers,
    at,
    end,
    enqueue,
    finish,
    hold,
    make,
    set_priority,
    start,
    step,
)
from engine.testing.store_contract.place import Place
from engine.testing.store_contract.promises import promise

_TRANSITIONS = "Store: A run leaves a state only for one that `engine.runs.TRANSITIONS` allows; what has ended stays."
_ORDER = "Store: Changes take effect in the order in which they are given."
_EACH_FOR_ITSELF = (
    "Store: One that can't be made (its run is unknown, or in a state that forbids it) has an error as "
    "its result, "
    "and no effect; the others are made all the same."
)

MADE_AS = (RunState.PENDING, RunState.QUEUED, RunState.HELD)


async def run_in(store: Store, state: RunState) -> Run:
    """Bring a new run to a state, and return it as it is stored then."""
    event = an_event()
    if state is RunState.MISSED:
        run = a_missed_run(event.id)
        await make(store, accept(missed=[run]))
    elif state in MADE_AS:
        run = a_run(event, state=state)
        await make(store, accept(an_entry(event, run)))
    else:
        run = a_run(event)
        await make(store, accept(an_entry(event, run)))
        if state in TRANSITIONS[RunState.RUNNING]:
            await make(store, start(run), finish(run, state))
        else:
            await make(store, start(run) if state is RunState.RUNNING else end(run, state))
    found = await store.run(run.id)
    assert found is not None
    assert found.state is state
    return found


def changes_of(run: Run) -> list[tuple[Change, frozenset[RunState], RunState]]:
    """Return every change that can be asked of a run, the states that it leaves, and the one it leads to."""
    running = frozenset({RunState.RUNNING})
    every: list[tuple[Change, frozenset[RunState], RunState]] = [
        (enqueue(run), ENQUEUEABLE, RunState.QUEUED),
        (hold(run, at(90)), HOLDABLE, RunState.HELD),
        (start(run), STARTABLE, RunState.RUNNING),
        (NoteProcess(run=run.id, pid=7, started=70), running, RunState.RUNNING),
        (AskCancel(run=run.id, step=step(RunState.RUNNING)), running, RunState.RUNNING),
        (Adopt(run=run.id, step=step(RunState.RUNNING), boot="boot-2"), running, RunState.RUNNING),
        (set_priority(run, 9), WAITING, run.state),
    ]
    every += [(finish(run, state), running, state) for state in sorted(TRANSITIONS[RunState.RUNNING])]
    every += [(end(run, state), WAITING, state) for state in sorted(ENDED)]
    return every


class MovingCases(Place):
    """**Transitions** and **Order** of the contract."""

    @pytest.mark.parametrize("state", list(RunState))
    @promise(_TRANSITIONS, _EACH_FOR_ITSELF)
    async def test_a_run_leaves_a_state_only_as_the_table_allows(self, store: Store, state: RunState) -> None:
        model = await run_in(store, state)
        for place in range(len(changes_of(model))):
            run = model if place == 0 else await run_in(store, state)
            change, leaves, to = changes_of(run)[place]
            (result,) = await store.apply([change])
            found = await store.run(run.id)
            assert found is not None
            if result is None:
                assert state in leaves
                assert found.state is to
                assert to is state or to in TRANSITIONS[state]
            else:
                assert isinstance(result, Conflict), f"{change} from {state}"
                assert run.id in str(result)
                assert found == run
                assert state not in leaves or to not in TRANSITIONS[state]

    @pytest.mark.parametrize("to", sorted(set(RunState) - TRANSITIONS[RunState.RUNNING]))
    @promise(_TRANSITIONS, _EACH_FOR_ITSELF)
    async def test_an_attempt_can_not_finish_in_a_state_that_never_follows(self, store: Store, to: RunState) -> None:
        run, other = await run_in(store, RunState.RUNNING), await run_in(store, RunState.RUNNING)
        results = await store.apply([finish(run, to), finish(other)])
        assert isinstance(results[0], Conflict)
        assert run.id in str(results[0])
        assert results[1] is None
        assert await store.run(run.id) == run

    @pytest.mark.parametrize("to", sorted(set(RunState) - ENDED))
    @promise(_TRANSITIONS, _EACH_FOR_ITSELF)
    async def test_a_waiting_run_can_not_end_in_a_state_that_is_no_end(self, store: Store, to: RunState) -> None:
        run, other = await run_in(store, RunState.QUEUED), await run_in(store, RunState.QUEUED)
        results = await store.apply([end(run, to), end(other)])
        assert isinstance(results[0], Conflict)
        assert results[1] is None
        assert await store.run(run.id) == run

    @promise(_EACH_FOR_ITSELF)
    async def test_an_unknown_run_is_an_error_of_that_change_alone(self, store: Store) -> None:
        unknown = a_run(an_event())
        known = await run_in(store, RunState.QUEUED)
        results = await store.apply([start(unknown), start(known), end(unknown), finish(known), enqueue(unknown)])
        assert [isinstance(result, EngineError) for result in results] == [True, False, True, False, True]
        assert unknown.id in str(results[0])
        assert await store.run(unknown.id) is None
        found = await store.run(known.id)
        assert found is not None
        assert found.state is RunState.SUCCEEDED

    @pytest.mark.parametrize("together", [True, False], ids=["in one call", "one by one"])
    @promise(_ORDER)
    async def test_a_whole_life_is_kept_in_its_order(self, store: Store, together: bool) -> None:
        event, later = an_event(), an_event()
        run = a_run(event, state=RunState.PENDING, window="w", closes_at=at(60))
        life: list[Change] = [
            accept(an_entry(event, run)),
            accept(an_entry(later, joins=[a_join(later, run)])),
            enqueue(run, rank=7),
            start(run, 1),
            NoteProcess(run=run.id, pid=4242, started=99),
            finish(run, RunState.RETRYING, number=1),
            enqueue(run, rank=8),
            start(run, 2, 11),
            finish(run, RunState.SUCCEEDED, number=2, seconds=13, outputs={"loaves": [1, 2]}),
        ]
        if together:
            await make(store, *life)
        else:
            for change in life:
                await make(store, change)
        found = await store.run(run.id)
        assert found is not None
        assert [step.state for step in found.trace] == [
            "pending", "queued", "running", "retrying", "queued", "running", "succeeded",
        ]  # fmt: skip
        assert (found.state, found.code, found.reason) == (
            RunState.SUCCEEDED, "case_succeeded", "succeeded: a case says so",
        )  # fmt: skip
        assert [attempt.number for attempt in found.attempts] == [1, 2]
        assert (found.attempt, found.rank, found.event, found.event_count) == (2, 8, later.id, 2)
        assert (found.started_at, found.finished_at, found.due_at, found.window) == (
            at(11),
            at(13),
            None,
            None,
        )
        assert (found.exit_code, found.outputs) == (0, {"loaves": [1, 2]})
        assert (found.process, found.process_started, found.boot) == (None, None, None)

    @promise(_ORDER)
    async def test_a_process_is_noted_while_the_run_runs(self, store: Store) -> None:
        run = await run_in(store, RunState.QUEUED)
        await make(store, start(run, 3), NoteProcess(run=run.id, pid=4242, started=99))
        found = await store.run(run.id)
        assert found is not None
        assert (found.process, found.process_started, found.boot, found.attempt) == (4242, 99, BOOT, 3)
        assert found.started_at == at(1)

    @pytest.mark.parametrize("state", sorted(WAITING))
    @promise(
        "Store: A waiting run that gets another priority stays in its state, and its rank moves by the ageing for each "
        "step, so that it is as if it had had that priority from the start."
    )
    async def test_a_priority_moves_a_waiting_run_by_the_ageing(self, store: Store, state: RunState) -> None:
        run = await run_in(store, state)
        await make(store, set_priority(run, 9, ageing_us=10), set_priority(run, 7, ageing_us=10))
        found = await store.run(run.id)
        assert found is not None
        assert (found.state, found.code, found.due_at, found.priority) == (state, run.code, run.due_at, 7)
        assert found.rank == run.rank - 2 * 10
        assert [one.code for one in found.trace[-2:]] == [f"case_{state}", f"case_{state}"]
        assert len(found.trace) == len(run.trace) + 2

    @promise(
        "Store: What was asked of a running run stands in its trace, and its code tells it, until its attempt ends."
    )
    async def test_what_is_asked_of_a_running_run_is_told_by_its_code(self, store: Store) -> None:
        run = await run_in(store, RunState.RUNNING)
        asked = step(RunState.RUNNING, 2)
        await make(store, AskCancel(run=run.id, step=asked))
        found = await store.run(run.id)
        assert found is not None
        assert (found.state, found.code, found.trace) == (RunState.RUNNING, asked.code, (*run.trace, asked))
        await make(store, finish(run, RunState.CANCELLED))
        found = await store.run(run.id)
        assert found is not None
        assert found.code == "case_cancelled"

    @promise("Store: A running run that goes on in another engine process is that one's, and its trace tells it.")
    async def test_an_adopted_run_is_of_the_engine_process_that_adopted_it(self, store: Store) -> None:
        run = await run_in(store, RunState.RUNNING)
        adopted = step(RunState.RUNNING, 2)
        await make(store, NoteProcess(run=run.id, pid=7, started=70), Adopt(run=run.id, step=adopted, boot="boot-2"))
        found = await store.run(run.id)
        assert found is not None
        assert (found.state, found.boot, found.started_at) == (RunState.RUNNING, "boot-2", run.started_at)
        assert (found.process, found.process_started, found.trace) == (7, 70, (*run.trace, adopted))
        assert [one.id for one in await store.running()] == [run.id]

    @pytest.mark.parametrize("state", sorted(HOLDABLE))
    @promise(_ORDER)
    async def test_a_held_run_waits_for_no_time_and_can_be_enqueued(self, store: Store, state: RunState) -> None:
        run = await run_in(store, state)
        await make(store, hold(run))
        found = await store.run(run.id)
        assert found is not None
        assert (found.state, found.code, found.due_at, found.window) == (RunState.HELD, "case_held", None, None)
        assert await store.due(after=None, limit=5) == []
        assert await store.queue_head(run.job, after=None, limit=5) == []
        await make(store, enqueue(run, rank=9))
        assert [(one.id, one.rank) for one, _ in await store.queue_head(run.job, after=None, limit=5)] == [(run.id, 9)]

    @promise(_ORDER)
    async def test_an_interrupted_attempt_is_taken_back_and_the_run_queued_again(self, store: Store) -> None:
        run = await run_in(store, RunState.RUNNING)
        back = finish(run, RunState.QUEUED, rank=3)
        back = Finish(run=run.id, step=back.step, attempt=replace(back.attempt, counted=False), attempt_count=0, rank=3)
        await make(store, back)
        found = await store.run(run.id)
        assert found is not None
        assert (found.state, found.attempt, found.rank, found.finished_at) == (RunState.QUEUED, 0, 3, None)
        assert [attempt.counted for attempt in found.attempts] == [False]

    @promise(_ORDER)
    async def test_of_two_changes_that_exclude_each_other_the_first_wins(self, store: Store) -> None:
        one, two = await run_in(store, RunState.QUEUED), await run_in(store, RunState.QUEUED)
        results = await store.apply([start(one), end(one), end(two), start(two)])
        assert [type(result) for result in results] == [type(None), Conflict, type(None), Conflict]
        for run, state in ((one, RunState.RUNNING), (two, RunState.CANCELLED)):
            found = await store.run(run.id)
            assert found is not None
            assert found.state is state

    @promise(_ORDER)
    async def test_what_is_asked_of_a_run_before_it_is_there_can_not_be_made(self, store: Store) -> None:
        event, joining = an_event(), an_event()
        early = a_run(event, trigger="early")
        results = await store.apply([start(early), accept(an_entry(event, early))])
        assert isinstance(results[0], Conflict)
        assert await store.run(early.id) == early
        event = an_event()
        run = a_run(event, state=RunState.PENDING, window="w")
        results = await store.apply(
            [
                start(run),
                accept(an_entry(joining, joins=[a_join(joining, run)])),
                end(run),
                accept(an_entry(event, run)),
            ]
        )
        assert [type(result) for result in results[:3]] == [Conflict, Conflict, Conflict]
        assert answers(results[3])[0].runs == (run.id,)
        assert await store.run(run.id) == run
        assert await store.event(joining.id) is None

    @promise(_ORDER)
    async def test_a_join_comes_too_late_for_a_run_that_moved_on_in_the_same_call(self, store: Store) -> None:
        run = await run_in(store, RunState.PENDING)
        early, late = an_event(), an_event()
        results = await store.apply(
            [
                accept(an_entry(early, joins=[a_join(early, run)])),
                enqueue(run),
                accept(an_entry(late, joins=[a_join(late, run)])),
            ]
        )
        assert answers(results[0])[0].runs == (run.id,)
        assert results[1] is None
        assert isinstance(results[2], Conflict)
        found = await store.run(run.id)
        assert found is not None
        assert (found.event, found.event_count) == (early.id, 2)
