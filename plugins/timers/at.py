"""The timer of single instants."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from functools import cached_property
from typing import ClassVar

from engine.plugin import BadSetting, Moment, Timer
from plugins.timers.zones import find_zone, shown_text


class At(Timer, frozen=True, kw_only=True, dict=True):
    """Due at one instant, or at each of several; when the last has passed, the trigger is `completed`.

    - `times`: an instant such as `"2026-12-24T18:00:00+01:00"`, a local time of `timezone` such as
      `"2026-12-24 18:00"`, or a list of them; a text or one of TOML's own dates with a time. What passed before the
      trigger was there is not run.

    When clocks change, local times follow the rule of fixed times of `cron`: one that the clock skips is due
    at the first minute after the gap, one that it shows twice is due the first time. Times that come to the
    same instant are one.
    """

    name: ClassVar[str] = "at"
    main: ClassVar[str | None] = "times"

    times: Moment | tuple[Moment, ...]

    def __post_init__(self) -> None:
        # Also tells of what is no date in UTC, at the time when the settings are read.
        if not self._instants:
            raise BadSetting("times", "is an empty list: it would never be due", "give one instant or more")

    @cached_property
    def _instants(self) -> list[datetime]:
        zone = find_zone(self.timezone or "UTC")
        found: set[datetime] = set()
        times = self.times if isinstance(self.times, tuple) else (self.times,)
        for place, time in enumerate(times):
            try:
                found.add(time.astimezone(UTC) if time.tzinfo is not None else zone.first(time))
            except OverflowError:
                field = f"times[{place}]" if isinstance(self.times, tuple) else "times"
                raise BadSetting(field, f"{time.isoformat()} is out of range: it has no date in UTC") from None
        return sorted(found)

    def next(self, after: datetime) -> datetime | None:
        """Return the first of the instants later than `after`, in UTC, or None."""
        place = bisect_right(self._instants, _aware(after))
        return self._instants[place] if place < len(self._instants) else None

    def previous(self, before: datetime) -> datetime | None:
        """Return the last of the instants earlier than `before`, in UTC, or None."""
        place = bisect_left(self._instants, _aware(before))
        return self._instants[place - 1] if place else None

    def note(self, at: datetime) -> str | None:
        """Say, of a due instant, what a change of the clock does to it; None where there is nothing to say."""
        due, zone = _aware(at), find_zone(self.timezone or "UTC")
        times = self.times if isinstance(self.times, tuple) else (self.times,)
        for time in times:
            if time.tzinfo is None and zone.first(time) == due:
                first, second = zone.offsets(time)
                if first > second:
                    return f"the clock shows {shown_text(time)} twice as it is set back: runs the first time only"
                if first < second:
                    change = zone.change(time)
                    here = shown_text(zone.wall(due), change)
                    return f"scheduled for {shown_text(time, change)}, runs at {here}: {change.skips()}"
        return None

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many instants are due later than `after`, up to and including `upto`."""
        return max(0, bisect_right(self._instants, _aware(upto)) - bisect_right(self._instants, _aware(after)))


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"at: {at.isoformat()} has no time zone; give an aware datetime, such as one in UTC")
    return at
