"""Timers: one heap of due instants, one task that sleeps until the earliest.

A due instant, its event, its runs and the timer's cursor are one commit. The cursor is the last instant that
was dealt with; the instant is the event's key, so that neither a crash nor a step of the clock runs one
twice.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct

from engine.clock import LONGEST_SLEEP_S, Clock, rfc3339
from engine.decide.misfire import Due, due
from engine.decide.schedule import Schedule, schedule_of
from engine.errors import Conflict, EngineError, PluginError, StoreDamaged, StoreUnavailable
from engine.events import Accepted, Event
from engine.ids import new_id
from engine.runs import Origin, Run, RunState, Step
from engine.store.changes import Cursor
from engine.triggers import Trigger

log = logging.getLogger("engine.timers")

SOURCE_PREFIX = "timer:"
EVENT_TYPE = "engine.timer"
RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
ASK_AGAIN_S = 60.0
"""After so long a timer that raised is asked again."""


class State(Struct):
    """One timer: its trigger, when that comes due, the last instant dealt with, and the next one."""

    trigger: Trigger
    schedule: Schedule
    since: datetime
    next_at: datetime | None = None
    problem: str | None = None
    completed: bool = False
    """Whether the timer has said that no further instant is due."""


EmitDue = Callable[[str, Event, str, Sequence[Run]], Awaitable[list[Accepted]]]
Begin = Callable[[Cursor], Awaitable[Any]]
Look = Callable[[str], Awaitable[Any]]


class Timers:
    """All time sources.

    `emit` makes a due instant durable: source id, event, cursor and the runs of missed instants. `begin`
    stores the cursor of a timer that is new; `look` reads the cursor of one that comes while the others run.
    """

    def __init__(
        self, *, clock: Clock, triggers: Sequence[Trigger], emit: EmitDue, begin: Begin, look: Look | None = None
    ) -> None:
        self._clock = clock
        self._emit = emit
        self._begin = begin
        self._look = look
        self._states: dict[str, State] = {
            trigger.name: State(trigger=trigger, schedule=schedule, since=clock.now())
            for trigger in triggers
            if trigger.works and (schedule := schedule_of(trigger)) is not None
        }
        self._heap: list[tuple[datetime, int, State]] = []
        self._order = count()
        self._woken = anyio.Event()
        self._group: TaskGroup | None = None

    def __len__(self) -> int:
        return len(self._states)

    def next_at(self, trigger: str) -> datetime | None:
        """Return the trigger's next due instant, or None."""
        state = self._states.get(trigger)
        return None if state is None else state.next_at

    def is_completed(self, trigger: str) -> bool:
        """Tell whether the trigger's last due instant has been dealt with."""
        state = self._states.get(trigger)
        return state is not None and state.completed

    def why_completed(self, trigger: str) -> str | None:
        """Say why nothing more of the trigger comes due; None where something does."""
        state = self._states.get(trigger)
        if state is None or not state.completed:
            return None
        return said_of_end(state.schedule, state.since)

    def problems(self) -> Mapping[str, str]:
        """Return what is wrong, by trigger."""
        return {name: state.problem for name, state in self._states.items() if state.problem is not None}

    async def run(self, cursors: Mapping[str, Any], *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """Emit due instants until cancelled. Ready when every timer has its next instant.

        `cursors` are those of all timers by source id, as they were stored.
        """
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                for state in self._states.values():
                    self._take_up(state, cursors.get(SOURCE_PREFIX + state.trigger.name))
                task_status.started()
                while True:
                    now = self._clock.now()
                    while self._heap and self._heap[0][0] <= now:
                        *_, state = heapq.heappop(self._heap)
                        if self._is_current(state):
                            group.start_soon(self._fire, state)
                    left_s = LONGEST_SLEEP_S
                    if self._heap:
                        left_s = min((self._heap[0][0] - now).total_seconds(), left_s)
                    await self._wait(left_s)
        finally:
            self._group = None

    def add(self, trigger: Trigger) -> None:
        """Take in a time trigger while the others run; it goes on from its cursor, or begins now.

        One of that name is replaced.
        """
        if self._group is None:
            raise Conflict("timers are added while the others run")
        schedule = schedule_of(trigger)
        if schedule is None:
            raise Conflict(f"trigger {trigger.name} is on no timer")
        state = State(trigger=trigger, schedule=schedule, since=self._clock.now())
        self._states[trigger.name] = state
        self._group.start_soon(self._look_up, state)

    def remove(self, trigger: str) -> Cursor | None:
        """Forget a trigger's timer: nothing of it comes due any more.

        Returns the cursor to store, by which a timer of that name that is added later begins anew and misses
        nothing; None where there was none.
        """
        state = self._states.pop(trigger, None)
        if state is None:
            return None
        if len(self._heap) > 64 + 2 * len(self._states):
            self._heap = [item for item in self._heap if self._is_current(item[2])]
            heapq.heapify(self._heap)
        return Cursor(source=SOURCE_PREFIX + trigger, value={"removed_at": rfc3339(self._clock.now())})

    def _is_current(self, state: State) -> bool:
        return self._states.get(state.trigger.name) is state

    async def _look_up(self, state: State) -> None:
        """Take up a timer that came while the others run, once its cursor could be read."""
        cursor, pause_s = None, RETRY_S
        while self._look is not None and self._is_current(state):
            try:
                cursor = await self._look(SOURCE_PREFIX + state.trigger.name)
                break
            except StoreUnavailable:
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_RETRY_S)
        if self._is_current(state):
            self._take_up(state, cursor)

    def _take_up(self, state: State, cursor: Any) -> None:
        """Go on from a stored cursor, or begin now; a cursor that is no text is that of a timer that was removed."""
        if isinstance(cursor, str):
            state.since = datetime.fromisoformat(cursor)
        elif self._group is not None:
            self._group.start_soon(self._begin_timer, state)
        self._schedule(state)

    async def _wait(self, seconds: float) -> None:
        self._woken = anyio.Event()
        async with anyio.create_task_group() as group:

            async def wake() -> None:
                await self._woken.wait()
                group.cancel_scope.cancel()

            group.start_soon(wake)
            await self._clock.sleep(seconds)
            group.cancel_scope.cancel()

    async def _begin_timer(self, state: State) -> None:
        """Remember since when a new timer is there, so that what it misses from now on is known."""
        cursor = Cursor(source=SOURCE_PREFIX + state.trigger.name, value=rfc3339(state.since))
        pause_s, since = RETRY_S, state.since
        while state.since == since and self._is_current(state):
            try:
                await self._begin(cursor)
                return
            except StoreUnavailable:
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_RETRY_S)

    def _schedule(self, state: State) -> None:
        """Put the timer's next instant on the heap."""
        try:
            next_at = state.schedule.next(state.since)
            if next_at is not None and next_at <= state.since:
                raise PluginError(f"the next instant after {rfc3339(state.since)} can't be {rfc3339(next_at)}")
        except Exception as error:
            self._note_problem(state, error)
            return
        state.problem = None
        state.next_at = next_at
        state.completed = next_at is None
        if next_at is not None:
            self._push(next_at, state)

    def _push(self, at: datetime, state: State) -> None:
        if not self._is_current(state):
            return
        heapq.heappush(self._heap, (at, next(self._order), state))
        if self._heap[0][2] is state:
            self._woken.set()

    def _note_problem(self, state: State, error: Exception) -> None:
        """Say that the plugin does not answer, and ask it again in a while."""
        name = state.trigger.name
        state.problem = f"the timer raised {type(error).__name__}: {error}"
        log.exception("The timer of trigger %s raised", name, extra={"action": "timer_raised", "trigger": name})
        state.next_at = None
        self._push(self._clock.now() + timedelta(seconds=ASK_AGAIN_S), state)

    async def _fire(self, state: State) -> None:
        """Make what is due durable, however long the store takes, and schedule what comes next."""
        pause_s = RETRY_S
        while self._is_current(state):
            now = self._clock.now()
            try:
                found = due(state.schedule.next, state.schedule.previous, state.since, now)
                if found is None and state.next_at is not None and state.next_at <= now:
                    raise PluginError(f"{rfc3339(state.next_at)} is its next instant, but none of its previous ones")
            except Exception as error:
                self._note_problem(state, error)
                return
            if found is None:
                break
            try:
                await self._emit_due(state, found, now)
            except StoreDamaged:
                return
            except EngineError as error:
                if not isinstance(error, StoreUnavailable):
                    log.exception(
                        "Trigger %s could not be run; trying again", state.trigger.name,
                        extra={"action": "timer_refused", "trigger": state.trigger.name},
                    )  # fmt: skip
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_RETRY_S)
                continue
            state.since = found.run
            break
        self._schedule(state)

    async def _emit_due(self, state: State, found: Due, now: datetime) -> None:
        name = state.trigger.name
        scheduled = rfc3339(found.run)
        missed = [_missed(state.trigger, instant, now) for instant in found.missed]
        if found.gap is not None:
            count = f"{'more than ' if found.gap.more else ''}{found.gap.count:,}"
            text = f"missed: {count} due instants from {rfc3339(found.gap.first)} to {rfc3339(found.gap.last)}"
            missed.insert(0, _missed(state.trigger, found.gap.first, now, text))
        if missed:
            log.warning(
                "Trigger %s missed due instants; the latest is run",
                name,
                extra={"action": "missed", "trigger": name},
            )
        event = Event(type=EVENT_TYPE, subject=name, time=found.run, key=scheduled, data={"scheduled_for": scheduled})
        await self._emit(SOURCE_PREFIX + name, event, scheduled, missed)


def said_of_end(schedule: Schedule, since: datetime) -> str:
    """Say that nothing of a timer comes due after `since`, which is when it ran last, or was first seen."""
    said = "its timer has no further due instant"
    try:
        said = schedule.why_over(since)
        last = schedule.previous(since + timedelta(microseconds=1))
    except Exception:  # plugin code; what it says is of use and not needed
        log.exception(
            "The timer %s raised when asked for its last instant", schedule.timer.name, extra={"action": "timer_raised"}
        )
        return said
    if last is None or last >= since:
        return said
    return f"{said}: its last instant was {rfc3339(last)}, before this trigger was first seen"


def _missed(trigger: Trigger, instant: datetime, now: datetime, text: str | None = None) -> Run:
    """Return the run of a due instant that was not run: it begins and ends as missed."""
    reason = text or f"missed: due at {rfc3339(instant)}, while the engine was away or busy; a later one is run"
    return Run(
        id=new_id(), job=trigger.job, trigger=trigger.name, origin=Origin.SCHEDULE, key=rfc3339(instant), event="",
        event_count=0, state=RunState.MISSED, code="missed", reason=reason, priority=trigger.priority, rank=0,
        created_at=now, scheduled_for=instant, finished_at=now,
        trace=(Step(at=now, state=RunState.MISSED, code="missed", reason=reason),),
    )  # fmt: skip
