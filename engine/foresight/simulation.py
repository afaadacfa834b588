"""The simulation: the engine's deciders over a time that nobody waits for.

`agenda` holds what is to happen when, `timetable` follows the schedules, `running` has the slots. Everything that is
decided is decided by what the running engine asks too: schedules, the misfire rule, pauses, filters, shaping,
overlap, maintenance windows, limits and ranks. Runs are taken to last as long as they are said to, and to succeed. It
begins with an idle engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from engine.clock import from_microseconds, rfc3339, to_microseconds
from engine.config import Config
from engine.decide.payloads import misfit
from engine.decide.priority import rank
from engine.decide.rules import Rule
from engine.decide.schedule import schedule_of
from engine.decide.windows import MaintenanceWindow
from engine.errors import EngineError, ExpressionError
from engine.events import Event
from engine.following import Followers
from engine.foresight.agenda import Agenda, Phase
from engine.foresight.course import Course
from engine.foresight.durations import Durations
from engine.foresight.guarding import Guards
from engine.foresight.line import Going
from engine.foresight.running import Running
from engine.foresight.shaping import Shaping
from engine.foresight.tally import Tally
from engine.foresight.timetable import Timetable
from engine.foresight.upkeep import Upkeep
from engine.jobs import Job
from engine.payload import encode_json
from engine.plugin import Source
from engine.runs import RunState
from engine.triggers import MAX_HOPS, Pause, Trigger

_NONE: Mapping[str, str] = {}
_TICK = timedelta(microseconds=1)
_EVENT_TYPE = "engine.timer"


class Downtime(Struct, frozen=True, kw_only=True):
    """A time in which the engine is stopped: from `start` on nothing begins, at `end` it is back."""

    start: datetime
    end: datetime


class World(Struct, frozen=True, kw_only=True):
    """What is known of the engine: its triggers and jobs, its limits, the `pauses` that hold, by trigger, and its
    `maintenance` windows; `max_hops` is how long a chain of runs may be, `quarantined` are triggers that are in
    quarantine, and why."""

    triggers: Mapping[str, Trigger]
    jobs: Mapping[str, Job]
    concurrency: int
    ageing_s: float
    shutdown_grace_s: float
    timezone: str
    pauses: Mapping[str, Pause] = {}
    maintenance: tuple[MaintenanceWindow, ...] = ()
    pools: Mapping[str, int] = {}
    max_hops: int = MAX_HOPS
    quarantined: Mapping[str, str] = {}

    @classmethod
    def of(
        cls, config: Config, *, triggers: Mapping[str, Trigger], jobs: Mapping[str, Job], pauses: Mapping[str, Pause],
        maintenance: Iterable[MaintenanceWindow], quarantined: Mapping[str, str] = _NONE,
    ) -> World:  # fmt: skip
        """Return it for a configuration, of which triggers, jobs and windows may be others by now."""
        engine = config.engine
        kept = engine.reserve.manual + engine.reserve.backfill  # what it computes comes by itself
        return cls(
            triggers=triggers, jobs=jobs, concurrency=engine.concurrency - kept, ageing_s=engine.ageing_s,
            shutdown_grace_s=engine.shutdown_grace_s, timezone=engine.timezone, pauses=pauses,
            maintenance=tuple([window for window in maintenance if window.enabled]), pools=config.pools,
            max_hops=engine.max_hops,
            quarantined=quarantined,
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


class Simulation:
    """What would happen from `start` until before `end`; `tally` is told of all of it.

    Raises TooMany from `go_on` where more than `most` instants come due.
    """

    def __init__(
        self, world: World, durations: Durations, start: datetime, end: datetime, *, tally: Tally, most: int,
        downtimes: Sequence[Downtime] = (),
    ) -> None:  # fmt: skip
        self._world = world
        self._tally = tally
        self._most = most
        self._start, self._end = start, end
        agenda = self._agenda = Agenda(to_microseconds(start), to_microseconds(end))
        self._timetable = Timetable(start, agenda=agenda, tally=tally, arrive=self._arrive)
        self._upkeep = Upkeep(world.maintenance, agenda=agenda)
        self._running = Running(
            world.jobs.values(), concurrency=world.concurrency, ageing_s=world.ageing_s, agenda=agenda, tally=tally,
            ended=self._tell_followers, upkeep=self._upkeep, pools=world.pools,
        )  # fmt: skip
        self._shaping = Shaping(
            agenda=agenda, tally=tally, ageing_s=world.ageing_s, make=self._run, ready=self._running.ready
        )
        self._guards = Guards(tally, max_hops=world.max_hops, quarantined=world.quarantined)
        self._hops = 0
        self._runs = 0
        self._courses = {name: self._course(trigger, durations) for name, trigger in world.triggers.items()}
        follows: dict[str, Source] = {}
        for course in self._courses.values():
            on = course.trigger.on
            if course.unforeseen is None and isinstance(on, Source):
                follows.setdefault(course.trigger.source, on)
        # What a join waits for besides the ends of runs, nobody knows.
        rules = {name: course.rule for name, course in self._courses.items() if not course.trigger.inputs}
        self._followers = Followers(list(follows.items()), rules, world.jobs)
        for course in self._courses.values():
            tally.expect(course)
            self._upkeep.expect(course)
            self._timetable.begin(course)
        for downtime in downtimes:
            self._plan_downtime(downtime)

    @property
    def instants(self) -> int:
        """How many came due so far."""
        return self._agenda.instants

    def openings(self) -> list[dict[str, Any]]:
        """Return when maintenance windows are open."""
        return self._upkeep.openings(self._start, self._end)

    def go_on(self, instants: int) -> bool:
        """Go on until so many more instants have come due; return whether the end was reached, and is told."""
        agenda = self._agenda
        over = agenda.go_on(min(instants, self._most + 1 - agenda.instants))
        if agenda.instants > self._most:
            raise self._too_many()
        if over:
            self._running.tell_rest(agenda.end_us)
            self._shaping.tell_rest()
        return over

    # Triggers

    def _course(self, trigger: Trigger, durations: Durations) -> Course:
        job = self._world.jobs[trigger.job]
        rule = Rule(trigger, job)
        length, timeout_s = durations.of(trigger, self._world.triggers), rule.limited(job).timeout_s
        schedule, unforeseen = schedule_of(trigger), rule.disabled
        if unforeseen is None and schedule is None and not (isinstance(trigger.on, Source) and trigger.on.follows_runs):
            unforeseen = "it is on events, and nobody knows when they come"
            if trigger.inputs:
                unforeseen = f"it is on {trigger.on.name} of several sources, and nobody knows when their events come"
        return Course(
            rule=rule, trigger=trigger, job=job, schedule=schedule, length=length,
            length_us=max(round(min(length.seconds, timeout_s) * 1e6), 1), times_out=length.seconds > timeout_s,
            pause=self._world.pauses.get(trigger.name), since=self._start - _TICK, unforeseen=unforeseen,
        )  # fmt: skip

    # From what is due to a run

    def _arrive(self, course: Course, due_us: int, at_us: int, late: bool) -> None:
        """Decide what becomes of a due instant: a run, a place in a window, or nothing."""
        self._tally.came(course, at_us)
        rule = course.rule
        if self._guards.hold_back(course, due_us, at_us):
            return
        keys: dict[str, str] = {}
        if rule.schemas:
            data = _due_event(course, due_us, at_us).data
            why = misfit(rule, data, encode_json(data), [])
            if why is not None:
                self._tally.dropped(course, "filtered", due_us, at_us, f"rejected: {why}")
                return
        if rule.filter is not None or rule.keys:
            try:
                event = _due_event(course, due_us, at_us)
                scope = rule.scope(event, rule.data_of(event))
                if not rule.passes(event, scope):
                    text = "its filter" if rule.filter is None else rule.filter.text
                    self._tally.dropped(course, "filtered", due_us, at_us, f"filtered: {text} is false")
                    return
                keys = rule.keys_of(event, scope)
            except ExpressionError as error:
                self._tally.dropped(course, "filtered", due_us, at_us, f"filtered: {error}")
                return
        if rule.shaped:
            self._shaping.shape(course, keys, due_us, at_us, late)
            return
        self._running.ready(self._run(course, due_us, at_us, late), at_us)

    def _run(self, course: Course, due_us: int, at_us: int, late: bool = False) -> Going:
        self._runs += 1
        return Going(
            course=course, number=self._runs, due_us=due_us, created_us=at_us, ready_us=at_us,
            rank=rank(from_microseconds(at_us), course.trigger.priority, self._world.ageing_s),
            scheduled=course.schedule is not None, late=late, exempt=course.exempt,
            limit_key=course.rule.limit_key_of(_due_event(course, due_us, at_us), None)[0]
            if course.rule.limit_key is not None
            else None,
            hops=self._hops,
        )  # fmt: skip

    # From the end of a run to what follows

    def _tell_followers(self, run: Going, state: RunState, at_us: int) -> None:
        for rule in self._followers.on(run.course.job.name, run.course.trigger.name, state):
            # What is made now comes from that run; what gathers goes by the first of its events.
            self._hops = run.hops + 1
            try:
                self._follow(self._courses[rule.trigger.name], at_us)
            finally:
                self._hops = 0

    def _follow(self, course: Course, at_us: int) -> None:
        """Let a trigger that is on ends of runs have its event; its filter is taken to pass."""
        if course.rule.disabled is not None:
            return
        self._agenda.instants += 1
        if self._guards.cut(course, self._hops, at_us):
            return
        pause = course.pause
        if pause is not None and pause.holds(from_microseconds(at_us)):
            self._tally.dropped(course, "paused", at_us, at_us, pause.said_of(course.trigger.name))
            return
        self._tally.came(course, at_us)
        if self._guards.hold_back(course, at_us, at_us):
            return
        if course.rule.shaped:
            self._shaping.shape(course, {}, at_us, at_us, False)
        else:
            self._running.ready(self._run(course, at_us, at_us), at_us)

    # Downtimes

    def _plan_downtime(self, downtime: Downtime) -> None:
        stop_us, back_us = (max(to_microseconds(at), self._agenda.start_us) for at in (downtime.start, downtime.end))
        if back_us <= stop_us:
            return
        cut_us = min(stop_us + round(self._world.shutdown_grace_s * 1e6), back_us)
        self._agenda.push(stop_us, Phase.CHANGE, self._stop)
        self._agenda.push(cut_us, Phase.CHANGE, self._running.cut_off)
        self._agenda.push(back_us, Phase.CHANGE, self._come_back)

    def _stop(self, at_us: int) -> None:
        self._running.stop()
        self._timetable.stop()

    def _come_back(self, at_us: int) -> None:
        self._running.come_back(at_us)
        self._timetable.come_back(at_us)

    def _too_many(self) -> TooMany:
        agenda = self._agenda
        passed = max(agenda.now_us - agenda.start_us, 1) / (agenda.end_us - agenda.start_us)
        return TooMany(agenda.instants, from_microseconds(agenda.now_us), round(agenda.instants / passed))


def _due_event(course: Course, due_us: int, at_us: int) -> Event:
    """Return the event of a due instant, as the timers make it."""
    due = from_microseconds(due_us)
    scheduled = rfc3339(due)
    return Event(
        id="", source=course.trigger.source, type=_EVENT_TYPE, subject=course.trigger.name, time=due, key=scheduled,
        data={"scheduled_for": scheduled}, received_at=from_microseconds(at_us),
    )  # fmt: skip
