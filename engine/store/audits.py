"""The audit log in the SQLite store: rows are added, and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from engine.audits import FIRST, Audit, AuditFilter, AuditRow, Chain, linked, text_of, verify
from engine.clock import to_microseconds

QUERIES = {
    # The number and the hash of the last row.
    "audit_head": "select seq, hash from audit_head",
    # Add a row.
    "add_audit": "insert into audit (seq, entry, hash) values (?, ?, ?)",
    # Note the last row.
    "move_audit_head": "insert or replace into audit_head (one, seq, hash) values (1, ?, ?)",
    # All rows, in their order.
    "audit_rows": "select seq, entry, hash from audit order by seq",
}


def append(raw: sqlite3.Connection, audits: Iterable[Audit]) -> None:
    """Add rows, within a transaction."""
    found = raw.execute(QUERIES["audit_head"]).fetchone()
    seq, before = (0, FIRST) if found is None else found
    for audit in audits:
        text = text_of(audit)
        seq += 1
        before = linked(before, seq, text)
        raw.execute(QUERIES["add_audit"], (seq, text, before))
    raw.execute(QUERIES["move_audit_head"], (seq, before))


def page(raw: sqlite3.Connection, which: AuditFilter, limit: int, before: int | None) -> list[AuditRow]:
    """Return rows, the newest first."""
    clauses, values = [], []
    wanted: tuple[tuple[str, Any], ...] = (
        ("who = ?", which.who), ("action = ?", which.action), ("target = ?", which.target),
        ("outcome = ?", which.outcome and which.outcome.value),
        ("at >= ?", which.start and to_microseconds(which.start)), ("at < ?", which.end and to_microseconds(which.end)),
        ("seq < ?", before),
    )  # fmt: skip
    for clause, value in wanted:
        if value is not None:
            clauses.append(clause)
            values.append(value)
    where = f"where {' and '.join(clauses)} " if clauses else ""
    rows = raw.execute(f"select seq, entry, hash from audit {where}order by seq desc limit ?", [*values, limit])
    return [AuditRow(seq=row[0], text=row[1], hash=row[2]) for row in rows]


def check(raw: sqlite3.Connection) -> Chain:
    """Follow the whole chain. Reads the whole log, row by row."""
    raw.execute("begin")  # the rows and the head are of one moment
    try:
        return verify(_rows(raw), raw.execute(QUERIES["audit_head"]).fetchone())
    finally:
        raw.execute("rollback")


def _rows(raw: sqlite3.Connection) -> Iterator[AuditRow]:
    for seq, text, digest in raw.execute(QUERIES["audit_rows"]):
        yield AuditRow(seq=seq, text=text, hash=digest)
