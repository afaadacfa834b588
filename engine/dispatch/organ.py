"""The organ: it counts the slots, and moves runs from the queue through their attempts to their ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from engine.backlog import Backlog
from engine.clock import EPOCH, LONGEST_SLEEP_S, Clock, sleep_or_wake
from engine.decide.attempts import (
    AttemptEnd,
    after_cancel,
    after_cut,
    after_end,
    after_interruption,
    after_replacement,
    timed_out,
)
from engine.decide.expiry import expired, is_over
from engine.decide.gates import bypassed
from engine.decide.lanes import Room
from engine.decide.limits import Slots
from engine.decide.overlap import (
    REPLACES,
    START,
    Action,
    Decision,
    has_begun,
    said_of_place,
    said_of_skip,
)
from engine.decide.priority import rank
from engine.decide.shaping import Windows, after_window, said_of_turn
from engine.dispatch.active import Active, Shaping
from engine.dispatch.deadlines import Deadlines
from engine.dispatch.processes import ProcessNotes
from engine.errors import Conflict, StoreError, StoreUnavailable
from engine.events import Event
from engine.gates import Gates, Hands
from engine.jobs import Job, RetryPolicy
from engine.journal import Journal
from engine.lanes import BackfillLane, Front
from engine.overlaps import Overlaps
from engine.plugin import Outcome
from engine.queue import Queue, Timeline, Waiting
from engine.runs import ENDED, Lane, Origin, Run, RunState, Step
from engine.store.base import QueuePlace, Store
from engine.store.changes import End, Enqueue, Finish, Start
from engine.units import format_span

log = logging.getLogger("engine.dispatch")

RETRY_READ_S = 1.0

MOST_MOVING = 2048
"""While so many runs are on their way from one state to the next, no more of those that are due are taken up."""

Finished = Callable[[Run, Finish | End], Awaitable[Any]]
"""Hands in, before it returns, how an attempt or run ended; what it returns is done when that is durable."""

Execute = Callable[[Run, Job, tuple[Event, ...], Callable[[int], None]], Awaitable[Outcome]]


class Dispatch:
    """The running part of the engine; see `Starter` in `engine.intake` for what intake uses of it.

    Slots are counted here alone: a slot is taken before the change that makes a run running is handed to the
    journal, and given back after the change that ends its attempt was. As the journal keeps the order, the
    store never shows more running runs than slots.
    """

    def __init__(
        self, *, boot: str, clock: Clock, journal: Journal, store: Store, windows: Windows, jobs: Mapping[str,
        Job], execute: Execute, finish: Finished, concurrency: int, ageing_s: float, on_change: Callable[[str], None],
        on_end: Callable[[Run, AttemptEnd], None], limited: Callable[[str, Job], Job],
        on_backfilled: Callable[[Run, Step], None], gates: Gates, shaper: Shaping,
        reserve: Mapping[Lane, int] | None = None, backlog: Backlog | None = None,
    ) -> None:  # fmt: skip
        self.boot = boot
        self._clock = clock
        self._journal = journal
        self._store = store
        self._windows = windows
        self._jobs = dict(jobs)
        self._execute = execute
        self._finish = finish
        self._ageing_s = ageing_s
        self._on_change = on_change
        self._on_end = on_end
        self._on_backfilled = on_backfilled
        self._limited = limited
        self._shaper = shaper
        self._gates = gates
        self._backlog = backlog or Backlog()
        self._slots = Slots(concurrency, reserve)
        for job in jobs.values():
            self._slots.limit(job)
        self._active: dict[str, Active] = {}
        self._moving: set[str] = set()
        self._fewer_moving = asyncio.Event()
        self._queue = Front(self._queue_of(Lane.LIVE), self._queue_of(Lane.MANUAL))
        self._backfills = BackfillLane(clock, self._queue_of(Lane.BACKFILL))
        self._backfill_waits = asyncio.Event()
        self._timeline = Timeline(self._read_due, self._is_active)
        self._overlaps = Overlaps(
            clock=clock, jobs=jobs.values(), queue=self._queue, timeline=self._timeline,
            is_moving=lambda run_id: run_id in self._moving or gates.is_aside(run_id), cancel=self._give_way,
            end=self._end_waiting,
        )  # fmt: skip
        gates.serve(
            Hands(
                offer=self.offer, wait=self.wait, wait_no_more=self._timeline.remove, moves=self._moving.add,
                moved=self._moved, is_active=self._is_active, note_open=self._overlaps.add,
                was_replaced=self._overlaps.was_replaced, end_waiting=self._end_waiting, spawn=self._spawn,
            )
        )  # fmt: skip
        self._timeline_changed = asyncio.Event()
        self._timeline_until = EPOCH
        self._deadlines = Deadlines(clock, self._active, lambda active: self._cancel(active, "timed_out"))
        self._process_notes = ProcessNotes(clock, journal, self._active)
        self._starting = False
        self._paused = False
        self._cancelled: dict[str, str] = {}
        """Those that are stored as running and about to be launched, but cancelled: by whom."""
        self._let_pass: dict[str, str] = {}
        """The runs that start also while the engine is paused, with their jobs."""
        self._group: TaskGroup | None = None
        self._new_scope: Callable[[], anyio.CancelScope] = anyio.CancelScope
        self._runs: asyncio.TaskGroup | None = None
        self._idle = asyncio.Event()

    # What others see

    @property
    def running(self) -> int:
        """How many runs have a slot now."""
        return self._slots.taken

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs by name, as they are now."""
        return self._jobs

    @property
    def concurrency(self) -> int:
        """How many runs may have one."""
        return self._slots.most

    def processes(self) -> list[int]:
        """Return the ids of the processes of all running runs."""
        return [active.process for active in self._active.values() if active.process is not None]

    # Jobs that come while it runs

    def add_job(self, job: Job) -> None:
        """Take in a job, or another version of one: attempts that begin from now on are its."""
        self._jobs[job.name] = job
        self._slots.limit(job)
        self._overlaps.limit(job)
        for active in self._active.values():
            if active.run.job == job.name:
                self._overlaps.add(active.run)  # a job that had no limit begins to count with those that run
        self._queue.unpark(job.name)
        self._backfills.unpark(job.name)
        self.pump()

    # The pause of the engine

    def hold(self, paused: bool) -> None:
        """Start nothing from now on, but what a caller lets pass the pause; or go on. What runs is left alone."""
        self._paused = paused
        if not paused:
            self._let_pass.clear()
            self._backfills.count_anew()
            self.pump()

    # The starter that intake uses

    def claim(self, job: str, lane: Lane, *, past_pause: bool = False) -> bool:
        if (
            not self._starting
            or (self._paused and not past_pause)
            or not self._slots.may_start(job)
            or self._queue.has(job)
            or not self._slots.may_take(lane)
        ):
            return False
        self._slots.take(job, lane)
        return True

    def concern(self, trigger: str) -> bool:
        return self._gates.concern(trigger)

    def meet(
        self, job: str, trigger: str, origin: Origin, *, caught_up: bool = False, without: Collection[str] = ()
    ) -> Decision:
        return self._overlaps.decide(job, trigger, origin, caught_up=caught_up, without=without)

    def expect(self, run: Run) -> None:
        self._overlaps.add(run)

    def withdraw(self, run: Run) -> None:
        self._overlaps.remove(run)

    def release(self, run: Run) -> None:
        self._give_slot(run)
        self.pump()

    def launch(self, run: Run, event: Event) -> None:
        self._begin(run, (event,), started=True)

    def let_pass(self, run: Run) -> None:
        if self._paused:
            self._let_pass[run.id] = run.job

    def offer(self, run: Run, event: Event | None) -> None:
        if run.origin is Origin.BACKFILL:
            self._backfills.offer(run, event)
            self._backfill_waits.set()
        else:
            self._queue.offer(run, event)
        if run.expires_at is not None:
            self._shaper.note_expiry(run.expires_at)
        if self._starting:
            self._overlaps.make_room(run)
        self.pump()

    def wait(self, run: Run) -> None:
        if run.expires_at is not None:
            self._shaper.note_expiry(run.expires_at)
        if run.due_at is not None:
            self._timeline.put(run, run.due_at)
            if run.due_at < self._timeline_until:
                self._timeline_changed.set()

    def hasten(self, run_id: str, due_at: datetime) -> None:
        if not self._timeline.move(run_id, due_at):
            self._spawn(self._take_up, run_id)
        elif due_at < self._timeline_until:
            self._timeline_changed.set()

    async def _take_up(self, run_id: str) -> None:
        """Take in a pending run that lies beyond the window of the timeline and is due earlier now."""
        while True:
            try:
                run = await self._store.run(run_id)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_READ_S)
                continue
            if run is not None and run.state is RunState.PENDING:
                self.wait(run)
            return

    def take_back(self, run: Run, *, waits: bool) -> None:
        """Take back a run that the throttle took on; `waits` tells whether it does so still."""
        self._moved(run.id)
        if waits:
            self.wait(run)

    def expire(self, run: Run, step: Step) -> None:
        """End a run that waits, unless it is on its way to a slot or an end."""
        if self._is_active(run.id):
            return
        self._timeline.remove(run.id)
        self._queue.remove(run.job, run.id)
        window = self._windows.of_run(run.id)
        if window is not None:
            self._windows.close(window)
        self._let_pass.pop(run.id, None)
        self._end_waiting(run, step)

    # What people ask of runs; see `Hands` in `engine.steering`

    async def settled(self, run_id: str) -> None:
        """Return when a run is not on its way from one state to the next."""
        while True:
            active = self._active.get(run_id)
            if active is not None and active.start is not None and not active.start.done():
                await asyncio.wait([active.start])
            elif run_id in self._moving:
                self._fewer_moving.clear()
                await self._fewer_moving.wait()
            else:
                return

    def has_moved(self, run: Run) -> bool:
        """Tell whether a run moves, or has, since it was read."""
        return run.id in self._moving or (run.id in self._active and run.state is not RunState.RUNNING)

    def take_out(self, run: Run, *, for_good: bool) -> None:
        """Take a waiting run from where it waits: until `put_back` nothing starts it.

        With `for_good` it does not gather events any more.
        """
        self._moving.add(run.id)
        if for_good and (window := self._windows.of_run(run.id)) is not None:
            self._windows.close(window)
        if run.origin is Origin.BACKFILL:
            self._backfills.remove(run)
        else:
            self._queue.remove(run.job, run.id)
        self._timeline.remove(run.id)
        self._gates.take_out(run.id)

    def put_back(self, run: Run) -> None:
        """Take in a run that was taken out, as it is stored now."""
        self._moved(run.id)
        replaced = self._overlaps.was_replaced(run.id)
        if run.state in ENDED:
            self._overlaps.remove(run)
            self._let_pass.pop(run.id, None)
            if run.origin is Origin.BACKFILL:
                self._on_backfilled(run, run.trace[-1])
        elif not replaced:
            self._overlaps.add(run)
            if (window := self._windows.of_run(run.id)) is not None:
                window.priority = run.priority
            if run.state is RunState.QUEUED:
                self.offer(run, None)
            else:
                self.wait(run)
        self._on_change(run.id)

    def cut_off(self, run_id: str, said: str, *, at_launch: bool = False) -> bool:
        """End the attempt of a run for good; `said` tells by whom. Return whether it has a slot.

        With `at_launch` it is one that is stored as running, and has none yet.
        """
        active = self._active.get(run_id)
        if active is None:
            if at_launch:
                self._cancelled[run_id] = said
            return False
        active.by = active.by or said
        if active.why == "interrupted":
            active.why = "cancelled"
        self._cancel(active, "cancelled")
        return True

    # Life

    async def run(self, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """Start runs until cancelled. Ready when what waits in the store was taken up."""
        # Found once: to find it anew costs as much as the scope itself.
        self._new_scope = type(anyio.CancelScope())
        # Runs are tasks of asyncio's own: each of anyio's has a scope and an event, which nobody needs here.
        async with asyncio.TaskGroup() as runs:
            try:
                async with anyio.create_task_group() as group:
                    self._group, self._runs = group, runs
                    await self._overlaps.load(self._store)
                    for lane in (Lane.LIVE, Lane.MANUAL):
                        for job in await self._store.queued_jobs(lane):
                            self._queue.of(lane).expect(job)
                    for queue, job in self._queue.low():
                        await queue.refill(job)
                    await self._begin_backfills()
                    await self._timeline.refill()
                    self._starting = True
                    group.start_soon(self._follow_timeline, name="dispatch: timeline")
                    group.start_soon(self._deadlines.follow, name="dispatch: deadlines")
                    group.start_soon(self._process_notes.follow, name="dispatch: processes")
                    group.start_soon(self._follow_backfills, name="dispatch: backfills")
                    group.start_soon(self._gates.run, name="dispatch: gates")
                    self._overlaps.go_on()
                    task_status.started()
                    self.pump()
            finally:
                self._starting = False
                self._group = self._runs = None

    async def drain(self, grace_s: float) -> None:
        """Start nothing more; let what runs end within `grace_s`, then interrupt it and wait for its end.

        An interrupted run is queued again, and its attempt does not count.
        """
        self._starting = False
        ends_s = self._clock.monotonic() + grace_s
        while self._slots.taken and (left_s := ends_s - self._clock.monotonic()) > 0:
            self._idle.clear()
            await sleep_or_wake(self._clock, left_s, self._idle)
        if self._active:
            count = len(self._active)
            log.info("Interrupting %d %s", count, "run" if count == 1 else "runs", extra={"action": "interrupt"})
        for active in list(self._active.values()):
            self._cancel(active, "interrupted")
        while self._slots.taken:
            self._idle.clear()
            await self._idle.wait()

    def stop(self) -> None:
        """End the tasks that `run` holds."""
        if self._group is not None:
            self._group.cancel_scope.cancel()

    # Slots

    def _give_slot(self, run: Run) -> None:
        if run.origin is Origin.BACKFILL:
            self._backfills.ended(run)
        self._slots.give(run.job, run.lane)
        if not self._slots.taken:
            self._idle.set()
        self._queue.unpark(run.job)
        if self._backfills.waiting:
            self._backfills.unpark(run.job)

    def _moved(self, run_id: str) -> None:
        self._moving.discard(run_id)
        self._fewer_moving.set()

    def _is_active(self, run_id: str) -> bool:
        return run_id in self._active or run_id in self._moving or self._gates.is_aside(run_id)

    def pump(self) -> None:
        """Start queued runs while slots are free."""
        if self._paused:
            self._start_past_pause()
            return
        while self._starting and self._slots.taken < self._slots.most:
            if self._backfills.waiting:
                waiting = self._take_beside_backfills()
            else:
                waiting = self._queue.take(self._slots.may_start, self._slots.may_take)
            if waiting is None:
                break
            run = waiting.run
            if run.expires_at is not None and is_over(run, now := self._clock.now()):
                self._end_waiting(run, expired(run, now))
                continue
            seen = self._gates.passed(waiting) if self._gates.gates else ""
            if seen is None:
                if run.origin is Origin.BACKFILL:
                    self._backfills.ended(run)
                continue
            self._slots.take(run.job, run.lane)
            self._start(waiting, seen)
            queue = self._backfills if run.origin is Origin.BACKFILL else self._queue.of(run.lane)
            if queue.is_low(run.job):
                self._spawn(self._refill, queue, run.job)
        else:
            return
        for queue, job in self._queue.low():
            self._spawn(self._refill, queue, job)
        for job in self._backfills.low() if self._backfills.waiting else ():
            self._spawn(self._refill, self._backfills, job)

    def _take_beside_backfills(self) -> Waiting | None:
        """Take the next run of either lane, as `engine.decide.lanes` says."""
        slots, engine = self._slots, Room(self._slots.taken, self._slots.most)
        if slots.has_own(Lane.BACKFILL):
            engine = Room(slots.taken, None)  # a free slot is kept for them: they need leave none
        elif not slots.may_take(Lane.BACKFILL):
            engine = Room(slots.most, slots.most)
        return (
            self._backfills.take_ahead(engine, self._room_of)
            or self._queue.take(slots.may_start, slots.may_take)
            or self._backfills.take_idle(engine, self._room_of)
        )

    def _room_of(self, job: str) -> Room:
        return Room(self._slots.taken_by(job), self._slots.limit_of(job))

    async def _begin_backfills(self) -> None:
        """Take up the runs of backfills that wait in the store."""
        for job in await self._store.queued_jobs(Lane.BACKFILL):
            self._backfills.expect(job)
            self._backfill_waits.set()
        for job in self._backfills.low():
            await self._backfills.refill(job)

    async def _follow_backfills(self) -> None:
        """Look again when live work may have kept a backfill from every slot for too long."""
        while True:
            await self._backfill_waits.wait()
            self._backfill_waits.clear()
            while self._backfills.waiting:
                await self._clock.sleep(min(self._backfills.look_in_s(), LONGEST_SLEEP_S))
                self.pump()

    async def end_backfilled(self, run: Run, step: Step) -> bool:
        """End a run of a backfill that waits, durably; return False where it has started or ended meanwhile.

        Raises StoreError.
        """
        self._gates.take_out(run.id)
        self._timeline.remove(run.id)
        self._backfills.remove(run)
        try:
            await self._finish(run, End(run=run.id, step=step))
        except Conflict:
            return False
        # It may have been on its way into the lane.
        self._backfills.remove(run)
        self._on_change(run.id)
        return True

    def _start_past_pause(self) -> None:
        for run_id, job in list(self._let_pass.items()) if self._starting else ():
            if not self._slots.may_start(job) or not self._slots.may_take(Lane.MANUAL):
                continue
            if (waiting := self._queue.pick(job, run_id)) is not None:
                seen = self._gates.passed(waiting)
                if seen is not None:
                    self._slots.take(job, waiting.run.lane)
                    self._start(waiting, seen)

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        if self._group is not None:
            self._group.start_soon(function, *args)

    # One run

    def _start(self, waiting: Waiting, seen: str) -> None:
        """Begin a waiting run in a slot that was taken for it; `seen` says what its gates saw."""
        run, now = waiting.run, self._clock.now()
        waited = format_span(max((now - run.ready_at).total_seconds(), 0.0))
        reason = f"started: waited {waited}{seen and '; '}{seen}"
        step = Step(at=now, state=RunState.RUNNING, code="started", reason=reason)
        run = replace(
            run,
            state=RunState.RUNNING,
            code="started",
            attempt=run.attempt + 1,
            started_at=now,
            boot=self.boot,
        )
        events = None
        if waiting.event is not None and run.event_count == 1:
            events = (waiting.event,)
        self._begin(run, events, started=False, step=step)

    def _begin(self, run: Run, events: tuple[Event, ...] | None, *, started: bool, step: Step | None = None) -> None:
        if self._runs is None:
            # All has ended; what is stored as running is settled at the next start.
            self._give_slot(run)
            return
        active = Active(run)
        if not self._starting:
            # It was stored as running while we began to stop.
            active.why = "interrupted"
        elif (by := self._overlaps.replaced_by(run.id)) is not None:
            active.why, active.by = "replaced", by
        elif (said := self._cancelled.pop(run.id, None)) is not None:
            active.why, active.by = "cancelled", said
        self._active[run.id] = active
        self._let_pass.pop(run.id, None)
        self._overlaps.add(run)
        start = None
        if step is not None:
            start = self._journal.submit(Start(run=run.id, step=step, attempt=run.attempt, boot=self.boot))
            start.add_done_callback(self._backlog.removing(run.trigger))
            active.start = start
        # The name tells who it is where a runner blocks the event loop.
        self._runs.create_task(self._live(active, events, start), name=f"run {run.id} {run.job}")

    async def _live(self, active: Active, events: tuple[Event, ...] | None, start: asyncio.Future[None] | None) -> None:
        """Be one attempt of one run: from its start, once that is durable, to its recorded end."""
        run = active.run
        gave_back = False
        try:
            if start is not None:
                try:
                    await start
                except asyncio.CancelledError:
                    # Interrupted while the store is away: its start may never be durable, and is not waited for.
                    if active.why is None:
                        raise
            self._on_change(run.id)
            outcome, started_at = await self._attempt(active, events)
            end = self._decide_end(active, outcome, started_at)
            if end.step.state in ENDED:
                self._overlaps.remove(run)  # what follows from its end does not meet it any more
            else:
                self._overlaps.add(replace(active.run, state=end.step.state))
            recorded = self._finish(active.run, Finish.of(run.id, end))
            del self._active[run.id]
            self._moving.add(run.id)
            self._give_slot(run)
            gave_back = True
            self.pump()
            await recorded
            self._on_end(run, end)
            if run.origin is Origin.BACKFILL:
                self._on_backfilled(run, end.step)
            self._moved(run.id)
            if end.due_at is not None and not self._overlaps.was_replaced(run.id):
                self.wait(replace(active.run, state=RunState.RETRYING, due_at=end.due_at, boot=None))
        except Conflict as error:
            # It was ended or moved meanwhile: the store's word counts, and nothing was started.
            log.warning("%s", error, extra={"action": "start_conflict", "run": run.id})
        except StoreError as error:
            log.error("Run %s: %s", run.id, error, extra={"action": "store_failed", "run": run.id})
        finally:
            self._moved(run.id)
            if not gave_back:
                self._active.pop(run.id, None)
                self._overlaps.remove(run)
                self._give_slot(run)
                self.pump()
            self._on_change(run.id)

    async def _attempt(self, active: Active, events: tuple[Event, ...] | None) -> tuple[Outcome | None, datetime]:
        """Run the runner within its time; None where it was cancelled, for `active.why`."""
        run = active.run
        started_at = self._clock.now()
        if active.why is not None:
            return None, started_at
        job = self._job_of(run)
        if job is None:
            return Outcome.failed("job_missing", f"failed: there is no job {run.job} any more"), started_at

        def note(pid: int) -> None:
            self._process_notes.take(active, pid)

        outcome: Outcome | None = None
        with self._new_scope() as scope:
            active.scope = scope
            if events is None:
                events = await self._events_of(run)
            if events:
                if events[-1].id != run.event:
                    # More joined while it was pending.
                    active.run = replace(run, event=events[-1].id)
                self._deadlines.add(run, job.timeout_s)
                outcome = await self._execute(run, job, events, note)
            else:
                outcome = Outcome.failed("event_missing", "failed: its events are gone from the store")
        active.scope = None
        return (None if scope.cancelled_caught else outcome), started_at

    def _job_of(self, run: Run) -> Job | None:
        """Return the job of a run under the limits that hold for its trigger; None where it is not there any more."""
        job = self._jobs.get(run.job)
        return None if job is None else self._limited(run.trigger, job)

    async def _events_of(self, run: Run) -> tuple[Event, ...]:
        while True:
            try:
                return await self._store.run_events(run.id)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_READ_S)

    def _decide_end(self, active: Active, outcome: Outcome | None, started_at: datetime) -> AttemptEnd:
        """Decide what follows an attempt, which was cancelled where there is no outcome."""
        run, now = active.run, self._clock.now()
        if outcome is None and active.why == "interrupted":
            return after_interruption(run, started_at, now, self._ageing_s)
        if outcome is None and active.why == "replaced":
            return after_replacement(run, active.by, started_at, now)
        if outcome is None and active.why == "cancelled":
            return after_cancel(run, f"cancelled: {active.by}", started_at, now)
        if outcome is None and active.why == "cut":
            return after_cut(run, active.by, started_at, now)
        job = self._job_of(run)
        if outcome is None:
            late_s = self._clock.monotonic() - active.cancelled_s
            outcome = timed_out(job.timeout_s if job is not None else 0.0, late_s)
        # What another run replaces, or somebody cancelled, is not tried again.
        retry = RetryPolicy() if job is None or active.by else job.retry
        return after_end(run, outcome, retry, started_at, now)

    def _cancel(self, active: Active, why: str) -> None:
        if active.why is None:
            active.why = why
            active.cancelled_s = self._clock.monotonic()
            if active.scope is not None:
                active.scope.cancel()
            elif active.start is not None:
                active.start.cancel()

    def cut(self, triggers: Collection[str], said: str) -> None:
        """Cancel what runs of these triggers, for a maintenance window, but for what was fired to pass by it."""
        for active in list(self._active.values()):
            if active.why is None and active.run.trigger in triggers and "maintenance" not in bypassed(active.run):
                active.by = said
                self._cancel(active, "cut")

    def _end_waiting(self, run: Run, step: Step) -> None:
        """End a run that has no slot."""
        self._overlaps.remove(run)
        log.info(
            "A run of %s that waited is %s", run.job, step.reason,
            extra={"action": "run_ended", "run": run.id, "trigger": run.trigger, "code": step.code},
        )  # fmt: skip
        self._moving.add(run.id)
        self._spawn(self._record_end, run, self._finish(run, End(run=run.id, step=step)))

    async def _record_end(self, run: Run, recorded: Awaitable[Any]) -> None:
        try:
            await recorded
        except (StoreError, Conflict) as error:
            log.warning("%s", error, extra={"action": "end_refused", "run": run.id})
        finally:
            self._moved(run.id)
            self._on_change(run.id)

    def _give_way(self, run_id: str, by: str) -> bool:
        """End the attempt of a run, as another takes its place; return whether it has a slot."""
        active = self._active.get(run_id)
        if active is None:
            return False
        active.by = by
        self._cancel(active, "replaced")
        return True

    # What waits for its time

    async def _follow_timeline(self) -> None:
        while True:
            if self._timeline.is_low:
                try:
                    await self._timeline.refill()
                except StoreUnavailable:
                    await self._clock.sleep(RETRY_READ_S)
            now = self._clock.now()
            for run in self._timeline.take_due(now):
                self._promote(run, now)
            if self._timeline.is_low:
                # What is due may go on beyond the window; so may what is being moved, so it has to end at times.
                while len(self._moving) >= MOST_MOVING:
                    self._fewer_moving.clear()
                    await self._fewer_moving.wait()
                continue
            self._timeline_changed.clear()
            now, next_at = self._clock.now(), self._timeline.next_at()
            latest = now + timedelta(seconds=LONGEST_SLEEP_S)
            self._timeline_until = latest if next_at is None else min(next_at, latest)
            if self._timeline_until > now:
                await sleep_or_wake(self._clock, (self._timeline_until - now).total_seconds(), self._timeline_changed)

    def _promote(self, run: Run, now: datetime) -> None:
        """Make a run whose time has come ready: running where a slot is free, else queued; ask about a held one."""
        if run.state is RunState.HELD:
            self._gates.ask_due(run)
            return
        window = self._windows.of_run(run.id)
        if window is not None:
            if window.due_at > now:
                self._timeline.postpone(run, window.due_at)
                return
            self._windows.close(window)
            run = after_window(run, window)
            if self._shaper.throttles(run):
                self._moving.add(run.id)
                return
        if run.expires_at is not None and is_over(run, now):
            self._end_waiting(run, expired(run, now))
            return
        met = START if has_begun(run) else self._overlaps.decide(run.job, run.trigger, run.origin)
        if met.action is Action.SKIP:
            self._end_waiting(run, Step(at=now, state=RunState.SKIPPED, code="overlap", reason=said_of_skip(met)))
            return
        may_start = (
            met.action is not Action.REPLACE and run.origin is not Origin.BACKFILL and not self.concern(run.trigger)
        )
        if may_start and self.claim(run.job, run.lane, past_pause=run.id in self._let_pass):
            self._start(Waiting(run, None), "")
            return
        code, text = said_of_turn(run)
        code, waits = (REPLACES, said_of_place(met)) if met.action is Action.REPLACE else (code, "waits for a slot")
        step = Step(at=now, state=RunState.QUEUED, code=code, reason=f"{text}; {waits}")
        ready = replace(
            run, state=RunState.QUEUED, due_at=None, rank=rank(now, run.priority, self._ageing_s), code=code,
            trace=(*run.trace, step),
        )  # fmt: skip
        self._overlaps.add(ready)
        self._moving.add(run.id)
        self._spawn(self._enqueue, ready, step)

    async def _enqueue(self, run: Run, step: Step) -> None:
        try:
            await self._journal.submit(Enqueue(run=run.id, step=step, rank=run.rank))
        except StoreError as error:
            log.warning("%s", error, extra={"action": "enqueue_failed", "run": run.id})
            return
        except Conflict:
            return
        finally:
            self._moved(run.id)
        if not self._overlaps.was_replaced(run.id):
            self.offer(run, None)

    # Reading

    def _queue_of(self, lane: Lane) -> Queue:
        async def read(job: str, after: QueuePlace | None, limit: int) -> Sequence[tuple[Run, Event]]:
            return await self._store.queue_head(job, after=after, limit=limit, lane=lane)

        return Queue(read, self._is_active)

    async def _read_due(self, after: tuple[datetime, str], limit: int) -> list[tuple[datetime, Run]]:
        return await self._store.due(after=after, limit=limit)

    async def _refill(self, lane: Queue | BackfillLane, job: str) -> None:
        while lane.is_low(job):
            try:
                await lane.refill(job)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_READ_S)
                continue
            self.pump()
