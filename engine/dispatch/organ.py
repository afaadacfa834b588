"""The organ: it counts the slots, and moves runs from the queue through their attempts to their ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from datetime import datetime
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from engine.attending import Attendant
from engine.backlog import Backlog
from engine.clock import Clock, sleep_or_wake
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
from engine.decide.limits import Shortage, Slots
from engine.decide.overlap import Decision
from engine.decide.shaping import Windows
from engine.dispatch.active import Active, Shaping
from engine.dispatch.attendance import LEFT, Attendance, Keeping, left_s, processes_to_end, with_usage
from engine.dispatch.deadlines import Deadlines
from engine.dispatch.hands import Places, RunHands
from engine.dispatch.line import RETRY_READ_S, Line
from engine.dispatch.moving import Moving
from engine.dispatch.processes import ProcessNotes
from engine.dispatch.tasks import RunTasks
from engine.dispatch.timing import Timing, Ways
from engine.errors import Conflict, StoreError, StoreUnavailable
from engine.events import Event
from engine.gates import Gates, Hands
from engine.jobs import Job, OnCrash, RetryPolicy
from engine.journal import Journal
from engine.overlaps import Overlaps
from engine.plugin import Outcome
from engine.queue import Timeline, Waiting
from engine.runs import ENDED, Lane, Origin, Run, RunState, Step
from engine.store.base import Store
from engine.store.changes import End, Finish, Start
from engine.units import format_span

log = logging.getLogger("engine.dispatch")

Finished = Callable[[Run, Finish | End], Awaitable[Any]]
"""Hands in, before it returns, how an attempt or run ended; what it returns is done when that is durable."""

Execute = Callable[[Run, Job, tuple[Event, ...], Attendant], Awaitable[Outcome]]


class Dispatch:
    """The running part of the engine; see `Starter` in `engine.intake` for what intake uses of it.

    Slots are counted here alone: a slot is taken before the change that makes a run running is handed to the
    journal, and given back after the change that ends its attempt was. As the journal keeps the order, the
    store never shows more running runs than slots; but for one that is over, and whose end is decided anew
    as what follows from it was refused.
    """

    def __init__(
        self, *, boot: str, clock: Clock, journal: Journal, store: Store, windows: Windows, jobs: Mapping[str,
        Job], execute: Execute, finish: Finished, concurrency: int, ageing_s: float, on_change: Callable[[str], None],
        on_end: Callable[[Run, AttemptEnd], None], limited: Callable[[str, Job], Job],
        on_backfilled: Callable[[Run, Step], None], gates: Gates, shaper: Shaping,
        reserve: Mapping[Lane, int] | None = None, pools: Mapping[str, int] | None = None,
        backlog: Backlog | None = None, keeping: Keeping | None = None,
    ) -> None:  # fmt: skip
        self.boot = boot
        self._clock = clock
        self._journal = journal
        self._store = store
        self._windows = windows
        self._jobs = dict(jobs)
        self._execute = execute
        self._keeping = keeping
        self._adopted: list[Run] = []
        self._finish = finish
        self._ageing_s = ageing_s
        self._on_change = on_change
        self._on_end = on_end
        self._on_backfilled = on_backfilled
        self._limited = limited
        self._shaper = shaper
        self._gates = gates
        self._backlog = backlog or Backlog()
        slots = Slots(concurrency, reserve, pools)
        for job in jobs.values():
            slots.limit(job)
        self._active: dict[str, Active] = {}
        self._moving = Moving()
        self._line = Line(
            clock=clock, store=store, slots=slots, is_active=self._is_active, pump=self.pump, spawn=self._spawn
        )  # fmt: skip
        self._slots = slots
        self._timeline = Timeline(self._read_due, self._is_active)
        self._overlaps = Overlaps(
            clock=clock, jobs=jobs.values(), queue=self._line.front, timeline=self._timeline,
            is_moving=lambda run_id: run_id in self._moving or gates.is_aside(run_id), cancel=self._give_way,
            end=self._end_waiting,
        )  # fmt: skip
        self._timing = Timing(
            clock=clock, journal=journal, store=store, timeline=self._timeline, windows=windows, shaper=shaper,
            gates=gates, overlaps=self._overlaps, moving=self._moving, ageing_s=ageing_s,
            ways=Ways(start=self._start_due, offer=self.offer, end=self._end_waiting, spawn=self._spawn),
        )  # fmt: skip
        gates.serve(
            Hands(
                offer=self.offer, wait=self.wait, wait_no_more=self._timeline.remove, moves=self._moving.add,
                moved=self._moving.discard, is_active=self._is_active, note_open=self._overlaps.add,
                was_replaced=self._overlaps.was_replaced, end_waiting=self._end_waiting, spawn=self._spawn,
            )
        )  # fmt: skip
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
        self._runs: RunTasks | None = None
        self._idle = asyncio.Event()
        places = Places(
            active=self._active, moving=self._moving, line=self._line, timeline=self._timeline, windows=windows,
            gates=gates, overlaps=self._overlaps,
        )  # fmt: skip
        self.hands = RunHands(
            places, offer=self.offer, wait=self.wait, cancel=self._cancel, cancelled=self._cancelled,
            on_end=self._was_ended, on_change=on_change,
        )  # fmt: skip
        """What people ask of runs; see `Hands` in `engine.steering`."""

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

    @property
    def slots(self) -> Slots:
        """Who has slots, and how much of which pools; to look at."""
        return self._slots

    def shortage(self, run: Run) -> Shortage | None:
        """Return the limit that a run that is ready waits for, or None."""
        return self._line.shortage(run)

    def job_of(self, run_id: str) -> str | None:
        """Return the job of a run that has a slot."""
        active = self._active.get(run_id)
        return None if active is None else active.run.job

    def processes(self) -> list[int]:
        """Return the ids of the processes of all running runs, but for those that outlive the engine."""
        return processes_to_end(self._active.values())

    def has(self, run_id: str) -> bool:
        """Tell whether a run has a slot, or is on its way to one or from it."""
        return self._is_active(run_id)

    def adopt(self, run: Run) -> None:
        """Take in a run whose attempt another engine process began, before `run`: it has its slot from now on."""
        self._line.count(run)
        self._adopted.append(run)

    def is_interrupted(self, run_id: str) -> bool:
        """Tell whether the attempt of a run is cancelled as the engine stops."""
        active = self._active.get(run_id)
        return active is not None and active.why == "interrupted"

    # Jobs that come while it runs

    def add_job(self, job: Job) -> None:
        """Take in a job, or another version of one: attempts that begin from now on are its."""
        self._jobs[job.name] = job
        self._line.limit(job)
        self._overlaps.limit(job)
        for active in self._active.values():
            if active.run.job == job.name:
                self._overlaps.add(active.run)  # a job that had no limit begins to count with those that run
        self.pump()

    def note_place(self, job: Job) -> None:
        """Take in a job that is the same, but defined in another line."""
        self._jobs[job.name] = job

    def remove_job(self, name: str) -> None:
        """Forget a job that nothing runs any more."""
        self._jobs.pop(name, None)

    def resize(self, *, concurrency: int | None = None, pools: Mapping[str, int] | None = None) -> None:
        """Have other limits from now on; what runs goes on, be it more than that."""
        self._line.resize(most=concurrency, pools=pools)
        self.pump()

    # The pause of the engine

    def hold(self, paused: bool) -> None:
        """Start nothing from now on, but what a caller lets pass the pause; or go on. What runs is left alone."""
        self._paused = paused
        if not paused:
            self._let_pass.clear()
            self._line.count_anew()
            self.pump()

    # The starter that intake uses

    def claim(self, run_id: str, job: str, lane: Lane, *, key: str | None = None, past_pause: bool = False) -> bool:
        if not self._starting or (self._paused and not past_pause):
            return False
        return self._line.claim(run_id, job, lane, key)

    def concern(self, trigger: str) -> bool:
        return self._gates.concern(trigger)

    def meet(
        self, job: str, trigger: str, origin: Origin, *, key: str | None = None, caught_up: bool = False,
        without: Collection[str] = (),
    ) -> Decision:  # fmt: skip
        return self._overlaps.decide(job, trigger, origin, key=key, caught_up=caught_up, without=without)

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
        changed = self._line.offer(run, event)
        if run.expires_at is not None:
            self._shaper.note_expiry(run.expires_at)
        if self._starting:
            self._overlaps.make_room(run)
        if changed or self._paused:
            self.pump()

    def wait(self, run: Run, event: Event | None = None) -> None:
        if run.expires_at is not None:
            self._shaper.note_expiry(run.expires_at)
        self._timing.wait(run, event)

    def hasten(self, run_id: str, due_at: datetime) -> None:
        self._timing.hasten(run_id, due_at)

    def take_back(self, run: Run, *, waits: bool) -> None:
        """Take back a run that the throttle took on; `waits` tells whether it does so still."""
        self._moving.discard(run.id)
        if waits:
            self.wait(run)

    def expire(self, run: Run, step: Step) -> None:
        """End a run that waits, unless it is on its way to a slot or an end."""
        if self._is_active(run.id):
            return
        self._timeline.remove(run.id)
        self._line.remove(run)
        window = self._windows.of_run(run.id)
        if window is not None:
            self._windows.close(window)
        self._let_pass.pop(run.id, None)
        self._end_waiting(run, step)

    # Life

    async def run(self, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """Start runs until cancelled. Ready when what waits in the store was taken up."""
        # Found once: to find it anew costs as much as the scope itself.
        self._new_scope = type(anyio.CancelScope())
        # Runs are no tasks of anyio's: each of those has a scope and an event, which nobody needs here.
        async with RunTasks().opened() as runs:
            try:
                async with anyio.create_task_group() as group:
                    self._group, self._runs = group, runs
                    await self._overlaps.load(self._store)
                    await self._line.begin()
                    await self._timeline.refill()
                    self._starting = True
                    group.start_soon(self._timing.follow, name="dispatch: timeline")
                    group.start_soon(self._deadlines.follow, name="dispatch: deadlines")
                    group.start_soon(self._process_notes.follow, name="dispatch: processes")
                    group.start_soon(self._process_notes.sample, name="dispatch: memory")
                    group.start_soon(self._line.follow_backfills, name="dispatch: backfills")
                    group.start_soon(self._gates.run, name="dispatch: gates")
                    for run in self._adopted:
                        self._begin(run, None, started=True, adopted=True)
                    self._adopted.clear()
                    self._overlaps.go_on()
                    task_status.started()
                    self.pump()
            finally:
                self._starting = False
                self._group = self._runs = None

    async def drain(self, grace_s: float) -> None:
        """Start nothing more; let what runs end within `grace_s`, then interrupt it and wait for its end.

        An interrupted run is queued again, and its attempt does not count. What outlives the engine is let go at once.
        """
        self._starting = False
        for active in list(self._active.values()):
            if active.keeps and (active.adopted or active.process is not None):
                self._cancel(active, LEFT)
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
        self._line.give(run)
        if not self._slots.taken:
            self._idle.set()

    def _is_active(self, run_id: str) -> bool:
        return run_id in self._active or run_id in self._moving or self._gates.is_aside(run_id)

    def pump(self) -> None:
        """Start queued runs while slots are free."""
        if self._paused:
            self._start_past_pause()
            return
        line = self._line
        while self._starting and self._slots.taken < self._slots.most:
            waiting = line.take()
            if waiting is None:
                break
            run = waiting.run
            if run.expires_at is not None and is_over(run, now := self._clock.now()):
                self._end_waiting(run, expired(run, now))
                continue
            seen = self._gates.passed(waiting) if self._gates.gates else ""
            if seen is None:
                line.turned_away(run)
                continue
            line.count(run)
            self._start(waiting, seen)
            line.refill_after(run)
        else:
            return
        line.refill()

    def _start_past_pause(self) -> None:
        for run_id, job in list(self._let_pass.items()) if self._starting else ():
            if (waiting := self._line.pick(job, run_id)) is not None:
                seen = self._gates.passed(waiting)
                if seen is not None:
                    self._line.count(waiting.run)
                    self._start(waiting, seen)

    def _start_due(self, waiting: Waiting) -> bool:
        """Start a run whose time has come where a slot is free and its gates let it pass; return whether that is so.

        Else it has its turn in the queue, and is asked about then.
        """
        run = waiting.run
        if not self.claim(run.id, run.job, run.lane, key=run.limit_key, past_pause=run.id in self._let_pass):
            return False
        seen = self._gates.seen(run)
        if seen is None:
            self._give_slot(run)
            return False
        self._start(waiting, seen)
        return True

    async def end_backfilled(self, run: Run, step: Step) -> bool:
        """End a run of a backfill that waits, durably; return False where it has started or ended meanwhile.

        Raises StoreError.
        """
        self._gates.take_out(run.id)
        self._timeline.remove(run.id)
        self._line.remove(run)
        try:
            await self._finish(run, End(run=run.id, step=step))
        except Conflict:
            return False
        # It may have been on its way into the lane.
        self._line.remove(run)
        self._on_change(run.id)
        return True

    def _was_ended(self, run: Run, step: Step) -> None:
        """Take note that a run that waited has ended by hand."""
        self._let_pass.pop(run.id, None)
        if run.origin is Origin.BACKFILL:
            self._on_backfilled(run, step)
        if self._slots.kept_for:
            self.pump()  # pools may have been kept for it

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

    def _begin(
        self, run: Run, events: tuple[Event, ...] | None, *, started: bool, step: Step | None = None,
        adopted: bool = False,
    ) -> None:  # fmt: skip
        if self._runs is None:
            # All has ended; what is stored as running is settled at the next start.
            self._give_slot(run)
            return
        active = Active(run, adopted=adopted, keeps=adopted)
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
            if run.throttled is not None:
                self._shaper.note_passing(run, start)
            active.start = start
        # The name tells who it is where a runner blocks the event loop.
        runs, name = self._runs, f"run {run.id} {run.job}"
        active.task = runs.begin(self._be(active, events, start, runs), name=name)

    async def _be(
        self, active: Active, events: tuple[Event, ...] | None, start: asyncio.Future[None] | None, runs: RunTasks
    ) -> None:  # fmt: skip
        try:
            await self._live(active, events, start)
        except Exception as error:
            runs.failed(error)
        finally:
            runs.over(active.task)

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
                self._backlog.remove(run.trigger)
            self._on_change(run.id)
            outcome, started_at = await self._attempt(active, events)
            if outcome is None and active.why == LEFT:
                log.info("A run of %s goes on without the engine", run.job, extra={"action": "left", "run": run.id})
                return
            end = with_usage(self._decide_end(active, outcome, started_at), active)
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
            if active.keeps and self._keeping is not None:
                self._keeping.forget(run.id)
            self._on_end(run, end)
            if run.origin is Origin.BACKFILL:
                self._on_backfilled(run, end.step)
            if end.due_at is not None and not self._overlaps.was_replaced(run.id):
                self._moving.discard(run.id)
                self.wait(replace(active.run, state=RunState.RETRYING, due_at=end.due_at, boot=None))
        except Conflict as error:
            # It was ended or moved meanwhile: the store's word counts, and nothing was started.
            log.warning("%s", error, extra={"action": "start_conflict", "run": run.id})
        except StoreError as error:
            log.error("Run %s: %s", run.id, error, extra={"action": "store_failed", "run": run.id})
        finally:
            self._moving.discard(run.id)
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
            await self._end_adopted(active)
            return None, started_at
        job = self._job_of(run)
        if job is None:
            return Outcome.failed("job_missing", f"failed: there is no job {run.job} any more"), started_at
        execute, time_s = self._execute, job.timeout_s
        if job.on_crash is OnCrash.ADOPT and self._keeping is not None:
            active.keeps = True
            if active.adopted:
                execute, time_s = self._keeping.take_up, left_s(run, job.timeout_s, started_at)
                started_at = run.started_at or started_at
        outcome: Outcome | None = None
        with self._new_scope() as scope:
            active.scope = scope
            if events is None:
                events = await self._events_of(run)
            if events:
                if events[-1].id != run.event:
                    # More joined while it was pending.
                    active.run = replace(run, event=events[-1].id)
                self._deadlines.add(run, time_s)
                outcome = await execute(run, job, events, Attendance(active, self._process_notes))
            else:
                outcome = Outcome.failed("event_missing", "failed: its events are gone from the store")
        active.scope = None
        if scope.cancelled_caught:
            await self._end_adopted(active)
            return None, started_at
        return outcome, started_at

    async def _end_adopted(self, active: Active) -> None:
        """End an adopted attempt that was cut off, maybe before it was taken up."""
        if active.adopted and active.why != LEFT and self._keeping is not None:
            await self._keeping.end(active.run)

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
            self._moving.discard(run.id)
            self._on_change(run.id)
            if self._slots.kept_for:
                self.pump()  # pools may have been kept for it

    def _give_way(self, run_id: str, by: str) -> bool:
        """End the attempt of a run, as another takes its place; return whether it has a slot."""
        active = self._active.get(run_id)
        if active is None:
            return False
        active.by = by
        self._cancel(active, "replaced")
        return True

    # Reading

    async def _read_due(self, after: tuple[datetime, str], limit: int) -> list[tuple[datetime, Run]]:
        return await self._store.due(after=after, limit=limit)
