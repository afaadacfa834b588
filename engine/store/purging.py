"""What is old in the SQLite store: finding it, removing it, and counting what was removed.

What is removed is counted in the transaction that removes it, so that all that was ever accepted still adds up. Rows
are walked in the order in which they were stored, by their number: so no index has to be kept for it at each commit.
The newest row of a table stays, as its number says how many there ever were.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from engine.clock import from_microseconds, to_microseconds
from engine.runs import ENDED, Origin, RunState
from engine.store.base import Old, OldEvent, OldRun, Purged
from engine.store.changes import Purge

_ENDED = ", ".join(f"'{state}'" for state in sorted(ENDED))
_SETTLED = (
    "not exists (select 1 from outcomes s join runs r on r.id = s.run "
    f"where s.event = v.column1 and r.state not in ({_ENDED}))"
)
_COUNTED = (
    "on conflict (what, trigger) do update set count = count + excluded.count, "
    "last = max(last, excluded.last), before = max(before, excluded.before)"
)
_COLUMNS = "what, trigger, count, last, before"

# In this order: what is counted is still there, and an event of an open run keeps its outcomes, and so itself.
STATEMENTS: dict[str, tuple[str, int]] = {
    # Count the outcomes of old events.
    "count_outcomes": (
        f"insert into purged ({_COLUMNS}) select 'outcome', o.trigger, 1, o.event, v.column2 "
        f"from (values {{rows}}) as v cross join outcomes o where o.event = v.column1 and {_SETTLED} {_COUNTED}",
        2,
    ),
    # Count old events.
    "count_events": (
        f"insert into purged ({_COLUMNS}) select 'event', '', 1, e.id, v.column2 "
        f"from (values {{rows}}) as v cross join events e where e.id = v.column1 and {_SETTLED} {_COUNTED}",
        2,
    ),
    # Remove the outcomes of old events.
    "purge_outcomes": (
        f"delete from outcomes where event in (select v.column1 from (values {{rows}}) as v where {_SETTLED})",
        2,
    ),
    # Remove old events.
    "purge_events": (
        f"delete from events where id in (select v.column1 from (values {{rows}}) as v where {_SETTLED})",
        2,
    ),
    # Count old runs.
    "count_runs": (
        f"insert into purged ({_COLUMNS}) select 'run', r.trigger, 1, r.id, v.column2 "
        f"from (values {{rows}}) as v cross join runs r where r.id = v.column1 and r.state in ({_ENDED}) {_COUNTED}",
        2,
    ),
    # Remove old runs.
    "purge_runs": (
        f"delete from runs where id in (select column1 from (values {{rows}})) and state in ({_ENDED})",
        2,
    ),
}

QUERIES = {
    # Runs in the order in which they were stored, from a place on, but for the newest.
    "old_runs": (
        "select seq, id, job, trigger, origin, state, created_at, finished_at from runs "
        "where seq > ? and seq < (select max(seq) from runs) order by seq limit ?"
    ),
    # Events in the order in which they were stored, from a place on, but for the newest.
    "old_events": (
        "select e.seq, e.id, e.key is not null, e.received_at, exists (select 1 from outcomes o join runs r "
        f"on r.id = o.run where o.event = e.id and r.state not in ({_ENDED})) "
        "from events e where e.seq > ? and e.seq < (select max(seq) from events) order by e.seq limit ?"
    ),
    # Which of some runs are there, and since when they have ended.
    "ends_of": (
        f"select id, state in ({_ENDED}), coalesce(finished_at, created_at) from runs "
        "where id in (select value from json_each(?))"
    ),
    # What was removed.
    "purged": f"select {_COLUMNS} from purged",
}


def purge_rows(purge: Purge) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the rows of a purge, each with the name of its statement."""
    before = to_microseconds(purge.before)
    return [
        *((name, (event, before)) for event in purge.events for name in STATEMENTS if not name.endswith("runs")),
        *((name, (run, before)) for run in purge.runs for name in STATEMENTS if name.endswith("runs")),
    ]


def old_runs(raw: sqlite3.Connection, before: datetime, after: int, limit: int) -> Old[OldRun]:
    """Return a page of runs that ended before an instant."""
    rows = raw.execute(QUERIES["old_runs"], (after, limit)).fetchall()
    limit_us, found, made_before = to_microseconds(before), [], False
    for _, run_id, job, trigger, origin, state, created, finished in rows:
        made_before = made_before or created < limit_us
        if state in ENDED and (finished or created) < limit_us:
            found.append(
                OldRun(id=run_id, job=job, trigger=trigger, origin=Origin(origin), state=RunState(state))
            )  # fmt: skip
    return Old(items=tuple(found), after=rows[-1][0] if made_before and len(rows) == limit else None)


def old_events(
    raw: sqlite3.Connection, before: datetime, keyed_before: datetime, after: int, limit: int
) -> Old[OldEvent]:
    """Return a page of events that were received before an instant, those with a key before another one."""
    rows = raw.execute(QUERIES["old_events"], (after, limit)).fetchall()
    limits_us, found, came_before = (to_microseconds(before), to_microseconds(keyed_before)), [], False
    for _, event_id, keyed, received, is_open in rows:
        came_before = came_before or received < limits_us[0]
        if not is_open and received < limits_us[keyed]:
            found.append(OldEvent(id=event_id))
    return Old(items=tuple(found), after=rows[-1][0] if came_before and len(rows) == limit else None)


def oldest(raw: sqlite3.Connection) -> datetime | None:
    """Return when the first event or run that is there was stored."""
    found = [
        raw.execute("select created_at from runs where seq > 0 order by seq limit 1").fetchone(),
        raw.execute("select received_at from events where seq > 0 order by seq limit 1").fetchone(),
    ]
    return min((from_microseconds(row[0]) for row in found if row is not None), default=None)


def latest_ends(raw: sqlite3.Connection) -> frozenset[str]:
    """Return the newest ended run of each job and state. Reads all runs."""
    text = f"select max(id) from runs where state in ({_ENDED}) group by job, state"
    return frozenset(run for (run,) in raw.execute(text))


def ends_of(raw: sqlite3.Connection, runs: Sequence[str]) -> dict[str, datetime | None]:
    """Return, of those runs that are there, when each ended; None for one that has not."""
    return {
        run: from_microseconds(finished) if ended else None
        for run, ended, finished in raw.execute(QUERIES["ends_of"], (json.dumps(list(runs)),))
    }


def purged(raw: sqlite3.Connection) -> Purged:
    """Return what was removed, in all."""
    counts: dict[str, dict[str, int]] = {"event": {}, "run": {}, "outcome": {}}
    last: dict[str, str] = {}
    before: dict[str, int] = {}
    for what, trigger, count, latest, until in raw.execute(QUERIES["purged"]):
        counts[what][trigger] = count
        last[what] = max(last.get(what, ""), latest)
        before[what] = max(before.get(what, until), until)
    return Purged(
        events=sum(counts["event"].values()), runs=sum(counts["run"].values()), outcomes=counts["outcome"],
        last_event=last.get("event", ""), last_run=last.get("run", ""),
        before=from_microseconds(max(before.values())) if before else None,
    )  # fmt: skip
