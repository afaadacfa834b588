"""Rows as events hold them, and by what each is known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine.plugin import encode_json
from plugins.querying.rows import BadRows
from plugins.sources.database.values import as_text, plain

LONGEST_ID = 900
"""What is longer is known by its hash: keys of events and of the source's memory are bounded."""

LONGEST_SUBJECT = 1024


class Row(Struct, frozen=True, kw_only=True):
    """A row that was read.

    - `id`: what it is known by, as JSON or, where that is long, its hash; also the key of its event.
    - `cursor`: the value of the cursor's column as the database gave it.
    - `subject`: what its event is about, or None where that would be empty.
    - `data`: all columns, plain; `size`: how many bytes that is as JSON.
    """

    id: str
    cursor: Any = None
    subject: str | None
    data: dict[str, Any]
    size: int


def row_by_cursor(found: Mapping[str, Any], cursor: str, key: Sequence[str]) -> Row:
    """Return a row that is known by its cursor's value and its key. `key` is empty where that value is unique."""
    value = _column(found, cursor, "cursor")
    if value is None:
        raise BadRows(
            f"a row has no value in the cursor's column {cursor!r}, so that it has no place: "
            f"add `and {cursor} is not null` to the query"
        )
    for name in key:
        _column(found, name, "key")
    data = plain(found)
    key_values = [data[name] for name in key]
    return Row(
        id=_short([data[cursor], *key_values] if key else data[cursor]),
        cursor=value,
        subject=_subject(key_values if key else [data[cursor]]),
        data=data,
        size=len(encode_json(data)),
    )


def row_by_key(found: Mapping[str, Any], key: Sequence[str]) -> Row:
    """Return a row that is known by its key alone."""
    for name in key:
        _column(found, name, "key")
    data = plain(found)
    values = [data[name] for name in key]
    row_id = encode_json(values).decode()
    if len(row_id) > LONGEST_ID:
        raise BadRows(f"the key of a row, {row_id:.60}…, is longer than {LONGEST_ID} characters: take another `key`")
    return Row(id=row_id, subject=_subject(values), data=data, size=len(encode_json(data)))


def fingerprint(data: Mapping[str, Any]) -> str:
    """Return a hash of a row's columns, whatever their order."""
    return hashlib.blake2b(encode_json(dict(sorted(data.items()))), digest_size=16).hexdigest()


def _column(found: Mapping[str, Any], name: str, setting: str) -> Any:
    try:
        return found[name]
    except KeyError:
        columns = ", ".join(found) or "none"
        raise BadRows(
            f"the query gives no column {name!r}, which `{setting}` names; it gives: {columns:.300}"
        ) from None


def _subject(values: Sequence[Any]) -> str | None:
    return ",".join(map(as_text, values))[:LONGEST_SUBJECT] or None


def _short(value: Any) -> str:
    text = encode_json(value)
    return text.decode() if len(text) <= LONGEST_ID else f"sha256:{hashlib.sha256(text).hexdigest()}"
