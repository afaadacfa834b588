"""The SQLite store's queries, each with its name and a line on what it is for."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from engine.clock import from_microseconds, to_microseconds
from engine.decide.joins import JOIN_WAITS, Filled
from engine.decide.marks import Mark, Place
from engine.events import Accepted, Event
from engine.runs import Lane, Run, RunState
from engine.store.base import (
    EventFilter,
    HeldPlace,
    Listed,
    QueuePlace,
    RunFilter,
    StoredEvent,
    Throttled,
    TriggerStats,
)
from engine.store.rows import (
    EVENT_COLUMNS,
    OUTCOME_COLUMNS,
    RUN_COLUMNS,
    decode_value,
    prefixed,
    read_event,
    read_mark,
    read_outcome,
    read_run,
)

_RUN = f"select {RUN_COLUMNS} from runs"

_OF_RUN = f"{prefixed('e', EVENT_COLUMNS)}, i.input"
"""An event of a run, with the input by which it came."""

_MARK = "trigger, gate, key, until, run, closes_at"

LANES = {
    Lane.LIVE: ("runs_queue", "state = 'queued' and origin <> 'backfill' and origin <> 'manual'"),
    Lane.MANUAL: ("runs_manual_queue", "state = 'queued' and origin = 'manual'"),
    Lane.BACKFILL: ("runs_backfill_queue", "state = 'queued' and origin = 'backfill'"),
}
"""The index of each lane of the queue, and which runs it holds."""


def _lane_queries(lane: Lane) -> dict[str, str]:
    index, holds = LANES[lane]
    head = (
        f"select {prefixed('r', RUN_COLUMNS)}, {_OF_RUN} from runs r indexed by {index} "
        "left join events e on e.id = r.event left join inputs i on i.run = r.id and i.event = r.event "
        f"where r.{holds.replace('and ', 'and r.')}"
    )
    return {
        # The next of a job's queue, from its head.
        f"{lane}_head": f"{head} and r.job = ? order by r.rank, r.id limit ?",
        # The next of a job's queue, from a place on.
        f"{lane}_after": f"{head} and r.job = ? and (r.rank, r.id) > (?, ?) order by r.rank, r.id limit ?",
        # The first job after a name that has queued runs: one step of a walk over the jobs.
        f"{lane}_next_job": f"select job from runs indexed by {index} where {holds} and job > ? order by job limit 1",
        # How many of each trigger wait in the queue.
        f"{lane}_by_trigger": f"select trigger, count(*) from runs indexed by {index} where {holds} group by 1",
        # How many wait in the queue.
        f"{lane}_count": f"select count(*) from runs indexed by {index} where {holds}",
    }


QUERIES = {
    **_lane_queries(Lane.LIVE),
    **_lane_queries(Lane.MANUAL),
    **_lane_queries(Lane.BACKFILL),
    # The event of a sender's key.
    "event_of_key": "select id from events where source = ? and key = ?",
    # One event.
    "event": f"select {EVENT_COLUMNS} from events where id = ?",
    # What became of an event.
    "outcomes": f"select {OUTCOME_COLUMNS} from outcomes where event = ?",
    # One run.
    "run": f"{_RUN} where id = ?",
    # The run of a trigger, origin and key.
    "run_of_key": "select id from runs where trigger = ? and origin = ? and key = ?",
    # All events of a run: its first, and those that joined.
    "run_events": (
        f"select {_OF_RUN} from events e left join inputs i on i.run = ?1 and i.event = e.id "
        "where e.id = (select first_event from runs where id = ?1) "
        f"union all select {_OF_RUN} from outcomes o cross join events e "
        "left join inputs i on i.run = ?1 and i.event = e.id "
        "where o.run = ?1 and o.outcome = 'joined' and e.id = o.event order by 1"
    ),
    # By which inputs the events of joins that are open came.
    "filled": (
        "select i.run, i.event, i.input, i.event = r.first_event from runs r indexed by runs_due "
        "cross join inputs i on i.run = r.id where r.state in ('held', 'pending', 'retrying') "
        f"and r.state = 'pending' and r.window is not null and r.code = '{JOIN_WAITS}'"
    ),
    # What comes due, from the earliest.
    "due_first": (
        f"{_RUN} indexed by runs_due where state in ('held', 'pending', 'retrying') and due_at is not null "
        "order by due_at, id limit ?"
    ),
    # What comes due, from an instant on.
    "due_after": (
        f"{_RUN} indexed by runs_due where state in ('held', 'pending', 'retrying') "
        "and (due_at, id) > (?, ?) order by due_at, id limit ?"
    ),
    # Held runs of all triggers, from the first, and from a place on.
    "held_first": f"{_RUN} indexed by runs_held where state = 'held' order by trigger, rank, id limit ?",
    "held_after": (
        f"{_RUN} indexed by runs_held where state = 'held' and (trigger, rank, id) > (?, ?, ?) "
        "order by trigger, rank, id limit ?"
    ),
    # Held runs of one trigger, from the first, and from a place on.
    "held_of_first": f"{_RUN} indexed by runs_held where state = 'held' and trigger = ? order by rank, id limit ?",
    "held_of_after": (
        f"{_RUN} indexed by runs_held where state = 'held' and trigger = ? and (rank, id) > (?, ?) "
        "order by rank, id limit ?"
    ),
    # How many are held, by trigger.
    "count_held": "select trigger, count(*) from runs indexed by runs_held where state = 'held' group by trigger",
    # Pending runs that gather events.
    "open_windows": (
        f"{_RUN} indexed by runs_due where state in ('held', 'pending', 'retrying') and state = 'pending' "
        "and window is not null"
    ),
    # What waits only so long, the first to expire first.
    "expiring": (
        f"{_RUN} indexed by runs_expiring where expires_at is not null and state in ('pending', 'queued', 'held') "
        "order by expires_at, id limit ?"
    ),
    # Since when, and until when, runs wait for each clock of a throttle that has gone on without them.
    "throttled": (
        "select trigger, throttled, min(due_at), max(due_at) from runs indexed by runs_throttled "
        "where state = 'pending' and throttled is not null group by trigger, throttled having min(due_at) < ?"
    ),
    # What a gate remembers of a key.
    "mark": f"select {_MARK} from marks where trigger = ? and gate = ? and key = ?",
    # What gates remember, the longest first.
    "latest_marks": f"select {_MARK} from marks indexed by marks_until order by until desc limit ?",
    # Whether gates remember what has no effect any more.
    "has_marks_before": "select 1 from marks indexed by marks_until where until <= ? limit 1",
    # What a crash leaves to settle.
    "running": f"{_RUN} indexed by runs_live where state in ('running', 'held') and state = 'running'",
    # What a new run of a job may have to wait for, besides what runs: retries, and due instants that wait.
    "in_the_way": (
        f"{_RUN} indexed by runs_in_the_way "
        "where (state = 'retrying' or (state in ('queued', 'held') and origin = 'schedule')) "
        "and job = ? order by id limit ?"
    ),
    # The id of the n-th event before one.
    "nth_of_events": "select id from events where id < ? order by id desc limit 1 offset ?",
    # The id of the n-th run before one.
    "nth_of_runs": "select id from runs where id < ? order by id desc limit 1 offset ?",
    # What a source remembers, from its first key.
    "memory_first": "select key, value from memory where source = ? order by key limit ?",
    # What a source remembers, from a key on.
    "memory_after": "select key, value from memory where source = ? and key > ? order by key limit ?",
    # How many wait for their time.
    "count_due": (
        "select state, count(*) from runs indexed by runs_due where state in ('held', 'pending', 'retrying') group by 1"
    ),
    # How many run or are held.
    "count_live": (
        "select state, count(*) from runs indexed by runs_live where state in ('running', 'held') group by 1"
    ),
    # How many of each trigger wait for their time, or for a gate.
    "due_by_trigger": (
        "select trigger, count(*) from runs indexed by runs_due where state in ('held', 'pending', 'retrying') "
        "group by 1"
    ),
    # How a trigger's runs ended; one that tells of many missed instants counts as so many.
    "stats": (
        "select state, sum(case when state = 'missed' and outputs is not null "
        "then coalesce(json_extract(outputs, '$.instants'), 1) else 1 end), "
        "sum(finished_at - started_at), sum(finished_at > 0 and started_at > 0), max(id) "
        "from runs indexed by runs_key where trigger = ? group by state"
    ),
}  # fmt: skip


@contextlib.contextmanager
def snapshot(raw: sqlite3.Connection) -> Iterator[None]:
    """Let all statements within see the same commit."""
    raw.execute("begin")
    try:
        yield
    finally:
        raw.execute("commit")


def find_event(raw: sqlite3.Connection, source: str, key: str) -> Accepted | None:
    row = raw.execute(QUERIES["event_of_key"], (source, key)).fetchone()
    if row is None:
        return None
    outcomes = tuple(read_outcome(found) for found in raw.execute(QUERIES["outcomes"], row))
    runs = tuple(outcome.run for outcome in outcomes if outcome.run is not None)
    return Accepted(event=row[0], runs=runs, duplicate=True, outcomes=outcomes)


def known_keys(raw: sqlite3.Connection, keys: Sequence[tuple[str, str]]) -> bool:
    """Tell whether an event of one of the keys is there."""
    for start in range(0, len(keys), 200):
        chunk = keys[start : start + 200]
        text = (
            f"select 1 from (values {', '.join(['(?, ?)'] * len(chunk))}) v cross join events e "
            "where e.source = v.column1 and e.key = v.column2 limit 1"
        )
        if raw.execute(text, [part for key in chunk for part in key]).fetchone() is not None:
            return True
    return False


def event(raw: sqlite3.Connection, event_id: str) -> StoredEvent | None:
    row = raw.execute(QUERIES["event"], (event_id,)).fetchone()
    return None if row is None else _with_outcomes(raw, row)


def _with_outcomes(raw: sqlite3.Connection, row: Sequence[Any]) -> StoredEvent:
    outcomes = tuple(read_outcome(found) for found in raw.execute(QUERIES["outcomes"], (row[0],)))
    return StoredEvent(event=read_event(row), outcomes=outcomes)


def events(
    raw: sqlite3.Connection, which: EventFilter, limit: int, before: str | None, after: str | None = None
) -> list[StoredEvent]:  # fmt: skip
    """Return events, the newest first; or, where there is an `after`, the oldest first."""
    clauses: list[str] = ["1"]
    values: list[str] = []
    for column, value in (("source", which.source), ("type", which.type)):
        if value is not None:
            clauses.append(f"{column} = ?")
            values.append(value)
    if which.trigger is not None:
        became = "" if which.outcome is None else " and o.outcome = ?"
        clauses.append(f"exists (select 1 from outcomes o where o.event = events.id and o.trigger = ?{became})")
        values += [which.trigger] if which.outcome is None else [which.trigger, which.outcome._value_]
    if which.triggers is not None:
        places = ", ".join("?" * len(which.triggers))
        clauses.append(f"exists (select 1 from outcomes o where o.event = events.id and o.trigger in ({places}))")
        values.extend(sorted(which.triggers))
    if which.text is not None:
        clauses.append(_holds(("source", "type", "subject", "key")))
        values += [_lower(which.text)] * 4
    if which.since is not None:
        clauses.append("id >= ?")
        values.append(which.since)
    if before is not None:
        clauses.append("id < ?")
        values.append(before)
    if after is not None:
        clauses.append("id > ?")
        values.append(after)
    order = "desc" if after is None else "asc"
    text = f"select {EVENT_COLUMNS} from events where {' and '.join(clauses)} order by id {order} limit ?"
    return [_with_outcomes(raw, row) for row in raw.execute(text, [*values, limit]).fetchall()]


def run(raw: sqlite3.Connection, run_id: str) -> Run | None:
    row = raw.execute(QUERIES["run"], (run_id,)).fetchone()
    return None if row is None else read_run(row)


def run_of_key(raw: sqlite3.Connection, trigger: str, origin: str, key: str) -> str | None:
    row = raw.execute(QUERIES["run_of_key"], (trigger, origin, key)).fetchone()
    return None if row is None else str(row[0])


def runs(raw: sqlite3.Connection, which: RunFilter, limit: int, before: str | None) -> list[Run]:
    clauses = ["1"]
    values: list[str] = []
    if which.states is not None:
        clauses.append(f"state in ({', '.join('?' * len(which.states))})")
        values.extend(sorted(which.states))
    if which.job is not None:
        clauses.append("job = ?")
        values.append(which.job)
    if which.triggers is not None:
        clauses.append(f"trigger in ({', '.join('?' * len(which.triggers))})")
        values.extend(sorted(which.triggers))
    if which.origins is not None:
        clauses.append(f"origin in ({', '.join('?' * len(which.origins))})")
        values.extend(sorted(which.origins))
    if which.text is not None:
        clauses.append(_holds(("job", "trigger", "code", "trace")))
        values += [_lower(which.text)] * 4
    if which.since is not None:
        clauses.append("id >= ?")
        values.append(which.since)
    if before is not None:
        clauses.append("id < ?")
        values.append(before)
    text = f"{_RUN} where {' and '.join(clauses)} order by id desc limit ?"
    return [read_run(row) for row in raw.execute(text, [*values, limit])]


def nth_before(raw: sqlite3.Connection, what: Listed, before: str | None, n: int) -> str | None:
    """Return the id of the n-th event or run before an id; None where there are fewer. Reads the index alone."""
    row = raw.execute(QUERIES[f"nth_of_{what}"], ("~" if before is None else before, n - 1)).fetchone()
    return None if row is None else str(row[0])


def _lower(text: str) -> str:
    """Return text in lower case as SQLite has it: of ASCII letters alone."""
    return "".join(one.lower() if one.isascii() else one for one in text)


def _holds(columns: Sequence[str]) -> str:
    return "(" + " or ".join(f"instr(lower({column}), ?) > 0" for column in columns) + ")"


def run_events(raw: sqlite3.Connection, run_id: str) -> tuple[Event, ...]:
    return tuple(read_event(row) for row in raw.execute(QUERIES["run_events"], (run_id,)))


def queue_head(
    raw: sqlite3.Connection, job: str, after: QueuePlace | None, limit: int, lane: Lane = Lane.LIVE
) -> list[tuple[Run, Event]]:
    if after is None:
        rows = raw.execute(QUERIES[f"{lane}_head"], (job, limit)).fetchall()
    else:
        rows = raw.execute(QUERIES[f"{lane}_after"], (job, after.rank, after.run, limit)).fetchall()
    width = RUN_COLUMNS.count(",") + 1
    return [(read_run(row[:width]), read_event(row[width:])) for row in rows]


def queued_jobs(raw: sqlite3.Connection, lane: Lane = Lane.LIVE) -> list[str]:
    jobs: list[str] = []
    with snapshot(raw):
        while (job := next_job(raw, lane, jobs[-1] if jobs else "")) is not None:
            jobs.append(job)
    return jobs


def next_job(raw: sqlite3.Connection, lane: Lane, after: str) -> str | None:
    """Return the first job after a name that has queued runs in a lane."""
    row = raw.execute(QUERIES[f"{lane}_next_job"], (after,)).fetchone()
    return None if row is None else str(row[0])


def due(raw: sqlite3.Connection, after: tuple[datetime, str] | None, limit: int) -> list[tuple[datetime, Run]]:
    if after is None:
        rows = raw.execute(QUERIES["due_first"], (limit,)).fetchall()
    else:
        rows = raw.execute(QUERIES["due_after"], (to_microseconds(after[0]), after[1], limit)).fetchall()
    found = [read_run(row) for row in rows]
    return [(run.due_at, run) for run in found if run.due_at is not None]


def held(raw: sqlite3.Connection, trigger: str | None, after: HeldPlace | None, limit: int) -> list[Run]:
    place = () if after is None else (after.trigger, after.rank, after.run)
    if trigger is None:
        name, values = "held", place
    else:
        name, values = "held_of", (trigger, *place[1:])
    text = QUERIES[f"{name}_{'first' if after is None else 'after'}"]
    return [read_run(row) for row in raw.execute(text, (*values, limit))]


def held_counts(raw: sqlite3.Connection) -> dict[str, int]:
    return dict(raw.execute(QUERIES["count_held"]).fetchall())


def open_windows(raw: sqlite3.Connection) -> list[Run]:
    return [read_run(row) for row in raw.execute(QUERIES["open_windows"])]


def filled(raw: sqlite3.Connection) -> list[Filled]:
    found = [Filled(run, event, name, bool(first)) for run, event, name, first in raw.execute(QUERIES["filled"])]
    return sorted(found, key=lambda one: one.event)


def expiring(raw: sqlite3.Connection, limit: int) -> list[Run]:
    return [read_run(row) for row in raw.execute(QUERIES["expiring"], (limit,))]


def throttled(raw: sqlite3.Connection, before: datetime) -> list[Throttled]:
    return [
        Throttled(trigger=trigger, key=key, first_at=from_microseconds(first), last_at=from_microseconds(last))
        for trigger, key, first, last in raw.execute(QUERIES["throttled"], (to_microseconds(before),))
    ]


def marks(raw: sqlite3.Connection, places: Collection[Place]) -> dict[Place, Mark]:
    return dict(read_mark(row) for place in places for row in raw.execute(QUERIES["mark"], place))


def latest_marks(raw: sqlite3.Connection, limit: int) -> dict[Place, Mark]:
    return dict(read_mark(row) for row in raw.execute(QUERIES["latest_marks"], (limit,)))


def has_marks_before(raw: sqlite3.Connection, at: datetime) -> bool:
    return raw.execute(QUERIES["has_marks_before"], (to_microseconds(at),)).fetchone() is not None


def running(raw: sqlite3.Connection) -> list[Run]:
    return [read_run(row) for row in raw.execute(QUERIES["running"])]


def in_the_way(raw: sqlite3.Connection, jobs: Collection[str], limit: int) -> list[Run]:
    with snapshot(raw):
        return [read_run(row) for job in jobs for row in raw.execute(QUERIES["in_the_way"], (job, limit))]


def cursors(raw: sqlite3.Connection, source: str, *, exact: bool) -> dict[str, Any]:
    """Return the cursor of a source, or those of all sources whose id begins so."""
    if exact:
        rows = raw.execute("select source, value from cursors where source = ?", (source,))
    else:
        rows = raw.execute(
            "select source, value from cursors where source >= ? and source < ?",
            (source, source + "\U0010ffff"),
        )
    return {name: decode_value(value) for name, value in rows}


def memory(raw: sqlite3.Connection, source: str, after: str | None, limit: int) -> dict[str, Any]:
    if after is None:
        rows = raw.execute(QUERIES["memory_first"], (source, limit))
    else:
        rows = raw.execute(QUERIES["memory_after"], (source, after, limit))
    return {key: decode_value(value) for key, value in rows}


def counts(raw: sqlite3.Connection) -> dict[RunState, int]:
    with snapshot(raw):
        found = {RunState(state): count for state, count in raw.execute(QUERIES["count_due"])}
        found |= {RunState(state): count for state, count in raw.execute(QUERIES["count_live"])}
        found[RunState.QUEUED] = sum(raw.execute(QUERIES[f"{lane}_count"]).fetchone()[0] for lane in Lane)
    return found


def waiting(raw: sqlite3.Connection) -> dict[str, int]:
    found: Counter[str] = Counter()
    with snapshot(raw):
        for name in ("due_by_trigger", *(f"{lane}_by_trigger" for lane in Lane)):
            found.update(dict(raw.execute(QUERIES[name]).fetchall()))
    return dict(found)


def stats(raw: sqlite3.Connection, triggers: Collection[str]) -> dict[str, TriggerStats]:
    with snapshot(raw):
        return {trigger: _stats_of(raw, trigger) for trigger in triggers}


def _stats_of(raw: sqlite3.Connection, trigger: str) -> TriggerStats:
    by_state, total_us, timed, last = {}, 0, 0, None
    for state, count, duration_us, with_duration, newest in raw.execute(QUERIES["stats"], (trigger,)):
        by_state[RunState(state)] = count
        total_us += duration_us or 0
        timed += with_duration or 0
        last = max(last or "", newest)
    return TriggerStats(by_state=by_state, duration_mean_s=total_us / timed / 1e6 if timed else None, last_run=last)


def why_not(raw: sqlite3.Connection, run_id: str) -> str:
    """Say why a change to a run had no effect."""
    row = raw.execute("select state from runs where id = ?", (run_id,)).fetchone()
    return f"there is no run {run_id}" if row is None else f"run {run_id} is {row[0]}"


def oldest_due(raw: sqlite3.Connection) -> datetime | None:
    """Return the earliest due time, or None."""
    row = raw.execute(
        "select min(due_at) from runs indexed by runs_due where state in ('held', 'pending', 'retrying')"
    ).fetchone()
    return None if row[0] is None else from_microseconds(row[0])
