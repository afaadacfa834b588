"""Deliveries in the SQLite store: what waits for a receiver, and how it went."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from engine.clock import from_microseconds, to_microseconds
from engine.deliveries import Delivery, DeliveryFilter, DeliveryHead, DeliveryState, Tried
from engine.store.rows import decode_value, encode_value

_COLUMNS = (
    "id, target, run, job, event, created_at, message, state, code, reason, attempts, due_at, finished_at"
)  # fmt: skip

MOST_FORGOTTEN = 1_000
"""Deliveries that are forgotten in one statement."""

STATEMENTS: dict[str, tuple[str, int]] = {
    # Store new deliveries; one whose id is there breaks deliveries_id.
    "insert_deliveries": (f"insert into deliveries ({_COLUMNS}) values {{rows}}", 13),
    # Note how deliveries that wait were tried.
    "tried": (
        "update deliveries set state = v.column2, code = v.column3, reason = v.column4, attempts = v.column5, "
        "due_at = v.column6, finished_at = v.column7 from (values {rows}) as v "
        "where deliveries.id = v.column1 and deliveries.state = 'waiting'",
        7,
    ),
    # Forget deliveries that ended long ago.
    "forget_deliveries": (
        "delete from deliveries where seq in (select seq from deliveries indexed by deliveries_finished "
        f"where finished_at < (values {{rows}}) order by finished_at limit {MOST_FORGOTTEN})",
        1,
    ),
}

QUERIES = {
    # One delivery.
    "delivery": f"select {_COLUMNS} from deliveries where id = ?",
    # Each target for which something waits, and when the first is due; one step for each.
    "delivery_heads": (
        "with recursive t(target) as ("
        "select min(target) from deliveries indexed by deliveries_due where state = 'waiting' union all "
        "select (select min(d.target) from deliveries d indexed by deliveries_due where d.state = 'waiting' "
        "and d.target > t.target) from t where t.target is not null) "
        "select target, (select min(due_at) from deliveries d indexed by deliveries_due "
        "where d.state = 'waiting' and d.target = t.target) from t where target is not null"
    ),
    # What is due for a target.
    "due_deliveries": (
        f"select {_COLUMNS} from deliveries indexed by deliveries_due where state = 'waiting' and target = ? "
        "and due_at <= ? order by due_at, seq limit ?"
    ),
    # How much waits, by target.
    "waiting_deliveries": (
        "select target, count(*) from deliveries indexed by deliveries_due where state = 'waiting' group by target"
    ),
    # Whether something ended before an instant.
    "has_deliveries_before": (
        "select 1 from deliveries indexed by deliveries_finished where finished_at < ? limit 1"
    ),
}  # fmt: skip


def delivery_row(one: Delivery) -> tuple[Any, ...]:
    """Return the row of a new delivery."""
    return (
        one.id, one.target, one.run, one.job, one.event, to_microseconds(one.created_at), encode_value(one.message),
        one.state._value_, one.code, one.reason, one.attempts, _micros(one.due_at), _micros(one.finished_at),
    )  # fmt: skip


def tried_row(tried: Tried) -> tuple[Any, ...]:
    """Return the row of a try."""
    ended = None if tried.state is DeliveryState.WAITING else to_microseconds(tried.at)
    return (
        tried.delivery, tried.state._value_, tried.code, tried.reason, tried.attempts, _micros(tried.due_at), ended
    )  # fmt: skip


def _micros(at: datetime | None) -> int | None:
    return None if at is None else to_microseconds(at)


def _instant(value: int | None) -> datetime | None:
    return None if value is None else from_microseconds(value)


def _read(row: Sequence[Any]) -> Delivery:
    return Delivery(
        id=row[0], target=row[1], run=row[2], job=row[3], event=row[4], created_at=from_microseconds(row[5]),
        message=decode_value(row[6]), state=DeliveryState(row[7]), code=row[8], reason=row[9], attempts=row[10],
        due_at=_instant(row[11]), finished_at=_instant(row[12]),
    )  # fmt: skip


def delivery(raw: sqlite3.Connection, delivery_id: str) -> Delivery | None:
    row = raw.execute(QUERIES["delivery"], (delivery_id,)).fetchone()
    return None if row is None else _read(row)


def deliveries(raw: sqlite3.Connection, which: DeliveryFilter, limit: int, before: str | None) -> list[Delivery]:
    clauses, values = [], []
    for column, value in (("run", which.run), ("target", which.target), ("state", which.state), ("id", before)):
        if value is not None:
            clauses.append(f"{column} {'<' if column == 'id' else '='} ?")
            values.append(str(value))
    by = "indexed by deliveries_run " if which.run is not None else ""
    where = f"where {' and '.join(clauses)} " if clauses else ""
    text = f"select {_COLUMNS} from deliveries {by}{where}order by id desc limit ?"
    return [_read(row) for row in raw.execute(text, [*values, limit])]


def heads(raw: sqlite3.Connection) -> list[DeliveryHead]:
    rows = raw.execute(QUERIES["delivery_heads"])
    return [DeliveryHead(target=target, due_at=from_microseconds(due)) for target, due in rows]


def due(raw: sqlite3.Connection, target: str, before: datetime, limit: int) -> list[Delivery]:
    rows = raw.execute(QUERIES["due_deliveries"], (target, to_microseconds(before), limit))
    return [_read(row) for row in rows]


def waiting(raw: sqlite3.Connection) -> dict[str, int]:
    return dict(raw.execute(QUERIES["waiting_deliveries"]).fetchall())


def has_before(raw: sqlite3.Connection, at: datetime) -> bool:
    return raw.execute(QUERIES["has_deliveries_before"], (to_microseconds(at),)).fetchone() is not None
