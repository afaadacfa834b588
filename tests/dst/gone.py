"""What housekeeping removes: it is laid aside in the transaction that removes it, and judged when that is durable.

So the judges of the whole story see what was there at any time, and this one that nothing was removed but what was over
and old enough, that it is counted, and that nothing is left which should have gone.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.clock import from_microseconds, to_microseconds
from engine.config import Config
from engine.config.keeping import KEYS_KNOWN_S, SHORTEST_S
from engine.runs import ENDED
from engine.store.changes import Change, Purge, accept_of
from engine.store.ledger import ledger
from tests.dst.turns import Clock

if TYPE_CHECKING:
    from tests.dst.disk import Disk
    from tests.dst.world import World

TABLES = {"events": "event", "outcomes": "outcome", "runs": "run"}
"""What is laid aside, and as what the engine counts it."""

ROUND_S = 3_600.0
"""How often there is a round of housekeeping."""

_ENDED = ", ".join(f"'{state}'" for state in sorted(ENDED))
_OPEN_RUN = f"select 1 from outcomes o join runs r on r.id = o.run where o.event = ? and r.state not in ({_ENDED})"


def lay_aside(raw: sqlite3.Connection, path: Path) -> None:
    """Have a connection that writes put what it removes into the file at `path`, in the same transaction."""
    raw.execute("attach ? as aside", (f"{path.as_uri()}?mode=rwc",))
    raw.execute("pragma aside.synchronous = off")
    raw.execute("pragma aside.journal_mode = wal").fetchall()
    for table in TABLES:
        raw.execute(f"create table if not exists aside.gone_{table} as select * from main.{table} where 0")
        raw.execute(f"create index if not exists aside.gone_{table}_id on gone_{table} ({_id_of(table)})")
        values = ", ".join(f"old.{column}" for column in _columns(raw, table))
        raw.execute(
            f"create temp trigger {table}_go before delete on main.{table} "
            f"begin insert into gone_{table} values ({values}); end"
        )


def tell_all(raw: sqlite3.Connection, path: Path) -> None:
    """Have a connection that reads see what was laid aside beside what is there, under the same names."""
    raw.execute("attach ? as aside", (f"{path.as_uri()}?mode=ro",))
    for table in TABLES:
        columns = ", ".join(_columns(raw, table))
        raw.execute(
            f"create temp view {table} as select {columns} from main.{table} "
            f"union all select {columns} from aside.gone_{table}"
        )


def _columns(raw: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in raw.execute(f"pragma main.table_info({table})")]


def _id_of(table: str) -> str:
    return "event" if table == "outcomes" else "id"


class Gone:
    """Judges what goes; `find` is told what is wrong."""

    def __init__(self, config: Config, disk: Disk, clock: Clock, find: Callable[[str], None]) -> None:
        self.world: World
        self.count = 0
        """How many rows went."""
        self._keep = keep = config.store.keep
        at_least = (keep.runs, keep.events, keep.events)
        if keep.disk is not None:
            at_least = (SHORTEST_S, SHORTEST_S, KEYS_KNOWN_S)
        self._runs_s, self._events_s, self._keyed_s = at_least
        self._disk = disk
        self._clock = clock
        self._find = find
        self._seen = dict.fromkeys(TABLES, 0)
        self._counts: Counter[tuple[str, str]] = Counter()

    def see_commit(self, changes: Sequence[Change]) -> None:
        """Judge what went with a batch, which is durable."""
        purges = [accept.purge for change in changes if (accept := accept_of(change)) and accept.purge]
        went = {table: self._new(table) for table in TABLES}
        if not any(went.values()):
            return
        self._see_runs({run: purge for purge in purges for run in purge.runs}, went["runs"])
        self._see_events({event: purge for purge in purges for event in purge.events}, went["events"])
        self._see_outcomes(went["events"], went["outcomes"])
        for table, rows in went.items():
            self.count += len(rows)
            self._counts += Counter((TABLES[table], "" if table == "events" else row["trigger"]) for row in rows)
        self._see_counts()
        for line in ledger(self._disk.reader).missing:
            self._find(f"ledger, after a purge: {line}")

    def _new(self, table: str) -> list[dict[str, Any]]:
        """Return the rows that went since this was asked last."""
        cursor = self._disk.story.execute(
            f"select rowid as place, * from aside.gone_{table} where rowid > ? order by rowid", (self._seen[table],)
        )
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        if rows:
            self._seen[table] = rows[-1]["place"]
        return rows

    # What may go

    def _see_runs(self, asked: dict[str, Purge], rows: Sequence[dict[str, Any]]) -> None:
        limit = self._latest_us() - round(self._runs_s * 1e6)
        for row in rows:
            said = f"run {row['id']} of {row['trigger']} ({row['state']}) was removed"
            over_at = row["finished_at"] or row["created_at"]
            purge = asked.get(row["id"])
            if purge is None:
                self._find(f"{said}, and nobody purged it")
            elif row["state"] not in ENDED:
                self._find(f"{said}, and had not ended")
            elif over_at >= min(to_microseconds(purge.before), limit):
                self._find(f"{said}, and was over at {from_microseconds(over_at)} only")
            elif not self._rows("select 1 from main.runs where seq > ? limit 1", row["seq"]):
                self._find(f"{said}, and was the newest")
            elif not self._rows(
                "select 1 from main.runs where job = ? and state = ? and id > ? limit 1", row["job"], row["state"],
                row["id"],
            ):  # fmt: skip
                self._find(f"{said}, and tells how job {row['job']} ended last")
            elif row["origin"] == "backfill" and self._rows(
                "select 1 from main.backfills b, events e where e.id = ? and e.source = 'backfill:' || b.id "
                "and b.state not in ('completed', 'cancelled')", row["first_event"],
            ):  # fmt: skip
                self._find(f"{said}, and its backfill goes on")

    def _see_events(self, asked: dict[str, Purge], rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            said = f"event {row['id']} of {row['source']}, received at {from_microseconds(row['received_at'])}, went"
            purge = asked.get(row["id"])
            kept_s = self._events_s if row["key"] is None else self._keyed_s
            if purge is None:
                self._find(f"{said}, and nobody purged it")
            elif row["received_at"] >= min(to_microseconds(purge.before), self._latest_us() - round(kept_s * 1e6)):
                self._find(f"{said}, and is not old enough")
            elif self._rows(_OPEN_RUN, row["id"]):
                self._find(f"{said}, and a run of it is open")
            elif not self._rows("select 1 from main.events where seq > ? limit 1", row["seq"]):
                self._find(f"{said}, and was the newest")

    def _see_outcomes(self, events: Sequence[dict[str, Any]], outcomes: Sequence[dict[str, Any]]) -> None:
        """The outcomes of what went, went with it; and no others."""
        went = {row["id"] for row in events}
        for row in outcomes:
            if row["event"] not in went:
                self._find(f"the outcome of event {row['event']} at {row['trigger']} went, and the event is there")
        for event in went:
            if self._rows("select 1 from main.outcomes where event = ?", event):
                self._find(f"event {event} went, and left an outcome")

    def _see_counts(self) -> None:
        counts = {
            (what, trigger): count for what, trigger, count in self._rows("select what, trigger, count from purged")
        }
        if counts != self._counts:
            self._find(f"what went is counted as {counts}, it was {dict(self._counts)}")

    def _latest_us(self) -> int:
        """Return the latest that the wall clock has ever shown: a round goes by when it began."""
        now, latest, offset_s = self._clock.now(), self._clock.now(), 0.0
        for at_s, step_s in reversed(self.world.steps):
            offset_s -= step_s
            shown = now + timedelta(seconds=offset_s) - timedelta(seconds=self._clock.monotonic() - at_s)
            latest = max(latest, shown)
        return to_microseconds(latest)

    # What has to go

    def overdue(self, quiet_s: float) -> Iterator[str]:
        """Yield what should have gone long ago, where nothing was in the way for so long."""
        if quiet_s < 2 * ROUND_S:
            return
        now, late = self._clock.now(), timedelta(seconds=2 * ROUND_S)
        late_us = to_microseconds(now - late)
        # The newest row stays, and so does the newest end of its kind: until there was a newer one, long ago.
        rows = self._rows(
            f"select id, trigger, finished_at from main.runs r where state in ({_ENDED}) and finished_at < ? "
            "and origin <> 'backfill' and seq < (select max(seq) from main.runs where created_at < ?) "
            "and exists (select 1 from main.runs n "
            "where n.job = r.job and n.state = r.state and n.id > r.id and n.finished_at < ?)",
            to_microseconds(now - late - timedelta(seconds=self._keep.runs)), late_us, late_us,
        )  # fmt: skip
        for run, trigger, at in rows:
            yield f"run {run} of {trigger} is over since {from_microseconds(at)}, and still there"
        rows = self._rows(
            "select id, source, received_at from main.events e where received_at < ? "
            "and seq < (select max(seq) from main.events where received_at < ?) and not exists (select 1 "
            f"from main.outcomes o join main.runs r on r.id = o.run where o.event = e.id "
            f"and (r.state not in ({_ENDED}) or r.finished_at > ?))",
            to_microseconds(now - late - timedelta(seconds=self._keep.events)), late_us, late_us,
        )  # fmt: skip
        for event, source, at in rows:
            yield f"event {event} of {source} was received at {from_microseconds(at)}, is over, and still there"

    def left(self) -> Iterator[str]:
        """Yield what was left of what went."""
        rows = self._rows(
            "select run, count(*) from main.inputs where run not in (select id from main.runs) group by 1"
        )
        yield from (f"run {run} went, and {count} of its inputs are left" for run, count in rows)

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._disk.story.execute(query, values).fetchall()
