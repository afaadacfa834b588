"""Spans in the SQLite store: from when until when something was so."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from engine.clock import from_microseconds, to_microseconds
from engine.spans import Span, SpanKind
from engine.store.rows import decode_value, encode_value

_COLUMNS = "kind, name, began_at, ended_at, detail"

STATEMENTS: dict[str, tuple[str, int]] = {
    # Note spans, or how they are now.
    "note_span": (
        f"insert into spans ({_COLUMNS}) values {{rows}} on conflict (kind, name, began_at) do update set "
        "ended_at = excluded.ended_at, detail = excluded.detail",
        5,
    ),
    # Forget spans that ended long ago: once in an engine's life.
    "forget_spans": (
        "delete from spans where ended_at is not null and ended_at < (select max(column1) from (values {rows}))",
        1,
    ),
}

QUERIES = {
    # The spans of one kind and name that meet a time.
    "spans_of": (
        f"select {_COLUMNS} from spans where kind = ? and name = ? and began_at < ? "
        "and (ended_at is null or ended_at > ?) order by began_at desc limit ?"
    ),
    # The spans of one kind that meet a time.
    "spans": (
        f"select {_COLUMNS} from spans where kind = ? and began_at < ? and (ended_at is null or ended_at > ?) "
        "order by name desc, began_at desc limit ?"
    ),
    # The spans of one kind that still hold, from a name on.
    "open_spans": (
        f"select {_COLUMNS} from spans indexed by spans_open where ended_at is null and kind = ? and name > ? "
        "order by name limit ?"
    ),
    # The first span of one kind and name.
    "first_span": f"select {_COLUMNS} from spans where kind = ? and name = ? order by began_at limit 1",
}


def span_row(span: Span) -> tuple[Any, ...]:
    """Return the row of a span."""
    ended = None if span.ended_at is None else to_microseconds(span.ended_at)
    return span.kind._value_, span.name, to_microseconds(span.began_at), ended, encode_value(span.detail)


def _read_span(row: Sequence[Any]) -> Span:
    return Span(
        kind=SpanKind(row[0]), name=row[1], began_at=from_microseconds(row[2]),
        ended_at=None if row[3] is None else from_microseconds(row[3]), detail=decode_value(row[4]),
    )  # fmt: skip


def spans(
    raw: sqlite3.Connection, kind: SpanKind, name: str | None, start: datetime, end: datetime, limit: int
) -> list[Span]:
    bounds = (to_microseconds(end), to_microseconds(start), limit)
    if name is None:
        rows = raw.execute(QUERIES["spans"], (kind, *bounds)).fetchall()
    else:
        rows = raw.execute(QUERIES["spans_of"], (kind, name, *bounds)).fetchall()
    return sorted((_read_span(row) for row in rows), key=lambda span: (span.began_at, span.name))


def open_spans(raw: sqlite3.Connection, kind: SpanKind, after: str, limit: int) -> list[Span]:
    return [_read_span(row) for row in raw.execute(QUERIES["open_spans"], (kind, after, limit))]


def first_span(raw: sqlite3.Connection, kind: SpanKind, name: str) -> Span | None:
    row = raw.execute(QUERIES["first_span"], (kind, name)).fetchone()
    return None if row is None else _read_span(row)
