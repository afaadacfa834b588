"""Maintenance windows: when they are open, whose runs wait for their end, and what becomes of those.

A window opens weekly by the clock of a zone, once, or whenever a timer is due. Where clocks are set, one that goes by
the clock is open from the first time that it shows the start until the last time that it shows the end: never shorter
than meant. A start or end that the clock skips is the instant at which it does.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Protocol

from msgspec import Struct

from engine.decide.rules import Rule
from engine.decide.schedule import Schedule
from engine.plugin import BadSetting
from engine.plugin.moments import shown_first, shown_last, zone_of

MOST_ADJOINING = 1_000
"""Openings that touch are one; so many are put together. Nothing that is meant is open for longer."""

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_TICK = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_LOOK_DAYS = 16
"""So far is a weekly opening looked for: one may fall into a gap of the clock, and the next one is a week later."""


class After(StrEnum):
    """What becomes of the runs that waited for a window's end: all run, the latest of each trigger, or none."""

    RUN = "run"
    LATEST = "latest"
    DROP = "drop"


class Cut(StrEnum):
    """What becomes of the runs that are running when a window opens."""

    FINISH = "finish"
    CANCEL = "cancel"


class Opening(Struct, frozen=True, kw_only=True):
    """A time in which a window is open: from `start` until before `end`."""

    start: datetime
    end: datetime


class Spell(Struct, frozen=True, kw_only=True):
    """A time in which a window stays open, or closed: from `since` until before `until`; None is without an end."""

    is_open: bool
    since: datetime | None
    until: datetime | None

    def holds(self, at: datetime) -> bool:
        """Tell whether an instant lies in it."""
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


class Pattern(Protocol):
    """When a window opens. Openings that begin later do not end earlier."""

    def next(self, after: datetime) -> Opening | None:
        """Return the first opening that begins later than `after`."""
        ...

    def last(self, at: datetime) -> Opening | None:
        """Return the last opening that begins at `at` or earlier."""
        ...


class Weekly(Struct, frozen=True, kw_only=True):
    """Open on days of the week (0 is Monday), from `start` to `end` by the clock of a zone.

    Where `end` is not later than `start` it is that of the next day: so midnight to midnight is a whole day.
    """

    days: frozenset[int]
    start: time
    end: time
    timezone: str

    def next(self, after: datetime) -> Opening | None:
        return self._walk(after, 1, lambda opening: opening.start > after)

    def last(self, at: datetime) -> Opening | None:
        return self._walk(at, -1, lambda opening: opening.start <= at)

    def _walk(self, at: datetime, step: int, wanted: Any) -> Opening | None:
        """Return the first opening that is wanted, from the day of an instant on, or back from it."""
        try:
            today = at.astimezone(zone_of(self.timezone)).date()
            for days in range(-1, _LOOK_DAYS):
                day = today + step * days * _DAY
                if day.weekday() in self.days:
                    opening = self._on(day.toordinal())
                    if opening.start < opening.end and wanted(opening):
                        return opening
        except OverflowError:  # where the calendar ends
            pass
        return None

    def _on(self, day: int) -> Opening:
        zone, date = zone_of(self.timezone), datetime.fromordinal(day)
        end = date if self.end > self.start else date + _DAY
        return Opening(
            start=shown_first(datetime.combine(date, self.start), zone),
            end=shown_last(datetime.combine(end, self.end), zone),
        )


class Once(Struct, frozen=True, kw_only=True):
    """Open a single time."""

    opening: Opening

    def next(self, after: datetime) -> Opening | None:
        return self.opening if self.opening.start > after else None

    def last(self, at: datetime) -> Opening | None:
        return self.opening if self.opening.start <= at else None


class Timed(Struct, frozen=True, kw_only=True):
    """Open for a duration whenever a timer is due."""

    schedule: Schedule
    duration: timedelta

    def next(self, after: datetime) -> Opening | None:
        return self._at(self.schedule.next(after))

    def last(self, at: datetime) -> Opening | None:
        return self._at(self.schedule.previous(at + _TICK))

    def _at(self, due: datetime | None) -> Opening | None:
        try:
            return None if due is None else Opening(start=due, end=due + self.duration)
        except OverflowError:
            return None


class Overridden(Struct, frozen=True, kw_only=True):
    """As another pattern, but closed until an instant."""

    pattern: Pattern
    until: datetime

    def next(self, after: datetime) -> Opening | None:
        last = self._left(self.pattern.last(after))
        if last is not None and last.start > after:
            return last
        opening = self.pattern.next(after)
        while opening is not None and (left := self._left(opening)) is None:
            opening = self.pattern.next(opening.start)
        return None if opening is None else left

    def last(self, at: datetime) -> Opening | None:
        last = self._left(self.pattern.last(at))
        return last if last is not None and last.start <= at else None

    def _left(self, opening: Opening | None) -> Opening | None:
        """Return what is left of an opening."""
        if opening is None or opening.end <= self.until:
            return None
        return Opening(start=max(opening.start, self.until), end=opening.end)


class Scope(Struct, frozen=True, kw_only=True):
    """Whose runs a window is for: those of these triggers and jobs, and of all with one of these tags, the trigger's or
    its job's. Where nothing is named, all."""

    tags: frozenset[str] = frozenset()
    triggers: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()

    @property
    def is_all(self) -> bool:
        """Whether it names nothing, and so holds everything."""
        return not (self.tags or self.triggers or self.jobs)

    def holds(self, rule: Rule) -> bool:
        """Tell whether a trigger's runs are among them."""
        if self.is_all or rule.trigger.name in self.triggers or rule.job.name in self.jobs:
            return True
        return bool(self.tags) and not self.tags.isdisjoint((*rule.trigger.tags, *rule.job.tags))

    def said(self) -> str:
        """Say what it holds."""
        kinds = (("trigger", self.triggers), ("job", self.jobs), ("tag", self.tags))
        parts = [f"{kind} {name}" for kind, names in kinds for name in sorted(names)]
        return ", ".join(parts) or "everything"


class MaintenanceWindow(Struct, frozen=True, kw_only=True):
    """A time in which runs wait.

    - `when`: its openings in words, as the configuration says it.
    - `after`: what becomes of runs that waited; `running`: of those that run when it opens.
    - `settings`: what the API was given, for one that it defines; None for one of the configuration.
    """

    name: str
    pattern: Pattern
    when: str
    scope: Scope = Scope()
    after: After = After.RUN
    running: Cut = Cut.FINISH
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""
    settings: dict[str, Any] | None = None


class Override(Struct, frozen=True, kw_only=True):
    """Until when a window counts as closed though it is open, and why."""

    until: datetime
    reason: str
    at: datetime
    who: str = ""

    def holds(self, at: datetime) -> bool:
        """Tell whether it holds at an instant."""
        return self.at <= at < self.until


def spell_at(pattern: Pattern, at: datetime) -> Spell:
    """Return the time around an instant in which a window stays open, or closed."""
    last, following = pattern.last(at), pattern.next(at)
    if last is None or last.end <= at:
        since = None if last is None else last.end
        return Spell(is_open=False, since=since, until=None if following is None else following.start)
    since, until = last.start, last.end
    for _ in range(MOST_ADJOINING):
        before = pattern.last(since - _TICK)
        if before is None or before.end < since:
            break
        since = before.start
    for _ in range(MOST_ADJOINING):
        if following is None or following.start > until:
            break
        until = max(until, following.end)
        following = pattern.next(following.start)
    return Spell(is_open=True, since=since, until=until)


def open_at(pattern: Pattern, at: datetime) -> Opening | None:
    """Return the opening that holds at an instant, with those that touch it, or None where the window is closed."""
    spell = spell_at(pattern, at)
    if not spell.is_open or spell.since is None or spell.until is None:
        return None
    return Opening(start=spell.since, end=spell.until)


def next_change(pattern: Pattern, after: datetime) -> datetime | None:
    """Return when a window opens or closes next, or None where it never does again."""
    return spell_at(pattern, after).until


def shown(at: datetime) -> str:
    """Return an instant as text, in UTC."""
    return f"{at:%Y-%m-%d %H:%M{':%S' if at.second else ''}} UTC"


def check_pattern(pattern: Pattern, timer: str = "") -> None:
    """Raise BadSetting where a window is open always, or would never be."""
    first = pattern.next(_FIRST)
    if first is None:
        raise BadSetting(timer or "days", "never opens", "give it a start that comes")
    until, following = first.end, pattern.next(first.start)
    for _ in range(MOST_ADJOINING):
        if following is None or following.start > until:
            return
        until, following = max(until, following.end), pattern.next(following.start)
    raise BadSetting(
        "duration" if timer else "days",
        "leaves no time between its openings: nothing would ever run",
        "make it shorter; what is not to run at all is disabled or paused",
    )


_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
