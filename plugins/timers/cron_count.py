"""How many due instants a cron expression has in a span of time, by arithmetic instead of by steps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from plugins.timers.cron_calendar import LAST_YEAR, Calendar, Values, sheet_of
from plugins.timers.zones import SECOND, Zone

_DAY = timedelta(days=1)
_LAST_WALL = datetime(LAST_YEAR, 12, 31)  # noqa: DTZ001 - a wall


def count_due(walls: Calendar, zone: Zone, follows_clock: bool, after: datetime, upto: datetime) -> int:
    """Return how many instants are due in a zone later than `after`, up to and including `upto`.

    Between two changes of the clock it shows each wall once, so the walls that are meant are counted there. One that
    does not follow the clock has no second count of what is shown again, and one instant for all that a gap removes.
    """
    first = after.astimezone(UTC).replace(microsecond=0) + SECOND
    end = upto.astimezone(UTC).replace(microsecond=0) + SECOND
    counted, top = 0, _shown_before(zone, first)
    for low, high in _spans(zone, first, end):
        if follows_clock:
            counted += _between(walls, low, high)
            continue
        if low > top and _between(walls, top, low) and not _between(walls, low, low + SECOND):
            counted += 1
        counted += _between(walls, max(low, top), high)
        top = max(top, high)
    return counted


def _shown_before(zone: Zone, at: datetime) -> datetime:
    """Return the first wall that no clock has shown, or skipped, before an instant."""
    here = zone.wall(at)
    before = zone.wall(at - SECOND) + SECOND
    first, second = zone.offsets(here)
    if first > second and at.astimezone(zone.info).utcoffset() == second:
        return zone.change(here).before
    return min(here, before)


def _spans(zone: Zone, first: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield what the clock shows from `first` to before `end`, from one change of it to the next."""
    while first < end:
        change = next(
            (each for year in range(first.year, end.year + 1) for each in _changes(zone, year) if each > first), end
        )
        change = min(change, end)
        low = zone.wall(first)
        yield low, low + (change - first)
        first = change


@lru_cache(maxsize=16384)
def _changes(zone: Zone, year: int) -> tuple[datetime, ...]:
    """Return the instants of a year, in UTC, at which a zone's clock is set; no zone's is set twice within a day."""
    found = []
    at = datetime(year, 1, 1, tzinfo=UTC)
    end = at.replace(year=year + 1)
    offset = at.astimezone(zone.info).utcoffset()
    while at < end:
        low, high = at, at + _DAY
        later = high.astimezone(zone.info).utcoffset()
        if later != offset:
            while high - low > SECOND:
                middle = low + (high - low) // SECOND // 2 * SECOND
                if middle.astimezone(zone.info).utcoffset() == offset:
                    low = middle
                else:
                    high = middle
            found.append(high)
        at, offset = at + _DAY, later
    return tuple(found)


def _between(walls: Calendar, low: datetime, high: datetime) -> int:
    """Return how many walls are meant from `low` to before `high`."""
    high = min(high, _LAST_WALL + _DAY)
    if low >= high:
        return 0
    minutes, seconds = _below(walls.minutes, 60), _below(walls.seconds, 60)
    a_day = _below(walls.hours, 24) * minutes * seconds

    def of_day(wall: datetime) -> int:
        """Return how many are meant of the day before that time of it."""
        if not _is_day(walls, wall):
            return 0
        counted = _below(walls.hours, wall.hour) * minutes * seconds
        if walls.hours.up[wall.hour] == wall.hour:
            counted += _below(walls.minutes, wall.minute) * seconds
            if walls.minutes.up[wall.minute] == wall.minute:
                counted += _below(walls.seconds, wall.second)
        return counted

    return _days(walls, low, high) * a_day - of_day(low) + of_day(high)


def _below(values: Values, limit: int) -> int:
    return sum(1 for value in range(limit) if values.up[value] == value)


def _is_day(walls: Calendar, wall: datetime) -> bool:
    return _of_month(walls, wall.year, wall.month) >> wall.day & 1 == 1


def _days(walls: Calendar, low: datetime, high: datetime) -> int:
    """Return how many days are meant from that of `low` to before that of `high`."""
    counted = -(_of_month(walls, low.year, low.month) & ((1 << low.day) - 1)).bit_count()
    counted += (_of_month(walls, high.year, high.month) & ((1 << high.day) - 1)).bit_count()
    for month in range(low.year * 12 + low.month - 1, high.year * 12 + high.month - 1):
        counted += _of_month(walls, month // 12, month % 12 + 1).bit_count()
    return counted


def _of_month(walls: Calendar, year: int, month: int) -> int:
    """Return the days of a month that are meant, as bits."""
    return walls.days[sheet_of(year, month)] if walls.months.up[month] == month else 0
