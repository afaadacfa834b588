"""What comes due: schedules, pauses, and the misfire rule where nothing could run. As the timers do it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from engine.clock import from_microseconds, rfc3339, to_microseconds
from engine.decide.misfire import ON_TIME_S, Due, late_limit_s
from engine.decide.misfire import due as due_after
from engine.errors import PluginError
from engine.foresight.agenda import Agenda, Phase
from engine.foresight.course import Course
from engine.foresight.tally import Tally
from engine.triggers import CatchUp, Misfire, Pause
from engine.units import format_span

log = logging.getLogger("engine.foresight")

_TICK = timedelta(microseconds=1)

Arrive = Callable[[Course, int, int, bool], None]
"""Hears of a due instant that is to run: its trigger, the instant, when it fires, and whether it makes up for a missed
one."""


class Timetable:
    """Follows the schedules of triggers from `start` on."""

    def __init__(self, start: datetime, *, agenda: Agenda, tally: Tally, arrive: Arrive) -> None:
        self._start = start
        self._agenda = agenda
        self._tally = tally
        self._arrive = arrive
        self._up = True
        self._stalled: list[Course] = []

    def stop(self) -> None:
        """Let what comes due wait until the engine is back."""
        self._up = False

    def come_back(self, at_us: int) -> None:
        """Deal with what came due while the engine was down."""
        self._up = True
        stalled, self._stalled = self._stalled, []
        for course in stalled:
            self._catch_up(course, at_us, "the engine was down")

    def begin(self, course: Course) -> None:
        """Take up a trigger, from what fires at the start or later."""
        schedule = course.schedule
        if course.unforeseen is not None or schedule is None:
            return
        course.act = partial(self._come_due, course)
        try:
            before = schedule.previous(self._start)
            if before is not None and schedule.fires_at(before) >= self._start:
                course.since = before - _TICK
        except Exception as error:  # plugin code
            course.unforeseen = _raised(course.trigger.name, error)
            return
        self._schedule(course, self._agenda.start_us)

    def _schedule(self, course: Course, now_us: int) -> None:
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
            course.fires_us = to_microseconds(schedule.fires_at(due))
        except Exception as error:  # plugin code
            course.unforeseen = _raised(course.trigger.name, error)
            return
        self._agenda.push(max(course.fires_us, now_us), Phase.DUE, course.act)

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
        if at_us > course.fires_us:
            self._catch_up(course, at_us, "it was caught up on others")
            return
        self._agenda.instants += 1
        course.since = due
        self._arrive(course, to_microseconds(due), at_us, False)
        self._schedule(course, at_us)

    def _hold(self, course: Course, pause: Pause, due: datetime, at_us: int) -> None:
        """Leave what comes due in a pause to the misfire rule, when that is over; without an end it is only counted."""
        why = pause.said_of(course.trigger.name)
        until_us = None if pause.until is None else to_microseconds(pause.until)
        if until_us is not None and until_us < self._agenda.end_us:
            self._agenda.push(until_us, Phase.CHANGE, lambda at: self._catch_up(course, at, why))
            return
        self._agenda.instants += 1
        self._tally.dropped(course, "paused", to_microseconds(due), at_us, why)
        course.since = due
        self._schedule(course, at_us)

    def _catch_up(self, course: Course, at_us: int, why: str) -> None:
        """Deal with what came due while nothing could run, by the misfire rule."""
        if not self._up:
            self._stalled.append(course)
            return
        schedule, rule, now = course.schedule, course.trigger.misfire, from_microseconds(at_us)
        if schedule is None:
            return
        try:
            found = due_after(schedule, course.since, now, rule)
            late_s = (
                0.0 if found is None or not found.runs else (now - schedule.fires_at(found.runs[0])).total_seconds()
            )
        except Exception as error:  # plugin code
            course.unforeseen = _raised(course.trigger.name, error)
            return
        if found is None:
            self._schedule(course, at_us)
            return
        reason = f"missed: {why}; {_why_missed(rule, found)}"
        if found.gap is not None:
            self._miss(course, found.gap.first, at_us, reason, found.gap.count)
        for instant in found.missed:
            self._miss(course, instant, at_us, reason, 1)
        course.since = found.first
        if not found.runs:
            self._schedule(course, at_us)
            return
        course.exempt = rule.catch_up is CatchUp.ALL and late_s > ON_TIME_S
        course.backlog = list(reversed(found.runs))
        self._make_up(course, at_us)

    def _miss(self, course: Course, instant: datetime, at_us: int, reason: str, count: int) -> None:
        self._agenda.instants += count
        self._tally.dropped(course, "missed", to_microseconds(instant), at_us, reason, count=count)

    def _make_up(self, course: Course, at_us: int) -> None:
        """Run the next instant that is caught up on, and let the one after it wait for the rate."""
        rule, schedule, pause = course.trigger.misfire, course.schedule, course.pause
        if schedule is None or not course.backlog:
            return
        late_s = (from_microseconds(at_us) - schedule.fires_at(course.backlog[-1])).total_seconds()
        if (
            not self._up
            or (pause is not None and pause.holds(from_microseconds(at_us)))
            or (rule.grace_s is not None and late_s > rule.grace_s)
        ):
            course.backlog = []
            self._catch_up(course, at_us, "it was caught up on others")
            return
        due = course.since = course.backlog.pop()
        self._agenda.instants += 1
        self._arrive(course, to_microseconds(due), at_us, True)
        if course.backlog:
            self._agenda.push(at_us + round(1e6 / rule.rate_per_s), Phase.DUE, partial(self._make_up, course))
        else:
            course.exempt = False
            self._schedule(course, at_us)


def _why_missed(rule: Misfire, found: Due) -> str:
    limit_s = late_limit_s(rule)
    if not found.runs and limit_s is not None:
        return f"it is more than {format_span(limit_s)} late"
    if rule.catch_up is CatchUp.ALL:
        return f"only the newest {rule.max:,} are caught up on"
    return "a later one is run"


def _raised(trigger: str, error: Exception) -> str:
    log.warning(
        "The timer of trigger %s raised", trigger, exc_info=error, extra={"action": "timer_raised", "trigger": trigger}
    )  # fmt: skip
    return f"its timer raised {type(error).__name__}: {error}"
