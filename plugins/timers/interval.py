"""The interval timer: due again and again after the same time, counted from a fixed instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import ClassVar, Self

from msgspec.structs import replace

from engine.plugin import BadSetting, Duration, Timer, instant_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Interval(Timer, frozen=True, kw_only=True, dict=True):
    """Due at equal distances: at 1970-01-01T00:00Z + `offset` + n × `every`, or at `start` + n × `every`.

    Nothing else counts, so neither a restart nor another machine shifts it: `"60m"` is due at each full hour
    of UTC, `"1w"` each Thursday at 00:00 UTC. Changes of local clocks do not touch it.

    - `every`: the time between two due instants; 1 second or more.
    - `offset`: how much later than those of 1970 all of them are; less than `every`. Not beside `start`.
    """

    name: ClassVar[str] = "interval"
    main: ClassVar[str | None] = "every"

    every: Duration
    offset: Duration = 0.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise BadSetting("every", "is shorter than a second", 'such as "10s"')
        if not 0 <= self.offset < self.every:
            raise BadSetting("offset", "is not shorter than every", "it moves each due instant, by less than one step")
        if self.offset and self.start is not None:
            raise BadSetting("offset", "stands beside start, from which the instants are counted", "leave it out")
        if self.start is not None:
            _start_of(self)

    @cached_property
    def _grid(self) -> tuple[int, int]:
        """Step and offset in whole microseconds: sums of these are exact, those of seconds are not."""
        step = round(self.every * 1_000_000)
        start = _start_of(self)
        return step, (round(self.offset * 1_000_000) if start is None else _micros(start)) % step

    def next(self, after: datetime) -> datetime | None:
        """Return the first due instant later than `after`, in UTC; None beyond the year 9999."""
        step, offset = self._grid
        return _instant(((_micros(after) - offset) // step + 1) * step + offset)

    def previous(self, before: datetime) -> datetime | None:
        """Return the last due instant earlier than `before`, in UTC; None before the year 1."""
        step, offset = self._grid
        return _instant((_micros(before) - offset - 1) // step * step + offset)

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many instants are due later than `after`, up to and including `upto`."""
        step, offset = self._grid
        return max(0, (_micros(upto) - offset) // step - (_micros(after) - offset) // step)

    def base_interval(self) -> float:
        return self.every

    def paced(self, interval_s: float, first: datetime) -> Self:
        return replace(self, every=interval_s, start=first, offset=0.0)


def _start_of(interval: Interval) -> datetime | None:
    try:
        return None if interval.start is None else instant_of(interval.start, interval.timezone)
    except OverflowError:
        raise BadSetting("start", "is out of range: it has no date in UTC") from None


def _micros(at: datetime) -> int:
    if at.tzinfo is None:
        raise ValueError(f"interval: {at.isoformat()} has no time zone; give an aware datetime, such as one in UTC")
    return (at - _EPOCH) // _MICROSECOND


def _instant(micros: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return None
