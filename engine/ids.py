"""Ids of events and runs: UUIDv7 (RFC 9562), so that they sort by the time of their making."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import uuid_utils

from engine.clock import EPOCH

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_TAIL = re.compile(r"[0-9a-f-]{0,27}[0-9a-f]{8}\Z")
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")


def new_id() -> str:
    """Return a new id: 36 characters, unique, and greater than every one that this process made before."""
    return str(uuid_utils.uuid7())


def first_id_at(at: datetime) -> str:
    """Return a text that sorts before every id that is made from that instant on, and after all earlier ones."""
    digits = f"{max(int(at.timestamp() * 1000), 0):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def made_at(made: str) -> datetime:
    """Return when an id was made, to the millisecond."""
    return EPOCH + timedelta(milliseconds=int(made[:8] + made[9:13], 16))


def is_id(text: str) -> bool:
    """Tell whether `text` has the form of an id; ids from outside are checked before they are used."""
    return _UUID.match(text) is not None


def is_tail(text: str) -> bool:
    """Tell whether `text` may be the last digits of an id, eight or more, by which people name what they see."""
    return _TAIL.match(text) is not None


def is_slug(text: str) -> bool:
    """Tell whether `text` may name a job, a trigger or a source.

    A name begins with a letter or digit, goes on with letters, digits, `_`, `.` and `-`, and has at most 128
    characters: so it can stand in a URL and in a file name as it is, and can't climb out of a directory.
    """
    return _SLUG.match(text) is not None
