"""Backfills: each open one makes runs as its earlier ones end, until all its instants have had theirs.

A backfill's place moves in the commit that makes its instants events with their runs. So a crash neither loses nor
doubles one, and the next start goes on where the store says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from engine.backfill.planning import Planning
from engine.backfill.work import Next, Work, progress_of
from engine.backfills import (
    TURNS,
    Backfill,
    BackfillPlan,
    BackfillProgress,
    BackfillRequest,
    BackfillState,
    id_of_run,
)
from engine.clock import LONGEST_SLEEP_S, Clock, rfc3339, sleep_or_wake
from engine.decide.rules import Rule
from engine.errors import Conflict, EngineError, NotFound, StoreDamaged, StoreUnavailable
from engine.events import Accepted, Event
from engine.ids import new_id
from engine.runs import ENDED, WAITING, Run, RunState, Step
from engine.store.base import Store
from engine.store.changes import Accept, BeginBackfill, MoveBackfill, TurnBackfill
from engine.triggers import Pause

log = logging.getLogger("engine.backfill")

EVENT_TYPE = "engine.timer"
"""A backfilled instant is an event as its timer makes it."""

RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
HOLD_S = 5.0
"""How often it is looked whether what holds a backfill is over."""

MOST_OPEN = 100
"""Backfills that may be open at once."""

Emit = Callable[[str, Sequence[Event], MoveBackfill, str], Awaitable[list[Accepted]]]
Submit = Callable[[Accept], asyncio.Future[Any]]
EndWaiting = Callable[[Run, Step], Awaitable[bool]]


class Backfills:
    """All backfills.

    `emit` makes instants of a trigger durable with the backfill's new place, `submit` a change without events, and
    `end_waiting` the end of a run that waits. `pause_of` tells whether a trigger is paused.
    """

    def __init__(
        self, *, clock: Clock, store: Store, rules: Mapping[str, Rule], pause_of: Callable[[str], Pause | None],
        emit: Emit, submit: Submit, end_waiting: EndWaiting,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._rules = rules
        self._pause_of = pause_of
        self._emit = emit
        self._submit = submit
        self._end_run = end_waiting
        self._planning = Planning(clock=clock, store=store, rules=rules)
        self._works: dict[str, Work] = {}
        self._group: TaskGroup | None = None

    async def run(self, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """Go on with the open backfills until cancelled. Ready when they are known."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                for backfill in await self._store.open_backfills():
                    self._take_up(backfill)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._group = None

    # What others ask

    async def plan(self, request: BackfillRequest) -> BackfillPlan:
        """Return what a backfill would run; see `Planning.plan` for what is raised."""
        return await self._planning.plan(request)

    async def begin(self, request: BackfillRequest, *, request_id: str | None = None) -> BackfillProgress:
        """Begin a backfill; it is durable when this returns, and goes on by itself, also after a restart.

        A `request_id` that came before begins no second one: what it began is returned.

        Raises what `plan` raises, and Conflict where too many are open, the engine does not run, or the request id
        began a backfill of another trigger.
        """
        if request_id is not None and (known := await self._store.backfill_of_request(request_id)) is not None:
            return await self._begun_before(known, request)
        if self._group is None:
            raise Conflict("the engine does not run backfills now: it starts or stops")
        if len(self._works) >= MOST_OPEN:
            raise Conflict(f"{len(self._works)} backfills are open, which is as many as there may be")
        plan = await self._planning.plan(request)
        backfill = Backfill(
            id=new_id(), trigger=plan.trigger, from_at=plan.from_at, to_at=plan.to_at, timezone=plan.timezone,
            max_parallel=request.max_parallel, order=request.order, only_missing=request.only_missing,
            skipped=len(plan.skipped), reason=request.reason, state_reason="running: it was asked for",
            total=len(plan.instants), created_at=self._clock.now(), request=request_id,
        )  # fmt: skip

        def take(stored: asyncio.Future[Any]) -> None:
            # Also where whoever asked has gone meanwhile.
            if stored.exception() is None:
                self._take_up(backfill)

        change = BeginBackfill(backfill=backfill, instants=plan.instants)
        stored = self._submit(Accept(entries=(), backfill=change))
        stored.add_done_callback(take)
        try:
            await stored
        except Conflict:
            # The same request, twice at the same time.
            if request_id is None or (known := await self._store.backfill_of_request(request_id)) is None:
                raise
            return await self._begun_before(known, request)
        log.info(
            "Backfill of trigger %s from %s to %s begins: instants %d", backfill.trigger, rfc3339(backfill.from_at),
            rfc3339(backfill.to_at), backfill.total, extra={"action": "backfill_begun", "backfill": backfill.id},
        )  # fmt: skip
        return await self.get(backfill.id)

    async def _begun_before(self, known: Backfill, request: BackfillRequest) -> BackfillProgress:
        if known.trigger != request.trigger:
            raise Conflict(
                f"the request id {known.request} has begun a backfill of trigger {known.trigger}; give each request "
                "its own"
            )
        return await self._progress(known)

    async def get(self, backfill_id: str) -> BackfillProgress:
        """Return a backfill and how far it has come; raise NotFound, StoreUnavailable."""
        work = self._works.get(backfill_id)
        backfill = await self._store.backfill(backfill_id) if work is None else work.backfill
        if backfill is None:
            raise NotFound(f"there is no backfill {backfill_id}")
        return await self._progress(backfill)

    async def ended(self, backfill_id: str) -> BackfillProgress:
        """Wait until a backfill has ended, however long it takes, and return it.

        Raises NotFound, Conflict where the engine stops before, and StoreUnavailable.
        """
        if (work := self._works.get(backfill_id)) is not None:
            await work.over.wait()
            if work.backfill.is_open:
                raise Conflict(f"the engine stopped before backfill {backfill_id} had ended")
        return await self.get(backfill_id)

    async def page(self, *, limit: int, before: str | None = None) -> list[BackfillProgress]:
        """Return at most `limit` backfills, the newest first; those before the id `before` where it is given."""
        return [await self._progress(one) for one in await self._store.backfills(limit=limit, before=before)]

    async def pause(self, backfill_id: str, *, reason: str = "") -> BackfillProgress:
        """Have a backfill make no more runs until it is resumed, durably; those that it has made go on.

        Raises NotFound, Conflict where it has ended or is being cancelled, and StoreUnavailable.
        """
        return await self._turn(backfill_id, BackfillState.PAUSED, f"paused: {reason}" if reason else "paused by hand")

    async def resume(self, backfill_id: str) -> BackfillProgress:
        """Let a paused backfill go on, durably; raises as `pause` does."""
        return await self._turn(backfill_id, BackfillState.RUNNING, "running: it was resumed")

    async def cancel(self, backfill_id: str, *, reason: str = "") -> BackfillProgress:
        """Have a backfill make no more runs for good, durably. Those that wait are ended, those that run go on.

        It is `cancelled` once the last has ended. Raises as `pause` does.
        """
        said = f"cancelled: {reason}" if reason else "cancelled by hand"
        return await self._turn(backfill_id, BackfillState.CANCELLING, said)

    def note_end(self, run: Run, step: Step) -> None:
        """Hear how a backfill's run, or an attempt of it, ended."""
        work = self._works.get(id_of_run(run))
        if work is None:
            return
        if step.state in ENDED:
            work.note_end(run.id)
        elif work.backfill.state is BackfillState.CANCELLING:
            # It waits for its next attempt, which it shall not have.
            work.wake()

    def look_again(self) -> None:
        """Look at once whether what held backfills is over: a pause, a trigger that was not there."""
        for work in self._works.values():
            work.wake()

    def status(self) -> dict[str, Any]:
        """Return how many are open, by state, and what holds them."""
        states = [work.backfill.state for work in self._works.values()]
        holds = {work.backfill.id: work.holds for work in self._works.values() if work.holds is not None}
        counts = {state.value: states.count(state) for state in BackfillState if state in states}
        return {"open": len(states), "states": counts, "held": holds}

    # One backfill

    def _take_up(self, backfill: Backfill) -> None:
        if self._group is None:
            return  # the next start finds it
        work = self._works[backfill.id] = Work(backfill, self._clock)
        self._group.start_soon(self._follow, work, name=f"backfill {backfill.id} {backfill.trigger}")

    async def _follow(self, work: Work) -> None:
        try:
            await self._go_on(work)
        finally:
            work.over.set()

    async def _go_on(self, work: Work) -> None:
        """Do what a backfill needs until it has ended, however often the store is away."""
        pause_s, looks_at_store = RETRY_S, True
        while work.backfill.is_open:
            work.changed = anyio.Event()
            try:
                if looks_at_store:
                    await self._look(work)
                looks_at_store = await self._do(work)
                pause_s = RETRY_S
            except StoreDamaged:
                return
            except EngineError as error:
                if not isinstance(error, StoreUnavailable):
                    log.exception(
                        "Backfill %s can't go on; trying again", work.backfill.id,
                        extra={"action": "backfill_failed", "backfill": work.backfill.id},
                    )  # fmt: skip
                work.holds, looks_at_store = str(error), True
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_RETRY_S)
        del self._works[work.backfill.id]

    async def _look(self, work: Work) -> None:
        """Take up from the store where it stands, and which of its runs are open."""
        while True:
            work.changed = anyio.Event()
            stored = await self._store.backfill(work.backfill.id)
            if stored is None:
                raise StoreDamaged(f"backfill {work.backfill.id} is gone from the store")
            if work.instants is None:
                work.instants = await self._store.backfill_instants(stored.id)
            runs = await self._store.backfill_runs(stored)
            if not work.changed.is_set():
                break
            # Something ended or turned while it was read.
        work.backfill, work.open = stored, {run.id for run in runs}

    async def _do(self, work: Work) -> bool:
        """Do what it needs next, or wait; return whether the store has to be looked at before anything else."""
        needed = work.next()
        if needed is Next.EMIT:
            work.holds = self._why_not(work.backfill.trigger)
            if work.holds is None:
                return await self._make_runs(work)
            return not await self._wait(work, HOLD_S)
        work.holds = None
        if needed is Next.END:
            return await self._end(work)
        if needed is Next.WITHDRAW:
            await self._end_waiting(work)
            if work.next() is not Next.WITHDRAW:
                return False
        # What ended unseen is seen in a while.
        return not await self._wait(work, LONGEST_SLEEP_S)

    async def _make_runs(self, work: Work) -> bool:
        """Make the next instants events with their runs, as many as it has room for."""
        backfill = work.backfill
        position = min(backfill.position + work.room, backfill.total)
        events = []
        for instant in (work.instants or ())[backfill.position : position]:
            at = rfc3339(instant)
            events.append(
                Event(type=EVENT_TYPE, subject=backfill.trigger, time=instant, key=at, data={"scheduled_for": at})
            )
        move = MoveBackfill(backfill=backfill.id, before=backfill.position, position=position)
        try:
            answers = await self._emit(backfill.trigger, events, move, backfill.reason)
        except NotFound:
            return False  # its trigger was removed in this moment
        except Conflict:
            # It was paused or cancelled in this moment; or the store is further than we knew.
            await self._look(work)
            if work.backfill == backfill and self._why_not(backfill.trigger) is None:
                raise
            return False
        work.open.update(run for answer in answers for run in answer.runs)
        work.backfill = replace(work.backfill, position=position)
        return False

    async def _end_waiting(self, work: Work) -> None:
        """End the runs of a cancelled backfill that wait."""
        runs = await self._store.backfill_runs(work.backfill)
        work.open = {run.id for run in runs}
        for run in runs:
            if run.state in WAITING:
                reason = f"cancelled: its backfill {work.backfill.id} was"
                step = Step(at=self._clock.now(), state=RunState.CANCELLED, code="backfill_cancelled", reason=reason)
                if await self._end_run(run, step):
                    work.open.discard(run.id)

    async def _end(self, work: Work) -> bool:
        """Bring it to its end, if the store knows of no open run either; return whether it has to look again."""
        counts = await self._store.backfill_counts(work.backfill)
        if not counts.keys() <= ENDED:
            return True
        state, reason = BackfillState.COMPLETED, "completed: every instant had its run"
        if work.backfill.state is BackfillState.CANCELLING:
            state, reason = BackfillState.CANCELLED, work.backfill.state_reason
        try:
            await self._store_turn(work, state, reason, counts)
        except Conflict:
            return True  # it was cancelled in this moment
        ended = ", ".join(f"{state} {count}" for state, count in sorted(counts.items())) or "no runs"
        log.info(
            "Backfill of trigger %s is %s: %s", work.backfill.trigger, state, ended,
            extra={"action": "backfill_ended", "backfill": work.backfill.id},
        )  # fmt: skip
        return False

    def _why_not(self, trigger: str) -> str | None:
        """Say why a trigger's backfills wait, or return None."""
        rule = self._rules.get(trigger)
        if rule is None:
            return f"there is no trigger {trigger} any more"
        if rule.disabled is not None:
            return rule.disabled
        pause = self._pause_of(trigger)
        return None if pause is None else pause.said_of(trigger)

    async def _wait(self, work: Work, seconds: float) -> bool:
        """Wait until there may be something to do, or so long; return whether it was the former."""
        await sleep_or_wake(self._clock, seconds, work.changed)
        return work.changed.is_set()

    # Turning

    async def _turn(self, backfill_id: str, state: BackfillState, reason: str) -> BackfillProgress:
        work = self._works.get(backfill_id)
        if work is None:
            ended = await self.get(backfill_id)
            raise Conflict(f"backfill {backfill_id} is {ended.backfill.state}")
        now = work.backfill.state
        if now is state:
            return await self._progress(work.backfill)
        if state not in TURNS[now]:
            raise Conflict(f"backfill {backfill_id} is {now}")
        await self._store_turn(work, state, reason)
        log.info("Backfill %s: %s", backfill_id, reason, extra={"action": "backfill_turned", "backfill": backfill_id})
        return await self._progress(work.backfill)

    def _store_turn(
        self, work: Work, state: BackfillState, reason: str, ends: Mapping[RunState, int] | None = None
    ) -> asyncio.Future[Any]:
        at = self._clock.now()
        turn = TurnBackfill(backfill=work.backfill.id, state=state, at=at, reason=reason, ends=ends)

        def take(stored: asyncio.Future[Any]) -> None:
            # Also where whoever asked has gone meanwhile.
            if stored.exception() is not None:
                return
            work.backfill = replace(work.backfill, state=state, state_reason=reason)
            if ends is not None:
                work.backfill = replace(work.backfill, finished_at=at, ends=ends)
            work.forget_rate()
            work.wake()

        stored = self._submit(Accept(entries=(), backfill=turn))
        stored.add_done_callback(take)
        return stored

    async def _progress(self, backfill: Backfill) -> BackfillProgress:
        counts = await self._store.backfill_counts(backfill) if backfill.is_open else dict(backfill.ends)
        return progress_of(backfill, counts, self._works.get(backfill.id), self._clock.now())
