"""Timers: one heap of due instants, one task that sleeps until the earliest, whatever their number.

What is due at a look is handed on in portions. A due instant, its event, its runs and the timer's cursor are one
change. The cursor is the last instant that was dealt with; the instant is the event's key, so that neither a crash
nor a step of the clock runs one twice.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any

import anyio
from anyio.abc import TaskGroup

from engine.clock import LONGEST_SLEEP_S, Clock, rfc3339, sleep_or_wake, suspended_s
from engine.decide.firing import Firing
from engine.decide.misfire import Due
from engine.decide.pacing import first_by, paced
from engine.decide.schedule import Schedule, owner_of, schedule_of
from engine.errors import Conflict, StoreDamaged, StoreUnavailable
from engine.store.changes import Cursor
from engine.timers.ahead import is_wrong, tell_ahead
from engine.timers.clockwatch import ClockWatch, tell_late, tell_noticed
from engine.timers.firings import firing_of
from engine.timers.newcomers import Begin, Newcomers
from engine.timers.state import ASK_AGAIN_S, HANDED_ON, LONGEST_RETRY_S, RETRY_S, SOURCE_PREFIX, State, said_of_end
from engine.triggers import Pause, Trigger

log = logging.getLogger("engine.timers")


PORTION = 64
"""So many due instants are handed on at once: as many as the journal writes without waiting for more."""

MOST_HANDED_ON = 4
"""So many portions are on their way to the store at once; what else is due waits on the heap."""

TAKEN_UP = 500
"""After so many timers the others have a turn, when all are taken up at the start."""

EmitDue = Callable[[Sequence[Firing]], Awaitable[Sequence[Exception | None]]]
Look = Callable[[str], Awaitable[Any]]


class Timers:
    """All time sources.

    `emit` makes due instants durable, each for itself, and returns what went wrong with each. `begin` stores the
    cursors of timers that are new; `look` reads the cursor of one that comes while the others run. `paused` tells
    the pause that holds for a trigger now; what comes due meanwhile waits for its end, and then for the misfire rule.
    """

    def __init__(
        self, *, clock: Clock, triggers: Sequence[Trigger], emit: EmitDue, begin: Begin, look: Look | None = None,
        paused: Callable[[str], Pause | None] = lambda _: None, slept: Callable[[], float] = suspended_s,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._emit = emit
        self._look = look
        self._paused = paused
        self._watch = ClockWatch(clock, slept)
        now = clock.now()
        self._states: dict[str, State] = {
            trigger.name: State(trigger=trigger, schedule=schedule, since=now)
            for trigger in triggers
            if trigger.works and (schedule := schedule_of(trigger)) is not None
        }
        self._heap: list[tuple[datetime, int, State]] = []
        """What waits for an instant of the wall clock, with its ticket."""
        self._delayed: list[tuple[float, int, State]] = []
        """What waits for some seconds, whatever the wall clock does."""
        self._tickets = count(1)
        self._newcomers = Newcomers(clock, begin)
        self._woken = anyio.Event()
        self._room = anyio.Semaphore(MOST_HANDED_ON)
        self._expected_s = 0.0
        """When, by monotonic time, the next look was to be."""
        self._group: TaskGroup | None = None

    # What others see

    def __len__(self) -> int:
        return len(self._states)

    @property
    def states(self) -> Collection[State]:
        """All timers that are there."""
        return self._states.values()

    def next_at(self, trigger: str) -> datetime | None:
        """Return the trigger's next due instant, or None. For a paused one it is the next that is still to come."""
        state = self._states.get(trigger)
        if state is None or state.pause is None:
            return None if state is None else state.next_at
        try:
            return state.schedule.next(self._clock.now())
        except Exception:  # plugin code; it is asked again, and told of, when the pause is over
            log.debug("The timer of trigger %s raised", trigger, exc_info=True, extra={"action": "timer_raised"})
            return None

    def fires_at(self, trigger: str) -> datetime | None:
        """Return when the trigger's next due instant fires: later than `next_at` where its load is spread."""
        due_at = self.next_at(trigger)
        if due_at is None:
            return None
        try:
            return self._states[trigger].schedule.fires_at(due_at)
        except Exception:  # plugin code; what it raises is told of when its instant has come
            log.debug("The timer of trigger %s raised", trigger, exc_info=True, extra={"action": "timer_raised"})
            return due_at

    def soonest(self, limit: int) -> list[tuple[datetime, str]]:
        """Return the `limit` triggers that come due first, and when; those that are paused are not among them."""
        known = ((one.next_at, owner_of(name)) for name, one in self._states.items() if one.pause is None)
        return heapq.nsmallest(limit, ((at, name) for at, name in known if at is not None))

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

    # Timers that come and go

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

    def moved(self, trigger: str) -> Cursor | None:
        """Return the cursor with which a timer goes on by another schedule: nothing of that counts as due before now.

        None where there is none, or something of it is being dealt with: that is gone on from.
        """
        state, now = self._states.get(trigger), self._clock.now()
        if state is None or state.is_dealing(now):
            return None
        return Cursor(source=state.source, value=rfc3339(now))

    def remove(self, trigger: str) -> Cursor | None:
        """Forget a trigger's timer: nothing of it comes due any more.

        Returns the cursor to store, by which a timer of that name that is added later begins anew and misses
        nothing; None where there was none.
        """
        state = self._states.pop(trigger, None)
        if state is None:
            return None
        state.ticket = 0
        self._newcomers.forget(trigger)
        return Cursor(source=SOURCE_PREFIX + trigger, value={"removed_at": rfc3339(self._clock.now())})

    def look_again(self, names: Collection[str] | None) -> None:
        """Look at triggers anew, as a pause began or ended: at those that are named, or at all (None).

        What came due while one was paused is then dealt with by its misfire rule.
        """
        for name in self._states if names is None else names:
            state = self._states.get(name)
            # One that is on its way to the store is looked at when that is done: handed on twice, it would take two
            # instants for dealt with.
            if state is not None and state.pause is not None and state.ticket != HANDED_ON:
                self._push_delayed(0.0, state)
        self._woken.set()

    # Intervals that are adapted

    def schedule(self, trigger: str) -> Schedule | None:
        """Return when a trigger comes due as things stand: with the interval that is in force."""
        state = self._states.get(trigger)
        return None if state is None else state.following or state.schedule

    def first_by(self, trigger: str, seconds: float | None) -> datetime:
        """Return the instant with which another interval, or the configured one (None), would begin.

        See `engine.decide.pacing`. Raises Conflict where there is no such timer, and what the timer does.
        """
        state, configured, now = *self._adaptable(trigger), self._clock.now()
        upcoming = state.next_at
        last = upcoming if upcoming is not None and state.since < upcoming <= now else state.since
        return first_by(configured, seconds, last=last, upcoming=upcoming, now=now)

    def set_interval(self, trigger: str, seconds: float | None, first: datetime) -> None:
        """Give a timer another interval, or the configured one (None), from `first` on; what is being dealt with stays.

        With the same `first`, which is to be remembered, the same grid is made again after a restart. Raises Conflict
        where there is no such timer, and what the timer does.
        """
        state, configured = self._adaptable(trigger)
        schedule = paced(configured, seconds, first)
        if state.is_dealing(self._clock.now()):
            state.following = schedule
            return
        state.schedule = schedule
        if state.next_at is not None:
            self._schedule(state)

    def _adaptable(self, trigger: str) -> tuple[State, Schedule]:
        """Return a timer, and its schedule as it is configured."""
        state = self._states.get(trigger)
        configured = None if state is None else schedule_of(state.trigger)
        if state is None or configured is None:
            raise Conflict(f"trigger {trigger} is on no timer")
        return state, configured

    # Life

    async def run(self, cursors: Mapping[str, Any], *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        """Emit due instants until cancelled. Ready when every timer has its next instant.

        `cursors` are those of all timers by source id, as they were stored.
        """
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                group.start_soon(self._newcomers.run)
                await self._take_up_all(cursors)
                task_status.started()
                self._expected_s = self._clock.monotonic()
                while True:
                    self._look_at_clocks()
                    now = self._clock.now()
                    if not await self._hand_on(self._take_due(now), now):
                        await self._wait(self._left_s(now))
        finally:
            self._group = None

    async def _take_up_all(self, cursors: Mapping[str, Any]) -> None:
        ahead: list[State] = []
        entries: list[tuple[datetime, int, State]] = []
        for number, state in enumerate(list(self._states.values()), 1):
            fires_at = self._take_up(state, cursors.get(state.source), ahead)
            if fires_at is not None:
                state.ticket = next(self._tickets)
                entries.append((fires_at, state.ticket, state))
            if not number % TAKEN_UP:
                await self._clock.sleep(0)
        self._heap += entries
        heapq.heapify(self._heap)
        tell_ahead(ahead, self._clock.now())

    def _is_current(self, state: State) -> bool:
        return self._states.get(state.trigger.name) is state

    async def _look_up(self, state: State) -> None:
        """Take up a timer that came while the others run, once its cursor could be read."""
        cursor, pause_s = None, RETRY_S
        while self._look is not None and self._is_current(state):
            try:
                cursor = await self._look(state.source)
                break
            except StoreUnavailable:
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_RETRY_S)
        if self._is_current(state):
            ahead: list[State] = []
            fires_at = self._take_up(state, cursor, ahead)
            if fires_at is not None:
                self._push(fires_at, state)
            tell_ahead(ahead, self._clock.now())

    def _take_up(self, state: State, cursor: Any, ahead: list[State]) -> datetime | None:
        """Go on from a stored cursor, or begin now; return when the next instant fires, where there is one.

        A cursor that is no text is that of a timer that was removed.
        """
        if not isinstance(cursor, str):
            self._newcomers.add(state)
        else:
            state.since = datetime.fromisoformat(cursor)
            if state.since > self._clock.now():
                ahead.append(state)
                self._correct(state)
        return self._next(state)

    # Looking

    def _left_s(self, now: datetime) -> float:
        """Return how long to sleep: until the earliest, and never so long that a step of the clock is overslept."""
        left_s = LONGEST_SLEEP_S
        while self._heap and self._heap[0][2].ticket != self._heap[0][1]:
            heapq.heappop(self._heap)
        while self._delayed and self._delayed[0][2].ticket != self._delayed[0][1]:
            heapq.heappop(self._delayed)
        if self._heap:
            left_s = min((self._heap[0][0] - now).total_seconds(), left_s)
        if self._delayed:
            left_s = min(self._delayed[0][0] - self._clock.monotonic(), left_s)
        return left_s

    async def _wait(self, seconds: float) -> None:
        """Sleep, or until something comes that is earlier."""
        self._woken = anyio.Event()
        self._expected_s = self._clock.monotonic() + max(seconds, 0.0)
        await sleep_or_wake(self._clock, seconds, self._woken)

    def _take_due(self, now: datetime) -> list[State]:
        """Take from the heaps what is due, at most a portion."""
        taken: list[State] = []
        heap, delayed, now_s = self._heap, self._delayed, self._clock.monotonic()
        while len(taken) < PORTION:
            if heap and heap[0][0] <= now:
                _, ticket, state = heapq.heappop(heap)
            elif delayed and delayed[0][0] <= now_s:
                _, ticket, state = heapq.heappop(delayed)
            else:
                break
            if state.ticket == ticket:
                state.ticket = 0
                taken.append(state)
        return taken

    async def _hand_on(self, taken: Sequence[State], now: datetime) -> bool:
        """Have what is due made durable, beside looking for more; return whether anything was taken."""
        found = []
        for state in taken:
            if (answer := self._due(state, now)) is not None:
                state.ticket = HANDED_ON
                found.append((state, *answer))
        if found and self._group is not None:
            waits = not self._room.value
            await self._room.acquire()
            if waits:
                self._expected_s = self._clock.monotonic()
            self._group.start_soon(self._make_durable, found)
        elif taken:
            await self._clock.sleep(0)
        return bool(taken)

    def _due(self, state: State, now: datetime) -> tuple[Due, Firing] | None:
        """Return what a timer is due now; where that is nothing, it is back on the heap."""
        pause = self._paused(state.trigger.name)
        if pause is not None:
            self._park(state, pause)
            return None
        try:
            found = state.due(now)
            if found is None:
                self._schedule(state)
                return None
            return found, firing_of(state, found, now)
        except Exception as error:
            self._note_problem(state, error)
            return None

    def _park(self, state: State, pause: Pause) -> None:
        """Let what is due wait until the pause is over: until its end comes, or `look_again` is called."""
        if state.pause is None:
            log.info(
                "Trigger %s came due while it is paused; the misfire rule is applied afterwards", state.trigger.name,
                extra={"action": "due_while_paused", "trigger": state.trigger.name},
            )  # fmt: skip
        state.pause = pause
        if pause.until is not None:
            # One that still holds although its end has come, by a clock that went back in between, is asked again.
            if pause.until > self._clock.now():
                self._push(pause.until, state)
            else:
                self._push_delayed(RETRY_S, state)

    async def _make_durable(self, found: Sequence[tuple[State, Due, Firing]]) -> None:
        there = [one for one in found if self._is_current(one[0])]
        try:
            errors = await self._emit([firing for _, _, firing in there])
        finally:
            self._room.release()
        for (state, due, firing), error in zip(there, errors, strict=True):
            if error is None:
                self._go_on(state, due, firing)
            elif not isinstance(error, StoreDamaged):
                self._try_again(state, error)

    def _go_on(self, state: State, found: Due, firing: Firing) -> None:
        """Take up what comes next, as an instant was dealt with."""
        name, rule = state.trigger.name, state.trigger.misfire
        if not self._is_current(state):
            return
        state.since, state.tries, state.ticket = found.first, 0, 0
        state.pause = None  # what it caught up on keeps to its rate, whatever is paused and resumed meanwhile
        self._newcomers.forget(name)
        if firing.missed:
            what = "the latest is run" if len(found.runs) == 1 else f"{len(found.runs):,} are caught up on"
            log.warning(
                "Trigger %s missed due instants; %s", name, what if found.runs else "none is run",
                extra={"action": "missed", "trigger": name},
            )  # fmt: skip
        if state.backlog:
            state.backlog.pop()
        elif len(found.runs) > 1:
            state.backlog = list(reversed(found.runs[1:]))
        if state.backlog:
            state.next_at = state.backlog[-1]
            self._push_delayed(1 / rule.rate_per_s, state)
            return
        state.backlog = None
        self._correct(state)
        self._schedule(state)

    def _try_again(self, state: State, error: Exception) -> None:
        """Look again in a while, as the store, or the door, refused what was due."""
        if not isinstance(error, StoreUnavailable):
            log.error(
                "Trigger %s could not be run; trying again", state.trigger.name, exc_info=error,
                extra={"action": "timer_refused", "trigger": state.trigger.name},
            )  # fmt: skip
        self._push_delayed(min(RETRY_S * 2**state.tries, LONGEST_RETRY_S), state)
        state.tries = min(state.tries + 1, 10)

    # The heaps

    def _schedule(self, state: State) -> None:
        """Put the timer's next instant on the heap."""
        fires_at = self._next(state)
        if fires_at is not None:
            self._push(fires_at, state)

    def _next(self, state: State) -> datetime | None:
        """Return when the timer's next instant fires; None where there is none, or its plugin does not answer."""
        try:
            return state.go_on()
        except Exception as error:
            self._note_problem(state, error)
            return None

    def _note_problem(self, state: State, error: Exception) -> None:
        """Say that the plugin does not answer, and ask it again in a while."""
        name = state.trigger.name
        state.problem = f"the timer raised {type(error).__name__}: {error}"
        log.error(
            "The timer of trigger %s raised", name, exc_info=error, extra={"action": "timer_raised", "trigger": name}
        )
        state.next_at = state.backlog = None
        self._push_delayed(ASK_AGAIN_S, state)

    def _push(self, at: datetime, state: State) -> None:
        if not self._is_current(state):
            return
        state.ticket = next(self._tickets)
        if len(self._heap) > 64 + 2 * len(self._states):
            self._heap = [item for item in self._heap if item[2].ticket == item[1]]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (at, state.ticket, state))
        if self._heap[0][2] is state:
            self._woken.set()

    def _push_delayed(self, seconds: float, state: State) -> None:
        if not self._is_current(state):
            return
        state.ticket = next(self._tickets)
        heapq.heappush(self._delayed, (self._clock.monotonic() + seconds, state.ticket, state))
        if self._delayed[0][2] is state:
            self._woken.set()

    # The clock

    def _look_at_clocks(self) -> None:
        """Say what the clocks did since the last look, and take up a wall clock that was corrected."""
        now_s = self._clock.monotonic()
        tell_late(now_s - self._expected_s)
        self._expected_s = now_s
        noticed = self._watch.look()
        if noticed is None:
            return
        now = self._clock.now()
        tell_noticed(noticed, now)
        if noticed.stepped < 0:
            ahead = [state for state in self._states.values() if state.since > now]
            tell_ahead(ahead, now)
            for state in ahead:
                # One that is being dealt with is corrected when that is done.
                if state.ticket != HANDED_ON and self._correct(state) and state.pause is None:
                    self._schedule(state)

    def _correct(self, state: State) -> bool:
        """Go on from now where what a timer has dealt with is so far ahead that the clock was wrong before."""
        now = self._clock.now()
        if not is_wrong(state.since, now):
            return False
        state.since, state.backlog = now, None
        self._newcomers.add(state)
        return True
