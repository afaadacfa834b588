"""Backfills in the SQLite store: their rows, their queries, and those about the runs that came of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from engine.backfills import OPEN_STATES, SOURCE_PREFIX, TURNS, Backfill, BackfillState, Order
from engine.clock import from_microseconds, to_microseconds
from engine.runs import ENDED, Run, RunState
from engine.store.changes import BeginBackfill, MoveBackfill, TurnBackfill
from engine.store.rows import RUN_COLUMNS, encode_value, read_run

_COLUMNS = "id, trigger, request, state, state_reason, total, position, created_at, finished_at, definition, ends"
_OPEN = ", ".join(f"'{state}'" for state in sorted(OPEN_STATES))
_ENDED = ", ".join(f"'{state}'" for state in sorted(ENDED))
_TURNS = ", ".join(f"('{state}', '{then}')" for state in sorted(TURNS) for then in sorted(TURNS[state]))
_OF_BACKFILL = "trigger = ? and origin = 'backfill' and key >= ? and key < ?"


class _Definition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What does not change of a backfill, as its row keeps it; instants in microseconds."""

    from_us: int
    to_us: int
    timezone: str
    max_parallel: int
    order: Order
    only_missing: bool
    skipped: int
    reason: str


STATEMENTS: dict[str, tuple[str, int]] = {
    # Begin backfills; one whose id is there breaks backfills_id.
    "begin_backfill": (f"insert into backfills ({_COLUMNS}, instants) values {{rows}}", 12),
    # Note how many instants of running backfills have become events.
    "move_backfill": (
        "update backfills set position = v.column3 from (values {rows}) as v "
        "where backfills.id = v.column1 and backfills.position = v.column2 and backfills.state = 'running'",
        3,
    ),
    # Bring backfills to another state.
    "turn_backfill": (
        "update backfills set state = v.column2, state_reason = v.column3, finished_at = v.column4, "
        "ends = coalesce(v.column5, ends) from (values {rows}) as v "
        f"where backfills.id = v.column1 and (backfills.state, v.column2) in (values {_TURNS})",
        5,
    ),
}

QUERIES = {
    # One backfill.
    "backfill": f"select {_COLUMNS} from backfills where id = ?",
    # Backfills that have something left to do, the oldest first.
    "backfills_open": (
        f"select {_COLUMNS} from backfills indexed by backfills_open where state in ({_OPEN}) order by id"
    ),
    # The backfill of a request.
    "backfill_of_request": f"select {_COLUMNS} from backfills where request = ?",
    # The instants of a backfill.
    "backfill_instants": "select instants from backfills where id = ?",
    # How many runs of a backfill stand in each state.
    "backfill_counts": f"select state, count(*) from runs indexed by runs_key where {_OF_BACKFILL} group by state",
    # The runs of a backfill that have not ended.
    "backfill_runs": (
        f"select {RUN_COLUMNS} from runs indexed by runs_key where {_OF_BACKFILL} and state not in ({_ENDED}) "
        "order by key"
    ),
    # The due instants of a trigger that have run with success, with one run each.
    "succeeded_instants": (
        "select scheduled_for, max(id) from runs indexed by runs_succeeded_for where trigger = ? "
        "and state = 'succeeded' and scheduled_for is not null and scheduled_for >= ? and scheduled_for < ? "
        "and origin in ('schedule', 'backfill') group by scheduled_for order by scheduled_for"
    ),
}  # fmt: skip


def change_row(change: BeginBackfill | MoveBackfill | TurnBackfill) -> tuple[str, tuple[Any, ...]]:
    """Return the statement of a change and its row."""
    if isinstance(change, MoveBackfill):
        return "move_backfill", (change.backfill, change.before, change.position)
    if isinstance(change, TurnBackfill):
        ends = None if change.ends is None else encode_value(change.ends)
        at = None if change.ends is None else to_microseconds(change.at)
        return "turn_backfill", (change.backfill, change.state._value_, change.reason, at, ends)
    backfill = change.backfill
    definition = _Definition(
        from_us=to_microseconds(backfill.from_at), to_us=to_microseconds(backfill.to_at), timezone=backfill.timezone,
        max_parallel=backfill.max_parallel, order=backfill.order, only_missing=backfill.only_missing,
        skipped=backfill.skipped, reason=backfill.reason,
    )  # fmt: skip
    finished = None if backfill.finished_at is None else to_microseconds(backfill.finished_at)
    return "begin_backfill", (
        backfill.id, backfill.trigger, backfill.request, backfill.state._value_, backfill.state_reason, backfill.total,
        backfill.position, to_microseconds(backfill.created_at), finished, encode_value(definition),
        encode_value(backfill.ends), encode_value([to_microseconds(instant) for instant in change.instants]),
    )  # fmt: skip


def _read_backfill(row: Sequence[Any]) -> Backfill:
    definition = msgspec.json.decode(row[9], type=_Definition)
    return Backfill(
        id=row[0], trigger=row[1], request=row[2], state=BackfillState(row[3]), state_reason=row[4], total=row[5],
        position=row[6], created_at=from_microseconds(row[7]),
        finished_at=None if row[8] is None else from_microseconds(row[8]),
        from_at=from_microseconds(definition.from_us), to_at=from_microseconds(definition.to_us),
        timezone=definition.timezone, max_parallel=definition.max_parallel, order=definition.order,
        only_missing=definition.only_missing, skipped=definition.skipped, reason=definition.reason,
        ends=msgspec.json.decode(row[10], type=dict[RunState, int]),
    )  # fmt: skip


def _keys(backfill: Backfill) -> tuple[str, str, str]:
    """Return the trigger, and between which keys all runs of the backfill lie: '!' follows the blank."""
    return backfill.trigger, f"{SOURCE_PREFIX}{backfill.id} ", f"{SOURCE_PREFIX}{backfill.id}!"


def backfill(raw: sqlite3.Connection, backfill_id: str) -> Backfill | None:
    row = raw.execute(QUERIES["backfill"], (backfill_id,)).fetchone()
    return None if row is None else _read_backfill(row)


def backfill_of_request(raw: sqlite3.Connection, request: str) -> Backfill | None:
    row = raw.execute(QUERIES["backfill_of_request"], (request,)).fetchone()
    return None if row is None else _read_backfill(row)


def backfills(raw: sqlite3.Connection, limit: int, before: str | None) -> list[Backfill]:
    clause, values = ("", (limit,)) if before is None else ("where id < ? ", (before, limit))
    text = f"select {_COLUMNS} from backfills {clause}order by id desc limit ?"
    return [_read_backfill(row) for row in raw.execute(text, values)]


def open_backfills(raw: sqlite3.Connection) -> list[Backfill]:
    return [_read_backfill(row) for row in raw.execute(QUERIES["backfills_open"])]


def backfill_instants(raw: sqlite3.Connection, backfill_id: str) -> tuple[datetime, ...]:
    row = raw.execute(QUERIES["backfill_instants"], (backfill_id,)).fetchone()
    found: list[int] = [] if row is None else msgspec.json.decode(row[0])
    return tuple(from_microseconds(instant) for instant in found)


def backfill_counts(raw: sqlite3.Connection, backfill: Backfill) -> dict[RunState, int]:
    return {RunState(state): count for state, count in raw.execute(QUERIES["backfill_counts"], _keys(backfill))}


def backfill_runs(raw: sqlite3.Connection, backfill: Backfill) -> list[Run]:
    return [read_run(row) for row in raw.execute(QUERIES["backfill_runs"], _keys(backfill))]


def succeeded_instants(raw: sqlite3.Connection, trigger: str, start: datetime, end: datetime) -> dict[datetime, str]:
    rows = raw.execute(QUERIES["succeeded_instants"], (trigger, to_microseconds(start), to_microseconds(end)))
    return {from_microseconds(instant): run for instant, run in rows}
