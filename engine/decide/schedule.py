"""Schedules: a timer with what bounds and thins it out; the one answer to when a trigger comes due.

A *due instant* is what the timer means, whatever happens to it: events, runs and cursors name it. It *fires* then, or
a little later where the trigger spreads its load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import islice
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from engine.clock import rfc3339
from engine.decide.calendars import Calendar, Days, days_left, said_of
from engine.decide.thinning import EPOCH, TICK, Thinned
from engine.plugin import BadSetting, Timer, instant_of
from engine.plugin.moments import zone_of
from engine.triggers import Trigger

OF_INPUT = "/"
"""Between the names of a trigger and of its input, in the name of that one's timer: no trigger's own name has it."""

MOST_EXCLUDED = 10_000
"""So many excluded instants are told of at once."""

_NO_CALENDARS: Mapping[str, Calendar] = MappingProxyType({})
_COUNTED, _COUNTED_FROM_1970 = timedelta(days=3653), timedelta(days=70 * 366)
"""So long must it be possible to count instants one by one."""

_EARLIEST = datetime.min.replace(tzinfo=EPOCH.tzinfo) + timedelta(days=366)
_LATEST = datetime.max.replace(tzinfo=EPOCH.tzinfo) - timedelta(days=366)


class Schedule(Struct, frozen=True, kw_only=True, eq=False):
    """When one trigger comes due. All methods are pure, take and return aware datetimes, and raise what the timer does.

    - `trigger`: the name of the trigger.
    - `calendars`: those that the timer may name.

    Raises BadSetting where the timer's settings can't be so.
    """

    trigger: str
    timer: Timer
    calendars: Mapping[str, Calendar] = _NO_CALENDARS
    thinned: Thinned | None = None
    """What bounds and thins out the timer, made of its settings; None where they leave all instants."""

    def __post_init__(self) -> None:
        timer = self.timer
        if timer.jitter is not None and timer.jitter < 0:
            raise BadSetting("jitter", "is negative", "instants fire later, never earlier")
        plain = timer.start is None and timer.end is None and timer.every_nth is None
        if not (plain and not timer.except_ and not timer.only):
            force_setattr(self, "thinned", _thinned(timer, self.calendars))
        elif self.thinned is not None:  # that of another timer, whose place this one takes
            force_setattr(self, "thinned", None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return (self.trigger, self.timer, self._days()) == (other.trigger, other.timer, other._days())

    def __hash__(self) -> int:
        return hash(self.trigger)

    def next(self, after: datetime) -> datetime | None:
        """Return the first due instant later than `after`, or None where there is none."""
        return self.timer.next(after) if self.thinned is None else self.thinned.next(self.timer, after)

    def previous(self, before: datetime) -> datetime | None:
        """Return the last due instant earlier than `before`, or None where there is none."""
        return self.timer.previous(before) if self.thinned is None else self.thinned.previous(self.timer, before)

    def count(self, first: datetime, last: datetime) -> int | None:
        """Return how many instants are due from one due instant to another, both included.

        None where they would have to be stepped through, as a calendar takes some away or the timer can't count.
        """
        thinned, timer = self.thinned, self.timer
        if type(timer).count is Timer.count or (thinned is not None and thinned.days is not None):
            return None
        nth = 1 if thinned is None or thinned.nth is None else thinned.nth
        return 1 + timer.count(first, last) // nth

    def note(self, due: datetime) -> str | None:
        """Say what is special about a due instant, such as that a change of the clock moves it; None: nothing."""
        return self.timer.note(due)

    def fires_at(self, due: datetime) -> datetime:
        """Return when a due instant fires: then, or later by less than the distance to the next one.

        How much later is drawn from the name of the trigger and the instant, so that every restart and every machine
        comes to the same, and triggers with equal settings come apart.
        """
        jitter = self.timer.jitter
        if not jitter:
            return due
        following, most = self.next(due), timedelta(seconds=jitter)
        if following is not None:
            most = min(most, following - due)
        seed = f"{self.trigger}\0{(due - EPOCH) // TICK}".encode()
        drawn = int.from_bytes(blake2b(seed, digest_size=8).digest())
        return due + TICK * (most // TICK * drawn >> 64)

    def excluded(self, after: datetime, before: datetime, limit: int = MOST_EXCLUDED) -> Iterator[tuple[datetime, str]]:
        """Yield the instants between two others that would be due but for a calendar, each with the reason.

        They were not missed. At most `limit` are told of.
        """
        if self.thinned is not None:
            yield from islice(self.thinned.excluded(self.timer, after, before), limit)

    def why_over(self, after: datetime) -> str:
        """Say why nothing further is due after an instant, where `next` says so."""
        thinned = self.thinned
        if thinned is not None:
            if thinned.days is not None and thinned.next_counted(self.timer, after) is not None:
                return f"{said_of(thinned.days)} leave none of its timer's further instants"
            if thinned.end is not None and self.timer.next(max(after, thinned.end)) is not None:
                return f"nothing of it is due after its end, {rfc3339(thinned.end)}"
        return "its timer has no further due instant"

    def check(self) -> None:
        """Raise BadSetting where it can never be due, and PluginError where its instants are too many to count."""
        thinned, timer = self.thinned, self.timer
        if thinned is None:
            return
        if thinned.nth is not None and thinned.start is not None and type(timer).count is Timer.count:
            timer.count(thinned.start, thinned.start + (_COUNTED if timer.start is not None else _COUNTED_FROM_1970))
        first = (thinned.start or _EARLIEST) - TICK
        if self.next(first) is not None:
            return
        if thinned.days is not None and thinned.next_counted(timer, first) is not None:
            field = "only" if timer.only else "except_"
            raise BadSetting(field, f"is never due: {said_of(thinned.days)} leave none of its timer's instants")
        since = f" from {rfc3339(thinned.start)} on" if timer.start is not None and thinned.start is not None else ""
        until = f" until {rfc3339(thinned.end)}" if thinned.end is not None else ""
        field = "end" if thinned.end is not None else "start"
        raise BadSetting(field, f"is never due: its timer has no instant{since}{until}")

    def _days(self) -> Days | None:
        return None if self.thinned is None else self.thinned.days


def schedule_of(trigger: Trigger) -> Schedule | None:
    """Return the schedule of a trigger that is on a timer, else None."""
    if trigger.schedule is not None:
        schedule: Schedule = trigger.schedule
        return schedule
    return Schedule(trigger=trigger.name, timer=trigger.on) if isinstance(trigger.on, Timer) else None


def timers_of(trigger: Trigger) -> tuple[Trigger, ...]:
    """Return the triggers on timers that a trigger comes to for those who keep time: itself, or one for each input."""
    if not trigger.inputs:
        return (trigger,) if schedule_of(trigger) is not None else ()
    return tuple(
        replace(
            trigger, name=f"{trigger.name}{OF_INPUT}{one.name}", source=one.source, on=one.on, schedule=one.schedule,
            shared=one.shared, inputs=(), join=None,
        )
        for one in trigger.inputs if isinstance(one.on, Timer)
    )  # fmt: skip


def owner_of(timer: str) -> str:
    """Return the name of the trigger that a timer is of, by the name of that."""
    return timer.partition(OF_INPUT)[0]


def _thinned(timer: Timer, calendars: Mapping[str, Calendar]) -> Thinned:
    """Return what a timer's settings say; raise BadSetting where they can't be so."""
    if timer.every_nth is not None and timer.every_nth < 2:
        raise BadSetting("every_nth", f"found {timer.every_nth}, expected a whole number of at least 2")
    start, end = _bound(timer, "start", timer.start), _bound(timer, "end", timer.end)
    if start is not None and end is not None and end < start:
        raise BadSetting("end", f"is before its start, {rfc3339(start)}: it would never be due")
    excepted, only = _named(timer, "except_", calendars), _named(timer, "only", calendars)
    return Thinned(
        start=start,
        end=end,
        nth=timer.every_nth,
        days=days_left(excepted, only) if excepted or only else None,
        zone=zone_of(timer.timezone),
    )


def _bound(timer: Timer, field: str, moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    try:
        return min(max(instant_of(moment, timer.timezone), _EARLIEST), _LATEST)
    except OverflowError:
        raise BadSetting(field, f"{moment.isoformat()} is out of range: it has no date in UTC") from None


def _named(timer: Timer, field: str, calendars: Mapping[str, Calendar]) -> tuple[Calendar, ...]:
    """Return the calendars that a timer names, but for those that are not enabled."""
    found = []
    for place, name in enumerate(getattr(timer, field)):
        if name not in calendars:
            raise BadSetting(f"{field}[{place}]", f'found "{name}", but there is no such calendar')
        found.append(calendars[name])
    return tuple(one for one in found if one.enabled)
