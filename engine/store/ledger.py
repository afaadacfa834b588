"""The ledger of the SQLite store: what was accepted against what came of it.

What was purged is gone from the tables, and counted. So a row that names one that is not there is in order where that
one may have been purged, by its id; and as rows are numbered without gaps, the greatest number is how many there were:
those that are there and those that were purged have to come to as many.

An event that joined later than another one has a lower id, and was purged before it, where the clock was set back in
between. So what runs gathered is added up only of those that began well after the events that may be gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from engine.events import EventOutcome
from engine.runs import ENDED
from engine.store.base import Ledger, Purged, TriggerLedger
from engine.store.purging import purged
from engine.store.reads import snapshot

MOST_BROKEN = 100
SET_BACK_US = 86_400_000_000
"""A clock that was set back by so much, in all, makes nobody believe that something is missing."""

_ENDED = ", ".join(f"'{state}'" for state in sorted(ENDED))
_OVER = f"(o.run is null or coalesce(r.state in ({_ENDED}), o.run <= ?))"
_SILENT = "from events e where not exists (select 1 from outcomes o where o.event = e.id)"


def ledger(raw: sqlite3.Connection) -> Ledger:
    """Add up what was accepted against what came of it, in one snapshot."""
    with snapshot(raw):
        gone = purged(raw)
        triggers = _triggers(raw, gone)
        (silent,) = raw.execute(f"select count(*) {_SILENT}").fetchone()
        return Ledger(
            accepted=sum(one.accepted for one in triggers) + silent, ended=sum(one.ended for one in triggers),
            waiting=sum(one.waiting for one in triggers), purged=sum(one.purged for one in triggers),
            missing=(*_broken(raw, gone), *_lost(raw, gone)), triggers=triggers,
        )  # fmt: skip


def _triggers(raw: sqlite3.Connection, gone: Purged) -> tuple[TriggerLedger, ...]:
    there = {
        name: (count, over, waits)
        for name, count, over, waits in raw.execute(
            f"select o.trigger, count(*), sum({_OVER}), sum(coalesce(r.state not in ({_ENDED}), 0)) "
            "from outcomes o left join runs r on r.id = o.run group by o.trigger",
            (gone.last_run,),
        )
    }
    found = []
    for name in sorted(there.keys() | gone.outcomes.keys()):
        count, over, waits = there.get(name, (0, 0, 0))
        away = gone.outcomes.get(name, 0)
        found.append(TriggerLedger(trigger=name, accepted=count + away, ended=over, waiting=waits, purged=away))
    return tuple(found)


def _broken(raw: sqlite3.Connection, gone: Purged) -> Iterator[str]:
    """Yield the rows that break the rule, of each kind the first ones."""
    limit = f"limit {MOST_BROKEN}"
    for (event,) in raw.execute(f"select e.id {_SILENT} {limit}"):
        yield f"event {event} has no outcome"
    for event, trigger, run in raw.execute(
        "select event, trigger, run from outcomes o where run is not null and run > ? "
        f"and not exists (select 1 from runs r where r.id = o.run) {limit}",
        (gone.last_run,),
    ):
        yield f"event {event} at trigger {trigger} names run {run}, which is not there"
    for run, event in raw.execute(
        "select id, first_event from runs r where event_count > 0 and first_event > ? "
        f"and not exists (select 1 from events e where e.id = r.first_event) {limit}",
        (gone.last_event,),
    ):
        yield f"run {run} has no event {event}"
    for run, counted, joined in raw.execute(
        "select r.id, r.event_count, count(o.event) from runs r left join outcomes o "
        "on o.run = r.id and o.outcome = ? where r.event_count > 1 and r.first_event > ? and r.created_at > "
        "(select coalesce(max(before), 0) + ? from purged where what = 'event') group by r.id "
        f"having r.event_count <> count(o.event) + 1 {limit}",
        (EventOutcome.JOINED, gone.last_event, SET_BACK_US),
    ):
        yield f"run {run} counts {counted} events, its outcomes {joined + 1}"


def _lost(raw: sqlite3.Connection, gone: Purged) -> Iterator[str]:
    """Say where rows are gone that were not purged."""
    for table, purged_rows in (("events", gone.events), ("runs", gone.runs)):
        (count, ever) = raw.execute(f"select count(*), coalesce(max(seq), 0) from {table}").fetchone()
        if ever != count + purged_rows:
            yield f"{ever:,} {table} were stored, of which {count:,} are there and {purged_rows:,} were purged"
