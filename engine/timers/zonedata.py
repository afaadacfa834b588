"""Tells when the time zone data has changed since the engine ran last, and whose next instants that moves.

Python reads a zone once in the life of a process, so that a change shows at a start. Next instants are never stored:
they are computed anew, and the new data holds. What is stored, for each zone in use, is what its clock was going to
show in the years to come.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.clock import EPOCH, Clock, rfc3339
from engine.errors import StoreError
from engine.timers.state import State

log = logging.getLogger("engine.timers")

ZONES_SOURCE = "engine:timezones"
"""Under this id the store remembers the zones, by name."""

AHEAD = timedelta(days=3 * 365)
RENEWED_AHEAD = timedelta(days=2 * 365)
"""What is remembered of a zone is renewed when it reaches less far."""

DAY_S = 86400
PAGE = 1_000
MOST_NAMED = 5

Recall = Callable[..., Awaitable[dict[str, Any]]]
Remember = Callable[[Mapping[str, Any]], Awaitable[Any]]


class Offsets(Struct, frozen=True, kw_only=True):
    """How far a zone's clock is ahead of UTC: `offsets` from the instants `at` on, up to `until`; all in seconds."""

    at: tuple[int, ...]
    offsets: tuple[int, ...]
    until: int

    def of(self, at: int) -> int:
        """Return the offset at an instant that is covered."""
        return self.offsets[max(bisect_right(self.at, at) - 1, 0)]

    @staticmethod
    def read(zone: ZoneInfo, since: datetime, until: datetime) -> Offsets:
        """Ask a zone for each day, and where two days differ for the second; two changes in a day are not told of."""

        def offset(second: int) -> int:
            shown = (EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
            return 0 if shown is None else round(shown.total_seconds())

        first, last = _second(since), _second(until)
        at, offsets = [first], [offset(first)]
        for day in range(first + DAY_S, last + DAY_S, DAY_S):
            if (shown := offset(day)) != offsets[-1]:
                low, high = day - DAY_S, day
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
                at.append(high)
                offsets.append(shown)
        return Offsets(at=tuple(at), offsets=tuple(offsets), until=last)


class ZoneData:
    """Compares the zones that timers are in with what is remembered of them.

    `recall` reads a page of what a source remembers; `remember` makes values durable.
    """

    def __init__(self, clock: Clock, recall: Recall, remember: Remember) -> None:
        self._clock = clock
        self._recall = recall
        self._remember = remember

    async def compare(self, states: Collection[State]) -> None:
        """Tell of each zone whose data has changed, with the triggers whose next instant moved, and remember it."""
        by_zone: dict[str, list[State]] = {}
        for state in states:
            if name := state.schedule.timer.timezone:
                by_zone.setdefault(name, []).append(state)
        try:
            known = await self._known()
            changed = {}
            now = self._clock.now()
            for name, there in by_zone.items():
                found = Offsets.read(ZoneInfo(name), now, now + AHEAD)
                before = known.get(name)
                differs = before is not None and self._tell(name, before, found, there)
                if differs or before is None or before.until < _second(now + RENEWED_AHEAD):
                    changed[name] = msgspec.to_builtins(found)
                await self._clock.sleep(0)
            if changed:
                await self._remember(changed)
        except StoreError as error:
            log.warning("The time zone data was not compared: %s", error, extra={"action": "zone_data_unknown"})

    async def _known(self) -> dict[str, Offsets]:
        known: dict[str, Offsets] = {}
        after: str | None = None
        while page := await self._recall(ZONES_SOURCE, after=after, limit=PAGE):
            known |= {name: msgspec.convert(value, Offsets) for name, value in page.items()}
            after = next(reversed(page))
        return known

    def _tell(self, name: str, before: Offsets, found: Offsets, there: Collection[State]) -> bool:
        """Say what is different in a zone from now on; return whether anything is."""
        change = next(_differences(before, found), None)
        if change is None:
            return False
        moved = [text for state in there if (text := _moved(state, before, found)) is not None]
        told = f"next instants that moved: {', '.join(moved[:MOST_NAMED])}" if moved else "no next instant moved"
        if len(moved) > MOST_NAMED:
            told += f" and {len(moved) - MOST_NAMED:,} more"
        log.warning(
            "The time zone data of %s changed: at %s its clock is now %s from UTC, and was to be %s; %s",
            name, rfc3339(_at(change)), _written(found.of(change)), _written(before.of(change)), told,
            extra={"action": "zone_data_changed", "zone": name, "triggers": len(there), "moved": len(moved)},
        )  # fmt: skip
        return True


def _differences(before: Offsets, found: Offsets) -> Iterator[int]:
    """Yield the instants from which on two readings of a zone differ, as far as both reach."""
    start, end = max(before.at[0], found.at[0]), min(before.until, found.until)
    for second in sorted({start, *before.at, *found.at}):
        if start <= second < end and before.of(second) != found.of(second):
            yield second


def _moved(state: State, before: Offsets, found: Offsets) -> str | None:
    """Say where a timer's next instant was, if it was elsewhere: where the old clock shows what the new one does."""
    at = state.next_at
    if at is None or _second(at) >= before.until:
        return None
    was = at + timedelta(seconds=found.of(_second(at)) - before.of(_second(at)))
    try:
        # One that is due at both, such as each full hour, did not move; nor one that is the same in any zone.
        if was == at or state.schedule.previous(was + timedelta(microseconds=1)) == was:
            return None
        elsewhere = "UTC" if found.of(_second(at)) else "Etc/GMT+7"
        if replace(state.schedule.timer, timezone=elsewhere).next(at - timedelta(microseconds=1)) == at:
            return None
    except Exception:  # plugin code; only a sentence depends on it
        log.debug("A timer raised", exc_info=True, extra={"action": "timer_raised", "trigger": state.trigger.name})
        return None
    return f"{state.trigger.name} ({rfc3339(at)}, was {rfc3339(was)})"


def _second(at: datetime) -> int:
    return (at - EPOCH) // timedelta(seconds=1)


def _at(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)


def _written(offset: int) -> str:
    sign, minutes = "-" if offset < 0 else "+", abs(offset) // 60
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"
