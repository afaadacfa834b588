"""The one source of time. Nothing else in the engine reads a clock or sleeps."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_SLEEP_S = 30.0
"""No sleep on one computed delay is longer: a step of the wall clock does not wake a sleeping task."""

_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Wall time, monotonic time and sleeping; the system's, or a virtual one in tests and simulations."""

    def now(self) -> datetime:
        """Return the wall time: aware, UTC, to the microsecond. It may step both ways."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never steps back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds` of monotonic time; zero or less yields once."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(seconds, 0.0))


def suspended_s() -> float:
    """Return for how long the machine was suspended since it was started; 0 where the system can't tell."""
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if boottime is None else time.clock_gettime(boottime) - time.clock_gettime(time.CLOCK_MONOTONIC)


async def sleep_until(clock: Clock, at: datetime) -> None:
    """Sleep until the wall clock shows `at`, noticing steps of it within `LONGEST_SLEEP_S`."""
    while (left_s := (at - clock.now()).total_seconds()) > 0:
        await clock.sleep(min(left_s, LONGEST_SLEEP_S))


async def sleep_or_wake(clock: Clock, seconds: float, woken: asyncio.Event | anyio.Event) -> None:
    """Sleep for `seconds` by the clock, or until the event is set."""
    async with anyio.create_task_group() as group:

        async def wake() -> None:
            await woken.wait()
            group.cancel_scope.cancel()

        group.start_soon(wake)
        await clock.sleep(seconds)
        group.cancel_scope.cancel()


def to_microseconds(at: datetime) -> int:
    """Return whole microseconds since 1970 (UTC): how stores keep instants."""
    return (at - EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Return the aware UTC instant of `to_microseconds`."""
    return EPOCH + timedelta(microseconds=value)


def rfc3339(at: datetime) -> str:
    """Write an instant as RFC 3339 in UTC with a trailing Z, to the microsecond where it has any."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
