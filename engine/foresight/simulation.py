"""The simulation: the engine's deciders over a time that nobody waits for.

Two heaps stand for the world: what is to happen when, and the line of runs that wait. Everything that is decided is
decided by what the running engine asks too: schedules, the misfire rule, pauses, filters, debounce windows, limits and
ranks. Runs are taken to last as long as they are said to, and to succeed. It begins with an idle engine.

What happens in the same instant has no order in the engine; here ends come first, then what begins or ends a
downtime or a pause, then debounce windows, then what is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from functools import partial
from typing import Any

from msgspec import Struct

from engine.clock import from_microseconds, rfc3339, to_microseconds
from engine.config import Config
from engine.decide.limits import Slots
from engine.decide.misfire import due as due_after
from engine.decide.overlap import Action, Decision, OpenRun
from engine.decide.overlap import decide as decide_overlap
from engine.decide.priority import rank
from engine.decide.rules import Rule
from engine.decide.schedule import schedule_of
from engine.decide.shaping import Window, Windows, first_due, next_due
from engine.errors import EngineError, ExpressionError, PluginError
from engine.events import Event
from engine.following import Followers
from engine.foresight.course import Course
from engine.foresight.durations import Durations
from engine.foresight.line import Going, Line
from engine.foresight.tally import Tally
from engine.jobs import Job, Overlap
from engine.plugin import Source
from engine.runs import RunState
from engine.triggers import CatchUp, Debounce, Pause, Trigger

_TICK = timedelta(microseconds=1)
_EVENT_TYPE = "engine.timer"


class Downtime(Struct, frozen=True, kw_only=True):
    """A time in which the engine is stopped: from `start` on nothing begins, at `end` it is back."""

    start: datetime
    end: datetime


class World(Struct, frozen=True, kw_only=True):
    """What is known of the engine: its triggers and jobs, its limits, and the `pauses` that hold, by trigger."""

    triggers: Mapping[str, Trigger]
    jobs: Mapping[str, Job]
    concurrency: int
    ageing_s: float
    shutdown_grace_s: float
    timezone: str
    pauses: Mapping[str, Pause] = {}

    @classmethod
    def of(
        cls, config: Config, *, triggers: Mapping[str, Trigger], jobs: Mapping[str, Job], pauses: Mapping[str, Pause]
    ) -> World:  # fmt: skip
        """Return it for a configuration, of which triggers and jobs may be others by now."""
        engine = config.engine
        return cls(
            triggers=triggers, jobs=jobs, concurrency=engine.concurrency, ageing_s=engine.ageing_s,
            shutdown_grace_s=engine.shutdown_grace_s, timezone=engine.timezone, pauses=pauses,
        )  # fmt: skip


class TooMany(EngineError):
    """More comes due than may be simulated; `instants` have, by `at`, and about `about` would in all."""

    def __init__(self, instants: int, at: datetime, about: int) -> None:
        super().__init__(
            f"{instants:,} instants come due until {rfc3339(at)} already, about {about:,} in all: "
            "ask for a shorter time"
        )
        self.instants = instants
        self.at = at
        self.about = about


class _Phase(IntEnum):
    """What comes first in one instant."""

    END = 0
    CHANGE = 1
    WINDOW = 2
    DUE = 3


class Simulation:
    """What would happen from `start` until before `end`; `tally` is told of all of it.

    Raises TooMany from `go_on` where more than `most` instants come due.
    """

    def __init__(
        self, world: World, durations: Durations, start: datetime, end: datetime, *, tally: Tally, most: int,
        downtimes: Sequence[Downtime] = (),
    ) -> None:  # fmt: skip
        self.instants = 0
        """How many came due so far."""
        self._world = world
        self._begins_at = start
        self._start_us, self._end_us = to_microseconds(start), to_microseconds(end)
        self._most = most
        self._tally = tally
        self._line = Line()
        self._slots = Slots(world.concurrency)
        for job in world.jobs.values():
            self._slots.limit(job)
        # Of the jobs with a limit: the runs that are open, by number, as far as another one may meet them.
        self._open: dict[str, dict[int, OpenRun]] = {
            job.name: {} for job in world.jobs.values() if job.concurrency is not None
        }
        self._up = True
        self._stalled: list[Course] = []
        self._active: dict[int, Going] = {}
        self._windows = Windows()
        self._gathering: dict[str, Going] = {}
        self._heap: list[tuple[int, int, int, Any]] = []
        self._order = 0
        self._runs = 0
        self._courses = {name: self._course(trigger, durations) for name, trigger in world.triggers.items()}
        rules = {name: course.rule for name, course in self._courses.items()}
        follows: dict[str, Source] = {}
        for course in self._courses.values():
            on = course.trigger.on
            if course.unforeseen is None and isinstance(on, Source):
                follows.setdefault(course.trigger.source, on)
        self._followers = Followers(list(follows.items()), rules, world.jobs)
        for course in self._courses.values():
            tally.expect(course)
            self._begin(course)
        for downtime in downtimes:
            self._plan_downtime(downtime)

    def go_on(self, instants: int) -> bool:
        """Go on until so many more instants have come due; return whether the end was reached, and is told."""
        heap, until = self._heap, self.instants + instants
        while heap and heap[0][0] < self._end_us:
            if self.instants >= until:
                return False
            at, phase, _, what = heapq.heappop(heap)
            if phase == _Phase.DUE:
                if self.instants >= self._most:
                    raise self._too_many(at)
                self._come_due(what, at)
            elif phase == _Phase.END:
                self._end(what, at)
            else:
                what(at)
        for run in self._active.values():
            self._tally.ended(run, self._end_us, "running")
        for run in self._line.waiting():
            self._tally.left_waiting(run, self._end_us)
        return True

    # Triggers

    def _course(self, trigger: Trigger, durations: Durations) -> Course:
        job = self._world.jobs[trigger.job]
        rule = Rule(trigger, job)
        length = durations.of(trigger, self._world.triggers)
        schedule, unforeseen = schedule_of(trigger), rule.disabled
        if unforeseen is None and schedule is None and not (isinstance(trigger.on, Source) and trigger.on.follows_runs):
            unforeseen = "it is on events, and nobody knows when they come"
        return Course(
            rule=rule, trigger=trigger, job=job, schedule=schedule, length=length,
            length_us=max(round(min(length.seconds, job.timeout_s) * 1e6), 1), times_out=length.seconds > job.timeout_s,
            pause=self._world.pauses.get(trigger.name), since=self._begins_at - _TICK, unforeseen=unforeseen,
        )  # fmt: skip

    def _begin(self, course: Course) -> None:
        schedule = course.schedule
        if course.unforeseen is not None or schedule is None:
            return
        try:
            before = schedule.previous(self._begins_at)
            if before is not None and schedule.fires_at(before) >= self._begins_at:
                course.since = before - _TICK
        except Exception as error:  # plugin code
            course.unforeseen = _raised(error)
            return
        self._schedule(course)

    def _schedule(self, course: Course) -> None:
        """Put a trigger's next due instant on the heap."""
        schedule = course.schedule
        if schedule is None:
            return
        try:
            due = course.due = schedule.next(course.since)
            if due is None:
                return
            if due <= course.since:
                raise PluginError(f"the next instant after {rfc3339(course.since)} can't be {rfc3339(due)}")
            at = schedule.fires_at(due)
        except Exception as error:  # plugin code
            course.unforeseen = _raised(error)
            return
        self._push(to_microseconds(at), _Phase.DUE, course)

    def _push(self, at_us: int, phase: _Phase, what: Any) -> None:
        if at_us < self._end_us:
            self._order += 1
            heapq.heappush(self._heap, (at_us, phase, self._order, what))

    def _come_due(self, course: Course, at_us: int) -> None:
        due = course.due
        if due is None:
            return
        if not self._up:
            self._stalled.append(course)
            return
        pause = course.pause
        if pause is not None and pause.holds(from_microseconds(at_us)):
            self._hold(course, pause, due, at_us)
            return
        self.instants += 1
        course.since = due
        self._arrive(course, to_microseconds(due), at_us)
        self._schedule(course)

    def _hold(self, course: Course, pause: Pause, due: datetime, at_us: int) -> None:
        """Leave what comes due in a pause to the misfire rule, when that is over; without an end it is only counted."""
        why = pause.said_of(course.trigger.name)
        until_us = None if pause.until is None else to_microseconds(pause.until)
        if until_us is not None and until_us < self._end_us:
            self._push(until_us, _Phase.CHANGE, lambda at: self._catch_up(course, at, why))
            return
        self.instants += 1
        self._tally.dropped(course, "paused", to_microseconds(due), at_us, why)
        course.since = due
        self._schedule(course)

    def _catch_up(self, course: Course, at_us: int, why: str) -> None:
        """Deal with what came due while nothing could run, by the misfire rule."""
        schedule, now = course.schedule, from_microseconds(at_us)
        if schedule is None:
            return
        try:
            found = due_after(schedule, course.since, now, course.trigger.misfire)
        except Exception as error:  # plugin code
            course.unforeseen = _raised(error)
            return
        if found is None:
            self._schedule(course)
            return
        reason = f"missed: {why}{'; a later one is run' if found.runs else ''}"
        if found.gap is not None:
            self.instants += found.gap.count
            first_us = to_microseconds(found.gap.first)
            self._tally.dropped(course, "missed", first_us, at_us, reason, count=found.gap.count)
        for instant in found.missed:
            self.instants += 1
            self._tally.dropped(course, "missed", to_microseconds(instant), at_us, reason)
        rule = course.trigger.misfire
        caught_up = rule.catch_up is CatchUp.ALL
        for number, instant in enumerate(found.runs):
            self.instants += 1
            arrives_us = at_us + round(number * 1e6 / rule.rate_per_s)
            self._push(arrives_us, _Phase.CHANGE, partial(self._make_up, course, to_microseconds(instant), caught_up))
        course.since = found.runs[-1] if found.runs else found.first
        self._schedule(course)

    def _make_up(self, course: Course, due_us: int, caught_up: bool, at_us: int) -> None:
        self._arrive(course, due_us, at_us, caught_up=caught_up)

    # From what is due to a run

    def _arrive(self, course: Course, due_us: int, at_us: int, *, caught_up: bool = False) -> None:
        """Decide what becomes of a due instant: a run, a place in a window, or nothing."""
        self._tally.came(course, at_us)
        rule, debounce = course.rule, course.trigger.debounce
        key = ""
        if rule.filter is not None or rule.key is not None:
            try:
                event = _due_event(course, due_us, at_us)
                scope = rule.scope(event, rule.data_of(event))
                if not rule.passes(event, scope):
                    text = "its filter" if rule.filter is None else rule.filter.text
                    self._tally.dropped(course, "filtered", due_us, at_us, f"filtered: {text} is false")
                    return
                key = rule.key_of(event, scope)
            except ExpressionError as error:
                self._tally.dropped(course, "filtered", due_us, at_us, f"filtered: {error}")
                return
        if debounce is not None:
            self._gather(course, debounce, key, due_us, at_us)
            return
        self._ready(self._run(course, due_us, at_us, caught_up), at_us)

    def _run(self, course: Course, due_us: int, at_us: int, caught_up: bool = False) -> Going:
        self._runs += 1
        return Going(
            course=course, number=self._runs, due_us=due_us, created_us=at_us, ready_us=at_us,
            rank=rank(from_microseconds(at_us), course.trigger.priority, self._world.ageing_s), caught_up=caught_up,
            scheduled=course.schedule is not None,
        )  # fmt: skip

    def _gather(self, course: Course, debounce: Debounce, key: str, due_us: int, at_us: int) -> None:
        now = from_microseconds(at_us)
        window = self._windows.find(course.trigger.name, key)
        if window is not None:
            window.due_at = next_due(debounce, now, window.closes_at)
            window.count += 1
            self._tally.joined(course)
            return
        due_at, closes_at = first_due(debounce, now)
        run = self._run(course, due_us, at_us)
        window = Window(
            run=str(run.number), trigger=course.trigger.name, key=key, due_at=due_at, closes_at=closes_at,
            priority=course.trigger.priority,
        )  # fmt: skip
        self._windows.open(window)
        self._gathering[window.run] = run
        self._push(to_microseconds(due_at), _Phase.WINDOW, lambda at: self._close(window, at))

    def _close(self, window: Window, at_us: int) -> None:
        """Close a window whose time has come, or look again when it will have."""
        due_us = to_microseconds(window.due_at)
        if due_us > at_us:
            self._push(due_us, _Phase.WINDOW, lambda at: self._close(window, at))
            return
        self._windows.close(window)
        run = self._gathering.pop(window.run)
        run.events = window.count
        run.ready_us = at_us
        run.rank = rank(from_microseconds(at_us), run.course.trigger.priority, self._world.ageing_s)
        self._ready(run, at_us)

    # Slots

    def _ready(self, run: Going, at_us: int) -> None:
        """Start a run that is ready where a slot is free, else let it wait; unless others of its job are in the way."""
        job = run.course.job.name
        lane = self._open.get(job)
        if lane is not None and not self._has_room(run, lane, at_us):
            return
        if run.waits_for:
            # The slot that it made free goes to whoever is first in line.
            self._line.push(run)
            self._pump(at_us)
        elif self._up and self._slots.may_start(job) and not self._line.has(job):
            self._start(run, at_us)
            return
        else:
            run.waits_for = self._slots.said_of_wait(job) if self._up else "the engine, which is down"
            self._line.push(run)
        self._tally.waits(len(self._line), at_us)

    def _has_room(self, run: Going, lane: dict[int, OpenRun], at_us: int) -> bool:
        """Take in a run of a job with a limit; False where it is skipped."""
        job, trigger = run.course.job, run.course.trigger.name
        if len(lane) >= (job.concurrency or 0):
            decision = decide_overlap(
                job.overlap, limit=job.concurrency, trigger=trigger, scheduled=run.scheduled, exempt=False,
                open_runs=list(lane.values()),
            )  # fmt: skip
            if decision.action is Action.SKIP:
                self._tally.skipped(run, at_us, _in_the_way(decision, lane))
                return False
            if decision.action is Action.REPLACE:
                self._replace(decision, job.name, at_us)
                run.waits_for = "the end of the run that it replaces"
        if run.scheduled or job.overlap is not Overlap.QUEUE:
            lane[run.number] = OpenRun(
                id=str(run.number), trigger=trigger, begun=False, scheduled=run.scheduled, exempt=False
            )  # fmt: skip
        return True

    def _replace(self, decision: Decision, job: str, at_us: int) -> None:
        """End what a new run takes the place of."""
        for number in map(int, decision.drops):
            self._tally.skipped(self._line.remove(job, number), at_us, "a newer run takes its place")
            del self._open[job][number]
        if decision.cancels is not None:
            run = self._active[int(decision.cancels)]
            self._leave(run)
            self._forget_open(run)
            self._tally.ended(run, at_us, "replaced", "a newer run takes its place")

    def _start(self, run: Going, at_us: int) -> None:
        course = run.course
        self._slots.take(course.job.name)
        lane = self._open.get(course.job.name)
        if lane is not None:
            self._begin_open(run, lane)
        run.started_us = at_us
        run.ends_us = at_us + course.length_us
        self._active[run.number] = run
        self._push(run.ends_us, _Phase.END, run)
        self._tally.started(run, at_us, self._slots.taken)

    def _begin_open(self, run: Going, lane: dict[int, OpenRun]) -> None:
        known = lane.get(run.number)
        if known is not None:
            known.begun = True
        else:
            lane[run.number] = OpenRun(
                id=str(run.number), trigger=run.course.trigger.name, begun=True, scheduled=run.scheduled, exempt=False
            )  # fmt: skip

    def _end(self, run: Going, at_us: int) -> None:
        if run.ends_us != at_us or run.number not in self._active:
            return  # it was cut off, and may have begun again
        course = run.course
        self._leave(run)
        self._forget_open(run)
        state = RunState.TIMED_OUT if course.times_out else RunState.SUCCEEDED
        self._tally.ended(run, at_us, state.value)
        self._pump(at_us)
        for rule in self._followers.on(course.job.name, course.trigger.name, state):
            self._follow(self._courses[rule.trigger.name], at_us)

    def _leave(self, run: Going) -> None:
        job = run.course.job.name
        del self._active[run.number]
        self._slots.give(job)
        self._line.unpark(job)

    def _forget_open(self, run: Going) -> None:
        lane = self._open.get(run.course.job.name)
        if lane is not None:
            del lane[run.number]

    def _follow(self, course: Course, at_us: int) -> None:
        """Let a trigger that is on ends of runs have its event; its filter is taken to pass."""
        if self.instants >= self._most:
            raise self._too_many(at_us)
        if course.rule.disabled is not None:
            return
        self.instants += 1
        pause = course.pause
        if pause is not None and pause.holds(from_microseconds(at_us)):
            self._tally.dropped(course, "paused", at_us, at_us, pause.said_of(course.trigger.name))
            return
        self._tally.came(course, at_us)
        if course.trigger.debounce is not None:
            self._gather(course, course.trigger.debounce, "", at_us, at_us)
        else:
            self._ready(self._run(course, at_us, at_us), at_us)

    def _pump(self, at_us: int) -> None:
        while self._up and self._slots.taken < self._slots.most:
            run = self._line.take(self._slots.may_start)
            if run is None:
                return
            self._start(run, at_us)

    # Downtimes

    def _plan_downtime(self, downtime: Downtime) -> None:
        stop_us, back_us = (max(to_microseconds(at), self._start_us) for at in (downtime.start, downtime.end))
        if back_us <= stop_us:
            return
        cut_us = min(stop_us + round(self._world.shutdown_grace_s * 1e6), back_us)
        self._push(stop_us, _Phase.CHANGE, self._stop)
        self._push(cut_us, _Phase.CHANGE, self._cut_off)
        self._push(back_us, _Phase.CHANGE, self._come_back)

    def _stop(self, at_us: int) -> None:
        self._up = False

    def _cut_off(self, at_us: int) -> None:
        """Queue again what did not end in time: the attempt does not count, and its place is that of its beginning."""
        for run in list(self._active.values()):
            self._tally.ended(run, at_us, "interrupted")
            self._leave(run)
            run.rank = rank(
                from_microseconds(run.created_us), run.course.trigger.priority, self._world.ageing_s
            )  # fmt: skip
            run.started_us = run.ends_us = -1
            run.ready_us = at_us
            run.waits_for = "the engine, which is down"
            self._line.push(run)

    def _come_back(self, at_us: int) -> None:
        self._up = True
        self._pump(at_us)
        stalled, self._stalled = self._stalled, []
        for course in stalled:
            self._catch_up(course, at_us, "the engine was down")

    def _too_many(self, at_us: int) -> TooMany:
        passed_us = max(at_us - self._start_us, 1)
        about = round(self.instants * max((self._end_us - self._start_us) / passed_us, 1.0))
        return TooMany(self.instants, from_microseconds(at_us), about)


def _due_event(course: Course, due_us: int, at_us: int) -> Event:
    """Return the event of a due instant, as the timers make it."""
    due = from_microseconds(due_us)
    scheduled = rfc3339(due)
    return Event(
        id="", source=course.trigger.source, type=_EVENT_TYPE, subject=course.trigger.name, time=due, key=scheduled,
        data={"scheduled_for": scheduled}, received_at=from_microseconds(at_us),
    )  # fmt: skip


def _in_the_way(decision: Decision, lane: Mapping[int, OpenRun]) -> str:
    other = lane[int(decision.run or "")]
    state = "still runs" if other.begun else "waits already"
    return f"overlap: a run of trigger {other.trigger} {state}"


def _raised(error: Exception) -> str:
    return f"its timer raised {type(error).__name__}: {error}"
