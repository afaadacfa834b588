"""Moments that are local times, put on the time line: what a zone's clock shows, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from engine.plugin.settings import BadSetting

_SECOND = timedelta(seconds=1)
_NO_SHIFT = timedelta(0)


@lru_cache(maxsize=1024)
def zone_of(name: str | None) -> ZoneInfo:
    """Return the zone of an IANA name, UTC for None; raise BadSetting for the field `timezone` where there is none."""
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):
        raise BadSetting("timezone", f'"{name}" is no known time zone', 'such as "Europe/Berlin"') from None


def instant_of(moment: datetime, timezone: str | None) -> datetime:
    """Return the instant that a `Moment` means, in UTC: a local time is one of `timezone` (None: UTC).

    One that the clock shows twice is meant the first time; one that the clock skips is the instant at which it does.
    Raises OverflowError where UTC has no such date, and BadSetting for the field `timezone`.
    """
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    return shown_first(moment, zone_of(timezone))


def shown_first(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant at which a zone's clock shows `wall`, or at which it skips that."""
    first, second = _offsets(wall, zone)
    if first >= second:
        return (wall - first).replace(tzinfo=UTC)
    low, high = (wall - second).replace(tzinfo=UTC), (wall - first).replace(tzinfo=UTC)
    while high - low > _SECOND:  # low stays before the change, high at it or after
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == first:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def shown_last(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the last instant at which a zone's clock shows `wall`, or at which it skips that."""
    first, second = _offsets(wall, zone)
    return shown_first(wall, zone) if first <= second else (wall - second).replace(tzinfo=UTC)


def _offsets(wall: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """Return a wall's offsets from UTC: mostly equal, falling where it is shown twice, rising where it is skipped."""
    shown = wall.replace(tzinfo=zone)
    return shown.utcoffset() or _NO_SHIFT, shown.replace(fold=1).utcoffset() or _NO_SHIFT
