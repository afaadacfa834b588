"""What a trigger's schedule will do: its due instants to come, in its own zone, with what is special about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct

from engine.clock import rfc3339
from engine.decide.rules import why_disabled
from engine.decide.schedule import Schedule, schedule_of
from engine.decide.windows import After, MaintenanceWindow, open_at, shown
from engine.errors import Conflict, PluginError
from engine.jobs import Job
from engine.triggers import Pause, Trigger

LARGEST_COUNT, DEFAULT_COUNT = 1000, 10
"""How many instants are told at once, at most and by default."""

_LOOK = timedelta(hours=12)
"""A zone's clock is looked at so often for changes: those of any zone lie days apart."""

SECOND = timedelta(seconds=1)
_NOTHING = timedelta(0)


class Upcoming(Struct, frozen=True, kw_only=True):
    """A due instant to come.

    - `at`: the instant, in UTC; `local`: the same in the trigger's zone, whose name is `zone`.
    - `fires_at`: when it fires; later than `at` where the trigger spreads its load.
    - `note`: what is special about it, such as that a change of the clock moves it, or that the trigger is paused then.
    - `own`: that part of `note` which is of this instant alone; `idle`: why nothing is run then, in a word: `disabled`,
      `paused`, or None.
    """

    at: datetime
    local: datetime
    zone: str
    fires_at: datetime
    note: str | None
    own: str | None = None
    idle: str | None = None

    def view(self) -> dict[str, Any]:
        """Return it as JSON; `local` is written as RFC 9557 does: with its offset, and the zone in brackets."""
        return {
            "at": rfc3339(self.at),
            "local": f"{self.local.isoformat()}[{self.zone}]",
            "note": self.note,
            "fires_at": rfc3339(self.fires_at),
        }


def upcoming(
    trigger: Trigger,
    after: datetime,
    *,
    schedule: Schedule | None = None,
    pause: Pause | None = None,
    default_zone: str = "UTC",
    windows: Sequence[MaintenanceWindow] = (),
    job: Job | None = None,
) -> Iterator[Upcoming]:
    """Yield the due instants of a trigger that are later than `after`, one by one; mostly they have no end.

    `schedule` is what it goes by, where that is not the configured one. Those of a trigger that is disabled, or
    whose `job` is, have a note that says so, and so have those that fall into its `pause`, or fire in one of `windows`.
    `default_zone` is that of timers which name none.

    Raises Conflict, at once, where the trigger is on no timer, and PluginError, on the way, where its timer fails.
    """
    schedule = schedule or schedule_of(trigger)
    if schedule is None:
        raise Conflict(
            f"trigger {trigger.name} is on no timer but on {trigger.on.name}: what happens there makes it due, not time"
        )
    return _walk(trigger, schedule, after, pause, default_zone, windows, why_disabled(trigger, job))


def _walk(
    trigger: Trigger,
    schedule: Schedule,
    after: datetime,
    pause: Pause | None,
    default_zone: str,
    windows: Sequence[MaintenanceWindow],
    disabled: str | None,
) -> Iterator[Upcoming]:
    zone = schedule.timer.timezone or default_zone
    place = ZoneInfo(zone)
    parts = () if pause is None else pause.parts or (pause,)
    at: datetime | None = after
    while at is not None:
        try:
            following = schedule.next(at)
            if following is None:
                return
            if following <= at:
                raise PluginError(f"the next instant after {rfc3339(at)} can't be {rfc3339(following)}")
            note, fires_at, local = schedule.note(following), schedule.fires_at(following), following.astimezone(place)
        except PluginError:
            raise
        except OverflowError:  # where the calendar ends, not every instant can be shown in every zone
            return
        except Exception as error:
            raise PluginError(f"the timer of trigger {trigger.name} raised {type(error).__name__}: {error}") from error
        at = following
        paused = [part.said() for part in parts if part.holds(at)]
        held = [text for window in windows if (text := _held(window, fires_at)) is not None]
        yield Upcoming(
            at=at, local=local, zone=zone, fires_at=fires_at, note=_joined(note, disabled, *paused, *held),
            own=_joined(note, *held), idle="disabled" if disabled else "paused" if paused else None,
        )  # fmt: skip


def _joined(*said: str | None) -> str | None:
    return "; ".join(filter(None, said)) or None


def _held(window: MaintenanceWindow, at: datetime) -> str | None:
    """Say what becomes of what fires at an instant, where the window is open then."""
    opening = None
    with suppress(Exception):  # plugin code, which is told of where its window is shown
        opening = open_at(window.pattern, at)
    if opening is None:
        return None
    become = "skipped for" if window.after is After.DROP else "held by"
    return f"{become} maintenance {window.name} until {shown(opening.end)}"


def clock_notes(trigger: Trigger, after: datetime, until: datetime, *, default_zone: str = "UTC") -> Iterator[Upcoming]:
    """Yield, for each change of the clock between two instants, the due instant whose note tells of it first.

    Nothing for changes that do not touch the trigger, for one that does not work, or is on no timer.
    """
    schedule = schedule_of(trigger)
    if schedule is None or not trigger.works:
        return
    zone = schedule.timer.timezone or default_zone
    last: datetime | None = None
    for change, twice in clock_changes(zone, after, until):
        # What is shown twice begins so long before the change; what is moved, or comes after a gap, is due at the
        # change or is the first one after it.
        touched = next(upcoming(trigger, change - twice - SECOND, default_zone=default_zone), None)
        if touched is not None and touched.note is not None and touched.at != last:
            last = touched.at
            yield touched


def clock_changes(zone: str, after: datetime, until: datetime) -> Iterator[tuple[datetime, timedelta]]:
    """Yield when a zone's clock is set, after `after` and not after `until`, and how much it shows twice then.

    That is nothing where the clock is set forward.
    """
    for year in range(after.year, until.year + 1):
        yield from (change for change in _changes_of_year(zone, year) if after < change[0] <= until)


@lru_cache(maxsize=1024)
def _changes_of_year(zone: str, year: int) -> tuple[tuple[datetime, timedelta], ...]:
    place, found = ZoneInfo(zone), []
    low, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    before = _offset(low, place)
    while low < end:
        high = low + _LOOK
        following = _offset(high, place)
        if following != before:
            early, late = low, high
            while late - early > SECOND:
                middle = early + (late - early) // SECOND // 2 * SECOND
                early, late = (middle, late) if _offset(middle, place) == before else (early, middle)
            found.append((late, max(before - following, _NOTHING)))
        low, before = high, following
    return tuple(found)


def _offset(at: datetime, place: ZoneInfo) -> timedelta:
    return at.astimezone(place).utcoffset() or _NOTHING
