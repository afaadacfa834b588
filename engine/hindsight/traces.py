"""The last trace that an engine left in its store, which may be later than when it noted last that it lives."""

from __future__ import annotations

from datetime import datetime

from engine.store.base import EventFilter, RunFilter, Store


async def last_trace(store: Store) -> datetime | None:
    """Return when the store shows last that an engine worked; None where it shows nothing."""
    [*runs] = await store.runs(RunFilter(), limit=1)
    [*events] = await store.events(EventFilter(), limit=1)
    instants = [step.at for run in runs for step in run.trace]
    instants += [stored.event.received_at for stored in events]
    return max(instants, default=None)
