"""Maintenance windows as the configuration has them: weekly, once, or whenever a timer is due."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Annotated, Any, get_args

from msgspec import Meta, Struct, field

from engine.config.calendars import Weekday
from engine.decide.schedule import Schedule
from engine.decide.windows import (
    After,
    Cut,
    MaintenanceWindow,
    Once,
    Opening,
    Pattern,
    Scope,
    Timed,
    Weekly,
    check_pattern,
    shown,
)
from engine.plugin import BadSetting, instant_of
from engine.plugin.settings import Duration, JobName, Moment, TimeZone, TriggerName
from engine.units import format_duration

InlineTimer = Annotated[Any, Meta(extra={"kind": "plugin", "of": "timer", "inline": True})]
"""The name of one timer and its settings, among the other keys of a table."""

_WEEKDAYS: tuple[str, ...] = get_args(Weekday)
_MIDNIGHT = time(0, 0)
_FORMS = (
    'it opens weekly (days, start, end), once (from, to), or by a timer (such as cron = "0 2 * * 0") for a duration'
)


class ScopeTable(Struct, frozen=True, kw_only=True):
    """Whose runs wait: those of all that is named here together. Where nothing is, those of all triggers."""

    tags: Annotated[
        tuple[str, ...], Meta(description="Of triggers with one of these tags, their own or their job's.")
    ] = ()
    triggers: Annotated[tuple[TriggerName, ...], Meta(description="Of these triggers.")] = ()
    jobs: Annotated[tuple[JobName, ...], Meta(description="Of these jobs.")] = ()

    def scope(self) -> Scope:
        """Return it as the engine knows it."""
        return Scope(tags=frozenset(self.tags), triggers=frozenset(self.triggers), jobs=frozenset(self.jobs))


class MaintenanceTable(Struct, frozen=True, kw_only=True):
    """A time in which runs wait. It opens weekly (`days`, `start`, `end`), once (`from`, `to`), or for a `duration`
    whenever a timer is due, which stands here by its name."""

    on: Annotated[InlineTimer | None, Meta(description="A timer, by its name.")] = None
    days: Annotated[
        tuple[Weekday, ...], Meta(description='Such as `["sunday"]`: the days on which it begins. Default: every day.')
    ] = ()
    start: Annotated[time | None, Meta(description='Such as `"02:00"`. Default: midnight.')] = None
    end: Annotated[
        time | None, Meta(description="Where it is not later than `start`, that of the next day. Default: midnight.")
    ] = None
    from_: Annotated[Moment | None, Meta(description="When it opens, for one that does so once.")] = field(
        default=None, name="from"
    )
    to: Annotated[Moment | None, Meta(description="When that one closes.")] = None
    duration: Annotated[
        Duration | None, Meta(gt=0, description="How long it is open: of one on a timer, or in the place of `to`.")
    ] = None
    timezone: Annotated[
        TimeZone | None, Meta(description="The zone of all its local times. Default: that of the engine.")
    ] = None
    scope: Annotated[ScopeTable, Meta(description="Whose runs wait. Default: those of all triggers.")] = ScopeTable()
    after: Annotated[
        After, Meta(description="At its end all that waits is run, or the latest run of each trigger, or nothing.")
    ] = After.RUN
    running: Annotated[Cut, Meta(description="What is running when it opens may finish, or is cancelled.")] = Cut.FINISH
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Where false, nothing waits for it.")] = True

    def __post_init__(self) -> None:
        weekly = [name for name in ("days", "start", "end") if getattr(self, name) not in ((), None)]
        once = [name for name in ("from_", "to") if getattr(self, name) is not None]
        timed = [] if self.on is None else [self.on.name]
        forms = [names for names in (weekly, once, timed) if names]
        if len(forms) != 1:
            others = " and ".join(names[0].strip("_") for names in forms)
            found = f"found {others}, expected one of them" if forms else "it never opens"
            raise BadSetting(forms[1][0] if forms else "days", found, _FORMS)
        if timed:
            self._check_timed(timed[0])
        elif self.duration is not None and not once:
            raise BadSetting("duration", "has no effect beside start and end", "leave it out, or leave out end for it")
        elif once:
            self._check_once()

    def _check_timed(self, timer: str) -> None:
        if self.duration is None:
            raise BadSetting("duration", f"is missing beside {timer}", 'such as duration = "2h"')
        if self.on is not None and self.on.jitter:
            raise BadSetting(f"{timer}.jitter", "has no effect here: a window opens on time", "leave it out")

    def _check_once(self) -> None:
        if self.from_ is None:
            raise BadSetting("from", "is missing beside to", 'such as from = "2026-12-24 18:00"')
        if (self.to is None) == (self.duration is None):
            raise BadSetting("to", "is missing" if self.to is None else "stands beside duration", "give one of the two")

    def window(
        self, name: str, *, schedule: Schedule | None, timezone: str, defined_in: str,
        settings: dict[str, Any] | None = None,
    ) -> MaintenanceWindow:  # fmt: skip
        """Return the window. `schedule` is that of its timer, `timezone` that of the engine; raise BadSetting."""
        zone = self.timezone or timezone
        pattern, when = self._pattern(schedule, zone)
        return MaintenanceWindow(
            name=name, pattern=pattern, when=when, scope=self.scope.scope(), after=self.after, running=self.running,
            description=self.description, tags=self.tags, enabled=self.enabled, defined_in=defined_in,
            settings=settings,
        )  # fmt: skip

    def _pattern(self, schedule: Schedule | None, zone: str) -> tuple[Pattern, str]:
        if schedule is not None:
            return self._timed(schedule)
        if self.from_ is not None:
            return self._once(self.from_, zone)
        start, end = self.start or _MIDNIGHT, self.end or _MIDNIGHT
        days = frozenset(_WEEKDAYS.index(day) for day in self.days) or frozenset(range(7))
        weekly = Weekly(days=days, start=start, end=end, timezone=zone)
        check_pattern(weekly)
        named = "every day" if len(days) == len(_WEEKDAYS) else ", ".join(_WEEKDAYS[day] for day in sorted(days))
        return weekly, f"{named} {_clock(start)} to {_clock(end)} ({zone})"

    def _timed(self, schedule: Schedule) -> tuple[Pattern, str]:
        timer, duration_s = schedule.timer, self.duration or 0.0
        timed = Timed(schedule=schedule, duration=timedelta(seconds=duration_s))
        check_pattern(timed, timer.name)
        main = "" if timer.main is None else f" {getattr(timer, timer.main)}"
        zone = f" ({timer.timezone})" if timer.timezone else ""
        return timed, f"{timer.name}{main}{zone} for {format_duration(duration_s)}"

    def _once(self, start: datetime, zone: str) -> tuple[Pattern, str]:
        try:
            begins = instant_of(start, zone)
            if self.to is not None:
                ends = instant_of(self.to, zone)
            else:
                ends = begins + timedelta(seconds=self.duration or 0.0)
        except OverflowError:
            raise BadSetting("from", "is out of range: it has no date in UTC") from None
        if ends <= begins:
            raise BadSetting("to", "is not later than from: it would never be open")
        opening = Opening(start=begins, end=ends)
        return Once(opening=opening), f"from {shown(begins)} to {shown(ends)}"


def _clock(at: time) -> str:
    return at.isoformat("seconds" if at.second else "minutes")
