"""What the store remembers of adapted intervals, for those who look ahead without a running engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.adaptive.cases import ADAPTIVE_SOURCE, Kept, kept_interval_s
from engine.decide.pacing import paced
from engine.decide.schedule import Schedule, schedule_of
from engine.store.base import Store
from engine.triggers import Trigger

log = logging.getLogger("engine.adaptive")

PAGE = 1_000
"""So much of what is remembered is read at once."""


async def remembered(store: Store) -> dict[str, Any]:
    """Return what is remembered of all adaptive triggers, by name; raise StoreUnavailable."""
    found: dict[str, Any] = {}
    after: str | None = None
    while page := await store.memory(ADAPTIVE_SOURCE, after=after, limit=PAGE):
        found |= page
        after = next(reversed(page))
    return found


async def schedules_in_force(store: Store, triggers: Mapping[str, Trigger]) -> dict[str, Schedule]:
    """Return the schedules of the timers whose interval is another one than the configured, as a start takes them up.

    Raises StoreUnavailable.
    """
    found: dict[str, Schedule] = {}
    for name, stored in (await remembered(store)).items():
        trigger = triggers.get(name)
        configured = None if trigger is None else schedule_of(trigger)
        if trigger is None or trigger.adaptive is None or configured is None:
            continue
        base_s = trigger.on.base_interval()
        try:
            kept = msgspec.convert(stored, Kept)
            interval_s = kept_interval_s(kept, trigger.adaptive, base_s)
            if interval_s is not None and kept.first is not None:
                found[name] = paced(configured, None if interval_s == base_s else interval_s, kept.first)
        except Exception:  # a timer's, or what an engine of another version wrote: a start says so, too
            log.exception("The interval that trigger %s had can't be kept", name, extra={"action": "interval_unread"})
    return found
