"""What the SQLite store knows of the past of one trigger: the due instants that fired or were missed, and what it met.

The key of a timer's event is its due instant, and so is that of a missed run, after `missed `; the store finds both by
the indexes that keep them unique.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from engine.clock import from_microseconds, rfc3339, to_microseconds
from engine.runs import RunState
from engine.store.base import Met, Missed
from engine.store.rows import (
    EVENT_COLUMNS,
    OUTCOME_COLUMNS,
    RUN_COLUMNS,
    prefixed,
    read_event,
    read_outcome,
    read_run,
    read_trace,
)

MISSED_KEY = "missed "

_WIDTH, _OUTCOME_WIDTH = EVENT_COLUMNS.count(",") + 1, OUTCOME_COLUMNS.count(",") + 1
_MET = (
    f"select {prefixed('e', EVENT_COLUMNS)}, {prefixed('o', OUTCOME_COLUMNS)}, r.state, r.trace, r.started_at, "
    "r.finished_at, e.seq from events e {by} join outcomes o on o.event = e.id and o.trigger = ? "
    "left join runs r on r.id = o.run "
)

QUERIES = {
    # The events of a trigger's timer by their due instants, with what came of them.
    "fired": _MET.format(by="indexed by events_key")
    + "where e.source = ? and e.key >= ? and e.key < ? order by e.key limit ?",
    # The due instants of a trigger that were missed, one by one or many together, from one on.
    "missed_since": (
        f"select {RUN_COLUMNS} from runs indexed by runs_key where trigger = ? and origin = 'schedule' "
        "and key >= ? and key < ? order by key limit ?"
    ),
    # The last missed instants of a trigger that are told of together and begin before one.
    "missed_before": (
        f"select {RUN_COLUMNS} from runs indexed by runs_key where trigger = ? and origin = 'schedule' "
        "and key >= 'missed ' and key < ? and instr(key, '/') order by key desc limit 1"
    ),
    # How many due instants of a timer are events.
    "count_fired": "select count(*) from events indexed by events_key where source = ? and key >= ? and key < ?",
    # How many due instants of a trigger were missed.
    "count_missed": (
        "select coalesce(sum(coalesce(json_extract(outputs, '$.instants'), 1)), 0) from runs indexed by runs_key "
        "where trigger = ? and origin = 'schedule' and key >= ? and key < ?"
    ),
    # The events that a trigger met in a time, as they were received, with what came of them.
    "met": _MET.format(by="indexed by events_received")
    + "where e.received_at >= ? and e.received_at < ? and (e.received_at, e.seq) > (?, ?) "
    "order by e.received_at, e.seq limit ?",
}


def fired(raw: sqlite3.Connection, trigger: str, source: str, start: datetime, end: datetime, limit: int) -> list[Met]:
    """Return what became of a timer's due instants, in their order, as far as they are an event."""
    low, high = _keys(start, end)
    rows = raw.execute(QUERIES["fired"], (trigger, source, low, high, limit))
    found = [(met.event.time or met.event.received_at, met) for met in map(_read_met, rows)]
    return [met for at, met in sorted(found, key=lambda one: one[0]) if start <= at < end]


def missed(raw: sqlite3.Connection, trigger: str, start: datetime, end: datetime, limit: int) -> list[Missed]:
    """Return the missed instants of a trigger, in their order, also those told of together that begin before."""
    low, high = _keys(start, end)
    rows = raw.execute(QUERIES["missed_before"], (trigger, MISSED_KEY + low)).fetchall()
    rows += raw.execute(QUERIES["missed_since"], (trigger, MISSED_KEY + low, MISSED_KEY + high, limit)).fetchall()
    found = []
    for run in map(read_run, rows):
        first = run.scheduled_for or run.created_at
        outputs, last, count = run.outputs or {}, first, 1
        if "instants" in outputs:
            last, count = datetime.fromisoformat(outputs["last"]), outputs["instants"]
        if first < end and last >= start:
            found.append(Missed(run=run, first=first, last=last, count=count))
    return found


def recorded_instants(raw: sqlite3.Connection, trigger: str, source: str, start: datetime, end: datetime) -> int:
    """Return how many due instants are recorded; to whole seconds, as keys have them."""
    low, high = _keys(start, end)
    (fired,) = raw.execute(QUERIES["count_fired"], (source, low, high)).fetchone()
    values = (trigger, MISSED_KEY + low, MISSED_KEY + high)
    (missed,) = raw.execute(QUERIES["count_missed"], values).fetchone()
    return int(fired) + int(missed)


def met(
    raw: sqlite3.Connection, trigger: str, start: datetime, end: datetime, after: tuple[datetime, int] | None,
    limit: int,
) -> list[Met]:  # fmt: skip
    """Return the events that a trigger met, as they were received, from a place on."""
    place = (-1, -1) if after is None else (to_microseconds(after[0]), after[1])
    values = (trigger, to_microseconds(start), to_microseconds(end), *place, limit)
    return [_read_met(row) for row in raw.execute(QUERIES["met"], values)]


def _keys(start: datetime, end: datetime) -> tuple[str, str]:
    """Return two texts between which all instants from `start` to before `end` lie, as keys have them.

    To whole seconds, as `…:00.5Z` is before `…:00Z` by its text.
    """
    low = rfc3339(start.replace(microsecond=0)).removesuffix("Z")
    return low, rfc3339((end + timedelta(seconds=1)).replace(microsecond=0)).removesuffix("Z")


def _read_met(row: Sequence[Any]) -> Met:
    state, trace, started, finished, seq = row[_WIDTH + _OUTCOME_WIDTH :]
    return Met(
        event=read_event(row[:_WIDTH]), outcome=read_outcome(row[_WIDTH : _WIDTH + _OUTCOME_WIDTH]), place=seq,
        state=None if state is None else RunState(state), last=None if state is None else read_trace(trace)[-1],
        started_at=None if started is None else from_microseconds(started),
        finished_at=None if finished is None else from_microseconds(finished),
    )  # fmt: skip
