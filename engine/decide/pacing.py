"""What becomes of a timer's grid of due instants when its interval is changed while it runs.

A changed interval begins a new grid, one interval after the last due instant; where that has passed already, the
instant that was next stays, and the grid goes on from there. So nothing comes twice or in a burst, and a shorter
interval puts nothing off. The configured interval comes back on its own grid, at least half of it after the last
instant. The grid and the cursor alone tell what is next, so a restart comes to the same.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec.structs import replace

from engine.decide.schedule import Schedule

_TICK = timedelta(microseconds=1)


def first_by(
    configured: Schedule, seconds: float | None, *, last: datetime, upcoming: datetime | None, now: datetime
) -> datetime:
    """Return the instant with which the grid of an interval begins; None is the configured one.

    `last` is the last due instant, one that is on its way included; `upcoming` the one after it, where there is one.
    Raises what the timer does.
    """
    if seconds is None:
        half = timedelta(seconds=(configured.timer.base_interval() or 0.0) / 2)
        soonest = max(now, last + half)
        return configured.next(soonest) or soonest
    first = last + timedelta(seconds=seconds)
    if first > now:
        return first
    return upcoming if upcoming is not None and upcoming > now else now + timedelta(seconds=seconds)


def paced(configured: Schedule, seconds: float | None, first: datetime) -> Schedule:
    """Return a schedule with another interval, or with the configured one (None), from the instant `first` on.

    Raises what the timer does, such as BadSetting where it can't have that interval.
    """
    if seconds is None:
        seconds, first = configured.timer.base_interval() or 0.0, configured.next(first - _TICK) or first
    return replace(configured, timer=configured.timer.paced(seconds, first))
