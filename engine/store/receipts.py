"""What the SQLite store knows of when events came to triggers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from engine.backfills import SOURCE_PREFIX
from engine.clock import from_microseconds, to_microseconds
from engine.replays import REPLAY_KEY, RETRY_KEY
from engine.store.base import Receipts


def received(raw: sqlite3.Connection, which: Receipts, limit: int) -> list[datetime]:
    """Return when the events that triggers received came, the newest first: by when they came, to the last one."""
    triggers, outcomes = sorted(which.triggers), sorted(which.outcomes)
    text = (
        "select e.received_at from events e indexed by events_received where e.received_at >= ? "
        "and exists (select 1 from outcomes o where o.event = e.id "
        f"and o.trigger in ({_places(triggers)}) and o.outcome in ({_places(outcomes)}) "
        "and o.code not in ('trigger_disabled', 'job_disabled', 'retried')) and substr(e.source, 1, ?) <> ? "
        "and (e.key is null or (substr(e.key, 1, ?) <> ? and substr(e.key, 1, ?) <> ?)) "
        + ("" if which.by_hand else "and e.source <> 'manual' ")
        + "order by e.received_at desc limit ?"
    )
    values = [
        to_microseconds(which.since), *triggers, *outcomes, len(SOURCE_PREFIX), SOURCE_PREFIX,
        len(REPLAY_KEY), REPLAY_KEY, len(RETRY_KEY), RETRY_KEY, limit,
    ]  # fmt: skip
    return [from_microseconds(row[0]) for row in raw.execute(text, values)]


def _places(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))
