"""The load over time, minute by minute: what comes due, and how busy the slots are."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from zoneinfo import ZoneInfo

from msgspec import Struct

from engine.clock import from_microseconds, to_microseconds

MINUTE_US = 60_000_000
BLOCK = 1024
_HOUR = timedelta(hours=1)
ALIKE = 20
"""Windows that differ by no more than one part of so many are told to be alike."""

_NONE = (2**62, 2**62, 2**62)


class Hour(Struct, frozen=True, kw_only=True):
    """One hour of the local clock: its beginning, what comes due in it, and the seconds of all slots that are busy.

    `part` is how much of it lies within the time that was asked for, 1.0 for all of it.
    """

    at: datetime
    due: int
    busy_s: float
    part: float


class Window(Struct, frozen=True, kw_only=True):
    """A time that may suit: what comes due in it, and the seconds of all slots that are busy."""

    start: datetime
    end: datetime
    due: int
    busy_s: float


class Load:
    """Counters for each minute from `start_us` to `end_us` (microseconds since 1970)."""

    def __init__(self, start_us: int, end_us: int) -> None:
        self._start_us, self._end_us = start_us, end_us
        self._first = start_us // MINUTE_US
        self._count = max(-(-end_us // MINUTE_US) - self._first, 1)
        self._due = array("L", bytes(array("L").itemsize * self._count))
        # The busy time of a minute: what is in `parts`, and a whole minute for each run that the sums of `turns` count.
        self._parts = array("q", bytes(8 * self._count))
        self._turns = array("q", bytes(8 * (self._count + 1)))

    def came(self, at_us: int) -> None:
        """Count something that comes due."""
        self._due[at_us // MINUTE_US - self._first] += 1

    def busy(self, start_us: int, end_us: int) -> None:
        """Count a slot that is busy from `start_us` to `end_us`."""
        first, last = start_us // MINUTE_US - self._first, end_us // MINUTE_US - self._first
        if first == last:
            self._parts[first] += end_us - start_us
            return
        self._parts[first] += MINUTE_US - start_us % MINUTE_US
        if last < self._count:
            self._parts[last] += end_us % MINUTE_US
        self._turns[first + 1] += 1
        self._turns[last] -= 1

    def hours(self, timezone: str) -> list[Hour]:
        """Return all hours of a zone's clock, in order."""
        zone = ZoneInfo(timezone)
        busy, due = self._busy_sums(), self._due_sums()
        found = []
        at = from_microseconds(self._first * MINUTE_US)
        at -= timedelta(minutes=at.astimezone(zone).minute)
        ends_at = from_microseconds(self._end_us)
        while at < ends_at:
            local = at.astimezone(zone)
            # Where the clock was set by half an hour, what is left of the hour is one by itself.
            following = at + _HOUR - timedelta(minutes=local.minute)
            first, last = self._index(at), self._index(following)
            inside_us = min(to_microseconds(following), self._end_us) - max(to_microseconds(at), self._start_us)
            found.append(
                Hour(
                    at=local, due=due[last] - due[first], busy_s=(busy[last] - busy[first]) / 1e6,
                    part=inside_us / 3_600_000_000,
                )
            )  # fmt: skip
            at = following
        return found

    def quietest(self, length_s: float, count: int) -> list[Window]:
        """Return up to `count` windows of a length, no two of which overlap, the quietest first.

        Quiet is where slots are the least busy; of equal windows where the least comes due, then the earliest. They
        begin at whole minutes.
        """
        minutes = max(-(-int(length_s * 1e6) // MINUTE_US), 1)
        first = 1 if self._start_us % MINUTE_US else 0
        last = self._end_us // MINUTE_US - self._first - minutes
        if last < first:
            return []
        busy, due = self._busy_sums(), self._due_sums()
        chosen: list[int] = []

        def best(block: int) -> tuple[int, int, int]:
            starts = range(max(block * BLOCK, first), min((block + 1) * BLOCK, last + 1))
            near = [other for other in chosen if starts.start - minutes < other < starts.stop + minutes]
            free = (at for at in starts if all(abs(at - other) >= minutes for other in near))
            return min(((busy[at + minutes] - busy[at], due[at + minutes] - due[at], at) for at in free), default=_NONE)

        # Block by block, as one sort of a year's minutes would hold the interpreter for long.
        found = {block: best(block) for block in range(first // BLOCK, last // BLOCK + 1)}
        while len(chosen) < count and (quietest := min(found.values())) is not _NONE:
            at = quietest[2]
            chosen.append(at)
            for block in range((at - minutes) // BLOCK, (at + minutes) // BLOCK + 1):
                if block in found:
                    found[block] = best(block)
        return [
            Window(
                start=from_microseconds((self._first + at) * MINUTE_US),
                end=from_microseconds((self._first + at + minutes) * MINUTE_US),
                due=due[at + minutes] - due[at],
                busy_s=(busy[at + minutes] - busy[at]) / 1e6,
            )
            for at in chosen
        ]

    def are_alike(self, length_s: float) -> bool:
        """Tell whether all windows of a length, at whole minutes, are about as quiet: what runs in them, and what
        comes due, differs by no more than one part of `ALIKE`."""
        minutes = max(-(-int(length_s * 1e6) // MINUTE_US), 1)
        first = 1 if self._start_us % MINUTE_US else 0
        starts = range(first, self._end_us // MINUTE_US - self._first - minutes + 1)
        both = (self._busy_sums(), self._due_sums())
        return len(starts) > 1 and all(_is_flat(sums, starts, minutes) for sums in both)

    def _index(self, at: datetime) -> int:
        return min(max(to_microseconds(at) // MINUTE_US - self._first, 0), self._count)

    def _busy_sums(self) -> array[int]:
        return array("q", accumulate(self._busy_minutes(), initial=0))

    def _busy_minutes(self) -> Iterator[int]:
        for part, whole in zip(self._parts, accumulate(self._turns), strict=False):
            yield part + whole * MINUTE_US

    def _due_sums(self) -> array[int]:
        return array("q", accumulate(self._due, initial=0))


def _is_flat(sums: Sequence[int], starts: Sequence[int], minutes: int) -> bool:
    """Tell whether so many minutes have about as much from each start on; what is not is mostly seen soon."""
    least, most = None, 0
    for at in starts:
        value = sums[at + minutes] - sums[at]
        least, most = value if least is None else min(least, value), max(most, value)
        if (most - least) * ALIKE > most:
            return False
    return True
