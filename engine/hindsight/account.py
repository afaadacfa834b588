"""The account of a timer: each of its due instants in a time, with what became of it. Pure but for the timer's plugin.

What is recorded has a line of its own. What lies between two records left none: these instants are counted, in ranges
for each of which there is one reason. So every due instant is in a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from engine.clock import rfc3339
from engine.decide.misfire import counted
from engine.decide.schedule import Schedule
from engine.hindsight.lines import EXCLUDED, NOT_RUN, TO_COME, UNKNOWN, WAITING, Line, line_of_event
from engine.hindsight.periods import AWAY, DISABLED, NOT_THERE, OTHER, PAUSED, PURGED, STANDSTILL, TROUBLE, Period
from engine.store.base import Met

TICK = timedelta(microseconds=1)
LATE_S = 5.0
"""What fires by so much later than it was to is told of as late."""

MOST_BECAUSE = 5
"""So many periods are named with one line."""

_ABSENT = (NOT_THERE, DISABLED, OTHER)
"""In these periods the schedule says nothing: no due instant of it was to run, or to be recorded."""


class Reason(Struct, frozen=True, kw_only=True):
    """Why due instants left no record; it holds for those before `end`, where it has one."""

    verdict: str
    code: str
    said: str
    end: datetime | None = None


class Account(Struct, frozen=True, kw_only=True):
    """What is needed to tell of due instants.

    - `schedule`: when the trigger comes due as things are now; None where that is not what it was, as it adapts.
    - `periods`: what kept it from running, and when.
    - `dealt`: the last due instant that was dealt with, None where none was.
    """

    schedule: Schedule | None
    periods: Sequence[Period]
    dealt: datetime | None
    now: datetime

    def lines(self, start: datetime, end: datetime, recorded: Sequence[Line]) -> Iterator[Line]:
        """Yield the lines from `start` to before `end`, where `recorded` are those of records, in their order.

        Raises what the timer does.
        """
        past = start - TICK
        for line in recorded:
            yield from self._between(past, line.at)
            if line.last >= start:
                yield line
            past = max(past, line.last)
        yield from self._between(past, end)

    def fired(self, met: Met, at: datetime) -> Line:
        """Return what became of a due instant that fired; where that was late, or came to no run, with what held then.

        Raises what the timer does.
        """
        line = line_of_event(met, at)
        fires_at = at if self.schedule is None else self.schedule.fires_at(at)
        late_s = round((met.event.received_at - fires_at).total_seconds(), 3)
        if line.run is not None and late_s <= LATE_S:
            return line
        return replace(line, late_s=late_s if late_s > LATE_S else None, because=tuple(self.because(at, at)))

    def because(self, first: datetime, last: datetime) -> list[str]:
        """Say what kept it from running between two instants, both included."""
        kept = (period for period in self.periods if period.code != PURGED and period.meets(first, last))
        return [period.said for period in kept][:MOST_BECAUSE]

    def _between(self, after: datetime, before: datetime) -> Iterator[Line]:
        """Yield lines for the instants between two others, none of which is recorded."""
        if self.schedule is not None and before - after > TICK:
            found = [*self._counted(self.schedule, after, before), *self._excluded(self.schedule, after, before)]
            yield from sorted(found, key=lambda line: line.at)

    def _counted(self, schedule: Schedule, after: datetime, before: datetime) -> Iterator[Line]:
        line: Line | None = None
        first = schedule.next(after)
        while first is not None and first < before:
            reason = self._why(first)
            stop = before if reason.end is None else min(before, reason.end)
            last = schedule.previous(stop)
            if last is None or last < first:
                last = first
            count, more = counted(schedule, first, last)
            if line is not None and (line.verdict, line.code, line.reason) == (
                reason.verdict,
                reason.code,
                reason.said,
            ):
                line = replace(line, until=last, count=line.count + count, more=line.more or more)
            else:
                if line is not None:
                    yield line
                line = Line(
                    at=first, until=None if last == first else last, count=count, more=more, verdict=reason.verdict,
                    code=reason.code, reason=reason.said,
                )  # fmt: skip
            first = schedule.next(last)
        if line is not None:
            yield line

    def _excluded(self, schedule: Schedule, after: datetime, before: datetime) -> Iterator[Line]:
        line: Line | None = None
        reason: Reason | None = None
        for at, why in self._all_excluded(schedule, after, before):
            if reason is None or (reason.end is not None and at >= reason.end):
                reason = self._why(at)
            if reason.code in _ABSENT:
                continue
            if line is not None and line.reason == why:
                line = replace(line, until=at, count=line.count + 1)
                continue
            if line is not None:
                yield line
            line = Line(at=at, verdict=EXCLUDED, code="calendar", reason=why)
        if line is not None:
            yield line

    def _all_excluded(self, schedule: Schedule, after: datetime, before: datetime) -> Iterator[tuple[datetime, str]]:
        while True:
            last = None
            for last, why in schedule.excluded(after, before):
                yield last, why
            if last is None:
                return
            after = last

    def _why(self, at: datetime) -> Reason:
        """Return why a due instant left no record, and until when that is so."""
        edges = [edge for period in self.periods for edge in (period.start, period.end)]
        edges += [self.now + TICK, None if self.dealt is None else self.dealt + TICK]
        end = min((edge for edge in edges if edge is not None and edge > at), default=None)
        return replace(self._reason(at), end=end)

    def _reason(self, at: datetime) -> Reason:
        if at > self.now:
            return Reason(verdict=TO_COME, code="to_come", said="it is yet to come")
        held = {period.code: period for period in reversed(self.periods) if period.holds(at)}
        for code in _ABSENT:
            # What came or went while no engine ran was there, or not, as nobody looked.
            if code in held and not (AWAY in held and code == NOT_THERE and held[code].start is not None):
                return Reason(verdict=NOT_RUN, code=code, said=held[code].said)
        if PURGED in held and self.dealt is not None and at <= self.dealt:
            return Reason(verdict=UNKNOWN, code=PURGED, said=held[PURGED].said)
        if self.dealt is not None and at <= self.dealt:
            said = f"nothing is recorded of it, although all instants up to {rfc3339(self.dealt)} were dealt with"
            return Reason(verdict=NOT_RUN, code="unexplained", said=said)
        for code in (AWAY, PAUSED, TROUBLE, STANDSTILL):
            if code in held:
                return Reason(verdict=WAITING, code=code, said=f"not dealt with yet: {held[code].said}")
        return Reason(verdict=WAITING, code="waiting", said="not dealt with yet: the engine is at it")
