"""Hours of days in which runs may pass."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import ClassVar, Literal, get_args
from zoneinfo import ZoneInfo

from engine.plugin import BadSetting, Condition, ConditionContext, TimeZone, Verdict

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

_DAYS: tuple[str, ...] = get_args(Weekday)
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\Z", re.ASCII)


class Within(Condition, frozen=True, kw_only=True):
    """Pass only within some hours of some days.

    - `start`: a local time such as `"08:00"`; without start and end it is whole days.
    - `end`: a local time, which is outside; one that is not after the start is on the next day.
    - `days`: the days on which a window begins. Default: every day.
    - `timezone`: default: `[engine] timezone`.
    """

    name: ClassVar[str] = "window"

    start: str = "00:00"
    end: str = "00:00"
    days: tuple[Weekday, ...] = _DAYS  # type: ignore[assignment]
    timezone: TimeZone | None = None

    def __post_init__(self) -> None:
        _time("start", self.start)
        _time("end", self.end)
        if not self.days:
            raise BadSetting("days", "is empty, so that nothing could pass")

    async def check(self, context: ConditionContext) -> Verdict:
        now = context.clock.now()
        zone = ZoneInfo(self.timezone or "UTC")
        today = now.astimezone(zone).date()
        # Yesterday's may reach into today; and within a week from now the next one begins.
        for days in range(-1, 9):
            date = today + timedelta(days=days)
            if _DAYS[date.weekday()] not in self.days:
                continue
            opens, closes = self._bounds(datetime.combine(date, time()), zone)
            if opens <= now < closes:
                return Verdict.passes(f"within {self._said()}, until {_shown(closes, zone)}")
            if opens > now:
                return Verdict.holds(f"outside of {self._said()}; it begins {_shown(opens, zone)}", until=opens)
        return Verdict.holds(f"outside of {self._said()}")

    def _bounds(self, midnight: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """Return when a day's window opens and closes. Local times that a change of the clock skips are at the change;
        of those that it repeats the first opens, and the last closes."""
        start, end = _time("start", self.start), _time("end", self.end)
        first = datetime.combine(midnight, start)
        last = datetime.combine(midnight + timedelta(days=0 if end > start else 1), end)
        return (
            first.replace(tzinfo=zone, fold=0).astimezone(UTC),
            last.replace(tzinfo=zone, fold=1).astimezone(UTC),
        )

    def _said(self) -> str:
        days = "" if len(set(self.days)) == len(_DAYS) else f" ({', '.join(day[:3] for day in self.days)})"
        return f"{self.start}-{self.end}{days}"


def _time(field: str, text: str) -> time:
    match = _TIME.match(text)
    if match is None:
        raise BadSetting(field, f"{text!r:.40} is no time of day", 'such as "08:30"')
    return time(int(match[1]), int(match[2]))


def _shown(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%a %H:%M} {zone.key}"
