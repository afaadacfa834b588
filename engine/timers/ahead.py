"""Triggers that have dealt with instants which, by the clock, are still to come: it was set back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from engine.clock import rfc3339
from engine.timers.state import State

log = logging.getLogger("engine.timers")

CORRECTION_S = 3 * 3600.0
"""A clock that goes back by more was wrong before, and the new time holds; by less, nothing is run again (cron(8))."""

MOST_NAMED = 5


def is_wrong(since: datetime, now: datetime) -> bool:
    """Tell whether what was dealt with is so far ahead that the clock must have been wrong then."""
    return (since - now).total_seconds() > CORRECTION_S


def tell_ahead(ahead: Sequence[State], now: datetime) -> None:
    """Say what becomes of triggers that are ahead of the clock, or were until they were corrected."""
    waiting = [state for state in ahead if now < state.since and not is_wrong(state.since, now)]
    corrected = [state for state in ahead if state.since <= now or is_wrong(state.since, now)]
    if waiting:
        until = max(state.since for state in waiting)
        log.warning(
            "The clock is behind what triggers have dealt with: %s; nothing is run twice, they go on after %s",
            _named(waiting), rfc3339(until), extra={"action": "clock_behind", "triggers": len(waiting)},
        )  # fmt: skip
    if corrected:
        log.warning(
            "The clock was wrong before: %s go on from %s; what they have run is not run again",
            _named(corrected), rfc3339(now), extra={"action": "clock_corrected", "triggers": len(corrected)},
        )  # fmt: skip


def _named(states: Sequence[State]) -> str:
    names = ", ".join(state.trigger.name for state in states[:MOST_NAMED])
    return names if len(states) <= MOST_NAMED else f"{names} and {len(states) - MOST_NAMED:,} more"
