"""Tallies in the SQLite store: one row for a trigger, a job and an hour or day."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.clock import from_microseconds, to_microseconds
from engine.ids import first_id_at
from engine.runs import Run
from engine.store.rows import RUN_COLUMNS, encode_value, read_run
from engine.tallies import Tally, TallyKey, TallyRow, Width

_COLUMNS = "trigger, job, width, began_at, detail"

MOST_FORGOTTEN = 1_000
"""Tallies that are forgotten in one statement."""

STATEMENTS: dict[str, tuple[str, int]] = {
    # Store tallies in the place of those that are there.
    "note_tally": (f"insert or replace into tallies ({_COLUMNS}) values {{rows}}", 5),
    # Forget old tallies of one width.
    "forget_tallies": (
        "delete from tallies where (trigger, width, began_at, job) in (select t.trigger, t.width, t.began_at, t.job "
        "from (values {rows}) as v cross join tallies t indexed by tallies_began "
        f"where t.width = v.column1 and t.began_at < v.column2 limit {MOST_FORGOTTEN})",
        2,
    ),
}

QUERIES = {
    # The tallies of a trigger.
    "tallies_of_trigger": (
        f"select {_COLUMNS} from tallies where trigger = ? and width = ? and began_at >= ? and began_at < ? "
        "order by began_at, job"
    ),
    # The tallies of a job.
    "tallies_of_job": (
        f"select {_COLUMNS} from tallies indexed by tallies_job where job = ? and width = ? and began_at >= ? "
        "and began_at < ? order by began_at, trigger"
    ),
    # All tallies that begin at an instant.
    "tallies_at": (
        f"select {_COLUMNS} from tallies indexed by tallies_began where width = ? and began_at = ? "
        "order by trigger, job"
    ),
    # The tallies of the latest day on which a trigger has any.
    "last_tallies": (
        f"select {_COLUMNS} from tallies where trigger = ?1 and width = 'day' and began_at = (select max(began_at) "
        "from tallies where trigger = ?1 and width = 'day')"
    ),
    # What ended lately, of what was made lately.
    "ended_since": (
        f"select {RUN_COLUMNS} from (select * from runs indexed by runs_id where id > ? order by id desc limit ?) "
        "where finished_at > ?"
    ),
    # When the oldest tally begins.
    "first_tally_at": "select min(began_at) from tallies indexed by tallies_began where width = ?",
}  # fmt: skip

_decode = msgspec.json.Decoder(Tally).decode


def tally_row(row: TallyRow) -> tuple[Any, ...]:
    """Return a tally as a row."""
    key = row.key
    return key.trigger, key.job, key.width._value_, to_microseconds(key.began_at), encode_value(row.tally)


def _read(row: Sequence[Any]) -> TallyRow:
    key = TallyKey(trigger=row[0], job=row[1], width=Width(row[2]), began_at=from_microseconds(row[3]))
    return TallyRow(key=key, tally=_decode(row[4]))


def of_trigger(raw: sqlite3.Connection, trigger: str, width: Width, start: datetime, end: datetime) -> list[TallyRow]:
    bounds = (trigger, width._value_, to_microseconds(start), to_microseconds(end))
    return [_read(row) for row in raw.execute(QUERIES["tallies_of_trigger"], bounds)]


def of_job(raw: sqlite3.Connection, job: str, width: Width, start: datetime, end: datetime) -> list[TallyRow]:
    bounds = (job, width._value_, to_microseconds(start), to_microseconds(end))
    return [_read(row) for row in raw.execute(QUERIES["tallies_of_job"], bounds)]


def at(raw: sqlite3.Connection, width: Width, began_at: datetime) -> list[TallyRow]:
    return [_read(row) for row in raw.execute(QUERIES["tallies_at"], (width._value_, to_microseconds(began_at)))]


def last(raw: sqlite3.Connection, triggers: Collection[str]) -> list[TallyRow]:
    return [_read(row) for name in triggers for row in raw.execute(QUERIES["last_tallies"], (name,))]


def first_at(raw: sqlite3.Connection, width: Width) -> datetime | None:
    (began,) = raw.execute(QUERIES["first_tally_at"], (width._value_,)).fetchone()
    return None if began is None else from_microseconds(began)


def ended_since(raw: sqlite3.Connection, at: datetime, limit: int) -> list[Run]:
    made_after = first_id_at(at - timedelta(hours=1))
    return [read_run(row) for row in raw.execute(QUERIES["ended_since"], (made_after, limit, to_microseconds(at)))]
