"""From rows to events. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby

from msgspec import Struct

from engine.plugin import Event
from plugins.sources.database.rows import Row

_BATCH_BYTES = len('{"rows":[]}')


class Told(Struct, frozen=True, kw_only=True):
    """A row that is to be told of, the type of its event, and its key."""

    type: str
    key: str
    row: Row


class Refused(Struct, frozen=True, kw_only=True):
    """An event in the place of a row that none can hold, and why."""

    event: Event
    reason: str


def events_of(told: Sequence[Told], *, as_batch: bool, max_data: int) -> tuple[list[Event], list[Refused]]:
    """Return the events of some rows, in their order, and what could be none: rows beyond `max_data` bytes.

    `as_batch`: rows that follow each other and have the same type are one event, or several where that is too large.
    """
    room = max_data - _BATCH_BYTES if as_batch else max_data
    refused = [_refused(one, room) for one in told if one.row.size > room]
    fitting = [one for one in told if one.row.size <= room]
    if as_batch:
        return [_batch(part) for part in _parts(fitting, room)], refused
    return [Event(type=one.type, subject=one.row.subject, data=one.row.data, key=one.key) for one in fitting], refused


def _parts(told: Sequence[Told], room: int) -> Iterator[list[Told]]:
    for _, group in groupby(told, key=lambda one: one.type):
        part: list[Told] = []
        size = 0
        for one in group:
            size += one.row.size + 1
            if part and size > room + 1:
                yield part
                part, size = [], one.row.size + 1
            part.append(one)
        yield part


def _batch(part: Sequence[Told]) -> Event:
    # The same rows are the same event, should they ever be offered again.
    digest = hashlib.sha256("\n".join(one.key for one in part).encode()).hexdigest()
    last = part[-1]
    data = {"rows": [one.row.data for one in part]}
    return Event(type=last.type, subject=last.row.subject, data=data, key=f"{len(part)}:sha256:{digest}")


def _refused(one: Told, room: int) -> Refused:
    data = {"bytes": one.row.size, "columns": [name[:200] for name in list(one.row.data)[:200]]}
    event = Event(type=one.type, subject=one.row.subject, data=data, key=one.key)
    reason = f"the row is {one.row.size} bytes as JSON, an event holds {room}: let the query leave columns out"
    return Refused(event=event, reason=reason)
