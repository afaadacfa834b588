"""Notices what the clocks do: steps of the wall clock, times in which the machine slept or the process stood still."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from engine.clock import Clock, rfc3339
from engine.units import format_span

log = logging.getLogger("engine.timers")

STEP_S = 1.0
"""A wall clock that goes so much further, or less far, than time did was set; slewing is far slower."""

STOOD_STILL_S = 5.0
"""A sleep that is so much too long is told of."""


class Noticed(Struct, frozen=True, kw_only=True):
    """What happened since the last look: all in seconds, 0 where nothing did.

    `stepped` is by how much the wall clock was set (back: negative), `slept` how long the machine was suspended.
    """

    stepped: float
    slept: float


class ClockWatch:
    """Compares the wall clock with what can't be set.

    `suspended_s` tells for how long the machine was suspended since it was started, in which monotonic time stands.
    """

    def __init__(self, clock: Clock, suspended_s: Callable[[], float]) -> None:
        self._clock = clock
        self._suspended_s = suspended_s
        self._wall, self._steady_s, self._slept_s = clock.now(), clock.monotonic(), suspended_s()

    def look(self) -> Noticed | None:
        """Return what happened since the last look, or None."""
        wall, steady_s, slept_s = self._clock.now(), self._clock.monotonic(), self._suspended_s()
        slept = slept_s - self._slept_s
        stepped = (wall - self._wall).total_seconds() - (steady_s - self._steady_s) - slept
        self._wall, self._steady_s, self._slept_s = wall, steady_s, slept_s
        if abs(stepped) < STEP_S and slept < STEP_S:
            return None
        return Noticed(stepped=stepped if abs(stepped) >= STEP_S else 0.0, slept=slept if slept >= STEP_S else 0.0)


def tell_noticed(noticed: Noticed, now: datetime) -> None:
    """Say what the clocks did."""
    if noticed.slept:
        log.warning(
            "The machine slept for %s; what came due meanwhile is dealt with by each trigger's misfire rule",
            format_span(noticed.slept), extra={"action": "slept", "seconds": round(noticed.slept, 3)},
        )  # fmt: skip
    if noticed.stepped:
        log.warning(
            "The wall clock was set %s by %s, to %s", "forward" if noticed.stepped > 0 else "back",
            format_span(abs(noticed.stepped)), rfc3339(now),
            extra={"action": "clock_stepped", "seconds": round(noticed.stepped, 3)},
        )  # fmt: skip


def tell_late(late_s: float) -> None:
    """Say that a sleep ended so much later than it was to, where that is worth it."""
    if late_s > STOOD_STILL_S:
        log.warning(
            "The engine stood still for %s: it was stopped, or its event loop was blocked", format_span(late_s),
            extra={"action": "stood_still", "seconds": round(late_s, 3)},
        )  # fmt: skip
